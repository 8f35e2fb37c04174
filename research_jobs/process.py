"""What this process has of the machine, and its garbage collector.

Standard library only: every room may use it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["gc_paused", "gc_resume", "usable_cores"]


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def gc_paused() -> Generator[None]:
    """Within this context nothing is collected, until `gc_resume`.

    For what makes many objects that stay, or that are freed without the collector: it would look
    through all of them time and again as they grow in number.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def gc_resume() -> None:
    """Collect from here on, without what there is by now."""
    gc.freeze()
    gc.enable()
