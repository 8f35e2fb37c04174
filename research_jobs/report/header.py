"""The header of a report: which run it is, and how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from research_jobs.outcome import Outcome

__all__ = [
    "ReportHeader",
    "local_time",
    "readable_duration",
]


@dataclass(frozen=True)
class ReportHeader:
    """Which run a report is of.

    Parameters
    ----------
    outcome : Outcome
    run_url : str or None
        Where the run is shown: an address, or a path in Dagster's UI.
    path : str or None
        The notebook's file as a person should see it.
    code_version, git_commit : str or None
    timezone : str or None
        IANA name in which times are shown; None for the machine's own.
    used_by : sequence of str
        The notebooks that read its outputs.
    """

    outcome: Outcome
    run_url: str | None = None
    path: str | None = None
    code_version: str | None = None
    git_commit: str | None = None
    timezone: str | None = None
    used_by: Sequence[str] = ()

    @property
    def rerun(self) -> str:
        """str: the command that runs it again."""
        words = ["research-jobs", "run", self.outcome.notebook]
        if self.outcome.partition is not None:
            words += ["--partition", self.outcome.partition]
        return shlex.join(words)


def local_time(unix: float, zone: str | None) -> datetime:
    """A point in time as the readers' clocks show it."""
    moment = datetime.fromtimestamp(unix, timezone.utc)
    if zone is not None:
        try:
            return moment.astimezone(ZoneInfo(zone))
        except (ZoneInfoNotFoundError, ValueError):
            pass
    return moment.astimezone()


def readable_duration(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
