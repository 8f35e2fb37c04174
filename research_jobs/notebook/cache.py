"""The scan's cache: file to facts, in one JSON file that may be damaged or deleted at any time.

The cache is used only if its checksum matches and the same version of the scanner wrote it. An
entry is used only while the file's times, size and inode are unchanged. If the file was younger
than two seconds when it was read, its bytes are compared too: within a clock's resolution a file
can change twice with the same times.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from research_jobs.errors import NotebookError
from research_jobs.filesystem import write_atomically
from research_jobs.notebook.facts import FileFacts, as_row, facts_from_json
from research_jobs.project import Project

__all__ = ["FactsCache", "Remembered"]

SETTLED_NS = 2_000_000_000
"""How old a file must be before its times alone are trusted: FAT's resolution, the coarsest."""


@dataclass(frozen=True)
class Remembered:
    """A file that was read: the hash of its bytes, whether it has markers, its facts.

    One that does not parse has an error in place of facts, and is not in the cache.
    """

    sha256: str
    marked: bool
    facts: FileFacts | None
    error: NotebookError | None = None


class FactsCache:
    """Facts by file.

    Parameters
    ----------
    project : Project
    enabled : bool
        False: nothing is read or written.
    """

    def __init__(self, project: Project, *, enabled: bool = True) -> None:
        self.path = project.state / "cache" / "scan.json"
        self.enabled = enabled
        self._root = str(project.root)
        self._old: dict[str, list[Any]] = self._load() if enabled else {}
        self._new: dict[str, list[Any]] = {}
        self._changed = False
        self._stats: dict[str, tuple[os.stat_result, int]] = {}

    def get(self, path: Path, stat: os.stat_result | None = None) -> Remembered | None:
        """The entry of a file, without reading it; ``None`` if the file must be read."""
        if not self.enabled:
            return None
        now = time.time_ns()
        if stat is None:
            try:
                stat = path.stat()
            except OSError:
                return None
        key = str(path)
        self._stats[key] = (stat, now)
        entry = self._old.get(key)
        if entry is None:
            return None
        try:
            signature, settled = entry[0], entry[1]
            if not settled or signature != _signature(stat):
                return None
            remembered = from_json(entry[2:])
        except (IndexError, KeyError, TypeError, ValueError):
            return None
        self._new[key] = entry
        return remembered

    def confirm(self, path: Path, sha256: str) -> Remembered | None:
        """The entry of a file that was read, if its bytes are unchanged."""
        entry = self._old.get(str(path)) if self.enabled else None
        if entry is None:
            return None
        try:
            remembered = from_json(entry[2:])
        except (IndexError, KeyError, TypeError, ValueError):
            return None
        if remembered.sha256 != sha256:
            return None
        self._keep(path, entry[2:])
        return remembered

    def put(self, path: Path, remembered: Remembered) -> None:
        """Remember a file."""
        if self.enabled:
            self._keep(path, [remembered.sha256, remembered.marked, remembered.facts])

    def _keep(self, path: Path, rest: list[Any]) -> None:
        key = str(path)
        known = self._stats.get(key)
        if known is None:
            return
        stat, now = known
        # The times were taken before the file was read, so the next scan notices a later change.
        settled = now - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED_NS
        self._new[key] = [_signature(stat), settled, *rest]
        self._changed = True

    def _stamp(self) -> dict[str, Any]:
        """What else the facts depend on: the scanner and the interpreter."""
        return {
            "scanner": _own_checksum(),
            "python": list(sys.version_info[:2]),
            "root": self._root,
        }

    def _load(self) -> dict[str, list[Any]]:
        try:
            head, _, body = self.path.read_bytes().partition(b"\n")
            header = json.loads(head)
            if header != {"stamp": self._stamp(), "checksum": zlib.crc32(body)}:
                return {}
            return cast("dict[str, list[Any]]", json.loads(body))
        except (OSError, ValueError, RecursionError):
            return {}

    def save(self) -> None:
        """Write what changed, atomically. A read-only folder is not an error."""
        if not self.enabled or not (self._changed or self._old.keys() != self._new.keys()):
            return
        body = json.dumps(self._new, default=as_row, separators=(",", ":")).encode()
        head = json.dumps({"stamp": self._stamp(), "checksum": zlib.crc32(body)}).encode()
        with contextlib.suppress(OSError):
            write_atomically(self.path, head + b"\n" + body, private=True)


@functools.cache
def _own_checksum() -> int:
    """Hash the source of this package: any change of it makes the cache stale.

    File times do not count, because packagers set them all to the same instant.
    """
    checksum = 0
    for path in sorted(Path(__file__).parent.glob("*.py")):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return checksum


def _signature(stat: os.stat_result) -> list[int]:
    return [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino]


def from_json(value: list[Any]) -> Remembered:
    """An entry's record; raises whatever unpacking raises if the shape is wrong."""
    sha256, marked, facts = value
    return Remembered(sha256, marked, facts_from_json(facts))
