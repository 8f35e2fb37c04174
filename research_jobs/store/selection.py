"""The units of a notebook that a reader selects: one partition, several, or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from research_jobs.errors import (
    CorruptOutputError,
    OutputNotFoundError,
    PartitionError,
    did_you_mean,
)
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.run_context import RunContext, context
from research_jobs.store.backends.base import current_version
from research_jobs.store.layout import read_segments
from research_jobs.store.view import Reader

__all__ = ["Selection", "select"]

ALL = "all"


@dataclass(frozen=True)
class Selection:
    """The units to read, and whether as one table (with the keys as columns)."""

    units: tuple[Any, ...]
    many: bool


def select(store: str, notebook: str, partition: Any, project: Project | None) -> Selection:
    """Resolve `partition` to units.

    Raises
    ------
    OutputNotFoundError, PartitionError
    """
    reader = Reader(store)
    named = _named(partition)
    if named and (unit := reader.unit(notebook, named)) is not None:
        return Selection((unit,), many=False)
    units = list(reader.units(notebook))
    if not units:
        raise _nothing_there(store, notebook, project)
    parted = [unit for unit in units if unit.segments]
    if not parted:
        if partition is not None and partition != ALL:
            raise OutputNotFoundError(
                f"{notebook} is not partitioned, so it has no partition {partition!r}"
            )
        return Selection(tuple(units), many=False)
    keys = {unit: read_segments(unit.segments) for unit in parted}
    if partition is None:
        return _of_run(notebook, keys, context(), reader)
    return _of_request(notebook, keys, partition)


def _named(partition: Any) -> str | Mapping[str, str]:
    """The one partition that is asked for, as far as it can be told without those that there are.

    Of ten thousand partitions behind a URL the list alone takes seconds.
    """
    if partition is None:
        return dict(context().partition)
    return _key_text(partition) if isinstance(partition, (str, date)) and partition != ALL else ""


def _of_run(
    notebook: str, keys: Mapping[Any, PartitionKey], run: RunContext, reader: Reader
) -> Selection:
    """A run's default: its own partition, or those that overlap its time window."""
    if not run.partition_key:
        return Selection(tuple(keys), many=True)
    own = dict(run.partition) or {"partition": run.partition_key}
    alike = {tuple(sorted(key.dimensions)) for key in keys.values()}
    if tuple(sorted(own)) in alike:
        exact = [unit for unit, key in keys.items() if dict(key.dimensions) == own]
    else:
        exact = [unit for unit, key in keys.items() if key.key == run.partition_key]
    if exact:
        return Selection((exact[0],), many=False)
    if run.start is not None and run.end is not None:
        windows = {unit: _window(reader, unit) for unit in keys}
        met = {
            unit: window
            for unit, window in windows.items()
            if window is not None and window[0] < run.end and window[1] > run.start
        }
        if met:
            start, end = next(iter(met.values()))
            inside = len(met) == 1 and start <= run.start and end >= run.end
            return Selection(tuple(met), many=not inside)
    raise _no_partition(notebook, run.partition_key, keys)


def _window(reader: Reader, unit: Any) -> tuple[datetime, datetime] | None:
    version = current_version(reader, unit)
    if version.window is None:
        return None
    try:
        start, end = (datetime.fromisoformat(moment) for moment in version.window)
    except ValueError as error:
        raise CorruptOutputError(
            f"{version.folder} is of no time window: {error}", hint="Run the notebook again."
        ) from error
    return start, end


def _of_request(notebook: str, keys: Mapping[Any, PartitionKey], wanted: Any) -> Selection:
    if isinstance(wanted, PartitionKey):
        wanted = dict(wanted.dimensions) or wanted.key
    if isinstance(wanted, Mapping):
        return _of_mapping(notebook, keys, wanted)
    by_key = {key.key: unit for unit, key in keys.items()}
    if wanted == ALL and ALL not in by_key:
        return Selection(tuple(keys), many=True)
    if isinstance(wanted, (str, date)):
        key = _key_text(wanted)
        if key not in by_key:
            raise _no_partition(notebook, key, keys)
        return Selection((by_key[key],), many=False)
    if _is_range(wanted):
        inside = _in_range(wanted)
        units = tuple(unit for key, unit in sorted(by_key.items()) if inside(key))
        if not units:
            raise _no_partition(notebook, f"in the range {wanted}", keys)
        return Selection(units, many=True)
    return Selection(_each(notebook, keys, by_key, wanted), many=True)


def _each(
    notebook: str, keys: Mapping[Any, PartitionKey], by_key: Mapping[str, Any], wanted: Any
) -> tuple[Any, ...]:
    """The units of a list of keys."""
    several = _key_texts(wanted)
    if not several:
        raise PartitionError(f"{notebook}: the list of partitions is empty")
    for key in several:
        if key not in by_key:
            raise _no_partition(notebook, key, keys)
    return tuple(by_key[key] for key in dict.fromkeys(several))


def _of_mapping(
    notebook: str, keys: Mapping[Any, PartitionKey], wanted: Mapping[str, Any]
) -> Selection:
    dimensions = next(iter(keys.values())).dimensions
    for name in wanted:
        if name not in dimensions:
            raise PartitionError(
                f"{notebook} is not partitioned by {name!r}",
                hint=did_you_mean(name, dimensions, label="It is partitioned by"),
            )
    is_single = set(wanted) == set(dimensions)
    tests: dict[str, Callable[[str], bool]] = {}
    for name, item in wanted.items():
        if isinstance(item, (str, date)):
            tests[name] = _key_text(item).__eq__
        elif _is_range(item):
            is_single, tests[name] = False, _in_range(item)
        else:
            is_single, tests[name] = False, set(_key_texts(item)).__contains__
    units = tuple(
        unit
        for unit, key in keys.items()
        if all(test(key.dimensions[name]) for name, test in tests.items())
    )
    if not units:
        raise _no_partition(notebook, str(dict(wanted)), keys)
    return Selection(units, many=not is_single)


def _is_range(wanted: Any) -> bool:
    return isinstance(wanted, slice) or (isinstance(wanted, tuple) and len(wanted) == 2)


def _in_range(wanted: Any) -> Callable[[str], bool]:
    """Whether a key is in a range, both ends included; None leaves an end open."""
    first, last = (wanted.start, wanted.stop) if isinstance(wanted, slice) else wanted
    low = None if first is None else _key_text(first)
    high = None if last is None else _key_text(last)
    return lambda key: (low is None or key >= low) and (high is None or key <= high)


def _key_text(key: Any) -> str:
    if isinstance(key, datetime):
        return key.date().isoformat() if key.time() == datetime.min.time() else key.isoformat()
    if isinstance(key, date):
        return key.isoformat()
    if isinstance(key, str):
        return key
    raise PartitionError(
        f"{key!r} is not a partition",
        hint='Give a key, a list of keys, a range ("first", "last"), or "all".',
    )


def _key_texts(keys: Any) -> list[str]:
    return [_key_text(key) for key in (keys if isinstance(keys, Iterable) else [keys])]


def _no_partition(
    notebook: str, wanted: str, keys: Mapping[Any, PartitionKey]
) -> OutputNotFoundError:
    known = sorted(key.key for key in keys.values())
    if len(known) <= 8:
        there = f"There are: {', '.join(known)}"
    else:
        there = f"There are {len(known)}, from {known[0]} to {known[-1]}."
    return OutputNotFoundError(f"{notebook} has no partition {wanted}", hint=there)


def _nothing_there(store: str, notebook: str, project: Project | None) -> OutputNotFoundError:
    """The error for a notebook without outputs: it is unknown, or has not run yet."""
    stored = Reader(store).notebooks()
    names = set(stored)
    if project is not None:
        folder = project.notebooks
        names.update(
            path.relative_to(folder).with_suffix("").as_posix()
            for path in folder.rglob("*.py")
            if not path.name.startswith("_")
        )
        if notebook in stored or (folder / f"{notebook}.py").is_file():
            return OutputNotFoundError(
                f"{notebook} has no outputs in {project.display(store)} yet",
                hint=f"Run it: research-jobs run {notebook}",
            )
    return OutputNotFoundError(
        f"there is no notebook {notebook!r}, and no outputs of it in {store}",
        hint=did_you_mean(notebook, names, label="There are") or None,
    )
