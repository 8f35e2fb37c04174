"""Every change of clocks from 2000 to 2037, and what a calendar is there by counting minutes.

``python tests/support/clocks.py`` compares the partitions around each of them with the count; the
tests take one change of each kind.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import dagster as dg

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.model.partitions import (
    build_partitions,
    parameter_values,
    partition_key_of,
)
from research_jobs.orchestration.model.selection import select_partitions

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
AROUND = timedelta(days=2)


@dataclass(frozen=True)
class Change:
    """One change of a zone's clocks."""

    zone: str
    at: datetime
    before: timedelta
    after: timedelta

    @property
    def kind(self) -> tuple[time, timedelta, timedelta]:
        """What clocks read, how far they jump, and the minutes of the offset."""
        return (
            (self.at + self.before).time(),
            self.after - self.before,
            self.before % timedelta(hours=1),
        )


def _history(zone: str) -> tuple[tuple[datetime, timedelta, timedelta], ...]:
    tz = ZoneInfo(zone)
    found: list[tuple[datetime, timedelta, timedelta]] = []
    low = datetime(2000, 1, 1, tzinfo=UTC)
    # Nowhere do clocks change and change back within a week.
    while low.year < 2038:
        high = low + timedelta(days=6)
        before, after = low.astimezone(tz).utcoffset(), high.astimezone(tz).utcoffset()
        assert before is not None
        assert after is not None
        if before != after:
            left, right = low, high
            while right - left > MINUTE:
                middle = left + (right - left) // MINUTE // 2 * MINUTE
                if middle.astimezone(tz).utcoffset() == before:
                    left = middle
                else:
                    right = middle
            found.append((right, before, after))
        low = high
    return tuple(found)


@cache
def every_change() -> tuple[Change, ...]:
    """All changes of all zones, those of zones with one history once."""
    histories = {_history(zone): zone for zone in sorted(available_timezones() - {"localtime"})}
    return tuple(Change(zone, *change) for history, zone in histories.items() for change in history)


def one_of_each_kind() -> list[Change]:
    """The earliest and the latest change of each kind."""
    ordered = sorted(every_change(), key=lambda change: change.at)
    first = {change.kind: change for change in reversed(ordered)}
    last = {change.kind: change for change in ordered}
    return sorted({*first.values(), *last.values()}, key=lambda change: (change.at, change.zone))


@dataclass(frozen=True)
class Walk:
    """What clocks of a zone read in each minute of a span."""

    instants: tuple[datetime, ...]
    walls: tuple[datetime, ...]
    latest: tuple[datetime, ...]

    @classmethod
    @cache
    def around(cls, change: Change) -> Walk:
        """Two days on either side, and one more to see where windows begin and end."""
        tz = ZoneInfo(change.zone)
        first = change.at - AROUND - DAY
        instants = [first + n * MINUTE for n in range(6 * 24 * 60)]
        walls = [at.astimezone(tz).replace(tzinfo=None, fold=0) for at in instants]
        latest: list[datetime] = []
        for wall in walls:
            latest.append(max(wall, latest[-1]) if latest else wall)
        return cls(tuple(instants), tuple(walls), tuple(latest))

    def times_of_day(self, wanted: Callable[[date], bool], *times: time) -> list[datetime]:
        """The first minute of each wanted date at or after each time."""
        found: set[datetime] = set()
        for day in sorted({wall.date() for wall in self.walls}):
            for moment in times if wanted(day) else ():
                index = bisect_left(self.latest, datetime.combine(day, moment))
                if index < len(self.walls) and self.walls[index].date() == day:
                    found.add(self.instants[index])
        return sorted(found)

    def minutes_of_the_hour(self, *minutes: int) -> list[datetime]:
        """Every minute in which the clock's minute hand is there."""
        return [
            at for at, wall in zip(self.instants, self.walls, strict=True) if wall.minute in minutes
        ]


def _any(_: date) -> bool:
    return True


NOON_AND_MIDNIGHT = (time(0), time(12))
CALENDARS: dict[str, tuple[dict[str, object], Callable[[Walk], list[datetime]]]] = {
    "hour": ({"by": "hour"}, lambda w: w.minutes_of_the_hour(0)),
    "hour at 30": ({"by": "hour", "shift": "30m"}, lambda w: w.minutes_of_the_hour(30)),
    "quarter of an hour": (
        {"by": "cron", "cron": "*/15 * * * *"},
        lambda w: w.minutes_of_the_hour(0, 15, 30, 45),
    ),
    "day": ({"by": "day"}, lambda w: w.times_of_day(_any, time(0))),
    "day at 17": ({"by": "day", "shift": "17h"}, lambda w: w.times_of_day(_any, time(17))),
    "day at 2:30": ({"by": "day", "shift": "2h30m"}, lambda w: w.times_of_day(_any, time(2, 30))),
    "day at 23:30": (
        {"by": "day", "shift": "23h30m"},
        lambda w: w.times_of_day(_any, time(23, 30)),
    ),
    "week": ({"by": "week"}, lambda w: w.times_of_day(lambda d: d.weekday() == 0, time(0))),
    "month": ({"by": "month"}, lambda w: w.times_of_day(lambda d: d.day == 1, time(0))),
    "quarter": (
        {"by": "quarter"},
        lambda w: w.times_of_day(lambda d: d.day == 1 and d.month % 3 == 1, time(0)),
    ),
    "year": (
        {"by": "year"},
        lambda w: w.times_of_day(lambda d: (d.month, d.day) == (1, 1), time(0)),
    ),
    "business days": (
        {"by": "cron", "cron": "0 0 * * 1-5"},
        lambda w: w.times_of_day(lambda d: d.weekday() < 5, time(0)),
    ),
    "noon and midnight": (
        {"by": "cron", "cron": "0 0,12 * * *", "format": "%Y-%m-%d-%H:%M"},
        lambda w: w.times_of_day(_any, *NOON_AND_MIDNIGHT),
    ),
}


def differences(change: Change, walk: Walk, name: str) -> Iterator[str]:
    """What is not as the count says, of one calendar around one change."""
    settings, count = CALENDARS[name]
    tz = ZoneInfo(change.zone)
    first, last = change.at - AROUND, change.at + AROUND
    expected = [at for at in count(walk) if first <= at <= last]
    start = first.astimezone(tz).replace(tzinfo=None)
    partitions = {"start": start, "timezone": change.zone, "parameter": "d", **settings}
    spec = NotebookSpec.model_validate({"partitions": partitions})
    definition = build_partitions(spec)
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
    with dg.partition_loading_context(last):
        keys = list(definition.get_partition_keys())
        yield from _wrong_keys(definition, keys)
    records = [partition_key_of(spec, key) for key in keys]
    windows = [
        (datetime.fromisoformat(record.start or ""), datetime.fromisoformat(record.end or ""))
        for record in records
    ]
    if windows != list(pairwise(expected)):
        yield f"windows {windows}, not {expected}"
    for record, (begin, _) in zip(records, windows, strict=True):
        if begin.utcoffset() != begin.astimezone(tz).utcoffset():
            yield f"{record.key} begins at {begin}, which no clock reads"
        if parameter_values(spec, record, {"d": "date"}) != {"d": begin.date().isoformat()}:
            yield f"{record.key} sets another date than that of {begin}"
    with dg.partition_loading_context(change.at):
        over = [key for key, (_, end) in zip(keys, windows, strict=True) if end <= change.at]
        if list(definition.get_partition_keys()) != over:
            yield f"at the change there are {list(definition.get_partition_keys())}, not {over}"
    for day in sorted({at.astimezone(tz).date() for at, _ in windows[1:-1]}):
        touched = _touched(walk, keys, windows, day)
        chosen = select_partitions(definition, first=f"{day}", last=f"{day}", now=last)
        # what is a key is taken as a key
        if chosen != (touched if f"{day}" not in keys else [f"{day}"]):
            yield f"--from {day} --to {day} chooses {chosen}, not {touched}"


def _wrong_keys(definition: dg.TimeWindowPartitionsDefinition, keys: list[str]) -> Iterator[str]:
    """Where the ways to ask for keys do not agree."""
    if len(set(keys)) != len(keys):
        yield f"keys that are there twice: {keys}"
    if not all(definition.has_partition_key(key) for key in keys):
        yield "a listed key that is none"
    if (definition.get_last_partition_key() or "none") != (keys or ["none"])[-1]:
        yield f"the newest is {definition.get_last_partition_key()}, not the last of {keys}"
    if definition.get_num_partitions() != len(keys):
        yield f"{definition.get_num_partitions()} partitions, and {len(keys)} keys"
    back = [keys[-1]] if keys else []
    while back and (previous := _before(definition, back[-1])) is not None:
        back.append(previous)
    if back[::-1] != keys:
        yield f"backwards there are {back[::-1]}, not {keys}"


def _before(definition: dg.TimeWindowPartitionsDefinition, key: str) -> str | None:
    start = definition.start_time_for_partition_key(key)
    window = definition.get_prev_partition_window(start)
    return window and definition.get_partition_key_for_timestamp(window.start.timestamp())


def _touched(
    walk: Walk, keys: list[str], windows: list[tuple[datetime, datetime]], day: date
) -> list[str]:
    """The keys of the windows that have a minute of a date in them."""
    minutes = [
        at for at, wall in zip(walk.instants, walk.latest, strict=True) if wall.date() == day
    ]
    return [
        key
        for key, (begin, end) in zip(keys, windows, strict=True)
        if begin <= minutes[-1] and end > minutes[0]
    ]


def compare(changes: list[Change]) -> list[str]:
    """All differences, each with its zone, moment and calendar."""
    found: list[str] = []
    for change in changes:
        walk = Walk.around(change)
        found += [
            f"{change.zone} {change.at:%Y-%m-%d %H:%M}Z, {name}: {difference}"
            for name in CALENDARS
            for difference in differences(change, walk, name)
        ]
    return found


if __name__ == "__main__":
    wrong = compare(list(every_change()))
    sys.stdout.write("\n".join([*wrong, f"{len(every_change())} changes, {len(wrong)} differ\n"]))
    sys.exit(bool(wrong))
