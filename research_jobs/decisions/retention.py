"""Which runs may go from Dagster's history, from facts alone.

A run is kept whole, thinned, or removed. A thinned run keeps what the instance counts and a person
looks up: its record, its materialisations, observations, checks and endings. Its log goes.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["AssetEvent", "Fate", "HistoryRun", "Kind", "Rules", "Verdict", "decide", "latest"]

# Nothing younger is touched, seconds: the watch accounts for the last day.
UNTOUCHED_S = 2 * 86_400.0


class Fate(Enum):
    """What becomes of a run."""

    KEPT = "kept"
    THINNED = "thinned"
    REMOVED = "removed"


class Kind(Enum):
    """What an event says of an asset or of one of its partitions."""

    MADE = "made"
    OBSERVED = "observed"
    PLANNED = "planned"
    CHECKED = "checked"


@dataclass(frozen=True)
class Rules:
    """What is kept.

    Parameters
    ----------
    age_s : float
        Runs that are younger stay.
    keep : int
        So many of the last runs of each notebook stay, however old.
    most : int
        A run that is not among so many of the last of a notebook goes, however young.
    """

    age_s: float
    keep: int
    most: int


@dataclass(frozen=True)
class HistoryRun:
    """A run.

    Parameters
    ----------
    id : str
    at : float
        When it ended or, of one that is not over, was created: Unix time, seconds.
    of : tuple of str
        The assets that it was to make; without any, its job.
    over, failed : bool
    root : str or None
        The run that it repeats.
    ours : bool
        Whether it is of this code location.
    going_on : bool
        Whether it belongs to a backfill that is not over.
    thinned : bool
    """

    id: str
    at: float
    of: tuple[str, ...] = ()
    over: bool = True
    failed: bool = False
    root: str | None = None
    ours: bool = True
    going_on: bool = False
    thinned: bool = False


@dataclass(frozen=True)
class AssetEvent:
    """What a run said of an asset.

    Parameters
    ----------
    number : int
        Its place among all events.
    run : str
    asset : str
    partition : str or None
    kind : Kind
    check : str
        Of a check, its name.
    inputs : mapping of str to int
        Of a materialisation: each asset that it was made of, and the number of that one's event.
    """

    number: int
    run: str
    asset: str
    partition: str | None
    kind: Kind
    check: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def subject(self) -> tuple[str, str | None]:
        """The asset, or the partition of it."""
        return self.asset, self.partition


@dataclass(frozen=True)
class Verdict:
    """What becomes of a run, and why it does not go."""

    fate: Fate
    why: str = ""


def latest(events: Iterable[AssetEvent]) -> dict[tuple[object, ...], AssetEvent]:
    """The last event of each kind of each asset and partition, of checks by their name."""
    found: dict[tuple[object, ...], AssetEvent] = {}
    for event in events:
        key = (*event.subject, event.kind, event.check)
        known = found.get(key)
        if known is None or known.number < event.number:
            found[key] = event
    return found


def decide(
    runs: Sequence[HistoryRun],
    events: Sequence[AssetEvent],
    rules: Rules,
    now: float,
    *,
    pinned: Collection[str] = (),
) -> dict[str, Verdict]:
    """What becomes of each run of this code location.

    Parameters
    ----------
    runs : sequence of HistoryRun
        All of the history, of other code locations too.
    events : sequence of AssetEvent
    rules : Rules
    now : float
        Unix time, seconds.
    pinned : collection of str
        Runs that something else refers to: a kept version, a report.
    """
    whole = _whole(runs, events, rules, now)
    needed = dict.fromkeys(pinned, "a kept report or version is of it")
    needed |= _needed(runs, events)
    verdicts: dict[str, Verdict] = {}
    for run in (run for run in runs if run.ours):
        why = whole.get(run.id)
        if why is not None:
            verdicts[run.id] = Verdict(Fate.KEPT, why)
        elif run.id in needed:
            verdicts[run.id] = Verdict(Fate.THINNED, needed[run.id])
        else:
            verdicts[run.id] = Verdict(Fate.REMOVED)
    # A run that repeats another leads to it.
    roots = {
        run.root for run in runs if run.id in verdicts and verdicts[run.id].fate is not Fate.REMOVED
    }
    for run in runs:
        repeated = run.id in roots or (run.root is not None and run.root in roots)
        if repeated and run.ours and verdicts[run.id].fate is Fate.REMOVED:
            verdicts[run.id] = Verdict(Fate.THINNED, "a run that repeats it is kept")
    return verdicts


def _whole(
    runs: Sequence[HistoryRun], events: Sequence[AssetEvent], rules: Rules, now: float
) -> dict[str, str]:
    """The runs that stay as they are, with the reason."""
    why = dict.fromkeys(_failing(runs, events, rules.keep), "a partition has failed since")
    why |= dict.fromkeys(_last_of_assets(runs, events), "the last of a notebook")
    seen: Counter[str] = Counter()
    for run in sorted(runs, key=lambda run: -run.at):
        seen.update(run.of)
        rank = min((seen[name] for name in run.of), default=0)
        age = now - run.at
        if not run.over:
            why[run.id] = "not over"
        elif run.going_on:
            why[run.id] = "its backfill is not over"
        elif age < UNTOUCHED_S or (age < rules.age_s and rank <= rules.most):
            why[run.id] = "young"
        elif rank <= rules.keep:
            why[run.id] = "among the last of a notebook"
    return why


def _last_of_assets(runs: Sequence[HistoryRun], events: Sequence[AssetEvent]) -> set[str]:
    """The run of each asset's last success and of its last failure."""
    failed = {run.id for run in runs if run.failed}
    last: dict[tuple[str, bool], AssetEvent] = {}
    for event in events:
        if event.kind is Kind.MADE or (event.kind is Kind.PLANNED and event.run in failed):
            key = event.asset, event.kind is Kind.MADE
            if key not in last or last[key].number < event.number:
                last[key] = event
    return {event.run for event in last.values()}


def _failing(runs: Sequence[HistoryRun], events: Sequence[AssetEvent], keep: int) -> set[str]:
    """Failed runs of what was not made since: schedules count how often they have tried it."""
    failed = {run.id for run in runs if run.failed}
    made: dict[tuple[str, str | None], int] = {}
    tried: dict[tuple[str, str | None], list[AssetEvent]] = {}
    for event in events:
        if event.kind is Kind.MADE:
            made[event.subject] = max(made.get(event.subject, -1), event.number)
        elif event.kind is Kind.PLANNED and event.run in failed:
            tried.setdefault(event.subject, []).append(event)
    found: set[str] = set()
    for subject, attempts in tried.items():
        since = [event for event in attempts if event.number > made.get(subject, -1)]
        since.sort(key=lambda event: -event.number)
        found.update(event.run for event in since[:keep])
    return found


def _needed(runs: Sequence[HistoryRun], events: Sequence[AssetEvent]) -> dict[str, str]:
    """The runs whose events are read: for status, for staleness, as the last success or failure."""
    failed = {run.id for run in runs if run.failed}
    last = latest(events)
    needed = dict.fromkeys(_inputs(events, last.values()), "what was made of it is compared to it")
    attempts = latest(
        event for event in events if event.kind is Kind.PLANNED and event.run in failed
    )
    needed |= dict.fromkeys((event.run for event in attempts.values()), "the last failure")
    needed |= dict.fromkeys((event.run for event in last.values()), "the last of a partition")
    return needed


def _inputs(events: Sequence[AssetEvent], last: Iterable[AssetEvent]) -> set[str]:
    """The runs that made what the last of each asset and partition was made of.

    Of each partition that was there, Dagster compares its newest data with the last before the
    event that the materialisation names. Of what has no partitions, it compares the data versions
    that the materialisation itself has.
    """
    named: dict[str, set[int]] = {}
    for event in last:
        for asset, number in event.inputs.items():
            named.setdefault(asset, set()).add(number)
    made: dict[tuple[str, str | None], list[AssetEvent]] = {}
    for event in events:
        read = event.kind in (Kind.MADE, Kind.OBSERVED) and event.partition is not None
        if read and event.asset in named:
            made.setdefault(event.subject, []).append(event)
    found: set[str] = set()
    for (asset, _), theirs in made.items():
        theirs.sort(key=lambda event: event.number)
        numbers = [event.number for event in theirs]
        for number in named[asset]:
            place = bisect.bisect_right(numbers, number)
            if place:
                found.add(theirs[place - 1].run)
    return found
