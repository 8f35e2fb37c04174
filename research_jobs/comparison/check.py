"""The check ``changed``: how far an output may differ from its previous version."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from research_jobs.comparison.changes import OutputChange, TableChange, ValuesChange
from research_jobs.comparison.outputs import compare_output
from research_jobs.comparison.text import describe_cell, number
from research_jobs.errors import CorruptOutputError, StoreError, did_you_mean
from research_jobs.store.checks import Finding, Subject

__all__ = ["changed"]

NAMED = 3  # columns in the message


def changed(subject: Subject, limits: Mapping[str, Any]) -> Finding:
    """Compare a staged output with the published one.

    Parameters
    ----------
    subject : Subject
    limits : mapping
        ``max_share`` (the largest part of the previous rows that may change or go),
        ``max_change`` (column to ``{"relative": part}`` or ``{"absolute": size}``),
        ``tolerance`` and ``unique``; only what is declared.

    Raises
    ------
    StoreError
        When a limit names a column that does not exist, or that has no numbers.
    """
    if subject.previous is None:
        return Finding(passed=True, description="there is no previous version yet", metadata={})
    staged = Path(subject.staged.path)
    try:
        found = compare_output(
            subject.previous.resolve(),
            staged,
            unique=limits.get("unique", ()),
            tolerance=limits.get("tolerance", 0.0),
            folder=staged.parent,
        )
    except FileNotFoundError:
        # Another run has published, and the version was pruned meanwhile.
        return Finding(passed=True, description="the previous version is gone", metadata={})
    except CorruptOutputError as error:
        # The staged file has just been read back, and a damaged old one must not stop new ones.
        said = f"the previous version is not compared: {error.what}"
        return Finding(passed=True, description=said.splitlines()[0], metadata={})
    compared = found.table or found.parts
    if compared is None:
        said = "; ".join(found.notes) or f"{found.kind_before} became {found.kind_after}"
        return Finding(passed=False, description=f"nothing can be compared: {said}", metadata={})
    share, rows, of = _share(compared)
    wrong: list[str] = []
    most = limits.get("max_share")
    said = f"{rows:,} of {of:,} {'rows' if found.table else 'values'} changed or gone"
    if of and rows:
        said += f" ({share:.3g} of them)"
    if most is not None and share > most:
        wrong.append(f"{said}, at most {most:g} allowed")
    wrong += _too_far(found, limits.get("max_change") or {})
    moved = list(_moved(found))
    return Finding(
        passed=not wrong,
        description="; ".join(wrong[:NAMED] if wrong else [said, *moved[:NAMED]]),
        metadata={"share": share, "changed_or_gone": rows, "moved": moved},
    )


def _share(compared: TableChange | ValuesChange) -> tuple[float, int, int]:
    """The part of the previous rows (or values) that changed or are gone; how many of how many."""
    if isinstance(compared, TableChange):
        rows, of = compared.rows_changed + compared.rows_removed, compared.rows_before
    else:
        rows, of = compared.changed + compared.removed, compared.compared - compared.added
    return (rows / of if of else 0.0), rows, of


def _too_far(found: OutputChange, limits: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for name, limit in limits.items():
        ((kind, most),) = limit.items()
        size, said = _largest(found, name, relative=kind == "relative")
        if size > most:
            allowed = f"{100 * most:g} %" if kind == "relative" else f"{most:g}"
            yield f"{name}: {said}, at most {allowed} allowed"


def _largest(found: OutputChange, name: str, *, relative: bool) -> tuple[float, str]:
    """The largest change of a column or of a part of a value, and what changed."""
    if found.parts is not None:
        return _largest_part(found.parts, name, relative=relative)
    table = found.table
    assert table is not None
    column = table.columns.get(name)
    if column is None:
        if name not in table.shared:
            hint = did_you_mean(name, table.shared) or None
            raise StoreError(f"there is no column '{name}'", hint=hint)
        return 0.0, ""
    if column.status != "changed" or not column.compared:
        return math.inf, "added" if column.status == "added" else "gone, or of another type"
    largest = column.largest_relative if relative else column.largest
    if largest is None:
        if column.changed > column.appeared + column.vanished:
            raise StoreError(f"'{name}' has no numbers: only they have a size of change")
        return 0.0, ""
    return (largest.relative if relative else abs(largest.change)), describe_cell(largest)


def _largest_part(parts: ValuesChange, path: str, *, relative: bool) -> tuple[float, str]:
    for part in parts.changes:
        if part.path == path:
            size = part.relative if relative else part.change
            said = f"{number(part.before)} -> {number(part.after)}"
            return (math.inf if size is None else abs(size)), said
    if parts.added + parts.removed + parts.changed > len(parts.changes):
        return math.inf, "too many values changed to find it"
    return 0.0, ""


def _moved(found: OutputChange) -> Iterator[str]:
    """The columns and values that changed, each in a few words."""
    for name, column in (found.table.columns if found.table else {}).items():
        if column.largest is not None:
            yield f"{name}: {column.changed:,} values, largest {describe_cell(column.largest)}"
        elif column.changed:
            yield f"{name}: {column.changed:,} values"
        elif column.status != "changed":
            yield f"{name}: {column.status}"
        else:
            yield f"{name}: {column.type_before} -> {column.type_after}"
    for part in (found.parts.changes if found.parts else ())[:20]:
        yield f"{part.path or 'value'}: {number(part.before)} -> {number(part.after)}"
