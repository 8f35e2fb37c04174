"""The cells of a failed notebook that are still to run, as its file has them now.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from research_jobs.notebook.cells import (
    Cell,
    CellKind,
    NotebookText,
    cell_label,
    read_notebook_text,
)
from research_jobs.runtime.compiling import CompiledCell, awaits, compile_notebook
from research_jobs.runtime.importer import PARAMETERS_TAG, prime_linecache, set_parameters

__all__ = ["Position", "Remaining", "place_of"]


@dataclass
class Position:
    """How far a notebook has come in its process.

    Parameters
    ----------
    text : NotebookText or None
        The notebook as it runs; None until it has been read.
    module : ModuleType or None
        None until its first cell begins.
    begun : list of Cell
        The code cells that began.
    error : BaseException or None
        What ended it; None when all cells have run.
    """

    text: NotebookText | None = None
    module: ModuleType | None = None
    begun: list[Cell] = field(default_factory=list[Cell])
    error: BaseException | None = None

    @property
    def cells(self) -> list[Cell]:
        """List of Cell: its code cells."""
        return _code(self.text) if self.text is not None else []

    @property
    def index(self) -> int:
        """int: which code cell failed; their number when all have run."""
        return max(len(self.begun) - 1, 0) if self.error is not None else len(self.cells)


def place_of(index: int, before: Sequence[str], now: Sequence[str]) -> int:
    """Which cell a cell has become after an edit of its file.

    Parameters
    ----------
    index : int
        Of the cell, perhaps just behind the last one.
    before, now : sequence of str
        The sources of all code cells.

    Returns
    -------
    int
        An edited cell is the one at its distance from the last unchanged cell before it.
    """
    import difflib

    old_end = new_end = 0
    matcher = difflib.SequenceMatcher(None, before, now, autojunk=False)
    for old, new, size in matcher.get_matching_blocks():
        if old <= index < old + size:
            return new + index - old
        if size and old + size <= index:
            old_end, new_end = old + size, new + size
    return min(new_end + index - old_end, len(now))


class Remaining:
    """Runs the failed cell again, and the cells after it, in the notebook's namespace.

    Parameters
    ----------
    position : Position
        Its text and module are known.
    source : Path
        The file from which cells are read.
    parameters : mapping
        The run's, for the parameters cell.
    types : mapping of str to str
        The types of the parameters.
    """

    def __init__(
        self,
        position: Position,
        source: Path,
        parameters: Mapping[str, Any],
        types: Mapping[str, str],
    ) -> None:
        assert position.text is not None
        assert position.module is not None
        self._before = position.text
        self._module = position.module
        self._index = position.index
        self._failed = position.error is not None
        self._source = source
        self._parameters, self._types = parameters, types

    def awaits(self, what: str) -> bool:
        """Whether a cell that ``failed`` or ``remaining`` runs awaits at its top level."""
        return any(cell.awaits for cell in self._chosen(what))

    def run(self, what: str) -> None:
        """Run them, where none of them awaits."""
        __tracebackhide__ = True
        try:
            self.run_async(what).send(None)
        except StopIteration:
            return
        raise AssertionError

    async def run_async(self, what: str) -> None:
        """Run the cell that ``failed``, or those that are ``remaining``; stops where one fails."""
        __tracebackhide__ = True
        chosen = self._chosen(what)
        if not chosen:
            print("No cell failed." if what == "failed" else "No cell remains.")  # noqa: T201
        namespace = vars(self._module)
        for compiled in chosen:
            print(f"[{cell_label(compiled.cell)}]")  # noqa: T201 - the user asks for it
            if what == "remaining":
                self._index = self._cells.index(compiled)
                self._failed = True
            await _run(compiled, namespace)
            if PARAMETERS_TAG in compiled.cell.tags:
                set_parameters(self._module, self._parameters, self._types)
        if what == "remaining":
            self._index, self._failed = len(self._cells), False

    def _chosen(self, what: str) -> Sequence[CompiledCell]:
        now = read_notebook_text(self._source)
        self._cells = compile_notebook(now).cells
        prime_linecache(now)
        self._index = place_of(self._index, _sources(self._before), _sources(now))
        self._before = now
        if what == "failed":
            return self._cells[self._index : self._index + 1] if self._failed else ()
        return self._cells[self._index + self._failed :]


async def _run(compiled: CompiledCell, namespace: dict[str, Any]) -> None:
    __tracebackhide__ = True
    if compiled.body is not None:
        value = eval(compiled.body, namespace)  # noqa: S307 - running it is what we are for
        if awaits(compiled.body):
            await value
    if compiled.shown is not None:
        value = eval(compiled.shown, namespace)  # noqa: S307 - likewise
        sys.displayhook(await value if awaits(compiled.shown) else value)


def _code(text: NotebookText) -> list[Cell]:
    return [cell for cell in text.cells if cell.kind is CellKind.CODE]


def _sources(text: NotebookText) -> list[str]:
    return [cell.source for cell in _code(text)]
