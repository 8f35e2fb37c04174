"""Storing events without a new database connection for each.

Dagster's SQLite storage makes an engine, opens the file, writes one row and closes the file again,
whereupon SQLite folds its write-ahead log back: 5 ms for an event and 12 ms for a
materialisation, of which a step has about eight. Over a connection that stays open the same
statements take 0.8 and 2.6 ms. (Postgres, too, gets a new connection for every statement; of that
`engines` takes care.)

While a run lasts, the run worker keeps its connections, and what it has once seen of the database's
tables and columns. Everything else is Dagster's own: the statements, the transactions, the lock,
and how safely SQLite writes (``synchronous`` is untouched). The statement that stores most events,
one row in the run's file, is built once instead of for each. Only the events with which a run is
planned, one for each asset before anything has happened, are one transaction.
"""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
)
from dagster._core.storage.event_log.schema import (
    ConcurrencySlotsTable,
    PendingStepsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.sql import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from research_jobs.orchestration.compat.engines import share_engine
from research_jobs.orchestration.compat.outages import wait_for_server

if TYPE_CHECKING:
    from dagster import EventLogEntry
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
    from sqlalchemy.engine import Connection, Engine

__all__ = ["hand_over_slot", "held_sqlite", "keep_postgres", "lacks", "runs_in_turn"]

# How long a writer waits for another process that holds the file, as in Dagster.
SQLITE_TIMEOUT_S = 30
# Other processes that want to write wait for it, and do not mind this long.
LONGEST_TRANSACTION_S = 0.5


# What SQLite's storage keeps in a second file, for all runs, besides the run's own.
_MIRRORED = {*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS}
_INSERT = SqlEventLogStorageTable.insert()

_slots, _steps = ConcurrencySlotsTable.c, PendingStepsTable.c

# A step that holds a slot has two rows: its slot's, and its own among those that asked for one.
_RENAME_SLOT = (
    ConcurrencySlotsTable.update()
    .values(step_key=sa.bindparam("to"))
    .where(
        _slots.concurrency_key == sa.bindparam("pool"),
        _slots.run_id == sa.bindparam("run"),
        _slots.step_key == sa.bindparam("from"),
        _slots.deleted == sa.false(),
        ~sa.exists().where(
            _steps.concurrency_key == sa.bindparam("pool"), _steps.assigned_timestamp.is_(None)
        ),
    )
)
_RENAME_STEP = (
    PendingStepsTable.update()
    .values(step_key=sa.bindparam("to"), priority=sa.bindparam("its_priority"))
    .where(
        _steps.concurrency_key == sa.bindparam("pool"),
        _steps.run_id == sa.bindparam("run"),
        _steps.step_key == sa.bindparam("from"),
    )
)


def hand_over_slot(
    storage: Any, pool: str, run_id: str, from_step: str, to_step: str, priority: int
) -> bool:
    """Do what `storage.hand_over_slot` says, by two statements on Dagster's tables.

    It is False as well when the server went away: freeing and claiming waits for it.
    """
    values: dict[str, Any] = {"pool": pool, "run": run_id, "from": from_step, "to": to_step}
    try:
        with storage.index_connection() as connection:
            if connection.execute(_RENAME_SLOT, values).rowcount != 1:
                return False
            connection.execute(_RENAME_STEP, {**values, "its_priority": priority})
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return False
    return True


_IN_TURN = (
    sa.select(_steps.run_id)
    .distinct()
    .where(
        _steps.concurrency_key == sa.bindparam("pool"),
        _steps.assigned_timestamp.is_not(None),
        ~sa.exists().where(
            _slots.concurrency_key == sa.bindparam("pool"),
            _slots.run_id == _steps.run_id,
            _slots.step_key == _steps.step_key,
        ),
    )
)


def runs_in_turn(storage: Any, pool: str) -> set[str]:
    """Do what `storage.runs_in_turn` says, by one question of Dagster's tables."""
    with storage.index_connection() as connection:
        return set(connection.execute(_IN_TURN, {"pool": pool}).scalars())


_SQLITE_PARTS = (
    "_connect",
    "_db_lock",
    "_event_to_row",
    "_initialized_dbs",
    "conn_string_for_shard",
    "run_connection",
    "store_event",
)
_POSTGRES_PARTS = ("_engine", "postgres_url")


def lacks(storage: Any, *, sqlite: bool) -> str | None:
    """The first part of a storage that is needed here and is not there; None where all are."""
    parts = _SQLITE_PARTS if sqlite else _POSTGRES_PARTS
    return next((part for part in parts if not hasattr(storage, part)), None)


@contextmanager
def held_sqlite(storage: SqliteEventLogStorage, *, one_transaction: bool) -> Generator[None]:
    opens = storage._connect
    engines: dict[str, Engine] = {}
    transactions = _Transactions()

    @contextmanager
    def connect(shard: str) -> Generator[Connection]:
        if shard not in storage._initialized_dbs:
            with opens(shard) as connection:  # makes the file where there is none
                yield connection
            return
        # As in the original, one thread at a time: that is what lets them share a connection.
        with storage._db_lock:
            engine = engines.get(shard)
            if engine is None:
                engine = engines[shard] = create_engine(
                    storage.conn_string_for_shard(shard),
                    poolclass=StaticPool,
                    connect_args={
                        "timeout": SQLITE_TIMEOUT_S,
                        "check_same_thread": False,
                    },
                )
            if one_transaction:
                yield transactions.on(engine)
                return
            with engine.connect() as connection, connection.begin():
                yield connection

    stores = storage.store_event

    def store_event(event: EventLogEntry) -> None:
        if event.is_dagster_event and event.dagster_event_type in _MIRRORED:
            stores(event)
            return
        row = storage._event_to_row(event)
        with storage.run_connection(event.run_id) as connection:
            connection.execute(_INSERT, row)

    patched: Any = storage
    patched._connect = connect
    patched.store_event = store_event
    _remember_schema(patched)
    try:
        with transactions:
            yield
    finally:
        if patched.__dict__.get("_connect") is connect:
            for name in ("_connect", "store_event", *_SCHEMA):
                patched.__dict__.pop(name, None)
        with storage._db_lock:
            for engine in engines.values():
                engine.dispose()


class _Transactions:
    """Transactions that many statements share, none of them for long."""

    def __init__(self) -> None:
        self._begun: dict[Engine, tuple[Connection, float]] = {}

    def on(self, engine: Engine) -> Connection:
        """The open transaction of a database; one that is old is committed first."""
        connection, since = self._begun.get(engine) or (engine.connect(), 0.0)
        now = time.monotonic()
        if now - since > LONGEST_TRANSACTION_S:
            if connection.in_transaction():
                connection.commit()
            connection.begin()
            self._begun[engine] = (connection, now)
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for connection, _since in self._begun.values():
            with connection:
                if kind is None:
                    connection.commit()


# Questions about the schema that each materialisation asks; not every version asks both.
_SCHEMA = ("has_table", "_has_asset_key_index_cols_on_connection")


def _remember_schema(storage: Any) -> None:
    """Ask once whether a table or column is there."""
    for name in _SCHEMA:
        asks = getattr(storage, name, None)
        if asks is None:
            continue
        known: set[str] = set()

        def ask(what: Any, *, asks: Any = asks, known: set[str] = known) -> bool:
            key = what if isinstance(what, str) else ""  # a connection: the question is the same
            if key not in known:
                if not asks(what):
                    return False
                known.add(key)
            return True

        setattr(storage, name, ask)


def keep_postgres(storage: Any) -> None:
    engine = storage._engine
    share_engine(storage)
    if storage._engine is not engine:
        wait_for_server(storage._engine)
