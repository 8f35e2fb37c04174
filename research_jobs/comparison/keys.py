"""By what rows are matched: a declared key, an index, a key that is found, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from research_jobs.comparison.hashing import hash_row
from research_jobs.comparison.side import Side

t: Any = pa.types

__all__ = ["Key", "possible_keys", "without_key"]

SAMPLE = 20_000  # rows
CANDIDATES = 10  # columns; there are 175 combinations of up to three of them
FULL_ATTEMPTS = 3  # combinations that are unique in the sample and are tried on everything


@dataclass(frozen=True)
class Key:
    """A way to match rows.

    Parameters
    ----------
    columns : tuple of str
    how : {"columns", "position", "rows"}
    reason : str
    unique : bool
        Whether it is of use only if it is unique on both sides.
    """

    columns: tuple[str, ...]
    how: str
    reason: str
    unique: bool = False


def possible_keys(
    before: Side, after: Side, kinds: Mapping[str, Any], declared: Sequence[str]
) -> Iterator[Key]:
    """Keys to try, the best first.

    Parameters
    ----------
    before, after : Side
    kinds : mapping of str to pyarrow.DataType
        The columns that can be compared.
    declared : sequence of str
        The manifest's ``unique``.
    """
    if declared and all(name in kinds for name in declared):
        yield Key(tuple(declared), "columns", "declared unique")
    levels = before.levels
    if levels and levels == after.levels and all(name in kinds for name in levels):
        yield Key(levels, "columns", "the index", unique=True)
    for number, columns in enumerate(_unique_in_sample(before, after, kinds)):
        if number == FULL_ATTEMPTS:
            return
        yield Key(columns, "columns", "found: unique on both sides", unique=True)


def _unique_in_sample(
    before: Side, after: Side, kinds: Mapping[str, Any]
) -> Iterator[tuple[str, ...]]:
    """Combinations of up to three columns that identify the first rows of both sides."""
    names = _candidates(before, kinds)
    if not names or not before.rows or not after.rows:
        return
    samples = [
        {name: hash_row([column], len(column)) for name, column in _head(side, names, kinds)}
        for side in (before, after)
    ]
    unique: list[set[str]] = []
    for count in (1, 2, 3):
        for chosen in combinations(names, count):
            if any(smaller <= set(chosen) for smaller in unique):
                continue  # a part of it is enough
            if all(_is_unique(sample, chosen) for sample in samples):
                unique.append(set(chosen))
                yield chosen


def _candidates(side: Side, kinds: Mapping[str, Any]) -> list[str]:
    """Columns that may identify a row: times first, then texts, then integers."""
    ranked = [(rank, name) for name, kind in kinds.items() if (rank := _rank(side, name, kind)) < 3]
    ranked.sort(key=lambda item: item[0])
    return [name for _, name in ranked][:CANDIDATES]


def _rank(side: Side, name: str, kind: Any) -> int:
    if t.is_temporal(kind) and not t.is_duration(kind):
        return 0
    if t.is_large_string(kind) and not t.is_nested(side.arrow_type(name)):
        return 1
    return 2 if t.is_integer(kind) else 3


def _head(side: Side, names: Sequence[str], kinds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for _, _, columns in side.batches(names, kinds):
        for name, column in zip(names, columns, strict=True):
            yield name, column.slice(0, SAMPLE)
        return


def _is_unique(sample: Mapping[str, Any], names: Sequence[str]) -> bool:
    total = sum((sample[name] * np.uint64(2 * place + 1) for place, name in enumerate(names)), 0)
    ordered = np.sort(total)
    return not bool((ordered[1:] == ordered[:-1]).any())


def without_key(before: Side, after: Side, kinds: Mapping[str, Any]) -> Key:
    """How to match rows that nothing identifies.

    By their number if both sides are sorted alike by a column of times, texts or integers, or if
    they have no such column and are equally long; else whole rows.
    """
    names = _candidates(before, kinds)
    if not names and before.rows == after.rows:
        return Key((), "position", "row by row: no column identifies a row")
    for name in names:
        order = _order(before, name, kinds)
        if order and order == _order(after, name, kinds):
            return Key((), "position", f"row by row: both are sorted by {name}")
    return Key((), "rows", "whole rows: nothing identifies a row")


def _order(side: Side, name: str, kinds: Mapping[str, Any]) -> int:
    """1 where a column only grows, -1 where it only falls, else 0."""
    rising = falling = True
    last: Any = None
    for _, rows, (column,) in side.batches([name], kinds):
        if not rows:
            continue
        if column.null_count:
            return 0
        values = column.dictionary_decode() if t.is_dictionary(column.type) else column
        values = values.to_numpy(zero_copy_only=False)
        if last is not None:
            values = np.concatenate((last, values))
        rising = rising and bool((values[1:] >= values[:-1]).all())
        falling = falling and bool((values[1:] <= values[:-1]).all())
        if not (rising or falling):
            return 0
        last = values[-1:]
    return 1 if rising else -1
