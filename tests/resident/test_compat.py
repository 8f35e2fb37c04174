"""What the host needs of Dagster and Alembic, and what happens where they lack it."""

from __future__ import annotations

import importlib
import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
import yaml
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from hosted import Hosted
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from research_jobs.orchestration.compat import engines, run_worker, schema
from research_jobs.orchestration.compat import instance as instances
from research_jobs.orchestration.compat.engines import remember_engines
from research_jobs.orchestration.compat.instance import open_instance, share_instance
from research_jobs.orchestration.compat.migrations import remember_migrations
from research_jobs.orchestration.compat.outages import ride_out_outages
from research_jobs.orchestration.compat.run_files import copy_run_files
from research_jobs.orchestration.compat.schema import remember_schema

EMPTY = dg.GraphDefinition("empty").to_job()


@pytest.fixture(autouse=True)
def _undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is replaced in Dagster is there again for the other tests."""
    for place, name in [
        *((place, "create_engine") for place in engines._SQLITE),
        *((place, "create_pg_engine") for place in engines._POSTGRES),
    ]:
        module = pytest.importorskip(place)
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(SqliteEventLogStorage, "_initdb", SqliteEventLogStorage._initdb)


def test_an_instance_as_text(own: Hosted) -> None:
    """An instance that travels as text is the same one: a run stored in one is in the other."""
    home = own.root / "home"
    with open_instance(home) as instance:
        run = instance.create_run_for_job(EMPTY)
        text = run_worker.instance_text(instance)
    with run_worker.instance_from_text(text) as other:
        assert other.get_run_by_id(run.run_id) == run


@pytest.mark.parametrize(("module", "name"), run_worker._NEEDED)
def test_where_dagster_lacks_a_name(
    module: str, name: str, own: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of the names nothing is asked of the host: the code server launches the run."""
    with open_instance(own.root / "home") as instance, monkeypatch.context() as patch:
        patch.delattr(f"{module}.{name}")
        with pytest.raises(ImportError):
            run_worker.instance_text(instance)


def test_migrations_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of one folder are one object afterwards, with the same newest revision."""
    from dagster._core.storage.sql import get_alembic_config

    original = ScriptDirectory.from_config
    config = get_alembic_config(dg.__file__.replace("__init__.py", "_core/storage/runs/x.py"))
    plain = ScriptDirectory.from_config(config)
    monkeypatch.setattr(ScriptDirectory, "from_config", partial(original))
    remember_migrations()
    remembered = ScriptDirectory.from_config(config)
    assert remembered is ScriptDirectory.from_config(config)
    assert remembered.get_current_head() == plain.get_current_head()
    once = ScriptDirectory.from_config
    remember_migrations()
    assert ScriptDirectory.from_config is once


def test_a_file_has_one_engine(own: Hosted) -> None:
    """Questions about one file share an engine, which keeps what it has compiled; files do not."""
    remember_engines()
    made = sqlite_run_storage.create_engine
    remember_engines()
    assert sqlite_run_storage.create_engine is made
    one, other = f"sqlite:///{own.root}/one.db", f"sqlite:///{own.root}/other.db"
    engine = made(one, poolclass=NullPool)
    assert made(one, poolclass=NullPool) is engine
    assert made(one, poolclass=NullPool, connect_args={"timeout": 1}) is not engine
    assert made(other, poolclass=NullPool) is not engine
    assert made(one, poolclass=StaticPool) is not made(one, poolclass=StaticPool)
    with open_instance(own.root / "home") as instance:
        run = instance.create_run_for_job(EMPTY)
        instance.report_run_failed(run, "on purpose")
        assert instance.get_run_by_id(run.run_id) != run
        assert len(instance.all_logs(run.run_id)) == 1


def test_a_run_file_is_a_copy(own: Hosted) -> None:
    """A copied file has the tables, journal and revision of Dagster's own, and nothing is left."""
    files = own.root / "home" / "history" / "runs"
    with open_instance(own.root / "home") as instance:
        first = instance.create_run_for_job(EMPTY)
        instance.report_engine_event("made by Dagster", first)
        copy_run_files()
        replaced = SqliteEventLogStorage._initdb
        copy_run_files()
        assert SqliteEventLogStorage._initdb is replaced
        runs = [first, *(instance.create_run_for_job(EMPTY) for _ in range(2))]
        for run in runs[1:]:
            instance.report_engine_event("copied", run)
        kinds = {run.run_id: _described(files / f"{run.run_id}.db") for run in runs}
        assert len(set(kinds.values())) == 1, kinds
        assert [entry.message for entry in instance.all_logs(runs[2].run_id)] == ["copied"]
        known = instance.event_log_storage.get_all_run_ids()
        assert sorted(known) == sorted(run.run_id for run in runs)
    assert not [file for file in files.iterdir() if ".new" in file.name]


def _described(file: Path) -> tuple[Any, ...]:
    with closing(sqlite3.connect(file)) as connection:
        return (
            tuple(connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name")),
            tuple(connection.execute("PRAGMA journal_mode")),
            tuple(connection.execute("SELECT version_num FROM alembic_version")),
        )


def test_tables_are_asked_for_once(own: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes is remembered for a storage, a no is asked again, and the answers stay right."""
    from dagster._core.storage.schedules import SqlScheduleStorage

    asked: list[str] = []
    answers = [False, True]

    def has(self: Any) -> bool:
        asked.append(type(self).__name__)
        return answers.pop(0)

    for place, kind, name in schema._QUESTIONS:
        storage = getattr(importlib.import_module(place), kind)
        monkeypatch.setattr(storage, name, getattr(storage, name))
    with open_instance(own.root / "home") as instance:
        monkeypatch.setattr(SqlScheduleStorage, "has_instigators_table", has)
        remember_schema()
        remember_schema()
        ticks: Any = instance.schedule_storage
        assert [ticks.has_instigators_table() for _ in range(3)] == [False, True, True]
        assert len(asked) == 2
        runs: Any = instance.run_storage
        assert [runs.has_run_stats_index_cols() for _ in range(2)] == [True, True]


def test_files_that_all_runs_share_are_held(own: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are held open without a lock in the way of those who write, and once."""
    monkeypatch.setattr(engines, "_held", {})
    home = own.root / "home"
    with open_instance(home) as instance:
        remember_engines(instance)
        remember_engines(instance)
        assert sorted(Path(file).name for file in engines._held) == [
            "index.db", "runs.db", "schedules.db"
        ]  # fmt: skip
        run = instance.create_run_for_job(EMPTY)
        with open_instance(home) as other:
            other.report_run_failed(run, "on purpose")
            assert other.get_run_by_id(run.run_id) == instance.get_run_by_id(run.run_id)
        # The journal stays where it was last folded back when the last connection was closed.
        assert (home / "history" / "runs.db-wal").exists()
    for connection in engines._held.values():
        connection.close()
    assert not (home / "history" / "runs.db-wal").exists()


def test_ticks_share_an_instance(own: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick has the instance of the tick before it, and another where the reference differs."""
    monkeypatch.setattr(instances, "_shared", [])
    (own.root / "other").mkdir()
    with open_instance(own.root / "home") as first, open_instance(own.root / "other") as second:
        seen: list[dg.DagsterInstance] = []
        for reference in (first.get_ref(), first.get_ref(), second.get_ref()):
            with dg.ScheduleEvaluationContext(reference, None) as context:
                share_instance(context)
                seen.append(context.instance)
        assert seen[0] is seen[1]
        assert seen[0] is not seen[2]
        # It outlives the ticks.
        assert seen[0].get_run_by_id("none") is None
        without = dg.build_schedule_context()
        share_instance(without)
        with pytest.raises(dg.DagsterInvariantViolationError):
            _ = without.instance


def test_storages_on_postgres_share_connections(own: Hosted, postgres: Any) -> None:
    """Three storages ask over one connection, in an instance opened before or after."""
    home = own.root / "home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": postgres.storage()}))
    with open_instance(home) as early:
        run = early.create_run_for_job(EMPTY)
        remember_engines(early)
        with open_instance(home) as late:
            made: set[Any] = set()
            for instance in (early, late):
                storages: list[Any] = [
                    instance.run_storage, instance.event_log_storage, instance.schedule_storage
                ]  # fmt: skip
                instance.report_engine_event("asked", run)
                assert instance.get_run_by_id(run.run_id) == run
                made |= {storage._engine for storage in storages}
            (engine,) = made
            assert isinstance(engine.pool, QueuePool)
            assert engine.pool.checkedin() == 1
            _in_a_fork(lambda: engine.pool.checkedin() == 0 and late.all_logs(run.run_id))
            assert len(late.all_logs(run.run_id)) == 2


@pytest.mark.parametrize("trusted_s", [0.0, 60.0])
def test_a_connection_is_tried_before_use(
    trusted_s: float, own: Hosted, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was cut is replaced; in a process that trusts it, the call is repeated."""
    monkeypatch.setattr(engines, "_trusted_s", trusted_s)
    home = own.root / "home"
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": postgres.storage()}))
    remember_engines()
    with open_instance(home) as instance:
        run = instance.create_run_for_job(EMPTY)
        storage: Any = instance.run_storage
        if trusted_s:
            ride_out_outages(instance)
        with storage.connect() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with closing(psycopg2.connect(storage.postgres_url.replace("+psycopg2", ""))) as other:
            other.cursor().execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        assert instance.get_run_by_id(run.run_id) == run
        with storage.connect() as connection:
            assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != pid


def _in_a_fork(holds: Any) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if holds() else 1)
    assert os.waitpid(child, 0)[1] == 0
