"""A store behind an fsspec URL (``s3://bucket/data``): whole objects and one pointer.

::

    <notebook>/.versions/<id>/<output>.pq       the files of a version
    <notebook>/.versions/current.json           the pointer, whose replacement is the commit
    <notebook>/<output>.parquet                 a copy for other tools, put after the commit

Object stores have no links and no locks. `load` follows the pointer and sees all of a version or
none of it; somebody who reads the plain copies may, for a moment, see one output's new copy beside
another's old one. Two who publish at once: the last pointer counts.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, StoreError
from research_jobs.failpoints import failpoint
from research_jobs.protocol import PartitionKey, StagedOutput
from research_jobs.store.files import FolderLock
from research_jobs.store.layout import (
    PART,
    PARTITIONS,
    REJECTED,
    SUFFIX,
    VERSIONS,
    check_notebook_name,
    partition_dimensions,
    partition_segments,
)
from research_jobs.store.versions import FORMAT, Version, choose_version, version_of

__all__ = ["RemoteUnit", "hold", "list_units", "publish", "published_at", "reject", "window"]

POINTER = "current.json"


@cache
def _file_system(store: str) -> tuple[Any, str]:
    """The file system of a URL, and the store's path on it."""
    try:
        import fsspec
    except ImportError as error:
        raise StoreError(
            f"the store {store} needs the package 'fsspec'", hint="pip install fsspec"
        ) from error
    try:
        system, path = fsspec.core.url_to_fs(store)
    except (ImportError, ValueError) as error:
        raise StoreError(f"the store {store} cannot be opened: {error}") from error
    return system, path.rstrip("/")


@dataclass(frozen=True)
class RemoteUnit:
    """As `research_jobs.store.layout.Unit`, behind a URL."""

    store: str
    notebook: str
    segments: tuple[str, ...] = ()

    @property
    def system(self) -> Any:
        """fsspec.AbstractFileSystem: where it is."""
        return _file_system(self.store)[0]

    @property
    def folder(self) -> str:
        """str: the notebook's folder."""
        return f"{_file_system(self.store)[1]}/{self.notebook}"

    @property
    def versions(self) -> str:
        """str: the folder of versions and the pointer."""
        tail = (PARTITIONS, *self.segments) if self.segments else (VERSIONS,)
        return "/".join((self.folder, *tail))

    def link(self, output: str) -> str:
        """The URL that other tools read."""
        tail = (output, *self.segments, PART) if self.segments else (f"{output}.parquet",)
        return "/".join((self.store.rstrip("/"), self.notebook, *tail))

    def plain(self, output: str) -> str:
        """The same as a path of the file system."""
        tail = (output, *self.segments, PART) if self.segments else (f"{output}.parquet",)
        return "/".join((self.folder, *tail))

    def __str__(self) -> str:
        return " ".join((self.notebook, *self.segments))


@dataclass(frozen=True)
class RemoteVersion(Version):
    """A version whose files are fetched when they are read, each once in a process."""

    unit: RemoteUnit | None = None

    def file(self, output: str) -> Path:
        """A local copy of the file of an output."""
        assert self.unit is not None
        return _fetch(self.unit, self.id, output)


@cache
def _cache_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="research_jobs-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a fork that ends leaves its parent's files alone
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@cache
def _fetch(unit: RemoteUnit, version: str, output: str) -> Path:
    target = _cache_folder() / f"{secrets.token_hex(8)}-{output}{SUFFIX}"
    try:
        unit.system.get_file(f"{unit.versions}/{version}/{output}{SUFFIX}", str(target))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{unit.link(output)} cannot be fetched: {error}") from error
    return target


@dataclass(frozen=True)
class RemoteHeld:
    """As `HeldVersion`; nothing can be held behind a URL."""

    version: RemoteVersion
    lock: FolderLock | None = None

    def release(self) -> None:
        """Nothing to let go."""


def _pointer(unit: RemoteUnit) -> list[RemoteVersion]:
    """The versions that the pointer names, the current one first; none when there is none."""
    path = f"{unit.versions}/{POINTER}"
    try:
        text = unit.system.cat_file(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{unit.store}: {path} cannot be read: {error}") from error
    try:
        record = json.loads(text)
        written = int(record["format"])
        if written <= FORMAT:
            return [_version(unit, item) for item in record["versions"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptOutputError(
            f"{path} does not name versions: {error}", hint="Run the notebook again."
        ) from error
    raise StoreError(
        f"{path} has format {written}, this research_jobs knows formats up to {FORMAT}",
        hint="Upgrade research_jobs.",
    )


def _version(unit: RemoteUnit, record: Mapping[str, Any]) -> RemoteVersion:
    plain = version_of(record, str(record["version"]), Path())
    return RemoteVersion(
        plain.id, plain.folder, plain.outputs, plain.run_id, plain.published_at, plain.window, unit
    )


def hold(unit: RemoteUnit, choose: str | int | None = None) -> RemoteHeld:
    """As `research_jobs.store.versions.hold`."""
    versions = _pointer(unit)
    by_id = {version.id: version for version in versions}
    if isinstance(choose, str):
        if choose not in by_id:
            raise OutputNotFoundError(
                f"{unit} has no version {choose!r} in {unit.store}",
                hint=f"There are: {', '.join(by_id)}" if by_id else "Nothing was published yet.",
            )
        return RemoteHeld(by_id[choose])
    ids = [version.id for version in reversed(versions)]
    return RemoteHeld(by_id[choose_version(unit, ids, choose or 0)])


def published_at(unit: RemoteUnit) -> str:
    """When the current version was published, ISO 8601."""
    return hold(unit).version.published_at


def window(unit: RemoteUnit) -> tuple[str, str] | None:
    """The time window of the unit's partition."""
    return hold(unit).version.window


def list_units(store: str, notebook: str) -> Iterator[RemoteUnit]:
    """The units of a notebook that have a current version."""
    name = "/".join(check_notebook_name(notebook))
    plain = RemoteUnit(store, name)
    system = plain.system
    system.invalidate_cache()  # others publish too
    if system.exists(f"{plain.versions}/{POINTER}"):
        yield plain
    root = f"{plain.folder}/{PARTITIONS}/"
    found = system.glob(f"{root}**/{POINTER}") if system.exists(root.rstrip("/")) else []
    for path in sorted(str(item) for item in found):
        segments = path[path.index(root) + len(root) :].split("/")[:-1]
        yield RemoteUnit(store, name, tuple(segments))


def stored_notebooks(store: str) -> tuple[str, ...]:
    """The notebooks that have outputs in a store."""
    system, root = _file_system(store)
    names: set[str] = set()
    for path in system.glob(f"{root}/**/{POINTER}"):
        inside = str(path)[str(path).index(root) + len(root) + 1 :]
        for mark in (f"/{VERSIONS}/", f"/{PARTITIONS}/"):
            if mark in inside:
                names.add(inside.split(mark)[0])
    return tuple(sorted(names))


def publish(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    *,
    partition: PartitionKey | None,
    keep: Mapping[str, int],
    run_id: str,
    suffix: str,
) -> tuple[str, dict[str, int | None]]:
    """Upload staged files as a version and let the pointer name it.

    Parameters
    ----------
    store, notebook, staged, partition, keep, run_id
        As `research_jobs.store.commit.publish`.
    suffix : str
        A part of the new version's id.

    Returns
    -------
    version : str
        The new version's id.
    previous : dict
        Output to rows in the version before.

    Raises
    ------
    StoreError
        When something cannot be uploaded; before the pointer was replaced nothing has changed.
    """
    unit = _unit(store, notebook, partition)
    try:
        before = _pointer(unit)
        number = max((int(item.id.split("-")[0]) for item in before), default=0) + 1
        name = f"{number:06d}-{suffix}-{secrets.token_hex(3)}"
        failpoint("publish.begin")
        for item in staged:
            unit.system.makedirs(f"{unit.versions}/{name}", exist_ok=True)
            unit.system.put_file(item.path, f"{unit.versions}/{name}/{item.name}{SUFFIX}")
            failpoint("publish.moved_one")
        record = {
            "version": name,
            "run_id": run_id,
            "published_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "window": [partition.start, partition.end]
            if partition and partition.start and partition.end
            else None,
            "outputs": {
                item.name: {"kind": item.kind, "rows": item.rows, "bytes": item.bytes}
                for item in staged
            },
        }
        kept, dropped = _retain(before, record, keep)
        text = json.dumps({"format": FORMAT, "versions": [record, *map(_record, kept)]}, indent=1)
        with unit.system.transaction:  # a file that is half written must never be the pointer
            unit.system.pipe_file(f"{unit.versions}/{POINTER}", text.encode())
        failpoint("publish.committed")
        for item in staged:
            unit.system.makedirs(unit.plain(item.name).rsplit("/", 1)[0], exist_ok=True)
            unit.system.put_file(item.path, unit.plain(item.name))
        _tidy(unit, before, {item.name for item in staged}, dropped)
    except OSError as error:
        raise StoreError(
            f"the outputs of {unit} cannot be published to {store}: {error}",
            hint="Readers by load() see what was published before, or all that is new.",
        ) from error
    previous = before[0].outputs if before else {}
    return name, {output: item.get("rows") for output, item in previous.items()}


def version_file(
    store: str, notebook: str, partition: PartitionKey | None, version: str, output: str
) -> str:
    """The URL of an output's file in a version."""
    unit = _unit(store, notebook, partition)
    inside = unit.versions[len(_file_system(store)[1]) :]
    return f"{store.rstrip('/')}{inside}/{version}/{output}{SUFFIX}"


def _unit(store: str, notebook: str, partition: PartitionKey | None) -> RemoteUnit:
    segments = partition_segments(partition_dimensions(partition)) if partition else ()
    return RemoteUnit(store, "/".join(check_notebook_name(notebook)), segments)


def _record(version: Version) -> dict[str, Any]:
    return {
        "version": version.id,
        "run_id": version.run_id,
        "published_at": version.published_at,
        "window": version.window,
        "outputs": dict(version.outputs),
    }


def _retain(
    before: Sequence[RemoteVersion], record: Mapping[str, Any], keep: Mapping[str, int]
) -> tuple[list[RemoteVersion], list[RemoteVersion]]:
    """Which older versions stay; the rule is `commit`'s."""
    seen: dict[str, int] = dict.fromkeys(record["outputs"], 0)
    kept: list[RemoteVersion] = []
    dropped: list[RemoteVersion] = []
    for version in before:
        wanted = any(seen.get(output, -1) < keep.get(output, 0) for output in version.outputs)
        for output in version.outputs:
            seen[output] = seen.get(output, 0) + 1
        (kept if wanted else dropped).append(version)
    return kept, dropped


def _tidy(
    unit: RemoteUnit,
    before: Sequence[RemoteVersion],
    outputs: set[str],
    dropped: Sequence[RemoteVersion],
) -> None:
    gone = set(before[0].outputs) - outputs if before else set[str]()
    for output in gone:
        if unit.system.exists(unit.plain(output)):
            unit.system.rm_file(unit.plain(output))
    for version in dropped:
        folder = f"{unit.versions}/{version.id}"
        if unit.system.exists(folder):
            unit.system.rm(folder, recursive=True)


def reject(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    *,
    partition: PartitionKey | None,
) -> str:
    """Upload staged files aside; the URL of their folder is returned."""
    unit = _unit(store, notebook, partition)
    name = "&".join(unit.segments) or "latest"
    try:
        for item in staged:
            folder = f"{unit.folder}/{REJECTED}/{name}"
            unit.system.makedirs(folder, exist_ok=True)
            unit.system.put_file(item.path, f"{folder}/{item.name}{SUFFIX}")
    except OSError as error:
        raise StoreError(f"the rejected outputs of {unit} cannot be kept aside: {error}") from error
    return "/".join((store.rstrip("/"), unit.notebook, REJECTED, name))
