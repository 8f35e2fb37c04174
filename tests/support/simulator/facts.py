"""The facts of a simulated world, as the decisions ask for them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from research_jobs.decisions.account import Evaluation, Made, Outage, Owes, TickRun
from research_jobs.decisions.catch_up import Member
from research_jobs.decisions.definitions import Definition, Ticks, owed_at
from simulator.plan import Notebook
from simulator.times import ticks_of, window_table

if TYPE_CHECKING:
    from simulator.world import World

VALUES = ("x", "y", "z")
PAIR = ("a", "b")


@dataclass(frozen=True, slots=True)
class KnownStatus:
    """What became of some partitions."""

    missing: tuple[str, ...]
    failed: frozenset[str]
    in_progress: frozenset[str]
    ever: bool


class Windows:
    """Notebooks of a schedule with the same partitions, at the time of a tick."""

    def __init__(
        self, world: World, notebooks: Sequence[Notebook], at: datetime, schedule: str = ""
    ) -> None:
        self._world = world
        self._schedule = schedule
        self._by, self._zone = notebooks[0].by or "", notebooks[0].zone
        self._at = at.timestamp()
        self.members: Sequence[Member] = [notebook.member for notebook in notebooks]
        self.timed = self._by != "values"

    def windows(self, count: int) -> Sequence[str]:
        stamps, keys = self._table()
        over = bisect_right(stamps, self._at) - 1
        return keys[max(0, over - count) : over]

    def keys_of(self, window: str) -> Sequence[str]:
        return [f"{window}|{one}" for one in PAIR] if self._by == "both" else [window]

    def position(self, windows: Sequence[str], moment: datetime) -> int:
        stamps, keys = self._table()
        newest = max(bisect_right(stamps, moment.timestamp()) - 2, 0)
        first = bisect_right(stamps, self._at) - 1 - len(windows)
        assert not windows or keys[first] == windows[0]
        return min(max(newest - first, 0), len(windows))

    def all_keys(self) -> Sequence[str]:
        return VALUES

    def status(self, member: Member, keys: Sequence[str]) -> KnownStatus:
        name, world = member.name, self._world
        states, going = world.states, world.going
        promised = world.promises.of_others(self._schedule, name, keys, world.wall)
        missing: list[str] = []
        failed: list[str] = []
        active: list[str] = []
        for key in keys:
            one = name, key
            state = states.get(one)
            if going.get(one) or key in promised:
                active.append(key)
            elif state is None or state == "failed":
                missing.append(key)
                if state is not None:
                    failed.append(key)
        return KnownStatus(tuple(missing), frozenset(failed), frozenset(active), name in world.ever)

    def failures(self, member: Member, key: str, at_most: int) -> int:
        return min(self._world.failures.get((member.name, key), 0), at_most)

    def _table(self) -> tuple[list[float], list[str]]:
        by = "day" if self._by == "both" else self._by
        return window_table(by, self._zone, self._world.start)


class TickFacts:
    """What a schedule did before, and its notebooks."""

    def __init__(self, world: World, schedule: str, names: tuple[str, ...], at: datetime) -> None:
        self._world = world
        self._schedule = schedule
        notebooks = [world.notebooks[name] for name in names]
        self.plain = [one.member for one in notebooks if one.by is None]
        self.groups = [Windows(world, group, at, schedule) for group in _grouped(tuple(notebooks))]

    def was_owed(self, moment: datetime) -> bool:
        world = self._world
        stamp = moment.timestamp()
        return bool(owed_at(world.log, self._schedule, stamp, ticks_of(world.start)))

    def first_due(self) -> datetime | None:
        return self._world.first_due.get(self._schedule)


@lru_cache(maxsize=1000)
def _grouped(notebooks: tuple[Notebook, ...]) -> list[list[Notebook]]:
    groups: dict[tuple[str, str], list[Notebook]] = {}
    for notebook in notebooks:
        if notebook.by is not None:
            groups.setdefault((notebook.by, notebook.zone), []).append(notebook)
    return list(groups.values())


class WorldFacts:
    """What an account asks of a world that is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.now = world.wall
        self.kept_since = 0.0
        self.definitions: Sequence[Definition] = world.log
        self.ticks: Ticks = ticks_of(world.start)
        self.outages: Sequence[Outage] = world.outages if world.watched else ()

    def evaluations(self) -> Iterator[Evaluation]:
        for (schedule, _), tick in self._world.evaluated.items():
            yield Evaluation(schedule, tick.at, tick.ended, tick.when, tick.reason)

    def runs(self, schedule: str, at: float) -> Sequence[TickRun]:
        runs = self._world.tick_runs.get((schedule, at), ())
        return [TickRun(run.id, run.created, run.well, run.notebooks, run.key) for run in runs]

    def failure(self, run: TickRun) -> str | None:
        return f"{run.id} failed"

    def owes(self, notebook: str, at: datetime) -> Owes | None:
        known = self._world.notebooks[notebook]
        if known.by is None:
            return Owes((None,), anew=True)
        group = Windows(self._world, [known], at)
        if not group.timed:
            return Owes(VALUES, anew=True)
        keys: Iterable[str] = (key for one in group.windows(1) for key in group.keys_of(one))
        return Owes(tuple(keys), anew=False)

    def made(self, notebook: str, key: str | None) -> Sequence[Made]:
        return self._world.made.get((notebook, key), ())
