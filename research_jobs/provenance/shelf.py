"""Sources and lists of packages that records name, each content once: ``reports/.kept/<sha256>``.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from research_jobs.filesystem import make_folder, write_atomically
from research_jobs.provenance.record import NAME, RUNS, read_record

__all__ = ["KEPT", "keep", "kept", "unnamed"]

KEPT = ".kept"
LIMIT = 16 * 1024 * 1024  # bytes of one content


def keep(reports: Path, content: bytes) -> str:
    """Keep a content, and return its SHA-256.

    Parameters
    ----------
    reports : Path
        The folder of all reports.
    content : bytes
        Above 16 MiB only its hash is returned.
    """
    name = hashlib.sha256(content).hexdigest()
    path = reports / KEPT / name
    if len(content) > LIMIT:
        return name
    try:
        os.utime(path)  # that it is needed: see `unnamed`
    except FileNotFoundError:
        make_folder(path.parent)
        write_atomically(path, zlib.compress(content, 6))
    return name


def unnamed(reports: Path, *, before: float) -> Iterator[Path]:
    """The kept contents that no record names.

    Parameters
    ----------
    reports : Path
        The folder of all reports.
    before : float
        Only those that were last needed before this moment, Unix time: a run keeps its sources
        before its record says so.
    """
    old = [path for path in (reports / KEPT).glob("*") if path.stat().st_mtime < before]
    if not old:
        return
    named: set[str] = set()
    for path in reports.rglob(f"{RUNS}/*/{NAME}"):
        record = read_record(path)
        if record is None:
            return  # whatever a record of a newer version names stays
        named.update((*record.files.values(), record.manifest, record.environment))
    yield from (path for path in old if path.name not in named)


def kept(reports: Path, sha256: str) -> bytes | None:
    """A content by its hash; None where it is not kept, or is damaged."""
    try:
        content = zlib.decompressobj().decompress((reports / KEPT / sha256).read_bytes(), LIMIT)
    except (OSError, zlib.error):
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None
