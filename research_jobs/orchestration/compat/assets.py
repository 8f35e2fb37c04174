"""What assets, backfills and staleness need of Dagster and Dagster does not promise."""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )
    from dagster._core.remote_origin import RemoteJobOrigin

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "EXTERNALLY_MANAGED_ASSETS_TAG",
    "PARTITION_NAME_TAG",
    "AssetGraph",
    "Staleness",
    "UnresolvedAssetJobDefinition",
    "code_version_of",
    "data_version_tags",
    "execute_run",
    "job_origin",
    "lazy_config_schema",
    "output_io_manager",
    "partition_tags",
    "provenance_tags",
    "quiet_output",
    "report_planned",
    "stale_resolver",
    "table_types",
]

# Tags that Dagster reads and writes. They are data in every history, so they do not change.
PARTITION_NAME_TAG = "dagster/partition"
ASSET_PARTITION_RANGE_START_TAG = "dagster/asset_partition_range_start"
ASSET_PARTITION_RANGE_END_TAG = "dagster/asset_partition_range_end"
EXTERNALLY_MANAGED_ASSETS_TAG = "dagster/defer_asset_events"
CODE_VERSION_TAG = "dagster/code_version"
DATA_VERSION_TAG = "dagster/data_version"
DATA_VERSION_IS_USER_PROVIDED_TAG = "dagster/data_version_is_user_provided"
_INPUT_DATA_VERSION_PREFIX = "dagster/input_data_version"
_INPUT_EVENT_POINTER_PREFIX = "dagster/input_event_pointer"
_SOURCE_ASSET_OBSERVATION = "__source_asset_observation__"

logger = logging.getLogger("research_jobs")


def quiet_output(value: Any, output_name: str) -> dg.Output[Any]:
    """An asset's output for which Dagster logs no materialisation of its own.

    A step over many partitions logs one for each as it finishes, with that partition's metadata.
    Dagster's own would be a second one for each, all with the same metadata. Without any output,
    on the other hand, Dagster would skip what depends on the asset.
    """
    return dg.Output(value, output_name=output_name, metadata={_SOURCE_ASSET_OBSERVATION: True})


def output_io_manager(
    context: dg.AssetExecutionContext,
    output_name: str,
    key: str,
    wrap: Callable[[dg.IOManager], dg.IOManager],
) -> Any:
    """The IO manager of an output of the running step; Dagster uses what `wrap` makes of it.

    Parameters
    ----------
    context : AssetExecutionContext
    output_name : str
    key : str
        Name of the resource that the IO manager is.
    wrap : callable
    """
    try:
        from dagster._core.execution.plan.outputs import StepOutputHandle

        step_context = context.get_step_execution_context()
        handle = StepOutputHandle(step_key=step_context.step.key, output_name=output_name)
        managers = step_context.get_io_manager
        manager = managers(handle)
        step_context.get_io_manager = lambda step_output_handle: (
            wrap(manager) if step_output_handle == handle else managers(step_output_handle)
        )
    except (ImportError, AttributeError) as error:
        lacking(error, "a run has no report where an IO manager fails to store its outputs")
        return getattr(context.resources, key, None)
    return manager


def provenance_tags(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, str]:
    """The tags by which Dagster tells code and inputs of a materialisation.

    Dagster sets them on the materialisations that it logs itself. Those that a step logs need the
    same ones, or nothing would ever be found out of date.
    """
    try:
        step_context = context.get_step_execution_context()
        node = step_context.job_def.asset_layer.get(key)
        tags = {CODE_VERSION_TAG: node.code_version or context.run.run_id}
        for parent in sorted(node.parent_keys):
            info = step_context.maybe_fetch_and_get_input_asset_version_info(parent)
            name = parent.to_user_string()
            version = info.data_version if info else None
            tags[f"{_INPUT_DATA_VERSION_PREFIX}/{name}"] = version.value if version else "INITIAL"
            tags[f"{_INPUT_EVENT_POINTER_PREFIX}/{name}"] = (
                str(info.storage_id) if info and info.storage_id else "NULL"
            )
    except AttributeError as error:
        lacking(error, "a backfill's partitions do not record what they were made of")
        return {}
    return tags


def data_version_tags(data_version: str | None) -> dict[str, str]:
    """The tags that tell a materialisation's data version."""
    if data_version is None:
        return {}
    return {DATA_VERSION_TAG: data_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}


def partition_tags(key: str | None) -> dict[str, str]:
    """The tags by which Dagster tells the dimensions of what is logged for a partition."""
    if not isinstance(key, dg.MultiPartitionKey):
        return {}
    return {f"{PARTITION_NAME_TAG}/{name}": part for name, part in key.keys_by_dimension.items()}


def table_types(manager: Any) -> frozenset[type] | None:
    """The types that an IO manager of tables takes; None for one that takes any value."""
    # Dagster's managers of databases share one base class, which is known by its name.
    classes = {f"{cls.__module__}.{cls.__name__}" for cls in type(manager).__mro__}
    if any(name.endswith("db_io_manager.DbIOManager") for name in classes):
        try:
            return frozenset(manager._handlers_by_type)
        except AttributeError as error:
            lacking(error, "an IO manager of tables is handed values of any type")
            return None
    if any(name.startswith("dagster_polars.") for name in classes):
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
    try:
        from dagster._core.events import (
            AssetMaterializationPlannedData,
            DagsterEvent,
            DagsterEventBatchMetadata,
            generate_event_batch_id,
        )
    except ImportError as error:
        lacking(error, "the partitions of a backfill are not shown as in progress")
        return
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
) -> Iterator[dg.DagsterEvent]:
    """Execute a run in this process; its events are yielded and not kept."""
    try:
        from dagster._core.definitions.job_base import InMemoryJob
        from dagster._core.execution.api import execute_run_iterator
    except ImportError as error:
        lacking(error, "a command works on one notebook at a time")
        yield from _execute_in_process(job, run, instance)
        return
    yield from interruptions_cancel(
        execute_run_iterator(InMemoryJob(job), run, instance), run, instance
    )


def interruptions_cancel(
    events: Iterable[dg.DagsterEvent], run: dg.DagsterRun, instance: dg.DagsterInstance
) -> Iterator[dg.DagsterEvent]:
    """The events of a run that Ctrl-C or a polite kill cancels, and does not fail.

    Dagster takes an interruption for a cancellation only if somebody asked for it, and here
    somebody did.
    """
    for event in events:
        if _is_interruption(event):
            current = instance.get_run_by_id(run.run_id)
            if current is not None and current.status is dg.DagsterRunStatus.STARTED:
                instance.report_run_canceling(current)
        yield event


def _execute_in_process(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> Iterator[dg.DagsterEvent]:
    """Execute a run by Dagster's public means, which make a run record of their own."""
    instance.delete_run(run.run_id)
    selected = run.asset_selection
    result = job.execute_in_process(
        run_config=dict(run.run_config),
        instance=instance,
        tags=dict(run.tags),
        run_id=run.run_id,
        asset_selection=sorted(selected) if selected else None,
        raise_on_error=False,
    )
    yield from result.all_events


def _is_interruption(event: dg.DagsterEvent) -> bool:
    if event.event_type is dg.DagsterEventType.STEP_FAILURE:
        return event.step_failure_data.error_source.name == "INTERRUPT"
    if event.event_type is dg.DagsterEventType.ENGINE_EVENT:
        return "steps_interrupted" in event.engine_event_data.metadata
    return False


def job_origin(job: str, location: str) -> RemoteJobOrigin | None:
    """The code location that a run of our own belongs to, as the project's workspace names it."""
    try:
        from dagster._core.remote_origin import (
            ManagedGrpcPythonEnvCodeLocationOrigin,
            RemoteJobOrigin,
            RemoteRepositoryOrigin,
        )
        from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    except ImportError as error:
        lacking(error, "the UI cannot run again what a command ran")
        return None
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


def lazy_config_schema(make: Callable[[], dict[str, dg.Field]]) -> Any:
    """A config schema that is made when somebody asks for it.

    To make it takes Dagster half a millisecond, and of all the ops of a code location a run
    looks at its own alone.

    Parameters
    ----------
    make : callable
        Gives the fields. A failure of it leaves the op's config unchecked, and logs why: it must
        not take down the code location.
    """
    try:
        return _lazy_config_schema()(make)
    except ImportError as error:
        lacking(error, "a large code location loads more slowly")
        return _config_field(make)


@cache
def _lazy_config_schema() -> Callable[[Callable[[], dict[str, dg.Field]]], Any]:
    from dagster._core.definitions.definition_config_schema import IDefinitionConfigSchema

    class LazyConfigSchema(IDefinitionConfigSchema):
        def __init__(self, make: Callable[[], dict[str, dg.Field]]) -> None:
            self.make = make

        def as_field(self) -> dg.Field:
            return self.field

        @cached_property
        def field(self) -> dg.Field:
            return _config_field(self.make)

    return LazyConfigSchema


def _config_field(make: Callable[[], dict[str, dg.Field]]) -> dg.Field:
    try:
        return dg.Field(dg.Shape(make()))
    except Exception:
        logger.exception("a config schema cannot be made")
        return dg.Field(dg.Permissive(), is_required=False)


class Staleness(Protocol):
    """Says of an asset, or of one partition of it, whether it is out of date."""

    def __call__(self, key: dg.AssetKey, partition: str | None, /) -> str:
        """``FRESH``, ``STALE``, or ``MISSING`` for what was never made."""
        ...


def stale_resolver(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Staleness:
    """Dagster's own answer to whether an asset is out of date, as its UI shows it."""
    graph = definitions.get_repository_def().asset_graph
    try:
        from dagster._core.definitions.data_version import CachingStaleStatusResolver
        from dagster._core.loader import LoadingContext
    except ImportError as error:
        lacking(error, "only a changed code version makes an output stale")
        return _staleness_by_code(instance, graph)

    class Loading(LoadingContext):
        """What the resolver keeps its records in."""

        kept: dict[Any, Any] = {}  # noqa: RUF012 - the class is made for one resolver

        @property
        def instance(self) -> dg.DagsterInstance:
            return instance

        @property
        def loaders(self) -> dict[Any, Any]:
            return self.kept

    resolver = CachingStaleStatusResolver(instance, graph, Loading())
    # One query for all rather than one for each.
    resolver.instance_queryer.prefetch_asset_records(graph.get_all_asset_keys())
    return lambda key, partition: resolver.get_status(key, partition).name


def _staleness_by_code(instance: dg.DagsterInstance, graph: AssetGraph) -> Staleness:
    """Staleness by Dagster's public means, which know code versions alone."""

    def status(key: dg.AssetKey, partition: str | None, /) -> str:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None), limit=1
        ).records
        if not records:
            return "MISSING"
        expected = graph.get(key).code_version
        made_of = code_version_of(records[0])
        return "FRESH" if expected is None or made_of == expected else "STALE"

    return status
