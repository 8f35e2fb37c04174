"""Turns that processes take at what is a project's own: a backup and what is pruned meanwhile."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager

from research_jobs.filesystem import open_private
from research_jobs.project import Project

__all__ = ["turn"]


@contextmanager
def turn(project: Project, at: str, *, wait: bool = True) -> Generator[bool]:
    """A context that one process at a time is in; the kernel ends it with the process.

    Parameters
    ----------
    project : Project
    at : str
        What they take turns at: ``history`` for whoever needs it as it is.
    wait : bool

    Yields
    ------
    bool
        False where another process is in it and `wait` is false.
    """
    with open_private(project.make_state_folder() / f"{at}.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
