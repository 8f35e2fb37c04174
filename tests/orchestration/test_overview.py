"""Late and unusual runs, which need a schedule's clock or a history."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from past import Past
from sqlalchemy.engine import Engine

from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.operations import overview
from research_jobs.orchestration.operations.history import (
    Memory,
    RunningSchedule,
    read_statuses,
)
from research_jobs.orchestration.operations.overview import (
    Attention,
    NotebookLine,
    Overview,
    _larger,
    _slower,
    _unpartitioned,
    read_overview,
    reruns_of,
    same_cause,
)
from research_jobs.outcome import Failure, Outcome, State

NOW = datetime(2026, 3, 30, 9, 15, tzinfo=UTC)
GOOD = Outcome(State.SUCCEEDED, duration_s=10.0, peak_memory_bytes=200 * 2**20)


def _schedule(**changes: object) -> RunningSchedule:
    since = (NOW - timedelta(days=30)).timestamp()
    schedule = RunningSchedule("daily", ("0 6 * * *",), "UTC", frozenset({"prices"}), since)
    return replace(schedule, **changes)  # type: ignore[arg-type]


@pytest.fixture
def prices(lab):
    """An entry that a schedule runs at six."""
    lab.write({"prices": "# %%\nx = 1\n"}, "{}")
    return load_catalog(lab.project).entries["prices"]


def _at(hour: int, minute: int = 0, day: int = 30) -> Outcome:
    return replace(GOOD, started_at=datetime(2026, 3, day, hour, minute, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("last", "schedule", "late"),
    [
        (_at(6, 1), _schedule(), False),
        (_at(5, 59), _schedule(), True),
        (_at(6, 1, day=29), _schedule(), True),
        (_at(9, 11, day=29), _schedule(crons=("10 9 * * *",)), False),  # five minutes ago
        (_at(6, 1, day=20), _schedule(since=NOW.timestamp() - 60), False),  # just switched on
        (_at(6, 1, day=20), _schedule(since=None), False),  # no daemon has seen it
        (_at(6, 1, day=20), _schedule(notebooks=frozenset({"other"})), False),
        (replace(_at(6, 1, day=20), state=State.RUNNING), _schedule(), False),
    ],
)
def test_late(prices, last: Outcome, schedule: RunningSchedule, late: bool) -> None:
    """A notebook is late when a tick since its last run is a quarter of an hour old."""
    found = _unpartitioned(prices, [last], [schedule], NOW)
    assert [one.state for one in found] == ([State.LATE] if late else [])
    if late:
        assert found[0].reason is not None
        assert "nothing has run since its tick at" in found[0].reason


def test_never_run_is_not_late(prices) -> None:
    """Of a notebook that never ran nothing is known to be owed."""
    assert _unpartitioned(prices, [], [_schedule()], NOW) == []


def _unusual(history: list[Outcome]) -> tuple[str, ...]:
    slower, larger = _slower(history), _larger(history)
    return NotebookLine("n", history[0].state, history[0], slower=slower, larger=larger).unusual


def test_unusual() -> None:
    """Twice the median and clearly more is unusual; a failure, or too short a history, is not."""
    slow = replace(GOOD, duration_s=25.0)
    large = replace(GOOD, peak_memory_bytes=900 * 2**20)
    assert list(_unusual([slow, *[GOOD] * 5])) == ["took 25 s, usually 10 s"]
    assert list(_unusual([large, *[GOOD] * 5])) == ["used 900 MiB, usually 200 MiB"]
    assert not list(_unusual([slow, *[GOOD] * 4]))
    assert not list(_unusual([replace(GOOD, duration_s=19.0), *[GOOD] * 5]))
    quick = replace(GOOD, duration_s=0.1)
    assert not list(_unusual([replace(GOOD, duration_s=1.0), *[quick] * 5]))
    failed = replace(slow, state=State.FAILED, failure=Failure("x"))
    assert not list(_unusual([failed, *[GOOD] * 6]))


def test_same_cause() -> None:
    """One reason at different places is one group; two without a reason have nothing in common."""
    places = ("a.py:3, cell 1", 'b.py:9, cell 2 "Load"')
    reasons = (*(f"{place}: KeyError: 'x'" for place in places), None, None)
    found = [Attention(f"n{i}", State.FAILED, reason=reason) for i, reason in enumerate(reasons)]
    assert [[one.notebook for one in group] for group in same_cause(found)] == [
        ["n0", "n1"],
        ["n2"],
        ["n3"],
    ]


def test_one_command_runs_a_group_again() -> None:
    """What the same options run again is one command; a partition is one notebook's."""
    reruns = [
        "research-jobs run a",
        "research-jobs backfill b --failed",
        "research-jobs run c --partition 'x y'",
        "research-jobs run d",
        "research-jobs backfill e --failed",
        "research-jobs run f --partition 'x y'",
        "research-jobs run a",
    ]
    group = [Attention("n", State.FAILED, rerun=rerun) for rerun in reruns]
    assert reruns_of(group) == [
        "research-jobs run a d",
        "research-jobs backfill b e --failed",
        "research-jobs run c --partition 'x y'",
        "research-jobs run f --partition 'x y'",
    ]


def test_runs_since_are_all_counted(any_lab) -> None:
    """Of a notebook that runs often, each run since a moment counts, and the strip stays short."""
    any_lab.write({"often": "# %%\nx = 1\n"}, "notebooks: {often: {outputs: [x]}}")
    for _ in range(16):
        any_lab.materialize("often")
    catalog = load_catalog(any_lab.project)
    now = datetime.now(UTC)
    overview = read_overview(any_lab.instance, catalog, now, now - timedelta(hours=1))
    assert overview.ended == {State.SUCCEEDED: 16}
    assert len(overview.notebooks[0].strip) == 14
    later = read_overview(any_lab.instance, catalog, now, now + timedelta(minutes=1))
    assert later.ended == {}


DAILY = """
notebooks:
  daily: {outputs: [x], partitions: {by: day, start: 2026-01-01, end: 2026-01-06, parameter: day}}
  plain: {outputs: [x]}
"""
DAY = '# %% tags=["parameters"]\nday: str = ""\n# %%\n'


def test_a_look_with_memory_sees_the_same(any_lab) -> None:
    """Whatever has happened since the last look, one that remembers it sees what a fresh one does.

    Runs that succeed, fail and skip, outputs removed by hand; an asset wiped in the UI.
    """
    lab = any_lab.write({"daily": f"{DAY}x = 1\n", "plain": "# %%\nx = 1\n"}, DAILY)
    catalog = load_catalog(lab.project)
    memory = Memory()

    def look(remembered: Memory | None = None) -> Overview:
        since = NOW - timedelta(days=1)
        return read_overview(lab.instance, catalog, NOW, since, memory=remembered)

    def fail() -> None:
        lab.write({"daily": f"{DAY}raise ValueError(day)\n", "plain": "# %%\n1 / 0\n"})
        lab.materialize("daily", partition="2026-01-03")
        lab.materialize("plain")

    def skip() -> None:
        text = f"{DAY}import research_jobs\nresearch_jobs.skip('none')\n"
        lab.write({"daily": text, "plain": text})
        lab.materialize("daily", partition="2026-01-04")
        lab.materialize("plain")

    def wipe() -> None:
        lab.instance.wipe_assets([dg.AssetKey("daily")])

    def remove() -> None:
        shutil.rmtree(Path(lab.project.store) / "daily")

    changes = [
        lambda: None,
        lambda: lab.materialize("daily", partition="2026-01-01"),
        lambda: lab.materialize("daily", span=("2026-01-02", "2026-01-03")),
        lambda: lab.materialize("plain"),
        fail,
        skip,
        remove,
    ]
    seen: list[Overview] = []
    for change in changes:
        change()
        assert look(memory) == look(memory) == look()
        assert not seen or look() != seen[-1]
        seen.append(look())
    lab.materialize("daily", partition="2026-01-05")
    look(memory)
    wipe()
    (mine, _), (theirs, _) = look(memory).notebooks, look().notebooks
    assert mine.partitions == theirs.partitions


# --- what a look costs ----------------------------------------------------------------------------


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that databases are sent meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(Engine, "before_cursor_execute", note)


def _many(lab, count: int) -> Catalog:
    """Notebooks with a past; every other one has partitions."""
    daily = "partitions: {by: day, start: 2026-01-01, end: 2026-01-02, parameter: day}"
    lines = [f"  n{number}: {{{daily if number % 2 else ''}}}\n" for number in range(count)]
    text = f"{DAY}x = 1\n"
    lab.write({f"n{number}": text for number in range(count)}, "notebooks:\n" + "".join(lines))
    catalog = load_catalog(lab.project)
    past = Past(lab.instance, catalog)
    for number in range(count):
        partition = "2026-01-01" if number % 2 else None
        past.run(NOW.timestamp() - 5000 + 100 * number, {f"n{number}": "1"}, partition=partition)
    return catalog


def test_statements_do_not_grow_with_notebooks(lab, statements) -> None:
    """A look at eight notebooks, and at their statuses, asks as often as one at four."""
    sent: list[list[int]] = []
    for count in (4, 8):
        counts: list[int] = []
        catalog = _many(lab, count)
        for read in (
            lambda catalog: read_overview(lab.instance, catalog, NOW, NOW - timedelta(days=1)),
            lambda catalog: read_statuses(lab.instance, catalog, catalog),
        ):
            read(catalog)  # what is asked once
            statements.clear()
            read(catalog)
            counts.append(len(statements))
        sent.append(counts)
    assert sent[0] == sent[1]


def test_the_last_run_is_known_however_many_ran_since(lab, monkeypatch) -> None:
    """A notebook that is not among the last runs of all shows its last; those are counted."""
    monkeypatch.setattr(overview, "RUNS_LOOKED_AT", 2)
    catalog = _many(lab, 4)
    seen = read_overview(lab.instance, catalog, NOW, NOW - timedelta(days=1))
    assert [line.state for line in seen.notebooks] == [State.SUCCEEDED] * 4
    assert all(line.last.run_id for line in seen.notebooks)
    assert seen.since.timestamp() == pytest.approx(NOW.timestamp() - 5000 + 200)
    assert seen.ended == {State.SUCCEEDED: 2}
