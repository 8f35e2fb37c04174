"""How a selection is split into runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from research_jobs.errors import PartitionError
from research_jobs.orchestration.operations.plan import choose_partitions, plan_batches

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


@pytest.fixture
def batches() -> Iterator[Callable[..., list[tuple[str | None, str]]]]:
    """Each run that a graph takes, as its partition and its assets."""
    with dg.DagsterInstance.ephemeral() as instance:

        def plan(found: Any, partition: str | None = None) -> list[tuple[str | None, str]]:
            chosen = {
                key: choose_partitions(
                    key.to_user_string(), found.get(key).partitions_def, partition, instance
                )
                for key in found.get_all_asset_keys()
            }
            return [
                (batch.partition, " ".join(key.to_user_string() for key in batch.keys))
                for batch in plan_batches(found, chosen)
            ]

        yield plan


def test_one_kind_of_partition_is_one_run(batches: Any) -> None:
    """Notebooks with and without partitions share a run, with the newest partition."""
    found = graph(a=(None, []), b=(DAYS, ["a"]), c=(None, ["b"]))
    assert batches(found) == [("2024-01-03", "a b c")]
    assert batches(found, "2024-01-01") == [("2024-01-01", "a b c")]


def test_no_partitions_no_key(batches: Any) -> None:
    """A run of notebooks without partitions has no partition key."""
    assert batches(graph(a=(None, []), b=(None, ["a"]))) == [(None, "a b")]


def test_two_kinds_are_two_runs_in_order(batches: Any) -> None:
    """What cannot share a run comes after what it needs."""
    found = graph(a=(DAYS, []), b=(NAMES, ["a"]), c=(DAYS, ["b"]), d=(None, ["c"]))
    assert batches(found) == [
        ("2024-01-03", "a"),
        ("eu", "b"),
        ("us", "b"),
        ("2024-01-03", "c d"),
    ]


def test_without_time_every_partition_runs(batches: Any) -> None:
    """Values have no newest one; each reads its own of a notebook with the same."""
    found = graph(a=(NAMES, []), b=(NAMES, ["a"]), c=(None, ["b"]))
    assert batches(found) == [("eu", "a b"), ("us", "a b c")]
    assert batches(found, "us") == [("us", "a b c")]


def test_of_two_dimensions_all_of_the_newest_day_run(batches: Any) -> None:
    """Every ticker of it."""
    grid = dg.MultiPartitionsDefinition({"date": DAYS, "name": NAMES})
    found = graph(a=(grid, []))
    assert batches(found) == [("2024-01-03|eu", "a"), ("2024-01-03|us", "a")]


@pytest.mark.parametrize(
    ("partitions", "key", "message"),
    [
        (DAYS, "2024-01-09", "'a' has no partition '2024-01-09'. Partitions: 2024-01-01, 2"),
        (DAYS, "yesterday", "'a' has no partition 'yesterday'. Partitions: 2024-01-01, 2024-01"),
        (NAMES, "uss", "'a' has no partition 'uss'. Did you mean 'us'?"),
    ],
)
def test_a_partition_that_there_is_not_is_reported(
    batches: Any, partitions: dg.PartitionsDefinition, key: str, message: str
) -> None:
    """With what there is."""
    with pytest.raises(PartitionError) as caught:
        batches(graph(a=(partitions, [])), key)
    assert str(caught.value).startswith(message)
