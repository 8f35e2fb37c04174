"""Writes runs of days long past into an instance, by its own storage: for tests of retention."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterInstance, DagsterRun, DagsterRunStatus, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationPlanned,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    EngineEventData,
    StepMaterializationData,
)
from dagster._core.execution.plan.objects import (
    StepFailureData,
    StepSuccessData,
    UserFailureData,
)
from dagster._core.storage.compute_log_manager import ComputeIOType

from research_jobs.orchestration.definitions.jobs import ALL_ASSETS_JOB, op_names
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.metadata import outcome_metadata
from research_jobs.orchestration.model.status import SKIPPED_METADATA
from research_jobs.outcome import Failure, Outcome, State

TOOK_S = 20.0
STARTED, SUCCEEDED, FAILED = "PIPELINE_START", "PIPELINE_SUCCESS", "PIPELINE_FAILURE"


@dataclass
class Past:
    """A history that is written run by run, the oldest first.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    last : dict
        Of each asset its last data version and the number of its event.
    """

    instance: DagsterInstance
    catalog: Catalog
    last: dict[str, tuple[str, int]] = field(default_factory=dict)

    def run(
        self,
        at: float,
        became: Mapping[str, str | None],
        *,
        partition: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """One run.

        Parameters
        ----------
        at : float
            When it began, Unix time in seconds.
        became : mapping
            Notebook to the data version that it made, None where it failed, "skip".
        partition : str, optional
        tags : mapping, optional

        Returns
        -------
        str
            Its id.
        """
        run_id = str(uuid.uuid4())
        own = {} if partition is None else {"dagster/partition": partition}
        keys = frozenset(self.catalog.names.key(name) for name in became)
        run = DagsterRun(
            ALL_ASSETS_JOB,
            run_id,
            status=DagsterRunStatus.STARTED,
            asset_selection=keys,
            tags={"dagster/code_location": "research_jobs", **own, **(tags or {})},
        )
        began = datetime.fromtimestamp(at, UTC)
        self.instance.run_storage.add_historical_run(run, began)
        for name, event in self._events(run_id, became, partition, at):
            self._store(run_id, event, at + TOOK_S / 2)
            if event.event_type_value == "ASSET_MATERIALIZATION":
                number = self.instance.event_log_storage.get_maximum_record_id()
                self.last[name] = became[name] or "", number or 0
        ending = FAILED if None in became.values() else SUCCEEDED
        for kind, moment in ((STARTED, at), (ending, at + TOOK_S)):
            event = DagsterEvent(kind, ALL_ASSETS_JOB)
            self._store(run_id, event, moment)
            self.instance.run_storage.handle_run_event(
                run_id, event, datetime.fromtimestamp(moment, UTC)
            )
        logs = self.instance.compute_log_manager
        key = logs.build_log_key_for_run(run_id, "abc")
        with logs.open_log_stream(key, ComputeIOType.STDOUT) as out:
            out.write("x" * 200)
        return run_id

    def _store(self, run_id: str, event: DagsterEvent, at: float) -> None:
        entry = EventLogEntry(
            error_info=None,
            level=logging.INFO,
            user_message="",
            run_id=run_id,
            timestamp=at,
            step_key=event.step_key,
            job_name=ALL_ASSETS_JOB,
            dagster_event=event,
        )
        self.instance.event_log_storage.store_event(entry)

    def _events(
        self, run_id: str, became: Mapping[str, str | None], partition: str | None, at: float
    ) -> Iterator[tuple[str, DagsterEvent]]:
        ops = op_names(self.catalog.entries)
        for name in became:
            planned = AssetMaterializationPlannedData(self.catalog.names.key(name), partition)
            yield (
                name,
                DagsterEvent.build_asset_materialization_planned_event(
                    ALL_ASSETS_JOB, ops[name], planned
                ),
            )
        for name, made in became.items():
            key, op = self.catalog.names.key(name), ops[name]

            def event(kind: str, data: Any = None, op: str = op) -> DagsterEvent:
                return DagsterEvent(kind, ALL_ASSETS_JOB, step_key=op, event_specific_data=data)

            yield name, event("STEP_START")
            yield name, event("ENGINE_EVENT", EngineEventData(metadata={"log": "x" * 2000}))
            state = State.FAILED if made is None else State.SUCCEEDED
            outcome = Outcome(
                State.SKIPPED if made == "skip" else state,
                notebook=name,
                run_id=run_id,
                started_at=at,
                duration_s=TOOK_S,
                skip_reason="closed" if made == "skip" else None,
                failure=Failure("KeyError: 'Close'") if made is None else None,
            )
            metadata = outcome_metadata(outcome)
            if made is None:
                said = UserFailureData("failed", "a.py:1: KeyError: 'Close'", metadata)
                yield name, event("STEP_FAILURE", StepFailureData(None, said))
                continue
            if made == "skip":
                observed = dg.AssetObservation(
                    key, partition=partition, metadata={**metadata, SKIPPED_METADATA: "closed"}
                )
                yield name, event("ASSET_OBSERVATION", AssetObservationData(observed))
            else:
                check = AssetCheckEvaluationPlanned(asset_key=key, check_name="rows")
                evaluation = AssetCheckEvaluation(
                    asset_key=key, check_name="rows", passed=True, metadata={}
                )
                yield name, event("ASSET_CHECK_EVALUATION_PLANNED", check)
                yield name, event("ASSET_CHECK_EVALUATION", evaluation)
                made_of = dg.AssetMaterialization(
                    key, partition=partition, metadata=metadata, tags=self._tags(name, made)
                )
                yield name, event("ASSET_MATERIALIZATION", StepMaterializationData(made_of))
            yield name, event("STEP_SUCCESS", StepSuccessData(TOOK_S * 1000))

    def _tags(self, name: str, data_version: str) -> dict[str, str]:
        """What a materialisation says that it was made of, as Dagster does."""
        entry = self.catalog.entries[name]
        tags = {
            "dagster/code_version": entry.notebook.code_version,
            "dagster/data_version": data_version,
            "dagster/data_version_is_user_provided": "true",
        }
        for parent in entry.upstream:
            version, number = self.last.get(parent, ("INITIAL", 0))
            asset = self.catalog.names.key(parent).to_user_string()
            tags[f"dagster/input_data_version/{asset}"] = version
            tags[f"dagster/input_event_pointer/{asset}"] = str(number or "NULL")
        return tags
