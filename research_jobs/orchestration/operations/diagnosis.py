"""What the doctor's checks look at and answer."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.project import Project

__all__ = ["Answer", "Site", "command", "ill", "unknown", "well"]

SYSTEMD = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Answer:
    """What a check has found.

    Parameters
    ----------
    ok : bool or None
        None where it cannot be told here.
    detail : str
        One line.
    fix : str
        A command or an edit; empty where there is nothing to do.
    """

    ok: bool | None
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Site:
    """An installation.

    Parameters
    ----------
    project : Project
        The process must have entered it (`enter_project`).
    units : Path
        Where units are installed.
    now : float
        Unix time, seconds.
    """

    project: Project
    units: Path = SYSTEMD
    now: float = field(default_factory=time.time)

    @cached_property
    def catalog(self) -> Catalog:
        """Catalog: the notebooks and the manifest."""
        return load_catalog(self.project)

    @property
    def installed_units(self) -> list[Path]:
        """List of Path: our units that are installed."""
        return sorted(self.units.glob("research-jobs-*.service"))

    def restart(self, service: str) -> str:
        """The command that starts a service, or starts it again."""
        unit = f"research-jobs-{'code' if service == 'code server' else service}"
        if (self.units / f"{unit}.service").is_file():
            return f"systemctl restart {unit}"
        return "research-jobs ui"


def well(detail: str) -> Answer:
    """The answer of a check that finds nothing wrong."""
    return Answer(ok=True, detail=detail)


def ill(detail: str, fix: str) -> Answer:
    """The answer of a check that finds something wrong, and what to do about it."""
    return Answer(ok=False, detail=detail, fix=fix)


def unknown(detail: str, fix: str = "") -> Answer:
    """The answer of a check that cannot be made here."""
    return Answer(ok=None, detail=detail, fix=fix)


def command(*words: object) -> str:
    """A command as a shell takes it; ``python`` stands for this interpreter."""
    return shlex.join(sys.executable if word == "python" else str(word) for word in words)
