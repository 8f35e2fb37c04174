"""Which files of a pattern are new or changed since the last look.

A file counts once it was left alone for a moment, so that one that is still being written is
not read half. It is known by its time of change and size; where only the time moved, by its
content. What was there at the first look is known and no arrival.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Look", "Pattern", "compile_pattern", "look"]

SETTLED_NS = 2_000_000_000
# Larger ones are not read to compare them: a new time of change is a change.
LARGEST_HASHED = 16 * 1024 * 1024
# What is remembered stands in one cell of a database; the files that changed last are kept, and
# older ones are known.
MOST_FILES = 10_000
# Of more, the rest arrives at the next look.
MOST_ARRIVED = 250

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Pattern:
    """A watched pattern.

    Parameters
    ----------
    text : str
        As written: ``incoming/{run_date}.csv``.
    glob : str
        With a star for each field.
    expression : re.Pattern
        Gives the fields of a path.
    fields : tuple of str
    """

    text: str
    glob: str
    expression: re.Pattern[str]
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What a look at the files found.

    Parameters
    ----------
    arrived : tuple of (str, mapping)
        Path and fields of each file that is new or changed.
    cursor : str
        To be handed to the next look.
    first : bool
        Whether there was none before.
    waiting : int
        Files left for the next look: still being written, or too many at once.
    """

    arrived: tuple[tuple[str, Mapping[str, str]], ...]
    cursor: str
    first: bool = False
    waiting: int = 0
    files: int = field(default=0)


def compile_pattern(text: str) -> Pattern:
    """A pattern as the manifest has it: ``*``, ``**``, ``?``, ``[abc]`` and ``{field}``."""
    fields = tuple(dict.fromkeys(_FIELD.findall(text)))
    as_glob = _FIELD.sub("*", text)
    seen: set[str] = set()

    def translate(token: re.Match[str]) -> str:
        piece = token[0]
        name = token["field"]
        if name:
            if name in seen:
                return f"(?P={name})"
            seen.add(name)
            return f"(?P<{name}>[^/]+)"
        return {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            piece, piece if piece.startswith("[") else re.escape(piece)
        )

    tokens = re.compile(
        r"\{(?P<field>[A-Za-z_][A-Za-z0-9_]*)\}|\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", re.DOTALL
    )
    expression = re.compile(tokens.sub(translate, text) + r"\Z")
    return Pattern(text, as_glob, expression, fields)


def look(patterns: Sequence[Pattern], root: Path, cursor: str | None, now_ns: int) -> Look:
    """Look at the files of some patterns.

    Parameters
    ----------
    patterns : sequence of Pattern
    root : Path
        What relative patterns are relative to.
    cursor : str or None
        The last look's.
    now_ns : int
        The time, in nanoseconds of the epoch.

    Returns
    -------
    Look
    """
    known = _read(cursor)
    first = known is None
    before = known or {}
    # the oldest that is remembered, where there was no room for all
    floor = (
        min((entry[0], path) for path, entry in before.items())
        if len(before) >= MOST_FILES
        else None
    )
    after: dict[str, list[Any]] = {}
    arrived: list[tuple[str, Mapping[str, str]]] = []
    waiting = 0
    for path, fields in _files(patterns, root).items():
        full = root / path
        try:
            stat = full.stat()
        except OSError:
            continue  # gone between listing and looking
        old = before.get(path)
        stamp = [stat.st_mtime_ns, stat.st_size]
        if old is not None and old[:2] == stamp:
            after[path] = old
            continue
        forgotten = old is None and floor is not None and (stat.st_mtime_ns, path) < floor
        if first or forgotten:
            after[path] = [*stamp, None]
            continue
        # a copy that keeps the old time of change still has a fresh time of its inode
        settled = now_ns - max(stat.st_mtime_ns, stat.st_ctime_ns) >= SETTLED_NS
        if not settled or len(arrived) == MOST_ARRIVED:
            waiting += 1
            if old is not None:
                after[path] = old
            continue
        digest = _digest(full, stat.st_size)
        after[path] = [*stamp, digest]
        same = old is not None and len(old) > 2 and digest is not None and old[2] == digest
        if not same:
            arrived.append((path, fields))
    if len(after) > MOST_FILES:
        newest = sorted(after, key=lambda p: (after[p][0], p))[-MOST_FILES:]
        after = {path: after[path] for path in newest}
    return Look(
        tuple(arrived),
        json.dumps(after, separators=(",", ":")),
        first=first,
        waiting=waiting,
        files=len(after),
    )


def _files(patterns: Sequence[Pattern], root: Path) -> dict[str, Mapping[str, str]]:
    """Path (as the pattern is: relative or absolute) to fields, sorted."""
    found: dict[str, Mapping[str, str]] = {}
    for pattern in patterns:
        for path in glob.iglob(pattern.glob, root_dir=root, recursive=True):  # noqa: PTH207 - absolute ones too
            name = path.replace("\\", "/")
            match = pattern.expression.match(name)
            if match is not None and (root / path).is_file():
                found.setdefault(name, match.groupdict())
    return dict(sorted(found.items()))


def _read(cursor: str | None) -> dict[str, list[Any]] | None:
    if not cursor:
        return None
    try:
        found = json.loads(cursor)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _digest(path: Path, size: int) -> str | None:
    if size > LARGEST_HASHED:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None
