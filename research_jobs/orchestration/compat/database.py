"""Questions about the database of the history that Dagster has no public answer to."""

from __future__ import annotations

from typing import Any

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["connections", "revisions"]


def revisions(instance: dg.DagsterInstance) -> dict[str, tuple[str | None, str | None]]:
    """The migration that each storage's tables have, and the one that this Dagster knows.

    Empty where this version of Dagster does not say.
    """
    storages: dict[str, Any] = {
        "runs": instance.run_storage,
        "events": instance.event_log_storage,
        "schedules": instance.schedule_storage,
    }
    try:
        said = {name: storage.alembic_version() for name, storage in storages.items()}
    except AttributeError as error:
        lacking(error, "a history that needs a migration is not noticed")
        return {}
    return {name: pair for name, pair in said.items() if pair}


def connections(instance: dg.DagsterInstance) -> tuple[int, int] | None:
    """How many connections a Postgres has, and how many it lets an ordinary user have.

    None for other databases, and where this version of Dagster cannot be asked.
    """
    import sqlalchemy as sa

    storage: Any = instance.run_storage
    try:
        opened = storage.connect()
    except AttributeError as error:
        lacking(error, "a Postgres that is short of connections is not noticed")
        return None
    with opened as connection:
        if connection.dialect.name != "postgresql":
            return None
        row = connection.execute(
            sa.text(
                "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = "
                "'client backend'), current_setting('max_connections')::int - "
                "current_setting('superuser_reserved_connections')::int"
            )
        ).one()
        return int(row[0]), int(row[1])
