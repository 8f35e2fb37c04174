"""What is out of date, as Dagster itself sees it: another code, or newer data upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from research_jobs.orchestration.compat.assets import (
    code_version_of,
    stale_resolver,
)

__all__ = ["stale_notebooks", "stale_partitions"]

PAGE = 1000


def stale_notebooks(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> tuple[dg.AssetKey, ...]:
    """Assets that are out of date or were never made, and those that will be once these ran.

    Parameters
    ----------
    instance : DagsterInstance
    definitions : Definitions
        Of `research_jobs.orchestration.definitions.factory.build_defs`.

    Returns
    -------
    tuple of AssetKey
        Dependencies first. Dagster calls an asset stale when its code version changed or what it
        reads did; what depends on a stale one is not stale yet, so it is added here. With
        partitions, the newest one counts.
    """
    stale = stale_resolver(instance, definitions)
    graph = definitions.get_repository_def().asset_graph
    outdated: dict[dg.AssetKey, None] = {}
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        for key in graph.toposorted_asset_keys:
            node = graph.get(key)
            if not node.is_materializable:
                continue
            if any(parent in outdated for parent in node.parent_keys):
                outdated[key] = None
                continue
            newest: str | None = None
            if node.partitions_def is not None:
                newest = node.partitions_def.get_last_partition_key()
                if newest is None:
                    continue
            if stale(key, newest) != "FRESH":
                outdated[key] = None
    return tuple(outdated)


def stale_partitions(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    key: dg.AssetKey,
    partitions: Sequence[str],
) -> frozenset[str]:
    """Those of an asset's partitions that were made of another code or of older data.

    Parameters
    ----------
    instance : DagsterInstance
    definitions : Definitions
    key : AssetKey
    partitions : sequence of str
        Partitions that are materialised.
    """
    graph = definitions.get_repository_def().asset_graph
    node: Any = graph.get(key)
    # The code of all is read in one go; only what that leaves open is asked for one by one.
    stale: set[str] = set()
    if node.code_version is not None:
        made_of = _code_versions(instance, key, partitions)
        stale = {item for item in partitions if made_of.get(item) != node.code_version}
    if node.parent_keys:
        status = stale_resolver(instance, definitions)
        for item in partitions:
            if item not in stale and status(key, item) == "STALE":
                stale.add(item)
    return frozenset(stale)


def _code_versions(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, str | None]:
    """The code version of the last materialisation of each partition."""
    wanted = set(partitions)
    versions: dict[str, str | None] = {}
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
        for record in page.records:  # the newest first
            partition = record.partition_key
            if partition in wanted and partition not in versions:
                versions[partition] = code_version_of(record)
        if not page.has_more or len(versions) == len(wanted):
            return versions
        cursor = page.cursor
