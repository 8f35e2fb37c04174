"""Which rows of two tables belong together, from hashes of their keys and of their values.

Each row is 24 bytes: the hash of its key, the hash of the whole row, its number. Beyond a bound
both sides are partitioned by the key's hash into one file each, and compared partition by
partition. So memory depends on the size of a partition, except for a bit that says of each row
whether its counterpart may differ.

Rows are taken for equal if both hashes agree, which of 10 million rows goes wrong once in 10**11
comparisons. The keys and values of rows that may differ are compared themselves afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from research_jobs.comparison.hashing import hash_positions, hash_row
from research_jobs.comparison.side import Side
from research_jobs.comparison.workspace import Workspace, side_by_side

__all__ = ["Matched", "NotUniqueError", "Plan", "key_hashes", "match"]

WIDTH = 3  # words of a record


@dataclass(frozen=True)
class Plan:
    """How two tables are compared.

    Parameters
    ----------
    before, after : Side
    key : tuple of str
        Columns; empty with `how` other than ``"columns"``.
    how : {"columns", "position", "rows"}
        By key columns; by the number of the row; or as whole rows, without a key.
    values : tuple of str
        The other columns that both have and that can be compared.
    kinds : mapping of str to pyarrow.DataType
        The type in which each column is compared.
    """

    before: Side
    after: Side
    key: tuple[str, ...]
    how: str
    values: tuple[str, ...]
    kinds: Any

    @property
    def columns(self) -> tuple[str, ...]:
        """Tuple of str: all that is compared, the key first."""
        return (*self.key, *self.values)


class NotUniqueError(Exception):
    """A key that must be unique is not."""


@dataclass
class Matched:
    """Which rows of both sides need a closer look.

    Parameters
    ----------
    added, removed : int
        Rows without a counterpart.
    pairs : int
        Rows whose counterpart has other values, as far as the hashes say.
    same : int
        Equal rows.
    before, after : numpy.ndarray of bool
        Of each row, whether it is in a pair.
    some_added, some_removed : list of int
        The first rows of each kind.
    """

    before: Any
    after: Any
    added: int = 0
    removed: int = 0
    pairs: int = 0
    same: int = 0
    some_added: list[int] = field(default_factory=list[int])
    some_removed: list[int] = field(default_factory=list[int])


class _Records:
    """The records of one side, by partition.

    Parameters
    ----------
    bits : int
        Of the key's hash that say the partition.
    chunk : int
    path : Path or None
        The file to keep them in; None for memory.
    """

    def __init__(self, bits: int, chunk: int, path: Path | None) -> None:
        self.bits = bits
        self._chunk = chunk
        self._file = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._waiting: list[Any] = []
        self._held = self._rows = 0
        self._pieces: list[tuple[Any, Any]] = []  # records or their place in the file, and starts

    def add(self, keys: Any, rows: Any) -> None:
        """Add the next rows."""
        record = np.empty((len(keys), WIDTH), dtype="<u8")
        record[:, 0], record[:, 1] = keys, rows
        record[:, 2] = np.arange(self._rows, self._rows + len(keys))
        self._rows += len(keys)
        self._held += len(keys)
        self._waiting.append(record)
        if self._held >= self._chunk:
            self.flush()

    def flush(self) -> None:
        """Sort what was added into partitions."""
        if not self._waiting:
            return
        records: Any = np.concatenate(self._waiting)
        self._waiting, self._held = [], 0
        starts = np.array([0, len(records)])
        if self.bits:
            # numpy sorts numbers of up to 16 bits in linear time.
            parts = (records[:, 0] >> np.uint64(64 - self.bits)).astype(
                "u1" if self.bits <= 8 else "u2"
            )
            records = records[np.argsort(parts, kind="stable")]
            counts = np.bincount(parts, minlength=1 << self.bits)
            starts = np.concatenate(([0], np.cumsum(counts)))
        if self._file is None:
            self._pieces.append((records, starts))
            return
        place = os.lseek(self._file, 0, os.SEEK_END)
        data = memoryview(records).cast("B")
        while data:
            data = data[os.write(self._file, data) :]
        self._pieces.append((place, starts))

    def part(self, number: int) -> tuple[Any, Any, Any]:
        """Key hashes, row hashes and row numbers of one partition, in the order of the rows."""
        found = [
            self._read(piece, starts[number], starts[number + 1]) for piece, starts in self._pieces
        ]
        records = np.concatenate(found) if found else np.empty((0, WIDTH), dtype="<u8")
        keys, rows, numbers = (np.ascontiguousarray(records[:, place]) for place in range(WIDTH))
        return keys, rows, numbers.view("<i8")

    def _read(self, piece: Any, first: int, last: int) -> Any:
        if self._file is None:
            return piece[first:last]
        size = WIDTH * 8
        data = os.pread(self._file, int(last - first) * size, int(piece + first * size))
        return np.frombuffer(data, "<u8").reshape(-1, WIDTH)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def key_hashes(plan: Plan, start: int, rows: int, columns: list[Any]) -> Any:
    """The hashes of keys; `columns` are the plan's, or only its key's."""
    if plan.how == "position":
        return hash_positions(start, rows)
    return hash_row(columns[: len(plan.key)], rows)


def match(plan: Plan, work: Workspace, *, unique: bool) -> Matched:
    """Match the rows of both sides.

    Parameters
    ----------
    plan : Plan
    work : Workspace
    unique : bool
        Whether the key must be unique on both sides.

    Raises
    ------
    NotUniqueError
    IncomparableError
    """
    limits = work.limits
    most = max(plan.before.rows, plan.after.rows)
    bits = min(16, (most // limits.partition).bit_length()) if most > limits.rows else 0
    sides = [_Records(bits, limits.chunk, work.path() if bits else None) for _ in range(2)]

    def part(number: int) -> _Part:
        return _match_part(sides[0].part(number), sides[1].part(number), plan, unique=unique)

    found = Matched(np.zeros(plan.before.rows, bool), np.zeros(plan.after.rows, bool))
    try:
        with side_by_side(on=bits > 0) as run:
            list(run(_fill, sides, (plan.before, plan.after), (plan, plan)))
            for matched in run(part, range(1 << bits)):
                matched.add_to(found, limits.examples)
    finally:
        for records in sides:
            records.close()
    return found


def _fill(records: _Records, side: Side, plan: Plan) -> None:
    for start, rows, columns in side.batches(plan.columns, plan.kinds):
        keys = key_hashes(plan, start, rows, columns)
        values = hash_row(columns[len(plan.key) :], rows, start=len(plan.key))
        if plan.how == "rows":
            keys = values
        records.add(keys, values + keys)
    records.flush()


@dataclass(frozen=True)
class _Part:
    """What became of the rows of one partition, by their numbers."""

    same: int
    paired_before: Any
    paired_after: Any
    removed: Any
    added: Any

    def add_to(self, found: Matched, examples: int) -> None:
        found.same += self.same
        found.before[self.paired_before] = True
        found.after[self.paired_after] = True
        found.pairs += len(self.paired_before)
        found.removed += len(self.removed)
        found.added += len(self.added)
        found.some_removed = _first(found.some_removed, self.removed, examples)
        found.some_added = _first(found.some_added, self.added, examples)


def _match_part(before: Any, after: Any, plan: Plan, *, unique: bool) -> _Part:
    keys_b, rows_b, numbers_b = before
    keys_a, rows_a, numbers_a = after
    if unique and (_has_twice(keys_b) or _has_twice(keys_a)):
        raise NotUniqueError
    left_b, left_a = _unequal((rows_b, keys_b), (rows_a, keys_a))
    same = len(rows_b) - len(left_b)
    keys_b, numbers_b = keys_b[left_b], numbers_b[left_b]
    keys_a, numbers_a = keys_a[left_a], numbers_a[left_a]
    if plan.how == "rows":
        paired_b, paired_a = np.zeros(len(keys_b), bool), np.zeros(len(keys_a), bool)
    else:
        paired_b, paired_a = _paired(keys_b, keys_a), _paired(keys_a, keys_b)
    return _Part(
        same,
        numbers_b[paired_b],
        numbers_a[paired_a],
        removed=numbers_b[~paired_b],
        added=numbers_a[~paired_a],
    )


def _has_twice(keys: Any) -> bool:
    ordered = np.sort(keys)
    return bool((ordered[1:] == ordered[:-1]).any())


def _unequal(before: tuple[Any, Any], after: tuple[Any, Any]) -> tuple[Any, Any]:
    """The places of both sides' rows without an equal one on the other, in order."""
    (rows_b, keys_b), (rows_a, keys_a) = before, after
    order_b, order_a = np.argsort(rows_b), np.argsort(rows_a)
    places, equal = _counterparts(rows_a[order_a], rows_b[order_b])
    old, new = order_b[equal], order_a[places[equal]]
    same = keys_b[old] == keys_a[new]
    left_b, left_a = np.ones(len(rows_b), bool), np.ones(len(rows_a), bool)
    left_b[old[same]] = False
    left_a[new[same]] = False
    return np.flatnonzero(left_b), np.flatnonzero(left_a)


def _paired(keys: Any, others: Any) -> Any:
    """Of each key, whether the other side has it; of keys that repeat, as many as it has."""
    order = np.argsort(keys, kind="stable")
    _, equal = _counterparts(np.sort(others), keys[order])
    found = np.zeros(len(keys), bool)
    found[order[equal]] = True
    return found


def _counterparts(ordered: Any, wanted: Any) -> tuple[Any, Any]:
    """Each sorted element's place in another sorted array (n-th to n-th), and if it is there."""
    if not len(ordered) or not len(wanted):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), bool)
    places = np.searchsorted(ordered, wanted)
    new = np.ones(len(wanted), bool)
    new[1:] = wanted[1:] != wanted[:-1]
    if not new.all():
        firsts = np.maximum.accumulate(np.where(new, np.arange(len(wanted)), 0))
        places = places + np.arange(len(wanted)) - firsts
    inside = np.minimum(places, len(ordered) - 1)
    return inside, (places < len(ordered)) & (ordered[inside] == wanted)


def _first(known: list[int], numbers: Any, count: int) -> list[int]:
    if not len(numbers):
        return known
    chosen: Iterable[Any] = (
        np.partition(numbers, count)[:count] if len(numbers) > count else numbers
    )
    return sorted([*known, *(int(number) for number in chosen)])[:count]
