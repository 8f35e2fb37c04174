"""Give back the space of what was removed from a history: SQLite's and Postgres's VACUUM."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from research_jobs.orchestration.compat.engines import shared_files
from research_jobs.orchestration.compat.fallback import lacking
from research_jobs.units import readable_size

__all__ = ["vacuum"]

# SQLite writes the whole file anew, and writers wait meanwhile: only where it pays, and not so
# long that Dagster gives up, which is after half a minute.
_WORTH_BYTES, _WORTH_SHARE, _LARGEST = 4 * 2**20, 0.25, 2 * 2**30
_PATIENCE_S = 2
_TABLES = ("event_logs", "asset_event_tags", "asset_check_executions", "runs", "run_tags")


def vacuum(
    instance: dg.DagsterInstance, *, dry_run: bool = False
) -> Iterator[tuple[str, int, str]]:
    """Vacuum what all runs share, unless somebody else needs it just now.

    Parameters
    ----------
    instance : DagsterInstance
    dry_run : bool
        Only say what would be.

    Yields
    ------
    tuple
        The name of a file or database, the bytes that were freed (those of Postgres stay its
        own), and why it was left alone, if so.
    """
    storage: Any = instance.event_log_storage
    for name in shared_files(instance):
        try:
            yield _vacuum_sqlite(Path(name), dry_run=dry_run)
        except sqlite3.OperationalError as error:  # noqa: PERF203 - the others go on
            yield Path(name).name, 0, str(error)
    if dry_run:
        return
    try:
        opened = storage.index_connection()
    except AttributeError as error:
        lacking(error, "the history is not vacuumed")
        return
    with opened as connection:
        if connection.dialect.name != "postgresql":
            return
        # Each statement of this connection stands alone: Dagster's storages have it so.
        connection.execute(sa.text(f"SET lock_timeout = '{_PATIENCE_S}s'"))
        try:
            before = _postgres_bytes(connection)
            for table in _TABLES:
                try:
                    connection.execute(sa.text(f"VACUUM (ANALYZE) {table}"))
                except DBAPIError as error:  # noqa: PERF203 - the others go on
                    yield table, 0, str(error.orig).strip().partition("\n")[0]
            yield "Postgres", max(0, before - _postgres_bytes(connection)), ""
        finally:
            with suppress(DBAPIError):
                connection.execute(sa.text("RESET lock_timeout"))


def _postgres_bytes(connection: Any) -> int:
    return int(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar())


def _vacuum_sqlite(path: Path, *, dry_run: bool) -> tuple[str, int, str]:
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)) as file:
        page, pages, free = (
            int(file.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        size = page * pages
        if page * free < _WORTH_BYTES or free < pages * _WORTH_SHARE:
            return path.name, 0, ""
        if size > _LARGEST:
            return path.name, 0, f"it is too large ({readable_size(size)}) while others write"
        if shutil.disk_usage(path.parent).free < 2 * size:
            return path.name, 0, "the disk is too full"
        if not dry_run:
            file.execute("VACUUM")
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.name, page * free, ""
