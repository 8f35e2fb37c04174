"""What a person asks each morning: what needs attention, what is unusual, and the rest.

One truth for `research-jobs status` and for whatever else shows it. Nothing is stored here: it is
all read from Dagster's history, the store and the manifest.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.orchestration.model.status import partition_status
from research_jobs.orchestration.model.stored import stored_keys
from research_jobs.orchestration.operations.backfill_plan import spans_of
from research_jobs.orchestration.operations.history import (
    RunningSchedule,
    next_ticks,
    read_histories,
    running_schedules,
)
from research_jobs.outcome import Outcome, State, cause_of
from research_jobs.units import readable_size

__all__ = ["Attention", "NotebookLine", "Overview", "attention_of", "read_overview", "same_cause"]

# How many runs a notebook's line shows, and among how many of the last of all they are looked for.
STRIP = 14
RUNS_LOOKED_AT = 2000
# A tick that nothing came of counts as late after so many seconds.
LATE_S = 15 * 60
# Unusual: so many times the median of the runs before, and at least so much more.
TIMES = 2.0
MORE_SECONDS = 5.0
MORE_BYTES = 100 * 2**20
FEWEST = 5
SPANS = 5


@dataclass(frozen=True)
class Attention:
    """Something that a person should look at.

    Parameters
    ----------
    notebook : str
    state : State
        One that is not `State.ok`; `State.LATE` and `State.MISSING` among them.
    partition : str or None
        A key, or several and spans ``first...last``, separated by commas.
    since : float or None
        Unix time, seconds: the first of the failures in a row, or the tick.
    reason : str or None
        One line.
    report : str or None
        The page of the last run's report.
    rerun : str
        The command that runs it again.
    times : int
        Failures in a row.
    """

    notebook: str
    state: State
    partition: str | None = None
    since: float | None = None
    reason: str | None = None
    report: str | None = None
    rerun: str = ""
    times: int = 1

    @property
    def cause(self) -> str:
        """str: what is the same for failures of one cause: the reason without its place."""
        return cause_of(self.reason)


@dataclass(frozen=True)
class NotebookLine:
    """One notebook at a glance.

    Parameters
    ----------
    notebook : str
    last : Outcome
        Of its last run.
    strip : tuple of State
        What became of its last runs, the newest last.
    materialized, partitions : int or None
        How many of its partitions have data, of how many.
    next_tick : datetime or None
    used_by : int
        How many notebooks read it, directly or not.
    unusual : tuple of str
        What is slower or larger than usual, one line each.
    """

    notebook: str
    last: Outcome
    strip: tuple[State, ...] = ()
    materialized: int | None = None
    partitions: int | None = None
    next_tick: datetime | None = None
    used_by: int = 0
    unusual: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overview:
    """The whole project at one moment.

    Parameters
    ----------
    attention : tuple of Attention
        The worst state first.
    notebooks : tuple of NotebookLine
    ended : mapping of State to int
        How many runs of notebooks ended how since a moment.
    """

    attention: tuple[Attention, ...]
    notebooks: tuple[NotebookLine, ...]
    ended: Mapping[State, int] = field(default_factory=dict[State, int])


def read_overview(
    instance: dg.DagsterInstance, catalog: Catalog, now: datetime, since: float
) -> Overview:
    """Look at all notebooks of a project.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    now : datetime
        With a time zone.
    since : float
        Unix time, seconds: endings from then on are counted.
    """
    histories = read_histories(
        instance, catalog, catalog, limit=STRIP, looked_at=RUNS_LOOKED_AT, since=since
    )
    ticks = next_ticks(instance, catalog, now)
    schedules = running_schedules(instance, catalog)
    used_by = _used_by(catalog)
    attention: list[Attention] = []
    lines: list[NotebookLine] = []
    for entry in catalog:
        history = histories[entry.name]
        counts: tuple[int | None, int | None] = None, None
        if entry.error is not None:
            attention.append(_broken(entry, history))
        elif entry.partitioned:
            found, counts = _partitions(instance, catalog, entry, history)
            attention += found
        else:
            attention += _unpartitioned(entry, history, schedules, now)
        lines.append(
            NotebookLine(
                entry.name,
                history[0] if history else Outcome(State.NEVER_RUN, notebook=entry.name),
                tuple(outcome.state for outcome in reversed(history[:STRIP])),
                *counts,
                next_tick=ticks.get(entry.name),
                used_by=used_by[entry.name],
                unusual=tuple(_unusual(history)),
            )
        )
    ended: dict[State, int] = {}
    for outcome in (outcome for history in histories.values() for outcome in history):
        if outcome.state.ended and (outcome.ended_at or 0) >= since:
            ended[outcome.state] = ended.get(outcome.state, 0) + 1
    attention.sort(key=lambda one: (-one.state.order, one.notebook))
    return Overview(tuple(attention), tuple(lines), ended)


def attention_of(outcomes: Iterable[Outcome]) -> list[Attention]:
    """What needs attention of some runs that have just ended, but for those that were cancelled."""
    return [
        Attention(
            outcome.notebook,
            outcome.state,
            partition=outcome.partition,
            since=outcome.started_at or None,
            reason=outcome.reason or _behind(outcome),
            report=outcome.report,
            rerun=f"research-jobs run {outcome.notebook}"
            + (f" --partition {shlex.quote(outcome.partition)}" if outcome.partition else ""),
        )
        for outcome in outcomes
        if not outcome.state.ok and outcome.state is not State.CANCELLED
    ]


def same_cause(attention: Iterable[Attention]) -> list[list[Attention]]:
    """Put what failed for the same reason together; the order of the first of each is kept."""
    groups: dict[tuple[State, str], list[Attention]] = {}
    for one in attention:
        # What nothing is known of has nothing in common.
        key = (one.state, one.cause or f"{one.notebook}\0{one.partition}")
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _broken(entry: Entry, history: Sequence[Outcome]) -> Attention:
    assert entry.error is not None
    return Attention(
        entry.name,
        State.BLOCKED,
        since=history[0].ended_at if history else None,
        reason=entry.error.headline,
        rerun=f"research-jobs run {entry.name}",
    )


def _unpartitioned(
    entry: Entry, history: Sequence[Outcome], schedules: Sequence[RunningSchedule], now: datetime
) -> list[Attention]:
    """A last run that did not do what it should, and a tick that nothing came of."""
    if not history or history[0].state in (State.RUNNING, State.WAITING):
        return []
    rerun = f"research-jobs run {entry.name}"
    last = history[0]
    found: list[Attention] = []
    if not last.state.ok:
        row = _in_a_row(history)
        found.append(
            Attention(
                entry.name,
                last.state,
                since=row[-1].started_at or None,
                reason=last.reason or _behind(last),
                report=last.report,
                rerun=rerun,
                times=len(row),
            )
        )
    ticks = [
        schedule.tick_after(max(last.started_at + 1, schedule.since))
        for schedule in schedules
        if entry.name in schedule.notebooks and schedule.since is not None
    ]
    tick = min(ticks, default=None)
    if tick is not None and now.timestamp() - tick.timestamp() > LATE_S:
        why = f"nothing has run since its tick at {tick:%a %d %b %H:%M}"
        found.append(
            Attention(entry.name, State.LATE, since=tick.timestamp(), reason=why, rerun=rerun)
        )
    return found


def _in_a_row(history: Sequence[Outcome]) -> list[Outcome]:
    """The newest runs up to the last that did what it should."""
    row: list[Outcome] = []
    for outcome in history:
        if outcome.state.ok:
            break
        row.append(outcome)
    return row


def _behind(outcome: Outcome) -> str | None:
    names = ", ".join(outcome.blocked_by)
    return f"what it depends on failed: {names}" if names else None


def _partitions(
    instance: dg.DagsterInstance, catalog: Catalog, entry: Entry, history: Sequence[Outcome]
) -> tuple[list[Attention], tuple[int | None, int | None]]:
    """Failed partitions and holes between those that exist; how many of how many exist."""
    try:
        definition = build_partitions(entry.spec, cache=catalog.project.state / "cache")
    except PartitionError as error:
        broken = Attention(
            entry.name,
            State.BLOCKED,
            reason=error.headline,
            rerun=f"research-jobs run {entry.name}",
        )
        return [broken], (None, None)
    if definition is None:
        return [], (None, None)
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        keys = [str(key) for key in definition.get_partition_keys()]
    stored = stored_keys(catalog.project.store, entry)
    status = partition_status(instance, catalog.names.key(entry.name), keys, stored=stored)
    found: list[Attention] = []
    known = [index for index, key in enumerate(keys) if key in status.materialized | status.failed]
    due = keys[known[0] :] if known else []
    missing = [key for key in due if key in set(status.missing) - status.failed]
    failures = [outcome for outcome in history if not outcome.state.ok]
    last = failures[0] if failures else None
    for state, theirs, option in (
        (last.state if last else State.FAILED, [k for k in keys if k in status.failed], "failed"),
        (State.MISSING, missing, "missing"),
    ):
        if not theirs:
            continue
        failed = option == "failed"
        found.append(
            Attention(
                entry.name,
                state,
                partition=_shown(spans_of(definition, theirs, instance)),
                since=(last.started_at or None) if failed and last else None,
                reason=(last.reason if last else None) if failed else _many(len(theirs)),
                report=last.report if failed and last else None,
                rerun=f"research-jobs backfill {entry.name} --{option}",
                times=len(theirs),
            )
        )
    return found, (len(status.materialized), len(keys))


def _many(count: int) -> str:
    return "a partition has no data" if count == 1 else f"{count:,} partitions have no data"


def _shown(spans: Sequence[str]) -> str:
    more = f" and {len(spans) - SPANS} more" if len(spans) > SPANS else ""
    return ", ".join(spans[:SPANS]) + more


def _used_by(catalog: Catalog) -> dict[str, int]:
    readers = dict.fromkeys(catalog.entries, 0)
    for entry in catalog:
        for name in catalog.upstream_of(entry.name):
            if name in readers:
                readers[name] += 1
    return readers


def _unusual(history: Sequence[Outcome]) -> Iterable[str]:
    """What was slower or larger in the last run than in those before, by the median."""
    good = [outcome for outcome in history if outcome.state is State.SUCCEEDED]
    if len(good) <= FEWEST or good[0] is not history[0]:
        return
    last, before = good[0], good[1:]
    usual = statistics.median(outcome.duration_s for outcome in before)
    if last.duration_s > TIMES * usual and last.duration_s - usual > MORE_SECONDS:
        yield f"took {last.duration_s:.0f} s, usually {usual:.0f} s"
    usual = statistics.median(outcome.peak_memory_bytes for outcome in before)
    if last.peak_memory_bytes > TIMES * usual and last.peak_memory_bytes - usual > MORE_BYTES:
        yield f"used {readable_size(last.peak_memory_bytes)}, usually {readable_size(usual)}"
