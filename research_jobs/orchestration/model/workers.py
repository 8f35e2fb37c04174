"""The process that works on a run: a tag names it, so that it can be found, and seen to be gone."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass

from dagster import DagsterRun

from research_jobs.runtime.processes import start_of

__all__ = [
    "PROCESS_TAG",
    "Worker",
    "claim_run",
    "command_tags",
    "is_begun",
    "process_tag",
    "worker_of",
]

PROCESS_TAG = "research_jobs/process"
"""Tag that says which process works on a run: run, machine, pid, and when that started."""

_MAX_RETRIES_TAG = "dagster/max_retries"
# Dagster's, on a run that a code server was asked to work on.
_SERVER_TAG = ".dagster/grpc_info"


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
    return f"{run_id[:8]}:{_machine()}:{os.getpid()}:{start_of(os.getpid())}"


def command_tags(run_id: str) -> dict[str, str]:
    """The tags of a run that a command works on.

    Such a run is not retried when the command is killed: whoever started it decides.
    """
    return {PROCESS_TAG: process_tag(run_id), _MAX_RETRIES_TAG: "0"}


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
    # A pid is used again: the same one started at another time is another process.
    return Worker(int(pid), alive=start_of(int(pid)) == started)


def claim_run(run_id: str) -> socket.socket | None:
    """Become the one process of this machine that the host has work on a run.

    Parameters
    ----------
    run_id : str

    Returns
    -------
    socket or None
        Holds the claim until it is closed, at the latest with the process. None where another
        process has it.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # A name in Linux's abstract namespace: it leaves nothing behind, whatever ends the process.
        claim.bind(b"\0research_jobs/run/%d/%s" % (os.getuid(), run_id.encode()))
    except OSError:
        claim.close()
        return None
    return claim


def is_begun(run: DagsterRun) -> bool:
    """Whether a process works on a run that is starting, or a code server was asked for one."""
    if _SERVER_TAG in run.tags or run.tags.get(PROCESS_TAG, "").startswith(run.run_id[:8]):
        return True
    if sys.platform != "linux":
        return False  # no host there
    claim = claim_run(run.run_id)
    if claim is None:
        return True
    claim.close()
    return False


def _machine() -> str:
    """Host and, where there are such, the namespace in which its pids mean something."""
    namespace = 0
    with suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - of no use as a Path
    return f"{socket.gethostname()}/{namespace}"
