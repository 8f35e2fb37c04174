"""What is wrong at one moment, as conditions that somebody may want to be told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from research_jobs.decisions.account import Account, AccountedTick, Became
from research_jobs.manifest.backup import BackupSpec
from research_jobs.manifest.kinds import Kind
from research_jobs.notify.condition import Condition
from research_jobs.orchestration.compat.daemon import LastTick
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.causes import error_line
from research_jobs.orchestration.operations.health import Finding
from research_jobs.orchestration.operations.overview import Overview
from research_jobs.outcome import State
from research_jobs.project import Project
from research_jobs.store.presence import find_absence
from research_jobs.units import readable_size
from research_jobs.upkeep.proof import BackupBook, age

__all__ = [
    "clock_jump",
    "of_account",
    "of_backup",
    "of_disks",
    "of_finding",
    "of_overview",
    "of_store",
    "of_ticks",
]

_KINDS = {
    State.LATE: Kind.LATE,
    State.MISSING: Kind.MISSING,
    State.BLOCKED: Kind.BLOCKED,
    State.REFUSED: Kind.REFUSED,
    **dict.fromkeys(
        (State.FAILED, State.TIMED_OUT, State.OUT_OF_MEMORY, State.CRASHED, State.EXITED),
        Kind.FAILED,
    ),
}

# A disk is nearly full below this share, or below these bytes where that is less.
DISK_SHARE = 0.05
DISK_BYTES = 10 * 2**30


def of_overview(overview: Overview, catalog: Catalog, now: float) -> Iterator[Condition]:
    """Conditions of notebooks: what needs attention, and what is slower or larger than usual.

    Parameters
    ----------
    overview : Overview
    catalog : Catalog
    now : float
        Unix time, seconds: since when, where it is not known.
    """
    for one in overview.attention:
        kind = _KINDS.get(one.state)
        if kind is None:  # cancelled, by a person
            continue
        yield _of_notebook(
            catalog.entries.get(one.notebook),
            Condition(
                kind,
                one.notebook,
                one.reason or one.state.words,
                one.since or now,
                notebook=one.notebook,
                partition=one.partition,
                report=one.report,
                rerun=one.rerun,
            ),
        )
    for line in overview.notebooks:
        for kind, said in ((Kind.SLOW, line.slower), (Kind.LARGE, line.larger)):
            if said is not None:
                yield _of_notebook(
                    catalog.entries.get(line.notebook),
                    Condition(
                        kind,
                        line.notebook,
                        said,
                        line.last.ended_at or now,
                        notebook=line.notebook,
                        report=line.last.report,
                        run_id=line.last.run_id or None,
                    ),
                )


def _of_notebook(entry: Entry | None, condition: Condition) -> Condition:
    """With what says for whom it is."""
    if entry is None:
        return condition
    spec = entry.spec
    return replace(condition, group=spec.group, tags=dict(spec.tags), owners=tuple(spec.owners))


def of_account(account: Account) -> Iterator[Condition]:
    """Ticks that nothing came of, until the schedule's next tick that did what it should."""
    last: dict[str, AccountedTick] = {}
    for tick in account.ticks:
        if tick.became is not Became.UNACCOUNTED:  # it may still come
            last[tick.schedule] = tick
    for tick in last.values():
        if tick.became is Became.MISSED:
            reason = tick.reason or "nothing came of it"
            yield Condition(
                Kind.MISSED_TICK,
                tick.schedule,
                f"its tick of {tick.at:%a %d %b %H:%M %Z}: {reason}",
                tick.at.timestamp(),
            )


def of_finding(finding: Finding, since: float) -> Condition:
    """A service that fails."""
    kind = Kind.CODE if finding.code else Kind.SERVICE
    return Condition(kind, finding.service, finding.wrong, since)


def of_ticks(ticks: Iterable[LastTick]) -> Iterator[Condition]:
    """Schedules and sensors whose last tick failed."""
    for tick in ticks:
        if tick.error is not None:
            yield Condition(Kind.TICK_FAILED, tick.name, error_line(tick.error), tick.at)


def of_disks(project: Project, now: float) -> Iterator[Condition]:
    """File systems of the project that are nearly full, of bytes or of inodes."""
    folders = [project.root, project.state, project.reports]
    if project.store_is_local:
        folders.append(Path(project.store))
    if home := os.environ.get("DAGSTER_HOME"):
        folders.append(Path(home))
    seen: set[int] = set()
    for folder in folders:
        try:
            device = folder.stat().st_dev
            state = os.statvfs(folder)
        except OSError:
            continue
        if device in seen or not state.f_blocks:
            continue
        seen.add(device)
        size, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
        if free < min(DISK_SHARE * size, DISK_BYTES):
            # The same at each look: the number that changes would be news each time.
            least = readable_size(min(DISK_SHARE * size, DISK_BYTES))
            reason = f"less than {least} of {readable_size(size)} is free"
            yield Condition(Kind.DISK, f"the disk of {folder}", reason, now)
        elif state.f_files and state.f_favail < DISK_SHARE * state.f_files:
            reason = f"less than {DISK_SHARE:.0%} of its {state.f_files:,} inodes are free"
            yield Condition(Kind.DISK, f"the disk of {folder}", reason, now)


def of_store(project: Project, now: float) -> Iterator[Condition]:
    """A store that had outputs and has none: its disk is not mounted, say."""
    absence = find_absence(project)
    if absence is not None:
        yield Condition(Kind.STORE, "the store", absence.why, now)


def of_backup(project: Project, spec: BackupSpec | None, now: float) -> Iterator[Condition]:
    """Backups or proofs that fail, or none that was proven lately; nothing without `backup`."""
    if spec is None:
        return
    book = BackupBook.read(project)
    if book.failing:
        reason = "; ".join(f"its {what} fails: {why}" for what, (_, why) in book.failing.items())
        since = min(at for at, _ in book.failing.values())
    elif book.proven is None:
        reason = "none was proven yet: run research-jobs backup --verify"
        since = book.made or now
    elif now - book.proven > spec.verify:
        reason = f"the last proven one is older than {age(spec.verify)}"
        since = book.proven + spec.verify
    else:
        return
    yield Condition(Kind.BACKUP, "the backup", reason, since)


def clock_jump(seconds: float, now: float) -> Condition:
    """The clock was set while the watch looked.

    Parameters
    ----------
    seconds : float
        By how much; below zero when it was set back.
    now : float
    """
    way = "forward" if seconds > 0 else "back"
    return Condition(
        Kind.CLOCK, "the clock", f"it was set {way} by {abs(seconds):,.0f} seconds", now
    )
