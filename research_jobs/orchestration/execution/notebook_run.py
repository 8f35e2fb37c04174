"""What the asset of a notebook does: one run, or one for each partition of a range.

The step's thread asks the supervisor for a run and sleeps until it ended. Then it says what
became of it: published outputs, an observation where there was nothing to do, or a failure whose
first line is the place in the notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg

from research_jobs.errors import PartitionError, ResearchJobsError
from research_jobs.notebook.parameters import convert_parameters
from research_jobs.orchestration.compat.assets import (
    output_io_manager,
)
from research_jobs.orchestration.execution.attempts import (
    execution_slot,
    step_cancel_token,
    step_log_streams,
)
from research_jobs.orchestration.execution.delivering import delivering_of
from research_jobs.orchestration.execution.io_manager import (
    IO_MANAGER_KEY,
    PublishedPartitions,
    Settle,
    SettlingIOManager,
    StagedRun,
    asset_value,
)
from research_jobs.orchestration.execution.partition_range import PartitionRange
from research_jobs.orchestration.execution.work import (
    Ended,
    Work,
    fail_at_once,
    failure,
    observation,
    refusal,
    set_aside,
)
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.causes import single_errors
from research_jobs.orchestration.model.checks import CheckTally
from research_jobs.orchestration.model.config import (
    KEEP_TAG,
    PARTITIONS_FIELD,
    RESULT,
    keep_seconds,
)
from research_jobs.orchestration.model.metadata import record_of
from research_jobs.orchestration.model.ownership import claim_names
from research_jobs.outcome import State
from research_jobs.protocol import Keep
from research_jobs.supervisor.kept import keep_process
from research_jobs.supervisor.run import CancelToken

__all__ = ["run_step"]


def run_step(catalog: Catalog, entry: Entry, context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Materialise a notebook: what Dagster is to know, as it happens.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    context : AssetExecutionContext

    Raises
    ------
    dagster.Failure
        When the run, or a run of the range, did not succeed.
    """
    if entry.error is not None:
        fail_at_once(entry, entry.error)
    try:
        claim_names(context.instance, catalog.project, catalog.names.prefix)
        config = dict(context.op_execution_context.op_config or {})
        asked = config.pop(PARTITIONS_FIELD, None)
        keys = _partitions(context, entry, asked)
        streams = step_log_streams(context)
        work = Work(
            catalog=catalog,
            entry=entry,
            run_id=context.run.run_id,
            step_key=context.op_execution_context.op.name,
            parameters=_parameters(entry, config),
            stdout=streams.stdout,
            stderr=streams.stderr,
            delivering=delivering_of(catalog, entry, context),
            keep=_keeping(catalog, entry, context.run.tags.get(KEEP_TAG)),
        )
    except ResearchJobsError as error:
        fail_at_once(entry, error)
    with single_errors():
        if keys is None or (len(keys) == 1 and asked is None):
            yield from _run_single(context, work, keys[0] if keys else None)
        else:
            yield from PartitionRange(context, work, keys).run(RESULT)


def _keeping(
    catalog: Catalog, entry: Entry, asked: str | None
) -> Callable[[str | None], Keep] | None:
    """What keeps the processes of runs that fail, where the Dagster run's tag asks for it."""
    if asked is None:
        return None
    return partial(
        keep_process,
        catalog.project,
        entry.name,
        seconds=keep_seconds(asked),
        source=str(entry.notebook.path),
    )


def _parameters(entry: Entry, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a run sets: those that differ from what the notebook says itself.

    Its own defaults are left to it, which keeps their exact type and a notebook that runs as in
    the editor.
    """
    defaults = {
        parameter.name: parameter.default
        for parameter in entry.notebook.parameters
        if parameter.has_default
    }
    given = {
        name: value
        for name, value in config.items()
        if name in entry.parameters or name not in defaults or defaults[name] != value
    }
    return convert_parameters(entry.notebook.parameters, given, notebook=entry.name)


def _partitions(
    context: dg.AssetExecutionContext, entry: Entry, asked: Sequence[str] | None
) -> list[str] | None:
    """The partitions of this step; None for a notebook that has none."""
    definition = context.assets_def.partitions_def
    if definition is None:
        return None
    if not context.has_partition_key and not context.has_partition_key_range:
        raise PartitionError(
            f"{entry.name} has partitions, and this run says none",
            hint="Choose partitions where you launch it, or use research-jobs backfill.",
        )
    with dg.partition_loading_context(dynamic_partitions_store=context.instance):
        keys = list(context.partition_keys) if asked is None else _spanned(definition, asked)
    if isinstance(definition, dg.MultiPartitionsDefinition):
        # What is logged for a key of this class is tagged with its dimensions.
        return [definition.get_partition_key_from_str(str(key)) for key in keys]
    return keys


def _spanned(definition: dg.PartitionsDefinition[Any], spans: Sequence[str]) -> list[str]:
    """The keys of a list of keys and of spans ``first...last``."""
    keys: list[str] = []
    for span in spans:
        first, dots, last = span.partition("...")
        if dots:
            keys += definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
        else:
            keys.append(first)
    return list(dict.fromkeys(keys))


def _run_single(context: dg.AssetExecutionContext, work: Work, key: str | None) -> Iterator[Any]:
    """One run, published by the asset's IO manager as Dagster means it."""
    spec = work.entry.spec
    # A pool of its own, or an IO manager of its own, may mean the writing as well.
    keeps_place = spec.pool is not None or spec.io_manager is not None
    place = None if keeps_place else execution_slot(context)
    try:
        ended = work.run(key, step_cancel_token(context), place)
    except ResearchJobsError as error:
        fail_at_once(work.entry, error)
    if ended.staged is None:
        yield from _conclude(context, work, ended, key, None)
        return
    # Whatever happens while Dagster has the word (it publishes then), nothing is left behind.
    with ended.staged.staging:
        yield from _conclude(context, work, ended, key, ended.staged)


def _conclude(
    context: dg.AssetExecutionContext,
    work: Work,
    ended: Ended,
    key: str | None,
    staged: StagedRun | None,
) -> Iterator[Any]:
    asset, cancel = context.asset_key, step_cancel_token(context)
    state = ended.outcome.state
    if state is not State.SUCCEEDED:
        ended = work.reported(ended, cancel)
    if state is State.CANCELLED:
        raise dg.DagsterExecutionInterruptedError
    if state is State.SKIPPED:
        yield observation(asset, ended.outcome, ended.report)
        return
    if not state.ok:
        raise failure(ended)
    checks = CheckTally(asset, [check.name for check in context.selected_asset_check_keys])
    checks.add(key, ended.outcome.checks)
    if ended.outcome.refused:
        aside = set_aside(staged)
        yield from checks.results(aside)
        raise failure(work.reported(refusal(ended, aside), cancel), aside)
    yield from _published(context, work, ended, staged)
    yield from checks.results()


def _published(
    context: dg.AssetExecutionContext, work: Work, ended: Ended, staged: StagedRun | None
) -> Iterator[Any]:
    """Hand the outputs to the asset's IO manager; the report is made after that."""
    cancel = step_cancel_token(context)
    manager = work.entry.spec.io_manager or IO_MANAGER_KEY
    settle = partial(_settle, work, ended, cancel, manager)
    ours = staged is not None and manager == IO_MANAGER_KEY
    if staged is None:
        ended = work.reported(ended, cancel)
        value: Any = PublishedPartitions()
    elif ours:
        value = replace(staged, settle=settle)
    else:
        value = _foreign_value(context, work, staged, manager, settle)
        ended = work.expecting_report(ended)
    context.add_asset_metadata(work.metadata(ended, {}, stored=ours))
    yield dg.MaterializeResult(
        asset_key=context.asset_key,
        value=value,
        data_version=dg.DataVersion(ended.data_version) if ended.data_version else None,
    )
    if staged is not None and not ours:
        work.reported(ended, cancel)


def _settle(
    work: Work, ended: Ended, cancel: CancelToken, manager: str, error: Exception | None
) -> Mapping[str, Any]:
    """Make the report once the IO manager is through, and return what names it.

    Raises
    ------
    dagster.Failure
        With the record, when the IO manager raised `error`.
    """
    if error is None:
        ended = work.reported(ended, cancel)
        return {**ended.report, **record_of(work.published(ended))}
    if ended.staged is not None:
        ended.staged.staging.close()  # the exception keeps the step's generator alive for a while
    if isinstance(error, ResearchJobsError):
        reason = error.headline
    else:
        why = f"{type(error).__name__}: {error}"
        reason = f"{work.entry.name}: the IO manager '{manager}' did not store the outputs: {why}"
    raise failure(work.reported(ended.unstored(reason), cancel)) from error


def _foreign_value(
    context: dg.AssetExecutionContext, work: Work, staged: StagedRun, manager: str, settle: Settle
) -> Any:
    """The loaded outputs, for an IO manager that is not ours: here they pass through memory."""
    foreign = output_io_manager(context, RESULT, manager, partial(SettlingIOManager, settle=settle))
    try:
        return asset_value(foreign, staged)
    except ResearchJobsError as error:
        fail_at_once(work.entry, error, began=True)
