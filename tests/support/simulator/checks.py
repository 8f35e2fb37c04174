"""What must be true of any world."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime

from research_jobs.decisions import account as accounts
from research_jobs.decisions.account import Account, AccountedTick, Became, Evaluated
from research_jobs.decisions.catch_up import LOOK_BACK, LOOK_BACK_DAYS
from simulator.facts import VALUES, Windows, WorldFacts
from simulator.times import tick_table
from simulator.world import World

__all__ = ["check"]


def check(seed: int) -> list[str]:
    """Live a year, and say what is wrong with it."""
    world = World(seed).live()
    start = world.start.timestamp()
    found = accounts.account(WorldFacts(world), start, world.wall)
    return [*world.wrong, *_each_once(world, found), *_truth(world, found), *_holes(world)]


def _each_once(world: World, found: Account) -> Iterator[str]:
    """Every owed tick is in the account, once, and nothing else but what Dagster evaluated."""
    keys = [(tick.schedule, tick.at.timestamp()) for tick in found.ticks]
    if len(set(keys)) != len(keys):
        yield "a tick is accounted for twice"
    if sum(found.counts.values()) != found.owed:
        yield "the sum has a remainder"
    owed = _owed(world, found.start, found.end)
    given = set(keys)
    # The last minutes are not judged yet.
    for schedule, at in owed - given:
        if at < world.wall - accounts.PATIENCE_S:
            yield f"the tick of {schedule} at {at:.0f} is not accounted for"
    for schedule, at in given - owed - set(world.evaluated):
        yield f"the account has a tick of {schedule} at {at:.0f} that nobody owed"


def _owed(world: World, start: float, end: float) -> set[tuple[str, float]]:
    """What was owed by what the world knows of its schedules."""
    owed: set[tuple[str, float]] = set()
    for name, stood in world.stood.items():
        for (since, spec, switched), later in zip(stood, [*stood[1:], (end,)], strict=True):
            if spec is None or not (spec.enabled if switched is None else switched):
                continue
            stamps, _ = tick_table(spec.crons, spec.zone, world.start)
            first = bisect_left(stamps, max(start, since))
            last = bisect_left(stamps, min(later[0], end))
            owed |= {(name, at) for at in stamps[first:last]}
    return owed


def _truth(world: World, found: Account) -> Iterator[str]:
    """What the account says of each tick is what happened in the world."""
    makers = {one.run for made in world.made.values() for one in made}
    for tick in found.ticks:
        key = tick.schedule, tick.at.timestamp()
        evaluated = world.evaluated.get(key)
        wanted = _possible(world, key)
        if tick.became not in wanted:
            yield f"{_told(tick)}, and not {' or '.join(wanted)}"
        if evaluated is None and not world.tick_runs.get(key):
            there = _all_made(world, tick)
            if there != (tick.became is not Became.MISSED) and "off by" not in (tick.reason or ""):
                yield f"{_told(tick)}, and what it owed is {'there' if there else 'missing'}"
        edited = evaluated is not None and "edited" in (evaluated.reason or "")
        if edited and key in _owed(world, key[1], key[1] + 1):
            yield f"{_told(tick)}: it was owed, and skipped as if it had been edited away"
        if tick.became is Became.HEALED and not tick.healed_by:
            yield f"{_told(tick)} by nothing"
        if not makers.issuperset(tick.healed_by):
            yield f"{_told(tick)} by {tick.healed_by}, of which one made nothing"


def _possible(world: World, key: tuple[str, float]) -> tuple[Became, ...]:
    """What a tick may have become."""
    evaluated = world.evaluated.get(key)
    runs = world.tick_runs.get(key, [])
    if any(run.well is None for run in runs):
        return (Became.RAN,)
    if runs and all(run.well for run in runs):
        if evaluated is None or evaluated.ended is Evaluated.REQUESTED:
            return (Became.RAN,)
        return Became.RAN, Became.FAILED  # the daemon ended before it had requested all
    if runs:
        return Became.RAN, Became.HEALED, Became.FAILED
    if evaluated is None:
        return Became.HEALED, Became.MISSED, Became.NOTHING_TO_DO
    if evaluated.ended is Evaluated.SKIPPED:
        if (evaluated.when or 0) - key[1] > 600:
            return Became.NOTHING_TO_DO, Became.MISSED, Became.HEALED
        return (Became.NOTHING_TO_DO,)
    return Became.HEALED, Became.FAILED, Became.MISSED, Became.NOTHING_TO_DO


def _all_made(world: World, tick: AccountedTick) -> bool:
    """Whether each notebook made what a tick owed, whenever it was."""
    at = tick.at.timestamp()
    specs = [spec for since, spec, _ in world.stood[tick.schedule] if since <= at and spec]
    for notebook in (world.notebooks[name] for name in specs[-1].notebooks):
        keys: list[str | None] = [None]
        if notebook.by == "values":
            keys = list(VALUES)
        elif notebook.by:
            group = Windows(world, [notebook], tick.at)
            keys = [key for window in group.windows(1) for key in group.keys_of(window)]
        for key in keys:
            made = [one.at for one in world.made.get((notebook.name, key), ())]
            once = notebook.by not in (None, "values")
            if not made or (not once and made[-1] < at):
                return False
    return True


def _told(tick: AccountedTick) -> str:
    return f"{tick.schedule} {tick.at.isoformat()} {tick.became} ({tick.reason})"


def _holes(world: World) -> Iterator[str]:
    """After the calm, each due partition is there or has a reason."""
    for name, one in world.served.items():
        if not one.running or one.spec is None or one.spec.catch_up == "none":
            continue
        at = _last_tick(world, name)
        first = world.first_due.get(name)
        if at is None or first is None or at.timestamp() < world.stood[name][-1][0]:
            continue  # it has not been due since it was edited
        if world.evaluated[name, at.timestamp()].again:
            continue  # it was seldom due, and cut off when it was
        for notebook in (world.notebooks[each] for each in one.spec.notebooks):
            if notebook.by in (None, "values"):
                continue
            group = Windows(world, [notebook], at)
            back = one.spec.catch_up
            if back is None:
                back = LOOK_BACK.get(notebook.member.by or "", LOOK_BACK_DAYS)
            windows = group.windows(back + 1)
            if one.spec.catch_up is None:
                windows = windows[group.position(windows, first) :]
            for key in (key for window in windows for key in group.keys_of(window)):
                yield from _hole(world, name, notebook.name, key, notebook.retries)


def _hole(world: World, schedule: str, notebook: str, key: str, retries: int) -> Iterator[str]:
    state = world.states.get((notebook, key))
    if state in ("made", "skipped") or world.going.get((notebook, key)):
        return
    if state == "failed" and world.failures[notebook, key] > 0:
        # Given up, or the next tick tries again.
        return
    yield f"{schedule}: {notebook} {key} is missing, without a reason"


def _last_tick(world: World, schedule: str) -> datetime | None:
    """The last that had partitions to request; one that an edit brought about had not."""
    ticks = [
        tick.at
        for (name, _), tick in world.evaluated.items()
        if name == schedule and "edited" not in (tick.reason or "")
    ]
    return max(ticks, default=None)
