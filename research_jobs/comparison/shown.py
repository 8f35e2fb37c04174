"""What differs between two executed notebooks: printed text, figures and the data behind them.

Both files may have been made by anyone, so everything here is bounded, and linear in their size.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.comparison.cells import joined, normal, shown_of
from research_jobs.comparison.changes import ValuesChange
from research_jobs.comparison.values import compare_values
from research_jobs.errors import ResearchJobsError

__all__ = [
    "CellShown",
    "FigureChange",
    "ShownChange",
    "bundles_of",
    "compare_shown",
    "read_executed",
]

LINES = 40  # of a cell's diff
LINE = 200  # characters of each
ALIGNED = 300  # lines that differ: aligning more would take quadratic time
TEXT = 1 << 20  # characters of a cell that are compared
FIGURES = 100  # of a cell


@dataclass(frozen=True)
class FigureChange:
    """A figure that differs.

    Parameters
    ----------
    number : int
        Among the cell's figures, from 1.
    what : {"picture", "data", "look", "kind"}
        Other bytes; other data in a chart of plotly or Vega; the same data, drawn differently; or
        another kind of figure.
    data : ValuesChange or None
        What differs in the data.
    """

    number: int
    what: str
    data: ValuesChange | None = None


@dataclass(frozen=True)
class CellShown:
    """A cell that shows something else.

    Parameters
    ----------
    cell : int
        Its number among the cells of the newer notebook (of the older one, if it is gone).
    title : str
    status : {"both", "added", "removed"}
    cell_before : int or None
        Its number in the older notebook.
    text : tuple of str
        Lines of a diff, cut to a few dozen.
    figures_before, figures_after : int
    figures : tuple of FigureChange
    error_before, error_after : str or None
        The exception that ended it.
    """

    cell: int
    title: str
    status: str = "both"
    cell_before: int | None = None
    text: tuple[str, ...] = ()
    figures_before: int = 0
    figures_after: int = 0
    figures: tuple[FigureChange, ...] = ()
    error_before: str | None = None
    error_after: str | None = None

    @property
    def equal(self) -> bool:
        """Bool: whether it shows the same."""
        return (
            self.status == "both"
            and not self.text
            and not self.figures
            and self.figures_before == self.figures_after
            and self.error_before == self.error_after
        )


@dataclass(frozen=True)
class ShownChange:
    """What differs between two executed notebooks.

    Parameters
    ----------
    compared : int
        Cells that both have.
    cells : tuple of CellShown
        Those that differ.
    """

    compared: int = 0
    cells: tuple[CellShown, ...] = field(default_factory=tuple)

    @property
    def equal(self) -> bool:
        """Bool: whether nothing differs."""
        return not self.cells


def read_executed(path: Path) -> Mapping[str, Any]:
    """Read an executed notebook.

    Raises
    ------
    ResearchJobsError
        When it is not one.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
            raise ValueError("it has no cells")  # noqa: TRY004, TRY301 - as any other damage
    except (OSError, ValueError, RecursionError) as error:
        raise ResearchJobsError(f"{path} is not a notebook that can be read: {error}") from error
    return notebook


def compare_shown(before: Mapping[str, Any], after: Mapping[str, Any]) -> ShownChange:
    """Compare what the cells of two executed notebooks show.

    Cells are matched by their source; those that were edited, by their title or number.
    Times that a cell took and addresses of objects make no difference, nor does what a cell
    writes to stderr.
    """
    old, new = (_code_cells(notebook) for notebook in (before, after))
    compared = 0
    found: list[CellShown] = []
    for left, right in _pairs(old, new):
        if left is None or right is None:
            cell = right or left
            assert cell is not None
            found.append(
                CellShown(cell.number, cell.title, "removed" if right is None else "added")
            )
            continue
        compared += 1
        change = _compare(left, right)
        if not change.equal:
            found.append(change)
    found.sort(key=lambda change: change.cell)
    return ShownChange(compared, tuple(found))


@dataclass(frozen=True)
class _Cell:
    number: int
    title: str
    source: str
    outputs: Sequence[dict[str, Any]]


def _code_cells(notebook: Mapping[str, Any]) -> list[_Cell]:
    found: list[_Cell] = []
    for number, cell in enumerate(notebook["cells"], start=1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        metadata, outputs = cell.get("metadata"), cell.get("outputs")
        title = metadata.get("title") if isinstance(metadata, dict) else None
        listed = [
            output
            for output in (outputs if isinstance(outputs, list) else [])
            if isinstance(output, dict) and isinstance(output.get("data", {}), dict)
        ]
        found.append(_Cell(number, str(title or ""), joined(cell.get("source")), listed))
    return found


def _pairs(
    old: Sequence[_Cell], new: Sequence[_Cell]
) -> Iterator[tuple[_Cell | None, _Cell | None]]:
    """Cells that belong together: the n-th with a source, then with a title, then of the rest."""
    keys: tuple[Callable[[_Cell], str | None], ...] = (
        lambda cell: cell.source,
        lambda cell: cell.title or None,
        lambda _: "",
    )
    for key in keys:
        waiting: defaultdict[Any, list[_Cell]] = defaultdict(list)
        for cell in reversed(old):
            waiting[key(cell)].append(cell)
        left: list[_Cell] = []
        for cell in new:
            known = waiting[key(cell)] if key(cell) is not None else []
            if known:
                yield known.pop(), cell
            else:
                left.append(cell)
        gone = {cell.number for cells in waiting.values() for cell in cells}
        old, new = [cell for cell in old if cell.number in gone], left
    for cell in old:
        yield cell, None
    for cell in new:
        yield None, cell


def _compare(old: _Cell, new: _Cell) -> CellShown:
    was, now = shown_of(old.outputs), shown_of(new.outputs)
    texts = was.text[:TEXT], now.text[:TEXT]
    figures = [list(_figures(cell.outputs)) for cell in (old, new)]
    changes = (
        _figure_change(number, *pair)
        for number, pair in enumerate(zip(*figures, strict=False), start=1)
    )
    return CellShown(
        cell=new.number,
        title=new.title,
        cell_before=old.number,
        text=() if normal(texts[0]) == normal(texts[1]) else tuple(_diff(*texts)),
        figures_before=was.figures,
        figures_after=now.figures,
        figures=tuple(change for change in changes if change is not None),
        error_before=was.error,
        error_after=now.error,
    )


def _diff(before: str, after: str) -> Iterator[str]:
    """Lines that differ, with ``-`` and ``+``."""
    old, new = ([line[:LINE] for line in text.splitlines()] for text in (before, after))
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    old, new = old[start : len(old) - end], new[start : len(new) - end]
    if max(len(old), len(new)) > ALIGNED:
        yield from (f"-{line}" for line in old[: LINES // 2])
        yield from (f"+{line}" for line in new[: LINES // 2])
        yield f"… {len(old):,} lines became {len(new):,}"
        return
    compared = difflib.unified_diff(old, new, lineterm="", n=0)
    lines = [line for line in compared if not line.startswith(("---", "+++", "@@"))]
    yield from lines[:LINES]
    if len(lines) > LINES:
        yield f"… {len(lines) - LINES:,} more lines"


@dataclass(frozen=True)
class _Figure:
    kind: str
    look: str
    data: Any = None


def _figures(outputs: Sequence[dict[str, Any]]) -> Iterator[_Figure]:
    for _, figure in _with_bundles(outputs):
        yield figure


def _with_bundles(
    outputs: Sequence[dict[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], _Figure]]:
    for output in outputs[:FIGURES]:
        bundle = output.get("data", {})
        figure = _chart(bundle) or _picture(bundle)
        if figure is not None:
            yield bundle, figure


def bundles_of(notebook: Mapping[str, Any], number: int | None) -> Iterator[Mapping[str, Any]]:
    """The mime bundles of a cell's figures; none without a number."""
    for cell in _code_cells(notebook):
        if cell.number == number:
            yield from (bundle for bundle, _ in _with_bundles(cell.outputs))


def _chart(bundle: Mapping[str, Any]) -> _Figure | None:
    """A figure of plotly or Vega, its data apart from its look."""
    for kind, payload in bundle.items():
        names = ("data",) if "plotly" in kind else ("data", "datasets") if "vega" in kind else ()
        if names and isinstance(payload, dict):
            data = {name: _numbers(payload.get(name), 0) for name in names}
            look = {name: item for name, item in payload.items() if name not in names}
            return _Figure(kind, _digest(look), data)
    return None


def _picture(bundle: Mapping[str, Any]) -> _Figure | None:
    kind = next((kind for kind in sorted(bundle) if kind.startswith("image/")), None)
    if kind is None:
        return None
    return _Figure(kind, _digest("".join(joined(bundle[kind]).split())))


def _digest(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True)
    except RecursionError:
        text = "nested too deeply"
    return hashlib.blake2b(text.encode()).hexdigest()


def _numbers(value: Any, depth: int) -> Any:
    """Data with the arrays that plotly writes as base64 as lists."""
    if depth > 20:
        return _digest(value)
    if isinstance(value, dict):
        if {"dtype", "bdata"} <= value.keys():
            return _array(value)
        return {key: _numbers(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item, depth + 1) for item in value]
    return value


def _array(value: Mapping[str, Any]) -> Any:
    import numpy as np

    try:
        data = base64.b64decode(value["bdata"])
        return np.frombuffer(data, np.dtype(f"<{str(value['dtype'])[:2]}")).tolist()
    except (ValueError, TypeError):
        return _digest(value)


def _figure_change(number: int, old: _Figure, new: _Figure) -> FigureChange | None:
    if old.kind != new.kind:
        return FigureChange(number, "kind")
    if old.data is not None:
        data = compare_values(old.data, new.data)
        if not data.equal:
            return FigureChange(number, "data", data)
    if old.look == new.look:
        return None
    return FigureChange(number, "picture" if old.data is None else "look")
