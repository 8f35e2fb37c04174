"""Where the outputs of two runs differ, as far as the difference tells of what the runs knew.

Not a difference here: types alone, the last bits of floats, numbers that pandas gives to rows, a
column in which there is nothing yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from research_jobs.comparison.changes import TableChange
from research_jobs.comparison.outputs import compare_output, is_tabular
from research_jobs.comparison.tables import compare_tables
from research_jobs.comparison.timeline import NoTimeError, Timeline, open_timeline
from research_jobs.store.codec import write_output
from research_jobs.store.codec.source import open_source

pc: Any = importlib.import_module("pyarrow.compute")  # its functions are created at run time

__all__ = ["Difference", "Found", "Rules", "differences"]

TOLERANCE = 1e-9
_GENERATED = "__index_level_"


@dataclass(frozen=True)
class Difference:
    """The first difference in an output.

    Parameters
    ----------
    output : str
    row : str or None
        Its key; None where the whole output or column differs.
    column : str or None
        A column, or a part of a value that is no table.
    before, after : object
        None where the row is on one side only.
    columns : tuple of str
        All columns that differ.
    rows : bool
        Whether there are rows on one side only.
    """

    output: str
    row: str | None = None
    column: str | None = None
    before: Any = None
    after: Any = None
    columns: tuple[str, ...] = ()
    rows: bool = False


@dataclass(frozen=True)
class Rules:
    """What is compared.

    Parameters
    ----------
    folder : Path
        For temporary files.
    zone : zoneinfo.ZoneInfo
    times : mapping of str to str or None
        Output to its declared column of time.
    unique : mapping of str to tuple of str
        Output to the declared columns that identify a row.
    without : mapping of str to set of str
        Output to columns that are left out; ``"*"`` for all of it.
    """

    folder: Path
    zone: ZoneInfo
    times: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    unique: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    without: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])


@dataclass
class Found:
    """What differs, and what could not be compared.

    Parameters
    ----------
    differences : list of Difference
        At most one for each output.
    not_covered : list of str
    """

    differences: list[Difference] = field(default_factory=list[Difference])
    not_covered: list[str] = field(default_factory=list[str])


def differences(
    before: Mapping[str, Path],
    after: Mapping[str, Path],
    rules: Rules,
    until: datetime | None = None,
) -> Found:
    """Compare outputs.

    Parameters
    ----------
    before, after : mapping of str to Path
        Output to its file.
    rules : Rules
    until : datetime, optional
        Only rows that are known before this moment.

    Raises
    ------
    CorruptOutputError, StoreError, FileNotFoundError
    """
    found = Found()
    for name in sorted({*before, *after}):
        if "*" in rules.without.get(name, ()):
            continue
        if name not in before or name not in after:
            found.differences.append(Difference(name))
            continue
        tables = all(is_tabular(open_source(files[name])) for files in (before, after))
        if until is not None and not tables:
            found.not_covered.append(f"output {name}: it is no table, so nothing in it has a time")
            continue
        try:
            compare = _tables if tables else _values
            difference = compare(name, before[name], after[name], rules, until)
        except NoTimeError as error:
            found.not_covered.append(f"output {name}: {error}")
            continue
        if difference is not None:
            found.differences.append(difference)
    return found


def _values(
    name: str, before: Path, after: Path, _rules: Rules, _until: datetime | None
) -> Difference | None:
    change = compare_output(before, after, tolerance=TOLERANCE)
    if change.equal:
        return None
    first = change.parts.changes[0] if change.parts and change.parts.changes else None
    if first is None:
        return Difference(name)
    return Difference(name, column=first.path or name, before=first.before, after=first.after)


def _tables(
    name: str, before: Path, after: Path, rules: Rules, until: datetime | None
) -> Difference | None:
    sides, empty = [_plain(path, rules, name, until) for path in (before, after)], False
    difference = _compared(name, sides, rules)
    if difference is not None and difference.rows:
        # Rows without any value, as those of what is listed later, say nothing.
        keys = {*open_source(before).levels, *_time(before, rules, name)}
        filled = [_filled(table, keys) for table in sides]
        empty = _compared(name, filled, rules) is None
    return None if empty else difference


def _compared(name: str, sides: Sequence[Any], rules: Rules) -> Difference | None:
    paths = [rules.folder / f"{side}-{name}.parquet" for side in ("before", "after")]
    for path, table in zip(paths, sides, strict=True):
        write_output(name, table, path, options={}, metadata={})
    unique = [each for each in rules.unique.get(name, ()) if each in sides[0].schema.names]
    change = compare_tables(*paths, unique=unique, tolerance=TOLERANCE, folder=rules.folder)
    return _first(name, change, *sides)


def _filled(table: Any, keys: Collection[str]) -> Any:
    """The rows that have any value besides those of these columns."""
    wanted: Any = None
    for column, kind in zip(table.columns, table.schema, strict=True):
        if kind.name not in keys:
            floating = pa.types.is_floating(kind.type)
            there = pc.invert(pc.is_null(column, nan_is_null=floating))
            wanted = there if wanted is None else pc.or_(wanted, there)
    return table if wanted is None else table.filter(wanted)


def _time(path: Path, rules: Rules, name: str) -> list[str]:
    try:
        return [open_timeline(path, rules.zone, rules.times.get(name)).field]
    except NoTimeError:
        return []


def _plain(path: Path, rules: Rules, name: str, until: datetime | None) -> Any:
    """A file as a table of the columns that count, with the rows that are known, by time."""
    timeline: Timeline | None = None
    try:
        timeline = open_timeline(path, rules.zone, rules.times.get(name))
    except NoTimeError:
        if until is not None:
            raise
    source = open_source(path)
    table = pq.read_table(path).replace_schema_metadata(None)
    without = rules.without.get(name, frozenset[str]())
    generated = {
        level
        for level in source.levels
        if level.startswith(_GENERATED) and pa.types.is_integer(table.schema.field(level).type)
    }
    if timeline is not None:
        if until is not None:
            table = table.filter(pa.array(timeline.before(until)))
        if table.schema.names.count(timeline.field) == 1:
            table = table.sort_by(timeline.field)
    kept = [each for each in table.schema.names if each not in generated and each not in without]
    if len(set(table.schema.names)) < len(table.schema.names):
        return table  # columns of the same name cannot be told apart
    return table.select(kept)


def _first(name: str, change: TableChange, before: Any, after: Any) -> Difference | None:
    """The first difference that counts."""
    changed = [column for column, how in change.columns.items() if how.changed]
    for column, how in change.columns.items():
        side = {"removed": before, "added": after}.get(how.status)
        if side is None and not how.compared:
            side = before
        if side is not None and _tells(side.column(column)):
            changed.append(column)
    rows = bool(change.rows_added or change.rows_removed)
    if not changed and not rows:
        return None
    columns = tuple(changed)
    example = next((row for row in change.changed if row.cells), None)
    missing = next(iter((*change.removed, *change.added)), None) if rows else None
    if example is not None and (missing is None or example.key <= missing.key or not change.key):
        column, (was, now) = next(iter(example.cells.items()))
        return Difference(name, example.key, column, was, now, columns, rows)
    if missing is not None:
        sides = ("a row", None) if change.removed else (None, "a row")
        key = change.key[0] if change.key else None
        return Difference(name, missing.key, key, *sides, columns, rows)
    return Difference(name, None, columns[0], columns=columns)


def _tells(column: Any) -> bool:
    """Whether a column that one side lacks says anything: more than one neutral value throughout.

    A table has a column for what is listed later; until then there is nothing in it, or 0.
    """
    values = {value for value in pc.unique(column).to_pylist() if value is not None}
    values = {value for value in values if value == value}  # noqa: PLR0124 - not NaN
    return bool(values) and not (len(values) == 1 and values <= {0, 1, ""})
