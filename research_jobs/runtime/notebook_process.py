"""The notebook's process, from its fork until it has its orders.

It is forked before the run is known, so everything that does not depend on the run is already done
when a run comes. A template keeps one ready.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

from research_jobs.outcome import Failure, failed
from research_jobs.protocol import RunRequest, decode, encode
from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    as_text_mapping,
    message,
    receive_frame,
    receive_message,
    send_frame,
)
from research_jobs.runtime.ending import shown_path
from research_jobs.runtime.fresh import FreshState, become_fresh, prepare
from research_jobs.runtime.memory import enter_group

__all__ = ["SPARE_NAME", "NotebookProcess", "name_after", "name_spare"]

SPARE_NAME = "rj-spare"


def name_spare() -> None:
    """Make ``ps`` show that this process waits for a run."""
    processes.name_process(SPARE_NAME, "research_jobs: waits for a run")


def name_after(request: RunRequest, *, guards: bool) -> None:
    """Make ``ps`` show the notebook that this process runs or guards."""
    last = request.notebook.rpartition("/")[2]
    if guards:
        processes.name_process(f"rj:{last}", f"research_jobs: guards {request.notebook}")
    else:
        processes.name_process(last, f"research_jobs: {request.notebook}")


@dataclass(frozen=True)
class NotebookProcess:
    """A process that waits for a notebook, from its guardian's side.

    Parameters
    ----------
    pid : int
    stdout, stderr : int
        Reading ends of its pipes.
    channel : socket
        Orders to it, its record from it.
    faults : int
        A file that takes The Python stack at a fault.
    refusals : int
        Reading end of a pipe on which a worker reports that it tried to import the notebook.
    """

    pid: int
    stdout: int
    stderr: int
    channel: socket.socket
    faults: int
    refusals: int

    @classmethod
    def fork(cls, path: tuple[str, ...]) -> NotebookProcess:
        """Fork one; the calling process becomes its guardian.

        Parameters
        ----------
        path : tuple of str
            The interpreter's own ``sys.path``.
        """
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        ours, theirs = socket.socketpair()
        refused_reader, refused_writer = os.pipe()
        faults = _memory_file()
        guardian = os.getpid()
        pid = os.fork()
        if pid == 0:
            private = _Private(theirs, faults, refused_writer)
            _live(guardian, private, out_writer, err_writer, path)
        for descriptor in (out_writer, err_writer, refused_writer):
            os.close(descriptor)
        theirs.close()
        return cls(pid, out_reader, err_reader, ours, faults, refused_reader)

    def order(self, start: dict[str, Any], request: bytes) -> None:
        """Send it its run.

        Parameters
        ----------
        start : mapping
            ``environment``, ``umask`` and ``group`` (a cgroup to enter, or None).
        request : bytes
            The payload of the request's frame, as it came.
        """
        with contextlib.suppress(OSError):  # if it has ended, that is noticed elsewhere
            self.channel.sendall(message("Order", **start))
            send_frame(self.channel, request)

    def close(self) -> None:
        """Close its descriptors, except the pipes, which their readers close."""
        self.channel.close()
        os.close(self.faults)
        os.close(self.refusals)

    def fault_text(self) -> str:
        """The stack written at a fault."""
        with contextlib.suppress(OSError):
            return os.pread(self.faults, 256 * 1024, 0).decode("utf-8", "replace")
        return ""


@dataclass(frozen=True)
class _Private:
    """Our descriptors in the notebook's process: its ends of channel, faults and refusals."""

    channel: socket.socket
    faults: int
    refusals: int


def _live(
    guardian: int,
    private: _Private,
    stdout: int,
    stderr: int,
    path: tuple[str, ...],
) -> NoReturn:
    """Run the notebook's process from start to end."""
    status = 1
    channel, faults = private.channel, private.faults
    try:
        processes.die_with_parent(guardian)
        os.setsid()
        name_spare()
        processes.prefer_for_oom()
        keep = (channel.fileno(), faults, private.refusals)
        prepare(stdout=stdout, stderr=stderr, keep=keep, faults=faults)
        from research_jobs.runtime.child import run_child

        order = receive_message(channel)
        payload = receive_frame(channel) if order is not None else None
        if order is not None and payload is not None:
            request = decode(payload)
            assert isinstance(request, RunRequest)
            descriptor = channel.detach()
            _take_on(order, request, descriptor, path)
            run_child(request, descriptor, private.refusals)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing could handle it any more
        with contextlib.suppress(Exception):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _take_on(
    order: dict[str, Any], request: RunRequest, descriptor: int, path: tuple[str, ...]
) -> None:
    """Become the process of this run; on failure, report it."""
    try:
        name_after(request, guards=False)
        if order.get("group"):
            enter_group(str(order["group"]))
        first = tuple(dict.fromkeys(request.sys_path))
        become_fresh(
            FreshState(
                environment=as_text_mapping(order["environment"]),
                working_directory=request.working_directory,
                argv=(request.path,),
                sys_path=(*first, *(entry for entry in path if entry not in first)),
                umask=int(order["umask"]),
            )
        )
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is not None:
            reason = f"{error.strerror}: {error.filename}"
        headline = f"{shown_path(request)}: its process could not be set up: {reason}"
        os.write(descriptor, encode(failed(Failure(headline))))
        raise
    os.write(descriptor, message("Begun"))


def _memory_file() -> int:
    """A private file without a name."""
    create = getattr(os, "memfd_create", None)
    if create is not None:
        return int(create("research_jobs_faults"))
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("notebooks run on systems that fork: Linux and macOS")
