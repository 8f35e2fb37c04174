"""Inline script metadata: the packages and the Python that a notebook asks for in a comment.

Source: https://packaging.python.org/en/latest/specifications/inline-script-metadata/. Where its
text and its regular expression differ, the text counts: what looks like a block inside a string is
none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from research_jobs.errors import DependencyError, SourceLocation
from research_jobs.notebook.markers import lexed

__all__ = ["ScriptMetadata", "Written", "read_script_metadata", "script_block"]

_START = re.compile(r"# /// ([a-zA-Z0-9-]+)")
_END = "# ///"
_KNOWN = ("dependencies", "requires-python", "tool")
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


@dataclass(frozen=True)
class Written:
    """A text in a file. Line and column are 1-based."""

    text: str
    line: int
    column: int


@dataclass(frozen=True)
class ScriptMetadata:
    """What a notebook's own block asks for.

    Parameters
    ----------
    line : int
        Of the block's first line.
    dependencies : tuple of Written
        As written, unchecked.
    requires_python : Written or None
    """

    line: int
    dependencies: tuple[Written, ...] = ()
    requires_python: Written | None = None


def read_script_metadata(text: str, shown: str) -> ScriptMetadata | None:
    """What a notebook's ``# /// script`` block asks for.

    Parameters
    ----------
    text : str
        Of the notebook, with LF line ends.
    shown : str
        The file's name in messages.

    Returns
    -------
    ScriptMetadata or None
        None without a block, and where it asks for nothing: tables of tools are left to them.

    Raises
    ------
    DependencyError
        With file, line and column.
    """
    if "# /// script" not in text:
        return None
    lines = text.split("\n")
    found = [span for kind, *span in _blocks(text, lines) if kind == "script"]
    if len(found) > 1:
        raise DependencyError(
            f"a second block of script metadata; the first is in line {found[0][0] + 1}",
            where=SourceLocation(shown, found[1][0] + 1, 1),
            hint="Keep one.",
        )
    if not found:
        return None
    first, last = found[0]
    return _Block(lines, first, last, shown).read()


def script_block(text: str) -> str:
    """The lines of a notebook's block, markers left out; empty without one."""
    if "# /// script" not in text:
        return ""
    lines = text.split("\n")
    blocks = [span for kind, *span in _blocks(text, lines) if kind == "script"]
    return "\n".join(lines[blocks[0][0] + 1 : blocks[0][1]]) if blocks else ""


def _blocks(text: str, lines: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Type, and the 0-based lines of the markers, of each block that is closed."""
    inside = {
        number
        for literal in lexed(text)
        if not literal.group().startswith("#")
        for number in range(
            text.count("\n", 0, literal.start()) + 1, text.count("\n", 0, literal.end()) + 1
        )
    }
    number = 0
    while number < len(lines):
        start = _START.fullmatch(lines[number])
        end = _last_line(lines, number) if start and number not in inside else None
        if start is not None and end is not None:
            yield start[1], number, end
            number = end
        number += 1


def _last_line(lines: Sequence[str], first: int) -> int | None:
    """The last end marker among the comments that follow; an earlier one is content."""
    end = None
    for number in range(first + 1, len(lines)):
        if lines[number] != "#" and not lines[number].startswith("# "):
            break
        if lines[number] == _END:
            end = number
    return end


class _Block:
    """One block, and where its parts are in the file."""

    def __init__(self, lines: Sequence[str], first: int, last: int, shown: str) -> None:
        self.first = first
        self.shown = shown
        self.content = [line[2:] for line in lines[first + 1 : last]]
        for number in range(first + 1, last):
            if _START.fullmatch(lines[number]):
                raise DependencyError(
                    "a block of metadata begins inside another one",
                    where=SourceLocation(shown, number + 1, 1),
                    hint="Put a line that is no comment between them.",
                )

    def read(self) -> ScriptMetadata | None:
        table = self._parse()
        for key in table:
            if key not in _KNOWN and (close := difflib.get_close_matches(key, _KNOWN, 1, 0.7)):
                raise self._error(key, f"'{key}' is not a key of script metadata", f"'{close[0]}'?")
        dependencies: Any = table.get("dependencies")
        python: Any = table.get("requires-python")
        if dependencies is None and python is None:
            return None
        if python is not None and not isinstance(python, str):
            raise self._error("requires-python", "requires-python is not a string", '">=3.11".')
        if not _are_texts(dependencies or []):
            example = 'dependencies = ["pandas<3"].'
            raise self._error("dependencies", "dependencies is not a list of strings", example)
        return ScriptMetadata(
            self.first + 1,
            tuple(self._written("dependencies", cast("list[str]", dependencies or []))),
            next(self._written("requires-python", [python])) if python is not None else None,
        )

    def _parse(self) -> dict[str, Any]:
        import tomllib  # not in Python 3.10, which runs notebooks and reads none

        try:
            return tomllib.loads("\n".join(self.content))
        except tomllib.TOMLDecodeError as error:
            said = str(error)
            place = _AT.search(said)
            line, column = len(self.content), 1
            if place is not None and place[1]:
                line, column = int(place[1]), int(place[2])
            raise DependencyError(
                f"the script metadata is not TOML: {_AT.sub('', said)}",
                where=SourceLocation(self.shown, self.first + 1 + line, column + 2),
            ) from None

    def _written(self, key: str, values: Sequence[str]) -> Iterator[Written]:
        """Values with their places; one with escapes is at its key."""
        line, column = self._place(key)
        at = (line, column)
        for value in values:
            for number in range(at[0], len(self.content)):
                start = at[1] if number == at[0] else 0
                text = self.content[number]
                found = [text.find(f"{quote}{value}{quote}", start) for quote in "\"'"]
                found = [position for position in found if position >= 0]
                if found:
                    at = (number, min(found) + 1)
                    break
            yield Written(value, self.first + 2 + at[0], at[1] + 3)

    def _place(self, key: str) -> tuple[int, int]:
        """The 0-based line and column of a key in the content."""
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
        for number, line in enumerate(self.content):
            if pattern.match(line):
                return number, len(line) - len(line.lstrip())
        return 0, 0

    def _error(self, key: str, what: str, meant: str) -> DependencyError:
        line, column = self._place(key)
        where = SourceLocation(self.shown, self.first + 2 + line, column + 3)
        hint = f"Did you mean {meant}" if meant.endswith("?") else f"Write {meant}"
        return DependencyError(what, where=where, hint=hint)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, str) for item in cast("list[object]", value)
    )
