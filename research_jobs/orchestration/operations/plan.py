"""Which Dagster runs a selection of notebooks takes.

A Dagster run has one partition key, so notebooks whose partitions differ cannot share one. Most
selections are one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.partitions import newest_keys
from research_jobs.orchestration.model.selection import existing, has_key

if TYPE_CHECKING:
    from research_jobs.orchestration.compat.assets import AssetGraph

__all__ = ["Batch", "choose_partitions", "plan_batches"]

# Of hundreds of keys, only so many are compared for the run that takes most notebooks along.
_COMPARED = 20


@dataclass(frozen=True)
class Batch:
    """Notebooks that one Dagster run can hold: at most one kind of partitions among them."""

    keys: tuple[dg.AssetKey, ...]
    partition: str | None = None


def choose_partitions(
    notebook: str,
    definition: dg.PartitionsDefinition[Any] | None,
    partition: str | None,
    instance: dg.DagsterInstance,
) -> list[str | None]:
    """The partitions to run a notebook for.

    Parameters
    ----------
    notebook : str
    definition : PartitionsDefinition or None
    partition : str or None
        The one that was asked for. Otherwise the newest; where partitions have nothing to do
        with time (values, variants, listed keys), every one.
    instance : DagsterInstance
        Where listed keys are kept.

    Returns
    -------
    list of str or None
        ``[None]`` for a notebook without partitions; empty where there is none yet.

    Raises
    ------
    PartitionError
        When there is no such partition.
    """
    if definition is None:
        return [None]
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        if partition is None:
            return list(newest_keys(definition))
        if has_key(definition, partition):
            return [partition]
        raise PartitionError(
            f"'{notebook}' has no partition '{partition}'",
            hint=existing(definition.get_partition_keys(), partition),
        )


def plan_batches(
    graph: AssetGraph, chosen: Mapping[dg.AssetKey, Sequence[str | None]]
) -> list[Batch]:
    """Split a selection into runs, dependencies first.

    Parameters
    ----------
    graph : AssetGraph
    chosen : mapping of AssetKey to sequence of str or None
        What is to run, for which partitions: see `choose_partitions`.
    """
    left = {key: list(partitions) for key, partitions in chosen.items() if partitions}
    batches: list[Batch] = []
    while left:
        batch = _largest_batch(graph, left)
        for key in batch.keys:
            left[key].remove(batch.partition if batch.partition in left[key] else None)
            if not left[key]:
                del left[key]
        batches.append(batch)
    return batches


def _largest_batch(graph: AssetGraph, left: dict[dg.AssetKey, list[str | None]]) -> Batch:
    kinds = list(dict.fromkeys(kind for found in left.values() for kind in found))
    best: Batch | None = None
    for number, kind in enumerate(kinds):
        if best is not None and best.keys and number >= _COMPARED:
            break
        batch = Batch(tuple(_runnable(graph, left, kind)), kind)
        if best is None or len(batch.keys) > len(best.keys):
            best = batch
    assert best is not None, "something is left"
    if all(best.partition not in left[key] for key in best.keys):
        return Batch(best.keys, None)
    return best


def _runnable(
    graph: AssetGraph, left: dict[dg.AssetKey, list[str | None]], kind: str | None
) -> Iterator[dg.AssetKey]:
    """Those that can run together under one key, with all that they wait for."""
    taken: set[dg.AssetKey] = set()
    for key in graph.toposorted_asset_keys:
        node = graph.get(key) if key in left else None
        if node is None or not {None, kind} & set(left[key]):
            continue
        own = node.partitions_def
        for parent in node.parent_keys:
            waits = set(left.get(parent, ()))
            if own is not None and own == graph.get(parent).partitions_def:
                waits &= {kind}  # each partition reads its own
            if waits and not (parent in taken and waits <= {None, kind}):
                break
        else:
            taken.add(key)
            yield key
