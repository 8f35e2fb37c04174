"""Hashes of what a notebook has read, remembered by inode, size and time. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from research_jobs.filesystem import write_atomically

__all__ = ["file_digest", "folder_digest"]

FILES = 5_000  # of one folder


def file_digest(path: Path, *, remembered: Path) -> str | None:
    """The SHA-256 of a file; None where it cannot be read.

    Parameters
    ----------
    path : Path
    remembered : Path
        A folder of what was hashed before.
    """
    try:
        status = path.stat()
        stamp = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
        known = remembered / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        with suppress(OSError, ValueError, TypeError, KeyError):
            said = json.loads(known.read_bytes())
            if said["stamp"] == stamp:
                return str(said["sha256"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    with suppress(OSError):
        text = json.dumps({"stamp": stamp, "sha256": digest, "path": str(path)})
        write_atomically(known, text.encode())
    return digest


def folder_digest(folder: Path) -> str:
    """A hash of the names, sizes and times of the files below a folder."""
    lines: list[str] = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            with suppress(OSError):
                path = Path(place, name)
                status = path.stat()
                lines.append(f"{path} {status.st_size} {status.st_mtime_ns}")
        if len(lines) > FILES:
            break
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
