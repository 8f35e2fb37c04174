"""A marker line: its dialect and the kind, title, tags and metadata of its cell.

Accepted, at the start of a line only:

==========================================  ==========================================
``# %%``, ``#%%``, ``# %%% deeper``         VS Code, Spyder, jupytext, PyCharm
``# In[3]:``, ``# <codecell>``              VS Code's other spellings, nbconvert's first
``# COMMAND ----------``                    Databricks, with ``# Databricks notebook source``
==========================================  ==========================================

``# %%time`` and the like are magics that jupytext commented out, not markers.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

__all__ = ["CellKind", "Dialect", "Marker", "find_markers", "lexed", "lines_like_markers"]


class CellKind(str, Enum):
    """The kind of a cell's content."""

    CODE = "code"
    MARKDOWN = "markdown"
    RAW = "raw"


class Dialect(str, Enum):
    """The tool whose marker it is."""

    PERCENT = "percent"
    NBCONVERT = "nbconvert"
    DATABRICKS = "databricks"
    GALLERY = "gallery"


@dataclass(frozen=True)
class Marker:
    """A line that begins a cell.

    Parameters
    ----------
    line : int
        1-based.
    dialect : Dialect
    kind : CellKind or None
        ``None`` if the line does not say.
    title : str or None
    tags : tuple of str
    metadata : mapping
        Everything else in the line, as JSON values.
    """

    line: int
    dialect: Dialect
    kind: CellKind | None = None
    title: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


# Magics that jupytext comments out as the first line of a cell: `# %%time` is not a marker,
# `#%%Load prices` (Spyder) is one.
_CELL_MAGICS = {
    "bash", "bigquery", "capture", "cython", "debug", "file", "html", "javascript", "js", "latex",
    "lprun", "markdown", "memit", "mprun", "perl", "prun", "pypy", "python", "python2", "python3",
    "R", "ruby", "script", "sh", "snakeviz", "spark", "sql", "svg", "system", "sx", "time",
    "timeit", "writefile",
}  # fmt: skip

_ATTACHED = re.compile(r"[A-Za-z]\w*")

_MARKER = re.compile(
    r"^\#[ \t]*(?:"
    r"%%(?P<depth>%*)(?P<rest>[^\n]*)"
    r"|(?P<nbconvert>In[ ]?\[[ \d]*\]:?|<codecell>|<markdowncell>)[ \t]*$"
    r"|(?P<databricks>COMMAND[ ]-{5,}|Databricks[ ]notebook[ ]source)[ \t]*$"
    r")",
    re.MULTILINE | re.VERBOSE,
)
_RULE = re.compile(r"^\#{20,}[ \t]*$", re.MULTILINE)

# Strings and comments, the only things that can hide a marker. Every alternative accepts anything
# up to its end or the end of the file, so the search is linear and never fails: a notebook that
# does not parse still has cells. `tokenize` gives up on such a file and is slower.
_LEXEME = re.compile(
    r"\#[^\n]*"
    r'|"""(?:[^"\\]|\\.?|"(?!""))*(?:"""|\Z)'
    r"|'''(?:[^'\\]|\\.?|'(?!''))*(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.?)*(?:"|(?=\n)|\Z)'
    r"|'(?:[^'\\\n]|\\.?)*(?:'|(?=\n)|\Z)",
    re.DOTALL,
)


def lexed(text: str) -> Iterator[re.Match[str]]:
    """The comments and the string literals (without their prefixes) of a file, in order."""
    return _LEXEME.finditer(text)


def find_markers(text: str, *, rules: bool = False) -> list[Marker]:
    """The marker lines of a file.

    Parameters
    ----------
    text : str
        LF line ends.
    rules : bool
        Whether a line of twenty or more ``#`` begins a block of prose (sphinx-gallery).

    Returns
    -------
    list of Marker
        In the order of the lines. A marker inside a string does not count.
    """
    candidates = {match.start(): match for match in _MARKER.finditer(text)}
    if rules:
        candidates.update((match.start(), match) for match in _RULE.finditer(text))
    if not candidates:
        return []
    if '"""' in text or "'''" in text or "\\\n" in text:
        comments = {match.start() for match in lexed(text) if match.group().startswith("#")}
        candidates = {start: match for start, match in candidates.items() if start in comments}
    markers: list[Marker] = []
    line, position = 1, 0
    for start in sorted(candidates):
        line += text.count("\n", position, start)
        position = start
        marker = _read(candidates[start], line)
        if marker is not None:
            markers.append(marker)
    return markers


def lines_like_markers(text: str) -> list[int]:
    """Lines of strings that look like a marker: the editor begins a cell there."""
    candidates = [match for match in _MARKER.finditer(text) if match["databricks"] is None]
    if not candidates:
        return []
    comments = {match.start() for match in lexed(text) if match.group().startswith("#")}
    lines: list[int] = []
    line, position = 1, 0
    for match in candidates:
        line += text.count("\n", position, match.start())
        position = match.start()
        if position not in comments and _read(match, line) is not None:
            lines.append(line)
    return lines


def _read(match: re.Match[str], line: int) -> Marker | None:
    if match.re is _RULE:
        return Marker(line, Dialect.GALLERY)
    if match["databricks"]:
        return Marker(line, Dialect.DATABRICKS)
    if match["nbconvert"]:
        kind = CellKind.MARKDOWN if match["nbconvert"] == "<markdowncell>" else None
        return Marker(line, Dialect.NBCONVERT, kind)
    rest: str = match["rest"]
    if not rest.strip() and not match["depth"]:
        return Marker(line, Dialect.PERCENT)
    word = _ATTACHED.match(rest)
    if word and not match["depth"] and word.group() in _CELL_MAGICS:
        return None
    kind, title, metadata = _options(rest.strip())
    if match["depth"]:
        metadata.setdefault("cell_depth", len(match["depth"]))
    return Marker(
        line,
        Dialect.PERCENT,
        kind,
        title or None,
        _tags(metadata.pop("tags", ())),
        metadata,
    )


_KINDS = {
    "markdown": CellKind.MARKDOWN,
    "md": CellKind.MARKDOWN,
    "raw": CellKind.RAW,
    "code": CellKind.CODE,
}
_KIND = re.compile(r"\[(markdown|md|raw|code)\](?=\s|$)", re.IGNORECASE)
_KEY = re.compile(r"([A-Za-z_][\w.\-]*)=(?=\S)|(tags)\s*=\s*(?=\S)")
_WORD = re.compile(r"\S+\s*")


def _options(text: str) -> tuple[CellKind | None, str, dict[str, Any]]:
    """Read ``Title [markdown] tags=["a"] key="value" {"json": 1}``, in any order.

    Anything else is part of the title: a marker line is never an error. It is read once: bracketed
    text that is not a value becomes part of the title as a whole, and so does everything after an
    unclosed bracket or quote.
    """
    # PyCharm writes the kind as the only word.
    if text.lower() in ("md", "markdown", "raw"):
        return _KINDS[text.lower()], "", {}
    kind: CellKind | None = None
    title: list[str] = []
    metadata: dict[str, Any] = {}
    position = 0
    while position < len(text):
        match = _KIND.match(text, position)
        if match and kind is None:
            kind = _KINDS[match[1].lower()]
            position = _skip(_SPACE, text, match.end())
            continue
        match = _KEY.match(text, position)
        key = (match[1] or match[2]) if match else None
        end = _skip(_WORD, text, position)
        if match or text[position] == "{":
            start = match.end() if match else position
            closed = _value_end(text, start)
            value = _value(text[start:closed], loose=key == "tags")
            end = _skip(_SPACE, text, len(text) if closed is None else closed)
            if key is not None and value is not _NO_VALUE:
                metadata[key] = value
                position = end
                continue
            if key is None and isinstance(value, dict):
                metadata.update(cast("dict[str, Any]", value))
                position = end
                continue
        title.append(text[position:end])
        position = end
    return kind, "".join(title).strip(), metadata


_SPACE = re.compile(r"\s*")
_OPEN = frozenset("[{(")
_CLOSE = frozenset("]})")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    """The end of what a pattern matches at a position."""
    match = pattern.match(text, position)
    return match.end() if match else position


def _value_end(text: str, start: int) -> int | None:
    """Where a value ends: at its closing bracket or quote, else at the next white space."""
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character in "\"'":
            quoted = _QUOTED.match(text, position)
            if quoted is None:
                return None
            position = quoted.end()
        else:
            depth += (character in _OPEN) - (character in _CLOSE)
            position += 1
        if depth <= 0 and (position == len(text) or text[position].isspace()):
            return position
    return None


_BARE = re.compile(r"(?!(?:true|false|null|True|False|None)\Z)[A-Za-z_][\w.\-]*\Z")
_NO_VALUE = object()


def _value(text: str, *, loose: bool = False) -> Any:
    """A JSON value from JSON or from a Python literal; ``_NO_VALUE`` when it is neither."""
    if _BARE.match(text):  # neither, and compiling thousands of them takes seconds
        return [text] if loose else _NO_VALUE
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
        # Metadata goes into JSON files: tuples become lists, and other values are ignored.
        return json.loads(json.dumps(value))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return re.findall(r"[\w.\-]+", text) if loose else _NO_VALUE


def _tags(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(re.findall(r"[^\s,]+", value))
    if isinstance(value, list):
        return tuple(str(tag) for tag in cast("list[Any]", value))
    return ()
