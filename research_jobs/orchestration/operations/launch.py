"""Run notebooks now, in this process: one Dagster run on the project's instance.

No daemon and no webserver is needed. Where they run, the UI shows the run as it goes, under the
same code location as the runs that it launches itself.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    is_interruption,
    run_failure_line,
)
from research_jobs.orchestration.model.instance import LOCATION
from research_jobs.orchestration.model.metadata import rows_of
from research_jobs.orchestration.model.workers import command_tags
from research_jobs.orchestration.operations.plan import Batch
from research_jobs.process import gc_resume

logger = logging.getLogger("research_jobs")

__all__ = [
    "Launcher",
    "Note",
    "Outcome",
    "Seen",
    "Started",
    "free_slots",
    "interruptible",
    "number_of",
    "text_of",
]


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook, or of one partition of it.

    Parameters
    ----------
    notebook : str
    ending : str
        One of `research_jobs.protocol.Ending`, or ``"not run"`` when what it depends on failed.
    partition : str or None
    error : str or None
        The one line that says why; a skip's reason.
    details : str
        The notebook's own traceback and the cell, for a person.
    duration_s : float or None
    outputs : mapping of str to dict
        Name to ``{"path": ..., "rows": ...}``.
    report : str or None
        Where its report is.
    run_id : str
        Dagster's.
    """

    notebook: str
    ending: str
    run_id: str
    partition: str | None = None
    error: str | None = None
    details: str = ""
    duration_s: float | None = None
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    report: str | None = None

    @property
    def label(self) -> str:
        """str: the notebook and its partition, as a line names them."""
        return f"{self.notebook} [{self.partition}]" if self.partition else self.notebook

    @property
    def ok(self) -> bool:
        """bool: whether it did what it should."""
        return self.ending in ("succeeded", "skipped")

    def as_json(self) -> dict[str, Any]:
        """What ``run --json`` prints of it."""
        return {
            "notebook": self.notebook,
            "partition": self.partition,
            "ending": self.ending,
            "error": None if self.ok else self.error,
            "reason": self.error if self.ending == "skipped" else None,
            "duration_s": self.duration_s,
            "outputs": {name: dict(value) for name, value in self.outputs.items()},
            "report": self.report,
            "run_id": self.run_id,
        }


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

    def run(self, batch: Batch, *, config: Mapping[str, Any] | None = None) -> Iterator[Seen]:
        """One Dagster run.

        Parameters
        ----------
        batch : Batch
        config : mapping, optional
            Run config below ``ops``.

        Yields
        ------
        Started, Note or Outcome
            As it happens. Those that could not run because another failed come last.
        """
        job = self.repository.get_implicit_job_def_for_assets(batch.keys)
        if job is None:  # pragma: no cover - Dagster has one job over all assets
            raise RuntimeError("Dagster made no job of the project's assets")
        selection = frozenset(batch.keys)
        run_id = str(uuid.uuid4())
        tags = command_tags(run_id)
        if batch.partition is not None:
            tags[PARTITION_NAME_TAG] = batch.partition
        # A run begins with an event for each of its assets.
        with held_connections(self.instance, one_transaction=True):
            run = self.instance.create_run_for_job(
                job_def=job,
                run_id=run_id,
                # Dagster prints each event otherwise: what happens is ours to show.
                run_config={
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                    **({"ops": dict(config)} if config else {}),
                },
                tags=tags,
                asset_selection=selection,
                remote_job_origin=job_origin(job.name, LOCATION),
            )
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

    def step_key(self, key: dg.AssetKey) -> str:
        return self.repository.assets_defs_by_key[key].node_def.name

    def outputs_of(
        self, key: dg.AssetKey, metadata: Mapping[str, dg.MetadataValue[Any]]
    ) -> dict[str, Mapping[str, Any]]:
        """Path and rows of each output, from a materialisation's metadata."""
        entry = self.catalog.entries.get(self.catalog.names.notebook(key))
        names = list(entry.spec.outputs) if entry else []
        rows = rows_of(metadata, names)
        return {
            name: {
                "path": text_of(metadata.get("path" if position == 0 else f"{name}/path")),
                "rows": rows.get(name),
            }
            for position, name in enumerate(names)
        }

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
        self._metadata: dict[str, Mapping[str, dg.MetadataValue[Any]]] = {}
        self._materialized: set[str] = set()
        self._descriptions: dict[str, str] = {}
        self._unsuccessful: set[dg.AssetKey] = set()
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
                self._materialized.add(step)
                self._metadata[step] = event.materialization.metadata
            case Kind.ASSET_OBSERVATION:
                observation = event.asset_observation_data.asset_observation
                self._metadata.setdefault(step, observation.metadata)
                self._descriptions[step] = observation.description or ""
            case Kind.STEP_SUCCESS:
                yield self._ended(step, "succeeded" if step in self._materialized else "skipped")
            case Kind.STEP_FAILURE:
                yield self._failed(step, event.step_failure_data)
            case Kind.STEP_SKIPPED:
                yield self._ended(step, "not run", error="what it depends on gave nothing")
            case _:
                pass

    def rest(self) -> Iterator[Outcome]:
        """What no event ended: cancelled, or behind a failure."""
        for step in list(self._left):
            if self.interrupted and step in self._since:
                yield self._ended(step, "cancelled", error="interrupted")
            elif self.interrupted:
                yield self._ended(step, "not run", error="interrupted")
            elif step in self._since and self._run_error:
                yield self._ended(step, "failed", error=self._run_error)
            else:
                yield self._ended(step, "not run", error=self._why_not_run(self._steps[step]))

    def _failed(self, step: str, data: Any) -> Outcome:
        if is_interruption(data):
            return self._ended(step, "cancelled", error="interrupted")
        said = data.user_failure_data
        metadata = said.metadata if said else {}
        self._metadata[step] = metadata
        reason = failure_reason(data)
        ending = text_of(metadata.get("ending")) or "failed"
        kept = (metadata.get(name) for name in ("traceback", "cell", "details"))
        details = [reason.rest, *(_unfenced(value) for value in kept)]
        self._unsuccessful.add(self._steps[step])
        return self._ended(
            step, ending, error=reason.line, details="\n".join(filter(None, details)).strip()
        )

    def _why_not_run(self, key: dg.AssetKey) -> str:
        """Why a notebook did not come to its turn: what it reads failed, or the run as a whole."""
        graph = self._launcher.graph
        failed = [other for other in self._unsuccessful if other in _upstream(graph, key)]
        if failed:
            names = ", ".join(sorted(map(self._launcher.catalog.names.notebook, failed)))
            return f"what it depends on failed: {names}"
        return self._run_error or "its run ended before its turn"

    def _ended(
        self, step: str, ending: str, *, error: str | None = None, details: str = ""
    ) -> Outcome:
        key = self._left.pop(step)
        metadata = self._metadata.get(step, {})
        since = self._since.get(step)
        taken = number_of(metadata.get("duration_s"))
        if taken is None and since is not None:
            taken = round(time.monotonic() - since, 3)
        if ending == "skipped":
            error = text_of(metadata.get("skip_reason")) or self._descriptions.get(step) or error
        return Outcome(
            notebook=self._launcher.catalog.names.notebook(key),
            ending=ending,
            run_id=self.run_id,
            partition=self._launcher.partition_for(key, self._batch),
            error=error,
            details=details,
            duration_s=taken,
            outputs=self._launcher.outputs_of(key, metadata) if step in self._materialized else {},
            report=text_of(metadata.get("report_file")),
        )

    def _label(self, step: str) -> str:
        key = self._steps[step]
        partition = self._launcher.partition_for(key, self._batch)
        name = self._launcher.catalog.names.notebook(key)
        return f"{name} [{partition}]" if partition else name


def text_of(value: Any) -> str | None:
    """A metadata entry as text."""
    found = getattr(value, "value", value)
    return str(found) if found not in (None, "") else None


def _upstream(graph: Any, key: dg.AssetKey) -> set[dg.AssetKey]:
    """All that an asset reads, directly or not."""
    found: set[dg.AssetKey] = set()
    left = [key]
    while left:
        for parent in graph.get(left.pop()).parent_keys:
            if parent not in found and graph.has(parent):
                found.add(parent)
                left.append(parent)
    return found


def free_slots(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give back what an ended run holds in pools; a database that is away does so later."""
    try:
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    except Exception as error:  # noqa: BLE001 - the run's own ending is what counts
        why = error_line(error_info(error))
        logger.warning("The slots of run %s could not be given back: %s", run_id, why)


def _unfenced(value: Any) -> str:
    """A metadata entry that is a fenced block of Markdown, as what is in it."""
    lines = (text_of(value) or "").split("\n")
    if lines[0].startswith("```") and lines[-1].startswith("```"):
        lines = lines[1:-1]
    return "\n".join(lines)


def number_of(value: Any) -> float | None:
    """A metadata entry as a number."""
    found = getattr(value, "value", value)
    return float(found) if isinstance(found, (int, float)) else None


@contextmanager
def interruptible() -> Generator[None]:
    """Ctrl-C and a polite kill end the run, and what it started, in order."""
    with capture_interrupts():
        yield
