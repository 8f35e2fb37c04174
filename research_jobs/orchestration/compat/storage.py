"""Fewer database connections and statements for each event, where Dagster's storage allows it.

How it is done, and what it rests on, is in `connections`; what it cannot be done for is left as
Dagster does it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dagster import DagsterInstance

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["hand_over_slot", "held_connections", "runs_in_turn"]

_SLOWER = "each event opens a database connection of its own"


def held_connections(
    instance: DagsterInstance, *, one_transaction: bool = False
) -> AbstractContextManager[None]:
    """Within this context, keep the connections to the instance's event log open.

    On Postgres they stay open after it as well, in the engine that the process's storages share.
    Storages other than Dagster's own for SQLite and Postgres are left as they are.

    Parameters
    ----------
    instance : DagsterInstance
    one_transaction : bool
        On SQLite, commit once, at the end: for a burst of events that nobody waits for. Others
        cannot write meanwhile.
    """
    storage: Any = instance.event_log_storage
    kind = type(storage).__name__
    if kind not in ("SqliteEventLogStorage", "PostgresEventLogStorage"):
        return nullcontext()
    sqlite = kind == "SqliteEventLogStorage"
    try:
        from research_jobs.orchestration.compat import connections
    except ImportError as error:
        lacking(error, _SLOWER)
        return nullcontext()
    missing = connections.lacks(storage, sqlite=sqlite)
    if missing is not None:
        lacking(AttributeError(f"{kind} has no {missing}"), _SLOWER)
        return nullcontext()
    if sqlite:
        return connections.held_sqlite(storage, one_transaction=one_transaction)
    connections.keep_postgres(storage)
    return nullcontext()


def hand_over_slot(
    storage: Any, pool: str, run_id: str, from_step: str, to_step: str, priority: int
) -> bool:
    """Let a step of a run have the slot of another, unless any step waits for one.

    Parameters
    ----------
    storage : EventLogStorage
    pool, run_id : str
    from_step, to_step : str
        The one that holds the slot; the one that has not asked for one yet.
    priority : int
        Of `to_step`.

    Returns
    -------
    bool
        False when the slot has to be freed and claimed: somebody waits, the pool was made
        smaller, or the storage is not one of Dagster's on SQL.
    """
    if not hasattr(storage, "index_connection"):
        return False
    try:
        from research_jobs.orchestration.compat import connections
    except ImportError as error:
        lacking(error, "each step frees its pool's slot and claims one")
        return False
    return connections.hand_over_slot(storage, pool, run_id, from_step, to_step, priority)


def runs_in_turn(storage: Any, pool: str) -> set[str]:
    """The runs to whose steps a slot of a pool is assigned that they have not taken yet.

    Parameters
    ----------
    storage : EventLogStorage
    pool : str

    Returns
    -------
    set of str
        Ids. Empty where the storage is not one of Dagster's on SQL.
    """
    if not hasattr(storage, "index_connection"):
        return set()
    try:
        from research_jobs.orchestration.compat import connections
    except ImportError as error:
        lacking(error, "a run that waits for a slot of another asks each second")
        return set()
    return connections.runs_in_turn(storage, pool)
