"""What assets and backfills need of Dagster beyond its promises, one test for each."""

from __future__ import annotations

from typing import Any

import dagster as dg

from research_jobs.orchestration.compat import assets as private


class Keeps(dg.IOManager):
    """An IO manager that takes anything."""

    def handle_output(self, context: Any, obj: Any) -> None: ...

    def load_input(self, context: Any) -> Any: ...


def run(asset: Any, instance: dg.DagsterInstance, **tags: str) -> Any:
    defs = dg.Definitions(assets=[asset], resources={"io_manager": Keeps()})
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, tags=tags)


DAYS = dg.StaticPartitionsDefinition(["1", "2", "3", "4"])
RANGE = {"dagster/asset_partition_range_start": "1", "dagster/asset_partition_range_end": "3"}


def definition(compute: Any, **options: Any) -> dg.AssetsDefinition:
    """An asset of plain classes, as the factory makes them."""
    op = dg.OpDefinition(
        compute_fn=compute, name="a", outs={"result": dg.Out(is_required=False)}, ins={}
    )
    return dg.AssetsDefinition(
        keys_by_output_name={"result": dg.AssetKey("a")},
        node_def=op,
        specs=[dg.AssetSpec("a", **options)],
    )


def test_plain_classes_make_an_asset(instance: dg.DagsterInstance) -> None:
    """The compute function gets an asset's context and may be a generator.

    Else: the factory has to go back to ``@dg.multi_asset`` and its costs.
    """
    seen: list[Any] = []

    def compute(step: Any, inputs: Any) -> Any:
        seen.append((step, inputs))
        yield dg.MaterializeResult(asset_key="a")

    assert run(definition(compute), instance).success
    ((context, inputs),) = seen
    assert isinstance(context, dg.AssetExecutionContext)
    assert inputs == {}


def test_a_quiet_output_logs_no_materialization(instance: dg.DagsterInstance) -> None:
    """Else: every partition of a range would be recorded twice."""

    def compute(step: Any, inputs: Any) -> Any:
        for key in step.partition_keys:
            yield dg.AssetMaterialization("a", partition=key, metadata={"key": key})
        yield private.quiet_output(None, "result")

    result = run(definition(compute, partitions_def=DAYS), instance, **RANGE)
    events = [e.materialization for e in result.all_events if e.is_step_materialization]
    assert [(e.partition, e.metadata["key"].value) for e in events] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
    ]


def test_deferred_events_leave_planning_to_us(instance: dg.DagsterInstance) -> None:
    """Else: partitions between those of a backfill would look failed when it fails."""

    def compute(step: Any, inputs: Any) -> Any:
        raise dg.Failure("no")
        yield

    asset = definition(compute, partitions_def=DAYS)
    job = dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
    key = dg.AssetKey("a")
    tags = {**RANGE, private.EXTERNALLY_MANAGED_ASSETS_TAG: "true"}
    created = instance.create_run_for_job(job, tags=tags)
    private.report_planned(instance, created, [("a", key, ["1", "3"])])
    assert list(private.execute_run(job, created, instance))
    status = instance.get_status_by_partition(key, ["1", "2", "3"], DAYS)
    assert status is not None
    assert {k: v and v.value for k, v in status.items()} == {
        "1": "FAILED",
        "2": None,
        "3": "FAILED",
    }


def test_provenance_is_that_of_dagster(instance: dg.DagsterInstance) -> None:
    """Else: what a range made would never be found out of date."""

    @dg.asset(code_version="u1")
    def up() -> None: ...

    seen: list[dict[str, str]] = []

    @dg.asset(deps=[up], code_version="d1")
    def down(context) -> None:
        seen.append(private.provenance_tags(context, context.asset_key))

    result = dg.materialize([up, down], instance=instance)
    (event,) = [
        e.materialization
        for e in result.all_events
        if e.is_step_materialization and e.step_key == "down"
    ]
    own = {k: v for k, v in event.tags.items() if k != "dagster/data_version"}
    assert seen == [own]
    assert private.data_version_tags("x")["dagster/data_version"] == "x"


def test_the_io_manager_of_an_output_can_be_asked_for_and_wrapped(
    instance: dg.DagsterInstance,
) -> None:
    """Else: managers of tables are not recognised, and those that fail leave no record."""
    seen: list[Any] = []
    manager, other = dg.InMemoryIOManager(), dg.InMemoryIOManager()

    @dg.asset(io_manager_key="mine")
    def a(context) -> int:
        seen.append(private.output_io_manager(context, "result", "mine", lambda _mine: other))
        return 1

    dg.materialize([a], instance=instance, resources={"mine": manager})
    assert seen == [manager]
    assert list(other.values.values()) == [1]
    assert not manager.values


def test_an_interrupted_run_is_cancelled(instance: dg.DagsterInstance) -> None:
    """Else: what Ctrl-C ends would stand in the UI as failed."""

    def compute(step: Any, inputs: Any) -> Any:
        raise dg.DagsterExecutionInterruptedError
        yield

    defs = dg.Definitions(assets=[definition(compute)], executor=dg.in_process_executor)
    job = defs.resolve_implicit_global_asset_job_def()
    created = instance.create_run_for_job(job)
    assert list(private.execute_run(job, created, instance))
    found = instance.get_run_by_id(created.run_id)
    assert found is not None
    assert found.status is dg.DagsterRunStatus.CANCELED


def test_staleness_is_that_of_the_ui(instance: dg.DagsterInstance) -> None:
    """Else: --stale would run other notebooks than those that the UI marks."""

    @dg.asset(code_version="1")
    def a() -> None: ...

    status = private.stale_resolver(instance, dg.Definitions(assets=[a]))
    assert status(dg.AssetKey("a"), None) == "MISSING"
    dg.materialize([a], instance=instance)
    status = private.stale_resolver(instance, dg.Definitions(assets=[a]))
    assert status(dg.AssetKey("a"), None) == "FRESH"

    @dg.asset(name="a", code_version="2")
    def changed() -> None: ...

    status = private.stale_resolver(instance, dg.Definitions(assets=[changed]))
    assert status(dg.AssetKey("a"), None) == "STALE"
    (record,) = instance.fetch_materializations(dg.AssetKey("a"), limit=1).records
    assert private.code_version_of(record) == "1"


def test_tags_are_those_that_dagster_writes() -> None:
    """Else: what is recorded for a partition would not be found by Dagster.

    The module writes them out: they are data in every history.
    """
    from dagster._core.definitions import data_version
    from dagster._core.definitions.source_asset import (
        SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION,
    )
    from dagster._core.storage import tags

    for name in private.__dict__:
        if name.endswith("_TAG"):
            theirs = getattr(tags, name, None) or getattr(data_version, name)
            assert getattr(private, name) == theirs, name
    made = private.quiet_output(None, "result").metadata
    assert list(made) == [SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION]


def test_dimensions_are_tagged() -> None:
    """Else: the UI would not find a partition of two dimensions."""
    key = dg.MultiPartitionKey({"day": "1", "ticker": "A"})
    assert private.partition_tags(key) == {
        "dagster/partition/day": "1",
        "dagster/partition/ticker": "A",
    }
    assert private.partition_tags("1") == private.partition_tags(None) == {}


def test_a_run_can_name_its_code_location(instance: dg.DagsterInstance) -> None:
    """Else: the UI could not relaunch what a command ran."""

    @dg.asset
    def a() -> None: ...

    job = dg.Definitions(assets=[a]).resolve_implicit_global_asset_job_def()
    origin = private.job_origin(job.name, "research_jobs")
    created = instance.create_run_for_job(job, remote_job_origin=origin)
    found = instance.get_run_by_id(created.run_id)
    assert found is not None
    assert found.remote_job_origin == origin
