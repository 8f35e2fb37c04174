"""The small process between the supervisor and a notebook's process.

It starts the notebook's process, copies its output to the logs, watches time and memory, and
ensures that nothing outlives the run: it adopts every orphan of the tree, and it notices the
death of the supervisor, however that dies. At the end it sends one result.

Its connections::

    supervisor ──request, cancel──▶ guardian ──fork──▶ notebook
               ◀──── Outcome ────          ◀─cells, record─
                                   ◀─stdout, stderr (pipes)──

A template's guardian guards one run after another, each with its own notebook process, forked in
advance. No notebook code runs in the guardian, so it stays as fresh as the template.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from research_jobs.protocol import RunRequest, decode
from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    as_text_mapping,
    receive_frame,
    receive_message,
    send_message,
)
from research_jobs.runtime.guarded_run import GivenRun, GuardedRun, Surroundings
from research_jobs.runtime.keeping import stay
from research_jobs.runtime.notebook_process import NotebookProcess, name_after, name_spare

__all__ = ["run_guardian", "start_guardian"]


def start_guardian(control: int, parent: int, stdout: int, stderr: int) -> NoReturn:
    """Guard one run in this process, which was started cold, and exit."""
    descriptor = processes.open_process(parent)
    if os.getppid() != parent:
        os._exit(1)
    given = GivenRun(control, stdout, stderr, parent, descriptor)
    run_guardian(
        Surroundings(next_run=lambda _wake: given, path=tuple(sys.path), isolation="spawn")
    )


def run_guardian(surroundings: Surroundings) -> NoReturn:
    """Guard runs in this process as long as they come, and exit."""
    status = 1
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        processes.adopt_orphans()
        wake = _wake_up_for_children()
        forked = surroundings.isolation == "fork"
        errors = os.dup(2) if forked else -1
        again = True
        while again:
            child = NotebookProcess.fork(surroundings.path)
            given = surroundings.next_run(wake)
            again = given is not None and _guard(surroundings, child, wake, given) and forked
            if again:
                _forget_run(wake, errors)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing could handle it any more
        with contextlib.suppress(Exception):
            os.write(2, traceback.format_exc().encode())
    finally:
        # In any case, nothing that this process has started may stay.
        processes.signal_all(processes.descendants(os.getpid()), signal.SIGKILL)
        os._exit(status)


def _guard(
    surroundings: Surroundings,
    child: NotebookProcess,
    wake: int,
    given: GivenRun,
) -> bool:
    """Guard one run; return whether nothing of it is left, so that another may follow."""
    # Errors here belong in the run's log.
    os.dup2(given.stderr, 2)
    kept: GuardedRun | None = None
    try:
        with socket.socket(fileno=given.control) as connection:
            start = receive_message(connection)
            payload = receive_frame(connection) if start is not None else None
            if start is None or payload is None:
                return False
            request = decode(payload)
            assert isinstance(request, RunRequest)
            name_after(request, guards=True)
            # Before the notebook's process has its orders: from here on the caller can end us.
            send_message(connection, "Guarded", guardian=os.getpid())
            guardian = GuardedRun(surroundings, given, connection, request, child)
            child.order(
                {
                    "environment": _environment(start, request),
                    "umask": int(start.get("umask", 0o022)),
                    "group": guardian.watch.group,
                },
                payload,
            )
            clean = guardian.run(wake, given.stdout, given.stderr)
            kept = guardian if guardian.kept else None
    finally:
        for descriptor in (given.stdout, given.stderr, given.supervisor_descriptor):
            if descriptor is not None:
                os.close(descriptor)
        if kept is None:
            child.close()
    if kept is not None:
        stay(kept, wake)
    return clean


def _forget_run(wake: int, errors: int) -> None:
    """Reset this process to its state after the fork, for the next notebook process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(errors, 2)
    processes.empty(wake)
    name_spare()
    # Only objects created after the template's freeze: nothing of the run's request stays.
    gc.collect()


def _wake_up_for_children() -> int:
    """A descriptor that is readable when a child has ended; Ctrl-C is not for this process."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reader, _ = processes.wake_for_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reader


def _environment(start: Mapping[str, Any], request: RunRequest) -> dict[str, str]:
    environment = as_text_mapping(start.get("environment", {}))
    environment["RESEARCH_JOBS_PROJECT"] = request.project_root
    environment["RESEARCH_JOBS_STORE"] = request.store
    environment.update(request.environment)
    return environment
