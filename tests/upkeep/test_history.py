"""A history in SQLite files: dumped as of one moment, and loaded where there is none."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from research_jobs.errors import BackupError
from research_jobs.upkeep.history import SqliteHistory


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.execute("PRAGMA journal_mode=WAL")
        opened.execute("CREATE TABLE IF NOT EXISTS t (x)")
        opened.execute("INSERT INTO t VALUES (?)", (value,))


def read(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as opened:
        return [row[0] for row in opened.execute("SELECT x FROM t ORDER BY x")]


@pytest.fixture
def history(tmp_path: Path) -> SqliteHistory:
    """Three folders, as Dagster has them; the one of events is in that of runs."""
    folders = {
        "runs": tmp_path / "history",
        "events": tmp_path / "history" / "runs",
        "schedules": tmp_path / "schedules",
    }
    for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
        write(tmp_path / name, 1)
    return SqliteHistory(folders)


def test_all_files_are_of_one_moment(history: SqliteHistory, tmp_path: Path) -> None:
    """What is written to any of them after that moment is in none; nobody is kept from writing."""
    with history.fixed() as dump:
        write(tmp_path / "history" / "runs.db", 2)
        write(tmp_path / "history" / "runs" / "index.db", 2)
        dump(tmp_path / "dump")
    assert read(tmp_path / "history" / "runs.db") == [1, 2]
    copies = ("runs/runs.db", "events/index.db", "schedules/schedules.db")
    assert [read(tmp_path / "dump" / name) for name in copies] == [[1], [1], [1]]


def test_an_open_transaction_is_not_in_it(history: SqliteHistory, tmp_path: Path) -> None:
    """A run's own file is copied as SQLite does while somebody writes, and linked once settled."""
    going, over = (tmp_path / "history" / "runs" / f"{name}.db" for name in ("going", "over"))
    write(going, 1)
    write(over, 1)
    os.utime(over, (1, 1))
    with closing(sqlite3.connect(going, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        with history.fixed() as dump:
            dump(tmp_path / "dump")
        writer.execute("COMMIT")
    events = tmp_path / "dump" / "events"
    assert read(events / "going.db") == [1]
    assert (events / "over.db").samefile(over)


@pytest.mark.parametrize("settled", [False, True])
def test_a_run_whose_file_is_damaged_is_one_of_many(
    history: SqliteHistory, tmp_path: Path, settled: bool
) -> None:
    """A backup and what is restored have it as it is; a proof names it."""
    bad = tmp_path / "history" / "runs" / "bad.db"
    bad.write_bytes(b"no database" * 1000)
    if settled:
        os.utime(bad, (1, 1))
    with history.fixed() as dump:
        dump(tmp_path / "dump")
    with pytest.raises(BackupError, match=r"the history is damaged: events/bad\.db"):
        history.prove(tmp_path / "dump")
    other = SqliteHistory({name: tmp_path / "new" / name for name in history.folders})
    other.load(tmp_path / "dump")
    assert read(tmp_path / "new" / "events" / "index.db") == [1]
    assert (tmp_path / "new" / "events" / "bad.db").read_bytes() == bad.read_bytes()


def test_a_shared_file_that_is_damaged_is_named(history: SqliteHistory, tmp_path: Path) -> None:
    """Without it there is no backup."""
    (tmp_path / "history" / "runs.db").write_bytes(b"no database" * 1000)
    (tmp_path / "history" / "runs.db-wal").unlink(missing_ok=True)
    with pytest.raises(BackupError, match=r"runs\.db: file is not a database"), history.fixed():
        pass


def test_it_is_loaded_where_there_is_none(history: SqliteHistory, tmp_path: Path) -> None:
    """Into folders that do not exist yet; not where a file is, and not if it is damaged."""
    with history.fixed() as dump:
        dump(tmp_path / "dump")
    with pytest.raises(BackupError, match="there is a history already"):
        history.load(tmp_path / "dump")
    other = SqliteHistory({name: tmp_path / "new" / name for name in history.folders})
    index = tmp_path / "dump" / "events" / "index.db"
    content = index.read_bytes()
    index.write_bytes(content[:40] + b"\xff" * 2000 + content[2040:])
    with pytest.raises(BackupError, match=r"the history is damaged: events/index\.db"):
        other.load(tmp_path / "dump")
    index.write_bytes(content)
    other.load(tmp_path / "dump")
    assert read(tmp_path / "new" / "events" / "index.db") == [1]
