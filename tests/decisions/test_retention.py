"""Which runs go, and that whoever reads what is left sees what they saw before."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from research_jobs.decisions.retention import (
    AssetEvent,
    Fate,
    HistoryRun,
    Kind,
    Rules,
    decide,
    latest,
)

DAY = 86_400.0
NOW = 1000 * DAY
RULES = Rules(age_s=90 * DAY, keep=2, most=5)
ASSETS = ("prices", "signals", "report")
PARTITIONS = (None, "1", "2")

WORLDS = 1000

World = tuple[list[HistoryRun], list[AssetEvent], dict[int, int]]


def world_of(seed: int) -> World:
    """Runs of a year, what they said of assets, and the data version of what they made."""
    chance = random.Random(seed)
    runs: list[HistoryRun] = []
    events: list[AssetEvent] = []
    data: dict[int, int] = {}
    number, at = 0, NOW - 400 * DAY
    count = chance.randint(1, 30)
    for place in range(count):
        at += chance.choice((0.5, 6.0, 20.0)) * DAY
        of = tuple(sorted(chance.sample(ASSETS, chance.choice((1, 1, 2)))))
        over = place < count - 1 or chance.random() < 0.5
        repeated = chance.choice(runs) if runs and chance.random() < 0.1 else None
        run = HistoryRun(
            f"run{place}",
            min(at, NOW),
            of,
            over=over,
            failed=over and chance.random() < 0.4,
            root=(repeated.root or repeated.id) if repeated is not None else None,
            going_on=chance.random() < 0.05,
        )
        runs.append(run)
        for asset in of:
            partition = chance.choice(PARTITIONS)
            number += 1
            events.append(AssetEvent(number, run.id, asset, partition, Kind.PLANNED))
            if run.failed and chance.random() < 0.8:
                continue
            number += 1
            kind = chance.choice((*[Kind.MADE] * 4, Kind.OBSERVED, Kind.CHECKED))
            check = "rows" if kind is Kind.CHECKED else ""
            inputs: dict[str, int] = {}
            if kind is Kind.MADE and chance.random() < 0.5:
                inputs = {chance.choice(ASSETS): chance.randint(0, number)}
            events.append(AssetEvent(number, run.id, asset, partition, kind, check, inputs))
            data[number] = chance.randint(0, 1)
    return runs, events, data


def status(runs: Sequence[HistoryRun], events: Iterable[AssetEvent], keep: int) -> object:
    """What `partition_status` and Dagster's UI say, by brute force."""
    failed = {run.id: run.failed for run in runs}
    said: dict[tuple[str, str | None], list[object]] = {}
    for asset in ASSETS:
        for partition in PARTITIONS:
            theirs = [e for e in events if e.subject == (asset, partition)]
            made = [e.number for e in theirs if e.kind is Kind.MADE]
            tries = [e for e in theirs if e.kind is Kind.PLANNED]
            since = [e for e in tries if e.number > max(made, default=-1)]
            said[asset, partition] = [
                max(made, default=None),
                max((e.number for e in theirs if e.kind is Kind.OBSERVED), default=None),
                max((e.number for e in theirs if e.kind is Kind.CHECKED), default=None),
                max(((e.number, failed.get(e.run)) for e in tries), default=None),
                max((e.number for e in tries if failed.get(e.run)), default=None),
                min(keep, sum(bool(failed.get(e.run)) for e in since)),
            ]
    return said


def stale(events: Sequence[AssetEvent], data: dict[int, int]) -> object:
    """What Dagster says of each last materialisation and each partition that it was made of."""
    found: dict[object, bool] = {}
    for event in latest(events).values():
        for asset, number in event.inputs.items():
            for partition in PARTITIONS[1:]:
                told = sorted(
                    e.number
                    for e in events
                    if e.subject == (asset, partition) and e.kind in (Kind.MADE, Kind.OBSERVED)
                )
                newer = [one for one in told if one > number]
                older = [one for one in told if one <= number]
                before = data[older[-1]] if older else None
                found[event.number, asset, partition] = bool(newer) and data[newer[-1]] != before
    return found


@pytest.mark.parametrize("start", range(0, WORLDS, 100))
def test_whoever_reads_what_is_left_sees_what_they_saw_before(start: int) -> None:
    """Status, last failures, tries of what fails, checks and staleness stay as they were."""
    for runs, events, data in map(world_of, range(start, start + 100)):
        _compare(runs, events, data)


def _compare(runs: list[HistoryRun], events: list[AssetEvent], data: dict[int, int]) -> None:
    verdicts = decide(runs, events, RULES, NOW)
    gone = {run_id for run_id, one in verdicts.items() if one.fate is Fate.REMOVED}
    left = [event for event in events if event.run not in gone]
    left_runs = [run for run in runs if run.id not in gone]
    assert status(left_runs, left, RULES.keep) == status(runs, events, RULES.keep)
    assert stale(left, data) == stale(events, data)
    # And again, after what is left was pruned.
    again = decide(left_runs, left, RULES, NOW)
    assert not [run_id for run_id, one in again.items() if one.fate is Fate.REMOVED]


@pytest.mark.parametrize("start", range(0, WORLDS, 100))
def test_what_is_young_or_going_on_stays_whole(start: int) -> None:
    """A run that is not over, or young, or among the last of a notebook, keeps its log."""
    for runs, events, _ in map(world_of, range(start, start + 100)):
        _whole(runs, events)


def _whole(runs: list[HistoryRun], events: list[AssetEvent]) -> None:
    verdicts = decide(runs, events, RULES, NOW)
    for run in runs:
        newer = [sum(name in other.of and other.at > run.at for other in runs) for name in run.of]
        last, age = min(newer) < RULES.keep, NOW - run.at
        stays = not run.over or run.going_on or last or age < 2 * DAY
        stays = stays or (age < RULES.age_s and min(newer) < RULES.most)
        assert stays <= (verdicts[run.id].fate is Fate.KEPT), run
        if verdicts[run.id].why in ("young", "among the last of a notebook"):
            assert stays, run
        if run.root is not None and verdicts[run.id].fate is not Fate.REMOVED:
            assert verdicts[run.root].fate is not Fate.REMOVED, run


def _many(count: int, days_apart: float = 1.0) -> list[HistoryRun]:
    return [
        HistoryRun(f"run{n}", NOW - (count - n) * days_apart * DAY, ("prices",))
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("rules", "days_apart", "kept"),
    [
        (Rules(90 * DAY, 14, 10_000), 1.0, 89),
        (Rules(10 * DAY, 30, 10_000), 1.0, 30),
        (Rules(90 * DAY, 14, 40), 1.0, 40),
        (Rules(90 * DAY, 14, 14), 0.1, 19),  # the last two days are not touched
    ],
)
def test_age_and_number(rules: Rules, days_apart: float, kept: int) -> None:
    """A run goes by its age unless it is among the last, and by its number however young."""
    verdicts = decide(_many(200, days_apart), [], rules, NOW)
    fates = [one.fate for one in verdicts.values()]
    assert fates == [Fate.REMOVED] * (200 - kept) + [Fate.KEPT] * kept


def test_other_code_locations_are_left_alone() -> None:
    """Only runs of this code location get a verdict, whatever the others' are."""
    runs = [replace(run, ours=False) for run in _many(200)] + [
        HistoryRun("mine", NOW - 300 * DAY, ("signals",))
    ]
    assert list(decide(runs, [], RULES, NOW)) == ["mine"]


def test_what_something_refers_to_is_thinned() -> None:
    """The run of a kept version or report loses its log alone."""
    runs = _many(200)
    verdicts = decide(runs, [], RULES, NOW, pinned=["run3"])
    assert verdicts["run3"].fate is Fate.THINNED
    assert verdicts["run4"].fate is Fate.REMOVED
