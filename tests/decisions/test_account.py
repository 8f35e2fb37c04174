"""What became of ticks, from facts in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from research_jobs.decisions.account import (
    Became,
    Evaluated,
    Evaluation,
    Made,
    Outage,
    Owes,
    TickRun,
    account,
)
from research_jobs.decisions.definitions import Definition

START = datetime(2026, 3, 10, tzinfo=UTC).timestamp()
HOUR = 3600.0


def hourly(crons: object, zone: str, after: float) -> Iterator[datetime]:
    """A tick at each full hour."""
    tick = datetime.fromtimestamp(-(-after // HOUR) * HOUR, UTC)
    while True:
        yield tick
        tick += timedelta(hours=1)


@dataclass
class Known:
    """A schedule of one notebook, due each hour."""

    definitions: list[Definition] = field(
        default_factory=lambda: [Definition("s", START, ("0 * * * *",), "UTC", ("n",))]
    )
    now: float = START + 24 * HOUR
    ticks = staticmethod(hourly)
    kept_since: float = 0.0
    outages: tuple[Outage, ...] = ()
    evaluated: list[Evaluation] = field(default_factory=list)
    of_ticks: dict[float, list[TickRun]] = field(default_factory=dict)
    there: list[Made] = field(default_factory=list)
    owed: Owes | None = field(default_factory=lambda: Owes((None,), anew=True))

    def evaluations(self) -> list[Evaluation]:
        return self.evaluated

    def runs(self, schedule: str, at: float) -> list[TickRun]:
        return self.of_ticks.get(at, [])

    def failure(self, run: TickRun) -> str:
        return "KeyError: 'x'"

    def owes(self, notebook: str, at: datetime) -> Owes | None:
        return self.owed

    def made(self, notebook: str, key: str | None) -> list[Made]:
        return self.there


def evaluation(hour: int, ended: Evaluated, late: float = 3.0) -> Evaluation:
    """Of the tick of an hour."""
    at = START + hour * HOUR
    return Evaluation("s", datetime.fromtimestamp(at, UTC), ended, at + late, "a reason")


def first(facts: Known) -> tuple[Became, str | None]:
    """What became of the first tick, and why."""
    (tick,) = account(facts, START, START + 1).ticks
    return tick.became, tick.reason


def run(well: bool | None, created: float = 5.0) -> TickRun:
    """The first tick's run."""
    return TickRun("r1", START + created, well, ("n",))


@pytest.mark.parametrize(
    ("facts", "became", "reason"),
    [
        (Known(of_ticks={START: [run(True)]}), Became.RAN, None),
        (Known(of_ticks={START: [run(None)]}), Became.RAN, "still running"),
        (Known(of_ticks={START: [run(False)]}), Became.FAILED, "KeyError: 'x'"),
        (
            Known(of_ticks={START: [run(False)]}, there=[Made(START + HOUR, "r1")]),
            Became.RAN, "after a retry",
        ),
        (
            Known(of_ticks={START: [run(False)]}, there=[Made(START + HOUR, "r2")]),
            Became.HEALED, "a run failed, and a later one made what it owed",
        ),
        (Known(evaluated=[evaluation(0, Evaluated.SKIPPED)]), Became.NOTHING_TO_DO, "a reason"),
        (Known(evaluated=[evaluation(0, Evaluated.FAILED)]), Became.FAILED, "a reason"),
        (
            Known(evaluated=[evaluation(0, Evaluated.INTERRUPTED)]),
            Became.MISSED, "the daemon ended while it evaluated the tick",
        ),
        (
            Known(evaluated=[evaluation(0, Evaluated.REQUESTED)]),
            Became.UNACCOUNTED, "its runs were deleted",
        ),
        (Known(), Became.MISSED, "nothing was evaluated until now"),
        (
            Known(kept_since=START + 1),
            Became.UNACCOUNTED, "Dagster no longer keeps its record, if any",
        ),
        (
            Known(evaluated=[evaluation(1, Evaluated.SKIPPED)]),
            Became.MISSED, "nothing was evaluated to 2026-03-10 01:00 UTC",
        ),
        (
            Known(outages=(Outage(START - 60, START + 60, "server down"),)),
            Became.MISSED, "server down from 2026-03-09 23:59 UTC to 2026-03-10 00:01 UTC",
        ),
        (
            Known(there=[Made(START + 2 * HOUR, "r9")]),
            Became.HEALED, "not evaluated; a later run made what it owed",
        ),
        (
            Known(owed=Owes(("day",), anew=False), there=[Made(START - HOUR)]),
            Became.NOTHING_TO_DO, "not evaluated; every partition was there",
        ),
        (Known(owed=None, there=[Made(START + HOUR)]), Became.MISSED,
         "nothing was evaluated until now"),
    ],
)  # fmt: skip
def test_a_tick_becomes(facts: Known, became: Became, reason: str | None) -> None:
    """Each record, or want of one, has one meaning."""
    assert first(facts) == (became, reason)


def test_a_tick_without_a_record_while_the_daemon_was_there_is_unaccounted() -> None:
    """Another schedule's tick of that minute was evaluated, this one's neither then nor later."""
    other = replace(evaluation(0, Evaluated.SKIPPED), schedule="other")
    ticks = account(Known(evaluated=[other]), START, START + 1).ticks
    assert {tick.schedule: tick.became for tick in ticks} == {
        "other": Became.NOTHING_TO_DO,
        "s": Became.UNACCOUNTED,
    }


def test_catch_up_none_leaves_a_late_tick_missed() -> None:
    """Dagster skipped it because it came too late, which is not the same as nothing to do."""
    definition = replace(Known().definitions[0], catch_up="none")
    late = evaluation(0, Evaluated.SKIPPED, late=HOUR)
    assert first(Known([definition], evaluated=[late])) == (Became.MISSED, "a reason")


def test_a_tick_of_this_moment_is_not_judged_yet() -> None:
    """Two minutes are for the daemon to come to it."""
    assert account(Known(now=START + 60), START, START + 60).owed == 0
    assert account(Known(now=START + 180), START, START + 180).owed == 1
