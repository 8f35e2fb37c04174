"""A store behind an fsspec URL (``s3://bucket/data``): complete objects and one pointer.

::

    <notebook>/.versions/<id>/<output>.pq       the files of a version
    <notebook>/.versions/current.json           the pointer, whose replacement is the commit
    <notebook>/<output>.parquet                 a copy for other tools, put after the commit

Object stores have no links and no locks. `load` follows the pointer and sees all of a version or
none of it. A reader of the plain copies may briefly see one output's new copy next to another's
old one. Threads of one process take turns at a unit; if two processes publish one at once, the
last pointer wins.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from research_jobs.errors import (
    CorruptOutputError,
    OutputNotFoundError,
    StoreError,
)
from research_jobs.failpoints import failpoint
from research_jobs.protocol import PartitionKey
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.layout import (
    PART,
    PARTITIONING,
    PARTITIONS,
    REJECTED,
    SUFFIX,
    VERSIONS,
    check_notebook_name,
    partition_dimensions,
    partition_segments,
)
from research_jobs.store.objects import Objects, objects_of
from research_jobs.store.records import (
    FORMAT,
    Partitioning,
    Version,
    check_format,
    choose_version,
    describe_version,
    free_root,
    next_version,
    partitioning_of,
    retained,
    rows_of,
    short_id,
    sizes_of,
    version_of,
)

__all__ = ["RemoteStore", "RemoteUnit"]

POINTER = "current.json"


# -- units and versions ----------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteUnit:
    """Like `research_jobs.store.layout.Unit`, behind a URL."""

    store: str
    notebook: str
    segments: tuple[str, ...] = ()
    root: str = PARTITIONS

    @property
    def folder(self) -> str:
        """str: the notebook's folder."""
        return f"{objects_of(self.store).root}/{self.notebook}"

    @property
    def versions(self) -> str:
        """str: the folder of versions and the pointer."""
        tail = (self.root, *self.segments) if self.segments else (VERSIONS,)
        return "/".join((self.folder, *tail))

    @property
    def pointer(self) -> str:
        """str: the object whose replacement is the commit."""
        return f"{self.versions}/{POINTER}"

    @property
    def partitioning(self) -> str:
        """str: the object that names the hidden folder that readers follow."""
        return f"{self.folder}/{PARTITIONING}"

    def _tail(self, output: str) -> tuple[str, ...]:
        return (output, *self.segments, PART) if self.segments else (f"{output}.parquet",)

    def link(self, output: str) -> str:
        """The URL that other tools read."""
        return "/".join((self.store.rstrip("/"), self.notebook, *self._tail(output)))

    def plain(self, output: str) -> str:
        """The same as a path in the file system."""
        return "/".join((self.folder, *self._tail(output)))

    def file(self, version: str, output: str) -> str:
        """The path of an output's file in a version."""
        return f"{self.versions}/{version}/{output}{SUFFIX}"

    def __str__(self) -> str:
        return " ".join((self.notebook, *self.segments))


@dataclass(frozen=True)
class RemoteVersion(Version):
    """A version whose files are fetched on demand, each once per process."""

    unit: RemoteUnit | None = None
    record: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def file(self, output: str) -> Path:
        """A local copy of the file of an output."""
        assert self.unit is not None
        return _fetch(self.unit, self.id, output)


@cache
def _cache_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="research_jobs-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a fork that ends keeps its parent's files
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@cache
def _fetch(unit: RemoteUnit, version: str, output: str) -> Path:
    target = _cache_folder() / f"{secrets.token_hex(8)}-{output}{SUFFIX}"
    objects = objects_of(unit.store)
    try:
        with objects.explained(f"{unit.link(output)} cannot be fetched"):
            objects.download(unit.file(version, output), target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


@dataclass(frozen=True)
class RemoteHeld:
    """Like `HeldVersion`, but nothing can be held behind a URL."""

    version: RemoteVersion

    def release(self) -> None:
        """Do nothing."""


def _pointed(unit: RemoteUnit) -> list[RemoteVersion]:
    """The versions that the pointer names, the current one first; empty without a pointer."""
    text = objects_of(unit.store).read(unit.pointer)
    if text is None:
        return []
    try:
        record = json.loads(text)
        check_format(record, unit.pointer)
        return [_version(unit, item) for item in record["versions"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptOutputError(
            f"{unit.pointer} does not name versions: {error}",
            hint=f"Remove it and the outputs of {unit} next to it, then run the notebook again.",
        ) from error


def _version(unit: RemoteUnit, record: Mapping[str, Any]) -> RemoteVersion:
    plain = version_of(record, str(record["version"]), Path())
    return RemoteVersion(
        id=plain.id,
        folder=plain.folder,
        outputs=plain.outputs,
        run_id=plain.run_id,
        published_at=plain.published_at,
        window=plain.window,
        by=plain.by,
        unit=unit,
        record=dict(record),
    )


# -- the store -------------------------------------------------------------------------------


class RemoteStore:
    """The store behind a URL; see `StoreBackend`.

    Parameters
    ----------
    store : str
        The URL.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}

    def check(self) -> None:
        """See `StoreBackend.check`: the package, the credentials and the bucket."""
        objects = objects_of(self.store)
        bucket = objects.root.split("/")[0]
        if objects.has_folders or objects.in_memory or not bucket:
            return
        with objects.explained("it cannot be reached"):
            objects.system.invalidate_cache()
            try:
                objects.system.ls(objects.root)
            except FileNotFoundError:  # the bucket, or an empty store in it
                if objects.system.exists(bucket):
                    return
                raise StoreError(
                    f"the store {self.store}: the bucket '{bucket}' does not exist",
                    hint="Create it, or correct RESEARCH_JOBS_STORE.",
                ) from None

    def _turn(self, unit: RemoteUnit) -> threading.Lock:
        """The lock with which threads of this process take turns at publishing a notebook."""
        with self._lock:
            return self._turns.setdefault(unit.notebook, threading.Lock())

    # -- reading -----------------------------------------------------------------------------

    def notebooks(self) -> tuple[str, ...]:
        """See `StoreBackend.notebooks`."""
        self.check()
        objects = objects_of(self.store)
        names: set[str] = set()
        with objects.explained("it cannot be listed"):
            for path in objects.find(objects.root):
                inside = path[path.index(objects.root) + len(objects.root) + 1 :]
                parts = inside.split("/")
                hidden = [n for n, part in enumerate(parts) if part.startswith(".")]
                if parts[-1] == POINTER and hidden:
                    names.add("/".join(parts[: hidden[0]]))
        return tuple(sorted(names))

    def _unit(self, notebook: str, partition: PartitionKey | None, root: str) -> RemoteUnit:
        segments = partition_segments(partition_dimensions(partition)) if partition else ()
        return RemoteUnit(self.store, "/".join(check_notebook_name(notebook)), segments, root)

    def partitioning(self, notebook: str) -> Partitioning | None:
        """See `StoreBackend.partitioning`."""
        base = self._unit(notebook, None, PARTITIONS)
        text = objects_of(self.store).read(base.partitioning)
        if text is not None:
            return Partitioning.parse(text, base.partitioning)
        plain = _pointed(base)
        parted = self._last_below(base, PARTITIONS)
        if parted is None or (plain and plain[0].published_at > parted.published_at):
            return Partitioning(VERSIONS) if plain else None
        return Partitioning(PARTITIONS, parted.by)

    def _last_below(self, base: RemoteUnit, root: str) -> RemoteVersion | None:
        found = [_pointed(unit)[0] for unit in self._units_below(base, root)]
        return max(found, key=lambda version: version.published_at, default=None)

    def _units_below(self, base: RemoteUnit, root: str) -> Iterator[RemoteUnit]:
        if root == VERSIONS:
            if _pointed(base):
                yield base
            return
        objects = objects_of(self.store)
        folder = f"{base.folder}/{root}/"
        with objects.explained("it cannot be listed"):
            paths = objects.find(folder.rstrip("/"))
        for path in paths:
            if path.endswith(f"/{POINTER}"):
                inside = path[path.index(folder) + len(folder) :]
                yield replace(base, segments=tuple(inside.split("/")[:-1]), root=root)

    def units(self, notebook: str) -> Iterator[RemoteUnit]:
        """See `StoreBackend.units`."""
        found = self.partitioning(notebook)
        if found is not None:
            yield from self._units_below(self._unit(notebook, None, PARTITIONS), found.root)

    def kept_aside(self, notebook: str, by: Mapping[str, str]) -> Iterator[RemoteUnit]:
        """See `StoreBackend.kept_aside`."""
        base = self._unit(notebook, None, PARTITIONS)
        found = self.partitioning(notebook)
        if found is not None and not found.is_like(by):
            yield from self._units_below(base, self._root_of(base, by))

    def unit(self, notebook: str, partition: PartitionKey | None) -> RemoteUnit | None:
        """See `StoreBackend.unit`."""
        found = self.partitioning(notebook)
        if found is None or (found.root == VERSIONS) != (partition is None):
            return None
        unit = self._unit(notebook, partition, found.root)
        return unit if _pointed(unit) else None

    def hold(self, unit: RemoteUnit, choose: str | int | None = None) -> RemoteHeld:
        """See `StoreBackend.hold`."""
        by_id = {version.id: version for version in _pointed(unit)}
        if isinstance(choose, str):
            if choose not in by_id:
                raise OutputNotFoundError(
                    f"{unit} has no version {choose!r} in {unit.store}",
                    hint=f"There are: {', '.join(by_id)}" if by_id else "Nothing is published yet.",
                )
            return RemoteHeld(by_id[choose])
        return RemoteHeld(by_id[choose_version(unit, list(reversed(by_id)), choose or 0)])

    def versions(self, unit: RemoteUnit) -> list[Version]:
        """See `StoreBackend.versions`."""
        return list(_pointed(unit))

    # -- writing -----------------------------------------------------------------------------

    def refuse_foreign(
        self, notebook: str, outputs: Sequence[str], partition: PartitionKey | None
    ) -> None:
        """See `StoreBackend.refuse_foreign`: a plain copy that no version of ours explains."""
        stored = self.partitioning(notebook)
        by = partitioning_of(partition)
        roots = {stored.root if stored is not None else PARTITIONS}
        if stored is not None and not stored.is_like(by):
            # Created by an interrupted change of the partitioning.
            roots.add(self._root_of(self._unit(notebook, None, PARTITIONS), by))
        units = [self._unit(notebook, partition, root) for root in sorted(roots)]
        ours = {name for each in units for version in _pointed(each) for name in version.outputs}
        unit, objects = units[0], objects_of(self.store)
        for output in outputs:
            path = unit.plain(output)
            with objects.explained(f"{path} cannot be read"):
                objects.system.invalidate_cache()
                if output not in ours and objects.system.isfile(path):
                    raise StoreError(
                        f"{unit.link(output)} is in the way: research_jobs did not create it",
                        hint="Move it, or set RESEARCH_JOBS_STORE to keep the store elsewhere.",
                    )

    def publish(self, publication: Publication) -> tuple[PublishedOutput, ...]:
        """See `StoreBackend.publish`; nothing changes before the pointer is replaced."""
        job = publication
        unit = self._unit(job.notebook, job.partition, PARTITIONS)
        objects = objects_of(self.store)
        failpoint("publish.begin")
        with self._turn(unit), objects.explained(f"the outputs of {unit} cannot be published"):
            try:
                return self._publish(objects, job)
            except FileNotFoundError as error:
                self.check()
                raise StoreError(
                    f"the store {self.store}: the outputs of {unit} cannot be published: {error}"
                ) from error

    def _publish(self, objects: Objects, job: Publication) -> tuple[PublishedOutput, ...]:
        by = partitioning_of(job.partition)
        stored = self.partitioning(job.notebook)
        base = self._unit(job.notebook, None, PARTITIONS)
        changed = stored is not None and not stored.is_like(by)
        if stored is None:
            root = PARTITIONS if by else VERSIONS
        else:
            root = self._root_of(base, by) if changed else stored.root
        unit = self._unit(job.notebook, job.partition, root)
        if changed or stored is None or not objects.read(base.partitioning):
            # What counts until the pointer of the new unit exists.
            now = stored if changed and stored is not None else Partitioning(root, by)
            objects.write(base.partitioning, now.dump())
        before = _pointed(unit)
        version = next_version(
            (item.id for item in before), f"{short_id(job.run_id, 8)}-{secrets.token_hex(3)}"
        )
        for item in job.staged:
            objects.upload(item.path, unit.file(version, item.name))
            failpoint("publish.moved_one")
        record = describe_version(
            version, unit.notebook, job.staged, job.partition, job.run_id, job.data_version
        )
        older = [(each.id, sizes_of(each)) for each in before]
        kept = retained(list(record["outputs"]), older, job.keep)
        records = [record, *(each.record for each in before if each.id in kept)]
        pointer = json.dumps({"format": FORMAT, "versions": records}, indent=1)
        objects.write(unit.pointer, pointer.encode())
        failpoint("publish.committed")
        if changed and stored is not None:
            self._switch(objects, base, stored, Partitioning(root, by), job)
        for item in job.staged:
            objects.upload(item.path, unit.plain(item.name))
        self._tidy(objects, unit, before, set(record["outputs"]), kept)
        return tuple(
            PublishedOutput.of(
                item,
                unit.link(item.name),
                f"{self.store.rstrip('/')}{unit.file(version, item.name)[len(objects.root) :]}",
                version,
                rows_of(before[0] if before else None),
            )
            for item in job.staged
        )

    def _root_of(self, base: RemoteUnit, by: Mapping[str, str]) -> str:
        """The hidden folder for a partitioning: its previous one, or a new one."""
        if not by:
            return VERSIONS
        taken: dict[str, Mapping[str, str]] = {}
        for path in objects_of(self.store).find(base.folder):
            inside = path[path.index(base.folder) + len(base.folder) + 1 :].split("/")
            root = inside[0]
            if root.startswith(PARTITIONS) and root not in taken and inside[-1] == POINTER:
                last = _pointed(replace(base, segments=tuple(inside[1:-1]), root=root))
                taken[root] = last[0].by if last else {}
        like = (root for root, made in taken.items() if Partitioning(root, made).is_like(by))
        return next(like, free_root(taken))

    def _switch(
        self,
        objects: Objects,
        base: RemoteUnit,
        old: Partitioning,
        new: Partitioning,
        job: Publication,
    ) -> None:
        """Switch readers to another hidden folder; plain copies follow."""
        units = list(self._units_below(base, old.root))
        for each in units:
            for output in _pointed(each)[0].outputs:
                objects.remove(each.plain(output))
        for each in self._units_below(base, new.root):
            current = _pointed(each)[0]
            for output in current.outputs:
                objects.copy(each.file(current.id, output), each.plain(output))
        objects.write(base.partitioning, new.dump())
        if units:
            what = "1 unit" if len(units) == 1 else f"{len(units)} units"
            job.tell(
                f"{job.notebook} now has {new}. Its outputs with {old} ({what}) are kept in "
                f"{self.store.rstrip('/')}/{base.notebook}/{old.root}, where load() and other "
                "readers do not see them. "
                "Change the manifest back and run again to restore them."
            )

    def _tidy(
        self,
        objects: Objects,
        unit: RemoteUnit,
        before: Sequence[RemoteVersion],
        outputs: set[str],
        kept: Sequence[str],
    ) -> None:
        """Remove the copies of removed outputs, and versions that no ``keep`` covers."""
        for output in set(before[0].outputs) - outputs if before else ():
            objects.remove(unit.plain(output))
        for version in before:
            if version.id not in kept:
                for output in version.outputs:
                    objects.remove(unit.file(version.id, output))

    def reject(self, publication: Publication) -> str:
        """See `StoreBackend.reject`."""
        job = publication
        unit = self._unit(job.notebook, job.partition, PARTITIONS)
        name = "&".join(unit.segments) or "latest"
        objects = objects_of(self.store)
        with objects.explained(f"the rejected outputs of {unit} cannot be set aside"):
            for item in job.staged:
                objects.upload(item.path, f"{unit.folder}/{REJECTED}/{name}/{item.name}{SUFFIX}")
        return "/".join((self.store.rstrip("/"), unit.notebook, REJECTED, name))
