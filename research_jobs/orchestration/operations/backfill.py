"""Backfills without a daemon: many partitions of a few notebooks, in a few runs of this process.

One Dagster run for each level of dependencies. Its tags say the range from the first partition to
the last, as Dagster wants them; its config says which of the range are meant, so that a range
with gaps is one run too. Every partition is published and recorded as it finishes: whatever ends
the process, the same call with ``only="missing"`` goes on where it was.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from research_jobs.orchestration.compat.assets import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    EXTERNALLY_MANAGED_ASSETS_TAG,
    PARTITION_NAME_TAG,
    execute_run,
    report_planned,
)
from research_jobs.orchestration.compat.errors import error_info
from research_jobs.orchestration.compat.outages import ride_out_outages
from research_jobs.orchestration.compat.storage import held_connections
from research_jobs.orchestration.definitions.factory import catalog_defs
from research_jobs.orchestration.execution.io_manager import IO_MANAGER_KEY
from research_jobs.orchestration.execution.partition_range import CONCURRENCY_TAG
from research_jobs.orchestration.execution.work import observation
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.causes import (
    error_line,
    is_interruption,
    run_failure_line,
)
from research_jobs.orchestration.model.config import PARTITIONS_FIELD
from research_jobs.orchestration.model.mappings import partition_mapping
from research_jobs.orchestration.model.metadata import OUTCOME, read_failure, read_outcome
from research_jobs.orchestration.model.ownership import claim_names
from research_jobs.orchestration.operations.backfill_plan import (
    BackfillSummary,
    Only,
    PlannedNotebook,
    foresee,
    in_order,
    plan_backfill,
    spans_of,
)
from research_jobs.orchestration.operations.launch import Launcher, blocked, free_slots
from research_jobs.outcome import Failure, Outcome, State

__all__ = [
    "BACKFILL_TAG",
    "INTERRUPTED",
    "Backfill",
    "BackfillSummary",
    "Only",
    "PlannedNotebook",
    "backfill",
    "plan_backfill",
]

BACKFILL_TAG = "research_jobs/backfill"
"""Tag of the runs of one backfill: its id."""

INTERRUPTED = "interrupted"
"""Why a partition did not run, when somebody stopped the backfill."""


def backfill(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    notebooks: Sequence[str],
    *,
    definitions: dg.Definitions | None = None,
    first: str | None = None,
    last: str | None = None,
    keys: Sequence[str] = (),
    only: Only = "all",
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    concurrency: int | None = None,
    dry_run: bool = False,
    on_plan: Callable[[tuple[PlannedNotebook, ...]], None] | None = None,
    on_progress: Callable[[Outcome], None] | None = None,
) -> BackfillSummary:
    """Run notebooks over many partitions, in this process.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    notebooks : sequence of str
    definitions : Definitions, optional
        Of the catalog, where they are made already.
    first, last, keys, only
        As in `plan_backfill`.
    parameters : mapping, optional
        Notebook to the config of its op.
    concurrency : int, optional
        How many partitions run at a time; by default the manifest's, else the number of cores.
    dry_run : bool
        Plan only.
    on_plan, on_progress : callable, optional
        Called with the plan before anything runs, and with each partition as it is done with.

    Returns
    -------
    BackfillSummary

    Raises
    ------
    PartitionError
        As `plan_backfill`. What goes wrong later is in the summary.
    """
    definitions = definitions or catalog_defs(catalog)
    plan = plan_backfill(
        instance, catalog, definitions, notebooks, first=first, last=last, keys=keys, only=only
    )
    if on_plan is not None:
        on_plan(plan)
    now = datetime.now(timezone.utc)
    summary = BackfillSummary(id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}", plan=plan)
    if dry_run:
        return replace(summary, foreseen=foresee(catalog, plan))
    run = Backfill(instance, catalog, definitions, summary.id, concurrency, parameters or {})
    started = time.monotonic()
    counts: dict[State, int] = {}
    problems: list[Outcome] = []
    for outcome in run.run(plan):
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
        if not outcome.state.ok:
            problems.append(outcome)
        if on_progress is not None:
            on_progress(outcome)
    return replace(
        summary,
        run_ids=tuple(run.run_ids),
        counts=counts,
        problems=tuple(problems),
        interrupted=run.interrupted,
        duration_s=time.monotonic() - started,
    )


@dataclass
class _Part:
    """One notebook's share of a run."""

    notebook: str
    key: dg.AssetKey
    op: str
    keys: list[str]
    definition: dg.PartitionsDefinition[Any]


class Backfill:
    """The runs of one backfill.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    definitions : Definitions
    id : str
    concurrency : int or None
    parameters : mapping
        Notebook to the config of its op.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        catalog: Catalog,
        definitions: dg.Definitions,
        id: str,  # noqa: A002 - what it is
        concurrency: int | None,
        parameters: Mapping[str, Mapping[str, Any]],
    ) -> None:
        claim_names(instance, catalog.project, catalog.names.prefix)
        ride_out_outages(instance)
        self.run_ids: list[str] = []
        self.interrupted = False
        self._instance = instance
        self._catalog = catalog
        self._launcher = Launcher(instance, catalog, definitions)
        self._graph = self._launcher.graph
        self._id = id
        self._concurrency = concurrency
        self._parameters = parameters
        # What cannot serve those downstream: partition to why, by notebook.
        self._lacking: dict[str, dict[str, Outcome]] = {}

    def run(self, plan: Sequence[PlannedNotebook]) -> Iterator[Outcome]:
        """Run what was planned; an outcome for each partition, as it is done with."""
        for level in self._levels(plan):
            parts: list[_Part] = []
            for planned in level:
                part = self._part(planned)
                yield from self._leave_out(part)
                if part.keys:
                    parts.append(part)
            for group in _groups(parts):
                yield from self._run_group(group)

    def _levels(self, plan: Sequence[PlannedNotebook]) -> list[list[PlannedNotebook]]:
        """Notebooks that do not need each other, those that they need before them."""
        depth: dict[str, int] = {}
        for planned in plan:  # dependencies come first
            needs = self._catalog.entries[planned.notebook].upstream
            depth[planned.notebook] = max((depth[n] + 1 for n in needs if n in depth), default=0)
        return [
            [planned for planned in plan if depth[planned.notebook] == level]
            for level in range(max(depth.values(), default=-1) + 1)
        ]

    def _part(self, planned: PlannedNotebook) -> _Part:
        key = self._catalog.names.key(planned.notebook)
        definition = self._graph.get(key).partitions_def
        assert definition is not None
        op = self._launcher.step_key(key)
        return _Part(planned.notebook, key, op, list(planned.keys), definition)

    def _leave_out(self, part: _Part) -> Iterator[Outcome]:
        """Drop the partitions for which something upstream is lacking since this backfill."""
        for name in self._catalog.entries[part.notebook].upstream:
            lacking = self._lacking.get(name)
            if not lacking:
                continue
            upstream = self._graph.get(self._catalog.names.key(name)).partitions_def
            for key in list(part.keys):
                with dg.partition_loading_context(dynamic_partitions_store=self._instance):
                    found = _first_lacking(lacking, upstream, part, key, name)
                if found is None:
                    continue
                part.keys.remove(key)
                why = f"{name} {found.state.words} for {found.partition}"
                outcome = Outcome(State.SKIPPED, skip_reason=why)
                if not found.state.ok:
                    outcome = Outcome(State.BLOCKED, failure=Failure(why), blocked_by=(name,))
                outcome = self._note(part, key, outcome)
                if outcome.state is State.SKIPPED:
                    # no run says so, and it is not to be asked for again
                    self._instance.report_runless_asset_event(observation(part.key, outcome))
                yield outcome

    def _note(self, part: _Part, key: str, outcome: Outcome) -> Outcome:
        """The partition's outcome; unless it succeeded, noted for what reads it."""
        outcome = replace(outcome, notebook=part.notebook, partition=key)
        if outcome.state is not State.SUCCEEDED:
            self._lacking.setdefault(part.notebook, {})[key] = outcome
        return outcome

    def _run_group(self, parts: Sequence[_Part]) -> Iterator[Outcome]:
        """Parts that can share a run: one run, or one a partition where an IO manager wants it."""
        if self._one_by_one(parts[0]):
            part = parts[0]
            for key in part.keys:
                yield from self._run([replace(part, keys=[key])])
        else:
            yield from self._run(parts)

    def _one_by_one(self, part: _Part) -> bool:
        manager = self._catalog.entries[part.notebook].spec.io_manager
        return manager not in (None, IO_MANAGER_KEY)

    def _run(self, parts: Sequence[_Part]) -> Iterator[Outcome]:
        left = {part.op: dict.fromkeys(part.keys) for part in parts}
        by_op = {part.op: part for part in parts}
        run_id: str | None = None
        reasons: dict[str, Outcome] = {}
        run_error: str | None = None
        if not self.interrupted:
            try:
                job, run = self._create(parts)
                run_id = run.run_id
                for event in execute_run(job, run, self._instance):
                    if event.event_type is DagsterEventType.RUN_CANCELED:
                        self.interrupted = True
                    elif event.event_type is DagsterEventType.RUN_FAILURE:
                        run_error = run_failure_line(event)
                    outcome = _outcome(event, by_op, reasons)
                    if outcome is not None and event.partition is not None:
                        op = str(event.step_key)
                        left[op].pop(event.partition, None)
                        yield self._note(by_op[op], event.partition, outcome)
            except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
                self.interrupted = True
            except Exception as error:  # noqa: BLE001 - whatever broke the run, it is shown
                run_error = error_line(error_info(error))
            finally:
                if run_id is not None:
                    free_slots(self._instance, run_id)
        default = blocked((), run_error or "its step did not run")
        if self.interrupted:
            default = Outcome(State.CANCELLED, failure=Failure(INTERRUPTED))
        default = replace(default, run_id=run_id or "")
        yield from self._unfinished(by_op, left, reasons, default)

    def _unfinished(
        self,
        parts: Mapping[str, _Part],
        left: Mapping[str, Mapping[str, None]],
        reasons: Mapping[str, Outcome],
        default: Outcome,
    ) -> Iterator[Outcome]:
        """The partitions of which no event of the run has said what became of them."""
        for op, keys in left.items():
            for key in keys:
                outcome = reasons.get(op, default)
                if op in reasons and len(parts[op].keys) > 1:  # another one's doing
                    outcome = blocked((), outcome.reason)
                yield self._note(parts[op], key, replace(outcome, run_id=default.run_id))

    def _create(self, parts: Sequence[_Part]) -> tuple[dg.JobDefinition, dg.DagsterRun]:
        keys = list(dict.fromkeys(key for part in parts for key in part.keys))
        one = len(keys) == 1
        ops: dict[str, Any] = {}
        for part in parts:
            config = dict(self._parameters.get(part.notebook, {}))
            if not one:
                config[PARTITIONS_FIELD] = spans_of(part.definition, part.keys, self._instance)
            if config:
                ops[part.op] = {"config": config}
        # A run begins with an event for each of its partitions.
        with held_connections(self._instance, one_transaction=True):
            assets = [part.key for part in parts]
            job, run = self._launcher.create(assets, ops, self._tags(parts, keys))
            self.run_ids.append(run.run_id)
            if not one:
                report_planned(
                    self._instance, run, [(part.op, part.key, part.keys) for part in parts]
                )
        return job, run

    def _tags(self, parts: Sequence[_Part], keys: Sequence[str]) -> dict[str, str]:
        tags = {BACKFILL_TAG: self._id}
        if self._concurrency is not None:
            tags[CONCURRENCY_TAG] = str(max(1, -(-self._concurrency // len(parts))))
        if len(keys) == 1:
            return tags | {PARTITION_NAME_TAG: keys[0]}
        ordered = in_order(parts[0].definition, keys, self._instance)
        return tags | {
            ASSET_PARTITION_RANGE_START_TAG: ordered[0],
            ASSET_PARTITION_RANGE_END_TAG: ordered[-1],
            # Dagster would plan all of the range; we plan what we are going to make of it.
            EXTERNALLY_MANAGED_ASSETS_TAG: "true",
        }


def _groups(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Parts that can share a run have the same partitions."""
    groups: list[list[_Part]] = []
    for part in parts:
        for group in groups:
            if group[0].definition == part.definition:
                group.append(part)
                break
        else:
            groups.append([part])
    return groups


def _outcome(
    event: dg.DagsterEvent, parts: Mapping[str, _Part], reasons: dict[str, Outcome]
) -> Outcome | None:
    """What an event says of a partition."""
    part = parts.get(event.step_key or "")
    if part is None:
        return None
    if event.event_type is DagsterEventType.STEP_FAILURE:
        data = event.step_failure_data
        if not is_interruption(data):  # else not the step's own doing: the run says so
            reasons[part.op] = read_failure(data)
        return None
    if event.partition is None or event.asset_key != part.key:
        return None
    if event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
        return read_outcome(event.materialization.metadata, State.SUCCEEDED)
    if event.event_type is DagsterEventType.ASSET_OBSERVATION:
        observed = event.asset_observation_data.asset_observation
        if OUTCOME in observed.metadata:
            return read_outcome(observed.metadata, State.FAILED, observed.description)
    return None


def _first_lacking(
    lacking: Mapping[str, Outcome],
    upstream: dg.PartitionsDefinition[Any] | None,
    part: _Part,
    key: str,
    name: str,
) -> Outcome | None:
    """The partition upstream that `key` reads and that is lacking, if any."""
    if upstream is None:
        return None
    if upstream == part.definition:
        return lacking.get(key)
    mapping = partition_mapping(upstream, part.definition, names=(name, part.notebook))
    if mapping is None:
        return None
    subset = part.definition.subset_with_partition_keys([key])
    read = mapping.get_upstream_mapped_partitions_result_for_partitions(
        subset, part.definition, upstream
    )
    keys = read.partitions_subset.get_partition_keys()
    return next((lacking[item] for item in keys if item in lacking), None)
