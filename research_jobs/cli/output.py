"""How commands print: tables and colours on a terminal, plain lines and JSON where piped."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from research_jobs.outcome import State, Tone

if TYPE_CHECKING:
    from research_jobs.orchestration.model.status import PartitionStatus

__all__ = [
    "ago",
    "complain",
    "coverage",
    "duration",
    "for_terminal",
    "is_terminal",
    "iso",
    "print_json",
    "print_table",
    "print_wrapped",
    "screen_width",
    "state_style",
]

MINUTE, HOUR, DAY = 60, 3600, 86400

_CONTROL = re.compile(r"\x1b(?!\[[0-9;]{0,20}m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
"""Control characters, but for tabs, ends of lines, and the beginning of a colour."""

_STYLES = {
    Tone.GOOD: "green",
    Tone.IDLE: "cyan",
    Tone.BUSY: "blue",
    Tone.HELD: "yellow",
    Tone.BAD: "red",
    Tone.NONE: "dim",
}


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person is looking at the stream (by default stdout)."""
    return (stream or sys.stdout).isatty()


def complain(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr)


def for_terminal(text: str) -> str:
    """What a notebook printed, without what could do more to a terminal than colour a text."""
    return _CONTROL.sub("", text)


def print_json(value: Any) -> None:
    """A value as JSON on stdout; what JSON does not know (dates, paths) as its text."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: ``0.4 s``, ``2 m 05 s``, ``1 h 10 m``."""
    if seconds is None:
        return ""
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} m {whole % MINUTE:02d} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} m"


def ago(seconds: float) -> str:
    """A time that has passed, in its largest unit: ``5 min ago``."""
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min ago"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR:.0f} h ago"
    return f"{seconds // DAY:.0f} days ago"


def coverage(partitions: PartitionStatus | None) -> str:
    """How many partitions have data, of how many: ``3/7``."""
    return "" if partitions is None else f"{len(partitions.with_data)}/{len(partitions.keys)}"


def state_style(state: State) -> str:
    """The colour of a state."""
    return _STYLES[state.tone]


def iso(moment: float | None) -> str | None:
    """Unix time as ISO 8601."""
    return datetime.fromtimestamp(moment).astimezone().isoformat() if moment else None


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print rows in columns: with colours on a terminal, in full and plain where piped.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : sequence of sequence of str
        A cell that is a `State` is shown in its words and colour.
    right : sequence of str
        Headings whose column is set to the right.
    optional : sequence of str
        Headings whose columns are left out where the screen is too narrow, the first one first.
        If that does not suffice, the first column is shortened: no line of the table is wrapped.
    """
    if optional:
        columns, rows = _fitted(columns, rows, optional)
    if is_terminal():
        _print_rich(columns, rows, right, fold=not optional)
        return
    widths = _widths(columns, rows)
    for row in (columns, *rows):
        cells = [
            _text(cell).rjust(width) if column in right else _text(cell).ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def screen_width() -> int | None:
    """The columns of the screen; None where piped, unless COLUMNS says how many there are."""
    if is_terminal() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size().columns
    return None


def print_wrapped(text: str, *, indent: str = "", hang: str = "") -> None:
    """Print a sentence within the width of the screen; its further lines begin with `hang`."""
    width = screen_width()
    if width is None or len(indent) + len(text) <= width:
        print(f"{indent}{text}")
        return
    print(
        textwrap.fill(
            text,
            max(width, 20),
            initial_indent=indent,
            subsequent_indent=hang,
            break_on_hyphens=False,
            break_long_words=False,
        )
    )


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max(len(column), *(len(_text(row[index])) for row in rows)) if rows else len(column)
        for index, column in enumerate(columns)
    ]


def _fitted(
    columns: Sequence[str], rows: Sequence[Sequence[str]], optional: Sequence[str]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    width = screen_width()
    dropped = list(reversed(optional))
    while width is not None:
        used = _widths(columns, rows)
        excess = sum(used) + 2 * (len(used) - 1) - width
        if excess <= 0:
            break
        if not dropped:
            longest = max(used[0] - excess, 8)
            rows = [[_shortened(row[0], longest), *row[1:]] for row in rows]
            break
        gone = columns.index(dropped.pop())
        columns = [*columns[:gone], *columns[gone + 1 :]]
        rows = [[*row[:gone], *row[gone + 1 :]] for row in rows]
    return columns, rows


def _shortened(text: str, longest: int) -> str:
    """A name without its middle: folder and end are what tells names apart."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _text(cell: str) -> str:
    return cell.words if isinstance(cell, State) else cell


def _print_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], *, fold: bool
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if fold else None, pad_edge=False, header_style="bold")
    for column in columns:
        justify = "right" if column in right else "left"
        table.add_column(
            column, justify=justify, overflow="fold" if fold else "ellipsis", no_wrap=not fold
        )
    for row in rows:
        table.add_row(
            *(
                Text(_text(cell), style=state_style(cell) if isinstance(cell, State) else "")
                for cell in row
            )
        )
    Console().print(table)
