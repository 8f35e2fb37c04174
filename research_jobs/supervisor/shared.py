"""The supervisors of this process: one for each set of modules that notebooks import.

Run workers, commands and `run_notebook` run many notebooks. Those with the same imports share one
supervisor and with it one template, started by the first that needs it.

A command knows better: that it is going to run notebooks, before it has so much as imported
Dagster. So it starts at once, beside that, the template that the project's last command
needed (`warm_up`). When the notebooks import other modules by now, that one is ended, and the run
starts another as it needs it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
from collections.abc import Sequence
from typing import cast

from research_jobs.errors import ResearchJobsError
from research_jobs.filesystem import write_atomically
from research_jobs.process import hands_down
from research_jobs.project import Project
from research_jobs.supervisor.interpreter import fork_is_possible
from research_jobs.supervisor.supervise import Supervisor

__all__ = ["close_supervisors", "remember_preload", "shared_supervisor", "warm_up"]

PRELOAD_FILE = "preload.json"

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
            found = _supervisors[key] = Supervisor(preload=key, inheritable=hands_down())
        return found


def warm_up(project: Project) -> None:
    """Start the template that this project's last command needed; returns at once."""
    remembered = _remembered(project)
    if remembered is None or not fork_is_possible():
        return
    modules, sys_path = remembered
    supervisor = shared_supervisor(modules)

    def start() -> None:
        # Whatever is wrong with it, the run that needs it will say so.
        with contextlib.suppress(ResearchJobsError, OSError):
            supervisor.warm(project.root, sys_path=sys_path)

    threading.Thread(target=start, name="warm up", daemon=True).start()


def remember_preload(
    project: Project, modules: Sequence[str], sys_path: Sequence[str] = ()
) -> None:
    """Note which modules a command of this project needs, and end what was warmed up for others.

    Parameters
    ----------
    project : Project
    modules : sequence of str
        As `shared_supervisor` is going to be given them.
    sys_path : sequence of str
        The project's own entries of ``sys.path``.
    """
    if (tuple(modules), tuple(sys_path)) == _remembered(project):
        return
    with _lock:
        others = [_supervisors.pop(key) for key in list(_supervisors) if key != tuple(modules)]
    for supervisor in others:
        supervisor.close()
    path = project.state / "cache" / PRELOAD_FILE
    with contextlib.suppress(OSError):  # it only costs the next command a second
        text = json.dumps({"modules": list(modules), "sys_path": list(sys_path)})
        write_atomically(path, text.encode(), private=True)


def _remembered(project: Project) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Modules, and entries of ``sys.path``."""
    try:
        found = json.loads((project.state / "cache" / PRELOAD_FILE).read_bytes())
        return _texts(found["modules"]), _texts(found["sys_path"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    items = cast("list[object]", value)
    texts = tuple(item for item in items if isinstance(item, str))
    if len(texts) != len(items):
        raise TypeError
    return texts


def close_supervisors() -> None:
    """End all templates of this process; the next run starts new ones."""
    with _lock:
        supervisors = list(_supervisors.values())
        _supervisors.clear()
    for supervisor in supervisors:
        supervisor.close()


def _after_fork() -> None:
    # A forked process must not end its parent's templates. Another thread may have held the lock.
    global _lock
    _lock = threading.Lock()
    if hands_down():
        for supervisor in _supervisors.values():
            supervisor.inherit()
        return
    for supervisor in _supervisors.values():
        supervisor.forget()
    _supervisors.clear()


atexit.register(close_supervisors)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
