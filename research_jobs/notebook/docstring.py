"""A module's docstring, found without parsing: files that do not parse have one too.

Standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from research_jobs.notebook.markers import lexed

__all__ = ["Docstring", "find_docstring", "unquote"]


@dataclass(frozen=True)
class Docstring:
    """Where it is, its text, and whether it begins with an rst title. Lines are 1-based."""

    first_line: int
    last_line: int
    source: str
    has_title: bool


_PUNCTUATION = frozenset("=-`:.'\"~^_*+#<>")


def unquote(literal: str) -> str:
    """The text between the quotes of a string literal."""
    width = 3 if literal[:3] in ('"""', "'''") else 1
    quote = literal[:width]
    body = literal[width:]
    return body.removesuffix(quote)


def find_docstring(text: str) -> Docstring | None:
    """The module's docstring, if it is the first thing in the file."""
    end = 0
    for literal in lexed(text):
        between = text[end : literal.start()]
        if literal.group().startswith("#"):
            if between.strip():
                return None
            end = literal.end()
            continue
        if between.strip() not in ("", "r", "R", "u", "U"):
            return None
        stop = literal.end()
        if text[stop:].split("\n", 1)[0].partition("#")[0].strip():
            return None
        source = inspect.cleandoc(unquote(literal.group()))
        start = literal.start() - len(between.strip())
        return Docstring(
            text.count("\n", 0, start) + 1,
            text.count("\n", 0, stop) + 1,
            source.strip("\n"),
            _has_title(source),
        )
    return None


def _has_title(docstring: str) -> bool:
    """Whether a docstring begins with an rst title, labels (``.. _name:``) and blanks aside."""
    lines = [
        line.rstrip()
        for line in docstring.split("\n")
        if line.strip() and not re.match(r"\.\. ", line)
    ]
    if lines and _is_underline(lines[0]):
        lines.pop(0)
    return (
        len(lines) >= 2
        and not _is_underline(lines[0])
        and _is_underline(lines[1])
        and len(lines[1]) >= min(3, len(lines[0]))
    )


def _is_underline(line: str) -> bool:
    return len(line) >= 3 and line[0] in _PUNCTUATION and set(line) == {line[0]}
