"""Runs that go from Dagster's history: the facts for `research_jobs.decisions.retention`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import dagster as dg

from research_jobs.decisions.retention import (
    AssetEvent,
    Fate,
    HistoryRun,
    Kind,
    Rules,
    Verdict,
    decide,
    latest,
)
from research_jobs.errors import ResearchJobsError
from research_jobs.filesystem import folder_bytes
from research_jobs.orchestration.compat import pruning
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.report.layout import RUNS
from research_jobs.store.backends import backend_of

__all__ = ["LOCATION_TAG", "HistoryPlan", "plan_history", "prune_history"]

THINNED_TAG = "research_jobs/log_removed"
LOCATION_TAG, BACKFILL_TAG, ROOT_TAG = (
    "dagster/code_location",
    "dagster/backfill",
    "dagster/root_run_id",
)
_DONE = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
_KINDS = {
    pruning.MADE: Kind.MADE,
    pruning.OBSERVED: Kind.OBSERVED,
    pruning.PLANNED: Kind.PLANNED,
}
_PAGE = 1000


@dataclass(frozen=True)
class HistoryPlan:
    """What goes from a history.

    Parameters
    ----------
    removed, thinned : tuple of str
        Runs.
    removed_bytes, thinned_bytes : int
    kept : mapping of str to int
        Why runs stay whole, or were thinned before, and how many each.
    """

    removed: tuple[str, ...]
    thinned: tuple[str, ...]
    removed_bytes: int
    thinned_bytes: int
    kept: dict[str, int]


def plan_history(
    instance: dg.DagsterInstance, catalog: Catalog, now: float, *, location: str
) -> HistoryPlan:
    """Decide what goes.

    Parameters
    ----------
    instance : DagsterInstance
        One that `can_prune`.
    catalog : Catalog
    now : float
        Unix time, seconds.
    location : str
        The code location whose runs are meant: others may share the instance.
    """
    spec = catalog.manifest.retention
    rules = Rules(spec.runs, spec.keep, spec.most)
    events = list(_events(instance))
    runs = list(_runs(instance, events, location, catalog.names.prefix))
    events = _with_inputs(instance, events)
    prefixes = _reported(catalog)
    pinned = {run.id for run in runs if run.id[:8] in prefixes}
    verdicts = decide(runs, events, rules, now, pinned=pinned)
    # Versions are asked for only of what has runs that would go: behind a URL each is a request.
    going: dict[str, set[str]] = {}
    for run in (run for run in runs if verdicts.get(run.id) == Verdict(Fate.REMOVED)):
        for name in run.of:
            going.setdefault(name, set()).add(run.id)
    pinned |= _versions(catalog, going)
    verdicts = decide(runs, events, rules, now, pinned=pinned)
    before = {run.id for run in runs if run.thinned}
    removed = tuple(run_id for run_id, one in verdicts.items() if one.fate is Fate.REMOVED)
    thinned = tuple(
        run_id
        for run_id, one in verdicts.items()
        if one.fate is Fate.THINNED and run_id not in before
    )
    return HistoryPlan(
        removed,
        thinned,
        pruning.run_bytes(instance, removed) + _compute_logs(instance, removed),
        pruning.log_bytes(instance, thinned) + _compute_logs(instance, thinned),
        dict(Counter(_why(one) for one in verdicts.values() if one.fate is not Fate.REMOVED)),
    )


def prune_history(
    instance: dg.DagsterInstance,
    plan: HistoryPlan,
    turn: Callable[[], AbstractContextManager[object]],
) -> None:
    """Do what a plan says, one run after another.

    Parameters
    ----------
    instance : DagsterInstance
    plan : HistoryPlan
    turn : callable
        Gives a context in which no backup looks at the history.
    """
    for run_id in plan.removed:
        with turn():
            pruning.remove_run(instance, run_id)
    for run_id in plan.thinned:
        with turn():
            if pruning.thin_run(instance, run_id):
                instance.add_run_tags(run_id, {THINNED_TAG: _tag(run_id)})


def _tag(run_id: str) -> str:
    """What the tag of a thinned run says. A run that repeats it inherits the tag."""
    return f"{run_id[:8]}-{datetime.now(UTC):%Y-%m-%d}"


def _why(verdict: Verdict) -> str:
    return verdict.why if verdict.fate is Fate.KEPT else f"{verdict.why} (without its log)"


def _runs(
    instance: dg.DagsterInstance,
    events: Sequence[AssetEvent],
    location: str,
    prefix: str | None,
) -> Iterator[HistoryRun]:
    of: dict[str, set[str]] = {}
    for event in events:
        of.setdefault(event.run, set()).add(event.asset)
    going_on: dict[str, bool] = {}
    cursor: str | None = None
    while records := instance.get_run_records(limit=_PAGE, cursor=cursor):
        for record in records:
            run = record.dagster_run
            assets = {key.to_user_string() for key in run.asset_selection or ()}
            assets |= of.get(run.run_id, set())
            backfill = run.tags.get(BACKFILL_TAG)
            if backfill is not None and backfill not in going_on:
                found = instance.get_backfill(backfill)
                going_on[backfill] = found is not None and found.status.value not in _DONE
            ended = record.end_time or record.update_timestamp.timestamp()
            yield HistoryRun(
                run.run_id,
                ended if run.is_finished else record.create_timestamp.timestamp(),
                tuple(sorted(assets)) or (f"job {run.job_name}",),
                over=run.is_finished,
                failed=run.is_failure,
                root=run.tags.get(ROOT_TAG),
                ours=run.tags.get(LOCATION_TAG, location) == location
                and all(_prefixed(name, prefix) for name in assets),
                going_on=backfill is not None and going_on[backfill],
                thinned=run.tags.get(THINNED_TAG, "").startswith(run.run_id[:8]),
            )
        cursor = records[-1].dagster_run.run_id


def _prefixed(asset: str, prefix: str | None) -> bool:
    """Whether an asset is of a project with this prefix: several may share a location's name."""
    return prefix is None or asset.startswith(f"{prefix}/")


def _events(instance: dg.DagsterInstance) -> Iterator[AssetEvent]:
    for row in pruning.asset_events(instance):
        yield AssetEvent(row.number, row.run, row.asset, row.partition, _KINDS[row.kind])
    for check in pruning.check_rows(instance):
        yield AssetEvent(
            check.number, check.run, check.asset, check.partition, Kind.CHECKED, check.name
        )


def _with_inputs(instance: dg.DagsterInstance, events: Sequence[AssetEvent]) -> list[AssetEvent]:
    """The events, of which the last materialisations say what they were made of."""
    last = [event.number for event in latest(events).values() if event.kind is Kind.MADE]
    inputs = dict(pruning.asset_inputs(instance, last))
    return [
        replace(event, inputs=inputs[event.number])
        if event.kind is Kind.MADE and event.number in inputs
        else event
        for event in events
    ]


def _reported(catalog: Catalog) -> set[str]:
    """How the ids of the runs begin whose reports are kept: a folder is ``<time>-<run>-<hash>``."""
    folders = catalog.project.reports.rglob(f"{RUNS}/*")
    return {name[1] for path in folders if len(name := path.name.split("-")) > 2}


def _versions(catalog: Catalog, going: Mapping[str, set[str]]) -> set[str]:
    """Of the runs that would go, by asset, those of kept versions: all where one is unreadable."""
    found: set[str] = set()
    backend = backend_of(catalog.project.store)
    for entry in catalog:
        ours = entry.spec.io_manager is None and entry.spec.outputs
        theirs = going.get(catalog.names.key(entry.name).to_user_string())
        if ours and theirs:
            try:
                for unit in backend.units(entry.name):
                    found.update(version.run_id for version in backend.versions(unit))
            except ResearchJobsError:
                found |= theirs
    return found


def _compute_logs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> int:
    return sum(folder_bytes(path) for path in pruning.log_folders(instance, run_ids))
