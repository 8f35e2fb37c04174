"""What differs between two stored tables: rows by key, values by column, types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from research_jobs.comparison.changes import ColumnChange, RowChange, TableChange
from research_jobs.comparison.differing import compare_pairs, row_key
from research_jobs.comparison.keys import Key, possible_keys, without_key
from research_jobs.comparison.matching import Matched, NotUniqueError, Plan, match
from research_jobs.comparison.side import IncomparableError, Side, open_side
from research_jobs.comparison.types import common_type, type_text
from research_jobs.comparison.workspace import Limits, Workspace, workspace

__all__ = ["compare_tables"]

ENOUGH = 0.5  # of the rows that both sides could share: fewer, and a key that was found is doubtful


def compare_tables(
    before: Path,
    after: Path,
    *,
    unique: Sequence[str] = (),
    tolerance: float = 0.0,
    positions: bool = False,
    folder: Path | None = None,
    limits: Limits | None = None,
) -> TableChange:
    """Compare two Parquet files as tables.

    Neither the order of rows nor that of columns is a difference. Memory is bounded by `limits`,
    whatever the size of the files.

    Parameters
    ----------
    before, after : Path
    unique : sequence of str
        Columns that together identify a row, as the manifest declares.
    tolerance : float
        Floats are the same whose difference is at most this part of the larger one, or of 1.
    positions : bool
        Match rows by their number.
    folder : Path, optional
        A folder for temporary files.
    limits : Limits, optional

    Returns
    -------
    TableChange

    Raises
    ------
    CorruptOutputError, StoreError, FileNotFoundError
    """
    sides = open_side(before), open_side(after)
    refused: set[str] = set()
    while True:
        try:
            with workspace(limits or Limits(), folder) as work:
                return _compare(*sides, unique, tolerance, positions, refused, work)
        except IncomparableError as error:  # noqa: PERF203 - once for each such column
            refused.add(error.column)


def _compare(
    before: Side,
    after: Side,
    unique: Sequence[str],
    tolerance: float,
    positions: bool,
    refused: set[str],
    work: Workspace,
) -> TableChange:
    kinds = {
        name: kind
        for name in before.places
        if name in after.places and name not in refused
        if (kind := common_type(before.arrow_type(name), after.arrow_type(name))) is not None
    }
    key, plan, matched = _matched(
        before, after, kinds, () if positions else unique, positions, work
    )
    found = compare_pairs(plan, matched, work, tolerance)
    columns = _columns(before, after, kinds)
    for name, change in found.columns.items():
        known = columns.get(name, ColumnChange())
        columns[name] = replace(change, type_before=known.type_before, type_after=known.type_after)
    shown = plan.key or tuple(plan.columns)[:4] if plan.how == "rows" else plan.key
    return TableChange(
        rows_before=before.rows,
        rows_after=after.rows,
        rows_added=matched.added + found.foreign,
        rows_removed=matched.removed + found.foreign,
        rows_changed=found.changed,
        key=key.columns,
        key_reason=key.reason,
        columns=columns,
        shared=tuple(name for name in before.places if name in after.places),
        added=_examples(after, shown, kinds, matched.some_added),
        removed=_examples(before, shown, kinds, matched.some_removed),
        changed=tuple(example for _, example in found.examples),
    )


def _matched(
    before: Side,
    after: Side,
    kinds: dict[str, Any],
    unique: Sequence[str],
    positions: bool,
    work: Workspace,
) -> tuple[Key, Plan, Matched]:
    """Match rows by the best key that works."""
    doubtful: list[Key] = []
    enough = ENOUGH * min(before.rows, after.rows)
    keys = () if positions else possible_keys(before, after, kinds, unique)
    for key in keys:
        try:
            plan = _plan(before, after, kinds, key)
            matched = match(plan, work, unique=key.unique)
        except NotUniqueError:
            continue
        if not key.reason.startswith("found") or matched.same + matched.pairs >= enough:
            return key, plan, matched
        doubtful.append(key)
    if positions:
        key = Key((), "position", "")
    else:
        key = doubtful[0] if doubtful else without_key(before, after, kinds)
    plan = _plan(before, after, kinds, key)
    return key, plan, match(plan, work, unique=False)


def _plan(before: Side, after: Side, kinds: dict[str, Any], key: Key) -> Plan:
    values = tuple(name for name in kinds if name not in key.columns)
    return Plan(before, after, key.columns, key.how, values, kinds)


def _columns(before: Side, after: Side, kinds: dict[str, Any]) -> dict[str, ColumnChange]:
    """The columns that only one side has, or whose type differs."""
    found: dict[str, ColumnChange] = {}
    for name in before.places:
        if name not in after.places:
            found[name] = ColumnChange("removed", type_before=type_text(before.arrow_type(name)))
            continue
        was, now = before.type_texts(name, after)
        if was != now or name not in kinds:
            found[name] = ColumnChange(type_before=was, type_after=now, compared=name in kinds)
    for name in after.places:
        if name not in before.places:
            found[name] = ColumnChange("added", type_after=type_text(after.arrow_type(name)))
    return found


def _examples(
    side: Side, names: Sequence[str], kinds: dict[str, Any], numbers: Sequence[int]
) -> tuple[RowChange, ...]:
    """The keys of these rows."""
    if not numbers:
        return ()
    if not names:
        return tuple(RowChange(f"row {number}") for number in numbers)
    wanted = np.zeros(side.rows, bool)
    wanted[list(numbers)] = True
    found: list[RowChange] = []
    for start, rows, columns in side.batches(names, kinds, wanted):
        places = np.flatnonzero(wanted[start : start + rows])
        if len(places):
            table = pa.table(
                [column.take(pa.array(places)) for column in columns], names=list(names)
            )
            found += [
                RowChange(row_key(names, table, place, start + int(number)))
                for place, number in enumerate(places)
            ]
    return tuple(found)
