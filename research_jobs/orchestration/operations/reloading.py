"""Serve new code by itself: notice changed files, have Dagster load them.

The kernel reports changes, so nothing is spent while there are none. Only what changes the
definitions counts: a comment in a notebook does not.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from research_jobs.environments.versions import LOCKS
from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.instance import open_instance
from research_jobs.orchestration.model.snapshot import Snapshot, compare
from research_jobs.orchestration.operations.morning import look_and_write
from research_jobs.orchestration.operations.served import reload_definitions
from research_jobs.project import Project

__all__ = ["CodeWatch"]

# Files are read once nothing has changed for so long, or after the longer time: seconds.
QUIET_S = 0.2
LONGEST_S = 2.0

_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
_SUFFIXES = (".py", ".yaml", ".yml")


class CodeWatch:
    """Reloads the served definitions when the project's files change, while the context lasts.

    Parameters
    ----------
    project : Project
    url : str
        Where Dagster's webserver listens.
    say : callable
        Takes a line: that, and what, was reloaded, or why not.

    Notes
    -----
    Make it before Dagster reads the project, and enter it when Dagster serves it: what changes in
    between is noticed then.
    """

    def __init__(self, project: Project, url: str, say: Callable[[str], None]) -> None:
        self._project = project
        self._url = url
        self._say = say
        self._served = Snapshot.of(load_catalog(project))
        self._noticed = threading.Event()
        self._stop = threading.Event()
        self._observer = Observer()
        self._folders: dict[str, tuple[bool, int]] = {}
        self._thread = threading.Thread(target=self._follow, name="code-watch", daemon=True)

    def __enter__(self) -> Self:
        self._observer.start()
        self._noticed.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._noticed.set()
        self._observer.stop()

    def _follow(self) -> None:
        while True:
            self._noticed.wait()
            deadline = time.monotonic() + LONGEST_S
            while self._noticed.is_set() and time.monotonic() < deadline:
                self._noticed.clear()
                self._stop.wait(QUIET_S)
            if self._stop.is_set():
                return
            try:
                self._update()
            except Exception as error:  # noqa: BLE001 - the next change is still to be noticed
                if not self._stop.is_set():
                    self._say(f"Not reloaded, next try after the next change: {_line(error)}")

    def _update(self) -> None:
        catalog = load_catalog(self._project)
        if self._watch(catalog):
            catalog = load_catalog(self._project)
        snapshot = Snapshot.of(catalog)
        changes = compare(self._served, snapshot)
        if not changes:
            return
        reload_definitions(self._url)
        self._served = snapshot
        self._say(f"Reloaded: {changes}")
        try:
            with open_instance(self._project) as instance:
                look_and_write(instance, catalog)
        except Exception as error:  # noqa: BLE001 - the watch writes it later
            self._say(f"The reports' first page is not written: {_line(error)}")

    def _watch(self, catalog: Catalog) -> bool:
        """Watch the folders that this catalog is read from; whether that is a change."""
        # The kernel watches a folder, not its name: another one in its place is another one.
        folders = {path: (recursive, _inode(path)) for path, recursive in _folders(catalog)}
        if folders == self._folders:
            return False
        self._folders = folders
        self._observer.unschedule_all()
        handler = _Handler(self._project, self._noticed)
        for folder, (recursive, _) in folders.items():
            try:
                self._observer.schedule(handler, folder, recursive=recursive, event_filter=_EVENTS)
            except OSError as error:  # noqa: PERF203 - others may be watched still
                where = self._project.display(folder)
                self._say(f"Changes in {where} show only after 'Reload' in the UI: {error}")
        return True


class _Handler(FileSystemEventHandler):
    """Sets an event when a file that could matter has changed."""

    def __init__(self, project: Project, noticed: threading.Event) -> None:
        self._root = project.root
        self._noticed = noticed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Look at its paths; editors save to a temporary name, then move that."""
        if any(
            _matters(self._root, os.fsdecode(path), folder=event.is_directory)
            for path in (event.src_path, event.dest_path)
            if path
        ):
            self._noticed.set()


def _matters(root: Path, path: str, *, folder: bool) -> bool:
    with contextlib.suppress(ValueError):
        path = str(Path(path).relative_to(root))
    parts = Path(path).parts
    if any(part.startswith(".") or part == "__pycache__" for part in parts):
        return False
    return folder or path.endswith(_SUFFIXES) or (path.endswith(".txt") and LOCKS in parts)


def _line(error: Exception) -> str:
    return error.headline if isinstance(error, ResearchJobsError) else " ".join(str(error).split())


def _inode(path: str) -> int:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def _folders(catalog: Catalog) -> Iterator[tuple[str, bool]]:
    """Folders, and whether all below is watched too.

    An entry of ``sys_path`` may be the project's root, with all of its data below: only the
    packages that notebooks import from it are watched whole.
    """
    notebooks = catalog.project.notebooks
    yield str(notebooks.parent), False  # in which another folder may take its place
    yield str(notebooks), True
    imported = {name for entry in catalog for name in entry.notebook.local_modules}
    packages = {name.partition(".")[0] for name in imported}
    for path in map(Path, catalog.sys_path):
        if path.is_relative_to(notebooks) or not path.is_dir():
            continue
        yield str(path), False
        for package in sorted(packages):
            if (path / package).is_dir() and path / package != notebooks:
                yield str(path / package), True
