"""The morning page of a project: an overview as the reports' first page shows it.

A run adds only its own line beside the page. Whoever looks at the whole project writes it anew:
`research-jobs watch` each minute, `research-jobs report` and `research-jobs ui` at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import dagster as dg

from research_jobs.decisions.account import Account
from research_jobs.orchestration.execution.gallery import share_pages
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.operations.account import read_account
from research_jobs.orchestration.operations.history import Memory
from research_jobs.orchestration.operations.overview import (
    Attention,
    NotebookLine,
    Overview,
    local_now,
    read_overview,
    reruns_of,
    same_cause,
    zone_name,
)
from research_jobs.orchestration.operations.rounds import DoctorBook
from research_jobs.outcome import Outcome, totals
from research_jobs.report.gallery import plain, write_page
from research_jobs.report.header import readable_duration
from research_jobs.report.morning import FailedCheck, MorningPage, Problem, Row, Run, Trouble
from research_jobs.upkeep.proof import BackupBook

__all__ = ["look_and_write", "morning_page", "write_morning_page"]

logger = logging.getLogger("research_jobs")

_CHARTS = ("thumbnail.png", "thumbnail.svg", "thumbnail.jpg", "thumbnail.js")


def look_and_write(
    instance: dg.DagsterInstance, catalog: Catalog, *, memory: Memory | None = None
) -> Path:
    """Look at the project since yesterday and write its page.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    memory : Memory, optional
        Of the look before.
    """
    now = local_now(catalog)
    yesterday = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    overview = read_overview(instance, catalog, now, yesterday, memory=memory)
    account = read_account(instance, catalog, yesterday.timestamp(), now.timestamp())
    return write_morning_page(catalog, overview, account)


def write_morning_page(
    catalog: Catalog, overview: Overview, account: Account | None = None
) -> Path:
    """Write the reports' first page.

    Parameters
    ----------
    catalog : Catalog
    overview : Overview
    account : Account, optional
        Of the ticks that schedules owed.

    Returns
    -------
    Path
        The page.
    """
    path = write_page(catalog.project.reports, morning_page(catalog, overview, account))
    refused = share_pages(catalog)
    if refused is not None:
        logger.warning("%s", refused)
    return path


def morning_page(
    catalog: Catalog, overview: Overview, account: Account | None = None
) -> MorningPage:
    """An overview as the page shows it."""
    groups = {line.notebook: _group(line) for line in overview.notebooks}
    failing = {one.notebook for one in overview.attention}
    doctor = DoctorBook.read(catalog.project)
    return MorningPage(
        now=overview.now,
        zone=zone_name(overview.now),
        since=f"{overview.since:%a %d %b %H:%M}",
        ended=totals(overview.ended),
        problems=tuple(
            _problem(catalog, group, groups, overview.now)
            for group in same_cause(overview.attention)
        ),
        rows=tuple(
            _row(catalog, line, overview.now, attention=line.notebook in failing)
            for line in overview.notebooks
        ),
        account=_numbers(account) if account is not None else {},
        accounted=f"{_moment(account.start, overview.now):%a %d %b %H:%M}" if account else "",
        backup=BackupBook.read(catalog.project).describe(overview.now.timestamp())
        if catalog.manifest.backup is not None
        else "",
        examined=_moment(doctor.at, overview.now),
        wrong=tuple(FailedCheck(one.check, one.detail, one.fix) for one in doctor.wrong),
    )


def _numbers(account: Account) -> dict[str, int]:
    """What became of the ticks; what no tick became is left out, but for the unaccounted."""
    if not account.owed:
        return {}
    counts = {became.value: count for became, count in account.counts.items()}
    return {"owed": account.owed} | {
        name: count for name, count in counts.items() if count or name == "unaccounted"
    }


def _group(line: NotebookLine) -> str:
    return line.group or "default"  # as Dagster calls it


def _problem(
    catalog: Catalog, group: list[Attention], groups: Mapping[str, str], now: datetime
) -> Problem:
    first = group[0]
    oldest = min((one.since for one in group if one.since), default=None)
    return Problem(
        first.state,
        tuple(Trouble(one.notebook, one.partition, _address(catalog, one.report)) for one in group),
        reason=first.reason if len(group) == 1 else first.cause,
        since=_moment(oldest, now),
        reruns=tuple(reruns_of(group)),
        times=first.times,
        groups=tuple(sorted({groups[one.notebook] for one in group})),
    )


def _row(catalog: Catalog, line: NotebookLine, now: datetime, *, attention: bool) -> Row:
    entry = catalog.entries[line.notebook]
    last, partitions = line.last, line.partitions
    tags = (f"{name}: {value}" if value else name for name, value in entry.spec.tags.items())
    return Row(
        line.notebook,
        line.state,
        _group(line),
        plain(entry.spec.description or entry.notebook.description)[:200],
        tuple(tags),
        tuple(entry.spec.owners),
        report=_address(catalog, last.report),
        thumbnail=_thumbnail(catalog.project.reports, line.notebook),
        ended=_moment(last.ended_at, now),
        next_tick=line.next_tick.astimezone(now.tzinfo) if line.next_tick else None,
        started=round(last.started_at, 3),
        took=last.duration_s or None,
        strip=tuple(Run(outcome.state, _when(outcome, now)) for outcome in line.strip),
        made=len(partitions.with_data) if partitions is not None else None,
        partitions=len(partitions.keys) if partitions is not None else None,
        failed=len(partitions.failed) if partitions is not None else 0,
        used_by=line.used_by,
        unusual=line.unusual,
        attention=attention,
    )


def _when(outcome: Outcome, now: datetime) -> str:
    moment = _moment(outcome.started_at, now)
    took = readable_duration(outcome.duration_s) if outcome.duration_s else ""
    said = [f"{moment:%a %d %b %H:%M}" if moment else "", outcome.partition or "", took]
    return ", ".join(part for part in said if part)


def _moment(unix: float | None, now: datetime) -> datetime | None:
    return datetime.fromtimestamp(unix, now.tzinfo) if unix else None


def _address(catalog: Catalog, report: str | None) -> str | None:
    """A report's address from the page; None where it is not kept, or is somewhere else."""
    if report is None:
        return None
    path = Path(report)
    try:
        place = path.relative_to(catalog.project.reports)
    except ValueError:
        return None
    return quote(place.as_posix()) if path.exists() else None


def _thumbnail(reports: Path, notebook: str) -> str | None:
    """A notebook's last chart, with its time so that a browser does not show an older one."""
    found: list[tuple[float, str]] = []
    for name in _CHARTS:
        path = reports / notebook / name
        if path.is_file():
            found.append((path.stat().st_mtime, quote(path.relative_to(reports).as_posix())))
    if not found:
        return None
    moment, address = max(found)
    return f"{address}?{int(moment)}"
