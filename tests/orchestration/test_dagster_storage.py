"""Connections that stay open while a run lasts, and what must be as it was."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun

from research_jobs.orchestration._dagster_storage import held_connections


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
