"""What an instance is asked, and told, so that runs go from it: Dagster has no retention of runs.

`instance.delete_run` leaves a run's SQLite file and its rows among the checks, and takes the
materialisations that partitions are counted by. Where a version of Dagster lacks a name that is
needed here, its history is left alone.
"""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa

from research_jobs.failpoints import failpoint
from research_jobs.filesystem import temporary_path
from research_jobs.orchestration.compat.fallback import lacking
from research_jobs.orchestration.compat.run_files import PAGE_BYTES

__all__ = [
    "FAILPOINTS",
    "CheckRow",
    "EventRow",
    "asset_events",
    "asset_inputs",
    "can_prune",
    "check_rows",
    "forgotten_files",
    "log_bytes",
    "log_folders",
    "remove_run",
    "run_bytes",
    "thin_run",
]

MADE, OBSERVED, PLANNED = (
    "ASSET_MATERIALIZATION",
    "ASSET_OBSERVATION",
    "ASSET_MATERIALIZATION_PLANNED",
)
# What a thinned run keeps: what SQLite's storage has of it in the file of all runs, and the steps.
_STAYS = (
    *(MADE, OBSERVED, PLANNED, "ASSET_FAILED_TO_MATERIALIZE"),
    *("ASSET_CHECK_EVALUATION", "ASSET_CHECK_EVALUATION_PLANNED"),
    *("STEP_START", "STEP_SUCCESS", "STEP_FAILURE", "STEP_SKIPPED"),
    *("STEP_UP_FOR_RETRY", "STEP_RESTARTED"),
    *(f"PIPELINE_{what}" for what in ("ENQUEUED", "DEQUEUED", "STARTING", "START", "SUCCESS")),
    *(f"PIPELINE_{what}" for what in ("FAILURE", "CANCELING", "CANCELED")),
)
_IS_LOG = (
    f"dagster_event_type IS NULL OR dagster_event_type NOT IN ({', '.join('?' * len(_STAYS))})"
)
_POINTER = re.compile(r'("dagster/input_event_pointer/(?:[^"\\]|\\.)+")\s*[:,]\s*"(\d+)"')
_AT_ONCE = 400
# Points at which a test can kill the process.
FAILPOINTS = (
    *("prune.events", "prune.checks", "prune.logs", "prune.files"),
    *("prune.copied", "prune.rewritten", "prune.thinned"),
)
_RUN_FILE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class EventRow(NamedTuple):
    """An event of an asset, by the name of its type."""

    number: int
    run: str
    asset: str
    partition: str | None
    kind: str


class CheckRow(NamedTuple):
    """An execution of a check."""

    number: int
    run: str
    asset: str
    partition: str | None
    name: str


def _tables() -> Any:
    from dagster._core.storage.event_log import schema

    return schema


def can_prune(instance: dg.DagsterInstance) -> bool:
    """Whether runs can be taken from the instance: its storage is one of Dagster's on SQL."""
    storage: Any = instance.event_log_storage
    try:
        schema = _tables()
        _ = schema.SqlEventLogStorageTable.c.partition, schema.AssetCheckExecutionsTable.c.run_id
        _ = storage.index_connection, storage.delete_events, instance.run_storage.delete_run
        if storage.is_run_sharded:
            _ = storage.path_for_shard
    except (ImportError, AttributeError) as error:
        lacking(error, "the history is not pruned")
        return False
    return True


def asset_events(instance: dg.DagsterInstance) -> Iterator[EventRow]:
    """What runs said of assets, the oldest first."""
    columns = _tables().SqlEventLogStorageTable.c
    storage: Any = instance.event_log_storage
    query = (
        sa.select(
            columns.id,
            columns.run_id,
            columns.asset_key,
            columns.partition,
            columns.dagster_event_type,
        )
        .where(columns.dagster_event_type.in_((MADE, OBSERVED, PLANNED)))
        .order_by(columns.id)
    )
    with storage.index_connection() as connection:
        for row in connection.execute(query):
            key = dg.AssetKey.from_db_string(row[2])
            if key is not None and row[1]:
                yield EventRow(row[0], row[1], key.to_user_string(), row[3], row[4])


def asset_inputs(
    instance: dg.DagsterInstance, numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, int]]]:
    """Of materialisations that name what they were made of: the events, by asset."""
    columns = _tables().SqlEventLogStorageTable.c
    storage: Any = instance.event_log_storage
    for start in range(0, len(numbers), _AT_ONCE):
        chunk = numbers[start : start + _AT_ONCE]
        query = sa.select(columns.id, columns.event).where(columns.id.in_(chunk))
        with storage.index_connection() as connection:
            rows = connection.execute(query).fetchall()
        for number, text in rows:
            named = _POINTER.findall(text)
            if named:
                yield (
                    number,
                    {json.loads(name).split("/", 2)[2]: int(event) for name, event in named},
                )


def check_rows(instance: dg.DagsterInstance) -> Iterator[CheckRow]:
    """The executions of checks, the oldest first."""
    columns = _tables().AssetCheckExecutionsTable.c
    storage: Any = instance.event_log_storage
    query = sa.select(
        columns.id, columns.run_id, columns.asset_key, columns.partition, columns.check_name
    ).order_by(columns.id)
    with storage.index_connection() as connection:
        for row in connection.execute(query):
            key = dg.AssetKey.from_db_string(row[2])
            if key is not None and row[1]:
                yield CheckRow(row[0], row[1], key.to_user_string(), row[3], row[4])


def run_bytes(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> int:
    """What runs take in the event log: bytes of their events and, in SQLite, of their files."""
    total = _event_bytes(instance, run_ids)
    for path in _files(instance, run_ids):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def log_bytes(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> int:
    """What of that their logs take, about."""
    total = 0
    if not instance.event_log_storage.is_run_sharded:
        return _event_bytes(instance, run_ids, only_logs=True)
    for path in _files(instance, run_ids):
        with suppress(OSError, sqlite3.Error), closing(_opened(path)) as file:
            query = f"SELECT sum(length(event)) FROM event_logs WHERE {_IS_LOG}"  # noqa: S608 - ours
            total += file.execute(query, _STAYS).fetchone()[0] or 0
    return total


def _event_bytes(
    instance: dg.DagsterInstance, run_ids: Sequence[str], *, only_logs: bool = False
) -> int:
    columns = _tables().SqlEventLogStorageTable.c
    storage: Any = instance.event_log_storage
    total = 0
    for start in range(0, len(run_ids), _AT_ONCE):
        chunk = run_ids[start : start + _AT_ONCE]
        query = sa.select(sa.func.sum(sa.func.length(columns.event))).where(
            columns.run_id.in_(chunk)
        )
        if only_logs:
            query = query.where(_is_log())
        with storage.index_connection() as connection:
            total += int(connection.execute(query).scalar() or 0)
    return total


def _is_log() -> Any:
    kind = _tables().SqlEventLogStorageTable.c.dagster_event_type
    return sa.or_(kind.is_(None), kind.not_in(_STAYS))


def remove_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove a run with all that it left in the instance; the record goes last.

    A process that is killed meanwhile leaves the record, by which the run is found again.
    """
    storage: Any = instance.event_log_storage
    checks = _tables().AssetCheckExecutionsTable
    storage.delete_events(run_id)
    failpoint("prune.events")
    with storage.index_connection() as connection:
        connection.execute(checks.delete().where(checks.c.run_id == run_id))
    failpoint("prune.checks")
    _remove_logs(instance, run_id)
    failpoint("prune.logs")
    for path in _files(instance, [run_id]):
        _remove_file(path)
    failpoint("prune.files")
    instance.run_storage.delete_run(run_id)


def _remove_logs(instance: dg.DagsterInstance, *folder: str) -> None:
    """Remove the compute logs of a run, where their manager can."""
    with suppress(NotImplementedError):
        instance.compute_log_manager.delete_logs(prefix=list(folder))


def thin_run(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Remove the log of a run; what the instance counts stays.

    SQLite's file is replaced by a new one: a backup may have a link to the old one. False if some
    process has it open for writing: then it is left as it is.
    """
    storage: Any = instance.event_log_storage
    events = _tables().SqlEventLogStorageTable
    if storage.is_run_sharded:
        if not all(_rewrite(path) for path in _files(instance, [run_id])):
            return False
    else:
        with storage.index_connection() as connection:
            connection.execute(events.delete().where(events.c.run_id == run_id, _is_log()))
    failpoint("prune.rewritten")
    _remove_logs(instance, run_id, "compute_logs")
    failpoint("prune.thinned")
    return True


def _rewrite(path: Path) -> bool:
    """Replace a run's file by one without its log."""
    if not path.is_file():
        return True
    fresh = temporary_path(path)
    try:
        with closing(_opened(path)) as file:
            file.execute("VACUUM INTO ?", (str(fresh),))
        # Whoever closes a file last folds its journal back: a journal would be applied to ours.
        if path.with_name(f"{path.name}-wal").exists():
            return False
        with closing(sqlite3.connect(fresh, isolation_level=None)) as file:
            file.execute(f"DELETE FROM event_logs WHERE {_IS_LOG}", _STAYS)  # noqa: S608 - ours
            file.execute("PRAGMA journal_mode = DELETE")
            file.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            file.execute("VACUUM")
            file.execute("PRAGMA journal_mode = WAL")
        failpoint("prune.copied")
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.replace(path)
        return True
    finally:
        _remove_file(fresh)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None)


def _remove_file(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)


def _files(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> Iterator[Path]:
    """The SQLite files of runs; none elsewhere."""
    storage: Any = instance.event_log_storage
    if storage.is_run_sharded:
        yield from (Path(storage.path_for_shard(run_id)) for run_id in run_ids)


def log_folders(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> Iterator[Path]:
    """The folders of the compute logs of runs; none where they are kept elsewhere."""
    folder = getattr(instance.compute_log_manager, "_base_dir", None)
    if folder is not None:
        yield from (Path(folder, run_id) for run_id in run_ids)


def forgotten_files(instance: dg.DagsterInstance, before: float) -> list[Path]:
    """SQLite files and folders of compute logs of runs that were deleted, in the UI for one.

    Parameters
    ----------
    instance : DagsterInstance
    before : float
        Unix time, seconds: what changed since is left out.
    """
    found: dict[str, list[Path]] = {}
    folders = {path.parent for path in _files(instance, ["index"])}
    folders |= {path.parent for path in log_folders(instance, ["any"])}
    for path in (entry for folder in folders if folder.is_dir() for entry in folder.iterdir()):
        name = path.name.removesuffix(".db")
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= before:
                continue
        if _RUN_FILE.match(name):
            found.setdefault(name, []).append(path)
        elif name.startswith(".") and name.endswith(".part"):  # a rewriting that was cut off
            found.setdefault("", []).append(path)
    known: set[str] = set()
    names = list(found)
    for start in range(0, len(names), _AT_ONCE):
        chunk = names[start : start + _AT_ONCE]
        known.update(run.run_id for run in instance.get_runs(dg.RunsFilter(run_ids=chunk)))
    return [path for name, paths in found.items() if name not in known for path in paths]
