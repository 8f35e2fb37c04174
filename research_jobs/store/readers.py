"""Which kept records name a version: it is not pruned as long as one of them exists.

Standard library only.
"""

from __future__ import annotations

import os
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
    path = version / READ_BY
    with suppress(OSError):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o644)
        try:
            os.write(descriptor, f"{record}\n".encode())
            large = os.fstat(descriptor).st_size > COMPACTED_ABOVE
        finally:
            os.close(descriptor)
        if large:
            write_atomically(path, "".join(f"{name}\n" for name in _existing(path)).encode())


def is_read(version: Path) -> bool:
    """Whether a record that still exists names a version."""
    return bool(_existing(version / READ_BY))


def _existing(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [name for name in dict.fromkeys(names) if name and Path(name).exists()]
