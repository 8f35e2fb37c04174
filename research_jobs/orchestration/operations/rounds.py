"""What the doctor found when it looked last, and its rounds while the watch runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from research_jobs.filesystem import write_atomically
from research_jobs.project import Project

__all__ = ["Check", "DoctorBook", "Rounds", "due"]

# Seconds after the watch's begin: a check of a service that is starting up would be wrong.
FIRST_S = 120.0
# Seconds until the next look, where all was well and where not.
WELL_S, WRONG_S = 86_400.0, 3600.0
# Seconds that a look may take; one whose every check hangs takes a little less.
LONGEST_S = 600.0


@dataclass(frozen=True)
class Check:
    """A check and its answer.

    Parameters
    ----------
    check : str
    ok : bool or None
        None where it cannot be told here.
    detail, fix : str
    """

    check: str
    ok: bool | None
    detail: str
    fix: str


@dataclass(frozen=True)
class DoctorBook:
    """The doctor's last look: ``.research_jobs/doctor.json``.

    Parameters
    ----------
    at : float or None
        When it was, Unix time; None before the first one.
    checks : tuple of Check
    """

    at: float | None = None
    checks: tuple[Check, ...] = ()

    @property
    def wrong(self) -> tuple[Check, ...]:
        """Tuple of Check: those that found something wrong."""
        return tuple(one for one in self.checks if one.ok is False)

    @classmethod
    def read(cls, project: Project) -> DoctorBook:
        """The project's; an empty one where there is none."""
        try:
            said = json.loads((project.state / "doctor.json").read_bytes())
            checks = tuple(
                Check(str(one["check"]), one["ok"], str(one["detail"]), str(one["fix"]))
                for one in said["checks"]
            )
            return cls(float(said["at"]), checks)
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    @classmethod
    def write(cls, project: Project, checks: Sequence[Check], mask: Callable[[str], str]) -> None:
        """Write what was found just now.

        Parameters
        ----------
        project : Project
        checks : sequence of Check
        mask : callable
            Masks secrets: the page may be for many.

        Raises
        ------
        OSError
            When it cannot be written.
        """
        said = [asdict(replace(one, detail=mask(one.detail), fix=mask(one.fix))) for one in checks]
        text = json.dumps({"at": time.time(), "checks": said})
        write_atomically(project.make_state_folder() / "doctor.json", text.encode(), private=True)


def due(book: DoctorBook, began: float, tried: float, now: float) -> bool:
    """Whether it is time for the doctor to look.

    Parameters
    ----------
    book : DoctorBook
    began, tried : float
        When the watch began, and when it had the doctor look last (0 for never); Unix time.
    now : float
    """
    last = max(book.at or 0.0, tried)
    if last < began:
        return now - began >= FIRST_S
    unanswered = (book.at or 0.0) < tried
    # A clock that was set back makes no look wait for longer.
    return not 0 <= now - last < (WRONG_S if book.wrong or unanswered else WELL_S)


class Rounds:
    """Has the doctor look when it is due, in a process that nobody waits for.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._began = time.time()
        self._tried = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def go(self, now: float) -> None:
        """Start a look if it is due, and end one that takes too long.

        Parameters
        ----------
        now : float
            Unix time, seconds.
        """
        if self._process is not None:
            if self._process.poll() is None and 0 <= now - self._tried < LONGEST_S:
                return
            self.close()
        if due(DoctorBook.read(self._project), self._began, self._tried, now):
            self._tried = now
            # -P: no file of the project takes the place of a module
            doctor = (sys.executable, "-P", "-m", "research_jobs.cli.main", "doctor")
            with suppress(OSError):  # no process can be started now: tried again in an hour
                self._process = subprocess.Popen(
                    [*doctor, "--project", str(self._project.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )

    def close(self) -> None:
        """End the look that is under way, if one is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
