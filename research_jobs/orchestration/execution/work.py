"""One run of a notebook, and what Dagster is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from research_jobs.errors import ParameterError, ResearchJobsError
from research_jobs.notebook.parameters import convert_parameters, missing_parameters
from research_jobs.orchestration.compat.assets import data_version_tags, partition_tags
from research_jobs.orchestration.execution.io_manager import StagedRun
from research_jobs.orchestration.execution.reports import report_entries, run_folder
from research_jobs.orchestration.execution.supervisors import shared_supervisor
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.checks import failed_errors
from research_jobs.orchestration.model.data_version import content_version
from research_jobs.orchestration.model.metadata import (
    Metadata,
    code_block,
    fit,
    materialization_metadata,
    run_metadata,
)
from research_jobs.orchestration.model.partitions import parameter_values, partition_key_of
from research_jobs.orchestration.model.status import FAILED_METADATA as FAILED
from research_jobs.orchestration.model.status import SKIPPED_METADATA as SKIPPED
from research_jobs.protocol import CheckOutcome, Ending, PartitionKey, RunResult
from research_jobs.report.making import start_maker
from research_jobs.store.commit import Staging, open_staging, refuse_foreign
from research_jobs.store.layout import output_path
from research_jobs.supervisor.request import build_request
from research_jobs.supervisor.run import CancelToken

__all__ = [
    "FAILED",
    "SKIPPED",
    "Ended",
    "Work",
    "fail_at_once",
    "failure",
    "materialization",
    "observation",
    "publish",
    "refusal",
    "set_aside",
]


@dataclass(frozen=True)
class Ended:
    """A run that ended.

    Parameters
    ----------
    partition : PartitionKey or None
    result : RunResult
    staged : StagedRun or None
        Its outputs, not published yet; None when it has none.
    data_version : str or None
    capture : Path or None
        What its cells showed.
    report : dict
        Metadata that leads to its report, once `Work.reported` has made it.
    """

    partition: PartitionKey | None
    result: RunResult
    staged: StagedRun | None = None
    data_version: str | None = None
    capture: Path | None = None
    report: Metadata = field(default_factory=dict[str, Any])

    @property
    def refused(self) -> list[CheckOutcome]:
        """List of CheckOutcome: the failed checks that keep it from being published."""
        return failed_errors(self.result.checks)


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
        parameters = self._parameters_of(partition)
        folder = run_folder(project, self.run_id, self.step_key, key)
        if spec.outputs and spec.io_manager is None:
            refuse_foreign(project.store, self.entry.name, list(spec.outputs), partition)
        staging = open_staging(project.store, self.run_id) if spec.outputs else None
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
                capture_path=str(folder / "capture.jsonl"),
            )
            start_maker()  # warm by the time that the notebook has ended
            with slot or nullcontext():
                result = shared_supervisor(self.catalog.preload).run(
                    request,
                    stdout=self.stdout,
                    stderr=self.stderr,
                    isolation=spec.isolation,
                    python=spec.python,
                    cancel=cancel,
                )
            ended = Ended(
                partition,
                result,
                self._staged(result, staging, partition),
                content_version(result.outputs),
                folder / "capture.jsonl",
            )
        except BaseException:
            if staging is not None:
                staging.close()
            raise
        if staging is not None and ended.staged is None:
            staging.close()
        return ended

    def reported(
        self,
        ended: Ended,
        cancel: CancelToken,
        *,
        refused: str | None = None,
        failed: str | None = None,
    ) -> Ended:
        """Make a run's report, once its outputs are published or will not be.

        Parameters
        ----------
        ended : Ended
        cancel : CancelToken
        refused, failed : str or None
            Why the outputs are not published: a check, or an error of the store.

        Returns
        -------
        Ended
            With the metadata that leads to the report.
        """
        if ended.capture is None:
            return ended
        entries = report_entries(
            self.catalog,
            self.entry,
            ended.result,
            capture=ended.capture,
            run_id=self.run_id,
            step_key=self.step_key,
            partition=ended.partition,
            unpublished=refused or failed,
            ending="refused" if refused else "failed",
            cancel=cancel,
        )
        return replace(ended, report=entries)

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

    def _staged(
        self, result: RunResult, staging: Staging | None, partition: PartitionKey | None
    ) -> StagedRun | None:
        """What a run that succeeded has to publish."""
        if staging is None or result.ending is not Ending.SUCCEEDED:
            return None
        return StagedRun(
            store=self.catalog.project.store,
            notebook=self.entry.name,
            run_id=self.run_id,
            outputs=result.outputs,
            staging=staging,
            partition=partition,
            keep={name: output.keep for name, output in self.entry.spec.outputs.items()},
            group=self.catalog.manifest.project.group,
        )

    def metadata(
        self, ended: Ended, previous: Mapping[str, int], *, stored: bool = True
    ) -> Metadata:
        """What the materialisation of a run says."""
        store, name = self.catalog.project.store, self.entry.name
        paths = {
            output.name: output_path(store, name, output.name, ended.partition)
            for output in (ended.result.outputs if stored else ())
        }
        return materialization_metadata(
            ended.result,
            paths=paths,
            code_version=self.entry.notebook.code_version or None,
            previous_rows=previous,
            partitioned=ended.partition is not None,
            report=ended.report,
        )


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
    key: str,
    work: Work,
    ended: Ended,
    previous: Mapping[str, int],
    tags: Mapping[str, str],
) -> dg.AssetMaterialization:
    """What is recorded of one partition out of a range."""
    return dg.AssetMaterialization(
        asset_key=asset,
        partition=key,
        metadata=work.metadata(ended, previous),
        tags={**tags, **partition_tags(key), **data_version_tags(ended.data_version)},
    )


def observation(
    asset: dg.AssetKey, key: str | None, kind: str, reason: str, ended: Ended | None
) -> dg.AssetObservation:
    """What stays on the asset of a run that made nothing."""
    entries: Metadata = {kind: _text(reason)}
    if kind == SKIPPED:
        entries["skip_reason"] = _text(reason)
    if ended is not None:
        entries |= ended.report | run_metadata(ended.result)
    return dg.AssetObservation(
        asset_key=asset,
        partition=key,
        description=reason,
        metadata=fit(entries),
        tags={kind: "true", **partition_tags(key)},
    )


def failure(work: Work, ended: Ended) -> dg.Failure:
    """What the step of a run that did not succeed fails with: the place first."""
    result = ended.result
    failure = result.failure
    headline = failure.headline if failure else f"{work.entry.name}: {result.ending}"
    entries: Metadata = {"ending": _text(result.ending.value), **ended.report}
    if failure is not None and failure.traceback:
        entries["traceback"] = dg.MetadataValue.md(code_block(failure.traceback, "pytb"))
    if failure is not None and failure.cell_source:
        entries["cell"] = dg.MetadataValue.md(code_block(failure.cell_source, "python"))
    return dg.Failure(
        description=headline,
        metadata=fit(entries | run_metadata(result)),
    )


def fail_at_once(error: ResearchJobsError) -> NoReturn:
    """A mistake that no further attempt would mend."""
    entries: Metadata = {"ending": _text("not started")}
    if error.details:
        entries["details"] = dg.MetadataValue.md(code_block(error.details))
    raise dg.Failure(description=error.headline, metadata=entries, allow_retries=False) from None


def set_aside(staged: StagedRun | None) -> Metadata:
    """Keep refused outputs aside and say where."""
    if staged is None:
        return {}
    try:
        return {"kept_aside": dg.MetadataValue.path(str(staged.reject()))}
    except ResearchJobsError as error:
        return {"kept_aside": _text(f"nowhere: {error.headline}")}


def refusal(name: str, ended: Ended, extra: Mapping[str, Any]) -> str:
    first = ended.refused[0]
    more = f" (and {len(ended.refused) - 1} more)" if len(ended.refused) > 1 else ""
    where = getattr(extra.get("kept_aside"), "value", None)
    aside = f" What was made is in {where}" if where else ""
    partition = f" [{ended.partition.key}]" if ended.partition else ""
    return (
        f"{name}{partition}: output '{first.output}' failed the check {first.check}: "
        f"{first.description}{more}. The previous outputs stay.{aside}"
    )


def _text(value: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.text(value)
