"""What differs between two versions of a notebook's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from research_jobs.comparison.changes import Comparison, OutputChange, TableChange, ValuesChange
from research_jobs.comparison.side import open_side
from research_jobs.comparison.tables import compare_tables
from research_jobs.comparison.values import compare_values
from research_jobs.comparison.workspace import Limits
from research_jobs.store.codec import read_output
from research_jobs.store.codec.base import PANDAS_KINDS
from research_jobs.store.codec.registry import is_table
from research_jobs.store.codec.source import Source, open_source
from research_jobs.store.codec.typed_json import loads
from research_jobs.store.content import same_data

__all__ = ["compare_output", "compare_outputs", "is_tabular"]

MANY = 10_000  # items: lists and dicts with more are compared as tables


def compare_outputs(
    before: Mapping[str, Path],
    after: Mapping[str, Path],
    *,
    unique: Mapping[str, Sequence[str]] | None = None,
    tolerance: float = 0.0,
    folder: Path | None = None,
) -> Comparison:
    """Compare the outputs of two versions.

    Parameters
    ----------
    before, after : mapping of str to Path
        Output to its file.
    unique : mapping of str to sequence of str, optional
        Output to the columns that the manifest declares ``unique``.
    tolerance, folder
        As in `compare_tables`.

    Returns
    -------
    Comparison

    Raises
    ------
    CorruptOutputError, StoreError, FileNotFoundError
    """
    found: dict[str, OutputChange] = {}
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            found[name] = OutputChange("removed", kind_before=open_source(before[name]).kind)
        elif name not in before:
            found[name] = OutputChange("added", kind_after=open_source(after[name]).kind)
        else:
            found[name] = compare_output(
                before[name],
                after[name],
                unique=(unique or {}).get(name, ()),
                tolerance=tolerance,
                folder=folder,
            )
    return Comparison(found)


def compare_output(
    before: Path,
    after: Path,
    *,
    unique: Sequence[str] = (),
    tolerance: float = 0.0,
    folder: Path | None = None,
    limits: Limits | None = None,
) -> OutputChange:
    """Compare two files of one output; parameters as in `compare_tables`."""
    old, new = open_source(before), open_source(after)
    if _same_file(old, new):
        rows = int(new.footer.num_rows)
        if not is_tabular(new):
            return OutputChange("both", old.kind, new.kind, parts=ValuesChange())
        table = TableChange(rows, rows, shared=tuple(open_side(after).places))
        return OutputChange("both", old.kind, new.kind, table)
    found = OutputChange("both", old.kind, new.kind, notes=_notes(old, new))
    if is_tabular(old) and is_tabular(new):
        if old.kind == new.kind == "numpy.ndarray":
            shapes = [side.header.detail["shape"][1:] for side in (old, new)]
            if shapes[0] != shapes[1]:
                return found
        table = compare_tables(
            before,
            after,
            unique=["key"] if _is_mapping(old) and _is_mapping(new) else unique,
            tolerance=tolerance,
            positions=_by_position(old) and _by_position(new),
            folder=folder,
            limits=limits,
        )
        return replace(found, table=table)
    if is_table(old.kind) or is_table(new.kind) or _is_array(old) or _is_array(new):
        return found  # of different kinds: there is nothing to match
    parts = compare_values(read_output(before), read_output(after), tolerance)
    return replace(found, parts=parts)


def _same_file(old: Source, new: Source) -> bool:
    """Whether two files have the same data, without decoding any."""
    return (
        old.kind == new.kind
        and old.header.detail == new.header.detail
        and old.schema.equals(new.schema)
        and same_data(old.path, new.path)
    )


def is_tabular(source: Source) -> bool:
    """Whether a value is compared by rows and columns: a table, and whatever is long."""
    if source.kind == "table" or is_table(source.kind) or _is_array(source):
        return True
    detail = source.header.detail
    return "records" in detail or (
        ("items" in detail or "key" in detail) and source.footer.num_rows > MANY
    )


def _is_array(source: Source) -> bool:
    return source.kind == "numpy.ndarray"


def _is_mapping(source: Source) -> bool:
    return "key" in source.header.detail and source.kind == "dict"


def _by_position(source: Source) -> bool:
    sequence = source.kind in ("list", "tuple") and "items" in source.header.detail
    return sequence or _is_array(source)


def _notes(old: Source, new: Source) -> tuple[str, ...]:
    """What a table's rows and columns do not tell."""
    notes: list[str] = []
    was, now = old.header.detail, new.header.detail
    if old.kind == new.kind == "numpy.ndarray":
        notes += [
            f"{what} {_shown(was[what])} -> {_shown(now[what])}"
            for what in ("shape", "dtype")
            if was[what] != now[what]
        ]
    if old.kind == new.kind == "pandas.Series" and was["name"] != now["name"]:
        notes.append(f"name {loads(was['name'])!r} -> {loads(now['name'])!r}")
    if old.kind in PANDAS_KINDS and new.kind in PANDAS_KINDS:
        ranges = [side["index"].get("range", [None, None, None]) for side in (was, now)]
        steps = [(start, step) for start, _, step in ranges]
        if None not in (steps[0][0], steps[1][0]) and steps[0] != steps[1]:
            notes.append(f"index range({_arguments(ranges[0])}) -> range({_arguments(ranges[1])})")
        labels = [
            {field: type(label).__name__ for label, field in side.labels.items()}
            for side in (old, new)
        ]
        notes += [
            f"the name of column {field} is {kind}, and was {labels[0][field]}"
            for field, kind in labels[1].items()
            if labels[0].get(field, kind) != kind
        ][:3]
    return tuple(notes)


def _shown(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, list) else str(value)


def _arguments(bounds: Sequence[Any]) -> str:
    return ", ".join(map(str, bounds))
