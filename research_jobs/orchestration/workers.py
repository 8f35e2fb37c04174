"""The process that works on a run: a tag names it, so that it can be found, told, and missed."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass

from dagster import DagsterRun

__all__ = ["PROCESS_TAG", "Worker", "process_tag", "worker_of"]

PROCESS_TAG = "research_jobs/process"
"""Tag that says which process works on a run: run, machine, pid, start time."""

# Two processes of one pid that started within so many seconds are taken for one.
_SAME_START_S = 2


@dataclass(frozen=True)
class Worker:
    """The process of this machine that works on a run, or did.

    Parameters
    ----------
    pid : int
    alive : bool
    """

    pid: int
    alive: bool


def process_tag(run_id: str) -> str:
    """The value of `PROCESS_TAG` for a run that the calling process works on."""
    import psutil

    started = psutil.Process().create_time()
    return f"{run_id[:8]}:{_machine()}:{os.getpid()}:{started:.0f}"


def worker_of(run: DagsterRun) -> Worker | None:
    """The process that a run's tag names.

    Returns
    -------
    Worker or None
        None where there is no such tag, and where it cannot be judged from here: of another
        machine or container, or copied from another run, as Dagster does to start one again.
    """
    mine, _, rest = run.tags.get(PROCESS_TAG, "").partition(":")
    machine, _, rest = rest.partition(":")
    pid, _, started = rest.partition(":")
    if mine != run.run_id[:8] or machine != _machine() or not pid.isdigit():
        return None
    return Worker(int(pid), _is_alive(int(pid), started))


def _machine() -> str:
    """Host and, where there are such, the namespace in which its pids mean something."""
    namespace = 0
    with suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - of no use as a Path
    return f"{socket.gethostname()}/{namespace}"


def _is_alive(pid: int, started: str) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        # A pid is used again: the same one started at another time is another process.
        same = abs(process.create_time() - float(started)) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
