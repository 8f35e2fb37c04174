"""A store in a local folder, with links, locks and renames."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from research_jobs.errors import StoreError
from research_jobs.failpoints import failpoint
from research_jobs.protocol import PartitionKey
from research_jobs.store import links, versions
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.files import FolderLock, disk
from research_jobs.store.layout import (
    PARTITIONS,
    SUFFIX,
    VERSIONS,
    Unit,
    notebook_folder,
    refuse_link,
    unit_of,
)
from research_jobs.store.records import (
    Partitioning,
    Version,
    free_root,
    partitioning_of,
    short_id,
)
from research_jobs.store.sharing import Sharing
from research_jobs.store.transaction import publish_unit, write_partitioning
from research_jobs.store.versions import LocalHeld, read_partitioning, roots_of, units_below

__all__ = ["LocalStore"]


class LocalStore:
    """The store in a folder; see `StoreBackend`.

    Parameters
    ----------
    store : str
        The folder.
    """

    def __init__(self, store: str) -> None:
        self.store = store

    def check(self) -> None:
        """Do nothing: staging, which comes next, writes to the folder."""

    def caveat(self) -> None:
        """See `StoreBackend.caveat`."""

    # -- reading -----------------------------------------------------------------------------

    def notebooks(self) -> tuple[str, ...]:
        """See `StoreBackend.notebooks`."""
        root = Path(self.store).resolve()
        return tuple(sorted(_notebooks_below(root, root)))

    def _base(self, notebook: str) -> Unit:
        """The notebook's own unit, which knows its folder."""
        folder = notebook_folder(self.store, notebook)
        root = Path(self.store).resolve()
        return Unit(root, folder.relative_to(root).as_posix())

    def partitioning(self, notebook: str) -> Partitioning | None:
        """See `StoreBackend.partitioning`."""
        return read_partitioning(self._base(notebook))

    def units(self, notebook: str) -> Iterator[Unit]:
        """See `StoreBackend.units`."""
        base = self._base(notebook)
        found = read_partitioning(base)
        if found is not None:
            yield from units_below(base, found.root)

    def kept_aside(self, notebook: str, by: Mapping[str, str]) -> Iterator[Unit]:
        """See `StoreBackend.kept_aside`."""
        base = self._base(notebook)
        found = read_partitioning(base)
        if found is not None and not found.is_like(by):
            yield from units_below(base, self._root_of(base, by))

    def unit(self, notebook: str, partition: PartitionKey | None) -> Unit | None:
        """See `StoreBackend.unit`."""
        found = self.partitioning(notebook)
        if found is None or (found.root == VERSIONS) != (partition is None):
            return None
        unit = unit_of(self.store, notebook, partition, found.root)
        return unit if versions.current_id(unit) is not None else None

    def hold(self, unit: Unit, choose: str | int | None = None) -> LocalHeld:
        """See `StoreBackend.hold`."""
        return versions.hold(unit, choose)

    def versions(self, unit: Unit) -> list[Version]:
        """See `StoreBackend.versions`."""
        return versions.list_versions(unit)

    # -- writing -----------------------------------------------------------------------------

    def refuse_foreign(
        self, notebook: str, outputs: Sequence[str], partition: PartitionKey | None
    ) -> None:
        """See `StoreBackend.refuse_foreign`."""
        links.refuse_foreign(unit_of(self.store, notebook, partition), outputs)

    def publish(self, publication: Publication) -> tuple[PublishedOutput, ...]:
        """See `StoreBackend.publish`."""
        job = publication
        unit = unit_of(self.store, job.notebook, job.partition)
        names = [item.name for item in job.staged]
        failpoint("publish.begin")
        try:
            links.refuse_foreign(unit, names)
            links.refuse_overlap(unit, names)
            disk().make_folders(unit.folder)
            done = self._publish_beside(unit, job)
            if done is None:
                done = self._publish_instead(unit, job)
        except OSError as error:
            raise _cannot(
                f"the outputs of {unit} cannot be published to {self.store}", error
            ) from error
        return done

    def _publish_beside(self, unit: Unit, job: Publication) -> tuple[PublishedOutput, ...] | None:
        """Publish next to what is stored; None if that is partitioned differently."""
        by = partitioning_of(job.partition)
        with FolderLock(unit.folder) as lock:
            lock.shared()  # others publish other partitions at the same time
            stored = read_partitioning(unit)
            if stored is not None and not stored.is_like(by):
                return None
            root = stored.root if stored is not None else PARTITIONS
            if by and not unit.partitioning.exists():
                write_partitioning(unit, Partitioning(root, by), job.group)
            return publish_unit(unit_of(self.store, job.notebook, job.partition, root), job)

    def _publish_instead(self, unit: Unit, job: Publication) -> tuple[PublishedOutput, ...]:
        """Publish in place of outputs that are partitioned differently, which are set aside."""
        by = partitioning_of(job.partition)
        with FolderLock(unit.folder) as lock:
            lock.exclusive()
            stored = read_partitioning(unit)
            if stored is None or stored.is_like(by):  # another process changed it meanwhile
                root = stored.root if stored is not None else PARTITIONS
                return publish_unit(unit_of(self.store, job.notebook, job.partition, root), job)
            write_partitioning(unit, stored, job.group)
            root = self._root_of(unit, by)
            target = unit_of(self.store, job.notebook, job.partition, root)

            def switch() -> None:
                try:
                    links.align_links(unit, root)
                    if job.group is not None:
                        self._share_links(unit, root, Sharing(job.group))
                    failpoint("publish.relinked")
                    write_partitioning(unit, Partitioning(root, by), job.group)
                except BaseException:
                    links.align_links(unit, stored.root)
                    raise
                failpoint("publish.switched")

            done = publish_unit(target, job, switch=switch)
            count = sum(1 for _ in units_below(unit, stored.root))
        if count:
            what = "1 unit" if count == 1 else f"{count} units"
            job.tell(
                f"{job.notebook} now has {Partitioning(root, by)}. Its outputs with {stored} "
                f"({what}) are kept in {unit.folder / stored.root}, where load() and other readers "
                "do not see them. Change the manifest back and run again to restore them."
            )
        return done

    @staticmethod
    def _share_links(unit: Unit, root: str, sharing: Sharing) -> None:
        for each in units_below(unit, root):
            version = versions.current_version(each)
            sharing.share_links(each, version.outputs if version is not None else ())

    def _root_of(self, unit: Unit, by: Mapping[str, str]) -> str:
        """The hidden folder for a partitioning: its previous one, or a new one."""
        if not by:
            return VERSIONS
        roots = roots_of(unit)
        for root in roots:
            made = versions.dimensions_of(unit, root) if root != VERSIONS else None
            if made is not None and Partitioning(root, made).is_like(by):
                return root
        return free_root(roots)

    def reject(self, publication: Publication) -> Path:
        """See `StoreBackend.reject`. Only the latest of a unit is kept."""
        job = publication
        unit = unit_of(self.store, job.notebook, job.partition)
        name = "&".join(unit.segments) or "latest"
        run = short_id(job.run_id, 40)
        target = unit.rejected / (name if len(name.encode()) < 200 else run)
        fresh = unit.rejected / f".new-{run}-{secrets.token_hex(4)}"
        files = disk()
        try:
            refuse_link(unit.rejected, unit.store)
            files.make_folders(unit.rejected)
            with FolderLock(unit.rejected) as lock:
                lock.exclusive()
                files.make_folder(fresh)
                for item in job.staged:
                    files.rename(Path(item.path), fresh / f"{item.name}{SUFFIX}")
                if target.exists():
                    files.remove_tree(target)
                files.rename(fresh, target)
            if job.group is not None:
                Sharing(job.group).share_way(unit.store, target)
                Sharing(job.group).share_tree(target)
        except OSError as error:
            raise _cannot(f"the rejected outputs of {unit} cannot be set aside", error) from error
        return target


def _notebooks_below(folder: Path, root: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    if folder != root and not {VERSIONS, PARTITIONS}.isdisjoint(folders):
        yield folder.relative_to(root).as_posix()
    for name in folders:
        if not name.startswith(".") and "=" not in name:
            yield from _notebooks_below(folder / name, root)


def _cannot(what: str, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    return StoreError(f"{what}: {reason}", hint="What was published before is unchanged.")
