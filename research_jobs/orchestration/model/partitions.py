"""A manifest's partitions as Dagster's, and a partition key as what a run needs to know of it.

Time is local time in the partitions' zone: a day is from midnight to midnight there, 23 or 25
hours long where clocks change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from research_jobs.errors import PartitionError, did_you_mean
from research_jobs.manifest import DimensionSpec, NotebookSpec
from research_jobs.manifest.partitions import VARIANT, dimension_specs, key_parts
from research_jobs.orchestration.compat.windows import (
    first_at_or_after,
    time_partitions,
    validate_partitions,
)
from research_jobs.orchestration.model.calendars import closed_days
from research_jobs.protocol import PartitionKey
from research_jobs.store.layout import folders_of
from research_jobs.store.stored import stored_partitions

__all__ = [
    "build_partitions",
    "keys_with",
    "newest_keys",
    "newest_stored",
    "parameter_values",
    "partition_key_of",
    "partitioning",
    "segments_of",
    "time_dimension",
]

_CRONS = {
    "hour": "{minute} * * * *",
    "day": "{minute} {hour} * * *",
    "week": "{minute} {hour} * * 1",  # ISO weeks: from Monday
    "month": "{minute} {hour} 1 * *",
    "quarter": "{minute} {hour} 1 1,4,7,10 *",
    "year": "{minute} {hour} 1 1 *",
}


def build_partitions(
    spec: NotebookSpec, *, cache: Path | None = None, now: datetime | None = None
) -> dg.PartitionsDefinition[Any] | None:
    """A notebook's partitions as Dagster defines them.

    Parameters
    ----------
    spec : NotebookSpec
        With defaults merged in.
    cache : Path, optional
        Folder in which exchange calendars are kept (``project.state / "cache"``); without it a
        notebook with ``calendar`` takes seconds to load.
    now : datetime, optional
        For tests: which year an open-ended calendar runs to.

    Returns
    -------
    dagster.PartitionsDefinition or None
        Equal specs give the same object.

    Raises
    ------
    PartitionError
        When Dagster or the calendar refuses.
    """
    dimensions = dimension_specs(spec)
    if not dimensions:
        return None
    made = {name: _dimension(dimension, cache, now) for name, dimension in dimensions.items()}
    if len(made) == 1:
        return next(iter(made.values()))
    try:
        return dg.MultiPartitionsDefinition(made)
    except Exception as error:
        raise PartitionError(f"partitions cannot be made: {error}") from error


def time_dimension(
    definition: dg.PartitionsDefinition[Any] | None,
) -> tuple[str | None, dg.TimeWindowPartitionsDefinition] | None:
    """The dimension of time: its name (None when it is the only one) and its definition."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return None, definition
    if isinstance(definition, dg.MultiPartitionsDefinition):
        for dimension in definition.partitions_defs:
            if isinstance(dimension.partitions_def, dg.TimeWindowPartitionsDefinition):
                return dimension.name, dimension.partitions_def
    return None


def newest_keys(definition: dg.PartitionsDefinition[Any]) -> list[str]:
    """The keys of the newest window of time; all keys where there is no time. May be none.

    Listed keys want a ``partition_loading_context`` around it.
    """
    timed = time_dimension(definition)
    if timed is None:
        return [str(key) for key in definition.get_partition_keys()]
    name, window = timed
    last = window.get_last_partition_key()
    return [] if last is None else keys_with(definition, name, last)


def keys_with(definition: dg.PartitionsDefinition[Any], name: str | None, part: str) -> list[str]:
    """All keys of one window of time: more than one where there is a second dimension."""
    if name is None:
        return [part]
    assert isinstance(definition, dg.MultiPartitionsDefinition)
    names = definition.partition_dimension_names
    other = next(n for n in names if n != name)
    return [
        str(dg.MultiPartitionKey({name: part, other: key}))
        for key in definition.get_partitions_def_for_dimension(other).get_partition_keys()
    ]


def _dimension(
    spec: DimensionSpec, cache: Path | None, now: datetime | None
) -> dg.PartitionsDefinition[Any]:
    try:
        if spec.dynamic is not None:
            return dg.DynamicPartitionsDefinition(name=spec.dynamic.definition_name)
        if spec.values is not None:
            return _static(spec.values)
        return _time(spec, cache, now)
    except PartitionError:
        raise
    except Exception as error:
        # Dagster's own refusals: invalid definitions, check failures
        raise PartitionError(f"partitions cannot be made: {error}") from error


@lru_cache(maxsize=256)
def _static(values: tuple[str, ...]) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(values)


def _time(
    spec: DimensionSpec, cache: Path | None, now: datetime | None
) -> dg.TimeWindowPartitionsDefinition:
    if spec.start is None or spec.by is None:
        raise PartitionError("time partitions need by and start")
    minutes = int(spec.shift // 60)
    cron = spec.cron or _CRONS[spec.by].format(minute=minutes % 60, hour=minutes // 60)
    exclusions: tuple[str | datetime, ...] = ()
    if spec.calendar is not None:
        today = now or datetime.now(ZoneInfo(spec.timezone or "UTC"))
        last = spec.end.date() if spec.end is not None else date(today.year + 1, 12, 31)
        closed = closed_days(spec.calendar, spec.start.date(), last, cache=cache)
        exclusions = _exclusions(spec, minutes, closed, last)
    return _window(
        cron, spec.start, spec.end, spec.timezone or "UTC", spec.key_format, spec.offset, exclusions
    )


@lru_cache(maxsize=256)
def _window(
    cron: str,
    start: datetime,
    end: datetime | None,
    timezone: str,
    form: str,
    offset: int,
    exclusions: tuple[str | datetime, ...],
) -> dg.TimeWindowPartitionsDefinition:
    definition = time_partitions(
        cron_schedule=cron,
        start=_local(start, timezone),
        end=_local(end, timezone) if end is not None else None,
        timezone=timezone,
        fmt=form,
        end_offset=offset,
        exclusions=exclusions or None,
    )
    validate_partitions(definition)
    return definition


def _local(moment: datetime, timezone: str) -> datetime:
    """A local time that exists, as Dagster takes it: where clocks skip it, when they go on."""
    return first_at_or_after(moment, ZoneInfo(timezone)).replace(tzinfo=None)


def _exclusions(
    spec: DimensionSpec, minutes: int, closed: Sequence[date], last: date
) -> tuple[str | datetime, ...]:
    """Closed days as Dagster takes them: weekdays that are always closed as one cron expression."""
    assert spec.start is not None
    zone = spec.timezone or "UTC"
    first = spec.start.date()
    closed_set = set(closed)
    weekdays: set[int] = set(range(7))
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        if day not in closed_set:
            weekdays.discard(day.weekday())
    if len(weekdays) == 7:
        raise PartitionError(
            f"calendar {spec.calendar} has no open day from {first} on",
            hint="Check start and end.",
        )
    rest = [
        moment
        for d in closed
        if d.weekday() not in weekdays
        and (moment := _local(datetime.combine(d, time(minutes // 60, minutes % 60)), zone)).date()
        == d
    ]
    if not weekdays:
        return tuple(rest)
    listed = ",".join(str((day + 1) % 7) for day in sorted(weekdays))
    return (f"{minutes % 60} {minutes // 60} * * {listed}", *rest)


def newest_stored(store: str, notebook: str, spec: NotebookSpec) -> str | None:
    """The newest of a notebook's partitions that has data; None where none has."""
    stored = stored_partitions(store, notebook, partitioning(spec))
    # a key need not sort as its time does: 01.02.2018
    keys = [partition_key_of(spec, partition.key) for partition in stored]
    return max(keys, key=lambda key: (key.start or "", key.key)).key if keys else None


def segments_of(spec: NotebookSpec, key: str | None) -> tuple[str, ...]:
    """The folders of a partition in the store; none without one."""
    return folders_of(partition_key_of(spec, key) if key is not None else None)


def partition_key_of(spec: NotebookSpec, key: str) -> PartitionKey:
    """What a run needs to know about its partition.

    Parameters
    ----------
    spec : NotebookSpec
    key : str
        Dagster's key, ``a|b`` where there are two dimensions.

    Returns
    -------
    PartitionKey
        ``dimensions`` by column name; ``start`` and ``end`` of the window of time, where there is
        one, as ISO 8601 with the offset that holds at each.

    Raises
    ------
    PartitionError
        When it is not a key of such partitions.
    """
    parts = key_parts(spec, key)
    timed = [(name, d) for name, d in dimension_specs(spec).items() if d.is_time]
    if not timed:
        return PartitionKey(key=str(key), dimensions=parts, by=partitioning(spec))
    name, dimension = timed[0]
    # A calendar leaves days out; it does not move the windows of those that stay.
    definition = _time(dimension.model_copy(update={"calendar": None}), None, None)
    start, end = _window_of(definition, parts[name])
    return PartitionKey(key=str(key), dimensions=parts, start=start, end=end, by=partitioning(spec))


def partitioning(spec: NotebookSpec) -> dict[str, str]:
    """How the keys of each dimension are made: what is stored by other keys is set aside.

    Where partitions begin and end, which values are listed, and which days a calendar leaves out
    is not a part of it: keys that stay mean the same.
    """
    return {name: _made_by(dimension) for name, dimension in dimension_specs(spec).items()}


def _made_by(dimension: DimensionSpec) -> str:
    if not dimension.is_time:
        return "values"
    minutes = int(dimension.shift // 60)
    period = dimension.cron or dimension.by or ""
    if minutes and not dimension.cron:
        period += f" from {minutes // 60:02d}:{minutes % 60:02d}"
    return f"{period}, {dimension.timezone or 'UTC'}, {dimension.key_format}"


def _window_of(definition: dg.TimeWindowPartitionsDefinition, key: str) -> tuple[str, str]:
    hint = f"Write it as {example_key(definition)}."
    try:
        window = definition.time_window_for_partition_key(key)
    except ValueError as error:
        raise PartitionError(
            f"'{key}' is not a partition key of the format {definition.fmt}", hint=hint
        ) from error
    if definition.get_partition_key_for_timestamp(window.start.timestamp()) != key:
        raise PartitionError(f"no partition begins at '{key}' in {definition.timezone}", hint=hint)
    return window.start.isoformat(), window.end.isoformat()


def example_key(definition: dg.TimeWindowPartitionsDefinition) -> str:
    """The key of the first partition, whether or not it is over."""
    first = definition.get_next_partition_window(definition.start, respect_bounds=False)
    assert first is not None
    return definition.get_partition_key_for_timestamp(first.start.timestamp())


def parameter_values(
    spec: NotebookSpec,
    partition: PartitionKey,
    types: Mapping[str, str],
) -> dict[str, Any]:
    """The parameters that a partition sets, as JSON values.

    Parameters
    ----------
    spec : NotebookSpec
    partition : PartitionKey
        As `partition_key_of` makes it.
    types : mapping of str to str
        The declared type of each of the notebook's parameters (``"date"``, ``"int"``...).

    Returns
    -------
    dict
        A date or moment for parameters of such a type, where the partition is one of time: the
        window's start, in local time. Partitions of an hour or less carry their offset, so that
        an hour that the clocks repeat has one meaning; longer ones are without, as dates in data
        mostly are. Else the key itself, for the parameter's type to convert.

    Raises
    ------
    PartitionError
        When a named parameter is none of the notebook's.
    """
    values: dict[str, Any] = {}
    for name, dimension in dimension_specs(spec).items():
        part = partition.dimensions[name]
        if name == VARIANT and spec.variants:
            values.update(spec.variants.get(part, {}))
            continue
        parameter = dimension.parameter
        if parameter is None:
            # a dimension (one of two) is called as its parameter, where there is such a one
            if spec.partitions is None or spec.partitions.dimensions is None or name not in types:
                continue
            parameter = name
        elif parameter not in types:
            raise PartitionError(
                f"the partition's parameter '{parameter}' is not one of the notebook's",
                hint=did_you_mean(parameter, types, label="Parameters")
                or 'Assign it in a cell tagged: # %% tags=["parameters"].',
            )
        values[parameter] = _typed(part, dimension, partition, types[parameter])
    return values


def _typed(part: str, dimension: DimensionSpec, partition: PartitionKey, type_: str) -> Any:
    if not dimension.is_time or partition.start is None:
        return part
    start = datetime.fromisoformat(partition.start)
    if type_ == "date":
        return start.date().isoformat()
    if type_ in ("datetime", "timestamp"):
        if dimension.by == "hour" or (dimension.by == "cron" and "%H" in dimension.key_format):
            return start.isoformat()
        return start.replace(tzinfo=None).isoformat()
    return part
