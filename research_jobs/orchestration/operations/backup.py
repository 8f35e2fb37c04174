"""Back up a project: its files, and the history that Dagster keeps of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from research_jobs.errors import BackupError, ResearchJobsError
from research_jobs.orchestration.model.instance import instance_settings
from research_jobs.project import Project
from research_jobs.store.presence import refuse_unmounted
from research_jobs.upkeep.history import History, PostgresHistory, SqliteHistory
from research_jobs.upkeep.point import Instance, Point, make_point
from research_jobs.upkeep.proof import BackupBook
from research_jobs.upkeep.restic import Repository, Stored

__all__ = ["Made", "back_up", "find_instance", "noted"]


@dataclass(frozen=True)
class Made:
    """A backup that was made.

    Parameters
    ----------
    point : Point
    stored : Stored
    removed : int
        Older snapshots that were removed.
    """

    point: Point
    stored: Stored
    removed: int


def back_up(
    project: Project, repository: Repository, keep: Mapping[str, int], *, anew: bool = False
) -> Made:
    """Store a project as it is at one moment, while its runs go on.

    Parameters
    ----------
    project : Project
        The process must have entered it (`enter_project`).
    repository : Repository
    keep : mapping of str to int
        How many older snapshots to keep; without any, all are.
    anew : bool
        Whether another repository may take the place of the one that earlier backups went to.

    Raises
    ------
    BackupError, StoreError
        When nothing is stored, and no older snapshot is removed.
    """
    with noted(project, "making"):
        refuse_unmounted(project)
        place = repository.place
        known = None if anew else BackupBook.read(project).repositories.get(place)
        if known is not None:
            repository.expect(known)
        else:
            here = repository.prepare()
            BackupBook.change(project, lambda book: book.knowing(place, here))
        with make_point(project, find_instance(project)) as (folder, point):
            stored = repository.store(folder, socket.gethostname())
            removed = repository.prune(folder, socket.gethostname(), keep) if keep else 0
    BackupBook.change(project, lambda book: replace(book, made=point.at))
    return Made(point, stored, removed)


@contextmanager
def noted(project: Project, what: str) -> Generator[None]:
    """A context that notes in the project's book how the making or the proof of a backup ended.

    Parameters
    ----------
    project : Project
    what : {"making", "proof"}
    """
    try:
        yield
    except Exception as error:
        line = error.what if isinstance(error, ResearchJobsError) else str(error)
        why = line.splitlines()[0] if line else type(error).__name__
        BackupBook.change(project, lambda book: book.ended(what, time.time(), why))
        raise
    BackupBook.change(project, lambda book: book.ended(what, time.time(), None))


def find_instance(project: Project) -> Instance:
    """Where Dagster's history and logs of a project are, as its settings say.

    Raises
    ------
    BackupError
        When the history is kept where we cannot back it up.
    """
    home, parts = instance_settings(project)
    logs = parts.get("logs")
    return Instance(
        home,
        _history(parts),
        _path(logs[1]["base_dir"]) if logs and logs[0] == "LocalComputeLogManager" else None,
    )


def _history(parts: Mapping[str, tuple[str, Mapping[str, Any]]]) -> History:
    names = ("runs", "events", "schedules")
    classes = [parts[name][0] for name in names if name in parts]
    if len(classes) == len(names) and all(name.startswith("Sqlite") for name in classes):
        return SqliteHistory({name: _path(parts[name][1]["base_dir"]) for name in names})
    if len(classes) == len(names) and all(name.startswith("Postgres") for name in classes):
        return PostgresHistory(_connection(parts["events"][1]))
    keepers = ", ".join(sorted(set(classes))) or "something unknown"
    raise BackupError(
        f"the history is kept by {keepers}, of which no backup can be made",
        hint="Keep it in SQLite or Postgres.",
    )


def _path(said: Any) -> Path:
    return Path(str(_value(said))).absolute()


def _value(said: Any) -> Any:
    """A value, or the environment variable that has it."""
    if not isinstance(said, dict):
        return said
    name = str(said["env"])
    if name not in os.environ:
        raise BackupError(
            f"dagster.yaml takes a setting from {name}, which is not set",
            hint="Set it, as for Dagster's daemon.",
        )
    return os.environ[name]


def _connection(settings: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a connection to Postgres."""
    from psycopg2.extensions import parse_dsn

    if "postgres_url" in settings:
        _, _, rest = str(_value(settings["postgres_url"])).partition("://")
        return {name: str(value) for name, value in parse_dsn(f"postgresql://{rest}").items()}
    ours = {
        "hostname": "host",
        "port": "port",
        "username": "user",
        "password": "password",
        "db_name": "dbname",
    }
    said = settings["postgres_db"]
    options = {name: str(value) for name, value in (said.get("params") or {}).items()}
    return options | {ours[name]: str(_value(said[name])) for name in ours if name in said}
