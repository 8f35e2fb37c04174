"""What became of a notebook's partitions, as the instance knows it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from research_jobs.orchestration.compat.many_assets import PartitionEvents, partition_events

if TYPE_CHECKING:
    from dagster import DagsterInstance

__all__ = [
    "FAILED_METADATA",
    "SKIPPED_METADATA",
    "PartitionStatus",
    "failed_runs",
    "partition_status",
]

# Metadata of the observation that a run leaves which ended as skipped; its value is the reason.
SKIPPED_METADATA = "research_jobs/skipped"
# And of the one that a range leaves of each partition that failed in it.
FAILED_METADATA = "research_jobs/failed"

PARTITION_TAG = "dagster/partition"
# Dagster's own, on a failed run: the daemon runs it again, and has.
_WILL_RETRY_TAG = "dagster/will_retry"
_RETRIED_TAG = "dagster/auto_retry_run_id"
_RETRY_DUE_S = 120.0
_HEARTBEAT_S = 90.0
# More keys than this are not named one by one in a query; all observations are read instead.
_NAMED_KEYS = 400
_PAGE = 1000
_RUNS_AT_ONCE = 500


@dataclass(frozen=True)
class PartitionStatus:
    """Partitions by what became of them; each is in one set at most.

    Parameters
    ----------
    keys : tuple of str
        Those that were asked about, in order.
    materialized, failed, in_progress, skipped : frozenset of str
        ``failed``: the last attempt failed and nothing was made after it.
            ``skipped``: the notebook said that there is nothing to do, or one that it reads said
        so in the same run, and nothing happened since.
    with_data : frozenset of str
        Those that were made at any time and are stored, whatever became of a later attempt.
    ever : bool
        Whether any partition of the asset, of these or others, was made or tried.
    """

    keys: tuple[str, ...]
    materialized: frozenset[str]
    failed: frozenset[str]
    in_progress: frozenset[str]
    skipped: frozenset[str]
    with_data: frozenset[str] = frozenset()
    ever: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Tuple of str: not made, not being made and not skipped; those that failed included."""
        done = self.materialized | self.in_progress | self.skipped
        return tuple(key for key in self.keys if key not in done)


def partition_status(
    instance: DagsterInstance,
    asset: dg.AssetKey,
    keys: Sequence[str],
    *,
    stored: frozenset[str] | None = None,
    events: PartitionEvents | None = None,
) -> PartitionStatus:
    """What became of some partitions of an asset.

    Parameters
    ----------
    instance : dagster.DagsterInstance
    asset : dagster.AssetKey
    keys : sequence of str
    stored : frozenset of str, optional
        The partitions that have outputs in the store, where that is known. One that the instance
        knows as made and that is not there (the notebook was partitioned in another way) is not.
    events : PartitionEvents, optional
        What the instance knows of this asset's, for whoever asks about many assets.

    Returns
    -------
    PartitionStatus

    Notes
    -----
    Dagster's own `get_status_by_partition` says the same, but asks each key of a set that
    recomputes its windows: ten seconds for 5,000 days. This reads the events themselves.
    """
    wanted = tuple(str(key) for key in keys)
    inside = set(wanted)
    known = events or partition_events(instance, [asset])[asset]
    made, attempts = known.made, known.attempts
    failed, in_progress, idle = _endings(instance, attempts, inside)
    with_data = frozenset(made & inside if stored is None else made & inside & stored)
    materialized = with_data - failed - in_progress
    # Those that failed too: Dagster knows of a run that failed, and not for which partitions.
    rest = [k for k in wanted if k not in materialized | in_progress]
    skipped = _skipped(instance, asset, rest, attempts) if rest else frozenset[str]()
    return PartitionStatus(
        keys=wanted,
        materialized=materialized,
        failed=frozenset(failed - skipped),
        in_progress=frozenset(in_progress),
        skipped=skipped | (idle - materialized),
        with_data=with_data,
        ever=bool(made or attempts),
    )


def _endings(
    instance: DagsterInstance, attempts: Mapping[str, tuple[str, int]], inside: set[str]
) -> tuple[set[str], set[str], set[str]]:
    """Of such partitions: those whose run failed, is not over, or was well all the same.

    A run that is well and made nothing of a partition had nothing to do for it: the notebook
    skipped it, or what it reads did.
    """
    of_run: dict[str, set[str]] = {}
    for key, (run_id, _number) in attempts.items():
        if key in inside:
            of_run.setdefault(run_id, set()).add(key)
    failed: set[str] = set()
    in_progress: set[str] = set()
    idle: set[str] = set()
    ids = list(of_run)
    for start in range(0, len(ids), _RUNS_AT_ONCE):
        chunk = ids[start : start + _RUNS_AT_ONCE]
        for record in instance.get_run_records(dg.RunsFilter(run_ids=chunk)):
            run = record.dagster_run
            if not run.is_finished or _retry_is_due(instance, run, record.end_time):
                in_progress |= of_run[run.run_id]
            elif run.is_failure:
                failed |= of_run[run.run_id]
            elif run.is_success:
                idle |= of_run[run.run_id]
    return failed, in_progress, idle


def _retry_is_due(instance: DagsterInstance, run: dg.DagsterRun, ended: float | None) -> bool:
    """Whether the daemon is about to run this failed run again, and has not yet begun to."""
    if run.tags.get(_WILL_RETRY_TAG) != "true" or _RETRIED_TAG in run.tags:
        return False
    now = time.time()
    if ended is None or now - ended > _RETRY_DUE_S:
        return False  # it would have done so by now
    beats = instance.get_daemon_heartbeats().values()
    return any(now - beat.timestamp < _HEARTBEAT_S for beat in beats)


def _skipped(
    instance: DagsterInstance,
    asset: dg.AssetKey,
    keys: Sequence[str],
    attempts: Mapping[str, tuple[str, int]],
) -> frozenset[str]:
    """Those of `keys` of which the last thing that happened is that the notebook skipped them."""
    wanted = set(keys)
    named = list(wanted) if len(wanted) <= _NAMED_KEYS else None
    records_filter = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=named)
    latest: dict[str, bool] = {}
    cursor: str | None = None
    while True:
        page = instance.fetch_observations(records_filter, limit=_PAGE, cursor=cursor)
        for record in page.records:  # newest first
            observation = record.asset_observation
            key = record.partition_key
            if observation is not None and key in wanted and key not in latest:
                _run, attempted = attempts.get(key, ("", -1))
                latest[key] = (
                    SKIPPED_METADATA in observation.metadata and record.storage_id > attempted
                )
        if not page.has_more or len(latest) == len(wanted):
            return frozenset(key for key, skipped in latest.items() if skipped)
        cursor = page.cursor


def failed_runs(
    instance: DagsterInstance, asset: dg.AssetKey, step_key: str, partition: str, *, at_most: int
) -> int:
    """How many runs failed because of this notebook in this partition.

    A run over a range counts where it says that this partition failed in it.

    Parameters
    ----------
    instance : dagster.DagsterInstance
    asset : dagster.AssetKey
    step_key : str
        The notebook's op: a run that failed before it came to it is not its fault.
    partition : str
    at_most : int
        Counting stops there.

    Returns
    -------
    int
    """
    count = len(_failed_ranges(instance, asset, partition))
    if count >= at_most:
        return at_most
    runs = instance.get_runs(
        dg.RunsFilter(tags={PARTITION_TAG: partition}, statuses=[dg.DagsterRunStatus.FAILURE]),
        limit=200,
    )
    for run in runs:
        # empty where a job or `materialize` runs all that it has: then the step tells
        if run.asset_selection and asset not in run.asset_selection:
            continue
        stats = instance.get_run_step_stats(run.run_id, [step_key])
        if any(step.start_time is not None for step in stats):
            count += 1
            if count >= at_most:
                break
    return count


def _failed_ranges(instance: DagsterInstance, asset: dg.AssetKey, partition: str) -> set[str]:
    """Runs over a range in which this partition failed; each says so by an observation."""
    found = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition]), limit=200
    )
    return {
        record.run_id
        for record in found.records
        if record.asset_observation is not None
        and FAILED_METADATA in record.asset_observation.metadata
    }
