"""What a notebook shows here against what its ``.ipynb`` has stored: text, numbers, figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CellDifference",
    "Shown",
    "compare_cells",
    "joined",
    "normal",
    "shown_of",
    "stored_cells",
]


@dataclass(frozen=True)
class Shown:
    """What one cell showed.

    Parameters
    ----------
    text : str
        What it printed to stdout and the plain text of its values, tables included.
    figures : int
    error : str or None
        The name of the exception that ended it.
    """

    text: str = ""
    figures: int = 0
    error: str | None = None

    def __bool__(self) -> bool:
        return bool(self.text.strip() or self.figures or self.error)


@dataclass(frozen=True)
class CellDifference:
    """A cell that shows something else than before.

    Parameters
    ----------
    cell : int
        Its number, from 1.
    what : {"numbers", "text", "figures", "error"}
    before, after : str
        In a few words; of numbers, those that differ.
    """

    cell: int
    what: str
    before: str
    after: str


def stored_cells(notebook: Mapping[str, Any]) -> list[Shown | None]:
    """What each cell of an ``.ipynb`` has stored; None where nothing was kept, and for prose."""
    return [
        shown_of(cell.get("outputs") or ()) or None if cell["cell_type"] == "code" else None
        for cell in notebook["cells"]
    ]


def shown_of(outputs: Iterable[Any]) -> Shown:
    """What the outputs of a cell of an ``.ipynb`` show."""
    texts: list[str] = []
    figures = 0
    error: str | None = None
    for output in outputs:
        kind = output.get("output_type") if isinstance(output, dict) else None
        if kind == "stream" and output.get("name") != "stderr":
            texts.append(joined(output.get("text")))
        elif kind == "error":
            error = str(output.get("ename"))
        elif kind in ("execute_result", "display_data"):
            text, figure = _shown_value(output.get("data") or {})
            texts.append(text)
            figures += figure
    return Shown("".join(texts), figures, error)


def _shown_value(data: Mapping[str, Any]) -> tuple[str, int]:
    """The text of a value, in lines of its own, and whether it is a figure."""
    if any(kind.startswith("image/") or "plotly" in kind or "vega" in kind for kind in data):
        return "", 1
    return f"\n{joined(data.get('text/plain'))}\n", 0


def joined(text: Any) -> str:
    """The text of an ``.ipynb``, which may be a list of lines."""
    return "".join(map(str, text)) if isinstance(text, list) else str(text or "")


def compare_cells(
    before: Sequence[Shown | None], after: Sequence[Shown | None]
) -> tuple[int, list[CellDifference]]:
    """How many cells can be compared, and those that differ.

    Parameters
    ----------
    before, after : sequence of Shown or None
        In the order of the cells. A cell that had nothing stored is not compared.
    """
    compared = 0
    differences: list[CellDifference] = []
    for number, (old, new) in enumerate(zip(before, after, strict=True), start=1):
        if old is None:
            continue
        compared += 1
        difference = _difference(number, old, new or Shown())
        if difference is not None:
            differences.append(difference)
    return compared, differences


def _difference(cell: int, old: Shown, new: Shown) -> CellDifference | None:
    if old.error != new.error:
        return CellDifference(cell, "error", old.error or "no error", new.error or "no error")
    if old.figures != new.figures:
        return CellDifference(cell, "figures", str(old.figures), str(new.figures))
    was, now = normal(old.text), normal(new.text)
    if was == now:
        return None
    pairs = _different_numbers(was, now)
    if pairs:
        return CellDifference(
            cell, "numbers", ", ".join(old for old, _ in pairs), ", ".join(new for _, new in pairs)
        )
    if pairs is None:
        return CellDifference(cell, "text", *_first_difference(was, now))
    return None


_TIMINGS = re.compile(
    r"^.*(?:CPU times|Wall time|per loop|Peak memory|peak memory|function calls).*$"
    r"|Time:\s+\d\d:\d\d:\d\d"
    r"|(?:Date:\s+)?\w{3}, \d\d \w{3} \d{4}"
    r"|^%pylab is deprecated.*|^Populating the interactive namespace.*",
    re.MULTILINE,
)
# A kernel prints `<A at 0x1>` where Python prints `<A object at 0x1>`.
_ADDRESS = re.compile(
    r"(?: object)?(?: at 0x[0-9a-fA-F]+)?(?=>)|\b(?:at )?0x[0-9a-fA-F]{6,}|\x1b\[[\d;]*m"
    r"|<Figure size [^>]*>|<Axes[^>]*>"
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w])")


def normal(text: str) -> str:
    """The text without times, addresses, and the width of columns."""
    text = _ADDRESS.sub("", _TIMINGS.sub("", text))
    return " ".join(re.sub(r"[-=_]{3,}", " ", text).split())


def _different_numbers(was: str, now: str) -> list[tuple[str, str]] | None:
    """The numbers that differ; None where the texts cannot be compared number by number."""
    old, new = _NUMBER.findall(was), _NUMBER.findall(now)
    if len(old) != len(new):
        return None
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if not _same_number(a, b)]
    if pairs:
        return pairs
    words = [" ".join(_NUMBER.sub("#", text).split()) for text in (was, now)]
    return [] if words[0] == words[1] else None


def _same_number(a: str, b: str) -> bool:
    """Whether two numbers are the same as far as both were printed."""
    if a == b:
        return True
    first, second = float(a.replace(",", "")), float(b.replace(",", ""))
    unit = max(_unit(a), _unit(b))
    return abs(first - second) <= unit if "." in a + b else first == second


def _unit(number: str) -> float:
    """One in the last place of a printed number."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 1.0001 * 10.0 ** (int(exponent or 0) - decimals)


def _first_difference(was: str, now: str) -> tuple[str, str]:
    start = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
    start = max(0, start - 20)
    return was[start : start + 60] or "nothing", now[start : start + 60] or "nothing"
