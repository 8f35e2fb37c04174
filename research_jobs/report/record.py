"""Read a capture file back: the cells of a run, and what each one showed.

The file may stop anywhere, for the process that wrote it may have been killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Error", "Note", "Output", "Recorded", "RecordedCell", "Stream", "read_capture"]


@dataclass(eq=False)
class Stream:
    """Text that a cell wrote to stdout or stderr, without a break in between.

    Two are equal that say the same, however it came.
    """

    name: str
    parts: list[str]

    @property
    def text(self) -> str:
        """str: all of it."""
        return "".join(self.parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return NotImplemented
        return (self.name, self.text) == (other.name, other.text)

    __hash__ = None  # type: ignore[assignment] - it changes


@dataclass
class Output:
    """A value that a cell showed.

    Parameters
    ----------
    output_type : str
        ``"display_data"`` or ``"execute_result"``.
    data, metadata : dict
        By mime type.
    display_id : str or None
    """

    output_type: str
    data: dict[str, Any]
    metadata: dict[str, Any]
    display_id: str | None = None


@dataclass
class Error:
    """The exception that ended a cell."""

    ename: str
    evalue: str
    traceback: list[str]
    line: int | None


@dataclass
class Note:
    """What was left out here, and why."""

    text: str


Shown = Stream | Output | Error | Note


@dataclass
class RecordedCell:
    """One cell of the notebook, and what became of it.

    Parameters
    ----------
    number : int
    kind : str
        ``"code"``, ``"markdown"`` or ``"raw"``.
    title : str or None
    tags : list of str
    first_line : int
        1-based line of the file at which `source` begins.
    source : str
    status : str
        ``"ok"``, ``"error"``, ``"skipped"``, ``"running"`` (the process ended in it),
        ``"not run"``; ``"prose"`` where there is nothing to run.
    duration_s : float or None
    shown : list
        `Stream`, `Output`, `Error` and `Note` in the order in which they came.
    count : int or None
        Execution count, from 1.
    """

    number: int
    kind: str
    title: str | None
    tags: list[str]
    first_line: int
    source: str
    status: str
    duration_s: float | None = None
    shown: list[Shown] = field(default_factory=list[Shown])
    count: int | None = None


@dataclass
class Recorded:
    """A run as its capture file tells it.

    Parameters
    ----------
    cells : list of RecordedCell
    started_at : float or None
        Unix time.
    ended : str or None
        The status it wrote at its end; None when it was stopped before that.
    assets : dict of str to str
        Scripts that outputs need, by name: where they are on this machine.
    """

    cells: list[RecordedCell] = field(default_factory=list[RecordedCell])
    started_at: float | None = None
    ended: str | None = None
    assets: dict[str, str] = field(default_factory=dict[str, str])


def read_capture(path: Path) -> Recorded:
    """Read a capture file.

    Parameters
    ----------
    path : Path
        As `research_jobs.runtime.capture` wrote it, whole or cut off anywhere. No file is an
        empty record: the process ended before it could begin.

    Returns
    -------
    Recorded
    """
    reader = _Reader()
    for record in _records(path):
        reader.take(record)
    return reader.recorded


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                # Values of displays, and no program would open a notebook with a NaN.
                record = json.loads(line, parse_constant=lambda _: None)
            except ValueError:
                # The last line of a process that was killed while it wrote.
                continue
            except RecursionError:
                yield {"type": "note", "cell": None, "text": "An output nests too deep to be read."}
                continue
            if isinstance(record, dict):
                yield record


class _Reader:
    """Puts records in their cells."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        self._cells: dict[int, RecordedCell] = {}
        self._displays: dict[str, list[Output]] = {}
        self._count = 0
        self._stray: RecordedCell | None = None

    def take(self, record: dict[str, Any]) -> None:
        handler = getattr(self, f"_take_{record.get('type')}", None)
        if handler is None:
            return
        try:
            handler(record)
        except (AttributeError, KeyError, TypeError, ValueError):
            self._cell(None).shown.append(Note("A record of the run could not be read."))

    def _cell(self, number: int | None) -> RecordedCell:
        if number in self._cells:
            return self._cells[number]
        # Shown before any cell ran (a finder, a site hook): in front of everything.
        if self._stray is None:
            self._stray = RecordedCell(0, "code", None, [], 1, "", "ok")
            self.recorded.cells.insert(0, self._stray)
        return self._stray

    def _take_start(self, record: dict[str, Any]) -> None:
        self.recorded.started_at = record.get("time")
        for item in record["cells"]:
            kind = item["kind"]
            cell = RecordedCell(
                number=item["number"],
                kind=kind,
                title=item["title"],
                tags=list(item["tags"]),
                first_line=item["first_line"],
                source=item["source"],
                status=_first_status(kind, item["source"]),
            )
            self._cells[cell.number] = cell
            self.recorded.cells.append(cell)

    def _take_cell(self, record: dict[str, Any]) -> None:
        cell = self._cell(record["number"])
        self._count += 1
        cell.count = self._count
        cell.status = "running"

    def _take_cell_end(self, record: dict[str, Any]) -> None:
        cell = self._cell(record["number"])
        cell.status = record["status"]
        cell.duration_s = record["duration_s"]

    def _take_stream(self, record: dict[str, Any]) -> None:
        shown = self._cell(record["cell"]).shown
        text = record["text"]
        if record.get("dropped"):
            shown.append(
                Note(f"{record['dropped']:,} characters of {record['name']} left out here")
            )
        last = shown[-1] if shown else None
        if isinstance(last, Stream) and last.name == record["name"]:
            last.parts.append(text)
        else:
            shown.append(Stream(record["name"], [text]))

    def _take_output(self, record: dict[str, Any]) -> None:
        display_id = record.get("display_id")
        if record.get("update"):
            for output in self._displays.get(display_id or "", ()):
                output.data, output.metadata = record["data"], record["metadata"]
            return
        output = Output(record["output_type"], record["data"], record["metadata"], display_id)
        if display_id:
            self._displays.setdefault(display_id, []).append(output)
        self._cell(record["cell"]).shown.append(output)

    def _take_note(self, record: dict[str, Any]) -> None:
        self._cell(record["cell"]).shown.append(Note(record["text"]))

    def _take_asset(self, record: dict[str, Any]) -> None:
        self.recorded.assets[record["name"]] = record["path"]

    def _take_error(self, record: dict[str, Any]) -> None:
        self._cell(record["cell"]).shown.append(
            Error(record["ename"], record["evalue"], record["traceback"], record["line"])
        )

    def _take_end(self, record: dict[str, Any]) -> None:
        self.recorded.ended = record["status"]


def _first_status(kind: str, source: str) -> str:
    if kind != "code":
        return "prose"
    meaningful = any(
        line.strip() and not line.lstrip().startswith("#") for line in source.split("\n")
    )
    return "not run" if meaningful else "ok"
