"""One engine for each database of Dagster's, in processes that ask it much.

Dagster's storages make an engine for each question (SQLite) or connect for each (Postgres). An
engine keeps the statements that it has compiled, so each question compiles its statement again; a
connection to Postgres costs 3 ms of CPU, and a small run opened some forty.

- SQLite: engines of one file are one. They keep no connection, so threads and forks share them.
  The daemon holds each file that all runs share open, without reading or writing there: whoever
  closes the last connection to a file has to fold its journal back, which syncs the disk.
- Postgres: the storages of one database share one engine, which keeps as many connections as
  threads use it at once, tries each before use and opens more at need. A forked process begins
  with none.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import NullPool, QueuePool

if TYPE_CHECKING:
    from dagster import DagsterInstance

__all__ = ["remember_engines", "share_engine", "shared_files", "trust_connections"]

_SQLITE = (
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
)
_POSTGRES = (
    "dagster_postgres.event_log.event_log",
    "dagster_postgres.run_storage.run_storage",
    "dagster_postgres.schedule_storage.schedule_storage",
)
# A run's events are in a file of its own: those of runs that are over are forgotten.
_MOST = 16
# An idle connection may be cut by what lies between, so it is tried before use, and renewed.
_RECYCLE_S = 300
_KEPT_CONNECTIONS = 4
_AS_DAGSTER_OPENS = {"isolation_level": "AUTOCOMMIT", "poolclass": NullPool}


def remember_engines(instance: DagsterInstance | None = None) -> None:
    """Have Dagster's storages share engines, where they make them as we know it.

    Parameters
    ----------
    instance : DagsterInstance, optional
        One that is open already.
    """
    for place in _SQLITE:
        _replace(place, "create_engine", _shared_sqlite)
    for place in _POSTGRES:
        _replace(place, "create_pg_engine", _shared_postgres)
    if instance is not None:
        for storage in (
            instance.run_storage,
            instance.event_log_storage,
            instance.schedule_storage,
        ):
            share_engine(storage)
        _hold_files(instance)


def share_engine(storage: Any) -> None:
    """Have a storage on Postgres that is open already use the shared engine of its database."""
    engine, url = getattr(storage, "_engine", None), getattr(storage, "postgres_url", None)
    if engine is None or url is None or getattr(storage, "_token_provider", None) is not None:
        return
    if isinstance(engine.pool, NullPool):
        storage._engine = _postgres_engine(url)  # noqa: SLF001 - the storage's only part of this


_held: dict[str, sqlite3.Connection] = {}


def shared_files(instance: DagsterInstance) -> list[str]:
    """The SQLite files that all runs share; none elsewhere."""
    storages: list[Any] = [instance.run_storage, instance.schedule_storage]
    urls = [getattr(storage, "_conn_string", "") for storage in storages]
    shard = getattr(instance.event_log_storage, "conn_string_for_shard", None)
    if shard is not None:
        urls.append(shard("index"))
    files = (sa.make_url(url).database for url in urls if url.startswith("sqlite"))
    return [file for file in files if file and os.path.isfile(file)]  # noqa: PTH113 - any text


def _hold_files(instance: DagsterInstance) -> None:
    """Hold the files open that all runs share."""
    for file in shared_files(instance):
        if file in _held:
            continue
        connection = sqlite3.connect(file, check_same_thread=False)
        with suppress(sqlite3.Error):
            # SQLite opens a file only when it is asked for something.
            connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
        _held[file] = connection


def _replace(place: str, name: str, shared: Any) -> None:
    try:
        module = importlib.import_module(place)
        original = getattr(module, name)
    except (ImportError, AttributeError):
        return
    if not hasattr(original, "remembers"):
        made = shared(original)
        made.remembers = True
        setattr(module, name, made)


def _shared_sqlite(original: Any) -> Any:
    @lru_cache(_MOST)
    def make(url: str, connecting: tuple[tuple[str, Any], ...]) -> Any:
        return original(url, poolclass=NullPool, connect_args=dict(connecting))

    def create_engine(
        url: Any, *, connect_args: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        connecting = dict(connect_args or {})
        if options != {"poolclass": NullPool}:
            return original(url, connect_args=connecting, **options)
        return make(url, tuple(sorted(connecting.items())))

    return create_engine


def _shared_postgres(original: Any) -> Any:
    def create_pg_engine(url: str, token_provider: Any = None, **options: Any) -> Any:
        if token_provider is not None or options != _AS_DAGSTER_OPENS:
            return original(url, token_provider, **options)
        return _postgres_engine(url)

    return create_pg_engine


@lru_cache(None)
def _postgres_engine(url: str) -> Any:
    engine = sa.create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=QueuePool,
        pool_size=_KEPT_CONNECTIONS,
        max_overflow=-1,
        pool_recycle=_RECYCLE_S,
        pool_use_lifo=True,
    )
    sa_event.listen(engine, "checkin", _note_use)
    sa_event.listen(engine, "checkout", partial(_try_connection, engine))
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    return engine


def trust_connections() -> None:
    """Try a connection to Postgres only if it was not used for a second.

    For a process that repeats what a broken connection interrupts (`outages`): trying each before
    each statement is half of what it asks of the server.
    """
    global _trusted_s
    _trusted_s = 1.0


_trusted_s = 0.0


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _try_connection(engine: Any, connection: Any, record: Any, _proxy: Any) -> None:
    used = record.info.get("used")
    if used is None or time.monotonic() - used < _trusted_s:
        return  # it is new, or was there just now
    try:
        alive = engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        if not engine.dialect.is_disconnect(error, connection, None):
            raise
        alive = False
    if not alive:
        raise InvalidatePoolError
