"""The percent format: the text of a notebook as cells.

VS Code's rules apply: a cell runs from its marker to the next, and comments at its top are code.
Four things are prose, whatever tool wrote them:

- the body of a cell marked ``[markdown]``, ``[md]`` or ``[raw]``: comments, or one string;
- the module's docstring, if it is before the first marker;
- in a gallery file (its docstring begins with an rst title, as sphinx-gallery requires) the
  comments right below a ``# %%`` or a line of twenty ``#``;
- in a Databricks file the ``# MAGIC %md`` lines.

Code that follows prose under the same marker is a separate code cell, so nothing that a plain
import would run is lost. Parsing never fails: any text has cells.

Standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.notebook.decoding import decode_source, line_feeds, read_bytes
from research_jobs.notebook.docstring import Docstring, find_docstring, unquote
from research_jobs.notebook.markers import CellKind, Dialect, Marker, find_markers, lexed

__all__ = [
    "Cell",
    "CellKind",
    "NotebookText",
    "cell_at",
    "cell_label",
    "has_marker",
    "parse_cells",
    "read_notebook_text",
]


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook.

    Parameters
    ----------
    number : int
        1-based, as shown: ``cell 3``.
    kind : CellKind
    title : str or None
        The marker line without tags and metadata.
    tags : tuple of str
    metadata : mapping
        JSON values. ``gallery`` on the prose below a plain marker of a gallery file, ``cell_depth``
        on a ``# %%%`` cell, ``magic`` on a Databricks cell of another language.
    marker_line : int or None
        ``None`` for a cell before the first marker, and for code that follows the prose of the same
        marker.
    first_line, last_line : int
        1-based and inclusive lines of the body; ``first_line > last_line`` when it is empty.
    source : str
        The body, with LF line ends. Prose has no comment prefix or quotes.
    """

    number: int
    kind: CellKind
    title: str | None
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    marker_line: int | None
    first_line: int
    last_line: int
    source: str


@dataclass(frozen=True)
class NotebookText:
    """A notebook's text, read once: everything else is derived from it.

    Parameters
    ----------
    path : Path
    text : str
        Decoded, LF line ends, no byte order mark.
    sha256 : str
        Of the file's bytes.
    cells : tuple of Cell
    """

    path: Path
    text: str
    sha256: str
    cells: tuple[Cell, ...] = field(repr=False)


def read_notebook_text(path: Path) -> NotebookText:
    """Read a notebook once.

    Parameters
    ----------
    path : Path
        A Python file: UTF-8, or the encoding that its coding line names.

    Returns
    -------
    NotebookText

    Raises
    ------
    NotebookError
        When the file cannot be read.
    NotebookSyntaxError
        When its bytes do not decode.
    """
    data = read_bytes(path)
    text = decode_source(data, path)
    return NotebookText(path, text, hashlib.sha256(data).hexdigest(), parse_cells(text))


def has_marker(text: str) -> bool:
    """Whether a file is a notebook rather than a helper module.

    Parameters
    ----------
    text : str

    Returns
    -------
    bool
        True with at least one cell marker of any dialect outside strings. Lines of ``#`` count
        only in a gallery file: elsewhere they merely separate sections.
    """
    text = line_feeds(text)
    return bool(_markers(text, find_docstring(text)))


def cell_at(cells: Sequence[Cell], line: int) -> Cell | None:
    """The cell that contains a line of the file; marker lines count as part of their cell.

    Parameters
    ----------
    cells : sequence of Cell
    line : int
        1-based.

    Returns
    -------
    Cell or None
        ``None`` for a line outside the file or in the comments above the first cell.
    """
    for cell in cells:
        if (cell.marker_line or cell.first_line) <= line <= cell.last_line:
            return cell
    return None


def cell_label(cell: Cell) -> str:
    """A cell as messages name it: ``cell 3 "Load prices"``."""
    return f'cell {cell.number} "{cell.title}"' if cell.title else f"cell {cell.number}"


@dataclass(frozen=True)
class _Prose:
    """The prose at the top of a body: up to which line, and its text."""

    last_line: int
    source: str


def parse_cells(text: str) -> tuple[Cell, ...]:
    """The cells of a notebook.

    Parameters
    ----------
    text : str
        The whole file. Need not be valid Python.

    Returns
    -------
    tuple of Cell
        In the order of the file, numbered from 1. Together they cover every line from the first
        cell on; above it are only blank lines and comments (``#!``, coding, jupytext's header).
    """
    text = line_feeds(text)
    docstring = find_docstring(text)
    return _cells(text, docstring, _markers(text, docstring))


def notebook_cells(text: str) -> tuple[Cell, ...] | None:
    """The cells of a file that `has_marker`, ``None`` for any other: both answers in one pass."""
    text = line_feeds(text)
    docstring = find_docstring(text)
    markers = _markers(text, docstring)
    return _cells(text, docstring, markers) if markers else None


def _cells(text: str, docstring: Docstring | None, markers: list[Marker]) -> tuple[Cell, ...]:
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    gallery = docstring is not None and docstring.has_title
    builder = _Builder(lines)
    builder.leading(docstring, markers[0].line - 1 if markers else len(lines))
    for index, marker in enumerate(markers):
        end = markers[index + 1].line - 1 if index + 1 < len(markers) else len(lines)
        builder.body(marker, end, gallery=gallery)
    return tuple(builder.cells)


def _markers(text: str, docstring: Docstring | None) -> list[Marker]:
    gallery = docstring is not None and docstring.has_title
    markers = find_markers(text, rules=gallery)
    if gallery and any(marker.dialect is Dialect.GALLERY for marker in markers):
        lines = text.split("\n")
        markers = [
            marker
            for marker in markers
            if marker.dialect is not Dialect.GALLERY or _begins_prose(lines, marker.line)
        ]
    return markers


def _begins_prose(lines: Sequence[str], rule: int) -> bool:
    """Whether the comments below a line of ``#`` are prose, and not a banner or its lower rule."""
    below = rule
    while below < len(lines) and lines[below].startswith("#"):
        if lines[below].startswith("#" * 20):
            return False
        below += 1
    above = rule - 2
    while above >= 0 and lines[above].startswith("#"):
        if lines[above].startswith("#" * 20):
            return False
        above -= 1
    return below > rule


class _Builder:
    """Collects cells, numbering them."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.cells: list[Cell] = []

    def add(
        self,
        kind: CellKind,
        first: int,
        last: int,
        source: str | None,
        marker: Marker | None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.cells.append(
            Cell(
                number=len(self.cells) + 1,
                kind=kind,
                title=marker.title if marker else None,
                tags=marker.tags if marker else (),
                metadata=dict(marker.metadata if marker else {}) | dict(metadata or {}),
                marker_line=marker.line if marker else None,
                first_line=first,
                last_line=last,
                source="\n".join(self.lines[first - 1 : last]) if source is None else source,
            )
        )

    def leading(self, docstring: Docstring | None, end: int) -> None:
        """Add what is before the first marker (lines 1 to `end`)."""
        first = _header_end(self.lines[:end]) + 1
        if docstring is not None and docstring.last_line <= end:
            rest = docstring.last_line + 1
            has_code = self.has_code(rest, end)
            self.add(
                CellKind.MARKDOWN,
                docstring.first_line,
                docstring.last_line if has_code else end,
                docstring.source,
                None,
            )
            if has_code:
                self.add(CellKind.CODE, rest, end, None, None)
        elif self.has_code(first, end):
            self.add(CellKind.CODE, first, end, None, None)

    def body(self, marker: Marker, end: int, *, gallery: bool) -> None:
        """Add a marker and the lines below it, up to `end`."""
        first = marker.line + 1
        kind = marker.kind or CellKind.CODE
        metadata: dict[str, Any] = {}
        prose: _Prose | None = None
        if marker.kind in (CellKind.MARKDOWN, CellKind.RAW):
            prose = self.string(first, end) or self.comments(first, end)
        elif marker.dialect is Dialect.DATABRICKS:
            kind, prose, extra = self.databricks(first, end)
            if extra.pop("title", None):
                marker = Marker(marker.line, marker.dialect, kind, self.databricks_title(first))
            metadata |= extra
        elif gallery and marker.kind is None and not (marker.title or marker.tags):
            prose = self.comments(first, end, touching=True)
            if prose is not None and not prose.source:
                prose = None
            if prose is not None:
                kind = CellKind.MARKDOWN
                metadata["gallery"] = True
        if prose is None:
            empty = "" if kind is not CellKind.CODE else None
            if kind is not CellKind.CODE and self.has_text(first, end):
                # A prose cell with only code in it: the editor shows it as text, an import runs it.
                self.add(kind, first, first - 1, "", marker)
                self.add(CellKind.CODE, first, end, None, None)
            else:
                self.add(kind, first, end, empty, marker, metadata)
            return
        if self.has_text(prose.last_line + 1, end):
            self.add(kind, first, prose.last_line, prose.source, marker, metadata)
            self.add(CellKind.CODE, prose.last_line + 1, end, None, None)
        else:
            self.add(kind, first, end, prose.source, marker, metadata)

    def has_text(self, first: int, last: int) -> bool:
        return any(line.strip() for line in self.lines[first - 1 : last])

    def has_code(self, first: int, last: int) -> bool:
        stripped = (line.strip() for line in self.lines[first - 1 : last])
        return any(line and not line.startswith("#") for line in stripped)

    def comments(self, first: int, last: int, *, touching: bool = False) -> _Prose | None:
        """The comment block from line `first` on.

        With `touching` it must begin on that line and end at the first blank line (rst galleries);
        without, blank lines are part of it.
        """
        end = first - 1
        for number in range(first, last + 1):
            line = self.lines[number - 1]
            if line.startswith("#"):
                end = number
            elif touching or line.strip():
                break
        if end < first:
            return None
        body = [_uncomment(line) for line in self.lines[first - 1 : end]]
        return _Prose(end, "\n".join(body).strip("\n"))

    def string(self, first: int, last: int) -> _Prose | None:
        """One string literal as the body of a prose cell."""
        while first <= last and not self.lines[first - 1].strip():
            first += 1
        text = "\n".join(self.lines[first - 1 : last])
        prefix = re.match(r"[rRuU]?(?=[\"'])", text)
        if prefix is None:
            return None
        literal = next(lexed(text[prefix.end() :]), None)
        if literal is None:  # pragma: no cover - a quote always lexes
            return None
        end = prefix.end() + literal.end()
        if text[end:].split("\n", 1)[0].strip():
            return None
        return _Prose(first + text.count("\n", 0, end), unquote(literal.group()).strip("\n"))

    def databricks(self, first: int, last: int) -> tuple[CellKind, _Prose | None, dict[str, Any]]:
        """A cell whose lines are ``# MAGIC ...`` is prose (``%md``) or of another language."""
        extra: dict[str, Any] = {}
        number = first
        while number <= last and not self.lines[number - 1].strip():
            number += 1
        if number <= last and self.lines[number - 1].startswith("# DBTITLE"):
            extra["title"] = True
            number += 1
        magic: list[str] = []
        while number <= last and self.lines[number - 1].startswith("# MAGIC"):
            magic.append(self.lines[number - 1][len("# MAGIC") :].removeprefix(" "))
            number += 1
        magic_name = re.match(r"%([\w\-]+)[ \t]*", magic[0]) if magic else None
        if magic_name is None:
            return CellKind.CODE, None, extra
        if magic_name[1] in ("md", "md-sandbox"):
            magic[0] = magic[0][magic_name.end() :]
            return CellKind.MARKDOWN, _Prose(number - 1, "\n".join(magic).strip("\n")), extra
        extra["magic"] = magic_name[1]
        return CellKind.RAW, _Prose(number - 1, "\n".join(magic).strip("\n")), extra

    def databricks_title(self, first: int) -> str | None:
        """``# DBTITLE 1,Load prices`` gives ``Load prices``."""
        for line in self.lines[first - 1 :]:
            if line.strip():
                return line.partition(",")[2].strip() or None
        return None


def _uncomment(line: str) -> str:
    return line[2:] if line.startswith("# ") else line[1:]


def _header_end(lines: Sequence[str]) -> int:
    """The last line of jupytext's YAML header, 0 if there is none.

    The header is between two lines ``# ---``, with only ``#!`` and coding lines above it.
    """
    for index, line in enumerate(lines):
        if line.rstrip() == "# ---":
            for end in range(index + 1, len(lines)):
                if lines[end].rstrip() == "# ---":
                    return end + 1
                if not lines[end].startswith("#"):
                    return 0
            return 0
        if line.strip() and not line.startswith("#"):
            return 0
    return 0
