"""What Dagster's storage is asked for one asset at a time, asked for many at once.

A question to Postgres costs a connection, and a project has thousands of notebooks. Storages that
are not Dagster's own on SQL, and a version that lacks a name, are asked one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["PartitionEvents", "last_materializations", "last_runs", "partition_events"]

_Item = TypeVar("_Item")

_AT_ONCE = 400
_MADE = DagsterEventType.ASSET_MATERIALIZATION.value
_PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value


@dataclass(frozen=True)
class PartitionEvents:
    """What an instance knows of an asset's partitions.

    Parameters
    ----------
    made : frozenset of str
        Those that were made at any time.
    attempts : mapping of str to (str, int)
        Those whose last attempt made nothing (yet): its run, and its event's number.
    """

    made: frozenset[str]
    attempts: Mapping[str, tuple[str, int]]


def _columns(instance: dg.DagsterInstance, slower: str, *, of_assets: bool = False) -> Any:
    """The columns of the table of events, or of assets; None where it cannot be asked directly."""
    if not hasattr(instance.event_log_storage, "index_connection"):
        return None
    try:
        from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
    except ImportError as error:
        lacking(error, slower)
        return None
    return (AssetKeyTable if of_assets else SqlEventLogStorageTable).c


def _rows(instance: dg.DagsterInstance, query: Any) -> Sequence[Any]:
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        return connection.execute(query).fetchall()


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    every = list(items)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]


def last_materializations(
    instance: dg.DagsterInstance, wanted: Collection[tuple[str, dg.AssetKey]]
) -> dict[tuple[str, dg.AssetKey], dg.AssetMaterialization]:
    """What runs made last of assets; those that made nothing are left out.

    Parameters
    ----------
    instance : DagsterInstance
    wanted : collection of (str, AssetKey)
        Runs by ID, and an asset of each.
    """
    columns = _columns(instance, "what runs made is asked for run by run")
    if columns is None:
        return {
            (run_id, made.asset_key): made
            for run_id in {run_id for run_id, _ in wanted}
            for record in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
            if (made := record.asset_materialization) and (run_id, made.asset_key) in wanted
        }
    numbers = _last_numbers(instance, columns, wanted)
    found: dict[tuple[str, dg.AssetKey], dg.AssetMaterialization] = {}
    for chunk in _chunks(numbers):
        query = sa.select(columns.id, columns.event).where(columns.id.in_(chunk))
        for number, text in _rows(instance, query):
            made = dg.deserialize_value(text, dg.EventLogEntry).asset_materialization
            if made is not None:
                found[numbers[number]] = made
    return found


def last_runs(
    instance: dg.DagsterInstance, assets: Collection[dg.AssetKey]
) -> dict[dg.AssetKey, str]:
    """The last run of each asset that has one.

    Parameters
    ----------
    instance : DagsterInstance
    assets : collection of AssetKey
    """
    table = _columns(instance, "an asset's last run is read with all of it", of_assets=True)
    if table is None:
        records = [record.asset_entry for record in instance.get_asset_records(list(assets))]
        return {one.asset_key: one.last_run_id for one in records if one.last_run_id}
    keys = {key.to_string(): key for key in assets}
    found: dict[dg.AssetKey, str] = {}
    for chunk in _chunks(keys):
        query = sa.select(table.asset_key, table.last_run_id).where(table.asset_key.in_(chunk))
        found |= {keys[asset]: run_id for asset, run_id in _rows(instance, query) if run_id}
    return found


def _last_numbers(
    instance: dg.DagsterInstance, columns: Any, wanted: Collection[tuple[str, dg.AssetKey]]
) -> dict[int, tuple[str, dg.AssetKey]]:
    """The numbers of those events, and whose they are."""
    keys = {(run_id, key.to_string()): (run_id, key) for run_id, key in wanted}
    assets = {asset for _, asset in keys}
    few = [columns.asset_key.in_(assets)] if len(assets) <= _AT_ONCE else []
    numbers: dict[int, tuple[str, dg.AssetKey]] = {}
    for chunk in _chunks(dict.fromkeys(run_id for run_id, _ in wanted)):
        query = (
            sa.select(columns.run_id, columns.asset_key, sa.func.max(columns.id))
            .where(columns.run_id.in_(chunk), columns.dagster_event_type == _MADE, *few)
            .group_by(columns.run_id, columns.asset_key)
        )
        for run_id, asset, number in _rows(instance, query):
            if (run_id, asset) in keys:
                numbers[number] = keys[run_id, asset]
    return numbers


def partition_events(
    instance: dg.DagsterInstance, assets: Collection[dg.AssetKey]
) -> dict[dg.AssetKey, PartitionEvents]:
    """What an instance knows of the partitions of some assets.

    Parameters
    ----------
    instance : DagsterInstance
    assets : collection of AssetKey
    """
    columns = _columns(instance, "partitions are asked for asset by asset")
    # What was wiped does not count, and Dagster alone knows since when.
    alone = set(assets) if columns is None or len(assets) == 1 else _wiped(instance, assets)
    found = {key: _one(instance, key) for key in alone}
    for chunk in _chunks([key for key in assets if key not in alone]):
        found |= _some(instance, columns, {key.to_string(): key for key in chunk})
    return found


def _wiped(instance: dg.DagsterInstance, assets: Collection[dg.AssetKey]) -> set[dg.AssetKey]:
    records = instance.get_asset_records(list(assets))
    return {
        record.asset_entry.asset_key
        for record in records
        if (details := record.asset_entry.asset_details) is not None
        and details.last_wipe_timestamp is not None
    }


def _one(instance: dg.DagsterInstance, key: dg.AssetKey) -> PartitionEvents:
    # Dagster's cache of statuses is built from this query; there is no public one.
    storage = instance.event_log_storage
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        key
    )
    return PartitionEvents(frozenset(instance.get_materialized_partitions(key)), attempts)


def _some(
    instance: dg.DagsterInstance, columns: Any, keys: Mapping[str, dg.AssetKey]
) -> dict[dg.AssetKey, PartitionEvents]:
    last = (
        sa.select(columns.asset_key, columns.partition, columns.dagster_event_type,
                  sa.func.max(columns.id))
        .where(
            columns.asset_key.in_(list(keys)),
            columns.partition.is_not(None),
            columns.dagster_event_type.in_((_MADE, _PLANNED)),
        )
        .group_by(columns.asset_key, columns.partition, columns.dagster_event_type)
    )  # fmt: skip
    made: dict[str, dict[str, int]] = {asset: {} for asset in keys}
    planned: dict[str, dict[str, int]] = {asset: {} for asset in keys}
    for asset, partition, kind, number in _rows(instance, last):
        (made if kind == _MADE else planned)[asset][partition] = number
    open_ = {
        number: (asset, partition)
        for asset, attempts in planned.items()
        for partition, number in attempts.items()
        if number > made[asset].get(partition, 0)
    }
    attempts: dict[str, dict[str, tuple[str, int]]] = {asset: {} for asset in keys}
    for chunk in _chunks(open_):
        query = sa.select(columns.id, columns.run_id).where(columns.id.in_(chunk))
        for number, run_id in _rows(instance, query):
            asset, partition = open_[number]
            attempts[asset][partition] = run_id, number
    return {
        key: PartitionEvents(frozenset(made[asset]), attempts[asset]) for asset, key in keys.items()
    }
