"""Years of schedules in a simulated world; and that the simulator finds what is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulator.checks import check
from simulator.world import World

from research_jobs.decisions import account, catch_up, definitions, promises
from research_jobs.notify import deciding

YEARS_EACH = 5


@pytest.mark.parametrize("first", range(0, 10, YEARS_EACH))
def test_nothing_is_lost_in_many_years(first: int) -> None:
    """Ticks accounted for, nothing requested twice, no hole stays, alerts once and in time."""
    wrong = {seed: check(seed) for seed in range(first, first + YEARS_EACH)}
    assert {seed: lines for seed, lines in wrong.items() if lines} == {}


def test_one_number_replays_a_world() -> None:
    """The same seed gives the same ticks, runs and outages."""
    first, second = World(3).live(), World(3).live()
    assert first.evaluated == second.evaluated
    assert (first.runs, first.outages, first.log) == (second.runs, second.outages, second.log)
    assert first.watch.messages == second.watch.messages > 0


def _without_last(found: Callable[..., Any]) -> Callable[..., Any]:
    def owed_ticks(*given: Any) -> Any:
        return [tick for tick in found(*given) if tick.at.minute != 30]

    return owed_ticks


def _ignoring_what_is_running(
    group: Any, tick: Any, first_due: Any
) -> list[tuple[str, list[catch_up.Member]]]:
    windows = group.windows(2) if group.timed else []
    return [(key, list(group.members)) for one in windows for key in group.keys_of(one)]


def _without_removals(found: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: [one for one in found(*given) if not one.removed]


def _alerts(said: Callable[[str], bool], **changes: Any) -> Callable[..., Any]:
    real = deciding._due

    def due(incident: Any, spec: Any, now: float) -> Any:
        event = real(incident, spec.model_copy(update=changes), now)
        return event if event is not None and said(event) else None

    return due


BROKEN = {
    "ticks that the account forgets": (
        account, "owed_ticks", _without_last(definitions.owed_ticks), "is not accounted for",
    ),
    "a missed tick that is called failed": (
        account._Judge, "_lost",
        lambda self, tick: account._told(tick, account.Became.FAILED, None), "and not",
    ),
    "ticks that are healed by nothing": (
        account._Judge, "_healing", lambda self, tick: account._Healing(1.0, ()), "by nothing",
    ),
    "ticks that nothing heals after an hour": (
        account, "_first",
        lambda times, since: next((one for one in times if 0 <= one.at - since < 3600), None),
        "is there",
    ),
    "partitions that run already": (
        catch_up, "_wanted", _ignoring_what_is_running, "is asked for twice at once",
    ),
    "partitions that another schedule is about to request": (
        promises.Promises, "of_others", lambda *given: frozenset(), "is asked for twice at once",
    ),
    "no look back": (catch_up, "_look_back", lambda tick, member: 0, "without a reason"),
    "every late tick edited away": (
        catch_up, "_edited_since", lambda tick, facts: tick.now - tick.at > catch_up.LATE / 2,
        "as if it had been edited away",
    ),
    "a log without removals": (
        definitions, "changes", _without_removals(definitions.changes), "nobody owed",
    ),
    "alerts that are forgotten as soon as they are said": (
        deciding, "_told", lambda incident, event, now: incident, "was said although",
    ),
    "alerts that nobody sends": (
        deciding, "_due", lambda incident, spec, now: None, "and not told",
    ),
    "alerts without an end": (deciding, "_due", _alerts(lambda event: event != "over"), "is over"),
    "alerts without reminders": (
        deciding, "_due", _alerts(lambda event: event != "still"), "not told of for a day",
    ),
    "alerts in quiet hours": (
        deciding, "_due", _alerts(lambda event: True, quiet=None), "in quiet hours",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decision broken on purpose: some world of a few says so."""
    place, attribute, broken, said = BROKEN[name]
    monkeypatch.setattr(place, attribute, broken)
    assert any(said in line for seed in range(4) for line in check(seed))
