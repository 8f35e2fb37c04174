"""What stands above a report: which run it is, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from research_jobs.protocol import Failure, RunResult

__all__ = [
    "OutputLine",
    "ReportHeader",
    "header_of",
    "local_time",
    "readable_bytes",
    "readable_duration",
]


@dataclass(frozen=True)
class OutputLine:
    """One declared output, as the header lists it.

    Parameters
    ----------
    name : str
    rows : int or None
    bytes : int
    """

    name: str
    rows: int | None
    bytes: int


@dataclass(frozen=True)
class ReportHeader:
    """Which run a report is of.

    Parameters
    ----------
    notebook : str
        Its name, ``volatility/garch``.
    ending : str
        A value of `research_jobs.protocol.Ending`.
    run_id : str
    run_url : str or None
        Where the run is shown: an address, or a path in Dagster's UI.
    path : str or None
        The notebook's file as a person should see it.
    partition : str or None
        Partition key.
    parameters : mapping of str to str
        As used, short text.
    started_at : float
        Unix time, seconds.
    duration_s : float
        Seconds.
    peak_memory_bytes : int
    code_version, git_commit : str or None
    skip_reason : str or None
    failure : Failure or None
    outputs : tuple of OutputLine
    notes : tuple of str
        One line each: what was left out or cut short.
    timezone : str or None
        IANA name in which times are shown; None for the machine's own.
    """

    notebook: str
    ending: str
    run_id: str
    run_url: str | None = None
    path: str | None = None
    partition: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    started_at: float = 0.0
    duration_s: float = 0.0
    peak_memory_bytes: int = 0
    code_version: str | None = None
    git_commit: str | None = None
    skip_reason: str | None = None
    failure: Failure | None = None
    outputs: tuple[OutputLine, ...] = ()
    notes: tuple[str, ...] = ()
    timezone: str | None = None

    @property
    def ok(self) -> bool:
        """bool: whether the run succeeded or said that there was nothing to do."""
        return self.ending in ("succeeded", "skipped")


def header_of(
    result: RunResult,
    *,
    notebook: str,
    run_id: str,
    run_url: str | None = None,
    path: str | None = None,
    partition: str | None = None,
    code_version: str | None = None,
    git_commit: str | None = None,
    timezone: str | None = None,
) -> ReportHeader:
    """The header of the report of a run.

    Parameters
    ----------
    result : RunResult
        What became of the run.
    notebook, run_id, run_url, path, partition, code_version, git_commit, timezone
        As in `ReportHeader`.

    Returns
    -------
    ReportHeader
    """
    return ReportHeader(
        notebook=notebook,
        ending=str(result.ending),
        run_id=run_id,
        run_url=run_url,
        path=path,
        partition=partition,
        parameters=dict(result.parameters),
        started_at=result.started_at,
        duration_s=result.duration_s,
        peak_memory_bytes=result.peak_memory_bytes,
        code_version=code_version,
        git_commit=git_commit,
        skip_reason=result.skip_reason,
        failure=result.failure,
        outputs=tuple(OutputLine(item.name, item.rows, item.bytes) for item in result.outputs),
        notes=tuple(result.notes),
        timezone=timezone,
    )


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


def readable_bytes(size: float) -> str:
    """``312 B``, ``4.1 KB``, ``128 MB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
