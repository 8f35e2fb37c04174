"""Every name of Dagster that assets, backfills and staleness need and Dagster does not promise.

``tests/orchestration/test_dagster_contract_assets.py`` says which one changed and what that
breaks. The executor's are in `execution`.
"""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    CachingStaleStatusResolver,
    StaleStatus,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.definition_config_schema import IDefinitionConfigSchema
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventBatchMetadata,
    generate_event_batch_id,
)
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.execution.plan.outputs import StepOutputHandle
from dagster._core.loader import LoadingContext
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.db_io_manager import DbIOManager
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    EXTERNALLY_MANAGED_ASSETS_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.types.dagster_type import resolve_dagster_type
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "EXTERNALLY_MANAGED_ASSETS_TAG",
    "PARTITION_NAME_TAG",
    "DagsterExecutionInterruptedError",
    "LazyConfigSchema",
    "StaleStatus",
    "code_version_of",
    "data_version_tags",
    "execute_run",
    "job_origin",
    "output_io_manager",
    "partition_tags",
    "provenance_tags",
    "quiet_output",
    "report_planned",
    "resolve_dagster_type",
    "stale_resolver",
    "table_types",
]

logger = logging.getLogger("research_jobs")


def quiet_output(value: Any, output_name: str) -> dg.Output[Any]:
    """An asset's output for which Dagster logs no materialisation of its own.

    A step over many partitions logs one for each as it finishes, with that partition's metadata.
    Dagster's own would be a second one for each, all with the same metadata. Without any output,
    on the other hand, Dagster would skip what depends on the asset.
    """
    return dg.Output(
        value,
        output_name=output_name,
        metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True},
    )


def output_io_manager(context: dg.AssetExecutionContext, output_name: str) -> Any:
    """The IO manager that will get an output of the running step."""
    step_context = context.get_step_execution_context()
    handle = StepOutputHandle(step_key=step_context.step.key, output_name=output_name)
    return step_context.get_io_manager(handle)


def provenance_tags(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, str]:
    """The tags by which Dagster tells code and inputs of a materialisation.

    Dagster sets them on the materialisations that it logs itself; those that a step logs need
    the same ones, or nothing would ever be found out of date.
    """
    step_context = context.get_step_execution_context()
    node = step_context.job_def.asset_layer.get(key)
    tags = {CODE_VERSION_TAG: node.code_version or context.run.run_id}
    for parent in sorted(node.parent_keys):
        info = step_context.maybe_fetch_and_get_input_asset_version_info(parent)
        version = (info.data_version if info else None) or DEFAULT_DATA_VERSION
        tags[get_input_data_version_tag(parent)] = version.value
        tags[get_input_event_pointer_tag(parent)] = (
            str(info.storage_id) if info and info.storage_id else NULL_EVENT_POINTER
        )
    return tags


def data_version_tags(data_version: str | None) -> dict[str, str]:
    """The tags that tell a materialisation's data version."""
    if data_version is None:
        return {}
    return {DATA_VERSION_TAG: data_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}


def partition_tags(key: str | None) -> dict[str, str]:
    """The tags by which Dagster tells the dimensions of what is logged for a partition."""
    if isinstance(key, dg.MultiPartitionKey):
        return dict(get_tags_from_multi_partition_key(key))
    return {}


def table_types(manager: Any) -> frozenset[type] | None:
    """The types that an IO manager of tables takes; None for one that takes any value."""
    if isinstance(manager, DbIOManager):
        return frozenset(manager._handlers_by_type)
    if any(cls.__module__.startswith("dagster_polars.") for cls in type(manager).__mro__):
        polars = sys.modules["polars"]  # it could not be there without
        return frozenset({polars.DataFrame})
    return None


def report_planned(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    steps: Sequence[tuple[str, dg.AssetKey, Sequence[str]]],
) -> None:
    """Say that a run is going to materialise exactly these partitions.

    Parameters
    ----------
    instance : DagsterInstance
    run : DagsterRun
        Created with the tag ``EXTERNALLY_MANAGED_ASSETS_TAG``, so that Dagster did not plan the
        whole range from the first to the last of them.
    steps : sequence of tuple
        Step key, the asset that it makes, and the partitions of it.
    """
    events = [
        DagsterEvent.build_asset_materialization_planned_event(
            run.job_name, step_key, AssetMaterializationPlannedData(key, partition=partition)
        )
        for step_key, key, partitions in steps
        for partition in partitions
    ]
    batch = generate_event_batch_id()
    for number, event in enumerate(events, start=1):
        instance.report_dagster_event(
            event,
            run.run_id,
            logging.DEBUG,
            batch_metadata=DagsterEventBatchMetadata(batch, number == len(events)),
        )


def execute_run(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> Iterator[DagsterEvent]:
    """Execute a run in this process; its events are yielded and not kept.

    A run that Ctrl-C or a polite kill ends is cancelled, not failed: Dagster takes an
    interruption for a cancellation only if somebody asked for it, and here somebody did.
    """
    for event in execute_run_iterator(InMemoryJob(job), run, instance):
        if _is_interruption(event):
            current = instance.get_run_by_id(run.run_id)
            if current is not None and current.status is dg.DagsterRunStatus.STARTED:
                instance.report_run_canceling(current)
        yield event


def _is_interruption(event: DagsterEvent) -> bool:
    if event.event_type is dg.DagsterEventType.STEP_FAILURE:
        return event.step_failure_data.error_source is ErrorSource.INTERRUPT
    if event.event_type is dg.DagsterEventType.ENGINE_EVENT:
        return "steps_interrupted" in event.engine_event_data.metadata
    return False


def job_origin(job: str, location: str) -> RemoteJobOrigin:
    """The code location that a run of our own belongs to, as the project's workspace names it."""
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name="research_jobs.definitions"
    )
    code_location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location)
    return RemoteJobOrigin(RemoteRepositoryOrigin(code_location, "__repository__"), job)


def code_version_of(record: dg.EventLogRecord) -> str | None:
    """The code version that a materialisation was made of."""
    materialization = record.asset_materialization
    tags = (materialization.tags if materialization else None) or {}
    return tags.get(CODE_VERSION_TAG)


class LazyConfigSchema(IDefinitionConfigSchema):
    """A config schema that is made when somebody asks for it.

    To make it takes Dagster half a millisecond, and of all the ops of a code location a run
    looks at its own alone.

    Parameters
    ----------
    make : callable
        Gives the fields. A failure of it leaves the op's config unchecked, and logs why: it must
        not take down the code location.
    """

    def __init__(self, make: Callable[[], dict[str, dg.Field]]) -> None:
        self._make = make
        self._field: dg.Field | None = None

    def as_field(self) -> dg.Field:
        """The schema as a field of the op's config."""
        if self._field is None:
            try:
                self._field = dg.Field(dg.Shape(self._make()))
            except Exception:
                logger.exception("a config schema cannot be made")
                self._field = dg.Field(dg.Permissive(), is_required=False)
        return self._field


class _Loading(LoadingContext):
    """What the resolver of staleness keeps its records in."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[Any, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[Any, Any]:
        return self._loaders


def stale_resolver(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> CachingStaleStatusResolver:
    """Dagster's own answer to whether an asset is out of date, as its UI shows it."""
    graph = definitions.get_repository_def().asset_graph
    resolver = CachingStaleStatusResolver(instance, graph, _Loading(instance))
    # One query for all rather than one for each.
    resolver.instance_queryer.prefetch_asset_records(graph.get_all_asset_keys())
    return resolver
