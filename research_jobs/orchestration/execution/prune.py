"""What the nightly job removes: everything that runs leave behind and nobody reads any more.

Each part stands alone: what one cannot do does not stop the others. All of it may be interrupted at
any point and done again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import dagster as dg

from research_jobs.environments.making import prune_environments
from research_jobs.errors import PruneError, ResearchJobsError, first_line, innermost_line
from research_jobs.filesystem import folder_bytes, write_atomically
from research_jobs.orchestration.compat.pruning import can_prune, forgotten_files
from research_jobs.orchestration.compat.vacuum import vacuum
from research_jobs.orchestration.execution.gallery import exchange_reports, mirror_of
from research_jobs.orchestration.execution.leftovers import prune_state
from research_jobs.orchestration.execution.prune_history import plan_history, prune_history
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.report.gallery import prune_reports
from research_jobs.store.presence import refuse_unmounted
from research_jobs.store.pruning import prune_objects, prune_versions
from research_jobs.upkeep.turns import turn

__all__ = ["Pruned", "prune"]

DAY_S = 86_400.0


@dataclass(frozen=True)
class Pruned:
    """What one part removes.

    Parameters
    ----------
    kind : str
    count : int
    bytes : int
    kept : mapping of str to int
        Why others stay, and how many each.
    note : str
        What was left for another time, and why.
    error : str or None
        Why the part could not be done.
    """

    kind: str
    count: int = 0
    bytes: int = 0
    kept: Mapping[str, int] = field(default_factory=dict[str, int])
    note: str = ""
    error: str | None = None


@dataclass(frozen=True)
class _Site:
    instance: dg.DagsterInstance
    catalog: Catalog
    location: str
    now: float
    dry_run: bool


def prune(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    *,
    location: str,
    dry_run: bool = False,
    now: float | None = None,
    say: Callable[[Pruned], None] = lambda _: None,
) -> list[Pruned]:
    """Remove what the manifest's ``retention`` does not keep.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    location : str
        The name of the project's code location.
    dry_run : bool
        Only say what would go.
    now : float, optional
        Unix time, seconds.
    say : callable
        Called with each part as it is done.

    Returns
    -------
    list of Pruned

    Raises
    ------
    PruneError
        While the manifest has a mistake that may be in what it keeps, and while another process
        prunes.
    StoreError
        While the disk of the store is not mounted.
    """
    wrong = [problem for problem in catalog.manifest.problems if problem.scope == "manifest"]
    if wrong or catalog.manifest.unreadable is not None:
        problem = wrong[0] if wrong else catalog.manifest.unreadable
        assert problem is not None
        raise PruneError(
            f"nothing is pruned while the manifest has a mistake: {problem.error.headline}"
        )
    # Runs whose outputs cannot be seen would go as if nothing of them were kept.
    refuse_unmounted(catalog.project)
    site = _Site(instance, catalog, location, time.time() if now is None else now, dry_run)
    done: list[Pruned] = []
    with turn(catalog.project, "prune", wait=False) as alone:
        if not alone:
            raise PruneError("another process prunes this project", hint="Wait until it is done.")
        exchange_reports(catalog)  # a run whose report is kept on another machine stays
        for name, part in _PARTS.items():
            try:
                found = list(part(site))
            except Exception as error:  # noqa: BLE001 - the other parts go on
                found = [Pruned(name, error=innermost_line(error))]
            for one in found:
                say(one)
            done += found
    if not dry_run:
        _write_down(catalog, site.now, done)
    return done


def _write_down(catalog: Catalog, now: float, done: Iterable[Pruned]) -> None:
    """Keep what was done last, for whoever asks when that was."""
    text = json.dumps({"at": now, "parts": [asdict(one) for one in done]})
    path = catalog.project.make_state_folder() / "prune.json"
    write_atomically(path, text.encode(), private=True)


def _history(site: _Site) -> Iterator[Pruned]:
    if not can_prune(site.instance):
        yield Pruned("runs", note="this storage of Dagster's history cannot be pruned")
        return
    plan = plan_history(site.instance, site.catalog, site.now, location=site.location)
    if not site.dry_run:
        prune_history(site.instance, plan, partial(turn, site.catalog.project, "history"))
    yield Pruned("runs", len(plan.removed), plan.removed_bytes, plan.kept)
    yield Pruned("logs of runs", len(plan.thinned), plan.thinned_bytes)


def _forgotten(site: _Site) -> Iterator[Pruned]:
    """What is left of runs that were deleted in Dagster's UI, or while a process was killed."""
    if not can_prune(site.instance):
        return
    found = forgotten_files(site.instance, site.now - DAY_S)
    yield Pruned("files of deleted runs", *_remove(((path, _bytes(path)) for path in found), site))


def _bytes(path: Path) -> int:
    return folder_bytes(path) if path.is_dir() else path.stat().st_size


def _remove(paths: Iterable[tuple[Path, int]], site: _Site) -> tuple[int, int]:
    count = total = 0
    for path, size in paths:
        count, total = count + 1, total + size
        if site.dry_run:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return count, total


def _reports(site: _Site) -> Iterator[Pruned]:
    spec = site.catalog.manifest
    found = prune_reports(
        site.catalog.project.reports,
        keep=spec.reports.keep,
        before=site.now - spec.retention.reports,
        abandoned=site.now - DAY_S,
        dry_run=site.dry_run,
    )
    yield Pruned("reports", len(found), sum(size for _, size in found))
    mirror = mirror_of(site.catalog, site.now)
    if mirror is not None:
        shared = list(mirror.prune(dry_run=site.dry_run))
        yield Pruned("reports of all machines", len(shared), sum(shared))


def _versions(site: _Site) -> Iterator[Pruned]:
    if not site.catalog.project.store_is_local:
        return
    sizes: list[int] = []
    wrong: list[str] = []
    for entry in site.catalog:
        if entry.error is None and entry.spec.outputs and entry.spec.io_manager is None:
            keep = {name: one.keep for name, one in entry.spec.outputs.items()}
            store = site.catalog.project.store
            try:
                sizes += prune_versions(store, entry.name, keep, dry_run=site.dry_run)
            except (OSError, ResearchJobsError) as error:  # those of the others go
                wrong.append(f"{entry.name}: {first_line(error)}")
    yield Pruned("versions", len(sizes), sum(sizes), error="; ".join(wrong) or None)


def _objects(site: _Site) -> Iterator[Pruned]:
    store = site.catalog.project.store
    if site.catalog.project.store_is_local:
        return
    wrong: list[str] = []
    found = prune_objects(store, site.now - DAY_S, dry_run=site.dry_run, unreadable=wrong.append)
    sizes = list(found)
    note = "; ".join(wrong)
    yield Pruned("objects of no version", len(sizes), sum(sizes), error=note or None)


def _state(site: _Site) -> Iterator[Pruned]:
    found = prune_state(site.catalog.project, site.instance, site.now, dry_run=site.dry_run)
    yield Pruned(".research_jobs", len(found), sum(size for _, size in found))


def _environments(site: _Site) -> Iterator[Pruned]:
    asked = [entry.environment for entry in site.catalog if entry.environment is not None]
    found = prune_environments(site.catalog.project, asked, site.now, dry_run=site.dry_run)
    yield Pruned("environments", len(found), sum(size for _, size in found))


def _vacuum(site: _Site) -> Iterator[Pruned]:
    found = list(vacuum(site.instance, dry_run=site.dry_run))
    left = "; ".join(f"{name}: {why}" for name, _, why in found if why)
    freed = [size for _, size, _ in found if size]
    yield Pruned("free space of the database", len(freed), sum(freed), note=left)


_PARTS: Mapping[str, Callable[[_Site], Iterator[Pruned]]] = {
    "runs": _history,
    "files of deleted runs": _forgotten,
    "reports": _reports,
    "versions": _versions,
    "objects of no version": _objects,
    ".research_jobs": _state,
    "environments": _environments,
    "free space of the database": _vacuum,
}
