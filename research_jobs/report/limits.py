"""How much time and memory a report may take.

The limits hold in the process that makes one report and nothing else. In any other process, a
test's or a benchmark's, `budget` does nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "OverBudgetError", "budget", "limited", "uninterrupted"]


@dataclass(frozen=True)
class Limits:
    """What one report may take.

    Parameters
    ----------
    seconds : float
        Wall time, after which the process is killed.
    outputs_s, output_s : float
        CPU time for all cells and outputs together, and for one of them. What takes longer is
        replaced by a note.
    memory_bytes : int
        Address space beyond what the process starts with.
    """

    seconds: float = 60.0
    outputs_s: float = 20.0
    output_s: float = 5.0
    memory_bytes: int = 2 << 30


class OverBudgetError(BaseException):
    """One output takes too long. Not an `Exception`: no parser's handler swallows it."""


_base = 0
_output_s = 0.0
_left: float | None = None
_held = False
_due = False


@contextmanager
def limited(limits: Limits) -> Generator[Callable[[], float]]:
    """Hold this process to `limits` within this context. Only its main thread may do so.

    Parameters
    ----------
    limits : Limits

    Yields
    ------
    callable
        The CPU time since, in seconds.
    """
    import resource

    global _base, _left, _output_s
    _left, _output_s = limits.outputs_s, limits.output_s
    # What earlier reports left behind counts too.
    _base = _base or _address_space()
    signal.signal(signal.SIGPROF, _over)
    # The default action of both signals ends the process: nothing here can hold them up.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    begun = time.process_time()
    most = {
        resource.RLIMIT_CPU: int(begun + limits.seconds) + 1,
        resource.RLIMIT_AS: _base + limits.memory_bytes,
    }
    before = {kind: resource.getrlimit(kind) for kind in most}
    for kind, limit in most.items():
        resource.setrlimit(kind, (limit, before[kind][1]))
    try:
        yield lambda: time.process_time() - begun
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, limit in before.items():
            resource.setrlimit(kind, limit)
        _left = None


@contextmanager
def budget() -> Generator[None]:
    """Within this context, at most the CPU time of one output passes.

    Raises
    ------
    OverBudgetError
        When it takes longer, or when all outputs together already took what they may.
    """
    global _left
    if _left is None:
        yield
        return
    if _left <= 0:
        raise OverBudgetError
    begun = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, min(_output_s, _left))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _left -= time.process_time() - begun


@contextmanager
def uninterrupted() -> Generator[None]:
    """Within this context nothing is raised for want of time; at its end it is, if it was due.

    For a library that calls back into Python and takes an exception there for an answer.
    """
    global _held, _due
    _held, _due = True, False
    try:
        yield
    finally:
        _held = False
    if _due:
        raise OverBudgetError


def _over(*_args: object) -> None:
    global _due
    _due = True
    if not _held:
        raise OverBudgetError


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return 1 << 30
    return pages * os.sysconf("SC_PAGESIZE")
