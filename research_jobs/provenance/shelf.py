"""Sources and lists of packages that records name, each content once: ``reports/.kept/<sha256>``.

Standard library only.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from research_jobs.filesystem import make_folder, write_atomically

__all__ = ["KEPT", "keep", "kept"]

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
    if len(content) <= LIMIT and not path.exists():
        make_folder(path.parent)
        write_atomically(path, zlib.compress(content, 6))
    return name


def kept(reports: Path, sha256: str) -> bytes | None:
    """A content by its hash; None where it is not kept, or is damaged."""
    try:
        content = zlib.decompressobj().decompress((reports / KEPT / sha256).read_bytes(), LIMIT)
    except (OSError, zlib.error):
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None
