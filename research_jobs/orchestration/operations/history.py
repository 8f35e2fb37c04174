"""What the instance knows of each notebook: its last ending, its partitions, its next tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
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
from research_jobs.orchestration.definitions.jobs import op_names
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.causes import (
    failure_reason,
    is_interruption,
    run_failure_line,
)
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.orchestration.model.stored import stored_keys
from research_jobs.orchestration.operations.launch import number_of, text_of

__all__ = [
    "PastRun",
    "Status",
    "StepEndings",
    "next_ticks",
    "read_history",
    "read_runs",
    "read_statuses",
    "run_ending",
    "schedules_of",
]

_GOING = {
    DagsterRunStatus.QUEUED: "queued",
    DagsterRunStatus.NOT_STARTED: "queued",
    DagsterRunStatus.STARTING: "running",
    DagsterRunStatus.STARTED: "running",
    DagsterRunStatus.CANCELING: "running",
}


_RANGE_TAGS = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
RUNS_LOOKED_AT = 300


@dataclass(frozen=True)
class Status:
    """Where a notebook stands.

    Parameters
    ----------
    ending : str
        Of its last run: one of `research_jobs.protocol.Ending`, ``"running"``, ``"queued"``,
        ``"not run"`` (what it depends on failed), or ``"never"``.
    at : float or None
        When that run ended (or began), Unix time.
    duration_s : float or None
    error : str or None
        The one line, when it did not succeed.
    run_id : str or None
    materialized : int or None
        How many of its partitions have data; None where it has none.
    partitions : int or None
        How many there are by now.
    """

    ending: str = "never"
    at: float | None = None
    duration_s: float | None = None
    error: str | None = None
    run_id: str | None = None
    materialized: int | None = None
    partitions: int | None = None

    def as_json(self) -> dict[str, Any]:
        """What ``list --json`` prints of it."""
        return {
            "ending": self.ending,
            "at": _iso(self.at),
            "duration_s": self.duration_s,
            "error": self.error,
            "run_id": self.run_id,
        }


def read_statuses(
    instance: dg.DagsterInstance, catalog: Catalog, entries: Iterable[Entry]
) -> dict[str, Status]:
    """The status of each notebook, by name.

    The cost is a query for all assets, one for their last runs, and one for each run that did
    not succeed as a whole.
    """
    wanted = list(entries)
    records = {
        record.asset_entry.asset_key: record.asset_entry
        for record in instance.get_asset_records(
            [catalog.names.key(entry.name) for entry in wanted]
        )
    }
    runs = read_runs(
        instance, {entry.last_run_id for entry in records.values() if entry.last_run_id}
    )
    steps = StepEndings(instance, catalog)
    statuses: dict[str, Status] = {}
    for entry in wanted:
        materialized, partitions = _count_partitions(instance, catalog, entry)
        record = records.get(catalog.names.key(entry.name))
        run = runs.get(record.last_run_id) if record and record.last_run_id else None
        if record is None or run is None:
            statuses[entry.name] = Status(materialized=materialized, partitions=partitions)
            continue
        last = record.last_materialization
        made = last.asset_materialization if last and last.run_id == record.last_run_id else None
        ending, error = run_ending(run, entry.name, steps, materialized=made is not None)
        metadata = made.metadata if made else {}
        statuses[entry.name] = Status(
            ending=ending,
            at=last.timestamp if made and last else (run.end_time or run.start_time),
            duration_s=number_of(metadata.get("duration_s")) if made else None,
            error=error,
            run_id=run.dagster_run.run_id,
            materialized=materialized,
            partitions=partitions,
        )
    return statuses


@dataclass(frozen=True)
class PastRun:
    """One run of a notebook.

    Parameters
    ----------
    run_id, ending : str
    at : float or None
        When it began, Unix time.
    duration_s : float or None
        Of this notebook's step; None when it has not ended.
    partition : str or None
        A key, or ``first...last``.
    error : str or None
    """

    run_id: str
    ending: str
    at: float | None
    duration_s: float | None
    partition: str | None
    error: str | None

    def as_json(self) -> dict[str, Any]:
        """What ``show --json`` prints of it."""
        return {
            "run_id": self.run_id,
            "ending": self.ending,
            "at": _iso(self.at),
            "duration_s": self.duration_s,
            "partition": self.partition,
            "error": self.error,
        }


def read_history(
    instance: dg.DagsterInstance, catalog: Catalog, entry: Entry, *, limit: int
) -> list[PastRun]:
    """The last runs of a notebook, newest first; looks at the last few hundred runs of all."""
    key = catalog.names.key(entry.name)
    op = op_names(catalog.entries)[entry.name]
    steps = StepEndings(instance, catalog)
    made = {
        record.run_id
        for record in instance.fetch_materializations(key, limit=RUNS_LOOKED_AT).records
    }
    found: list[PastRun] = []
    for record in instance.get_run_records(limit=RUNS_LOOKED_AT):
        run = record.dagster_run
        if run.asset_selection is not None and key not in run.asset_selection:
            continue
        ending, error = run_ending(record, entry.name, steps, materialized=run.run_id in made)
        partition = None
        if entry.partitioned:
            first, last = (run.tags.get(tag) for tag in _RANGE_TAGS)
            partition = f"{first}...{last}" if first else run.tags.get(PARTITION_NAME_TAG)
        found.append(
            PastRun(
                run_id=run.run_id,
                ending=ending,
                at=record.start_time or record.create_timestamp.timestamp(),
                duration_s=_step_duration(instance, run.run_id, op),
                partition=partition,
                error=error,
            )
        )
        if len(found) == limit:
            break
    return found


def _step_duration(instance: dg.DagsterInstance, run_id: str, op: str) -> float | None:
    for step in instance.get_run_step_stats(run_id, [op]):
        if step.start_time is not None and step.end_time is not None:
            return step.end_time - step.start_time
    return None


def read_runs(instance: dg.DagsterInstance, ids: Iterable[str]) -> dict[str, RunRecord]:
    """Records of runs by id."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    found = instance.get_run_records(RunsFilter(run_ids=wanted))
    return {record.dagster_run.run_id: record for record in found}


# A step that began and has no end: in a run that is over, its process was killed.
_CUT_OFF = ("cancelled", "the process that worked on its run was killed")


class StepEndings:
    """How the steps of a run ended, read once for each run."""

    def __init__(self, instance: dg.DagsterInstance, catalog: Catalog) -> None:
        self._instance = instance
        self._ops = op_names(catalog.entries)
        self._known: dict[str, dict[str, tuple[str, str | None]]] = {}
        self._run_errors: dict[str, str | None] = {}

    def of(self, run_id: str, notebook: str) -> tuple[str, str | None] | None:
        """Ending and line of a notebook in a run; None when it did not get so far."""
        return self._steps(run_id).get(self._ops.get(notebook, notebook))

    def run_error(self, run_id: str) -> str | None:
        """Why the run as a whole failed; None where its steps say so."""
        self._steps(run_id)
        return self._run_errors[run_id]

    def failed(self, run_id: str) -> list[str]:
        """The notebooks that failed in a run."""
        names = {op: name for name, op in self._ops.items()}
        return [
            names.get(op, op)
            for op, (ending, _) in self._steps(run_id).items()
            if ending not in ("succeeded", "cancelled")
        ]

    def _steps(self, run_id: str) -> dict[str, tuple[str, str | None]]:
        if run_id not in self._known:
            self._known[run_id] = self._read(run_id)
        return self._known[run_id]

    def _read(self, run_id: str) -> dict[str, tuple[str, str | None]]:
        endings: dict[str, tuple[str, str | None]] = {}
        self._run_errors[run_id] = None
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
            if event.event_type == DagsterEventType.RUN_FAILURE:
                self._run_errors[run_id] = run_failure_line(event)
            elif event.step_key is None:
                continue
            elif event.event_type == DagsterEventType.STEP_START:
                endings.setdefault(event.step_key, _CUT_OFF)
            elif event.event_type == DagsterEventType.STEP_SUCCESS:
                endings[event.step_key] = ("succeeded", None)
            else:
                endings[event.step_key] = _failed_ending(event.step_failure_data)
        return endings


def _failed_ending(data: Any) -> tuple[str, str | None]:
    if is_interruption(data):
        return ("cancelled", None)
    said = data.user_failure_data
    ending = text_of(said.metadata.get("ending")) if said else None
    return (ending or "failed", failure_reason(data).line)


def run_ending(
    run: RunRecord, notebook: str, steps: StepEndings, *, materialized: bool
) -> tuple[str, str | None]:
    """How a notebook ended in a run, and the line that says why it did not succeed."""
    status = run.dagster_run.status
    run_id = run.dagster_run.run_id
    if status == DagsterRunStatus.SUCCESS:
        return ("succeeded", None) if materialized else ("skipped", None)
    known = steps.of(run_id, notebook)
    if known == _CUT_OFF and status == DagsterRunStatus.FAILURE:
        return (_CUT_OFF[0], steps.run_error(run_id) or _CUT_OFF[1])
    if known is not None and known != _CUT_OFF:
        if known[0] == "succeeded" and not materialized:
            return ("skipped", None)
        return known
    if status in _GOING:
        return (_GOING[status], None)
    if status == DagsterRunStatus.CANCELED:
        return ("cancelled", None)
    failed = ", ".join(sorted(steps.failed(run_id)))
    if failed:
        return ("not run", f"what it depends on failed: {failed}")
    return ("not run", steps.run_error(run_id) or "its run ended before its turn")


def _count_partitions(
    instance: dg.DagsterInstance, catalog: Catalog, entry: Entry
) -> tuple[int | None, int | None]:
    if not entry.partitioned:
        return None, None
    try:
        definition = build_partitions(entry.spec, cache=catalog.project.state / "cache")
    except PartitionError:
        return None, None
    if definition is None:
        return None, None
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        keys = set(definition.get_partition_keys())
    done = instance.get_materialized_partitions(catalog.names.key(entry.name))
    stored = stored_keys(catalog.project.store, entry)
    return len(keys & done if stored is None else keys & done & stored), len(keys)


def next_ticks(
    instance: dg.DagsterInstance, catalog: Catalog, now: datetime | None = None
) -> dict[str, datetime]:
    """When each notebook's schedules that are on fire next, by notebook."""
    moment = now or datetime.now(UTC)
    switched = {
        state.instigator_name: state.status.value
        for state in instance.all_instigator_state()
        if state.status.value != "DECLARED_IN_CODE"
    }
    ticks: dict[str, datetime] = {}
    for name, schedule in catalog.manifest.schedules.items():
        on = switched.get(name, "RUNNING" if schedule.enabled else None)
        if on != "RUNNING":
            continue
        crons = (schedule.cron,) if isinstance(schedule.cron, str) else schedule.cron
        zone = schedule.timezone or "UTC"
        tick = next(cron_ticks(crons, zone, moment.timestamp())).astimezone(ZoneInfo(zone))
        for notebook in schedule.notebooks:
            if notebook not in ticks or tick < ticks[notebook]:
                ticks[notebook] = tick
    return ticks


def schedules_of(catalog: Catalog) -> Mapping[str, list[str]]:
    """The schedules that name each notebook."""
    found: dict[str, list[str]] = {}
    for name, schedule in catalog.manifest.schedules.items():
        for notebook in schedule.notebooks:
            found.setdefault(notebook, []).append(name)
    return found


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment).astimezone().isoformat()
