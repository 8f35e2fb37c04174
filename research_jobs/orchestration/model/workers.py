"""The process that works on a run: a tag names it, so that it can be found, and seen to be gone."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dagster import DagsterRun

from research_jobs.runtime.processes import start_of

__all__ = [
    "PROCESS_TAG",
    "SEEN_TAG",
    "SERVER_TAG",
    "Worker",
    "claim_run",
    "command_tags",
    "is_begun",
    "machine_of",
    "process_tag",
    "worker_of",
]

PROCESS_TAG = "research_jobs/process"
"""Tag that says which process works on a run: run, machine, pid, and when that started."""

SEEN_TAG = "research_jobs/seen"
"""Tag that says when the process of a run last said that it is there."""

_MAX_RETRIES_TAG = "dagster/max_retries"

SERVER_TAG = ".dagster/grpc_info"
"""Dagster's, on a run that a code server was asked to work on."""


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
    return f"{run_id[:8]}:{_Machine.here()}:{os.getpid()}:{start_of(os.getpid())}"


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
    said = _said(run)
    if said is None:
        return None
    machine, pid, started = said
    if not pid.isdigit():
        return None
    where, here = _Machine.read(machine), _Machine.here()
    if where.was_this_one(here):
        return Worker(int(pid), alive=False)
    if not where.is_this_one(here):
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
    if SERVER_TAG in run.tags or _said(run) is not None:
        return True
    if sys.platform != "linux":
        return False  # no host there
    claim = claim_run(run.run_id)
    if claim is None:
        return True
    claim.close()
    return False


def machine_of(run: DagsterRun) -> str | None:
    """The host name of the machine on which a run's process is, or was, as its tag says."""
    said = _said(run)
    return _Machine.read(said[0]).host if said is not None else None


def _said(run: DagsterRun) -> tuple[str, str, str] | None:
    """Machine, pid and start as the tag of a run says them; None for a copied or missing tag."""
    mine, _, rest = run.tags.get(PROCESS_TAG, "").partition(":")
    if mine != run.run_id[:8] or not rest:
        return None
    machine, _, rest = rest.partition(":")
    pid, _, started = rest.partition(":")
    return machine, pid, started


@dataclass(frozen=True)
class _Machine:
    """What tells machines apart, so that one's pids are not taken for another's.

    Parameters
    ----------
    host : str
        Its name. Others may have the same: every image of a virtual machine has one.
    namespace : str
        In which pids mean something: a container has its own. Of the first one, the number is the
        same on all machines.
    boot : str
        The kernel's own name of the time since it was booted; empty where there is none.
    install : str
        Stays over a reboot; empty in most containers.
    """

    host: str
    namespace: str
    boot: str = ""
    install: str = ""

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.boot}/{self.install}"

    @classmethod
    def read(cls, text: str) -> _Machine:
        host, namespace, boot, install, *_ = [*text.split("/"), "", "", ""]
        return cls(host, namespace, boot, install)

    @classmethod
    @cache
    def here(cls) -> _Machine:
        namespace = 0
        with suppress(OSError):
            namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - of no use as a Path
        boot = _first_line("/proc/sys/kernel/random/boot_id")
        return cls(socket.gethostname(), str(namespace), boot, _first_line("/etc/machine-id"))

    def is_this_one(self, here: _Machine) -> bool:
        """Whether its pids are those of `here`."""
        if self.namespace != here.namespace:
            return False
        if self.boot and here.boot:
            return self.boot == here.boot  # also where the host has been renamed
        return self.host == here.host  # a tag of an earlier version, or not Linux

    def was_this_one(self, here: _Machine) -> bool:
        """Whether it is `here` before a reboot, which no process outlives."""
        same = (self.host, self.namespace, self.install) == (
            here.host,
            here.namespace,
            here.install,
        )
        return same and bool(self.install and self.boot and here.boot) and self.boot != here.boot


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
