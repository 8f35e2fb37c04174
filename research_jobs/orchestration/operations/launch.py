"""Run notebooks now, in this process: one Dagster run on the project's instance.

No daemon and no webserver is needed. Where they run, the UI shows the run as it goes, under the
same code location as the runs that it launches itself.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster import DagsterEventType as Kind

from research_jobs.orchestration.compat.assets import (
    PARTITION_NAME_TAG,
    execute_run,
    job_origin,
)
from research_jobs.orchestration.compat.errors import error_info
from research_jobs.orchestration.compat.instance import capture_interrupts
from research_jobs.orchestration.compat.storage import held_connections
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.causes import (
    error_line,
    failure_reason,
    run_failure_line,
)
from research_jobs.orchestration.model.instance import LOCATION
from research_jobs.orchestration.model.metadata import read_failure, read_outcome
from research_jobs.orchestration.model.workers import command_tags
from research_jobs.orchestration.operations.plan import Batch
from research_jobs.outcome import Failure, Outcome, State, failed, labelled
from research_jobs.process import gc_resume

logger = logging.getLogger("research_jobs")

__all__ = [
    "Launcher",
    "Note",
    "Seen",
    "Started",
    "blocked",
    "free_slots",
    "interruptible",
]


@dataclass(frozen=True)
class Started:
    """A notebook began, or began again."""

    label: str


@dataclass(frozen=True)
class Note:
    """Something worth a line while notebooks run."""

    text: str


Seen = Started | Note | Outcome
"""What `Launcher.run` tells as it goes."""


class Launcher:
    """Runs a project's notebooks in this process.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    definitions : Definitions
        Of `research_jobs.orchestration.definitions.factory.build_defs`.
    """

    def __init__(
        self, instance: dg.DagsterInstance, catalog: Catalog, definitions: dg.Definitions
    ) -> None:
        self.instance = instance
        self.catalog = catalog
        self.repository = definitions.get_repository_def()
        self.graph = self.repository.asset_graph

    def run(
        self,
        batch: Batch,
        *,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] = {},
    ) -> Iterator[Seen]:
        """One Dagster run.

        Parameters
        ----------
        batch : Batch
        config : mapping, optional
            Run config below ``ops``.
        tags : mapping of str to str
            Besides those that every run of a command has.

        Yields
        ------
        Started, Note or Outcome
            As it happens. Those that could not run because another failed come last.
        """
        if batch.partition is not None:
            tags = {**tags, PARTITION_NAME_TAG: batch.partition}
        # A run begins with an event for each of its assets.
        with held_connections(self.instance, one_transaction=True):
            job, run = self.create(batch.keys, config or {}, tags)
        watch = _Watch(run.run_id, batch, {self.step_key(key): key for key in batch.keys}, self)
        with interruptible():
            try:
                gc_resume()
                for event in execute_run(job, run, self.instance):
                    yield from watch.see(event)
            except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
                watch.interrupted = True
            except Exception as error:  # noqa: BLE001 - whatever broke the run, it is shown
                watch.broke(error)
            finally:
                free_slots(self.instance, run.run_id)
        yield from watch.rest()

    def create(
        self, assets: Sequence[dg.AssetKey], ops: Mapping[str, Any], tags: Mapping[str, str]
    ) -> tuple[dg.JobDefinition, dg.DagsterRun]:
        """A run of some assets that this process is to work on, and its job."""
        job = self.repository.get_implicit_job_def_for_assets(assets)
        assert job is not None, "Dagster has one job over all assets"
        run_id = str(uuid.uuid4())
        # Dagster prints each event otherwise: what happens is ours to show.
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        run = self.instance.create_run_for_job(
            job_def=job,
            run_id=run_id,
            run_config={**quiet, "ops": dict(ops)},
            tags={**command_tags(run_id), **tags},
            asset_selection=frozenset(assets),
            remote_job_origin=job_origin(job.name, LOCATION),
        )
        return job, run

    def step_key(self, key: dg.AssetKey) -> str:
        return self.repository.assets_defs_by_key[key].node_def.name

    def partition_for(self, key: dg.AssetKey, batch: Batch) -> str | None:
        """The partition of an asset in a batch."""
        return batch.partition if self.graph.get(key).partitions_def is not None else None


class _Watch:
    """Turns the events of a run into outcomes."""

    def __init__(
        self, run_id: str, batch: Batch, steps: Mapping[str, dg.AssetKey], launcher: Launcher
    ) -> None:
        self.run_id = run_id
        self.interrupted = False
        self._batch = batch
        self._steps = steps
        self._launcher = launcher
        self._left = dict(steps)
        self._since: dict[str, float] = {}
        self._told: dict[str, Outcome] = {}
        self._unsuccessful: set[str] = set()
        self._run_error: str | None = None

    def broke(self, error: Exception) -> None:
        """Note that the run itself failed, and not one of its notebooks."""
        self._run_error = error_line(error_info(error))

    def see(self, event: dg.DagsterEvent) -> Iterator[Seen]:
        """One event of the run."""
        step = event.step_key
        if event.event_type is Kind.RUN_FAILURE:
            self._run_error = run_failure_line(event) or self._run_error
        if step is None or step not in self._left:
            return
        match event.event_type:
            case Kind.STEP_START | Kind.STEP_RESTARTED:
                self._since.setdefault(step, time.monotonic())
                yield Started(self._label(step))
            case Kind.STEP_UP_FOR_RETRY:
                why = failure_reason(event.event_specific_data).line
                yield Note(f"{self._label(step)} failed, trying again: {why}")
            case Kind.ASSET_MATERIALIZATION:
                metadata = event.materialization.metadata
                self._told[step] = read_outcome(metadata, State.SUCCEEDED)
            case Kind.ASSET_OBSERVATION:
                said = event.asset_observation_data.asset_observation
                skipped = read_outcome(said.metadata, State.SKIPPED, said.description)
                self._told.setdefault(step, skipped)
            case Kind.STEP_SUCCESS:
                yield self._ended(step, self._told.get(step) or Outcome(State.SKIPPED))
            case Kind.STEP_FAILURE:
                outcome = self._ended(step, read_failure(event.step_failure_data))
                self._unsuccessful.add(outcome.notebook)
                yield outcome
            case Kind.STEP_SKIPPED:
                why = Failure("what it depends on gave nothing")
                yield self._ended(step, Outcome(State.BLOCKED, failure=why))
            case _:
                pass

    def rest(self) -> Iterator[Outcome]:
        """What no event ended: cancelled, or behind a failure."""
        for step in list(self._left):
            if self.interrupted:
                yield self._ended(step, Outcome(State.CANCELLED, failure=Failure("interrupted")))
            elif step in self._since and self._run_error:
                yield self._ended(step, failed(Failure(self._run_error)))
            else:
                yield self._ended(step, self._blocked(self._steps[step]))

    def _blocked(self, key: dg.AssetKey) -> Outcome:
        """A notebook that did not come to its turn: what it reads failed, or the run as a whole."""
        catalog = self._launcher.catalog
        upstream = catalog.upstream_of(catalog.names.notebook(key))
        return blocked(self._unsuccessful & upstream, self._run_error)

    def _ended(self, step: str, outcome: Outcome) -> Outcome:
        key = self._left.pop(step)
        since = self._since.get(step)
        taken = outcome.duration_s
        if not taken and since is not None:
            taken = round(time.monotonic() - since, 3)
        return replace(
            outcome,
            notebook=self._launcher.catalog.names.notebook(key),
            run_id=self.run_id,
            partition=self._launcher.partition_for(key, self._batch),
            duration_s=taken,
        )

    def _label(self, step: str) -> str:
        key = self._steps[step]
        partition = self._launcher.partition_for(key, self._batch)
        return labelled(self._launcher.catalog.names.notebook(key), partition)


def blocked(by: Iterable[str], otherwise: str | None = None) -> Outcome:
    """A notebook that did not run: these failed, else the run as a whole."""
    names = tuple(sorted(by))
    why = f"what it depends on failed: {', '.join(names)}" if names else otherwise
    reason = Failure(why or "its run ended before its turn")
    return Outcome(State.BLOCKED, failure=reason, blocked_by=names)


def free_slots(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give back what an ended run holds in pools; a database that is away does so later."""
    try:
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    except Exception as error:  # noqa: BLE001 - the run's own ending is what counts
        why = error_line(error_info(error))
        logger.warning("The slots of run %s could not be given back: %s", run_id, why)


@contextmanager
def interruptible() -> Generator[None]:
    """Ctrl-C and a polite kill end the run, and what it started, in order."""
    with capture_interrupts():
        yield
