"""One run of a notebook, and what it reports to Dagster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from research_jobs.errors import ParameterError, ResearchJobsError
from research_jobs.notebook.parameters import convert_parameters, missing_parameters
from research_jobs.orchestration.compat.assets import data_version_tags, partition_tags
from research_jobs.orchestration.execution.delivering import Delivering
from research_jobs.orchestration.execution.io_manager import StagedRun
from research_jobs.orchestration.execution.reports import (
    Made,
    expected_report,
    make_run_report,
    run_folder,
)
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.metadata import (
    Metadata,
    code_block,
    fit,
    materialization_metadata,
    outcome_metadata,
)
from research_jobs.orchestration.model.partitions import parameter_values, partition_key_of
from research_jobs.orchestration.model.status import FAILED_METADATA as FAILED
from research_jobs.orchestration.model.status import SKIPPED_METADATA as SKIPPED
from research_jobs.orchestration.model.tried import Adopted
from research_jobs.outcome import Failure, Outcome, State, failed
from research_jobs.protocol import Keep, PartitionKey
from research_jobs.report.making import start_maker
from research_jobs.store.commit import Staging, open_staging, refuse_foreign
from research_jobs.store.content import content_version
from research_jobs.store.layout import output_path
from research_jobs.store.presence import refuse_unmounted
from research_jobs.store.view import View
from research_jobs.supervisor.kept import was_kept
from research_jobs.supervisor.request import build_request
from research_jobs.supervisor.run import CancelToken
from research_jobs.supervisor.shared import shared_supervisor

__all__ = [
    "FAILED",
    "SKIPPED",
    "Ended",
    "TrialStore",
    "Work",
    "fail_at_once",
    "failure",
    "headline",
    "materialization",
    "observation",
    "publish",
    "refusal",
    "set_aside",
]


CAPTURE = "capture.jsonl"


@dataclass(frozen=True)
class Ended:
    """A run that ended: its outcome, and what there is still to do with it.

    Parameters
    ----------
    outcome : Outcome
    partition : PartitionKey or None
    staged : StagedRun or None
        Its outputs, not published yet; None when it has none.
    data_version : str or None
    capture : Path or None
        What its cells showed.
    report : dict
        Metadata that leads to its report, once `Work.reported` has made it.
    given : mapping of str to object
        The parameters that it set.
    """

    outcome: Outcome
    partition: PartitionKey | None = None
    staged: StagedRun | None = None
    data_version: str | None = None
    capture: Path | None = None
    report: Metadata = field(default_factory=dict[str, Any])
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def unstored(self, reason: str) -> Ended:
        """The same, where its outputs could not be stored."""
        return replace(self, outcome=failed(Failure(reason), self.outcome))


@dataclass(frozen=True)
class TrialStore:
    """Where runs that do not count put their outputs, and what they read.

    Parameters
    ----------
    store : str
        A folder, whose outputs hide the project's own.
    pins : mapping of (str, tuple of str) to str
    hidden : set of (str, tuple of str)
        As in `View`.
    """

    store: str
    pins: Mapping[tuple[str, tuple[str, ...]], str] = field(
        default_factory=dict[tuple[str, tuple[str, ...]], str]
    )
    hidden: Collection[tuple[str, tuple[str, ...]]] = frozenset()


@dataclass(frozen=True)
class Work:
    """Everything that the runs of one step share."""

    catalog: Catalog
    entry: Entry
    run_id: str
    step_key: str
    parameters: Mapping[str, Any]
    stdout: int
    stderr: int
    delivering: Delivering | None = None
    trial: TrialStore | None = None
    #: from Dagster's partition key: whether the process of a run that fails stays
    keep: Callable[[str | None], Keep] | None = None

    def run(
        self, key: str | None, cancel: CancelToken, slot: AbstractContextManager[Any] | None = None
    ) -> Ended:
        """Run the notebook once.

        Parameters
        ----------
        key : str or None
            Dagster's partition key.
        cancel : CancelToken
        slot : context manager, optional
            Held while the notebook's process runs, and not for what comes before and after.

        Raises
        ------
        ResearchJobsError
            When it cannot even be started: parameters, the partition's key, the store.
        """
        project, spec = self.catalog.project, self.entry.spec
        partition = partition_key_of(spec, key) if key is not None else None
        adopted = self.catalog.adopted.get((self.entry.name, key))
        if adopted is not None:
            return self._adopt(adopted, key, partition)
        parameters = self._parameters_of(partition)
        folder = run_folder(project, self.run_id, self.step_key, key)
        if self.trial is not None:
            trial = self.trial
            View(folder, project.store, trial.store, trial.pins, trial.hidden).write()
        elif spec.outputs and spec.io_manager is None:
            refuse_foreign(project.store, self.entry.name, list(spec.outputs), partition)
        keep = self.keep(key) if self.keep is not None else None
        staging = self._open_staging(self._store)
        try:
            request = build_request(
                project,
                self.entry.notebook,
                spec,
                self.catalog.manifest,
                run_id=self.run_id,
                step_key=self.step_key,
                parameters=parameters,
                partition=partition,
                staging=str(staging.path) if staging else None,
                capture_path=str(folder / CAPTURE),
                view=str(folder),
                trying=self.trial is not None,
                keep=keep,
            )
            start_maker()  # warm by the time that the notebook has ended
            with slot or nullcontext():
                outcome = shared_supervisor(self.catalog.preload).run(
                    request,
                    stdout=self.stdout,
                    stderr=self.stderr,
                    isolation=spec.isolation,
                    python=spec.python,
                    environment=self.entry.environment,
                    cancel=cancel,
                )
            data_version = content_version(outcome.outputs)
            ended = Ended(
                replace(outcome, notebook=self.entry.name, run_id=self.run_id, partition=key),
                partition,
                self._staged(outcome, staging, partition, data_version),
                data_version,
                folder / CAPTURE,
                given=parameters,
            )
        except BaseException:
            if staging is not None:
                staging.close()
            raise
        finally:
            if keep is not None:
                was_kept(keep)
        if staging is not None and ended.staged is None:
            staging.close()
        return ended

    def _open_staging(self, store: str) -> Staging | None:
        if not self.entry.spec.outputs:
            return None
        refuse_unmounted(self.catalog.project)
        return open_staging(store, self.run_id)

    def _adopt(self, adopted: Adopted, key: str | None, partition: PartitionKey | None) -> Ended:
        """A run that was tried, staged as if it had ended now.

        Raises
        ------
        ResearchJobsError
            When something that it depends on has changed since.
        """
        project, spec = self.catalog.project, self.entry.spec
        moved = next(adopted.moved(project.store, alone=True), None)
        if moved is not None:
            raise ResearchJobsError(f"not published as it was tried: {moved}")
        folder = run_folder(project, self.run_id, self.step_key, key)
        if spec.outputs and spec.io_manager is None:
            refuse_foreign(project.store, self.entry.name, list(spec.outputs), partition)
        staging = self._open_staging(project.store)
        try:
            staged = adopted.lay_out(project.store, folder, staging.path if staging else folder)
            outcome = replace(adopted.outcome, run_id=self.run_id, outputs=staged)
            return Ended(
                outcome,
                partition,
                self._staged(outcome, staging, partition, adopted.data_version),
                adopted.data_version,
                folder / CAPTURE,
                given=adopted.given,
            )
        except BaseException as error:
            if staging is not None:
                staging.close()
            if isinstance(error, OSError):
                why = f"what was tried cannot be read: {error.strerror or error}"
                raise ResearchJobsError(why) from error
            raise

    def reported(self, ended: Ended, cancel: CancelToken) -> Ended:
        """Make a run's report, once its outputs are published or will not be.

        Parameters
        ----------
        ended : Ended
        cancel : CancelToken

        Returns
        -------
        Ended
            With the metadata that leads to the report.
        """
        if ended.capture is None:
            return ended
        page, entries = make_run_report(
            self.catalog,
            self.entry,
            ended.outcome,
            capture=ended.capture,
            step_key=self.step_key,
            cancel=cancel,
            delivering=self.delivering if ended.outcome.state is State.SUCCEEDED else None,
            made=Made(ended.data_version, ended.given, self.trial is None),
        )
        return replace(ended, outcome=replace(ended.outcome, report=page), report=entries)

    def expecting_report(self, ended: Ended) -> Ended:
        """With what leads to the report that is made after somebody else stored the outputs."""
        page, entries = expected_report(self.catalog, self.entry, ended.outcome, self.step_key)
        return replace(ended, outcome=replace(ended.outcome, report=page), report=entries)

    def _parameters_of(self, partition: PartitionKey | None) -> dict[str, Any]:
        """The run's parameters: those of the step, and those that the partition sets."""
        notebook = self.entry.notebook
        parameters = dict(self.parameters)
        if partition is not None:
            types = {parameter.name: parameter.type for parameter in notebook.parameters}
            parameters |= convert_parameters(
                notebook.parameters,
                parameter_values(self.entry.spec, partition, types),
                notebook=notebook.name,
                where=f"partition {partition.key}",
            )
        given = {**parameters, **self.entry.spec.secret_parameters}
        missing = missing_parameters(notebook.parameters, given)
        if missing:
            raise ParameterError(
                f"{notebook.name} needs a value for its parameter '{missing[0]}'",
                hint="Set it in the launchpad, by -p, or under parameters in the manifest.",
            )
        return parameters

    @property
    def _store(self) -> str:
        """Where outputs go."""
        return self.catalog.project.store if self.trial is None else self.trial.store

    def _staged(
        self,
        outcome: Outcome,
        staging: Staging | None,
        partition: PartitionKey | None,
        data_version: str | None,
    ) -> StagedRun | None:
        """What a run that succeeded has to publish."""
        if staging is None or outcome.state is not State.SUCCEEDED:
            return None
        return StagedRun(
            store=self._store,
            notebook=self.entry.name,
            run_id=self.run_id,
            outputs=outcome.outputs,
            staging=staging,
            partition=partition,
            keep={name: output.keep for name, output in self.entry.spec.outputs.items()},
            group=self.catalog.manifest.project.group,
            data_version=data_version,
        )

    def metadata(
        self, ended: Ended, previous: Mapping[str, int], *, stored: bool = True
    ) -> Metadata:
        """What the materialisation of a run says."""
        return materialization_metadata(
            self.published(ended, stored=stored),
            code_version=self.entry.notebook.code_version or None,
            previous_rows=previous,
            partitioned=ended.partition is not None,
            report=ended.report,
        )

    def published(self, ended: Ended, *, stored: bool = True) -> Outcome:
        """The outcome of a run with its outputs where others read them, if we store them."""
        store, name, part = self.catalog.project.store, self.entry.name, ended.partition
        outputs = tuple(
            replace(output, path=output_path(store, name, output.name, part) if stored else "")
            for output in ended.outcome.outputs
        )
        return replace(ended.outcome, outputs=outputs)


def publish(ended: Ended) -> dict[str, int]:
    """Publish a run's outputs; the rows that each had before."""
    if ended.staged is None:
        return {}
    return {
        output.name: output.previous_rows
        for output in ended.staged.publish()
        if output.previous_rows is not None
    }


def materialization(
    asset: dg.AssetKey,
    work: Work,
    ended: Ended,
    previous: Mapping[str, int],
    tags: Mapping[str, str],
) -> dg.AssetMaterialization:
    """What is recorded of one partition out of a range."""
    return dg.AssetMaterialization(
        asset_key=asset,
        partition=ended.outcome.partition,
        metadata=work.metadata(ended, previous),
        tags={
            **tags,
            **partition_tags(ended.outcome.partition),
            **data_version_tags(ended.data_version),
        },
    )


def observation(
    asset: dg.AssetKey, outcome: Outcome, report: Metadata | None = None
) -> dg.AssetObservation:
    """What stays on the asset of a run that made nothing."""
    kind = SKIPPED if outcome.state is State.SKIPPED else FAILED
    reason = outcome.reason or ""
    entries: Metadata = {kind: _text(reason), **(report or {}), **outcome_metadata(outcome)}
    if kind == SKIPPED:
        entries["skip_reason"] = _text(reason)
    return dg.AssetObservation(
        asset_key=asset,
        partition=outcome.partition,
        description=reason,
        metadata=fit(entries),
        tags={kind: "true", **partition_tags(outcome.partition)},
    )


def failure(ended: Ended, extra: Metadata | None = None) -> dg.Failure:
    """What the step of a run that did not succeed fails with: the place first."""
    outcome, failed = ended.outcome, ended.outcome.failure
    entries: Metadata = {"ending": _text(outcome.state.value), **ended.report, **(extra or {})}
    if failed is not None and failed.traceback:
        entries["traceback"] = dg.MetadataValue.md(code_block(failed.traceback, "pytb"))
    if failed is not None and failed.cell_source:
        entries["cell"] = dg.MetadataValue.md(code_block(failed.cell_source, "python"))
    return dg.Failure(
        description=headline(outcome), metadata=fit(entries | outcome_metadata(outcome))
    )


def headline(outcome: Outcome) -> str:
    """Why a run did not succeed: the place first."""
    if outcome.failure is None:
        return f"{outcome.label}: {outcome.state.words}"
    return outcome.failure.headline


def fail_at_once(entry: Entry, error: ResearchJobsError, *, began: bool = False) -> NoReturn:
    """A mistake that no further attempt would mend; by default one that let nothing begin."""
    why = Failure(error.headline, traceback=error.details or "")
    outcome = Outcome(State.BLOCKED, failure=why, notebook=entry.name)
    if began:
        outcome = failed(why, outcome)
    entries: Metadata = {"ending": _text(outcome.state.value), **outcome_metadata(outcome)}
    if error.details:
        entries["details"] = dg.MetadataValue.md(code_block(error.details))
    raise dg.Failure(
        description=error.headline, metadata=fit(entries), allow_retries=False
    ) from None


def set_aside(staged: StagedRun | None) -> Metadata:
    """Keep refused outputs aside and say where."""
    if staged is None:
        return {}
    try:
        return {"kept_aside": dg.MetadataValue.path(str(staged.reject()))}
    except ResearchJobsError as error:
        return {"kept_aside": _text(f"nowhere: {error.headline}")}


def refusal(ended: Ended, aside: Metadata) -> Ended:
    """A run whose outputs are not published, for checks failed."""
    where = getattr(aside.get("kept_aside"), "value", None)
    kept = f" What was made is in {where}" if where else ""
    reason = f"{ended.outcome.refusal}. The previous outputs stay.{kept}"
    outcome = replace(ended.outcome, state=State.REFUSED, failure=Failure(reason), outputs=())
    return replace(ended, outcome=outcome)


def _text(value: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.text(value)
