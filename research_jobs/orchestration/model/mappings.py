"""Which partitions of one notebook a partition of another reads."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.partitions import time_dimension

__all__ = ["partition_mapping"]


def partition_mapping(
    upstream: dg.PartitionsDefinition[Any] | None,
    downstream: dg.PartitionsDefinition[Any] | None,
    *,
    names: tuple[str, str] = ("upstream", "downstream"),
) -> dg.PartitionMapping | None:
    """Which partitions of one notebook a partition of another reads.

    Parameters
    ----------
    upstream, downstream : dagster.PartitionsDefinition or None
        Of the notebook that is read, and of the one that reads.
    names : tuple of str
        Their names, for the message.

    Returns
    -------
    dagster.PartitionMapping or None
        None where the one that is read has no partitions: all of it is read.

    Raises
    ------
    PartitionError
        When nothing says which belongs to which.
    """
    if upstream is None:
        return None
    if downstream is None:
        return dg.AllPartitionMapping()
    if upstream == downstream:
        return dg.IdentityPartitionMapping()
    timed_up, timed_down = time_dimension(upstream), time_dimension(downstream)
    if isinstance(upstream, dg.MultiPartitionsDefinition) or isinstance(
        downstream, dg.MultiPartitionsDefinition
    ):
        with warnings.catch_warnings():
            # These mappings are in beta: our choice, and nothing that a person can act on.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return _multi_mapping(upstream, downstream, names)
    if timed_up is not None and timed_down is not None:
        if timed_up[1].timezone != timed_down[1].timezone:
            raise PartitionError(
                f"{names[1]} has partitions in {timed_down[1].timezone} and reads {names[0]},"
                f" which has them in {timed_up[1].timezone}",
                hint="Give both the same timezone.",
            )
        return dg.TimeWindowPartitionMapping()
    if isinstance(upstream, dg.StaticPartitionsDefinition) and isinstance(
        downstream, dg.StaticPartitionsDefinition
    ):
        theirs = upstream.get_partition_keys()
        missing = sorted(set(downstream.get_partition_keys()) - set(theirs))
        if missing:
            raise PartitionError(
                f"{names[1]} has the partition '{missing[0]}', which {names[0]} does not have",
                hint=f"Partitions of {names[0]}: {', '.join(theirs)}.",
            )
        return dg.IdentityPartitionMapping()
    if isinstance(upstream, dg.DynamicPartitionsDefinition) and isinstance(
        downstream, dg.DynamicPartitionsDefinition
    ):
        return dg.IdentityPartitionMapping()  # keys may come that are not there yet
    raise _unrelated(upstream, downstream, names)


def _multi_mapping(
    upstream: dg.PartitionsDefinition[Any],
    downstream: dg.PartitionsDefinition[Any],
    names: tuple[str, str],
) -> dg.PartitionMapping:
    if isinstance(upstream, dg.MultiPartitionsDefinition) and isinstance(
        downstream, dg.MultiPartitionsDefinition
    ):
        found: dict[str, dg.DimensionPartitionMapping] = {}
        ours = {d.name: d.partitions_def for d in downstream.partitions_defs}
        for theirs in upstream.partitions_defs:
            if theirs.name not in ours:
                continue  # a dimension of theirs alone: all of it is read
            mapping = partition_mapping(theirs.partitions_def, ours[theirs.name], names=names)
            assert mapping is not None
            found[theirs.name] = dg.DimensionPartitionMapping(theirs.name, mapping)
        if not found:
            raise _unrelated(upstream, downstream, names)
        return dg.MultiPartitionMapping(found)
    multi = upstream if isinstance(upstream, dg.MultiPartitionsDefinition) else downstream
    single = downstream if multi is upstream else upstream
    assert isinstance(multi, dg.MultiPartitionsDefinition)
    for dimension in multi.partitions_defs:
        if dimension.partitions_def == single:
            return dg.MultiToSingleDimensionPartitionMapping(dimension.name)
    for dimension in multi.partitions_defs:
        theirs = dimension.partitions_def
        if (
            isinstance(theirs, dg.TimeWindowPartitionsDefinition)
            and isinstance(single, dg.TimeWindowPartitionsDefinition)
            and theirs.timezone == single.timezone
        ):
            return dg.MultiToSingleDimensionPartitionMapping(dimension.name)
    raise _unrelated(upstream, downstream, names)


def _unrelated(
    upstream: dg.PartitionsDefinition[Any],
    downstream: dg.PartitionsDefinition[Any],
    names: tuple[str, str],
) -> PartitionError:
    return PartitionError(
        f"{names[1]} reads {names[0]}, but nothing says which partitions belong together:"
        f" {_describe(downstream)} against {_describe(upstream)}",
        hint="Give both a common dimension, or read it by path.",
    )


def _describe(definition: dg.PartitionsDefinition[Any]) -> str:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return " by ".join(definition.partition_dimension_names)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return f"time ({definition.cron_schedule})"
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        return f"the keys of {definition.name}"
    keys = list(definition.get_partition_keys())
    return ", ".join(keys[:3]) + ("..." if len(keys) > 3 else "")
