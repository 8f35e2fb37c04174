"""The versions of a unit in a local store: list them, find the current one, hold one to read it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, ResearchJobsError
from research_jobs.store.files import FolderLock
from research_jobs.store.layout import (
    CURRENT,
    PARTITIONS,
    VERSIONS,
    Unit,
    read_segments,
    refuse_link,
)
from research_jobs.store.records import (
    NO_PARTITIONING,
    Partitioning,
    Version,
    check_format,
    choose_version,
    sequence,
    version_of,
)

__all__ = [
    "MANIFEST",
    "LocalHeld",
    "current_id",
    "current_version",
    "dimensions_of",
    "hold",
    "list_versions",
    "read_partitioning",
    "read_version",
    "roots_of",
    "units_below",
    "version_ids",
]

MANIFEST = "version.json"
RETRIES = 100  # to hold the current version while others publish


def current_id(unit: Unit) -> str | None:
    """The current version; None if nothing is published."""
    try:
        target = str(unit.current.readlink())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise _unreadable(unit.current, error) from error
        raise CorruptOutputError(
            f"{unit.current} is not a symbolic link", hint=_restore(unit)
        ) from error
    # The link is read and checked but never followed, so it cannot lead out of the store.
    if sequence(target) < 0:
        raise CorruptOutputError(
            f"{unit.current} points at {target!r}, which is not a version", hint=_restore(unit)
        )
    return target


def _restore(unit: Unit) -> str:
    """How to restore ``current``, which names the current version."""
    ids = version_ids(unit)
    if not ids:
        return "Remove it, then run the notebook again."
    return f"Remove it, then link it to a version again: ln -s {ids[-1]} {unit.current}"


def _unreadable(
    path: Path, error: OSError, hint: str = "Run the notebook again."
) -> CorruptOutputError:
    if isinstance(error, PermissionError):
        hint = "Give this user permission to read it."
    return CorruptOutputError(f"{path} cannot be read: {error.strerror or error}", hint=hint)


def current_version(unit: Unit) -> Version | None:
    """The current version, as far as it can be read."""
    try:
        current = current_id(unit)
        return None if current is None else read_version(unit, current)
    except (OSError, ResearchJobsError):
        return None


def version_ids(unit: Unit) -> list[str]:
    """All versions on disk, oldest first, including those of an interrupted publish."""
    try:
        names = [entry.name for entry in unit.versions.iterdir()]
    except FileNotFoundError:
        return []
    return sorted((name for name in names if sequence(name) >= 0), key=sequence)


def list_versions(unit: Unit) -> list[Version]:
    """The published versions that still exist, newest (the current one) first."""
    current = current_id(unit)
    if current is None:
        return []
    found = [read_version(unit, current)]
    for name in reversed(_older_ids(unit, current)):
        with suppress(FileNotFoundError):  # it is being pruned
            found.append(read_version(unit, name))
    return found


def _older_ids(unit: Unit, current: str) -> list[str]:
    return [name for name in version_ids(unit) if sequence(name) < sequence(current)]


def read_version(unit: Unit, version: str) -> Version:
    """Read a version's description.

    Raises
    ------
    FileNotFoundError
        When it was pruned, or its description is missing.
    StoreError
        When a newer version of research_jobs wrote it.
    CorruptOutputError
        When its description cannot be read.
    """
    folder = unit.versions / version
    refuse_link(folder, unit.store)
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        record = json.loads(text)
        check_format(record, path)
        return version_of(record, version, folder)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptOutputError(
            f"{path} does not describe a version: {error}", hint="Run the notebook again."
        ) from error


@dataclass(frozen=True)
class LocalHeld:
    """A version that is not pruned as long as this object exists.

    Parameters
    ----------
    version : Version
    lock : FolderLock or None
        None if the file system has no locks; then a reader may have to read again.
    """

    version: Version
    lock: FolderLock | None

    def release(self) -> None:
        """Release the version."""
        if self.lock is not None:
            self.lock.release()


def hold(unit: Unit, choose: str | int | None = None) -> LocalHeld:
    """Hold a version of a unit; see `StoreBackend.hold`."""
    for _ in range(RETRIES):
        wanted = choose if isinstance(choose, str) else _choose(unit, choose or 0)
        folder = unit.versions / wanted
        lock: FolderLock | None = None
        try:
            lock = FolderLock(folder)
            try:
                lock.shared()
            except OSError:  # no locks here: the reader continues without one
                lock.release()
                lock = None
            # It was pruned between being chosen and being locked: the lock is on a removed folder.
            if lock is None or lock.same_folder():
                return LocalHeld(_read_held(unit, wanted, locked=lock is not None), lock)
        except FileNotFoundError:
            pass
        if lock is not None:
            lock.release()
        if isinstance(choose, str):
            break
    current = current_id(unit)
    known = ", ".join([current, *reversed(_older_ids(unit, current))] if current else ())
    raise OutputNotFoundError(
        f"{unit} has no version {choose!r} in {unit.store}",
        hint=f"There are: {known}" if known else "Nothing is published yet.",
    )


def _read_held(unit: Unit, version: str, *, locked: bool) -> Version:
    try:
        return read_version(unit, version)
    except FileNotFoundError as error:
        if not locked:
            raise  # it may have been pruned
        raise _unreadable(unit.versions / version / MANIFEST, error) from error


def _choose(unit: Unit, back: int) -> str:
    current = current_id(unit)
    if current is not None and back == 0:
        return current
    newest = -1 if current is None else sequence(current)
    return choose_version(unit, [n for n in version_ids(unit) if sequence(n) <= newest], back)


# -- which units there are -------------------------------------------------------------------


def roots_of(unit: Unit) -> list[str]:
    """A notebook's hidden folders of versions, including those of earlier partitionings."""
    try:
        with os.scandir(unit.folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name == VERSIONS or name.startswith(PARTITIONS))


def units_below(unit: Unit, root: str) -> Iterator[Unit]:
    """The units in a hidden folder that have a current version, readable or not."""
    if root == VERSIONS:
        plain = Unit(unit.store, unit.notebook)
        if os.path.lexists(plain.current):
            yield plain
        return
    for segments in _leaves(unit.folder / root, ()):
        yield Unit(unit.store, unit.notebook, segments, root)


def _leaves(folder: Path, segments: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if "=" in entry.name and entry.is_dir(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unreadable(folder, error) from error
    for name in names:
        below = folder / name
        # One look for each partition, however many there are.
        if os.path.lexists(below / CURRENT):
            yield (*segments, name)
        else:
            yield from _leaves(below, (*segments, name))


def read_partitioning(unit: Unit) -> Partitioning | None:
    """A notebook's current partitioning; None if nothing is published.

    Without a file that says so (an unpartitioned notebook, or an older store) it is that of the
    last publication.
    """
    path = unit.partitioning
    try:
        return Partitioning.parse(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _unreadable(path, error, NO_PARTITIONING) from error
    roots = roots_of(unit)
    if len(roots) == 1:
        by = dimensions_of(unit, roots[0])
        return None if by is None else Partitioning(roots[0], by)
    last = [
        (version.published_at, Partitioning(root, version.by))
        for root in roots
        for each in units_below(unit, root)
        if (current := current_id(each)) is not None
        for version in (read_version(each, current),)
    ]
    return max(last, key=lambda item: item[0])[1] if last else None


def dimensions_of(unit: Unit, root: str) -> Mapping[str, str] | None:
    """Dimension to how its keys are made, in a hidden folder; None if it has no unit.

    An empty string means that only damaged versions could tell.
    """
    dimensions: Mapping[str, str] | None = None
    for each in units_below(unit, root):
        version = current_version(each)
        if version is not None:
            return version.by
        dimensions = dict.fromkeys(read_segments(each.segments).dimensions, "")
    return dimensions
