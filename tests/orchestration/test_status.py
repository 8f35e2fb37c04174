"""What became of partitions, read from the events."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from research_jobs.orchestration.model.status import (
    SKIPPED_METADATA,
    failed_runs,
    partition_status,
)

DAILY = dg.DailyPartitionsDefinition("2026-01-01")
KEY = dg.AssetKey("signals")
DAYS = [f"2026-01-{day:02}" for day in range(1, 11)]


@dg.asset(name="upstream")
def broken_upstream() -> None:
    """A notebook that another waits for, and that fails."""
    raise ValueError("no connection")


@dg.asset(name="signals", partitions_def=DAILY)
def signals(context) -> None:
    """Fails on the third."""
    if context.partition_key == "2026-01-03":
        raise ValueError("no prices")


@dg.asset(name="signals", partitions_def=DAILY, deps=[broken_upstream])
def dependent() -> None:
    """Never comes to its turn."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance on disk, as its storage answers the queries."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as made:
        yield made


def run(instance: dg.DagsterInstance, *days: str, asset=signals, tags=None) -> None:
    """Run partitions for real."""
    for day in days:
        assets = [asset] if asset is signals else [broken_upstream, asset]
        dg.materialize(
            assets, partition_key=day, instance=instance, raise_on_error=False, tags=tags
        )


def observe(instance: dg.DagsterInstance, day: str, metadata: dict[str, str]) -> None:
    """Record an observation."""
    instance.report_runless_asset_event(dg.AssetObservation(KEY, partition=day, metadata=metadata))


def test_nothing_is_known_of_an_asset_that_never_ran(instance):
    """All its partitions are missing."""
    status = partition_status(instance, KEY, DAYS)
    assert status.missing == tuple(DAYS)
    assert not status.ever


def test_what_was_made_failed_and_was_skipped_is_distinguished(instance):
    """Each partition stands in one set, and those that failed are missing too."""
    run(instance, "2026-01-01", "2026-01-03")
    observe(instance, "2026-01-04", {SKIPPED_METADATA: "market closed"})
    status = partition_status(instance, KEY, DAYS[:5])
    assert status.materialized == {"2026-01-01"}
    assert status.failed == {"2026-01-03"}
    assert status.skipped == {"2026-01-04"}
    assert status.in_progress == frozenset()
    assert status.missing == ("2026-01-02", "2026-01-03", "2026-01-05")
    assert status.ever


def test_it_agrees_with_dagsters_own_status(instance):
    """Made, failed, and failed after it was made: as the UI shows them."""
    run(instance, *DAYS[:3])
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition="2026-01-03"))
    run(instance, "2026-01-03")
    status = partition_status(instance, KEY, DAYS)
    theirs = instance.get_status_by_partition(KEY, DAYS, DAILY)
    assert theirs is not None
    by_name = {key: value.name for key, value in theirs.items() if value is not None}
    ours = dict.fromkeys(status.materialized, "MATERIALIZED")
    ours |= dict.fromkeys(status.failed, "FAILED")
    assert ours == by_name == {**dict.fromkeys(DAYS[:2], "MATERIALIZED"), "2026-01-03": "FAILED"}


def test_a_run_that_waits_is_in_progress(instance):
    """Whoever asked for it: the UI, a schedule, a backfill over a range."""
    job = dg.Definitions(assets=[signals]).resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(
        job,
        tags={
            "dagster/asset_partition_range_start": "2026-01-05",
            "dagster/asset_partition_range_end": "2026-01-07",
        },
        asset_selection=frozenset([KEY]),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert partition_status(instance, KEY, DAYS).in_progress == set(DAYS[4:7])


def test_a_skip_after_a_failure_is_no_failure(instance):
    """The notebook was asked again, and there is nothing to do."""
    run(instance, "2026-01-03")
    observe(instance, "2026-01-03", {SKIPPED_METADATA: "closed"})
    status = partition_status(instance, KEY, DAYS)
    assert (status.failed, status.skipped) == (frozenset(), {"2026-01-03"})


def test_a_run_that_is_well_and_made_nothing_had_nothing_to_do(instance):
    """As where what it reads skipped the partition: it is not asked for again."""

    @dg.asset(name="signals", partitions_def=DAILY, output_required=False)
    def idle() -> Iterator[dg.Output[None]]:
        yield from ()

    dg.materialize([idle], partition_key="2026-01-05", instance=instance)
    assert partition_status(instance, KEY, DAYS).skipped == {"2026-01-05"}


def test_a_skip_is_over_when_the_partition_is_made(instance):
    """And an observation that is no skip takes one back."""
    observe(instance, "2026-01-01", {SKIPPED_METADATA: "closed"})
    observe(instance, "2026-01-02", {SKIPPED_METADATA: "closed"})
    observe(instance, "2026-01-02", {"rows": "3"})
    observe(instance, "2026-01-04", {SKIPPED_METADATA: "closed"})
    assert partition_status(instance, KEY, DAYS).skipped == {"2026-01-01", "2026-01-04"}
    run(instance, "2026-01-01")
    status = partition_status(instance, KEY, DAYS)
    assert (status.materialized, status.skipped) == ({"2026-01-01"}, {"2026-01-04"})


def test_skips_among_many_keys_are_read_in_pages(instance, monkeypatch):
    """More keys than a query names, more observations than a page holds."""
    monkeypatch.setattr("research_jobs.orchestration.model.status._NAMED_KEYS", 3)
    monkeypatch.setattr("research_jobs.orchestration.model.status._PAGE", 2)
    for key in DAYS[:7]:
        observe(instance, key, {SKIPPED_METADATA: "closed"})
    assert partition_status(instance, KEY, DAYS).skipped == set(DAYS[:7])


def test_failed_runs_are_counted(instance):
    """Up to the number that matters."""
    run(instance, *["2026-01-03"] * 3)
    run(instance, "2026-01-01")
    assert failed_runs(instance, KEY, "signals", "2026-01-03", at_most=10) == 3
    assert failed_runs(instance, KEY, "signals", "2026-01-03", at_most=2) == 2
    assert failed_runs(instance, KEY, "signals", "2026-01-01", at_most=10) == 0


def test_a_run_that_failed_before_its_turn_is_not_counted(instance):
    """A notebook is not given up for what another one did."""
    run(instance, "2026-01-03", asset=dependent)
    assert failed_runs(instance, KEY, "signals", "2026-01-03", at_most=10) == 0
    assert partition_status(instance, KEY, DAYS).failed == {"2026-01-03"}


def test_an_attempt_after_a_skip_takes_it_back(instance):
    """What was skipped once and failed later is missing."""
    observe(instance, "2026-01-03", {SKIPPED_METADATA: "closed"})
    run(instance, "2026-01-03")
    status = partition_status(instance, KEY, DAYS)
    assert (status.failed, status.skipped) == ({"2026-01-03"}, frozenset())


@pytest.mark.parametrize(
    ("beats", "tags", "pending"),
    [
        (0.0, {"dagster/will_retry": "true"}, True),
        (0.0, {"dagster/will_retry": "false"}, False),
        (0.0, {}, False),
        (0.0, {"dagster/will_retry": "true", "dagster/auto_retry_run_id": "other"}, False),
        (1000.0, {"dagster/will_retry": "true"}, False),  # the daemon was last seen long ago
        (None, {"dagster/will_retry": "true"}, False),  # and never
    ],
)
def test_a_failed_run_that_the_daemon_is_about_to_retry_is_in_progress(
    instance, beats, tags, pending
):
    """Nobody else starts that partition meanwhile; without a daemon it is simply failed."""
    if beats is not None:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - beats, "SCHEDULER", None))
    run(instance, "2026-01-03", tags=tags)
    status = partition_status(instance, KEY, DAYS[2:3])
    assert (status.in_progress, status.failed) == (
        ({"2026-01-03"}, frozenset()) if pending else (frozenset(), {"2026-01-03"})
    )


def test_a_retry_that_never_came_is_not_waited_for(instance, monkeypatch):
    """A failed run that the daemon has left alone for minutes counts as failed."""
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() + 300, "SCHEDULER", None))
    run(instance, "2026-01-03", tags={"dagster/will_retry": "true"})
    later = time.time() + 300
    monkeypatch.setattr("research_jobs.orchestration.model.status.time.time", lambda: later)
    assert partition_status(instance, KEY, DAYS[2:3]).failed == {"2026-01-03"}
