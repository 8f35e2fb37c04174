"""The process's cores, signals and garbage collector, and what its forks inherit.

Standard library only: every package may use it.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "gc_paused",
    "gc_resume",
    "hand_down",
    "handling",
    "hands_down",
    "host_pid",
    "usable_cores",
]

_hands_down = False
_host: int | None = None


def hand_down(*, on: bool) -> None:
    """Say whether processes that this one forks go on with its helpers.

    Helpers are the templates and the process that makes reports. Elsewhere they belong to the
    process that started them, and a fork forgets them. A fork of such a process turns it off.
    """
    global _hands_down, _host
    _host = os.getppid() if _hands_down and not on else None
    _hands_down = on


def hands_down() -> bool:
    """Whether processes that this one forks go on with its helpers."""
    return _hands_down


def host_pid() -> int | None:
    """The host from which this process was forked, if it was."""
    return _host


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def handling(handlers: Mapping[int, Handler]) -> Generator[None]:
    """Handle signals in another way for a while; only in the main thread.

    Parameters
    ----------
    handlers : mapping of int to callable or Handlers
        By signal. Afterwards the former ones are in place again.
    """
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def gc_paused() -> Generator[None]:
    """Pause the garbage collector in this context, or until `gc_resume`.

    For code that creates many objects that stay or are freed by reference counts: the collector
    would scan all of them again and again as their number grows.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def gc_resume() -> None:
    """Resume collection, and exempt all objects that exist by now."""
    gc.freeze()
    gc.enable()
