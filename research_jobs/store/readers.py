"""Which kept records name a version: it is not pruned as long as one of them exists.

Standard library only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from research_jobs.filesystem import write_atomically

__all__ = ["READ_BY", "is_read", "mark_read"]

READ_BY = "read_by"
COMPACTED_ABOVE = 16 * 1024  # bytes


def mark_read(version: Path, record: Path) -> None:
    """Note in a version's folder that a record names it; nothing where it was pruned.

    Parameters
    ----------
    version : Path
        The version's folder.
    record : Path
        A file that exists as long as the version is to be kept.
    """
    path, line = version / READ_BY, os.fsencode(record) + b"\n"
    with suppress(OSError):
        while not _add(path, line):
            pass


def _add(path: Path, line: bytes) -> bool:
    """Add a line; False where another process has replaced the file since it was opened."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o644), "ab", buffering=0) as file:  # noqa: PTH123 - no path
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        state = os.fstat(file.fileno())
        if not os.path.samestat(state, path.stat()):
            return False
        file.write(line)
        size = state.st_size + len(line)
        # Whenever it has doubled, so that many records do not cost their square.
        if size > COMPACTED_ABOVE and size.bit_length() > state.st_size.bit_length():
            write_atomically(path, b"".join(name + b"\n" for name in _existing(path)))
    return True


def is_read(version: Path) -> bool:
    """Whether a record that still exists names a version."""
    return any(_existing(version / READ_BY))


def _existing(path: Path) -> Iterator[bytes]:
    with suppress(OSError):
        names = dict.fromkeys(path.read_bytes().split(b"\n"))
        yield from (name for name in names if name and Path(os.fsdecode(name)).exists())
