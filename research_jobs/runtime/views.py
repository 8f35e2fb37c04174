"""Views of a text: with escapes undone, without markup, without line breaks.

A view maps each of its characters to the original. Each step is linear in the length of the text.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

__all__ = [
    "ESCAPE_CHARACTER",
    "SPECIAL",
    "Maker",
    "Projection",
    "drop_line_breaks",
    "drop_tags",
    "project",
    "seen",
    "undo_escapes",
    "undo_plus",
]

ESCAPE_CHARACTER = r"(?:\x1b|\\+(?:u001[bB]|x1[bB]|033|e))"
_ESCAPES = re.compile(
    rf"(?P<colour>{ESCAPE_CHARACTER}"
    r"(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\^_]))"
    # One character at a time: two to four bytes if UTF-8 needs them, a pair of surrogates.
    r"|(?P<percent>%(?:25)*(?:[c-fC-F][0-9a-fA-F](?:%(?:25)*[89abAB][0-9a-fA-F]){1,3}"
    r"|[0-9a-fA-F]{2}))"
    r"|(?P<unicode>\\+u(?:[dD][89abAB][0-9a-fA-F]{2}\\+u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|[0-9a-fA-F]{4}))"
    r"|(?P<bytes>\\+x(?:[c-fC-F][0-9a-fA-F](?:\\+x[89abAB][0-9a-fA-F]){1,3}|[0-9a-fA-F]{2}))"
    r"|(?P<long>\\+(?:U[0-9a-fA-F]{8}|u\{[0-9a-fA-F]{1,6}\}))"
    r"|(?P<backslash>\\+(?:[nrt]|[^\w\s\\&%]|))"
    r"|(?P<entity>&(?:amp;)*(?:\#[0-9]{1,7};?|\#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,30};|))"
)
# The first characters of all of the above and of everything that is dropped.
SPECIAL = re.compile(r"[\x1b\\%&+<\n]")
_PLUS = re.compile(r"\+")
_TAGS = re.compile(r"</?[A-Za-z!][^<>]{0,500}>")
# Not from within a run of blanks: each of them would be tried as the first.
_LINE_BREAKS = re.compile(r"(?<![ \t\r])[ \t\r]*\n\s*")


class Step:
    """A text with some parts replaced, and the origin of each of its characters."""

    def __init__(self, text: str, pattern: re.Pattern[str], undo: Callable[[Any], str]) -> None:
        pieces: list[str] = []
        #: start in the new text; start and end in the old one; whether it was replaced
        self._parts: list[tuple[int, int, int, bool]] = []
        self._begins: list[int] = []
        length = position = 0
        for match in pattern.finditer(text):
            start, end = match.span()
            for piece, low, high, replaced in (
                (text[position:start], position, start, False),
                (undo(match), start, end, True),
            ):
                if piece:
                    self._begins.append(length)
                    self._parts.append((length, low, high, replaced))
                    pieces.append(piece)
                    length += len(piece)
            position = end
        self._begins.append(length)
        self._parts.append((length, position, len(text), False))
        pieces.append(text[position:])
        self.text = "".join(pieces)

    def start(self, index: int) -> int:
        begin, low, _high, replaced = self._parts[bisect_right(self._begins, index) - 1]
        return low if replaced else low + index - begin

    def end(self, index: int) -> int:
        begin, low, high, replaced = self._parts[bisect_right(self._begins, index - 1) - 1]
        return high if replaced else low + index - begin


class Projection:
    """A text in a view."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self.text = steps[-1].text

    @property
    def texts(self) -> list[str]:
        """List of str: the text after each of the steps."""
        return [step.text for step in self._steps]

    def start(self, index: int, *, upto: int | None = None) -> int:
        """The position in the original of what begins at `index`, after `upto` of the steps."""
        for step in reversed(self._steps[:upto]):
            index = step.start(index)
        return index

    def end(self, index: int) -> int:
        """The position in the original of what ends at `index`."""
        for step in reversed(self._steps):
            index = step.end(index)
        return index


#: one step: None if it changes nothing
Maker: TypeAlias = Callable[[str], Step | None]


def project(text: str, makers: Iterable[Maker]) -> Projection | None:
    steps: list[Step] = []
    for make in makers:
        step = make(steps[-1].text if steps else text)
        if step is not None:
            steps.append(step)
    return Projection(steps) if steps else None


def seen(text: str, makers: Iterable[Maker]) -> str:
    projection = project(text, makers) if SPECIAL.search(text) else None
    return projection.text if projection is not None else text


def undo_escapes(text: str) -> Step | None:
    if not _ESCAPES.search(text):
        return None
    return Step(text, _ESCAPES, _undone)


def undo_plus(text: str) -> Step | None:
    # Form encoding writes a space as "+".
    return Step(text, _PLUS, lambda _match: " ") if "+" in text else None


def drop_tags(text: str) -> Step | None:
    return Step(text, _TAGS, lambda _match: "") if "<" in text else None


def drop_line_breaks(text: str) -> Step | None:
    return Step(text, _LINE_BREAKS, lambda _match: "") if "\n" in text else None


def _undone(match: re.Match[str]) -> str:
    """The text of an escape, even if it is escaped several times."""
    kind, text = match.lastgroup, match.group()
    if kind == "entity":
        name = text[1:].replace("amp;", "")
        return html.unescape(f"&{name}") if name else "&"
    if kind == "percent":
        return bytes.fromhex("".join(pair[-2:] for pair in text.split("%"))).decode(
            "utf-8", "surrogateescape"
        )
    if kind == "backslash":
        last = text.lstrip("\\")
        return {"n": "\n", "r": "\r", "t": "\t"}.get(last, last)
    if kind == "long":
        code = int(text.lstrip("\\")[1:].strip("{}"), 16)
        return chr(code) if code < 0x110000 else text
    if kind == "bytes":
        raw = bytes.fromhex(re.sub(r"\\+x", "", text))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    if kind == "unicode":
        raw = bytes.fromhex(re.sub(r"\\+u", "", text))
        return raw.decode("utf-16-be", "surrogatepass")
    return ""
