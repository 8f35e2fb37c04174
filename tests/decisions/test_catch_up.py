"""What a tick requests, from facts in memory; the facts of an instance are in test_schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from research_jobs.decisions.catch_up import DueTick, Member, Request, requests

DUE = datetime(2026, 3, 10, 1, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Known:
    """What became of partitions."""

    missing: tuple[str, ...]
    failed: frozenset[str] = frozenset()
    in_progress: frozenset[str] = frozenset()
    ever: bool = True


@dataclass
class Numbers:
    """Notebooks with windows ``1`` to ``5``, of which some are missing or failed."""

    members: list[Member]
    missing: set[str]
    failed: dict[str, int] = field(default_factory=dict)
    timed: bool = True

    def windows(self, count: int) -> list[str]:
        return ["1", "2", "3", "4", "5"][-count:]

    def keys_of(self, window: str) -> list[str]:
        return [window]

    def position(self, windows: list[str], moment: datetime) -> int:
        return 0

    def all_keys(self) -> list[str]:
        return []

    def status(self, member: Member, keys: list[str]) -> Known:
        missing = tuple(key for key in keys if key in self.missing)
        return Known(missing, frozenset(self.failed))

    def failures(self, member: Member, key: str, at_most: int) -> int:
        return min(self.failed[key], at_most)


@dataclass
class World:
    """A schedule's notebooks, and what it requested before."""

    plain: list[Member]
    groups: list[Numbers]
    owed: bool = True

    def was_owed(self, moment: datetime) -> bool:
        return self.owed

    def first_due(self) -> datetime | None:
        return DUE - timedelta(days=30)


def test_what_is_missing_is_requested_and_a_plain_notebook_goes_with_the_newest() -> None:
    """Within catch_up, oldest first; the notebook without partitions runs once."""
    world = World([Member("plain")], [Numbers([Member("daily")], {"1", "3", "5"})])
    assert requests(DueTick(DUE, DUE, catch_up=3), world) == [
        Request(("daily",), "3"),
        Request(("plain", "daily"), "5"),
    ]


def test_a_partition_is_given_up_after_its_retries() -> None:
    """Two retries make three runs; then nothing is requested and the reason says so."""
    group = Numbers([Member("daily", retries=2)], {"5"}, {"5": 2})
    assert requests(DueTick(DUE, DUE, catch_up=0), World([], [group])) == [Request(("daily",), "5")]
    group.failed["5"] = 3
    assert "failed too often" in requests(DueTick(DUE, DUE, catch_up=0), World([], [group]))


def test_an_edit_and_a_late_tick_request_nothing() -> None:
    """Each gives its reason."""
    world = World([Member("plain")], [], owed=False)
    edited = DueTick(DUE, DUE, edited_at=DUE + timedelta(seconds=1))
    assert "edited" in requests(edited, world)
    late = DueTick(DUE, DUE + timedelta(hours=2), catch_up="none")
    assert requests(late, world) == "due 2026-03-10 01:30 UTC, 2 h 0 min ago; catch_up: none"
