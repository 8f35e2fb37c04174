"""The long-lived programs of a project: each says who it is, so that the watch can find and end it.

Each writes one file below ``.research_jobs/services`` when it starts, and none when it ends: one
that is not there any more is what the watch looks for. Standard library only.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from research_jobs.filesystem import write_atomically
from research_jobs.project import Project
from research_jobs.runtime import processes

logger = logging.getLogger("research_jobs")

__all__ = ["OWNER_VARIABLE", "Service", "register", "registered"]

OWNER_VARIABLE = "RESEARCH_JOBS_SERVICES_OWNER"
"""Pid of the program that has started the services and ends with them: ``dagster dev``."""

_POLL_S = 0.05


@dataclass(frozen=True)
class Service:
    """A long-lived program of this machine.

    Parameters
    ----------
    name : str
        As a person calls it: ``code server``, ``daemon``, ``webserver``.
    pid : int
    started : str
        What tells it from a later process of that pid (`processes.start_of`).
    since : float
        When it started, Unix time in seconds.
    address : str or None
        Where it listens: ``http://host:port``, ``unix:path`` or ``host:port``.
    owner : int or None
        The process to end instead, which starts all of its services again.
    owner_started : str or None
        What tells it from a later process of that pid, as `started` does.
    """

    name: str
    pid: int
    started: str
    since: float
    address: str | None = None
    owner: int | None = None
    owner_started: str | None = None

    @property
    def alive(self) -> bool:
        """bool: whether that very process is there."""
        return processes.start_of(self.pid) == self.started

    def end(self, patience_s: float) -> None:
        """End it, politely first. Whoever keeps it running, as systemd does, starts it again.

        Parameters
        ----------
        patience_s : float
            How long it may take before it is killed.
        """
        if not self.alive:
            return
        pid, started = self.pid, self.started
        # Its pid may be another process's by now.
        if self.owner and self.owner_started == processes.start_of(self.owner):
            pid, started = self.owner, self.owner_started
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                if processes.start_of(pid) != started:
                    return
                time.sleep(_POLL_S)


def register(project: Project, name: str, address: str | None = None) -> None:
    """Say that the calling process is one of a project's services.

    Parameters
    ----------
    project : Project
    name : str
        Also the name of its file, with dashes for blanks.
    address : str, optional
        Where it listens.
    """
    pid = os.getpid()
    said = os.environ.pop(OWNER_VARIABLE, None)  # not for the notebooks
    owner = int(said) if said else None
    service = Service(
        name,
        pid,
        processes.start_of(pid) or "",
        time.time(),
        address,
        owner,
        processes.start_of(owner) if owner else None,
    )
    try:
        write_atomically(
            _folder(project) / f"{name.replace(' ', '-')}.json",
            json.dumps(asdict(service)).encode(),
            private=True,
        )
    except OSError as error:  # a full disk: better a service that the watch does not know than none
        logger.warning("The %s cannot be registered: %s", name, error)


def registered(project: Project) -> dict[str, Service]:
    """The services that have said who they are, by name, whether or not they live."""
    services: dict[str, Service] = {}
    folder = project.state / "services"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            service = Service(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue  # being replaced, or of another version
        services[service.name] = service
    return services


def _folder(project: Project) -> Path:
    return project.make_state_folder("services")
