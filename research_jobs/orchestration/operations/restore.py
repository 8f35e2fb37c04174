"""Build a working project from a backup, check it, and say what is not in it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import dagster as dg

from research_jobs.errors import BackupError, ProjectError, ResearchJobsError, first_line
from research_jobs.orchestration.model.catalog import Catalog, Entry, load_catalog
from research_jobs.orchestration.model.instance import enter_project, open_instance
from research_jobs.orchestration.operations.account import read_account
from research_jobs.orchestration.operations.backup import find_instance
from research_jobs.outcome import labelled
from research_jobs.project import Project, find_project
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import current_version
from research_jobs.store.layout import read_segments
from research_jobs.store.records import Version
from research_jobs.upkeep.point import (
    Point,
    place_files,
    place_logs,
    place_store,
    refuse_full_store,
    refuse_instance,
)
from research_jobs.upkeep.proof import Checked, check_store
from research_jobs.upkeep.restic import Repository, Snapshot

__all__ = ["Restored", "compare_with_history", "restore"]

PAGE = 1000
_GOING = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Restored:
    """A project that was restored.

    Parameters
    ----------
    root : str
    snapshot : Snapshot
    point : Point
    checked : Checked or None
        None where the outputs are in a remote store, which no backup contains.
    lost : tuple of str
        Outputs that the history knows and the store does not have.
    unknown : tuple of str
        Outputs of which the history does not know.
    interrupted : tuple of str
        Runs that were going on at that moment; they are failed now.
    since : dict
        Schedule to how many of its ticks were due since, and are not in the backup.
    """

    root: str
    snapshot: Snapshot
    point: Point
    checked: Checked | None = None
    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    since: dict[str, int] = field(default_factory=dict[str, int])


def restore(folder: str | Path, repository: Repository, snapshot: str | None = None) -> Restored:
    """Restore a project into a folder that is empty or does not exist.

    Parameters
    ----------
    folder : path
    repository : Repository
    snapshot : str, optional
        By default the latest.

    Raises
    ------
    ProjectError, StoreError, BackupError
        Nothing is overwritten, and what was restored until then is removed, in the store and in
        Dagster's folders too.
    """
    root = Path(folder).expanduser().resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ProjectError(
            f"{root} is not empty", hint="Nothing is overwritten: name a folder that is."
        )
    chosen = repository.choose(snapshot)
    root.mkdir(parents=True, exist_ok=True)
    source = root / ".restoring"
    placed: list[Path] = []
    try:
        repository.restore(chosen.id, source)
        point = Point.read(source)
        place_files(source, root, placed)
        project = find_project(root)
        refuse_full_store(project)
        enter_project(project)
        _place_settings(source, placed)
        instance = find_instance(project)
        refuse_instance(instance, point)
        place_logs(source, instance, placed)
        place_store(source, project, placed)
        # Last, as a database takes it as a whole: nothing that fails leaves a history behind.
        instance.history.load(source / "history")
    except BaseException:
        for path in (*placed, *root.iterdir()):
            linked = path.is_symlink() or not path.is_dir()
            path.unlink(missing_ok=True) if linked else shutil.rmtree(path, ignore_errors=True)
        raise
    try:
        shutil.rmtree(source)
        return _examined(project, chosen, point)
    except Exception as error:
        raise BackupError(
            f"{root} is restored, but not examined: {first_line(error)}",
            hint=f"Look at it: research-jobs doctor --project {root}",
        ) from error


def _place_settings(source: Path, placed: list[Path]) -> None:
    """Put a ``dagster.yaml`` of its own folder where ``DAGSTER_HOME`` says, unless there is one."""
    home = os.environ.get("DAGSTER_HOME")
    settings = source / "home" / "dagster.yaml"
    if home and settings.is_file():
        target = Path(home).expanduser() / settings.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            placed.append(target)
            shutil.move(settings, target)


def _examined(project: Project, chosen: Snapshot, point: Point) -> Restored:
    """Check the outputs, end the runs that were going on, and look for what is missing."""
    checked = check_store(project.store) if project.store_is_local else None
    catalog = load_catalog(project)
    with open_instance(project) as instance:
        interrupted: list[str] = []
        for run in instance.get_runs(dg.RunsFilter(statuses=_GOING)):
            instance.report_run_failed(run, "The backup was made while this run was going on.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            names = sorted(key.to_user_string() for key in run.asset_selection or ())
            interrupted.append(f"run {run.run_id[:8]} of {', '.join(names) or run.job_name}")
        lost, unknown = compare_with_history(instance, catalog)
        since: dict[str, int] = {}
        for tick in read_account(instance, catalog, point.at, time.time()).ticks:
            since[tick.schedule] = since.get(tick.schedule, 0) + 1
    return Restored(
        str(project.root),
        chosen,
        point,
        checked,
        tuple(lost),
        tuple(unknown),
        tuple(interrupted),
        since,
    )


@dataclass(frozen=True)
class _Made:
    """The last materialisation of a notebook or of one of its partitions."""

    run_id: str
    at: float


def compare_with_history(
    instance: dg.DagsterInstance, catalog: Catalog
) -> tuple[list[str], list[str]]:
    """What the history knows and the store lacks, and the reverse, one line each.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    """
    lost: list[str] = []
    unknown: list[str] = []
    for entry in catalog:
        if not entry.spec.outputs or entry.spec.io_manager is not None:
            continue
        stored = _stored(catalog, entry)
        known = _known(instance, catalog, entry)
        for partition in sorted({*stored, *known}, key=str):
            name = labelled(entry.name, partition)
            version, made = stored.get(partition), known.get(partition)
            if version is not None and made is not None and version.run_id == made.run_id:
                continue
            at = datetime.fromisoformat(version.published_at).timestamp() if version else 0.0
            # The record of a run is written right after its outputs are published.
            if version is None or (made is not None and at < made.at - 1):
                assert made is not None
                lost.append(f"{name}: of run {made.run_id[:8]}, {_moment(made.at)}")
            else:
                unknown.append(f"{name}: of run {version.run_id[:8]}, {_moment(at)}")
    return lost, unknown


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%a %d %b %Y %H:%M:%S}"


def _stored(catalog: Catalog, entry: Entry) -> dict[str | None, Version]:
    backend = backend_of(catalog.project.store)
    found: dict[str | None, Version] = {}
    for unit in backend.units(entry.name):
        with suppress(ResearchJobsError, OSError):  # `check_store` tells of it
            key = read_segments(unit.segments).key if unit.segments else None
            found[key] = current_version(backend, unit)
    return found


def _known(instance: dg.DagsterInstance, catalog: Catalog, entry: Entry) -> dict[str | None, _Made]:
    found: dict[str | None, _Made] = {}
    for partition, made in _materializations(instance, catalog.names.key(entry.name)):
        found.setdefault(partition, made)
        if not entry.partitioned:
            break
    return {
        partition: made
        for partition, made in found.items()
        if (partition is not None) == entry.partitioned
    }


def _materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> Iterator[tuple[str | None, _Made]]:
    """The newest first."""
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
        for record in page.records:
            yield record.partition_key, _Made(record.run_id, record.timestamp)
        if not page.has_more:
            return
        cursor = page.cursor
