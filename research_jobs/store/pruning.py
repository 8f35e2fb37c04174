"""What goes from a store although nothing is published: surplus versions, objects of no version."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone

from research_jobs.errors import ResearchJobsError, StoreError
from research_jobs.filesystem import folder_bytes
from research_jobs.store.backends.local import LocalStore
from research_jobs.store.backends.remote_units import POINTER, RemoteUnit, pointed
from research_jobs.store.files import FolderLock
from research_jobs.store.layout import PARTITIONS, VERSIONS, Unit
from research_jobs.store.objects import Objects, in_parallel, objects_of
from research_jobs.store.records import sequence
from research_jobs.store.transaction import remove_version, surplus
from research_jobs.store.versions import current_id, read_version

__all__ = ["prune_objects", "prune_versions"]

CLOCK = ".clock"
"""An object whose date tells the service's time."""


def prune_versions(
    store: str, notebook: str, keep: Mapping[str, int | None], *, dry_run: bool = False
) -> Iterator[int]:
    """Remove the versions of a notebook beyond ``keep``, which may be less than when they came.

    A unit that is being published, and a version that somebody reads, is left for the next time.

    Parameters
    ----------
    store : str
        A folder.
    notebook : str
    keep : mapping of str to int or None
        Output to the number of older versions kept; see `retained`.
    dry_run : bool

    Yields
    ------
    int
        The bytes of each.
    """
    for unit in LocalStore(store).units(notebook):
        with suppress(OSError, ResearchJobsError), FolderLock(unit.versions) as lock:
            current = current_id(unit) if lock.exclusive(wait=False) else None
            if current is not None:
                yield from _surplus_of(unit, current, keep, dry_run=dry_run)


def _surplus_of(
    unit: Unit, current: str, keep: Mapping[str, int | None], *, dry_run: bool
) -> Iterator[int]:
    newest = list(read_version(unit, current).outputs)
    for name in surplus(unit, current, newest, keep):
        folder = unit.versions / name
        size = folder_bytes(folder)
        if dry_run or remove_version(folder):
            yield size


def prune_objects(
    store: str,
    before: float,
    *,
    dry_run: bool = False,
    unreadable: Callable[[str], None] = lambda _: None,
) -> Iterator[int]:
    """Remove objects behind a URL that belong to no version: of publications that were cut off.

    Parameters
    ----------
    store : str
        A URL.
    before : float
        Unix time by this machine, seconds: what is younger may be of a publication that goes on.
        It is compared with the service's clock.
    dry_run : bool
    unreadable : callable
        Called with a line for each pointer that cannot be read. Nothing next to it is removed.

    Yields
    ------
    int
        The bytes of each.

    Raises
    ------
    StoreError
        When the store cannot be listed.
    """
    # Listed before the pointers are read: whatever is committed meanwhile is named or not listed.
    objects = objects_of(store)
    with objects.explained("it cannot be listed"):
        details = objects.find(objects.root)
    uploaded = _by_version(objects, details)
    skew: float | None = None
    found = in_parallel(_named, uploaded)
    for (unit, versions), named in zip(uploaded.items(), found, strict=True):
        if isinstance(named, ResearchJobsError):
            unreadable(f"{unit}: {named.headline}")
            continue
        strays = versions.keys() - named
        if strays and skew is None:
            skew = _skew(objects)
        for paths in (versions[name] for name in sorted(strays)):
            oldest = before + (skew or 0)
            # The last upload counts: a publication may go on for longer than its first one.
            if max(_modified(objects, path, oldest) for path in paths) >= oldest:
                continue
            for path in paths:
                if not dry_run:
                    objects.remove(path)
                yield int(details[path].get("size") or 0)


def _by_version(
    objects: Objects, paths: Iterable[str]
) -> Mapping[RemoteUnit, Mapping[str, list[str]]]:
    """The paths of all files of versions."""
    found: dict[RemoteUnit, dict[str, list[str]]] = {}
    for path in paths:
        inside = objects.inside(path)
        at = next((n for n, part in enumerate(inside) if part.startswith(".")), len(inside))
        if not 0 < at < len(inside) - 2 or sequence(inside[-2]) < 0 or inside[-1] == POINTER:
            continue
        root = inside[at]
        if root == VERSIONS or root.startswith(PARTITIONS):
            segments = tuple(inside[at + 1 : -2])
            unit = RemoteUnit(objects.store, "/".join(inside[:at]), segments, root)
            found.setdefault(unit, {}).setdefault(inside[-2], []).append(path)
    return found


def _named(unit: RemoteUnit) -> set[str] | ResearchJobsError:
    try:
        return {version.id for version in pointed(unit)}
    except ResearchJobsError as error:
        return error


def _skew(objects: Objects) -> float:
    """How far the service's clock is ahead of this machine's, seconds."""
    path = f"{objects.root}/{CLOCK}"
    with objects.explained("it cannot be written to"):
        objects.write(path, b"")
        now = time.time()
        return _modified(objects, path, now) - now


def _modified(objects: Objects, path: str, unknown: float) -> float:
    """When an object was written; a file system that cannot say leaves it alone."""
    try:
        moment: datetime = objects.system.modified(path)
    except (NotImplementedError, FileNotFoundError, KeyError, StoreError):
        return unknown
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()
