"""Partitions of local time, right on days when clocks change.

Dagster's own iteration gives Samoa a 30 December 2011 and steps past half-hour changes by whole
hours. The rules here:

- An expression that fires every hour begins a partition whenever the local clock reads that
  minute: twice in an hour that comes twice, never in one that is skipped.
- Any other begins a partition at the first instant at or after its time of day: the first of two,
  and the end of a gap. A date that does not exist has no partition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cached_property, partial
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking

try:
    from dagster._utils.schedules import CroniterShim
except ImportError as missing:
    lacking(missing, "partitions around changes of clocks are as Dagster computes them")
    CroniterShim: Any = None

__all__ = ["first_at_or_after", "local_ticks", "time_partitions", "validate_partitions"]

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
# No clock is put forward or back by more, except where a whole date is left out.
_LARGEST_CHANGE = timedelta(hours=4)
# Local times strictly after (or before) one, as a calendar without time zones has them.
_Walls: TypeAlias = Callable[[datetime, bool], Iterator[datetime]]


def time_partitions(**options: Any) -> dg.TimeWindowPartitionsDefinition:
    """`dagster.TimeWindowPartitionsDefinition`, right where clocks change."""
    if CroniterShim is None:
        return dg.TimeWindowPartitionsDefinition(**options)
    return LocalTimePartitions(**options)


def validate_partitions(definition: dg.PartitionsDefinition[Any]) -> None:
    """Have Dagster check a partitions definition, as it does when a code location loads.

    Before 1.13 the definition checks itself when it is made.
    """
    validate = getattr(definition, "validate_partition_definition", None)
    if validate is not None:
        validate()


class LocalTimePartitions(dg.TimeWindowPartitionsDefinition):
    """Dagster's partitions of time with our iteration of windows.

    Dagster stores and sends such a definition as its plain one, so the daemon and the webserver
    still list what Dagster computes. A run asks this one.
    """

    def _iterate_time_windows(
        self, start_timestamp: float, ignore_exclusions: bool = False
    ) -> Iterator[dg.TimeWindow]:
        ticks = local_ticks(self.cron_schedule, self.timezone, start_timestamp)
        start = next(ticks)
        for end in ticks:
            if ignore_exclusions or not self.is_window_start_excluded(start):
                yield dg.TimeWindow(start, end)
            start = end

    def _reverse_iterate_time_windows(
        self, end_timestamp: float, ignore_exclusions: bool = False
    ) -> Iterator[dg.TimeWindow]:
        ticks = local_ticks(self.cron_schedule, self.timezone, end_timestamp, ascending=False)
        end = next(ticks)
        for start in ticks:
            if ignore_exclusions or not self.is_window_start_excluded(start):
                yield dg.TimeWindow(start, end)
            end = start

    def is_window_start_excluded(self, window_start: datetime) -> bool:
        """Whether the window that begins at `window_start` is left out."""
        if not self.exclusions:
            return False
        at = window_start.timestamp()
        moments, crons = self._excluded
        return at in moments or any(
            next(local_ticks(cron, self.timezone, at)).timestamp() == at for cron in crons
        )

    @cached_property
    def _excluded(self) -> tuple[frozenset[float], tuple[str, ...]]:
        parts = self.exclusions or ()
        moments = frozenset(p.timestamp for p in parts if not isinstance(p, str))
        return moments, tuple(p for p in parts if isinstance(p, str))

    def get_partition_key_for_timestamp(self, timestamp: float, end_closed: bool = False) -> str:
        """The key of the window that holds a moment, or of the next one where it lies in none."""
        ticks = local_ticks(self.cron_schedule, self.timezone, timestamp, ascending=False)
        for start in ticks:
            if end_closed and start.timestamp() == timestamp:
                continue
            if not self.is_window_start_excluded(start):
                return self._key(start)
        raise AssertionError  # time has no beginning

    def start_time_for_partition_key(self, partition_key: str) -> datetime:
        """When a key's window begins."""
        return self.time_window_for_partition_key(partition_key).start

    def get_num_partitions_in_window(self, time_window: dg.TimeWindow) -> int:
        """How many windows begin within another one."""
        end = time_window.end.timestamp()
        count = 0
        for window in self._iterate_time_windows(time_window.start.timestamp()):
            if window.start.timestamp() >= end:
                break
            count += 1
        return count

    def has_any_partitions_in_window(self, time_window: dg.TimeWindow) -> bool:
        """Whether a window begins within another one."""
        first = next(self._iterate_time_windows(time_window.start.timestamp()))
        return first.start.timestamp() < time_window.end.timestamp()

    @property
    def is_basic_daily(self) -> bool:
        """bool: never, so that Dagster takes none of its short cuts."""
        return False

    @property
    def is_basic_hourly(self) -> bool:
        """bool: never, so that Dagster takes none of its short cuts."""
        return False

    def _key(self, start: datetime) -> str:
        """As Dagster writes it: an hour's second pass has its offset behind."""
        form = self.fmt
        if start.fold and "%z" not in form and _repeats_every_hour(self.cron_schedule):
            first, second = start.replace(fold=0).utcoffset(), start.utcoffset()
            if first != second:
                form += "%z"
        return start.strftime(form)


def local_ticks(
    cron: str, zone: str, timestamp: float, *, ascending: bool = True
) -> Iterator[datetime]:
    """When a cron expression fires in a zone, from a moment on (itself included) or backwards.

    Parameters
    ----------
    cron : str
        An expression that Dagster takes.
    zone : str
    timestamp : float
        Seconds since 1970.
    ascending : bool

    Yields
    ------
    datetime
        In the zone, without end.
    """
    # The zone of Dagster's own windows, which compare by it.
    tz = timezone.utc if zone.upper() == "UTC" else ZoneInfo(zone)
    walls = partial(_walls, cron)
    whole = datetime.fromtimestamp(
        math.ceil(timestamp) if ascending else math.floor(timestamp), timezone.utc
    )
    if _repeats_every_hour(cron):
        return _every_hour(walls, tz, whole, ascending)
    return _times_of_day(walls, tz, whole, ascending)


def _repeats_every_hour(cron: str) -> bool:
    return CroniterShim.expand(cron)[0][1] == ["*"]


def _times_of_day(walls: _Walls, tz: tzinfo, at: datetime, ascending: bool) -> Iterator[datetime]:
    margin = -_LARGEST_CHANGE if ascending else _LARGEST_CHANGE
    held: datetime | None = None  # the last tick, until it is known that the next one is another
    for wall in walls(at.astimezone(tz).replace(tzinfo=None, fold=0) + margin, ascending):
        tick = first_at_or_after(wall, tz)
        outside = (tick < at) if ascending else (tick > at)
        if outside or tick.date() != wall.date():
            continue
        if held is not None and held.timestamp() != tick.timestamp():
            yield held
        held = tick


def first_at_or_after(wall: datetime, tz: tzinfo) -> datetime:
    """The first instant at which clocks read `wall` or, where they skip it, a later time."""
    first = wall.replace(tzinfo=tz)
    before, after = first.utcoffset(), first.replace(fold=1).utcoffset()
    assert before is not None
    assert after is not None
    if before >= after:  # once, or twice
        return first
    low, high = (wall - after).replace(tzinfo=timezone.utc), first.astimezone(timezone.utc)
    return (_first_change(low, high, tz) or high).astimezone(tz)


def _every_hour(walls: _Walls, tz: tzinfo, at: datetime, ascending: bool) -> Iterator[datetime]:
    offset = _offset(at, tz)
    base = (at + offset).replace(tzinfo=None) - (_SECOND if ascending else -_SECOND)
    while True:
        change = None
        for wall in walls(base, ascending):
            tick = wall.replace(tzinfo=timezone.utc) - offset
            change = _first_change(at, tick, tz) if ascending else _last_change(tick, at, tz)
            if change is not None:
                break
            yield tick.astimezone(tz)
            at = tick
        assert change is not None
        # Clocks change before they read `wall`: go on from what they read then.
        at = change if ascending else change - _SECOND
        offset = _offset(at, tz)
        base = (change + offset).replace(tzinfo=None) - (_SECOND if ascending else timedelta())


def _offset(at: datetime, tz: tzinfo) -> timedelta:
    offset = at.astimezone(tz).utcoffset()
    assert offset is not None
    return offset


def _first_change(after: datetime, until: datetime, tz: tzinfo) -> datetime | None:
    """The first moment after one and not after another at which clocks change."""
    offset = _offset(after, tz)
    while after < until:
        high = min(after + _DAY, until)
        if _offset(high, tz) == offset:
            after = high
            continue
        while high - after > _SECOND:
            middle = after + (high - after) // _SECOND // 2 * _SECOND
            if _offset(middle, tz) == offset:
                after = middle
            else:
                high = middle
        return high
    return None


def _last_change(after: datetime, until: datetime, tz: tzinfo) -> datetime | None:
    last = None
    while (change := _first_change(after, until, tz)) is not None:
        last = after = change
    return last


def _walls(cron: str, base: datetime, ascending: bool) -> Iterator[datetime]:
    """The local times of a cron expression strictly after (or before) `base`."""
    fields, nth, *_ = CroniterShim.expand(cron)
    minutes, hours, days, months, weekdays = fields
    if days == months == ["*"] and not nth and _numbers(minutes):
        # The ordinary ones, ten times faster than the general way.
        if hours == weekdays == ["*"]:
            return _in_each(
                timedelta(hours=1), [timedelta(minutes=m) for m in minutes], base, ascending
            )
        if _numbers(hours) and (weekdays == ["*"] or _numbers(weekdays)):
            times = [timedelta(hours=h, minutes=m) for h in hours for m in minutes]
            wanted = set(range(7)) if weekdays == ["*"] else {(day - 1) % 7 for day in weekdays}
            found = _in_each(_DAY, times, base, ascending)
            return (wall for wall in found if wall.weekday() in wanted)
    return _general(cron, base, ascending)


def _numbers(field: list[Any]) -> bool:
    return all(isinstance(part, int) for part in field)


def _in_each(
    span: timedelta, times: list[timedelta], base: datetime, ascending: bool
) -> Iterator[datetime]:
    midnight = base.replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + (base - midnight) // span * span
    times = sorted(times, reverse=not ascending)
    while True:
        for time in times:
            wall = start + time
            if (wall > base) if ascending else (wall < base):
                yield wall
        start += span if ascending else -span


def _general(cron: str, base: datetime, ascending: bool) -> Iterator[datetime]:
    iterator = CroniterShim(cron, base)
    while True:
        yield iterator.get_next(datetime) if ascending else iterator.get_prev(datetime)
