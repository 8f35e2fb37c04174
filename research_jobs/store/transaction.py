"""Publish into a local folder: all of a unit's outputs, or none.

The steps, in order, under an exclusive lock of the unit:

1. the staged files move into a new version's folder, which nothing points at yet;
2. its description is written; files and folders are flushed to the disk;
3. links for new outputs are created (they dangle until step 4);
4. ``current`` is replaced by rename: this is the commit, for every reader and every output;
5. the folders of the renamed and linked names are flushed to the disk;
6. links of removed outputs are removed, versions beyond ``keep`` are pruned.

A failure before 4 undoes 1 to 3; one at 5 restores the old version. If the process dies, the kernel
releases its locks, and the next run that stages or publishes repairs the rest. No pyarrow here.

If the notebook's partitioning has changed, the unit is filled in a new hidden folder (1, 2, 4),
then all links change, and replacing the file that names the hidden folder is the commit. The
previous outputs stay in their own hidden folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from research_jobs.errors import CorruptOutputError, ResearchJobsError
from research_jobs.failpoints import failpoint
from research_jobs.filesystem import temporary_path
from research_jobs.store import links
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.files import FolderLock, disk
from research_jobs.store.layout import SUFFIX, Unit
from research_jobs.store.readers import is_read
from research_jobs.store.records import (
    Partitioning,
    describe_version,
    next_version,
    retained,
    rows_of,
    short_id,
    sizes_of,
)
from research_jobs.store.sharing import Sharing
from research_jobs.store.versions import (
    MANIFEST,
    current_id,
    current_version,
    read_version,
    version_ids,
)

__all__ = [
    "FAILPOINTS",
    "NOTE",
    "SWITCH_FAILPOINTS",
    "publish_unit",
    "remove_version",
    "surplus",
    "write_partitioning",
]

# Points at which a test can kill the process; see docs/outputs.md.
FAILPOINTS = (
    "publish.begin",
    "publish.locked",
    "publish.noted",
    "publish.folder",
    "publish.moved_one",
    "publish.moved",
    "publish.described",
    "publish.synced",
    "publish.prepared",
    "publish.linked_one",
    "publish.linked",
    "publish.committed",
    "publish.durable",
    "publish.unlinked",
    "publish.pruned_one",
    "publish.done",
)
# And during a change of the partitioning.
SWITCH_FAILPOINTS = ("publish.unlinked_others", "publish.relinked", "publish.switched")

NOTE = "publish.json"


@dataclass
class _Progress:
    """The progress of a publish, which a failure must undo."""

    unit: Unit
    version: str
    before: str | None
    made: Sequence[Path] = field(default_factory=tuple[Path, ...])
    committed: bool = False

    @property
    def fresh(self) -> Path:
        """Path: the link that becomes ``current``."""
        return self.unit.versions / f".current-{self.version}"

    @property
    def folder(self) -> Path:
        """Path: the new version's folder."""
        return self.unit.versions / self.version

    def undo(self) -> None:
        """Restore the old version."""
        files, unit = disk(), self.unit
        with contextlib.suppress(OSError):
            if self.committed and self.before is not None:
                files.link(self.fresh, self.before)
                files.rename(self.fresh, unit.current)
            elif self.committed:
                files.remove(unit.current)
        with contextlib.suppress(OSError, ResearchJobsError):
            if current_id(unit) == self.version:
                return  # it cannot be restored: then the new version stays complete
        links.drop_links(unit, self.made)
        with contextlib.suppress(OSError):
            files.remove(self.fresh)
        with contextlib.suppress(OSError):
            files.remove_tree(self.folder)


def publish_unit(
    unit: Unit, job: Publication, *, switch: Callable[[], None] | None = None
) -> tuple[PublishedOutput, ...]:
    """Publish into a unit; the notebook's lock is held.

    Parameters
    ----------
    unit : Unit
    job : Publication
    switch : callable, optional
        Makes the unit's hidden folder the one that readers see.
    """
    disk().make_folders(unit.versions)
    with FolderLock(unit.versions) as lock:
        lock.exclusive()
        failpoint("publish.locked")
        links.repair(unit, links=switch is None)
        before = current_id(unit)
        previous = rows_of(current_version(unit))
        progress = _Progress(unit, next_version(version_ids(unit), short_id(job.run_id, 8)), before)
        names = [item.name for item in job.staged]
        _note(unit, job, progress.version, wait=not links.missing_links(unit, names))
        try:
            _commit(progress, job, names, switch)
        except BaseException:
            progress.undo()
            raise
        # From here on the new outputs count: a failed cleanup waits for the next publish.
        with contextlib.suppress(OSError, ResearchJobsError):
            links.remove_dead_links(unit, dict.fromkeys(names))
            failpoint("publish.unlinked")
            _prune(unit, progress.version, job)
        with contextlib.suppress(OSError):
            disk().remove(job.folder / NOTE)
        failpoint("publish.done")
    return tuple(
        PublishedOutput.of(
            item,
            unit.link(item.name),
            progress.folder / f"{item.name}{SUFFIX}",
            progress.version,
            previous,
        )
        for item in job.staged
    )


def _note(unit: Unit, job: Publication, version: str, *, wait: bool) -> None:
    """Record what is being published, so that a later process can repair it.

    A power cut could leave a dangling link in a dataset that people read, so the next run must
    know of it. An uncommitted version can `wait` for the next publish.
    """
    path = job.folder / NOTE
    note = {
        "notebook": unit.notebook,
        "segments": unit.segments,
        "root": unit.root,
        "version": version,
    }
    disk().write(path, json.dumps(note).encode())
    if not wait:
        disk().sync_file(path)
        disk().sync_folder(path.parent)
        disk().sync_folder(path.parent.parent)
    failpoint("publish.noted")


def _commit(
    progress: _Progress, job: Publication, names: Sequence[str], switch: Callable[[], None] | None
) -> None:
    files, unit = disk(), progress.unit
    _fill_version(progress, job)
    files.link(progress.fresh, progress.version)
    files.sync_folder(unit.versions)
    if switch is None:
        for name in links.missing_links(unit, names):
            # Steps that can fail or take time come before the first link.
            files.make_folders(unit.link(name).parent)
        failpoint("publish.prepared")
        progress.made = links.make_links(unit, names)
        if job.group is not None:
            Sharing(job.group).share_links(unit, names)
        failpoint("publish.linked")
    files.rename(progress.fresh, unit.current)
    progress.committed = True
    failpoint("publish.committed")
    files.sync_folder(unit.versions)
    for link in progress.made:
        files.sync_folder(link.parent)
    failpoint("publish.durable")
    if switch is not None:
        switch()


def _fill_version(progress: _Progress, job: Publication) -> None:
    files, folder = disk(), progress.folder
    files.make_folder(folder)
    failpoint("publish.folder")
    for item in job.staged:
        files.rename(Path(item.path), folder / f"{item.name}{SUFFIX}")  # its content is on the disk
        failpoint("publish.moved_one")
    failpoint("publish.moved")
    record = describe_version(
        progress.version,
        progress.unit.notebook,
        job.staged,
        job.partition,
        job.run_id,
        job.data_version,
        job.origin,
    )
    files.write(folder / MANIFEST, json.dumps(record, indent=1).encode())
    files.sync_file(folder / MANIFEST)
    if job.group is not None:
        Sharing(job.group).share_version(progress.unit, folder)
    failpoint("publish.described")
    files.sync_folder(folder)
    failpoint("publish.synced")


def surplus(
    unit: Unit, current: str, newest: Collection[str], keep: Mapping[str, int | None]
) -> list[str]:
    """The versions of a unit that no ``keep`` covers and no record names, newest first.

    Parameters
    ----------
    unit : Unit
    current : str
        The current version, which is never among them.
    newest : collection of str
        Its outputs.
    keep : mapping of str to int or None
        As of `retained`.
    """
    older: list[tuple[str, Mapping[str, int]]] = []
    for name in reversed(version_ids(unit)):
        if name != current:
            try:
                older.append((name, sizes_of(read_version(unit, name))))
            except (OSError, CorruptOutputError):
                older.append((name, {}))
    kept = retained(newest, older, keep)
    return [name for name, _ in older if name not in kept and not is_read(unit.versions / name)]


def _prune(unit: Unit, current: str, job: Publication) -> None:
    """Remove versions that no output's ``keep`` covers and no reader holds."""
    for name in surplus(unit, current, [item.name for item in job.staged], job.keep):
        remove_version(unit.versions / name)
        failpoint("publish.pruned_one")


def remove_version(folder: Path) -> bool:
    """Remove a version unless a reader holds it: then the next publish tries again."""
    with contextlib.suppress(OSError), FolderLock(folder) as lock:
        if lock.exclusive(wait=False):
            disk().remove_tree(folder)
            return True
    return False


def write_partitioning(unit: Unit, partitioning: Partitioning, group: str | None = None) -> None:
    """Make a hidden folder of a notebook the one that readers follow, a group included."""
    fresh = temporary_path(unit.partitioning)
    try:
        disk().write(fresh, partitioning.dump())
        disk().sync_file(fresh)
        if group is not None:
            Sharing(group).share(fresh)
        disk().rename(fresh, unit.partitioning)
    except BaseException:
        with contextlib.suppress(OSError):
            disk().remove(fresh)
        raise
    disk().sync_folder(unit.folder)
