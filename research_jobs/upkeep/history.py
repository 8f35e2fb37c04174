"""Dagster's history as SQLite files or in Postgres: dumped as of one moment, and loaded again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from research_jobs.errors import BackupError
from research_jobs.upkeep.pinning import pin

__all__ = ["Dump", "History", "PostgresHistory", "SqliteHistory"]

Dump = Callable[[Path], None]
"""Writes the history, as it was when it was fixed, into a folder."""

# A run's own file that has not changed for so long is not copied but linked: seconds.
SETTLED_S = 3600.0
BUSY_S = 60.0
_LONG_TO_CHECK = 2**30  # bytes


class History(Protocol):
    """Where the history is."""

    @property
    def kind(self) -> str:
        """str: what keeps it."""
        ...

    @property
    def places(self) -> tuple[Path, ...]:
        """Tuple of Path: folders whose files are a dump's alone."""
        ...

    def fixed(self) -> Any:
        """A context in which the history stays as it is, for its `Dump`."""
        ...

    def refuse_full(self) -> None:
        """Refuse where there is a history already.

        Raises
        ------
        BackupError
        """
        ...

    def load(self, folder: Path) -> None:
        """Load a dump, all of it or nothing; there must be no history yet.

        Raises
        ------
        BackupError
        """
        ...

    def prove(self, folder: Path) -> None:
        """Read a whole dump, and load it nowhere.

        Raises
        ------
        BackupError
        """
        ...


@dataclass(frozen=True)
class SqliteHistory:
    """SQLite files.

    Parameters
    ----------
    folders : mapping of str to Path
        What they are of (``runs``, ``events``, ``schedules``) to their folder.
    """

    folders: Mapping[str, Path]
    kind: str = "sqlite"

    @property
    def places(self) -> tuple[Path, ...]:
        """See `History.places`."""
        return tuple(self.folders.values())

    @contextmanager
    def fixed(self) -> Generator[Dump]:
        """See `History.fixed`. Writers wait for the few milliseconds in which it is fixed."""
        with ExitStack() as stack:
            shared = [
                (name, path, stack.enter_context(closing(_open(path))))
                for name, path in self._files()
                if not _of_a_run(name, path)
            ]
            with ExitStack() as locked:
                for _, path, _ in shared:
                    with _named(path):
                        locked.enter_context(closing(_open(path))).execute("BEGIN IMMEDIATE")
                for _, path, reader in shared:
                    with _named(path):
                        reader.execute("BEGIN")
                        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()

            def dump(folder: Path) -> None:
                for name in self.folders:
                    (folder / name).mkdir(parents=True, exist_ok=True)
                for name, path, reader in shared:
                    target = folder / name / path.name
                    with _named(path), closing(sqlite3.connect(target)) as copy:
                        reader.backup(copy)
                for name, path in self._files():
                    if _of_a_run(name, path):
                        _copy(path, folder / name / path.name)

            yield dump

    def _files(self) -> Iterator[tuple[str, Path]]:
        for name, folder in self.folders.items():
            for path in sorted(folder.glob("*.db")):
                yield name, path

    def refuse_full(self) -> None:
        """See `History.refuse_full`."""
        for _, path in self._files():
            raise BackupError(
                f"there is a history already: {path}", hint="Restore where there is none."
            )

    def load(self, folder: Path) -> None:
        """See `History.load`."""
        self.refuse_full()
        # What is damaged of one run is so on the server too, and keeps nobody from the rest.
        self._prove(folder, shared=True)
        try:
            for name, target in self.folders.items():
                target.mkdir(parents=True, exist_ok=True)
                for path in (folder / name).glob("*.db"):
                    shutil.move(path, target / path.name)
        except BaseException:
            for _, path in self._files():
                path.unlink(missing_ok=True)
            raise

    def prove(self, folder: Path) -> None:
        """See `History.prove`."""
        self._prove(folder, shared=False)

    def _prove(self, folder: Path, *, shared: bool) -> None:
        for name in self.folders:
            for path in sorted((folder / name).glob("*.db")):
                of_a_run = _of_a_run(name, path)
                if (of_a_run and shared) or (damage := _damage_of(path)) is None:
                    continue
                raise BackupError(
                    f"the history is damaged: {name}/{path.name}: {damage}",
                    hint="Only the events of this one run are: delete it in Dagster's UI."
                    if of_a_run
                    else "An older backup may be whole: --snapshot.",
                )

    def damaged(self) -> Iterator[tuple[Path, str]]:
        """The damaged ones among the files that all runs share, and what is wrong with each.

        Files that take long to read are left out.
        """
        for name, path in self._files():
            shared = not _of_a_run(name, path) and path.stat().st_size < _LONG_TO_CHECK
            if shared and (damage := _damage_of(path, busy=_BUSY)) is not None:
                yield path, damage


_BUSY = (
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
)


def _damage_of(path: Path, *, busy: tuple[int, ...] = ()) -> str | None:
    """What is wrong with a file; None for one that others keep from being read, if so asked."""
    try:
        with closing(_open(path)) as opened:
            said = str(opened.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.DatabaseError as error:
        # Damage is an OperationalError too; the primary code is in the low byte.
        if error.sqlite_errorcode & 0xFF in busy:
            return None
        said = str(error)
    return None if said == "ok" else said.splitlines()[0]


def _of_a_run(name: str, path: Path) -> bool:
    """Whether a file holds the events of one run alone."""
    return name == "events" and path.name != "index.db"


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)


@contextmanager
def _named(path: Path) -> Generator[None]:
    """Name the file that cannot be read."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise BackupError(
            f"the history cannot be read: {path}: {error}",
            hint="research-jobs doctor looks at each of its files.",
        ) from error


def _copy(path: Path, target: Path) -> None:
    """Link a file that nobody writes any more or that is damaged, or copy it as SQLite does."""
    try:
        settled = time.time() - path.stat().st_mtime > SETTLED_S
    except FileNotFoundError:
        return
    if not settled or path.with_name(f"{path.name}-wal").exists():
        try:
            with closing(_open(path)) as source, closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                target.unlink(missing_ok=True)
            else:
                with _named(path):
                    raise
        else:
            return
    if not pin(path, target):
        raise BackupError(
            f"the history cannot be read: {path}",
            hint="Make the backup as the user whose daemon writes it.",
        )


@dataclass(frozen=True)
class PostgresHistory:
    """A database of Postgres.

    Parameters
    ----------
    connection : mapping of str to str
        libpq's parameters: ``host``, ``dbname``...
    """

    connection: Mapping[str, str]
    kind: str = "postgres"

    @property
    def places(self) -> tuple[Path, ...]:
        """See `History.places`."""
        return ()

    @contextmanager
    def fixed(self) -> Generator[Dump]:
        """See `History.fixed`. Nobody waits."""
        import psycopg2

        _program("pg_dump")
        with closing(psycopg2.connect(self._dsn)) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_export_snapshot()")
                snapshot = (cursor.fetchone() or [""])[0]

            def dump(folder: Path) -> None:
                folder.mkdir(parents=True, exist_ok=True)
                # Not compressed: restic finds what has not changed, and compresses the rest.
                words = ("--format=custom", "--compress=0", "--no-owner", "--no-acl")
                where = (f"--snapshot={snapshot}", f"--file={folder / 'history.dump'}")
                self._run("pg_dump", *words, *where)

            yield dump

    def refuse_full(self) -> None:
        """See `History.refuse_full`."""
        import psycopg2

        with (
            closing(psycopg2.connect(self._dsn)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            count = (cursor.fetchone() or [0])[0]
        if count:
            name = self.connection.get("dbname", "")
            raise BackupError(
                f"the database {name} is not empty: it has {count} tables",
                hint="Create an empty one, and name it where dagster.yaml takes it from.",
            )

    def load(self, folder: Path) -> None:
        """See `History.load`."""
        self.refuse_full()
        words = ("--no-owner", "--no-acl", "--exit-on-error", "--single-transaction")
        name = f"--dbname={self.connection.get('dbname', '')}"
        self._run("pg_restore", *words, name, str(folder / "history.dump"))

    def prove(self, folder: Path) -> None:
        """See `History.prove`."""
        self._run("pg_restore", f"--file={os.devnull}", str(folder / "history.dump"))

    @property
    def _dsn(self) -> str:
        from psycopg2.extensions import make_dsn

        return make_dsn(None, **dict[str, Any](self.connection))

    def _run(self, name: str, *words: str) -> None:
        names = {"dbname": "PGDATABASE"}
        said = {names.get(key, f"PG{key.upper()}"): value for key, value in self.connection.items()}
        done = subprocess.run(
            [_program(name), *words],
            env={**os.environ, **said},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            line = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[0]
            raise BackupError(line if line.startswith(name) else f"{name}: {line}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BackupError(
            f"{name} is not installed, which the history in Postgres needs",
            hint="Install it: apt-get install postgresql-client.",
        )
    return found
