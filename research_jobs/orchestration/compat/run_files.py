"""A new run's SQLite file as a copy of an empty one.

Dagster keeps each run's events in a file of their own, and makes it with two dozen statements and
Alembic: 40 ms of CPU, a third of what a scheduled run cost the daemon. The file is the same for
each run, so it is made once in a process and copied, as durably as SQLite writes it.
"""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["PAGE_BYTES", "copy_run_files"]

# A file has two dozen tables and indexes, and each takes a page at least: with SQLite's own size,
# 112 KiB of the 156 that a small run takes are empty.
PAGE_BYTES = 1024


def copy_run_files() -> None:
    """Have a run's file made by copying, where Dagster makes it as we know it."""
    try:
        from dagster._core.storage.event_log import SqliteEventLogStorage

        original: Any = SqliteEventLogStorage._initdb
    except (ImportError, AttributeError) as error:
        lacking(error, "each run's file is made anew")
        return
    if hasattr(original, "copies"):
        return

    made: list[bytes] = []

    def initdb(self: Any, engine: Any, for_index_shard: bool = False) -> None:
        name = engine.url.database
        if name and not for_index_shard and not Path(name).exists():
            if not made:
                made.append(_empty(lambda other: original(self, other)))
            _place(Path(name), made[0])
        original(self, engine, for_index_shard)

    initdb.copies = True  # type: ignore[attr-defined]
    SqliteEventLogStorage._initdb = initdb  # type: ignore[method-assign]


def _empty(initialise: Callable[[Any], None]) -> bytes:
    """The content of a run's file without an event."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.db")
        engine = sa.create_engine(f"sqlite:///{file}", poolclass=NullPool)
        initialise(engine)
        engine.dispose()
        with closing(sqlite3.connect(file, isolation_level=None)) as small:
            small.execute("PRAGMA journal_mode = DELETE")
            small.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            small.execute("VACUUM")
            small.execute("PRAGMA journal_mode = WAL")
        return file.read_bytes()


def _place(file: Path, content: bytes) -> None:
    """Make a file with this content, all at once, unless there is one."""
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        with suppress(OSError):  # there is one, or no such links: Dagster makes it
            os.link(new, file)
    finally:
        new.unlink(missing_ok=True)
