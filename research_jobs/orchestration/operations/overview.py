"""What a person asks each morning: what needs attention, what is unusual, and the rest.

One truth for `research-jobs status` and for whatever else shows it. Nothing is stored here: it is
all read from Dagster's history, the store and the manifest.
"""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from research_jobs.errors import PartitionError, ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.orchestration.model.status import PartitionStatus
from research_jobs.orchestration.operations.backfill_plan import spans_among
from research_jobs.orchestration.operations.history import (
    Memory,
    RunningSchedule,
    read_histories,
    read_partition_events,
    read_partitions,
    running_schedules,
    state_of,
    ticks_of,
)
from research_jobs.outcome import Outcome, State, cause_of
from research_jobs.units import readable_size

__all__ = [
    "Attention",
    "NotebookLine",
    "Overview",
    "attention_of",
    "local_now",
    "read_overview",
    "reruns_of",
    "same_cause",
    "zone_name",
]

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
    state : State
        Of its last run; blocked where it cannot run at all.
    last : Outcome
        Of its last run.
    strip : tuple of Outcome
        What became of its last runs, the newest last.
    partitions : PartitionStatus or None
    next_tick : datetime or None
    used_by : int
        How many notebooks read it, directly or not.
    slower, larger : str or None
        That its last run took longer, or used more memory, than usual.
    group : str or None
    """

    notebook: str
    state: State
    last: Outcome
    strip: tuple[Outcome, ...] = ()
    partitions: PartitionStatus | None = None
    next_tick: datetime | None = None
    used_by: int = 0
    slower: str | None = None
    larger: str | None = None
    group: str | None = None

    @property
    def unusual(self) -> tuple[str, ...]:
        """What is slower or larger than usual, one line each."""
        return tuple(filter(None, (self.slower, self.larger)))


@dataclass(frozen=True)
class Overview:
    """The whole project at one moment.

    Parameters
    ----------
    attention : tuple of Attention
        The worst state first.
    notebooks : tuple of NotebookLine
    now : datetime
        That moment, in the zone in which its times are shown.
    since : datetime
    ended : mapping of State to int
        How many runs of notebooks ended how since then.
    """

    attention: tuple[Attention, ...]
    notebooks: tuple[NotebookLine, ...]
    now: datetime
    since: datetime
    ended: Mapping[State, int] = field(default_factory=dict[State, int])


def read_overview(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    now: datetime,
    since: datetime,
    *,
    memory: Memory | None = None,
) -> Overview:
    """Look at all notebooks of a project.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    now, since : datetime
        With a time zone. Endings from `since` on are counted, among the last runs of all: where
        there were more, the overview's `since` is later.
    memory : Memory, optional
        Of the look before, which makes this one cheaper.
    """
    recent = instance.get_run_records(limit=RUNS_LOOKED_AT)
    if len(recent) == RUNS_LOOKED_AT:  # what was before is not counted, and not said to be
        since = max(since, recent[-1].create_timestamp.astimezone(since.tzinfo))
    start = since.timestamp()
    histories = read_histories(
        instance, catalog, catalog, limit=STRIP, recent=recent, since=start, memory=memory
    )
    events = read_partition_events(instance, catalog, catalog)
    schedules = running_schedules(instance, catalog)
    ticks = ticks_of(schedules, now)
    used_by = _used_by(catalog)
    attention: list[Attention] = []
    lines: list[NotebookLine] = []
    for entry in catalog:
        history = histories[entry.name]
        last = history[0] if history else Outcome(State.NEVER_RUN, notebook=entry.name)
        error, partitions = entry.error, None
        try:
            partitions = read_partitions(
                instance, catalog, entry,
                history=history, memory=memory, events=events.get(entry.name),
            )  # fmt: skip
        except PartitionError as wrong:
            error = error or wrong
        if error is not None:
            attention.append(_broken(entry, error, history))
        elif partitions is not None:
            attention += _partitioned(catalog, entry, partitions, history)
        else:
            attention += _unpartitioned(entry, history, schedules, now)
        lines.append(
            NotebookLine(
                entry.name,
                state_of(entry, last),
                last,
                tuple(reversed(history[:STRIP])),
                partitions,
                next_tick=ticks.get(entry.name),
                used_by=used_by[entry.name],
                slower=_slower(history),
                larger=_larger(history),
                group=entry.spec.group,
            )
        )
    ended = Counter(
        outcome.state
        for history in histories.values()
        for outcome in history
        if outcome.state.ended and (outcome.ended_at or 0) >= start
    )
    # What a person cancelled is no surprise.
    attention.sort(key=lambda one: (one.state is State.CANCELLED, -one.state.order, one.notebook))
    return Overview(tuple(attention), tuple(lines), now, since, ended)


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


def reruns_of(group: Sequence[Attention]) -> list[str]:
    """The commands that run a group again: one for all that the same options run again."""
    names: dict[tuple[str, ...], list[str]] = {}
    for one in group:
        program, verb, name, *options = one.rerun.split(" ", 3)
        own = [name] if options and "--partition" in options[0] else []
        names.setdefault((program, verb, *options, *own), []).append(name)
    return [
        " ".join([program, verb, *dict.fromkeys(some), *options[:1]])
        for (program, verb, *options), some in names.items()
    ]


def local_now(catalog: Catalog) -> datetime:
    """The moment in the zone in which times are shown: the manifest's, else the machine's."""
    named = catalog.manifest.defaults.timezone
    return datetime.now(ZoneInfo(named)) if named else datetime.now().astimezone()


def zone_name(moment: datetime) -> str:
    """What the zone of a moment is called."""
    return getattr(moment.tzinfo, "key", None) or moment.strftime("%Z")


def _broken(entry: Entry, error: ResearchJobsError, history: Sequence[Outcome]) -> Attention:
    return Attention(
        entry.name,
        State.BLOCKED,
        since=history[0].ended_at if history else None,
        reason=error.headline,
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


def _partitioned(
    catalog: Catalog,
    entry: Entry,
    status: PartitionStatus,
    history: Sequence[Outcome],
) -> list[Attention]:
    """Failed partitions, and holes between those that exist."""
    definition = build_partitions(entry.spec, cache=catalog.project.state / "cache")
    assert definition is not None
    keys = status.keys
    found: list[Attention] = []
    tried = status.materialized | status.failed
    first = next((index for index, key in enumerate(keys) if key in tried), len(keys))
    absent = set(status.missing) - status.failed
    missing = [key for key in keys[first:] if key in absent]
    # A run over a range names its first and last.
    failures = [
        outcome
        for outcome in history
        if not outcome.state.ok
        and (outcome.partition in status.failed or "..." in (outcome.partition or ""))
    ]
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
                partition=_shown(spans_among(definition, keys, theirs)),
                since=(failures[-1].started_at or None) if failed and last else None,
                reason=(last.reason if last else None) if failed else _many(len(theirs)),
                report=last.report if failed and last else None,
                rerun=f"research-jobs backfill {entry.name} --{option}",
                times=len(theirs),
            )
        )
    return found


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


def _slower(history: Sequence[Outcome]) -> str | None:
    """That the last run took longer than those before, by the median."""
    found = _beyond_usual(history, lambda outcome: outcome.duration_s, MORE_SECONDS)
    return found and f"took {found[0]:.0f} s, usually {found[1]:.0f} s"


def _larger(history: Sequence[Outcome]) -> str | None:
    """That the last run used more memory than those before, by the median."""
    found = _beyond_usual(history, lambda outcome: outcome.peak_memory_bytes, MORE_BYTES)
    return found and f"used {readable_size(found[0])}, usually {readable_size(found[1])}"


def _beyond_usual(
    history: Sequence[Outcome], measure: Callable[[Outcome], float], more: float
) -> tuple[float, float] | None:
    """What the last run measures, and what is usual, if it is far more and can be compared."""
    good = [outcome for outcome in history if outcome.state is State.SUCCEEDED]
    if len(good) <= FEWEST or good[0] is not history[0]:
        return None
    last, usual = measure(good[0]), statistics.median(map(measure, good[1:]))
    return (last, usual) if last > TIMES * usual and last - usual > more else None
