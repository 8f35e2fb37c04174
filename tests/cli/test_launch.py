"""How a selection is split into runs."""

from __future__ import annotations

import dagster as dg

from research_jobs.cli.launch import plan_batches

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04")
NAMES = dg.StaticPartitionsDefinition(["eu", "us"])


def graph(**assets: tuple[dg.PartitionsDefinition | None, list[str]]) -> dg.AssetGraph:  # type: ignore[name-defined]
    """An asset graph of names, partitions and dependencies."""
    specs = [
        dg.AssetSpec(name, deps=deps, partitions_def=partitions)
        for name, (partitions, deps) in assets.items()
    ]

    def definition(spec: dg.AssetSpec) -> dg.AssetsDefinition:
        @dg.multi_asset(name=spec.key.path[-1], specs=[spec])
        def nothing() -> None: ...

        return nothing

    made = dg.Definitions(assets=[definition(spec) for spec in specs])
    return made.get_repository_def().asset_graph


def batches(found: dg.AssetGraph, partition: str | None = None) -> list[tuple[str | None, str]]:  # type: ignore[name-defined]
    """Each run as its partition and its assets."""
    return [
        (batch.partition, " ".join(key.to_user_string() for key in batch.keys))
        for batch in plan_batches(found, found.get_all_asset_keys(), partition)
    ]


def test_one_kind_of_partition_is_one_run() -> None:
    """Notebooks with and without partitions share a run, with the newest partition."""
    found = graph(a=(None, []), b=(DAYS, ["a"]), c=(None, ["b"]))
    assert batches(found) == [("2024-01-03", "a b c")]
    assert batches(found, "2024-01-01") == [("2024-01-01", "a b c")]


def test_no_partitions_no_key() -> None:
    """A run of notebooks without partitions has no partition key."""
    assert batches(graph(a=(None, []), b=(None, ["a"]))) == [(None, "a b")]


def test_two_kinds_are_two_runs_in_order() -> None:
    """What cannot share a run comes after what it needs."""
    found = graph(a=(DAYS, []), b=(NAMES, ["a"]), c=(DAYS, ["b"]), d=(None, ["c"]))
    assert batches(found) == [("2024-01-03", "a"), ("us", "b"), ("2024-01-03", "c d")]
