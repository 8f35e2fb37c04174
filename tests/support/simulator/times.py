"""Ticks and windows of time, as Dagster and our partitions have them, in tables."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from research_jobs.decisions.definitions import Ticks
from research_jobs.orchestration.compat.instance import cron_ticks
from research_jobs.orchestration.compat.windows import local_ticks

# Half-hour changes of the clock, a day that does not exist (Apia, 30 December 2011), and others.
ZONES = (
    "UTC", "Europe/Zagreb", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia",
    "Asia/Kathmandu", "America/St_Johns", "Africa/Casablanca", "Pacific/Chatham", "Asia/Tokyo",
)  # fmt: skip
STARTS = tuple(
    datetime(year, month, 1, tzinfo=UTC) for year, month in ((2011, 7), (2024, 1), (2026, 4))
)
YEAR = timedelta(days=365)
# Tables begin so much earlier and end so much later than a world.
BEFORE, AFTER = timedelta(days=400), timedelta(days=40)

_CRONS = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}


@cache
def tick_table(
    crons: tuple[str, ...], zone: str, start: datetime
) -> tuple[list[float], list[datetime]]:
    """All ticks of a year, and somewhat more."""
    local = ZoneInfo(zone)
    end = (start + YEAR + AFTER).timestamp()
    moments: list[datetime] = []
    for tick in cron_ticks(crons, zone, (start - timedelta(days=10)).timestamp()):
        if tick.timestamp() > end:
            break
        moments.append(tick.astimezone(local))
    return [moment.timestamp() for moment in moments], moments


@cache
def ticks_of(start: datetime) -> Ticks:
    """The function that decisions are given."""

    def ticks(crons: Sequence[str], zone: str, after: float) -> Iterator[datetime]:
        stamps, moments = tick_table(tuple(crons), zone, start)
        for index in range(bisect_left(stamps, after), len(moments)):
            yield moments[index]

    return ticks


@cache
def window_table(by: str, zone: str, start: datetime) -> tuple[list[float], list[str]]:
    """When each window of time begins, and its key."""
    begin = start - (timedelta(days=20) if by == "hour" else BEFORE)
    end = (start + YEAR + AFTER).timestamp()
    stamps: list[float] = []
    keys: list[str] = []
    for moment in local_ticks(_CRONS[by], zone, begin.timestamp()):
        if moment.timestamp() > end:
            break
        stamps.append(moment.timestamp())
        keys.append(moment.isoformat())
    return stamps, keys
