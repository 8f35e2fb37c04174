"""Find the files of a pattern that are new or changed since the last scan.

A file counts once it has not changed for a moment, so that a half-written one is not read. Files
are compared by modification time and size, and by content if only the time has changed. Files that
exist at the first scan are not arrivals.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FileScan", "Pattern", "compile_pattern", "scan_files"]

SETTLED_NS = 2_000_000_000
# Larger ones are not compared by content: a new modification time is a change.
LARGEST_HASHED = 16 * 1024 * 1024
# The cursor is one cell of a database: only the files that changed last are remembered, and older
# ones are known.
MOST_FILES = 10_000
# The rest arrives at the next scan.
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
        The pattern with a star for each field.
    expression : re.Pattern
        Matches a path and its fields.
    fields : tuple of str
    """

    text: str
    glob: str
    expression: re.Pattern[str]
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileScan:
    """The result of a scan.

    Parameters
    ----------
    arrived : tuple of (str, mapping)
        Path and fields of each file that is new or changed.
    cursor : str
        The state for the next scan.
    first : bool
        Whether this is the first scan.
    waiting : int
        Files left for the next scan: still being written, or too many at once.
    """

    arrived: tuple[tuple[str, Mapping[str, str]], ...]
    cursor: str
    first: bool = False
    waiting: int = 0
    files: int = field(default=0)


def compile_pattern(text: str) -> Pattern:
    """A pattern of the manifest: ``*``, ``**``, ``?``, ``[abc]`` and ``{field}``."""
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
            # of a set, as glob takes it, without the end that fnmatch adds
            piece,
            fnmatch.translate(piece)[:-2] if piece.startswith("[") else re.escape(piece),
        )

    tokens = re.compile(
        r"\{(?P<field>[A-Za-z_][A-Za-z0-9_]*)\}|\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL
    )
    expression = re.compile(tokens.sub(translate, text) + r"\Z")
    return Pattern(text, as_glob, expression, fields)


def scan_files(
    patterns: Sequence[Pattern], root: Path, cursor: str | None, now_ns: int
) -> FileScan:
    """Scan the files of some patterns.

    Parameters
    ----------
    patterns : sequence of Pattern
    root : Path
        The base of relative patterns.
    cursor : str or None
        The last scan's.
    now_ns : int
        The time, in nanoseconds since the epoch.

    Returns
    -------
    FileScan
    """
    known = _read(cursor)
    first = known is None
    before = known or {}
    # the oldest one remembered, if there was no room for all
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
            continue  # removed since it was listed
        old = before.get(path)
        stamp = [stat.st_mtime_ns, stat.st_size]
        if old is not None and old[:2] == stamp:
            after[path] = old
            continue
        forgotten = old is None and floor is not None and (stat.st_mtime_ns, path) < floor
        if first or forgotten:
            after[path] = [*stamp, None]
            continue
        # a copy that keeps the modification time still has a new inode time, and one that another
        # clock set may lie hours ahead
        times = (stat.st_mtime_ns, stat.st_ctime_ns)
        settled = all(abs(now_ns - moment) >= SETTLED_NS for moment in times)
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
    return FileScan(
        tuple(arrived),
        json.dumps(after, separators=(",", ":")),
        first=first,
        waiting=waiting,
        files=len(after),
    )


def _files(patterns: Sequence[Pattern], root: Path) -> dict[str, Mapping[str, str]]:
    """Path (relative or absolute, like its pattern) to fields, sorted."""
    by_path: dict[str, Mapping[str, str]] = {}
    for pattern in patterns:
        for path in glob.iglob(pattern.glob, root_dir=root, recursive=True):  # noqa: PTH207 - absolute ones too
            name = path.replace("\\", "/")
            match = pattern.expression.match(name)
            if match is not None and (root / path).is_file():
                by_path.setdefault(name, match.groupdict())
    return dict(sorted(by_path.items()))


def _read(cursor: str | None) -> dict[str, list[Any]] | None:
    if not cursor:
        return None
    try:
        state = json.loads(cursor)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(state, dict) and all(
        isinstance(entry, list) and len(entry) > 1 for entry in state.values()
    )
    return state if whole else None


def _digest(path: Path, size: int) -> str | None:
    if size > LARGEST_HASHED:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None
