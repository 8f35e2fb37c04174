"""Large pages for what a template has imported: forking and ending its forks costs half as much.

A fork copies the page table, and its end takes every page out of the tables again: with 200 MB of
modules that is more work than many notebooks do. Linux can put 2 MB pages in the place of 512 small
ones on demand (``MADV_COLLAPSE``, since 6.1; a page that a fork writes to is copied in small ones
as before). Elsewhere, and where the kernel refuses, nothing changes.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

from research_jobs.runtime.processes import LINUX

__all__ = ["use_large_pages"]

_MADV_COLLAPSE = 25


def use_large_pages() -> None:
    """Collapse the writable private memory of this process, as far as the kernel likes to."""
    if not LINUX:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, access, *rest = line.split()
            file = rest[3] if len(rest) > 3 else ""
            if access.startswith("rw") and access.endswith("p") and file in ("", "[heap]"):
                start, end = (int(place, 16) for place in span.split("-"))
                madvise(start, end - start, _MADV_COLLAPSE)
