"""A comparison as lines for a person: bounded, whatever differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from research_jobs.comparison.changes import (
    CellChange,
    ColumnChange,
    Comparison,
    OutputChange,
    RowChange,
    TableChange,
    ValueChange,
    ValuesChange,
)
from research_jobs.comparison.shown import CellShown, FigureChange, ShownChange

__all__ = [
    "describe_cell",
    "describe_comparison",
    "describe_output",
    "describe_shown",
    "figure_line",
    "number",
    "parts_line",
    "rows_line",
    "share",
]

COLUMNS = 20
PARTS = 20
CELLS = 20


def number(value: Any) -> str:
    """A value as text, a float with six digits."""
    if value is None:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def describe_comparison(comparison: Comparison) -> Iterator[str]:
    """Lines that say what differs between two versions; outputs that are equal in one line."""
    for name, output in comparison.outputs.items():
        yield from describe_output(name, output)


def describe_output(name: str, change: OutputChange) -> Iterator[str]:
    """Lines that say what differs in one output."""
    if change.status != "both":
        yield f"{name}: {change.status} ({change.kind_after or change.kind_before})"
        return
    if change.equal:
        size = f" ({change.table.rows_after:,} rows)" if change.table else ""
        yield f"{name}: equal{size}"
        return
    kinds = f"{change.kind_before} -> {change.kind_after}; "
    head = kinds if change.kind_before != change.kind_after else ""
    if change.table is not None:
        yield f"{name}: {head}{rows_line(change.table)}"
        yield from (f"  {note}" for note in change.notes)
        yield from _table(change.table)
    elif change.parts is not None:
        yield f"{name}: {head}{parts_line(change.parts)}"
        yield from (f"  {_part(part)}" for part in change.parts.changes[:PARTS])
        total = change.parts.added + change.parts.removed + change.parts.changed
        if total > PARTS:
            yield f"  … {total - PARTS:,} more"
    else:
        yield f"{name}: {'; '.join([*([kinds.rstrip('; ')] if head else []), *change.notes])}"


def rows_line(table: TableChange) -> str:
    """How many rows differ, and by what they were matched."""
    counts = [
        f"{count:,} {what}"
        for count, what in (
            (table.rows_added, "added"),
            (table.rows_removed, "removed"),
            (table.rows_changed, "changed"),
        )
        if count
    ]
    rows = f"rows: {', '.join(counts) or 'equal'}; "
    if table.rows_before == table.rows_after:
        rows += f"{table.rows_after:,} as before"
    else:
        rows += f"{table.rows_before:,} -> {table.rows_after:,}"
    if table.key:
        return f"{rows}; by {' + '.join(table.key)} ({table.key_reason})"
    return f"{rows}; {table.key_reason}" if table.key_reason else rows


def _table(table: TableChange) -> Iterator[str]:
    width = max((len(name) for name in table.columns), default=0)
    for name, column in list(table.columns.items())[:COLUMNS]:
        yield f"  {name.ljust(width)}  {_column(column)}"
    if len(table.columns) > COLUMNS:
        yield f"  … {len(table.columns) - COLUMNS:,} more columns differ"
    for label, rows, total in (
        ("changed", table.changed, table.rows_changed),
        ("added", table.added, table.rows_added),
        ("removed", table.removed, table.rows_removed),
    ):
        yield from _examples(label, rows, total)


def _column(column: ColumnChange) -> str:
    if column.status != "changed":
        return f"{column.status} ({column.type_after or column.type_before})"
    said: list[str] = []
    if column.type_before != column.type_after:
        said.append(f"{column.type_before} -> {column.type_after}")
    if not column.compared:
        return f"{', '.join(said) or 'the same type'}: values cannot be compared"
    if column.changed:
        said.append(f"{column.changed:,} values")
    for count, what in ((column.appeared, "were missing"), (column.vanished, "are missing now")):
        if count:
            said.append(f"{count:,} {what}")
    if column.largest is not None:
        said.append(f"largest {describe_cell(column.largest)}")
    if column.typical is not None and column.changed > 1:
        part = share(column.typical_relative)
        said.append(f"typical {number(column.typical)}{f' ({part})' if part else ''}")
    return ", ".join(said)


def describe_cell(change: CellChange) -> str:
    """A value before and after, its row, and the size of the change."""
    part = share(change.relative)
    return (
        f"{change.change:+.6g}{f' ({part})' if part else ''} at {change.key}: "
        f"{number(change.before)} -> {number(change.after)}"
    )


def share(relative: float | None) -> str:
    """A change as a part of what was there; empty where that says nothing."""
    if relative is None or relative == float("inf"):
        return ""
    return f"{relative:.2g} of it" if relative >= 10 else f"{100 * relative:.3g} %"


def _examples(label: str, rows: Sequence[RowChange], total: int) -> Iterator[str]:
    for row in rows:
        cells = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in row.cells.items())
        yield f"    {label} {row.key}{f': {cells}' if cells else ''}"
    if rows and total > len(rows):
        yield f"    … {total - len(rows):,} more {label}"


def parts_line(parts: ValuesChange) -> str:
    """How many parts of a value differ."""
    counts = [
        f"{count:,} {what}"
        for what in ("added", "removed", "changed")
        if (count := getattr(parts, what))
    ]
    return f"{', '.join(counts)} of {parts.compared:,} values" if counts else "equal"


def _part(part: ValueChange) -> str:
    label = f"{part.path}: " if part.path else ""
    if part.what == "added":
        return f"+ {label}{number(part.after)}"
    if part.what == "removed":
        return f"- {label}{number(part.before)}"
    of_it = share(part.relative)
    kind = " (another type)" if part.what == "type" else ""
    size = f" ({of_it})" if of_it else ""
    return f"{label}{number(part.before)} -> {number(part.after)}{size}{kind}"


def describe_shown(change: ShownChange) -> Iterator[str]:
    """Lines that say what differs in what the cells show."""
    for cell in change.cells[:CELLS]:
        title = f' "{cell.title}"' if cell.title else ""
        said = "; ".join(_cell(cell))
        yield f"cell {cell.cell}{title}{f': {said}' if said else ''}"
        yield from (f"  {line}" for line in cell.text)
    if len(change.cells) > CELLS:
        yield f"… {len(change.cells) - CELLS:,} more cells differ"


def _cell(cell: CellShown) -> Iterator[str]:
    if cell.status != "both":
        yield cell.status
        return
    if cell.error_before != cell.error_after:
        yield f"{cell.error_before or 'no error'} -> {cell.error_after or 'no error'}"
    if cell.figures_before != cell.figures_after:
        yield f"{cell.figures_before} -> {cell.figures_after} figures"
    yield from (figure_line(figure) for figure in cell.figures)


def figure_line(figure: FigureChange) -> str:
    """What differs in a figure."""
    said = {
        "picture": "another picture",
        "look": "the same data, drawn differently",
        "kind": "another kind of figure",
        "data": "other data",
    }[figure.what]
    if figure.data is not None:
        said += f" ({parts_line(figure.data)})"
    return f"figure {figure.number}: {said}"
