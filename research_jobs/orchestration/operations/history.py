"""What the instance knows of each notebook: its last ending, its partitions, its next tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, RunRecord, RunsFilter

from research_jobs.errors import PartitionError
from research_jobs.orchestration.compat.assets import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from research_jobs.orchestration.compat.instance import cron_ticks
from research_jobs.orchestration.compat.many_assets import (
    PartitionEvents,
    last_materializations,
    last_runs,
    partition_events,
)
from research_jobs.orchestration.definitions.jobs import NOTEBOOK_JOBS, op_names
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.causes import run_failure_line
from research_jobs.orchestration.model.metadata import read_failure, read_outcome
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.orchestration.model.status import PartitionStatus, partition_status
from research_jobs.orchestration.model.stored import stored_keys
from research_jobs.orchestration.operations.launch import blocked
from research_jobs.outcome import Failure, Outcome, State

__all__ = [
    "Memory",
    "RunningSchedule",
    "Status",
    "next_ticks",
    "read_histories",
    "read_history",
    "read_partition_events",
    "read_partitions",
    "read_statuses",
    "running_schedules",
    "schedules_of",
    "state_of",
    "ticks_of",
]

_GOING = {
    DagsterRunStatus.QUEUED: State.WAITING,
    DagsterRunStatus.NOT_STARTED: State.WAITING,
    DagsterRunStatus.STARTING: State.RUNNING,
    DagsterRunStatus.STARTED: State.RUNNING,
    DagsterRunStatus.CANCELING: State.RUNNING,
}
_RANGE_TAGS = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
RUNS_LOOKED_AT = 300
SKIPS_LOOKED_AT = 100


@dataclass(frozen=True)
class Status:
    """A notebook's last run, and how many of its partitions have data.

    Parameters
    ----------
    last : Outcome
        Of its last run.
    partitions : PartitionStatus or None
        None where it has none, or the manifest's cannot be made.
    """

    last: Outcome
    partitions: PartitionStatus | None = None


def read_statuses(
    instance: dg.DagsterInstance, catalog: Catalog, entries: Iterable[Entry]
) -> dict[str, Status]:
    """The status of each notebook, by name.

    The cost is a query for all assets, one for their last runs, two for their partitions, and one
    for each run that did not succeed as a whole.
    """
    wanted = list(entries)
    records = {
        record.asset_entry.asset_key: record.asset_entry
        for record in instance.get_asset_records(
            [catalog.names.key(entry.name) for entry in wanted]
        )
    }
    ids = sorted({entry.last_run_id for entry in records.values() if entry.last_run_id})
    records_of_runs = instance.get_run_records(RunsFilter(run_ids=ids)) if ids else []
    runs = {record.dagster_run.run_id: record for record in records_of_runs}
    endings = _Endings(instance, catalog)
    events = read_partition_events(instance, catalog, wanted)
    statuses: dict[str, Status] = {}
    for entry in wanted:
        record = records.get(catalog.names.key(entry.name))
        run = runs.get(record.last_run_id) if record and record.last_run_id else None
        outcome = Outcome(State.NEVER_RUN, notebook=entry.name)
        if record is not None and run is not None:
            last = record.last_materialization
            made = (
                last.asset_materialization if last and last.run_id == record.last_run_id else None
            )
            outcome = endings.of(run, entry, made)
        partitions = None
        with suppress(PartitionError):
            partitions = read_partitions(instance, catalog, entry, events=events.get(entry.name))
        statuses[entry.name] = Status(outcome, partitions)
    return statuses


def state_of(entry: Entry, last: Outcome) -> State:
    """A notebook's state: that of its last run, and blocked where it cannot run at all."""
    return State.BLOCKED if entry.error is not None else last.state


def read_history(
    instance: dg.DagsterInstance, catalog: Catalog, entry: Entry, *, limit: int
) -> list[Outcome]:
    """The last runs of a notebook, newest first; looks at the last few hundred runs of all."""
    return read_histories(instance, catalog, [entry], limit=limit)[entry.name]


def read_histories(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    entries: Iterable[Entry],
    *,
    limit: int,
    looked_at: int = RUNS_LOOKED_AT,
    recent: Sequence[RunRecord] | None = None,
    since: float | None = None,
    memory: Memory | None = None,
) -> dict[str, list[Outcome]]:
    """The last runs of each notebook by name, newest first.

    One that is not among the last runs of all has its last one.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    entries : iterable of Entry
    limit : int
        Runs of each.
    looked_at : int
        Among how many of the last runs of all.
    recent : sequence of RunRecord, optional
        Those, where they have been read.
    since : float, optional
        Unix time, seconds: runs from then on are there although they are more than `limit`.
    memory : Memory, optional
        Of the reading before: runs that it knows are not read again.
    """
    wanted = list(entries)
    endings = _Endings(instance, catalog)
    if recent is None:
        recent = instance.get_run_records(limit=looked_at)
    runs = _runs_of(catalog, wanted, recent)
    known = memory.outcomes if memory is not None else {}
    keys = {entry.name: catalog.names.key(entry.name) for entry in wanted}
    # Thousands may have run since: then the last one, unless that is known.
    absent = {keys[name]: name for name, records in runs.items() if not records}
    last = {absent[key]: run_id for key, run_id in last_runs(instance, absent).items()}
    remembered = {
        name: (run_id, known[run_id, name])
        for name, run_id in last.items()
        if (run_id, name) in known
    }
    ids = sorted({run_id for name, run_id in last.items() if name not in remembered})
    older = instance.get_run_records(RunsFilter(run_ids=ids)) if ids else ()
    records_by_id = {record.dagster_run.run_id: record for record in older}
    for name, run_id in last.items():
        runs[name] += [records_by_id[run_id]] if run_id in records_by_id else []
    theirs = {
        entry.name: [
            record
            for number, record in enumerate(runs[entry.name])
            if number < limit
            or (since is not None and record.create_timestamp.timestamp() >= since)
        ]
        for entry in wanted
    }
    made = last_materializations(
        instance,
        {
            (record.dagster_run.run_id, keys[name])
            for name, records in theirs.items()
            for record in records
            if (record.dagster_run.run_id, name) not in known
        },
    )
    kept: dict[tuple[str, str], Outcome] = {}
    histories: dict[str, list[Outcome]] = {}
    for entry in wanted:
        histories[entry.name] = []
        if entry.name in remembered:
            run_id, outcome = remembered[entry.name]
            histories[entry.name].append(outcome)
            kept[run_id, entry.name] = outcome
        for record in theirs[entry.name]:
            run_id = record.dagster_run.run_id
            outcome = known.get((run_id, entry.name)) or endings.of(
                record, entry, made.get((run_id, keys[entry.name]))
            )
            histories[entry.name].append(outcome)
            if record.dagster_run.is_finished:
                kept[run_id, entry.name] = outcome
    if memory is not None:
        memory.outcomes = kept
    return histories


@dataclass
class Memory:
    """What has been read, for whoever reads the history again and again.

    Parameters
    ----------
    outcomes : dict
        Of runs that are over, by run ID and notebook. What a reading does not need is forgotten.
    partitions : dict
        What became of each notebook's partitions, with what tells that it has not changed.
    """

    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict[tuple[str, str], Outcome])
    partitions: dict[str, tuple[tuple[object, ...], PartitionStatus]] = field(
        default_factory=dict[str, tuple[tuple[object, ...], PartitionStatus]]
    )


def _runs_of(
    catalog: Catalog,
    entries: Iterable[Entry],
    recent: Iterable[RunRecord],
) -> dict[str, list[RunRecord]]:
    """Among the last runs of all, those of each notebook by name, newest first."""
    names = {catalog.names.key(entry.name): entry.name for entry in entries}
    runs: dict[str, list[RunRecord]] = {name: [] for name in names.values()}
    for record in recent:
        run = record.dagster_run
        # Without a selection it is a run of all, or of another job that runs no notebooks.
        selected = run.asset_selection
        if selected is None and not run.job_name.startswith(NOTEBOOK_JOBS):
            continue
        for key in names if selected is None else selected & names.keys():
            runs[names[key]].append(record)
    return runs


class _Endings:
    """How notebooks ended in runs; the events of a run are read once, and only where needed."""

    def __init__(self, instance: dg.DagsterInstance, catalog: Catalog) -> None:
        self._instance = instance
        self._catalog = catalog
        self._ops = op_names(catalog.entries)
        self._known: dict[str, tuple[dict[str, Outcome | None], str | None]] = {}
        self._skips: dict[str, dict[str, Outcome]] = {}

    def of(self, record: RunRecord, entry: Entry, made: dg.AssetMaterialization | None) -> Outcome:
        """What became of a notebook in a run, and of its last partition that was made there."""
        run = record.dagster_run
        outcome = self._ended(run, entry, made)
        first, last = (run.tags.get(tag) for tag in _RANGE_TAGS)
        if outcome.state.ended and (first or not outcome.duration_s):
            outcome = self._timed(run.run_id, entry, outcome)
        partition = f"{first}...{last}" if first else run.tags.get(PARTITION_NAME_TAG)
        began = record.start_time or record.create_timestamp.timestamp()
        return replace(
            outcome,
            notebook=entry.name,
            run_id=run.run_id,
            partition=partition if entry.partitioned else None,
            started_at=began if first else outcome.started_at or began,
        )

    def _ended(
        self, run: dg.DagsterRun, entry: Entry, made: dg.AssetMaterialization | None
    ) -> Outcome:
        if run.status is DagsterRunStatus.SUCCESS:
            return self._well(run.run_id, entry, made)
        steps, run_error = self._read(run.run_id)
        op = self._ops[entry.name]
        if op in steps:
            outcome = steps[op]
            if outcome is not None and outcome.state.ok:
                return self._well(run.run_id, entry, made)
            if outcome is not None:
                return outcome
        if run.status in _GOING:
            return Outcome(_GOING[run.status])
        if run.status is DagsterRunStatus.CANCELED:
            return Outcome(State.CANCELLED)
        if op in steps:  # It began and has no end, and the run is over.
            why = run_error or "the process that worked on its run was killed"
            return Outcome(State.CANCELLED, failure=Failure(why))
        failed = {
            name
            for name in self._catalog.upstream_of(entry.name)
            if (outcome := steps.get(self._ops[name])) is not None and not outcome.state.ok
        }
        return blocked(failed, run_error)

    def _well(self, run_id: str, entry: Entry, made: dg.AssetMaterialization | None) -> Outcome:
        """A step that succeeded: it made something, or said why not."""
        if made is not None:
            return read_outcome(made.metadata, State.SUCCEEDED)
        if entry.name not in self._skips:
            key = self._catalog.names.key(entry.name)
            records = self._instance.fetch_observations(key, limit=SKIPS_LOOKED_AT).records
            self._skips[entry.name] = {
                record.run_id: read_outcome(said.metadata, State.SKIPPED, said.description)
                for record in records
                if (said := record.asset_observation) is not None
            }
        return self._skips[entry.name].get(run_id) or Outcome(State.SKIPPED)

    def _timed(self, run_id: str, entry: Entry, outcome: Outcome) -> Outcome:
        """With the time of the whole step: of a range, and where the record has none."""
        for step in self._instance.get_run_step_stats(run_id, [self._ops[entry.name]]):
            if step.start_time is not None and step.end_time is not None:
                return replace(outcome, duration_s=step.end_time - step.start_time)
        return outcome

    def _read(self, run_id: str) -> tuple[dict[str, Outcome | None], str | None]:
        """The steps of a run that began, by op, None for one without an end; and its error."""
        if run_id in self._known:
            return self._known[run_id]
        steps: dict[str, Outcome | None] = {}
        run_error = None
        kinds = {
            DagsterEventType.STEP_START,
            DagsterEventType.STEP_SUCCESS,
            DagsterEventType.STEP_FAILURE,
            DagsterEventType.RUN_FAILURE,
        }
        for log in self._instance.all_logs(run_id, of_type=kinds):
            event = log.dagster_event
            if event is None:
                continue
            if event.event_type is DagsterEventType.RUN_FAILURE:
                run_error = run_failure_line(event)
            elif event.step_key is None:
                continue
            elif event.event_type is DagsterEventType.STEP_START:
                steps.setdefault(event.step_key, None)
            elif event.event_type is DagsterEventType.STEP_SUCCESS:
                steps[event.step_key] = Outcome(State.SUCCEEDED)
            else:
                steps[event.step_key] = read_failure(event.step_failure_data)
        self._known[run_id] = steps, run_error
        return steps, run_error


def read_partitions(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    entry: Entry,
    *,
    history: Sequence[Outcome] = (),
    memory: Memory | None = None,
    events: PartitionEvents | None = None,
) -> PartitionStatus | None:
    """What became of a notebook's partitions; None where it has none.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    entry : Entry
    history : sequence of Outcome
        Of its last runs.
    memory : Memory, optional
        Of the reading before, which is right while nothing has run or been recorded since.
    events : PartitionEvents, optional
        What the instance knows of its partitions, for whoever reads those of many.

    Raises
    ------
    PartitionError
        When the manifest's partitions cannot be made.
    """
    definition = build_partitions(entry.spec, cache=catalog.project.state / "cache")
    if definition is None:
        return None
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        keys = tuple(str(key) for key in definition.get_partition_keys())
    stored = stored_keys(catalog.project.store, entry)
    key = catalog.names.key(entry.name)
    known = events or partition_events(instance, [key])[key]
    # A partition that was skipped shows in the history.
    state = keys, stored, known, tuple((outcome.run_id, outcome.state) for outcome in history)
    before = memory.partitions.get(entry.name) if memory is not None else None
    if before is not None and before[0] == state:
        return before[1]
    status = partition_status(instance, key, keys, stored=stored, events=known)
    if memory is not None and not status.in_progress:  # how those end may change nothing else
        memory.partitions[entry.name] = state, status
    return status


def read_partition_events(
    instance: dg.DagsterInstance, catalog: Catalog, entries: Iterable[Entry]
) -> dict[str, PartitionEvents]:
    """What the instance knows of the partitions of notebooks that have some, by name."""
    keys = {catalog.names.key(entry.name): entry.name for entry in entries if entry.partitioned}
    return {keys[key]: events for key, events in partition_events(instance, keys).items()}


@dataclass(frozen=True)
class RunningSchedule:
    """A schedule that is on.

    Parameters
    ----------
    name : str
    crons : tuple of str
    timezone : str
    notebooks : frozenset of str
    since : float or None
        When it was switched on, Unix time in seconds; None where no daemon has seen it yet.
    """

    name: str
    crons: tuple[str, ...]
    timezone: str
    notebooks: frozenset[str]
    since: float | None

    def tick_after(self, moment: float) -> datetime:
        """The first tick at or after a moment, Unix time in seconds."""
        tick = next(cron_ticks(self.crons, self.timezone, moment))
        return tick.astimezone(ZoneInfo(self.timezone))


def running_schedules(instance: dg.DagsterInstance, catalog: Catalog) -> list[RunningSchedule]:
    """The manifest's schedules that are on, in the manifest or by a switch in the UI."""
    states = {state.instigator_name: state for state in instance.all_instigator_state()}
    running: list[RunningSchedule] = []
    for name, schedule in catalog.manifest.schedules.items():
        state = states.get(name)
        switched = state.status.value if state is not None else "DECLARED_IN_CODE"
        on = schedule.enabled if switched == "DECLARED_IN_CODE" else switched == "RUNNING"
        if on:
            crons = (schedule.cron,) if isinstance(schedule.cron, str) else tuple(schedule.cron)
            data = state.instigator_data if state is not None else None
            running.append(
                RunningSchedule(
                    name,
                    crons,
                    schedule.timezone or "UTC",
                    frozenset(schedule.notebooks),
                    getattr(data, "start_timestamp", None),
                )
            )
    return running


def next_ticks(
    instance: dg.DagsterInstance, catalog: Catalog, now: datetime | None = None
) -> dict[str, datetime]:
    """When each notebook's schedules that are on fire next, by notebook."""
    return ticks_of(running_schedules(instance, catalog), now or datetime.now(UTC))


def ticks_of(schedules: Iterable[RunningSchedule], now: datetime) -> dict[str, datetime]:
    """When each notebook's schedules fire next, by notebook."""
    ticks: dict[str, datetime] = {}
    for schedule in schedules:
        tick = schedule.tick_after(now.timestamp())
        for notebook in schedule.notebooks:
            if notebook not in ticks or tick < ticks[notebook]:
                ticks[notebook] = tick
    return ticks


def schedules_of(catalog: Catalog) -> Mapping[str, list[str]]:
    """The schedules that name each notebook."""
    names: dict[str, list[str]] = {}
    for name, schedule in catalog.manifest.schedules.items():
        for notebook in schedule.notebooks:
            names.setdefault(notebook, []).append(name)
    return names
