"""How far the rows differ that belong together: by column, with the largest and typical change."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from research_jobs.comparison.changes import CellChange, ColumnChange, RowChange
from research_jobs.comparison.matching import Matched, Plan, key_hashes
from research_jobs.comparison.side import Side
from research_jobs.comparison.types import is_numeric
from research_jobs.comparison.workspace import Limits, Workspace, side_by_side

pc: Any = importlib.import_module("pyarrow.compute")  # its functions are created at run time
t: Any = pa.types

__all__ = ["Differences", "compare_pairs", "row_key", "short"]

SHOWN_CELLS = 6
SHOWN_TEXT = 60
THREADS_FROM = 10_000  # pairs: fewer are found faster than threads start
_HASH, _NUMBER = "\0hash", "\0number"  # columns that no table has
_WIDTH = 40  # bytes: what a value that is no number may take in memory


@dataclass
class _Column:
    """What is known of one column so far."""

    changed: int = 0
    appeared: int = 0
    vanished: int = 0
    sizes: list[Any] = field(default_factory=list[Any])
    relative: list[Any] = field(default_factory=list[Any])
    kept: int = 0
    largest: CellChange | None = None
    largest_relative: CellChange | None = None

    def finished(self) -> ColumnChange:
        return ColumnChange(
            changed=self.changed,
            appeared=self.appeared,
            vanished=self.vanished,
            largest=self.largest,
            largest_relative=self.largest_relative,
            typical=_median(self.sizes),
            typical_relative=_median(self.relative),
        )


@dataclass
class Differences:
    """The rows and columns that differ.

    Parameters
    ----------
    changed : int
        Rows.
    foreign : int
        Pairs whose keys only had the same hash: one row added, one removed.
    columns : dict of str to ColumnChange
    examples : list of (int, RowChange)
        With the number of the row.
    """

    changed: int = 0
    foreign: int = 0
    columns: dict[str, ColumnChange] = field(default_factory=dict[str, ColumnChange])
    examples: list[tuple[int, RowChange]] = field(default_factory=list[tuple[int, RowChange]])


def compare_pairs(plan: Plan, matched: Matched, work: Workspace, tolerance: float) -> Differences:
    """Compare the rows that `match` paired, value by value.

    Parameters
    ----------
    plan : Plan
    matched : Matched
    work : Workspace
    tolerance : float
        Floats are the same whose difference is at most this part of the larger one, or of 1.
    """
    found = Differences()
    if not matched.pairs:
        return found
    columns = {name: _Column() for name in plan.values}
    width = sum(8 if t.is_primitive(plan.kinds[name]) else _WIDTH for name in plan.columns) + 16
    bits = min(8, max(0, (matched.pairs * width // work.limits.bytes).bit_length()))
    paths = [work.path() if bits else None for _ in range(2)]

    def gathered(side: Side, wanted: Any, path: Path | None) -> Iterator[Any]:
        return _gathered(plan, side, wanted, bits, path, work.limits)

    with side_by_side(on=matched.pairs > THREADS_FROM) as run:
        sides, wanted = (plan.before, plan.after), (matched.before, matched.after)
        before, after = run(gathered, sides, wanted, paths)
    for left, right in zip(before, after, strict=True):
        _compare_part(plan, _ordered(left), _ordered(right), found, columns, tolerance, work)
    found.columns = {name: column.finished() for name, column in columns.items() if column.changed}
    return found


def _gathered(
    plan: Plan, side: Side, wanted: Any, bits: int, path: Path | None, limits: Limits
) -> Iterator[Any]:
    """Read the wanted rows; return them in parts by the hash of their keys."""
    schema = pa.schema(
        [*((name, plan.kinds[name]) for name in plan.columns), (_HASH, "u8"), (_NUMBER, "i8")]
    )
    tables = (
        pa.Table.from_batches([batch], schema) for batch in _wanted(plan, side, wanted, schema)
    )
    if path is None:
        return iter([pa.concat_tables([schema.empty_table(), *tables])])
    places: list[list[int]] = [[] for _ in range(1 << bits)]
    count = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in _chunks(tables, limits.chunk // 4):
            parts = (table.column(_HASH).to_numpy() >> np.uint64(64 - bits)).astype("u1")
            ordered = table.take(pa.array(np.argsort(parts, kind="stable"))).combine_chunks()
            starts = np.concatenate(([0], np.cumsum(np.bincount(parts, minlength=1 << bits))))
            for part in np.flatnonzero(np.diff(starts)):
                piece = ordered.slice(starts[part], starts[part + 1] - starts[part])
                for batch in piece.to_batches():
                    writer.write_batch(batch)
                    places[part].append(count)
                    count += 1
    return _read_parts(path, schema, places)


def _read_parts(path: Path, schema: Any, places: Sequence[Sequence[int]]) -> Iterator[Any]:
    with pa.OSFile(str(path), "rb") as stream, pa.ipc.open_file(stream) as reader:
        for part in places:
            yield pa.Table.from_batches([reader.get_batch(number) for number in part], schema)


def _wanted(plan: Plan, side: Side, wanted: Any, schema: Any) -> Iterator[Any]:
    for start, rows, columns in side.batches(plan.columns, plan.kinds, wanted):
        mask = wanted[start : start + rows]
        if not mask.any():
            continue
        places = np.flatnonzero(mask)
        keys = key_hashes(plan, start, rows, columns)[places]
        taken = [_plain(column.take(pa.array(places))) for column in columns]
        arrays = [*taken, pa.array(keys), pa.array(places + start)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if t.is_dictionary(column.type) else column


def _chunks(tables: Iterator[Any], rows: int) -> Iterator[Any]:
    """Tables together until they have so many rows."""
    waiting: list[Any] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        if held >= rows:
            yield pa.concat_tables(waiting)
            waiting, held = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _ordered(table: Any) -> Any:
    """Rows by the hash of their key, and of the same key by their number: as they were paired."""
    return table.take(pa.array(np.argsort(table.column(_HASH).to_numpy(), kind="stable")))


def _compare_part(
    plan: Plan,
    before: Any,
    after: Any,
    found: Differences,
    columns: dict[str, _Column],
    tolerance: float,
    work: Workspace,
) -> None:
    if not before.num_rows:
        return
    alike = np.ones(before.num_rows, bool)
    for name in plan.key:
        alike &= _equal(*_arrays(before, after, name), 0.0)
    found.foreign += int((~alike).sum())
    numbers = after.column(_NUMBER).to_numpy()
    differ: dict[str, Any] = {}
    for name in plan.values:
        pair = _arrays(before, after, name)
        differs = ~_equal(*pair, tolerance) & alike
        if differs.any():
            differ[name] = differs
            keys = _Keys(plan, after, numbers)
            _note(columns[name], *pair, differs, keys, work.limits.sizes)
    if not differ:
        return
    changed = np.logical_or.reduce(list(differ.values()))
    found.changed += int(changed.sum())
    places = np.flatnonzero(changed)
    first = places[np.argsort(numbers[places])[: work.limits.examples]]
    examples = [
        (
            int(numbers[place]),
            _example(plan, before, after, differ, int(place), int(numbers[place])),
        )
        for place in first
    ]
    merged = sorted([*found.examples, *examples], key=lambda item: item[0])
    found.examples = merged[: work.limits.examples]


def _arrays(before: Any, after: Any, name: str) -> tuple[Any, Any]:
    return before.column(name).combine_chunks(), after.column(name).combine_chunks()


def _equal(before: Any, after: Any, tolerance: float) -> Any:
    """Of each pair of values whether they are the same: null is null, NaN is NaN, -0.0 is 0.0."""
    if t.is_null(before.type):
        return np.ones(len(before), bool)
    missing, gone = np.asarray(before.is_null()), np.asarray(after.is_null())
    if t.is_floating(before.type):
        old, new = (_floats(column) for column in (before, after))
        same = (old == new) | (np.isnan(old) & np.isnan(new))
        if tolerance:
            with np.errstate(invalid="ignore"):
                size = np.maximum(1.0, np.maximum(np.abs(old), np.abs(new)))
                same |= np.isfinite(size) & (np.abs(new - old) <= tolerance * size)
    else:
        same = np.asarray(pc.equal(before, after).fill_null(False))
    return (same & ~missing & ~gone) | (missing & gone)


def _floats(column: Any) -> Any:
    if t.is_decimal(column.type):
        column = column.cast(pa.float64())
    return column.to_numpy(zero_copy_only=False).astype("f8")


class _Keys:
    """The rows of one side by what a person knows them by."""

    def __init__(self, plan: Plan, table: Any, numbers: Any) -> None:
        self._plan, self._table, self._numbers = plan, table, numbers

    def __getitem__(self, place: int) -> str:
        return row_key(self._plan.key, self._table, place, int(self._numbers[place]))


def _note(column: _Column, before: Any, after: Any, differs: Any, keys: _Keys, most: int) -> None:
    """Add the values of a column that differ."""
    column.changed += int(differs.sum())
    column.appeared += int((np.asarray(before.is_null()) & differs).sum())
    column.vanished += int((np.asarray(after.is_null()) & differs).sum())
    if not is_numeric(before.type):
        return
    old, new = _floats(before), _floats(after)
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = np.abs(new - old)
        relative = np.where(sizes == 0, 0.0, sizes / np.abs(old))
    places = np.flatnonzero(differs & ~np.isnan(sizes))
    if not len(places):
        return
    # Parts come in the order of hashes, so the first values are as good as a random sample.
    room = most - column.kept
    if room > 0:
        column.sizes.append(sizes[places[:room]])
        column.relative.append(relative[places[:room]])
        column.kept += len(places[:room])

    def cell(place: int) -> CellChange:
        return CellChange(
            keys[place],
            short(before[place].as_py()),
            short(after[place].as_py()),
            float(new[place] - old[place]),
            float(relative[place]),
        )

    place = int(places[np.argmax(sizes[places])])
    if column.largest is None or sizes[place] > abs(column.largest.change):
        column.largest = cell(place)
    place = int(places[np.argmax(relative[places])])
    if column.largest_relative is None or relative[place] > column.largest_relative.relative:
        column.largest_relative = cell(place)


def _median(parts: Sequence[Any]) -> float | None:
    return float(np.median(np.concatenate(parts))) if parts else None


def _example(
    plan: Plan, before: Any, after: Any, differ: dict[str, Any], place: int, number: int
) -> RowChange:
    names = [name for name, differs in differ.items() if differs[place]][:SHOWN_CELLS]
    cells = {
        name: (_text(before.column(name)[place]), _text(after.column(name)[place]))
        for name in names
    }
    return RowChange(row_key(plan.key, after, place, number), cells)


def row_key(columns: Sequence[str], table: Any, place: int, number: int) -> str:
    """A row as a person names it: its key's values, or its number."""
    if not columns:
        return f"row {number}"
    return ", ".join(_text(table.column(name)[place]) for name in columns)


def _text(scalar: Any) -> str:
    if not scalar.is_valid:
        return "missing"
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return str(scalar.cast(pa.string()))  # a time outside Python's years
    shown = short(value)
    return f"{shown:.9g}" if isinstance(shown, float) else str(shown)


def short(value: Any) -> Any:
    """A number as it is, anything else as text of bounded length."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if text.endswith(" 00:00:00") and len(text) == 19:
        text = text[:10]  # a day
    return text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 1]}…"
