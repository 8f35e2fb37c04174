"""Which partitions a person means: keys, patterns, and spans of time."""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg

from research_jobs.errors import PartitionError, did_you_mean
from research_jobs.orchestration.model.partitions import example_key, time_dimension

if TYPE_CHECKING:
    from dagster import DagsterInstance

__all__ = ["existing", "has_key", "none_yet", "select_partitions"]

_DATE = re.compile(r"[0-9T:+. -]+")


def select_partitions(
    definition: dg.PartitionsDefinition[Any],
    *,
    first: str | None = None,
    last: str | None = None,
    keys: Sequence[str] = (),
    instance: DagsterInstance | None = None,
    now: datetime | None = None,
) -> list[str]:
    """The partitions that a person asked for, in order.

    Parameters
    ----------
    definition : dagster.PartitionsDefinition
    first, last : str, optional
        Both inclusive. A key; or, for partitions of time, a date, a month (``2018-11``), a year
        or a moment: then the partitions whose windows touch that span. Either may be left out.
        With two dimensions they cut the one of time.
    keys : sequence of str
        Keys, or shell patterns over them (``2018-11-*``, ``*|AAPL``).
    instance : dagster.DagsterInstance, optional
        Where dynamic partitions are kept.
    now : datetime, optional
        Which partitions exist by then.

    Returns
    -------
    list of str
        With neither span nor keys: all that exist.

    Raises
    ------
    PartitionError
        For a key or span that selects nothing; names what there is.
    """
    with dg.partition_loading_context(now, instance):
        if keys:
            if first is not None or last is not None:
                raise PartitionError(
                    "partitions are selected both by key and by span", hint="Keep one of them."
                )
            return _by_keys(definition, keys)
        if first is None and last is None:
            return list(definition.get_partition_keys())
        timed = time_dimension(definition)
        if timed is None:
            return _between(list(definition.get_partition_keys()), first, last)
        name, time_definition = timed
        inside = _in_span(time_definition, first, last)
        if name is None:
            return inside
        assert isinstance(definition, dg.MultiPartitionsDefinition)
        wanted = set(inside)
        names = definition.partition_dimension_names
        position = names.index(name)
        return [k for k in definition.get_partition_keys() if k.split("|")[position] in wanted]


def _by_keys(definition: dg.PartitionsDefinition[Any], keys: Iterable[str]) -> list[str]:
    chosen: dict[str, None] = {}
    known: list[str] | None = None
    for key in keys:
        if any(c in key for c in "*?["):
            known = known if known is not None else list(definition.get_partition_keys())
            matches = [k for k in known if fnmatch.fnmatchcase(k, key)]
            if not matches:
                raise PartitionError(f"no partition matches '{key}'", hint=existing(known))
            chosen.update(dict.fromkeys(matches))
        elif has_key(definition, key):
            chosen[key] = None
        else:
            known = known if known is not None else list(definition.get_partition_keys())
            raise PartitionError(f"there is no partition '{key}'", hint=existing(known, key))
    if len(chosen) > 1:
        known = known if known is not None else list(definition.get_partition_keys())
        order = {k: n for n, k in enumerate(known)}
        return sorted(chosen, key=lambda k: order.get(k, len(order)))
    return list(chosen)


def has_key(definition: dg.PartitionsDefinition[Any], key: str) -> bool:
    """Whether there is such a partition; no for what has not the form of its keys."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        parts = key.split("|")
        if len(parts) != len(definition.partitions_defs):
            return False
    try:
        return definition.has_partition_key(key)
    except ValueError:
        return False


def existing(known: Sequence[str], key: str | None = None) -> str:
    """Which partitions there are, or the one that was meant."""
    if not known:
        return "There are none yet."
    # another date is not a typo
    worth = key is not None and not _DATE.fullmatch(key) and len(known) <= 5000
    close = did_you_mean(key, known) if key is not None and worth else ""
    if close.startswith("Did"):
        return close
    if len(known) <= 6:
        return f"Partitions: {', '.join(known)}."
    return f"There are {len(known)}, from {known[0]} to {known[-1]}."


def none_yet(definition: dg.PartitionsDefinition[Any]) -> str:
    """Why there is no partition."""
    timed = time_dimension(definition)
    if timed is not None:
        return f"The first begins on {timed[1].start:%Y-%m-%d %H:%M} and exists once it has ended."
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        return f"Its keys come from {definition.name}, which lists none."
    return "One of its dimensions has no keys."


def _between(known: list[str], first: str | None, last: str | None) -> list[str]:
    for key in (first, last):
        if key is not None and key not in known:
            raise PartitionError(f"there is no partition '{key}'", hint=existing(known, key))
    start = known.index(first) if first is not None else 0
    end = known.index(last) if last is not None else len(known) - 1
    if end < start:
        raise PartitionError(f"'{first}' comes after '{last}'", hint="Swap them.")
    return known[start : end + 1]


def _in_span(
    definition: dg.TimeWindowPartitionsDefinition, first: str | None, last: str | None
) -> list[str]:
    low = _span(definition, first)[0] if first is not None else None
    until, high = _span(definition, last) if last is not None else (None, None)
    # a date that a country left out begins where it ends
    if low is not None and until is not None and high is not None and low >= high and low > until:
        raise PartitionError(f"'{first}' comes after '{last}'", hint="Swap them.")
    first_window = definition.get_first_partition_window()
    last_window = definition.get_last_partition_window()
    if first_window is None or last_window is None:
        raise PartitionError("there is no partition yet", hint=none_yet(definition))
    known = definition.get_partition_keys()

    def start_of(key: str) -> float:  # by bisection: each call walks a cron
        return definition.start_time_for_partition_key(key).timestamp()

    begin, end = 0, len(known)
    if low is not None:
        begin = bisect_left(known, low, key=start_of)
        # the one before began earlier, but may reach into the span
        if begin > 0:
            before = definition.time_window_for_partition_key(known[begin - 1])
            begin -= before.end.timestamp() > low
    if high is not None:
        end = bisect_left(known, high, key=start_of)
    keys = list(known[begin:end])
    if not keys:
        raise PartitionError(
            f"there is no partition from {first or 'the beginning'} to {last or 'the end'}",
            hint=(
                f"They run from {definition.get_first_partition_key()}"
                f" to {definition.get_last_partition_key()}."
            ),
        )
    return keys


_SPANS = (
    (re.compile(r"\d{4}\Z"), "year"),
    (re.compile(r"\d{4}-\d{2}\Z"), "month"),
    (re.compile(r"\d{4}-\d{2}-\d{2}\Z"), "day"),
    (re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?\Z"), "moment"),
)


def _span(definition: dg.TimeWindowPartitionsDefinition, text: str) -> tuple[float, float]:
    """What a key, a date, a month, a year or a moment covers, as timestamps.

    Not as local times: those of one zone compare by what clocks read, also where clocks change.
    """
    text = text.strip()
    try:
        window = definition.time_window_for_partition_key(text)
        if definition.get_partition_key_for_timestamp(window.start.timestamp()) == text:
            return window.start.timestamp(), window.end.timestamp()
    except ValueError:
        pass
    kind = next((kind for pattern, kind in _SPANS if pattern.match(text)), None)
    try:
        if kind == "moment":
            moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(definition.timezone))
            first, second = sorted((moment.timestamp(), moment.replace(fold=1).timestamp()))
            return first, second + 1e-6
        if kind is not None:
            year, month, day = (int(part) for part in (f"{text}-01-01").split("-")[:3])
            after = {
                "year": (year + 1, 1, 1),
                "month": (year + month // 12, month % 12 + 1, 1),
                "day": (date(year, month, day) + timedelta(days=1)).timetuple()[:3],
            }[kind]
            return _midnight(definition, year, month, day), _midnight(definition, *after)
    except (ValueError, OverflowError):
        pass
    raise PartitionError(
        f"'{text}' is neither a partition nor a date",
        hint=f"Write a key such as {example_key(definition)}, or a date such as 2018-11-30.",
    )


def _midnight(
    definition: dg.TimeWindowPartitionsDefinition, year: int, month: int, day: int
) -> float:
    return datetime(year, month, day, tzinfo=ZoneInfo(definition.timezone)).timestamp()
