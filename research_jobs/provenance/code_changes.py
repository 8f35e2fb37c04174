"""What changed in a notebook or helper module between two runs: functions, classes and cells.

Comments, prose, docstrings and formatting do not count, as in the code version. Standard library
only.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import ResearchJobsError
from research_jobs.notebook.cells import NotebookText, cell_at, cell_label, notebook_cells
from research_jobs.notebook.decoding import decode_source
from research_jobs.notebook.script_metadata import script_block
from research_jobs.notebook.source import parse_source
from research_jobs.notebook.walk import Digest

__all__ = ["changed_parts", "source_diff"]

DIFF_LINES = 200


@dataclass(frozen=True)
class _Parts:
    """A file's parts with their digests."""

    named: Mapping[str, str]
    cells: tuple[tuple[str, str], ...]


def changed_parts(name: str, before: bytes, after: bytes) -> list[str]:
    """The parts of a file that differ.

    Parameters
    ----------
    name : str
        The file as a person should see it.
    before, after : bytes
        Its content in the earlier and the later run.

    Returns
    -------
    list of str
        ``"notebooks/prices.py, function clean"``, ``'notebooks/signals.py, cell 3 "Smooth"'``.
        Empty where only comments, prose or formatting differ.
    """
    if not name.endswith(".py"):  # a lock
        return [name] if before != after else []
    try:
        old, new = _parts(name, before), _parts(name, after)
    except (ResearchJobsError, RecursionError):
        return [name]
    changed = [
        label
        for label in dict.fromkeys((*new.named, *old.named))
        if new.named.get(label) != old.named.get(label)
    ]
    matcher = difflib.SequenceMatcher(
        None, [digest for _, digest in old.cells], [digest for _, digest in new.cells], False
    )
    for kind, first, last, begin, end in matcher.get_opcodes():
        if kind != "equal":
            touched = new.cells[begin:end] or old.cells[first:last]
            removed = " (removed)" if begin == end else ""
            changed += [label + removed for label, _ in touched]
    return [f"{name}, {label}" for label in changed]


def source_diff(name: str, before: bytes, after: bytes) -> str:
    """A unified diff of two contents of a file, of 200 lines at most."""
    old, new = (content.decode("utf-8", "replace").splitlines() for content in (before, after))
    lines = list(difflib.unified_diff(old, new, name, name, lineterm="", n=2))
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"... {len(lines) - DIFF_LINES:,} more lines"]
    return "\n".join(lines)


def _parts(name: str, content: bytes) -> _Parts:
    path = Path(name)
    text = decode_source(content, path)
    cells = notebook_cells(text)
    parsed = parse_source(NotebookText(path, text, "", cells or ()))
    named: dict[str, Digest] = {}
    loose: dict[str, Digest] = {}
    for statement in parsed.body:
        label = _name_of(statement)
        if label is None:
            cell = cell_at(cells, statement.lineno) if cells else None
            where = cell_label(cell) if cell is not None else "module level"
            loose.setdefault(where, Digest()).add(statement)
        else:
            named.setdefault(label, Digest()).add(statement)
    return _Parts(
        {
            **{label: digest.hexdigest() for label, digest in named.items()},
            "script metadata": script_block(text),
        },
        tuple((label, digest.hexdigest()) for label, digest in loose.items()),
    )


def _name_of(statement: ast.stmt) -> str | None:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return f"function {statement.name}"
    return f"class {statement.name}" if isinstance(statement, ast.ClassDef) else None
