"""What became of every tick: the facts of `research_jobs.decisions.account`, read from Dagster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, RunRecord, RunsFilter

from research_jobs.decisions.account import (
    Account,
    Evaluated,
    Evaluation,
    Made,
    Outage,
    Owes,
    TickRun,
    account,
)
from research_jobs.decisions.definitions import Definition, Ticks, latest, switches
from research_jobs.errors import PartitionError
from research_jobs.orchestration.compat.assets import PARTITION_NAME_TAG
from research_jobs.orchestration.compat.instance import cron_ticks, schedule_id
from research_jobs.orchestration.compat.many_assets import PartitionEvents, partition_events
from research_jobs.orchestration.definitions.schedules import SCHEDULE_TAG, TICK_TAG
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.causes import error_line, run_failure_line
from research_jobs.orchestration.model.definition_log import (
    read_definitions,
    stated_definitions,
    switch_states,
)
from research_jobs.orchestration.model.instance import LOCATION
from research_jobs.orchestration.model.metadata import read_failure
from research_jobs.orchestration.model.partitions import (
    build_partitions,
    newest_keys,
    time_dimension,
)
from research_jobs.orchestration.model.status import SKIPPED_METADATA, partition_status
from research_jobs.orchestration.model.stored import stored_keys
from research_jobs.project import Project

__all__ = ["read_account", "read_outages"]

_ENDED = {
    "STARTED": Evaluated.INTERRUPTED,
    "SKIPPED": Evaluated.SKIPPED,
    "SUCCESS": Evaluated.REQUESTED,
    "FAILURE": Evaluated.FAILED,
}
_REPOSITORY = "__repository__"
_PAGE = 1000


def read_account(
    instance: dg.DagsterInstance, catalog: Catalog, start: float, end: float
) -> Account:
    """Account for every tick that was due between two moments.

    Nothing is written. Schedules that the log of definitions does not know yet are taken as the
    manifest and Dagster have them now.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    start, end : float
        Unix time, seconds.

    Returns
    -------
    Account
    """
    outages = read_outages(catalog.project)
    return account(_Facts(instance, catalog, start, outages), start, end)


def read_outages(project: Project) -> list[Outage]:
    """The times without a server that the watch wrote down, in `.research_jobs/watch.jsonl`.

    A line of an outage has ``down`` (what was down), ``since`` and, once it is over, ``until``, in
    Unix time. Other lines are passed over.
    """
    return list(_outages(project.state / "watch.jsonl"))


def _outages(path: Path) -> Iterator[Outage]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        outage = _outage(line)
        if outage is not None:
            yield outage


def _outage(line: str) -> Outage | None:
    try:
        said = json.loads(line)
        until = said.get("until")
        start, end = float(said["since"]), None if until is None else float(until)
        for moment in (start, end or start):  # which a date must be able to show
            datetime.fromtimestamp(moment, UTC)
        return Outage(start, end, f"{said['down']} down")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


class _Facts:
    """An instance and a project's files, asked only for what an account needs."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        catalog: Catalog,
        start: float,
        outages: Sequence[Outage],
    ) -> None:
        self._instance = instance
        self._catalog = catalog
        self._start = start
        self.now = time.time()
        self.outages = outages
        self._states: dict[str, Any] = {
            state.instigator_name: state for state in instance.all_instigator_state()
        }
        self.definitions = self._read_definitions()
        self._names = sorted({one.schedule for one in self.definitions})
        self.kept_since = self._kept_since()
        self._made: dict[str, dict[str | None, list[Made]]] = {}
        self._there: dict[str, tuple[frozenset[str] | None, PartitionEvents]] = {}
        self._definitions_of: dict[str, dg.PartitionsDefinition[Any] | None] = {}
        self._owed: dict[tuple[str, float], Owes] = {}

    @property
    def ticks(self) -> Ticks:
        return _local_ticks

    def _kept_since(self) -> float:
        """Since when Dagster has deleted no tick of these schedules."""
        states = [state for name, state in self._states.items() if name in self._names]
        kinds = {state.instigator_type for state in states}
        days = [
            day
            for kind in kinds
            for day in self._instance.get_tick_retention_settings(kind).values()
            if day > 0
        ]
        return self.now - min(days) * 86400 if days else 0.0

    def _read_definitions(self) -> Sequence[Definition]:
        log = read_definitions(self._catalog.project)
        known = latest(log)
        stated = stated_definitions(self._catalog.manifest, self.now)
        for one in (one for name, one in stated.items() if name not in known):
            # Dagster knows since when it has been running one that is older than the log.
            data = getattr(self._states.get(one.schedule), "instigator_data", None)
            since = getattr(data, "start_timestamp", None)
            if since is not None:
                log.append(replace(one, at=since))
        return log + switches(log, self.now, switch_states(self._states.values()))

    def evaluations(self) -> Iterable[Evaluation]:
        for name, (origin, selector) in self._ids().items():
            for tick in self._instance.get_ticks(origin, selector, after=self._start - 1):
                error = tick.tick_data.error
                yield Evaluation(
                    name,
                    datetime.fromtimestamp(tick.timestamp, UTC),
                    _ENDED[tick.status.value],
                    tick.end_timestamp,
                    tick.skip_reason or (error_line(error) if error is not None else None),
                )

    def _ids(self) -> dict[str, tuple[str, str]]:
        """By what Dagster finds the ticks of each schedule, those that were removed too."""
        states = [self._states[name] for name in self._names if name in self._states]
        location, repository = LOCATION, _REPOSITORY
        if states:
            selector = states[0].repository_selector
            location, repository = selector.location_name, selector.repository_name
        ids: dict[str, tuple[str, str]] = {}
        for name in self._names:
            state = self._states.get(name)
            if state is not None:
                ids[name] = state.instigator_origin_id, state.selector_id
            elif (found := schedule_id(location, repository, name)) is not None:
                ids[name] = "", found
        return ids

    @cached_property
    def _runs(self) -> dict[tuple[str, float], list[RunRecord]]:
        """The runs of schedules by schedule and tick, the oldest first."""
        if not self._names:
            return {}
        records = self._instance.get_run_records(
            RunsFilter(
                tags={SCHEDULE_TAG: self._names},
                created_after=datetime.fromtimestamp(self._start, UTC),
            ),
            ascending=True,
        )
        runs: dict[tuple[str, float], list[RunRecord]] = {}
        for record in records:
            tags = record.dagster_run.tags
            if due := tags.get(TICK_TAG):
                at = datetime.fromisoformat(due).timestamp()
                runs.setdefault((tags[SCHEDULE_TAG], at), []).append(record)
        return runs

    def runs(self, schedule: str, at: float) -> Sequence[TickRun]:
        return [self._run(record) for record in self._runs.get((schedule, at), ())]

    def _run(self, record: RunRecord) -> TickRun:
        run = record.dagster_run
        return TickRun(
            run.run_id,
            record.create_timestamp.timestamp(),
            run.status is DagsterRunStatus.SUCCESS if run.is_finished else None,
            tuple(self._catalog.names.notebook(key) for key in run.asset_selection or ()),
            run.tags.get(PARTITION_NAME_TAG),
        )

    def failure(self, run: TickRun) -> str | None:
        kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
        of_run: str | None = None
        for log in self._instance.all_logs(run.id, of_type=kinds):
            event = log.dagster_event
            if event is None:
                continue
            if event.event_type is DagsterEventType.STEP_FAILURE:
                return read_failure(event.step_failure_data).reason
            of_run = run_failure_line(event)
        return of_run

    def owes(self, notebook: str, at: datetime) -> Owes | None:
        if notebook not in self._catalog.entries:
            return None
        try:
            definition = self._partitions(notebook)
        except PartitionError:
            return None
        if definition is None:
            return Owes((None,), anew=True)
        key = notebook, at.timestamp()
        if key not in self._owed:
            with dg.partition_loading_context(at, self._instance):
                keys = newest_keys(definition)
            self._owed[key] = Owes(tuple(keys), anew=time_dimension(definition) is None)
        return self._owed[key]

    def _partitions(self, notebook: str) -> dg.PartitionsDefinition[Any] | None:
        if notebook not in self._definitions_of:
            self._definitions_of[notebook] = build_partitions(
                self._catalog.entries[notebook].spec, cache=self._catalog.project.state / "cache"
            )
        return self._definitions_of[notebook]

    def made(self, notebook: str, key: str | None) -> Sequence[Made]:
        if notebook not in self._made:
            self._made[notebook] = self._events(notebook)
        known = self._made[notebook]
        if key is not None and key not in known:
            asset = self._catalog.names.key(notebook)
            stored, events = self._before(notebook)
            status = partition_status(self._instance, asset, [key], stored=stored, events=events)
            there = key in status.materialized | status.skipped
            known[key] = [Made(0.0)] if there else []
        return known.get(key, ())

    def _before(self, notebook: str) -> tuple[frozenset[str] | None, PartitionEvents]:
        """What there is of a notebook, read once: each tick that made nothing asks for its key."""
        if notebook not in self._there:
            asset = self._catalog.names.key(notebook)
            stored = stored_keys(self._catalog.project.store, self._catalog.entries[notebook])
            self._there[notebook] = stored, partition_events(self._instance, [asset])[asset]
        return self._there[notebook]

    def _events(self, notebook: str) -> dict[str | None, list[Made]]:
        """When it was made, or said that there is nothing to do, since the account's start."""
        found: dict[str | None, list[Made]] = {}
        records_filter = dg.AssetRecordsFilter(
            asset_key=self._catalog.names.key(notebook), after_timestamp=self._start
        )
        for fetch in (self._instance.fetch_materializations, self._instance.fetch_observations):
            cursor: str | None = None
            more = True
            while more:
                page = fetch(records_filter, limit=_PAGE, cursor=cursor)
                for record in page.records:
                    observation = record.asset_observation
                    if observation is None or SKIPPED_METADATA in observation.metadata:
                        made = Made(record.timestamp, record.run_id)
                        found.setdefault(record.partition_key, []).append(made)
                cursor, more = page.cursor, page.has_more
        for times in found.values():
            times.sort(key=lambda made: made.at)
        return found


def _local_ticks(crons: Sequence[str], zone: str, after: float) -> Iterator[datetime]:
    local = ZoneInfo(zone)
    for tick in cron_ticks(crons, zone, after):
        yield tick.astimezone(local)
