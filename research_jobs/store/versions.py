"""The versions of a unit: which there are, which one counts, and holding one while reading it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, StoreError
from research_jobs.store.files import FolderLock
from research_jobs.store.layout import (
    CURRENT,
    PARTITIONS,
    SUFFIX,
    Unit,
    notebook_folder,
    refuse_link,
)

__all__ = [
    "FORMAT",
    "MANIFEST",
    "HeldVersion",
    "Version",
    "choose_version",
    "current_id",
    "hold",
    "list_units",
    "list_versions",
    "published_at",
    "read_version",
    "sequence",
    "version_of",
    "window",
]

FORMAT = 1
MANIFEST = "version.json"
VERSION_ID = re.compile(r"(\d{6,})-[\w\-]+\Z")
RETRIES = 100  # of holding the current version while others publish


@dataclass(frozen=True)
class Version:
    """One published set of outputs.

    Parameters
    ----------
    id : str
        ``000007-1f0c9a2e``: a running number and the beginning of the run's id.
    folder : Path
    outputs : mapping of str to mapping
        Output to ``{"kind", "rows", "bytes"}``.
    run_id, published_at : str
        Which run made it, and when (ISO 8601, UTC).
    window : tuple of (str, str), optional
        The half-open time window of its partition, ISO 8601.
    """

    id: str
    folder: Path
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run_id: str = ""
    published_at: str = ""
    window: tuple[str, str] | None = None

    def file(self, output: str) -> Path:
        """The file of an output in this version, whatever is published meanwhile."""
        return self.folder / f"{output}{SUFFIX}"


def sequence(version: str) -> int:
    """The running number of a version, -1 for a name that is none."""
    match = VERSION_ID.match(version)
    return int(match[1]) if match else -1


def current_id(unit: Unit) -> str | None:
    """The version that counts now, None when nothing was published."""
    try:
        target = str(unit.current.readlink())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptOutputError(
            f"{unit.current} is not the link it should be: {error.strerror}",
            hint="It names the version that counts; put it back or remove it.",
        ) from error
    # The link is read as text and checked, never followed: it cannot lead out of the store.
    if sequence(target) < 0:
        raise CorruptOutputError(
            f"{unit.current} points at {target!r}, which is no version",
            hint="It names the version that counts; put it back or remove it.",
        )
    return target


def version_ids(unit: Unit) -> list[str]:
    """All versions on disk, oldest first, those of a publish that died included."""
    try:
        names = [entry.name for entry in unit.versions.iterdir()]
    except FileNotFoundError:
        return []
    return sorted((name for name in names if sequence(name) >= 0), key=sequence)


def list_versions(unit: Unit) -> list[Version]:
    """The published versions that are still there, newest (the current one) first."""
    current = current_id(unit)
    if current is None:
        return []
    ids = [name for name in version_ids(unit) if sequence(name) <= sequence(current)]
    return [read_version(unit, name) for name in reversed(ids)]


def read_version(unit: Unit, version: str) -> Version:
    """What a version holds.

    Raises
    ------
    FileNotFoundError
        When it was pruned.
    StoreError
        When a newer version of research_jobs wrote it.
    CorruptOutputError
        When its description cannot be read.
    """
    folder = unit.versions / version
    refuse_link(folder, unit.store)
    path = folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    try:
        record = json.loads(text)
        written = int(record["format"])
        if written <= FORMAT:
            return version_of(record, version, folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptOutputError(
            f"{path} does not describe a version: {error}", hint="Run the notebook again."
        ) from error
    raise StoreError(
        f"{path} has format {written}, this research_jobs knows formats up to {FORMAT}",
        hint="Upgrade research_jobs.",
    )


def version_of(record: Mapping[str, Any], version: str, folder: Path) -> Version:
    """A version from its description; what is missing or odd there raises what it raises."""
    return Version(
        id=version,
        folder=folder,
        outputs={str(name): dict(item) for name, item in record["outputs"].items()},
        run_id=str(record["run_id"]),
        published_at=str(record["published_at"]),
        window=_window(record),
    )


def _window(record: Mapping[str, Any]) -> tuple[str, str] | None:
    window = record.get("window")
    return (str(window[0]), str(window[1])) if window else None


@dataclass(frozen=True)
class HeldVersion:
    """A version that is not pruned as long as this object is there.

    Parameters
    ----------
    version : Version
    lock : FolderLock or None
        None where the file system knows no locks; then a reader may have to read again.
    """

    version: Version
    lock: FolderLock | None

    def release(self) -> None:
        """Let the version be pruned."""
        if self.lock is not None:
            self.lock.release()


def hold(unit: Unit, choose: str | int | None = None) -> HeldVersion:
    """Hold a version of a unit.

    Parameters
    ----------
    unit : Unit
    choose : str, int or None
        None for the current one, -1 for the one before it and so on, or a version's id.

    Returns
    -------
    HeldVersion

    Raises
    ------
    OutputNotFoundError
        When nothing was published, or there is no such version.
    """
    for _ in range(RETRIES):
        wanted = choose if isinstance(choose, str) else _choose(unit, choose or 0)
        folder = unit.versions / wanted
        lock: FolderLock | None = None
        try:
            lock = FolderLock(folder)
            try:
                lock.shared()
            except OSError:  # no locks here: the reader goes on without one
                lock.release()
                lock = None
            # Pruned between being chosen and being locked: the lock is on a folder without a name.
            if lock is None or lock.same_folder():
                return HeldVersion(read_version(unit, wanted), lock)
        except FileNotFoundError:
            pass
        if lock is not None:
            lock.release()
        if isinstance(choose, str):
            break
    known = ", ".join(version.id for version in list_versions(unit))
    raise OutputNotFoundError(
        f"{unit} has no version {choose!r} in {unit.store}",
        hint=f"There are: {known}" if known else "Nothing was published yet.",
    )


def _choose(unit: Unit, back: int) -> str:
    current = current_id(unit)
    if current is not None and back == 0:
        return current
    newest = -1 if current is None else sequence(current)
    return choose_version(unit, [n for n in version_ids(unit) if sequence(n) <= newest], back)


def choose_version(unit: object, ids: Sequence[str], back: int) -> str:
    """The version `back` steps (0, -1, -2...) from the last of `ids`.

    Raises
    ------
    OutputNotFoundError
    """
    if not ids:
        raise OutputNotFoundError(f"{unit} has no outputs yet", hint="Run the notebook first.")
    if back > 0 or -back >= len(ids):
        raise OutputNotFoundError(
            f"{unit} has no version {back}",
            hint=f"{len(ids) - 1} older version(s) are kept, -1 is the last; "
            "'keep' in the manifest says how many.",
        )
    return ids[back - 1]


def published_at(unit: Unit) -> str:
    """When the current version was published, ISO 8601."""
    return _read_current(unit).published_at


def window(unit: Unit) -> tuple[str, str] | None:
    """The time window of the unit's partition, where it is one of time."""
    return _read_current(unit).window


def _read_current(unit: Unit) -> Version:
    held = hold(unit)
    held.release()
    return held.version


def list_units(store: str, notebook: str) -> Iterator[Unit]:
    """The units of a notebook that have a current version: itself, or each of its partitions."""
    folder = notebook_folder(store, notebook)
    root = Path(store).resolve()
    name = folder.relative_to(root).as_posix()
    plain = Unit(root, name)
    if plain.current.is_symlink():
        yield plain
    for segments in _leaves(folder / PARTITIONS, ()):
        yield Unit(root, name, segments)


def _leaves(folder: Path, segments: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                for entry in entries
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, is_folder, is_link in names:
        if name == CURRENT and is_link and segments:
            yield segments
        elif is_folder and "=" in name:
            yield from _leaves(folder / name, (*segments, name))
