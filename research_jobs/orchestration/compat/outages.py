"""Waiting for a database that is away: a Postgres that restarts costs a run time, and no more.

Dagster tries to connect six times within six seconds, then fails whatever wanted to store an
event, and with it the notebook. Here a process that runs notebooks waits for the server with
back-off, within a bound, wherever it touches the database. Two things are needed:

- connecting waits, which covers every statement that begins while the server is away;
- a storage method whose connection broke half-way is called again. Storing an event is not
  idempotent, so what the broken attempt may have stored is taken back first.
"""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.exc import DBAPIError

from research_jobs.errors import ProjectError
from research_jobs.orchestration.compat.fallback import lacking

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry
    from sqlalchemy.engine import Engine

__all__ = ["PATIENCE_VARIABLE", "ride_out_outages", "wait_for_server"]

logger = logging.getLogger("research_jobs")

PATIENCE_VARIABLE = "RESEARCH_JOBS_DATABASE_PATIENCE"
DEFAULT_PATIENCE_S = 300.0
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 2.0

# How often in a row the connection may break within one call.
_MOST_BREAKS = 20

_POSTGRES = ("PostgresEventLogStorage", "PostgresRunStorage")


def ride_out_outages(instance: DagsterInstance) -> None:
    """Have `instance` wait for its Postgres whenever that is away, until the instance is closed.

    Other storages are left as they are. May be called more than once.

    Parameters
    ----------
    instance : DagsterInstance
    """
    for storage in (instance.event_log_storage, instance.run_storage):
        if type(storage).__name__ not in _POSTGRES or "_rides_out" in storage.__dict__:
            continue
        patched: Any = storage
        patched._rides_out = True
        try:
            wait_for_server(patched._engine)
        except AttributeError as error:
            lacking(error, "a run waits only seconds for a database that is away")
            continue
        _repeat_broken_calls(patched)


def patience() -> float:
    """How long to wait for a database that is away, in seconds.

    Raises
    ------
    ProjectError
        When the variable holds something else than a number from 0.
    """
    text = os.environ.get(PATIENCE_VARIABLE, "").strip()
    try:
        seconds = float(text or DEFAULT_PATIENCE_S)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ProjectError(
            f"{PATIENCE_VARIABLE} is {text!r}", hint="It has to be a number of seconds from 0."
        )
    return seconds


def wait_for_server(engine: Engine) -> None:
    """Have `engine` wait for its server when it connects."""
    sa_event.listen(engine, "do_connect", _Outage().connect)


class _Outage:
    """How long the server of an engine has been away, over all threads."""

    def __init__(self) -> None:
        self._since: float | None = None  # monotonic

    def connect(self, dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        """Connect, as soon as the server lets us; SQLAlchemy's hook."""
        delay = _FIRST_DELAY_S
        while True:
            try:
                connection = dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:  # noqa: PERF203 - it is the loop
                time.sleep(min(delay, self._time_left(error)))
                delay = min(2 * delay, _LONGEST_DELAY_S)
            else:
                since, self._since = self._since, None
                if since is not None:
                    logger.warning("The database is back.")
                return connection

    def _time_left(self, error: Exception) -> float:
        """How long to go on trying after `error`; raises it, with the time, when that is over."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.warning(
                "The database cannot be reached; waiting up to %g s for it. %s",
                patience(),
                _first_line(error),
            )
        left = self._since + patience() - now
        # Once given up, nobody waits again before the server has been back.
        if left <= 0:
            raise type(error)(
                f"the database has been away for {now - self._since:.0f} s: "
                f"{_first_line(error)} (set {PATIENCE_VARIABLE} to wait longer)"
            ) from None
        return left


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _repeat_broken_calls(storage: Any) -> None:
    """Call a method of the storage again when its connection broke half-way."""
    state = threading.local()
    for name, function in inspect.getmembers(type(storage), inspect.isfunction):
        # Context managers: what is done inside them is another method's to repeat.
        if name.startswith("_") or inspect.isgeneratorfunction(inspect.unwrap(function)):
            continue
        method = getattr(storage, name)
        if inspect.ismethod(method):
            setattr(storage, name, _repeated(storage, method, state))


def _repeated(
    storage: Any, method: Callable[..., Any], state: threading.local
) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        if getattr(state, "inside", False):
            return method(*arguments, **options)  # the outermost call is the one to repeat
        state.inside = True
        try:
            for _attempt in range(_MOST_BREAKS):
                with _Break() as broken:
                    return method(*arguments, **options)
                logger.warning("The database broke off: %s. Trying again.", broken.line)
                if method.__name__ in ("store_event", "store_event_batch"):
                    given = arguments[0] if arguments else next(iter(options.values()))
                    _take_back(storage, given if isinstance(given, list) else [given])
            return method(*arguments, **options)
        finally:
            state.inside = False

    return call


class _Break:
    """Within this context, a connection that breaks is noted and not an error."""

    def __init__(self) -> None:
        self.line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, DBAPIError) or not error.connection_invalidated:
            return False
        self.line = _first_line(error)
        return True


def _take_back(storage: Any, events: Sequence[EventLogEntry]) -> None:
    """Remove what a broken call stored of these events, so that they are not there twice."""
    try:
        from dagster._core.storage.event_log import schema

        table, tags = schema.SqlEventLogStorageTable, schema.AssetEventTagsTable
        rows = [storage._event_to_row(event) for event in events]
    except (ImportError, AttributeError) as error:
        lacking(error, "an event may be stored twice when the database breaks off")
        return
    with storage.index_connection() as connection:
        for row in rows:
            stored = sa.select(table.c.id).where(
                table.c.run_id == row["run_id"], table.c.event == row["event"]
            )
            for number in connection.execute(stored).scalars().all():
                connection.execute(tags.delete().where(tags.c.event_id == number))
                connection.execute(table.delete().where(table.c.id == number))
