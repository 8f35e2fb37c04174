"""Connections that stay open while a run lasts, and what must be as it was."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster import DagsterInstance, DagsterRun
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

from research_jobs.orchestration.compat import connections
from research_jobs.orchestration.compat.storage import held_connections


@pytest.fixture
def started(any_instance: DagsterInstance) -> DagsterRun:
    run = DagsterRun(job_name="job", run_id="a-run")
    any_instance.add_run(run)
    return run


def messages(instance: DagsterInstance, run: DagsterRun) -> list[str]:
    return sorted(entry.dagster_event.message for entry in instance.all_logs(run.run_id))


def test_events_of_many_threads(any_instance: DagsterInstance, started: DagsterRun) -> None:
    """Events that threads store at once are all there, at once and after the connections closed."""

    def store(thread: int) -> None:
        for number in range(20):
            any_instance.report_engine_event(f"{thread}-{number:02}", started)

    expected = sorted(f"{thread}-{number:02}" for thread in range(4) for number in range(20))
    with held_connections(any_instance):
        threads = [threading.Thread(target=store, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert messages(any_instance, started) == expected
    any_instance.report_engine_event("after", started)
    assert messages(any_instance, started) == [*expected, "after"]


def test_another_process_reads_along(instance: DagsterInstance) -> None:
    """What is stored over a held connection is seen by whoever opens the files meanwhile."""
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    with held_connections(instance):
        instance.report_engine_event("first", run)
        with DagsterInstance.from_ref(instance.get_ref()) as other:
            assert messages(other, run) == ["first"]
            other.report_engine_event("second", run)
        assert messages(instance, run) == ["first", "second"]


def test_error_leaves_the_connection_usable(instance: DagsterInstance) -> None:
    """A statement that fails is rolled back, and the next one works."""
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    storage = instance.event_log_storage
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    with held_connections(instance):
        instance.report_engine_event("before", run)
        with (  # noqa: PT012 - it is the second statement that fails
            pytest.raises(OperationalError),
            storage.run_connection(run.run_id) as connection,
        ):
            connection.execute(text("DELETE FROM event_logs"))
            connection.execute(text("SELECT * FROM no_such_table"))
        instance.report_engine_event("after", run)
        assert messages(instance, run) == ["after", "before"]


def test_runs_of_one_process_overlap(any_instance: DagsterInstance, started: DagsterRun) -> None:
    """Two runs of one process may end in any order."""
    first, second = held_connections(any_instance), held_connections(any_instance)
    first.__enter__()
    second.__enter__()
    any_instance.report_engine_event("1", started)
    first.__exit__(None, None, None)
    any_instance.report_engine_event("2", started)
    second.__exit__(None, None, None)
    any_instance.report_engine_event("3", started)
    assert messages(any_instance, started) == ["1", "2", "3"]


@pytest.mark.postgres
def test_connection_that_was_cut(new_instance: Any, postgres: Any) -> None:
    """A connection that the server dropped while a notebook ran for hours is replaced unnoticed."""
    import psycopg2

    database = postgres.create_database()
    instance = new_instance(storage=postgres.storage(database))
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    with held_connections(instance):
        instance.report_engine_event("before", run)
        with closing(psycopg2.connect(postgres.dsn("postgres"))) as admin, admin.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s",
                (database,),
            )
            assert cursor.fetchone()[0] > 0
        instance.report_engine_event("after", run)
    assert messages(instance, run) == ["after", "before"]


def test_other_storages_are_left_alone() -> None:
    """A storage of which nothing is known is used as it is."""
    with DagsterInstance.ephemeral() as instance:
        before = dict(vars(instance.event_log_storage))
        with held_connections(instance):
            assert vars(instance.event_log_storage).keys() == before.keys()


def test_burst_of_events_is_one_transaction(instance: DagsterInstance) -> None:
    """Others see the events of a burst when it ends; this process sees them at once."""
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    instance.report_engine_event("before", run)
    expected = [f"{number:02}" for number in range(20)]
    with DagsterInstance.from_ref(instance.get_ref()) as other:
        with held_connections(instance, one_transaction=True):
            for message in expected:
                instance.report_engine_event(message, run)
            assert messages(instance, run) == [*expected, "before"]
            assert messages(other, run) == ["before"]
        assert messages(other, run) == [*expected, "before"]


def test_long_burst_lets_others_write(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst is committed now and then, so that nobody waits for its end."""
    monkeypatch.setattr(connections, "LONGEST_TRANSACTION_S", -1.0)
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    instance.report_engine_event("1", run)
    with DagsterInstance.from_ref(instance.get_ref()) as other:
        with held_connections(instance, one_transaction=True):
            instance.report_engine_event("2", run)
            instance.report_engine_event("3", run)
            assert messages(other, run) == ["1", "2"]
        assert messages(other, run) == ["1", "2", "3"]


def test_failed_burst_leaves_nothing(instance: DagsterInstance) -> None:
    """A burst that ends in an error is taken back, and the storage works on."""
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    instance.report_engine_event("1", run)
    with (  # noqa: PT012 - the error comes after what it takes back
        pytest.raises(ValueError, match="stop"),
        held_connections(instance, one_transaction=True),
    ):
        instance.report_engine_event("2", run)
        raise ValueError("stop")
    instance.report_engine_event("3", run)
    assert messages(instance, run) == ["1", "3"]


def test_materializations_over_held_connections(instance: DagsterInstance) -> None:
    """What is remembered of the schema leaves materialisations and their tags as they are."""
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    key = dg.AssetKey("asset")
    with held_connections(instance):
        for number in range(3):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, tags={DATA_VERSION_TAG: str(number)})
            )
    event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.tags == {DATA_VERSION_TAG: "2"}
    assert instance.get_event_tags_for_asset(key) != []


@dg.asset(check_specs=[dg.AssetCheckSpec("is_one", asset="one")])
def one(context):
    """Makes events of every kind that a step makes."""
    context.log.info("a line of the log")
    context.log_event(dg.AssetObservation("one", metadata={"seen": True}))
    yield dg.MaterializeResult(metadata={"rows": 1, "größe": "π"})
    yield dg.AssetCheckResult(passed=True)


def rows(instance: DagsterInstance, run_id: str) -> list[list[tuple[Any, ...]]]:
    """The events of a run in its own file, and in the one for all runs; all columns but the id."""
    storage: Any = instance.event_log_storage
    query = sa.select(*[column for column in SqlEventLogStorageTable.c if column.name != "id"])
    found = []
    for connect in (storage.run_connection(run_id), storage.index_connection()):
        with connect as connection:
            found.append([tuple(row) for row in connection.execute(query)])
    return found


def test_rows_are_as_dagster_writes_them(new_instance: Any) -> None:
    """Each event of a real run is in the same files, column by column, as without us."""
    made: DagsterInstance = new_instance()
    result = dg.materialize([one], instance=made)
    entries = made.all_logs(result.run_id)
    kinds = {entry.dagster_event_type for entry in entries}
    assert kinds > {
        None,
        dg.DagsterEventType.STEP_START,
        dg.DagsterEventType.STEP_OUTPUT,
        dg.DagsterEventType.STEP_SUCCESS,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.RUN_START,
    }
    plain, ours = new_instance(), new_instance()
    for entry in entries:
        plain.event_log_storage.store_event(entry)
    # The first event of a run makes its file, and is not over a held connection.
    ours.event_log_storage.store_event(entries[0])
    with held_connections(ours):
        for entry in entries[1:]:
            ours.event_log_storage.store_event(entry)
    assert rows(ours, result.run_id) == rows(plain, result.run_id)
