"""The supervisors of this process: one for each set of modules that notebooks import.

A run worker runs many notebooks. They share one supervisor and with it one warm interpreter,
started by the first that needs it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence

from research_jobs.supervisor.run import Supervisor

__all__ = ["close_supervisors", "shared_supervisor"]

_supervisors: dict[tuple[str, ...], Supervisor] = {}
_lock = threading.Lock()


def shared_supervisor(preload: Sequence[str]) -> Supervisor:
    """The supervisor of this process for notebooks that import these modules.

    It ends with this process, or with `close_supervisors`.
    """
    key = tuple(preload)
    with _lock:
        found = _supervisors.get(key)
        if found is None:
            found = _supervisors[key] = Supervisor(preload=key)
        return found


def close_supervisors() -> None:
    """End all templates of this process; the next run starts new ones."""
    with _lock:
        supervisors = list(_supervisors.values())
        _supervisors.clear()
    for supervisor in supervisors:
        supervisor.close()


def _forget() -> None:
    # A forked process must not end its parent's templates.
    for supervisor in _supervisors.values():
        supervisor.forget()
    _supervisors.clear()


atexit.register(close_supervisors)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
