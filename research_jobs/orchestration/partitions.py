"""A manifest's partitions as Dagster's, and a partition key as what a run needs to know of it.

Time is local time in the partitions' zone: a day is from midnight to midnight there, 23 or 25
hours long where clocks change.
"""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg

from research_jobs.errors import PartitionError, did_you_mean
from research_jobs.manifest import DimensionSpec, NotebookSpec
from research_jobs.orchestration.calendars import closed_days
from research_jobs.protocol import PartitionKey

if TYPE_CHECKING:
    from dagster import DagsterInstance

__all__ = [
    "VARIANT",
    "build_partitions",
    "dimension_specs",
    "parameter_values",
    "partition_key_record",
    "partition_mapping",
    "select_partitions",
    "time_dimension",
]

# The dimension that a notebook's variants make.
VARIANT = "variant"

_CRONS = {
    "hour": "{minute} * * * *",
    "day": "{minute} {hour} * * *",
    "week": "{minute} {hour} * * 1",  # ISO weeks: from Monday
    "month": "{minute} {hour} 1 * *",
    "quarter": "{minute} {hour} 1 1,4,7,10 *",
    "year": "{minute} {hour} 1 1 *",
}


# --- definitions -----------------------------------------------------------------------------------


def dimension_specs(spec: NotebookSpec) -> Mapping[str, DimensionSpec]:
    """A notebook's dimensions by column name, in Dagster's order; empty when it has none.

    Variants are a dimension of values of their own, called ``variant``.
    """
    columns = dict(spec.partitions.columns) if spec.partitions is not None else {}
    if spec.variants:
        if VARIANT in columns:
            raise PartitionError(
                f"a dimension is called '{VARIANT}', as the one that variants make",
                hint="Rename its parameter.",
            )
        columns[VARIANT] = DimensionSpec(values=tuple(spec.variants))
    return {name: columns[name] for name in sorted(columns)}


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
        raise PartitionError("partitions of time need by and start")
    minutes = int(spec.shift // 60)
    cron = spec.cron or _CRONS[spec.by].format(minute=minutes % 60, hour=minutes // 60)
    exclusions: tuple[str | datetime, ...] = ()
    if spec.calendar is not None:
        today = now or datetime.now(ZoneInfo(spec.timezone or "UTC"))
        last = spec.end or datetime(today.year + 1, 12, 31)  # noqa: DTZ001 - local days
        exclusions = _exclusions(
            spec, minutes, closed_days(spec.calendar, spec.start.date(), last.date(), cache=cache)
        )
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
    definition = dg.TimeWindowPartitionsDefinition(
        cron_schedule=cron,
        start=start,
        end=end,
        timezone=timezone,
        fmt=form,
        end_offset=offset,
        exclusions=exclusions or None,
    )
    definition.validate_partition_definition()
    return definition


def _exclusions(
    spec: DimensionSpec, minutes: int, closed: Sequence[date]
) -> tuple[str | datetime, ...]:
    """Closed days as Dagster takes them: weekdays that are always closed as one cron expression."""
    assert spec.start is not None
    first = spec.start.date()
    last = closed[-1] if closed else first
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
        datetime(d.year, d.month, d.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - zone follows
        for d in closed
        if d.weekday() not in weekdays
    ]
    if not weekdays:
        return tuple(rest)
    listed = ",".join(str((day + 1) % 7) for day in sorted(weekdays))
    return (f"{minutes % 60} {minutes // 60} * * {listed}", *rest)


# --- one key ---------------------------------------------------------------------------------------


def partition_key_record(
    definition: dg.PartitionsDefinition[Any], spec: NotebookSpec, key: str
) -> PartitionKey:
    """What a run is told of its partition.

    Parameters
    ----------
    definition : dagster.PartitionsDefinition
        As `build_partitions` made it of `spec`.
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
    names = list(dimension_specs(spec))
    parts = _parts(key, names)
    window = None
    timed = time_dimension(definition)
    if timed is not None:
        name, time_definition = timed
        part = parts[name] if name is not None else key
        try:
            window = time_definition.time_window_for_partition_key(part)
        except ValueError as error:
            raise PartitionError(
                f"'{part}' is not a partition key of the form {time_definition.fmt}",
                hint=f"Write it as {_example_key(time_definition)}.",
            ) from error
    return PartitionKey(
        key=key,
        dimensions=parts,
        start=window.start.isoformat() if window is not None else None,
        end=window.end.isoformat() if window is not None else None,
    )


def _parts(key: str, names: Sequence[str]) -> dict[str, str]:
    pieces = key.split("|") if len(names) > 1 else [key]
    if len(pieces) != len(names):
        raise PartitionError(
            f"'{key}' is not a key of the dimensions {' and '.join(names)}",
            hint=f"Write it as {'|'.join(f'<{name}>' for name in names)}.",
        )
    return dict(zip(names, pieces, strict=True))


def _example_key(definition: dg.TimeWindowPartitionsDefinition) -> str:
    return definition.start.strftime(definition.fmt)


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
        As `partition_key_record` makes it.
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


# --- several keys ----------------------------------------------------------------------------------


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
                    "partitions are asked for by key and by span", hint="Keep one of them."
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
    found: dict[str, None] = {}
    known: list[str] | None = None
    for key in keys:
        if any(c in key for c in "*?["):
            known = known if known is not None else list(definition.get_partition_keys())
            matches = [k for k in known if fnmatch.fnmatchcase(k, key)]
            if not matches:
                raise PartitionError(f"no partition matches '{key}'", hint=_existing(known))
            found.update(dict.fromkeys(matches))
        elif _has_key(definition, key):
            found[key] = None
        else:
            known = known if known is not None else list(definition.get_partition_keys())
            raise PartitionError(f"there is no partition '{key}'", hint=_existing(known, key))
    if len(found) > 1:
        known = known if known is not None else list(definition.get_partition_keys())
        order = {k: n for n, k in enumerate(known)}
        return sorted(found, key=lambda k: order.get(k, len(order)))
    return list(found)


def _has_key(definition: dg.PartitionsDefinition[Any], key: str) -> bool:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        parts = key.split("|")
        if len(parts) != len(definition.partitions_defs):
            return False
    try:
        return definition.has_partition_key(key)
    except ValueError:
        return False


def _existing(known: Sequence[str], key: str | None = None) -> str:
    if not known:
        return "There is none yet."
    close = did_you_mean(key, known) if key is not None and len(known) <= 5000 else ""
    if close.startswith("Did"):
        return close
    if len(known) <= 6:
        return f"Partitions: {', '.join(known)}."
    return f"There are {len(known)}, from {known[0]} to {known[-1]}."


def _between(known: list[str], first: str | None, last: str | None) -> list[str]:
    for key in (first, last):
        if key is not None and key not in known:
            raise PartitionError(f"there is no partition '{key}'", hint=_existing(known, key))
    start = known.index(first) if first is not None else 0
    end = known.index(last) if last is not None else len(known) - 1
    if end < start:
        raise PartitionError(f"'{first}' comes after '{last}'", hint="Swap them.")
    return known[start : end + 1]


def _in_span(
    definition: dg.TimeWindowPartitionsDefinition, first: str | None, last: str | None
) -> list[str]:
    low = _span(definition, first)[0] if first is not None else None
    high = _span(definition, last)[1] if last is not None else None
    if low is not None and high is not None and low >= high:
        raise PartitionError(f"'{first}' comes after '{last}'", hint="Swap them.")
    first_window = definition.get_first_partition_window()
    last_window = definition.get_last_partition_window()
    if first_window is None or last_window is None:
        raise PartitionError(
            "there is no partition yet",
            hint=f"The first begins on {definition.start:%Y-%m-%d %H:%M}.",
        )
    known = definition.get_partition_keys()
    start_of = definition.start_time_for_partition_key  # by bisection: each call walks a cron
    begin, end = 0, len(known)
    if low is not None:
        begin = bisect_left(known, low, key=start_of)
        # the one before began earlier, but may reach into the span
        if begin > 0 and definition.time_window_for_partition_key(known[begin - 1]).end > low:
            begin -= 1
    if high is not None:
        end = bisect_left(known, high, key=start_of)
    found = list(known[begin:end])
    if not found:
        raise PartitionError(
            f"no partition lies from {first or 'the beginning'} to {last or 'the end'}",
            hint=(
                f"They run from {definition.get_first_partition_key()}"
                f" to {definition.get_last_partition_key()}."
            ),
        )
    return found


_SPANS = (
    (re.compile(r"\d{4}\Z"), "year"),
    (re.compile(r"\d{4}-\d{2}\Z"), "month"),
    (re.compile(r"\d{4}-\d{2}-\d{2}\Z"), "day"),
    (re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?\Z"), "moment"),
)


def _span(definition: dg.TimeWindowPartitionsDefinition, text: str) -> tuple[datetime, datetime]:
    """What a key, a date, a month, a year or a moment covers, in the partitions' zone."""
    text = text.strip()
    try:
        start = definition.start_time_for_partition_key(text)
        if start.strftime(definition.fmt) == text and not definition.is_window_start_excluded(
            start
        ):
            window = definition.time_window_for_partition_key(text)
            return window.start, window.end
    except ValueError:
        pass
    zone = ZoneInfo(definition.timezone)
    kind = next((kind for pattern, kind in _SPANS if pattern.match(text)), None)
    try:
        if kind == "year":
            year = int(text)
            return datetime(year, 1, 1, tzinfo=zone), datetime(year + 1, 1, 1, tzinfo=zone)
        if kind == "month":
            year, month = int(text[:4]), int(text[5:])
            after = (year + 1, 1) if month == 12 else (year, month + 1)
            return datetime(year, month, 1, tzinfo=zone), datetime(*after, 1, tzinfo=zone)
        if kind == "day":
            day = date.fromisoformat(text)
            return (
                datetime(day.year, day.month, day.day, tzinfo=zone),
                datetime.combine(day + timedelta(days=1), datetime.min.time(), tzinfo=zone),
            )
        if kind == "moment":
            moment = datetime.fromisoformat(text).replace(tzinfo=zone)
            return moment, moment + timedelta(microseconds=1)
    except (ValueError, OverflowError):
        pass
    raise PartitionError(
        f"'{text}' is neither a partition nor a date",
        hint=f"Write a key, as {_example_key(definition)}, or a date, as 2018-11-30.",
    )


# --- between two notebooks -------------------------------------------------------------------------


def partition_mapping(
    upstream: dg.PartitionsDefinition[Any] | None,
    downstream: dg.PartitionsDefinition[Any] | None,
    *,
    names: tuple[str, str] = ("upstream", "downstream"),
) -> dg.PartitionMapping | None:
    """Which partitions of one notebook a partition of another reads.

    Parameters
    ----------
    upstream, downstream : dagster.PartitionsDefinition or None
        Of the notebook that is read, and of the one that reads.
    names : tuple of str
        Their names, for the message.

    Returns
    -------
    dagster.PartitionMapping or None
        None where the one that is read has no partitions: all of it is read.

    Raises
    ------
    PartitionError
        When nothing says which belongs to which.
    """
    if upstream is None:
        return None
    if downstream is None:
        return dg.AllPartitionMapping()
    if upstream == downstream:
        return dg.IdentityPartitionMapping()
    timed_up, timed_down = time_dimension(upstream), time_dimension(downstream)
    if isinstance(upstream, dg.MultiPartitionsDefinition) or isinstance(
        downstream, dg.MultiPartitionsDefinition
    ):
        return _multi_mapping(upstream, downstream, names)
    if timed_up is not None and timed_down is not None:
        if timed_up[1].timezone != timed_down[1].timezone:
            raise PartitionError(
                f"{names[1]} has partitions in {timed_down[1].timezone} and reads {names[0]},"
                f" which has them in {timed_up[1].timezone}",
                hint="Give both the same timezone.",
            )
        return dg.TimeWindowPartitionMapping()
    if isinstance(upstream, dg.StaticPartitionsDefinition) and isinstance(
        downstream, dg.StaticPartitionsDefinition
    ):
        missing = sorted(set(downstream.get_partition_keys()) - set(upstream.get_partition_keys()))
        if missing:
            raise PartitionError(
                f"{names[1]} has the partition '{missing[0]}', which {names[0]} has not",
                hint=f"Partitions of {names[0]}: {', '.join(upstream.get_partition_keys())}.",
            )
        return dg.IdentityPartitionMapping()
    if isinstance(upstream, dg.DynamicPartitionsDefinition) or isinstance(
        downstream, dg.DynamicPartitionsDefinition
    ):
        static_or_dynamic = (dg.StaticPartitionsDefinition, dg.DynamicPartitionsDefinition)
        if isinstance(upstream, static_or_dynamic) and isinstance(downstream, static_or_dynamic):
            return dg.IdentityPartitionMapping()
    raise _unrelated(upstream, downstream, names)


def _multi_mapping(
    upstream: dg.PartitionsDefinition[Any],
    downstream: dg.PartitionsDefinition[Any],
    names: tuple[str, str],
) -> dg.PartitionMapping:
    if isinstance(upstream, dg.MultiPartitionsDefinition) and isinstance(
        downstream, dg.MultiPartitionsDefinition
    ):
        found: dict[str, dg.DimensionPartitionMapping] = {}
        ours = {d.name: d.partitions_def for d in downstream.partitions_defs}
        for theirs in upstream.partitions_defs:
            if theirs.name not in ours:
                continue  # a dimension of theirs alone: all of it is read
            mapping = partition_mapping(theirs.partitions_def, ours[theirs.name], names=names)
            assert mapping is not None
            found[theirs.name] = dg.DimensionPartitionMapping(theirs.name, mapping)
        if not found:
            raise _unrelated(upstream, downstream, names)
        return dg.MultiPartitionMapping(found)
    multi = upstream if isinstance(upstream, dg.MultiPartitionsDefinition) else downstream
    single = downstream if multi is upstream else upstream
    assert isinstance(multi, dg.MultiPartitionsDefinition)
    for dimension in multi.partitions_defs:
        if dimension.partitions_def == single:
            return dg.MultiToSingleDimensionPartitionMapping(dimension.name)
    for dimension in multi.partitions_defs:
        theirs = dimension.partitions_def
        if (
            isinstance(theirs, dg.TimeWindowPartitionsDefinition)
            and isinstance(single, dg.TimeWindowPartitionsDefinition)
            and theirs.timezone == single.timezone
        ):
            return dg.MultiToSingleDimensionPartitionMapping(dimension.name)
    raise _unrelated(upstream, downstream, names)


def _unrelated(
    upstream: dg.PartitionsDefinition[Any],
    downstream: dg.PartitionsDefinition[Any],
    names: tuple[str, str],
) -> PartitionError:
    return PartitionError(
        f"{names[1]} reads {names[0]}, but nothing says which partitions belong together:"
        f" {_describe(downstream)} against {_describe(upstream)}",
        hint="Give both a dimension in common, or read it by path.",
    )


def _describe(definition: dg.PartitionsDefinition[Any]) -> str:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return " by ".join(definition.partition_dimension_names)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return f"time ({definition.cron_schedule})"
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        return f"the keys of {definition.name}"
    keys = list(definition.get_partition_keys())
    return ", ".join(keys[:3]) + ("..." if len(keys) > 3 else "")
