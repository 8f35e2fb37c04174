"""A store behind a URL (``s3://bucket/data``): complete objects and one pointer.

::

    <notebook>/.versions/<id>/<output>.pq       the files of a version
    <notebook>/.versions/current.json           the pointer, whose replacement is the commit
    <notebook>/.partitioning.json               which hidden folder readers follow
    <notebook>/<output>.parquet                 a copy for other tools, put after the commit

Object stores have no links and no locks. `load` follows the pointer and sees all of a version or
none of it. `remote_publish` says how several machines publish at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from research_jobs.errors import OutputNotFoundError, StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.backends.remote_publish import publish
from research_jobs.store.backends.remote_units import (
    POINTER,
    RemoteHeld,
    RemoteUnit,
    RemoteVersion,
    pointed,
)
from research_jobs.store.layout import (
    PARTITIONING,
    PARTITIONS,
    REJECTED,
    SUFFIX,
    VERSIONS,
    check_notebook_name,
    folders_of,
)
from research_jobs.store.objects import in_parallel, objects_of
from research_jobs.store.records import (
    Partitioning,
    Version,
    choose_version,
    free_root,
    partitioning_of,
)

__all__ = ["RemoteStore"]


class RemoteStore:
    """The store behind a URL; see `StoreBackend`.

    Parameters
    ----------
    store : str
        The URL.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._warned = False

    def check(self) -> None:
        """See `StoreBackend.check`: the package, the credentials, the bucket, the conditions."""
        self._reach()
        _ = objects_of(self.store).conditional

    def _reach(self) -> None:
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

    def caveat(self) -> str | None:
        """See `StoreBackend.caveat`."""
        if objects_of(self.store).conditional:
            return None
        return (
            f"{self.store} cannot replace an object on a condition: of two runs that publish the "
            "same outputs at the same moment, one may be missing from the history"
        )

    def warn(self, job: Publication) -> None:
        """Tell the first run of this process about the caveat."""
        caveat = None if self._warned else self.caveat()
        self._warned = True
        if caveat is not None:
            job.tell(caveat)

    # -- reading -----------------------------------------------------------------------------

    def notebooks(self) -> tuple[str, ...]:
        """See `StoreBackend.notebooks`."""
        self._reach()
        objects = objects_of(self.store)
        names: set[str] = set()
        with objects.explained("it cannot be listed"):
            for path in objects.find(objects.root):
                parts = objects.inside(path)
                hidden = [n for n, part in enumerate(parts) if part.startswith(".")]
                if parts[-1] == POINTER and hidden:
                    names.add("/".join(parts[: hidden[0]]))
        return tuple(sorted(names))

    def unit_at(self, notebook: str, partition: PartitionKey | None, root: str) -> RemoteUnit:
        """The unit of a notebook or partition in a hidden folder."""
        segments = folders_of(partition)
        return RemoteUnit(self.store, "/".join(check_notebook_name(notebook)), segments, root)

    def partitioning(self, notebook: str) -> Partitioning | None:
        """See `StoreBackend.partitioning`."""
        base = self.unit_at(notebook, None, PARTITIONS)
        text = objects_of(self.store).read(base.partitioning)
        if text is not None:
            return Partitioning.parse(text, base.partitioning)
        plain = pointed(base)
        parted = self._last_below(base, PARTITIONS)
        if parted is None or (plain and plain[0].published_at > parted.published_at):
            return Partitioning(VERSIONS) if plain else None
        return Partitioning(PARTITIONS, parted.by)

    def _last_below(self, base: RemoteUnit, root: str) -> RemoteVersion | None:
        found = [versions[0] for versions in in_parallel(pointed, self.units_below(base, root))]
        return max(found, key=lambda version: version.published_at, default=None)

    def units_below(self, base: RemoteUnit, root: str) -> Iterator[RemoteUnit]:
        """The units of a notebook that have a pointer in a hidden folder."""
        if root == VERSIONS:
            if pointed(base):
                yield base
            return
        objects = objects_of(self.store)
        folder = f"{base.folder}/{root}"
        with objects.explained("it cannot be listed"):
            paths = objects.find(folder)
        for path in paths:
            if path.endswith(f"/{POINTER}"):
                segments = tuple(objects.inside(path, folder)[:-1])
                yield replace(base, segments=segments, root=root)

    def units(self, notebook: str) -> Iterator[RemoteUnit]:
        """See `StoreBackend.units`."""
        found = self.partitioning(notebook)
        if found is not None:
            yield from self.units_below(self.unit_at(notebook, None, PARTITIONS), found.root)

    def kept_aside(self, notebook: str, by: Mapping[str, str]) -> Iterator[RemoteUnit]:
        """See `StoreBackend.kept_aside`."""
        base = self.unit_at(notebook, None, PARTITIONS)
        found = self.partitioning(notebook)
        if found is not None and not found.is_like(by):
            yield from self.units_below(base, self.root_of(base, by, found))

    def unit(self, notebook: str, partition: PartitionKey | None) -> RemoteUnit | None:
        """See `StoreBackend.unit`."""
        found = self.partitioning(notebook)
        if found is None or (found.root == VERSIONS) != (partition is None):
            return None
        unit = self.unit_at(notebook, partition, found.root)
        return unit if pointed(unit) else None

    def hold(self, unit: RemoteUnit, choose: str | int | None = None) -> RemoteHeld:
        """See `StoreBackend.hold`."""
        by_id = {version.id: version for version in pointed(unit)}
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
        return list(pointed(unit))

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
            roots.add(self.root_of(self.unit_at(notebook, None, PARTITIONS), by, stored))
        units = [self.unit_at(notebook, partition, root) for root in sorted(roots)]
        ours = {name for each in units for version in pointed(each) for name in version.outputs}
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
        unit = self.unit_at(publication.notebook, publication.partition, PARTITIONS)
        objects = objects_of(self.store)
        with objects.explained(f"the outputs of {unit} cannot be published"):
            try:
                self.warn(publication)
                return publish(self, publication)
            except FileNotFoundError as error:
                self.check()
                raise StoreError(
                    f"the store {self.store}: the outputs of {unit} cannot be published: {error}"
                ) from error

    def root_of(self, base: RemoteUnit, by: Mapping[str, str], stored: Partitioning | None) -> str:
        """The hidden folder for a partitioning: its previous one, or a new one.

        Parameters
        ----------
        base : RemoteUnit
            The notebook's own unit.
        by : mapping of str to str
        stored : Partitioning or None
            What readers follow.
        """
        if not by:
            return VERSIONS
        taken: dict[str, Mapping[str, str]] = {}
        if stored is not None and stored.root != VERSIONS:
            taken[stored.root] = stored.by
        objects = objects_of(self.store)
        for path in objects.find(base.folder):
            inside = objects.inside(path, base.folder)
            root = inside[0]
            if not root.startswith(PARTITIONS) or root in taken or len(inside) < 2:
                continue
            if inside[1:] == [PARTITIONING]:
                claim = objects.read(path)
                taken[root] = Partitioning.parse(claim, path).by if claim is not None else {}
            elif inside[-1] == POINTER:
                last = pointed(replace(base, segments=tuple(inside[1:-1]), root=root))
                taken[root] = last[0].by if last else {}
        like = (root for root, made in taken.items() if Partitioning(root, made).is_like(by))
        return next(like, free_root(taken))

    def reject(self, publication: Publication) -> str:
        """See `StoreBackend.reject`."""
        job = publication
        unit = self.unit_at(job.notebook, job.partition, PARTITIONS)
        name = "&".join(unit.segments) or "latest"
        objects = objects_of(self.store)
        with objects.explained(f"the rejected outputs of {unit} cannot be set aside"):
            for item in job.staged:
                objects.upload(item.path, f"{unit.folder}/{REJECTED}/{name}/{item.name}{SUFFIX}")
        return "/".join((self.store.rstrip("/"), unit.notebook, REJECTED, name))
