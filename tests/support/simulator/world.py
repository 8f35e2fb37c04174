"""A year of a server: Dagster's daemon and runs, as far as schedules can tell."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from random import Random
from typing import Any

from research_jobs.decisions import catch_up, definitions
from research_jobs.decisions.account import Evaluated, Made, Outage
from research_jobs.decisions.definitions import Definition
from research_jobs.decisions.promises import Promises
from simulator import plan
from simulator.alerts import Watch
from simulator.facts import TickFacts
from simulator.times import STARTS, YEAR, tick_table

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
# At the end, so long nothing is broken, edited or set.
CALM = 10 * DAY
MOST_RUNS = 10
MOST_RETRIES = 2

Key = tuple[str, str | None]


@dataclass(slots=True)
class Run:
    """A run."""

    id: str
    notebooks: tuple[str, ...]
    key: str | None
    created: float
    schedule: str | None = None
    at: float = 0.0
    tries: int = 0
    well: bool | None = None
    lost: bool = False


@dataclass(slots=True)
class Tick:
    """A tick as Dagster stores it."""

    at: datetime
    ended: Evaluated = Evaluated.INTERRUPTED
    when: float | None = None
    reason: str | None = None
    tried: int = 0
    submitted: set[tuple[str | None, tuple[str, ...]]] = field(default_factory=set)

    @property
    def again(self) -> bool:
        """Whether the daemon evaluates it again."""
        failed = self.ended is Evaluated.FAILED and self.tried == 0
        return failed or self.ended is Evaluated.INTERRUPTED


@dataclass(slots=True)
class Served:
    """A schedule as the daemon sees it."""

    spec: plan.Schedule | None = None
    switched: bool | None = None
    since: float | None = None
    latest: float | None = None
    persisted: float = 0.0
    memory: float = 0.0
    planned: float = 0.0
    generation: int = 0
    busy: bool = False

    @property
    def running(self) -> bool:
        if self.spec is None:
            return False
        return self.spec.enabled if self.switched is None else self.switched


class World:
    """A server with a project. `live` lets a year pass; what happened is in the attributes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.start = random.choice(STARTS)
        self.now = self.start.timestamp()
        self.end = self.now + YEAR.total_seconds()
        self.offset = 0.0
        self.notebooks = plan.notebooks(random)
        self.manifest = plan.schedules(random, self.notebooks)
        self.edited = self.now - DAY
        self.watched = random.random() < 0.7
        self.log: list[Definition] = []
        # What should be in the log: since when, what, and how it was switched.
        self.stood: dict[str, list[tuple[float, plan.Schedule | None, bool | None]]] = {}
        self.served = {name: Served() for name in self.manifest}
        self.evaluated: dict[tuple[str, float], Tick] = {}
        self.tick_runs: dict[tuple[str, float], list[Run]] = {}
        self.first_due: dict[str, datetime] = {}
        self.made: dict[Key, list[Made]] = {}
        self.states: dict[Key, str] = {}
        self.going: dict[Key, int] = {}
        self.failures: dict[Key, int] = {}
        self.failed: dict[Key, None] = {}
        self.ever: set[str] = set()
        self.outages: list[Outage] = []
        self.wrong: list[str] = []
        self.failing: dict[str, float] = {}
        self.set_at = 0.0
        self.runs = 0
        self.down = {"machine": 0, "daemon": 0, "code": 0}
        self._queue: deque[Run] = deque()
        self._running: dict[str, Run] = {}
        self._looking = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._boots = 0
        self.promises = Promises()
        self.watch = Watch(self)

    # --- time -------------------------------------------------------------------------------------

    @property
    def wall(self) -> float:
        """What the server's clock reads."""
        return self.now + self.offset

    @property
    def daemon(self) -> bool:
        return not (self.down["machine"] or self.down["daemon"])

    @property
    def code(self) -> bool:
        return not (self.down["machine"] or self.down["code"])

    def after(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        """Have something happen."""
        self._count += 1
        heapq.heappush(self._events, (self.now + max(seconds, 0.0), self._count, do, arguments))

    def live(self) -> World:
        """Let the year pass."""
        random, calm = self.random, self.end - CALM - self.now
        for week in range(int(calm // (7 * DAY))):
            self.after(week * 7 * DAY + random.uniform(0, 7 * DAY), self._outage)
        for do, times in ((self._edit, 24), (self._switch, 6), (self._set_clock, 4)):
            for _ in range(times):
                self.after(random.uniform(DAY, calm), do)
        for day in range(365):
            self.after(day * DAY + random.uniform(8, 18) * HOUR, self._person)
        self._load()
        self.watch.begin()
        while self._events and self._events[0][0] < self.end:
            self.now, _, do, arguments = heapq.heappop(self._events)
            do(*arguments)
        self.now = self.end
        return self

    # --- the daemon -------------------------------------------------------------------------------

    def _iterate(self, name: str, generation: int) -> None:
        """Dagster's scheduler looks at a schedule: of the ticks that are due, the last counts."""
        one = self.served[name]
        if not self.daemon or generation != one.generation or not one.running:
            return
        assert one.spec is not None
        if one.busy:
            self.after(30, self._iterate, name, generation)
            return
        if one.since is None:
            one.since = self.wall
        begin = max(one.since, one.persisted, one.memory)
        if one.latest is not None:
            again = self.evaluated[name, one.latest].again
            begin = max(begin, one.latest + (0 if again else 1))
        stamps, moments = tick_table(one.spec.crons, one.spec.zone, self.start)
        due = bisect_right(stamps, self.wall)
        if bisect_left(stamps, begin) < due:
            one.memory = stamps[due - 1]
            self._evaluate(name, one, moments[due - 1])
        else:
            one.memory = self.wall
        one.planned = stamps[due]
        wait = stamps[due] - self.wall + self.random.uniform(0, 20)
        self.after(wait, self._iterate, name, generation)

    def _evaluate(self, name: str, one: Served, at: datetime) -> None:
        stamp = at.timestamp()
        tick = self.evaluated.setdefault((name, stamp), Tick(at))
        one.latest = max(one.latest or 0.0, stamp)
        tick.when = self.wall
        if not self.code:
            tick.ended, tick.reason = Evaluated.FAILED, "the code server is away"
            return
        if self._trouble(0.0005):
            tick.ended, tick.reason, tick.tried = Evaluated.FAILED, "an exception", 1
            return
        spec = one.spec
        assert spec is not None
        due = catch_up.DueTick(
            at,
            datetime.fromtimestamp(self.wall, at.tzinfo),
            spec.catch_up,
            datetime.fromtimestamp(self.edited, at.tzinfo),
        )
        found = catch_up.requests(due, TickFacts(self, name, spec.notebooks, at))
        one.memory = self.wall
        if isinstance(found, str):
            tick.ended, tick.reason = Evaluated.SKIPPED, found
            return
        # Other schedules are evaluated meanwhile.
        self.promises.note(name, found, self.wall)
        tick.ended, tick.when = Evaluated.INTERRUPTED, None
        one.busy = True
        self.after(self.random.uniform(0.1, 15), self._submit_all, name, tick, found, self._boots)

    def _submit_all(self, name: str, tick: Tick, found: list[catch_up.Request], boots: int) -> None:
        if boots != self._boots:
            return  # it was another daemon
        self.served[name].busy = False
        last = self.random.randrange(len(found) + 1) if self._trouble(0.002) else None
        for number, request in enumerate(found):
            if number != last:
                self._submit(name, tick, request)
        if last is not None:
            self._take_down("daemon", self.random.uniform(10, 7200))
            return
        tick.ended, tick.when = Evaluated.REQUESTED, self.wall

    def _submit(self, name: str, tick: Tick, request: catch_up.Request) -> None:
        key = request.partition, request.notebooks
        if key in tick.submitted:
            return
        tick.submitted.add(key)
        for notebook in request.notebooks:
            if self.notebooks[notebook].by and self.going.get((notebook, request.partition)):
                self.wrong.append(f"{notebook} {request.partition} is asked for twice at once")
        self.first_due.setdefault(name, tick.at)
        self._create(request.notebooks, request.partition, name, tick.at.timestamp())

    def _look_again(self) -> None:
        """The daemon has begun, or something has changed that it will notice within a minute."""
        for name, one in self.served.items():
            self._replan(name, one)

    def _replan(self, name: str, one: Served) -> None:
        one.generation += 1
        self.after(self.random.uniform(1, 60), self._iterate, name, one.generation)

    # --- runs -------------------------------------------------------------------------------------

    def _create(
        self,
        notebooks: tuple[str, ...],
        key: str | None,
        schedule: str | None = None,
        at: float = 0.0,
        tries: int = 0,
    ) -> None:
        self.runs += 1
        run = Run(f"r{self.runs}", notebooks, key, self.wall, schedule, at, tries)
        if schedule is not None:
            self.tick_runs.setdefault((schedule, at), []).append(run)
        for one in self._keys(run):
            self.going[one] = self.going.get(one, 0) + 1
            self.ever.add(one[0])
        self._queue.append(run)
        self._drain()

    def _keys(self, run: Run) -> list[Key]:
        return [(name, run.key if self.notebooks[name].by else None) for name in run.notebooks]

    def _drain(self) -> None:
        while self.daemon and self._queue and len(self._running) < MOST_RUNS:
            run = self._queue.popleft()
            self._running[run.id] = run
            seconds = sum(self.notebooks[name].duration(self.random) for name in run.notebooks)
            self.after(3 + seconds, self._finish, run)

    def _finish(self, run: Run) -> None:
        if run.lost:
            return
        del self._running[run.id]
        run.well = True
        for one in self._keys(run):
            self.going[one] -= 1
            notebook = self.notebooks[one[0]]
            chance = self.random.random()
            if chance < notebook.fails:
                run.well = False
                self._failed(one)
            else:
                if self.failing.pop(one[0], None) is not None:
                    self.watch.changed()
                skipped = chance > 1 - notebook.skips
                self.states[one] = "skipped" if skipped else "made"
                self.failed.pop(one, None)
                made = self.made.setdefault(one, [])
                insort(made, Made(self.wall, run.id), key=lambda made: made.at)
        self._drain()

    def _failed(self, one: Key) -> None:
        self.failures[one] = self.failures.get(one, 0) + 1
        self.states[one] = "failed"
        self.failed[one] = None
        if one[0] not in self.failing:
            self.failing[one[0]] = self.wall
            self.watch.changed()

    def _find_lost(self) -> None:
        """Run monitoring fails the runs that a machine took with it, and has them run again."""
        if not self.daemon:
            return
        for run in [run for run in self._running.values() if run.lost]:
            del self._running[run.id]
            run.well = False
            for one in self._keys(run):
                self.going[one] -= 1
                self._failed(one)
            if run.tries < MOST_RETRIES:
                self._create(run.notebooks, run.key, run.schedule, run.at, run.tries + 1)
        self._drain()

    def _person(self) -> None:
        """Somebody runs again what failed."""
        if self.random.random() < 0.3:
            failed = [one for one in self.failed if not self.going[one]]
            if failed:
                notebook, key = self.random.choice(failed)
                self._create((notebook,), key)

    # --- what goes wrong --------------------------------------------------------------------------

    def _trouble(self, chance: float) -> bool:
        return self.random.random() < chance and self.now < self.end - CALM

    def _outage(self) -> None:
        kind = self.random.choice(("machine", "machine", "daemon", "code"))
        seconds = min(self.random.lognormvariate(7.5, 1.5), 4 * DAY)
        self._take_down(kind, seconds)
        if self.random.random() < 0.2:  # somebody tries to help
            self.after(self.random.uniform(0, seconds), self._edit)

    def _take_down(self, kind: str, seconds: float) -> None:
        if self.daemon and kind != "code":
            for one in self.served.values():
                # What it wrote down within the last hour or so, but not beyond what it did.
                noted = min(self.wall - self.random.uniform(0, 4200), one.planned - 1)
                if one.latest is None or not self._again(one):
                    one.persisted = max(one.persisted, noted if one.memory else 0.0)
                one.memory = 0.0
        if kind != "code":
            self._boots += 1
            for one in self.served.values():
                one.busy = False
        self.down[kind] += 1
        self.watch.changed()
        if kind == "machine":
            for run in self._running.values():
                run.lost = True
        if kind != "code":
            self.outages.append(Outage(self.wall, None, f"{kind} down"))
        self.after(seconds, self._bring_up, kind, len(self.outages) - 1)

    def _again(self, one: Served) -> bool:
        name = next(name for name, served in self.served.items() if served is one)
        return one.latest is not None and self.evaluated[name, one.latest].again

    def _bring_up(self, kind: str, number: int) -> None:
        self.down[kind] -= 1
        self.watch.changed()
        if kind != "code":
            known = self.outages[number]
            self.outages[number] = Outage(known.start, self.wall, known.reason)
        if kind != "daemon" and self.code:
            self.promises = Promises()
            self._load()
        self.after(self.random.uniform(10, 60), self._find_lost)
        self._look_again()
        self._drain()

    def _set_clock(self) -> None:
        """Somebody sets the clock, or NTP does."""
        self.set_at = self.now
        self.offset += self.random.choice((-1, 1)) * self.random.choice(
            (2.0, 120.0, 3600.0, 5000.0)
        )
        self._look_again()

    # --- the manifest -----------------------------------------------------------------------------

    def _edit(self) -> None:
        name = self.random.choice(sorted(self.served))
        known = self.manifest.get(name)
        if known is None:
            self.manifest[name] = plan.schedules(self.random, self.notebooks)[name]
        else:
            after = plan.edited(self.random, known, self.notebooks)
            self.manifest.pop(name)
            if after is not None:
                self.manifest[name] = after
            if after is None or after.broken or not after.enabled:
                # Nobody leaves it so for long.
                self.after(self.random.uniform(0.01, 4) * DAY, self._restore, name, known)
        self._save()

    def _restore(self, name: str, known: plan.Schedule) -> None:
        self.manifest[name] = replace(known, broken=False, enabled=True)
        self._save()

    def _save(self) -> None:
        """The manifest has been written; it is loaded soon, or when somebody thinks of it."""
        self.edited = self.wall
        soon = self.random.random() < 0.8
        self.after(self.random.uniform(1, 30 if soon else 6 * HOUR), self._load)

    def _load(self) -> None:
        """The code server loads the manifest."""
        if not self.code:
            return
        stated = {
            name: Definition(
                name, self.wall, spec.crons, spec.zone, spec.notebooks, spec.catch_up, spec.enabled
            )
            for name, spec in self.manifest.items()
            if not spec.broken
        }
        broken = {name: "a mistake" for name, spec in self.manifest.items() if spec.broken}
        self.log += definitions.changes(self.log, self.wall, stated, broken)
        for name in self.served:
            spec = self.manifest.get(name)
            known = self.stood.setdefault(name, [(self.wall, None, None)])
            _, before, switched = known[-1]
            # A broken one owes what the sound one did.
            if spec != before and not (spec is not None and spec.broken):
                known.append((self.wall, spec, switched))
        for name, one in self.served.items():
            spec = self.manifest.get(name)
            spec = None if spec is None or spec.broken else spec
            if spec == one.spec:
                continue
            if one.running and self.daemon and one.memory:
                # It looked at the schedule within the last hour or so.
                noted = min(self.wall - self.random.uniform(0, 4200), one.planned - 1)
                one.memory = max(one.memory, noted)
            one.spec = spec
            if not one.running and one.switched is None:
                one.since, one.persisted = None, 0.0
            self._replan(name, one)

    def _switch(self) -> None:
        """Somebody uses the switch of Dagster's UI; the watch sees it a little later."""
        name = self.random.choice(sorted(self.served))
        one = self.served[name]
        if one.spec is None or self._looking or not self.code:
            return
        one.switched = not one.running
        one.since, one.persisted = (self.wall, 0.0) if one.switched else (None, one.persisted)
        self._replan(name, one)
        self._looking = True
        self.after(self.random.choice((MINUTE, MINUTE, 8 * HOUR)), self._look)
        if not one.switched:
            self.after(self.random.uniform(0.5, 4) * DAY, self._switch_on, name)

    def _switch_on(self, name: str) -> None:
        one = self.served[name]
        if one.switched is False:
            one.switched, one.since, one.persisted = True, self.wall, 0.0
            self._replan(name, one)
            self.after(MINUTE, self._look)

    def _look(self) -> None:
        self._looking = False
        for name, one in self.served.items():
            at, spec, switched = self.stood[name][-1]
            if spec is not None and switched != one.switched:
                on = one.switched and one.since is not None and one.since > at
                self.stood[name].append((one.since if on else self.wall, spec, one.switched))
        states = {name: (one.switched, one.since) for name, one in self.served.items()}
        self.log += definitions.switches(self.log, self.wall, states)
