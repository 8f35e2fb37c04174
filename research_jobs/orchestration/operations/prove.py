"""Prove that a backup can be restored: do so beside the project, load all of it, run some again."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from research_jobs.errors import BackupError, PartitionError
from research_jobs.orchestration.compat.assets import DATA_VERSION_TAG
from research_jobs.orchestration.model.catalog import Catalog, Entry, load_catalog
from research_jobs.orchestration.model.instance import open_instance
from research_jobs.orchestration.model.partitions import segments_of
from research_jobs.orchestration.operations.backup import find_instance, noted
from research_jobs.orchestration.operations.trial import open_trial
from research_jobs.outcome import labelled
from research_jobs.project import Project
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import current_version
from research_jobs.store.layout import read_segments
from research_jobs.store.records import Version
from research_jobs.upkeep.point import Point, place_files, place_store, point_folder
from research_jobs.upkeep.proof import BackupBook, Checked, check_store
from research_jobs.upkeep.restic import Repository, Snapshot

__all__ = ["Proven", "prove"]

RUNS_LOOKED_AT = 20


@dataclass(frozen=True)
class Proven:
    """What a proof has found.

    Parameters
    ----------
    snapshot : Snapshot
    point : Point
    checked : Checked or None
    same : tuple of str
        Notebooks that ran again and made the same outputs.
    differing : tuple of str
        Those that did not, one line each, although the manifest says that they are deterministic.
    changed : tuple of str
        Those that did not, although their last two runs had made the same.
    """

    snapshot: Snapshot
    point: Point
    checked: Checked | None
    same: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[str, ...]:
        """Tuple of str: why it proves nothing."""
        store = Path(self.point.store)
        lost = (path for path in self.point.left_out if Path(path).is_relative_to(store))
        return (
            *(self.checked.damaged if self.checked is not None else ()),
            *(f"{path} could not be read when the backup was made" for path in lost),
            *self.differing,
        )


def prove(project: Project, repository: Repository) -> Proven:
    """Restore a project's latest snapshot into a temporary folder, and look whether it is whole.

    Parameters
    ----------
    project : Project
        The process must have entered it (`enter_project`).
    repository : Repository

    Raises
    ------
    BackupError
        When the repository or the history in it is damaged.
    """
    proven: Proven | None = None
    with suppress(_NotWholeError), noted(project, "proof"):
        proven = _prove(project, repository)
        if proven.wrong:
            raise _NotWholeError(f"the last backup is not whole: {proven.wrong[0]}")
        at = proven.point.at
        BackupBook.change(project, lambda book: replace(book, proven=at))
    assert proven is not None
    return proven


class _NotWholeError(BackupError):
    """A backup was restored, and something of it is damaged."""


def _prove(project: Project, repository: Repository) -> Proven:
    known = BackupBook.read(project).repositories.get(repository.place)
    if known is not None:
        repository.expect(known)
    repository.check()
    path = str((point_folder(project) / "point").resolve())
    chosen = repository.choose(of=(socket.gethostname(), path))
    with tempfile.TemporaryDirectory(dir=project.make_state_folder("proof")) as name:
        folder = Path(name).resolve()
        source = folder / "source"
        repository.restore(chosen.id, source)
        point = Point.read(source)
        root = folder / "project"
        store = str(root / "data") if project.store_is_local else project.store
        copy = Project(root, store)
        root.mkdir()
        place_files(source, root, [])
        if Path(store).is_symlink():
            Path(store).unlink()  # it leads to the project's own
        place_store(source, copy, [])
        find_instance(project).history.prove(source / "history")
        if not project.store_is_local:
            return Proven(chosen, point, None)
        checked = check_store(store, load=True)
        if checked.damaged:
            return Proven(chosen, point, checked)
        return _run_again(project, copy, Proven(chosen, point, checked))


def _run_again(project: Project, copy: Project, proven: Proven) -> Proven:
    """Run deterministic notebooks in the copy, and compare what they make with what it has."""
    catalog = load_catalog(copy)
    same: list[str] = []
    differing: list[str] = []
    changed: list[str] = []
    with open_instance(project) as instance:
        for entry in catalog:
            found = _newest(catalog, entry) if _can_run(entry) else None
            if found is None:
                continue
            made = _made(instance, catalog, entry, *found)
            if made is None:
                continue
            name = labelled(entry.name, found[0])
            said = _difference(catalog, entry, *found, made)
            if said is None:
                same.append(name)
            elif said:
                (differing if entry.spec.deterministic else changed).append(f"{name}: {said}")
    return replace(proven, same=tuple(same), differing=tuple(differing), changed=tuple(changed))


def _can_run(entry: Entry) -> bool:
    spec = entry.spec
    stored = bool(spec.outputs) and spec.io_manager is None
    return entry.error is None and stored and spec.deterministic is not False


def _newest(catalog: Catalog, entry: Entry) -> tuple[str | None, Version] | None:
    """The version of a notebook that was published last, and its partition."""
    found = max(_versions(catalog, entry.name), key=lambda it: it[1].published_at, default=None)
    if found is None or not found[1].data_version:
        return None
    # What it read is no longer what it would read.
    for upstream in entry.upstream:
        for _, version in _versions(catalog, upstream):
            if version.published_at > found[1].published_at:
                return None
    return found if not entry.reads_itself and _is_of(entry, found[0]) else None


def _is_of(entry: Entry, partition: str | None) -> bool:
    """Whether a partition is one of the notebook's, as the manifest has them now."""
    try:
        segments_of(entry.spec, partition)
    except PartitionError:
        return False
    return entry.partitioned == (partition is not None)


def _versions(catalog: Catalog, notebook: str) -> Iterator[tuple[str | None, Version]]:
    backend = backend_of(catalog.project.store)
    for unit in backend.units(notebook):
        key = read_segments(unit.segments).key if unit.segments else None
        yield key, current_version(backend, unit)


def _made(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    entry: Entry,
    partition: str | None,
    version: Version,
) -> dg.AssetMaterialization | None:
    """The record of a version, if a run of the backup's code should make the same.

    It was made by that code; and the manifest says that this is enough, or the run before it did
    make the same.
    """
    wanted = dg.AssetRecordsFilter(
        asset_key=catalog.names.key(entry.name),
        asset_partitions=[partition] if partition is not None else None,
    )
    records = instance.fetch_materializations(wanted, limit=RUNS_LOOKED_AT).records
    made = {one.run_id: one.asset_materialization for one in records if one.asset_materialization}
    runs = list(made)
    if version.run_id not in made:
        return None
    last = made[version.run_id]
    if _facts(last)[1] != entry.notebook.code_version:
        return None
    before = runs[runs.index(version.run_id) + 1 :][:1]
    if entry.spec.deterministic or any(_facts(made[run]) == _facts(last) for run in before):
        return last
    return None


def _facts(made: dg.AssetMaterialization) -> tuple[object, ...]:
    """What it made, of which code, with which parameters."""
    said = (made.metadata.get(name) for name in ("code_version", "parameters"))
    return (
        (made.tags or {}).get(DATA_VERSION_TAG),
        *(entry.value if entry is not None else None for entry in said),
    )


def _difference(
    catalog: Catalog,
    entry: Entry,
    partition: str | None,
    version: Version,
    made: dg.AssetMaterialization,
) -> str | None:
    """Run a notebook in the copy: how its outputs differ from a version's; None if they do not.

    An empty text says that the version was made with other parameters.
    """
    with open_trial(catalog) as trial:
        tried = trial.run(trial.catalog.entries[entry.name], partition)
    outcome = tried.outcome
    if tried.data_version is None:
        return f"it {outcome.state.words} when it ran again: {outcome.reason or ''}".rstrip(": ")
    if dict(outcome.parameters) != (_facts(made)[2] or {}):
        return ""
    if tried.data_version != version.data_version:
        return f"it made other outputs than run {version.run_id[:8]}"
    return None
