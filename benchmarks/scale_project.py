"""A project of many notebooks with a long history, made from a few real runs.

Each kind of run is executed once, by `research-jobs run`. What it left in Dagster's tables, in the
store and among the reports is then copied for every other run, with its own notebook, partition,
run ID and time. Runs that share a kind share the end of their ID; its first eight digits count.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from benchmarks.harness import BIN, clean_environment
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.project import find_project
from research_jobs.store.files import disk

__all__ = ["BLOCK", "PARTITIONS", "Made", "Size", "make", "names_of", "read_by"]

# Of ten notebooks one has daily partitions, two read nothing, and each of the others reads one of
# those. A hundred share the two schedules of a block.
PARTITIONS, BLOCK = 100, 100
FAILS_EVERY = 97
REPORTS_KEPT = 3

SOURCE = """\
# %%
import pandas as pd

# %%
days = pd.date_range("2020-01-01", periods=1000, freq="D")
frame = pd.DataFrame({"price": range(1000), "volume": 1.0}, index=days)
frame.tail()
"""
STUDY = """\
# %% tags=["parameters"]
window: int = 20  # days of the moving average

# %%
from research_jobs import load

prices = load("source_00000", "frame")

# %% Returns
returns = prices["price"].pct_change().dropna()
frame = returns.rolling(window).mean().to_frame()
frame.tail()
"""
DAILY = """\
# %% tags=["parameters"]
day: str = "2024-01-01"

# %%
import pandas as pd

frame = pd.DataFrame({"day": day, "price": range(100)})
frame.tail()
"""
FAILING = STUDY.replace("returns = prices", "returns = prices.no_such_column and prices")


@dataclass(frozen=True)
class Size:
    """How large a project is.

    Parameters
    ----------
    notebooks, runs : int
    """

    notebooks: int
    runs: int

    def __str__(self) -> str:
        return f"{self.notebooks:,} notebooks, {self.runs:,} runs"


@dataclass
class Kind:
    """A real run, to be copied.

    Parameters
    ----------
    notebook : str
    run_id : str
    partition : str or None
    code_version : str
    rows : dict
        Table to columns and rows, as they were found.
    """

    notebook: str
    run_id: str
    partition: str | None
    code_version: str
    rows: dict[str, tuple[list[str], list[list[Any]]]] = field(default_factory=dict)

    @property
    def began(self) -> datetime:
        """datetime: when it was created, without a zone, in UTC."""
        columns, rows = self.rows["runs"]
        return rows[0][columns.index("create_timestamp")]

    @property
    def first(self) -> int:
        """int: the number of its first event."""
        columns, rows = self.rows["event_logs"]
        return rows[0][columns.index("id")]


@dataclass(frozen=True)
class Past:
    """A run to be written.

    Parameters
    ----------
    kind : Kind
    number : int
    notebook : str
    partition : str or None
    schedule : str
    tick, at : float
        Unix time, seconds: when it was due, and when it was created.
    """

    kind: Kind
    number: int
    notebook: str
    partition: str | None
    schedule: str
    tick: float
    at: float

    @property
    def run_id(self) -> str:
        """Its ID."""
        return f"{self.number:08x}{self.kind.run_id[8:]}"

    @property
    def good(self) -> bool:
        """Whether it made something."""
        return len(self.kind.rows["asset_event_tags"][1]) > 0


@dataclass(frozen=True)
class Made:
    """A project, ready to be measured.

    Parameters
    ----------
    root : Path
    size : Size
    settings : dict
        What its commands have in their environment.
    server : psutil.Process
        Of PostgreSQL.
    schedules : tuple of str
    """

    root: Path
    size: Size
    settings: dict[str, str]
    server: psutil.Process
    schedules: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command."""
        return clean_environment(**self.settings)


def names_of(count: int) -> list[str]:
    """The names of so many notebooks."""
    kinds = ("daily", "source", "source", *["study"] * 7)
    return [f"{kinds[number % 10]}_{number:05d}" for number in range(count)]


def read_by(name: str) -> str:
    """The source that a study reads."""
    number = int(name[-5:])
    return f"source_{number - number % 10 + 1 + number % 2:05d}"


def _text(name: str) -> str:
    if name.startswith("study"):
        return STUDY.replace("source_00000", read_by(name))
    return SOURCE if name.startswith("source") else DAILY


def make(folder: Path, size: Size, server: Any) -> Made:
    """Make a project with its store, its reports and its history.

    Parameters
    ----------
    folder : Path
        Where nothing is yet.
    size : Size
    server : PostgresServer
        Of the tests.
    """
    root, home = folder / "project", folder / "home"
    (root / "notebooks").mkdir(parents=True)
    home.mkdir()
    config = Path(__file__).resolve().parents[1] / "deploy" / "dagster.yaml"
    shutil.copy(config, home / "dagster.yaml")
    database = server.create_database()
    settings = {
        "DAGSTER_HOME": str(home),
        "RESEARCH_JOBS_PG_URL": server.url(database),
        "RESEARCH_JOBS_PROJECT": str(root),
    }
    now = datetime.now(UTC)
    # Everything was due two hours ago, and a day before that, and so on.
    hour = (now - timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
    names = names_of(size.notebooks)
    every = ["daily_00000", "source_00000", "study_00000"]
    _write_project(root, every, hour)
    dsn = server.dsn(database)
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        kinds = _run_each_kind(root, settings, connection, hour)
        seeds = folder / "seeds"
        seeds.mkdir()
        for part in ("data", "reports"):
            shutil.copytree(root / part, seeds / part, symlinks=True)
            for name in every:
                shutil.rmtree(root / part / name)
        for name in every:
            (root / "notebooks" / f"{name}.py").unlink()
        schedules = _write_project(root, names, hour)
        past = list(_past(kinds, names, size, hour.timestamp()))
        _History(connection, _code_versions(root)).write(past)
    _store(seeds / "data", root / "data", past)
    _reports(seeds / "reports", root / "reports", past)
    made = Made(root, size, settings, _postmaster(server), schedules)
    _ticks(made, past)
    return made


def _postmaster(server: Any) -> psutil.Process:
    pid = (server.socket_folder / "data" / "postmaster.pid").read_text().split()[0]
    return psutil.Process(int(pid))


def _write_project(root: Path, names: Sequence[str], hour: datetime) -> tuple[str, ...]:
    notebooks = root / "notebooks"
    start = (hour - timedelta(days=PARTITIONS)).date().isoformat()
    daily = f"outputs: [frame], partitions: {{by: day, start: {start}, parameter: day}}"
    lines = ["notebooks:\n"]
    for name in names:
        (notebooks / f"{name}.py").write_text(_text(name))
        spec = daily if name.startswith("daily") else "outputs: {frame: {min_rows: 1}}"
        lines.append(f"  {name}: {{{spec}}}\n")
    lines.append("schedules:\n")
    schedules: list[str] = []
    for number in range(0, len(names), BLOCK):
        block = names[number : number + BLOCK]
        for kind in ("nightly", "morning"):
            some = [name for name in block if name.startswith("daily") == (kind == "nightly")]
            schedules.append(f"{kind}_{number // BLOCK:02d}")
            cron = f"{0 if kind == 'nightly' else 30} {hour.hour} * * *"
            lines.append(f'  {schedules[-1]}:\n    cron: "{cron}"\n')
            lines.append("    catch_up: 3\n" if kind == "nightly" else "")
            lines.append(f"    notebooks: [{', '.join(some)}]\n")
    (notebooks / "manifest.yaml").write_text("".join(lines))
    return tuple(schedules)


def _code_versions(root: Path) -> dict[str, str]:
    catalog = load_catalog(find_project(root))
    return {entry.name: entry.notebook.code_version for entry in catalog}


# -- the runs that are copied ----------------------------------------------------------------------


def _run_each_kind(
    root: Path, settings: Mapping[str, str], connection: Any, hour: datetime
) -> dict[str, Kind]:
    day = (hour - timedelta(days=40)).date().isoformat()
    study = root / "notebooks" / "study_00000.py"
    kinds: dict[str, Kind] = {}
    for kind, name, partition in (
        ("source", "source_00000", None),
        ("failing", "study_00000", None),
        ("study", "study_00000", None),
        ("daily", "daily_00000", day),
    ):
        study.write_text(FAILING if kind == "failing" else STUDY)
        more = [] if partition is None else ["--partition", partition]
        ended = subprocess.run(
            [BIN / "research-jobs", "run", "--no-host", name, *more],
            cwd=root,
            env=clean_environment(**settings),
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != (kind == "failing"):
            raise RuntimeError(ended.stdout + ended.stderr)
        kinds[kind] = _last_run(connection, name, partition, _code_versions(root)[name])
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE runs, run_tags, event_logs, asset_keys, asset_event_tags,"
            " asset_check_executions RESTART IDENTITY"
        )
    return kinds


def _last_run(connection: Any, name: str, partition: str | None, version: str) -> Kind:
    with connection.cursor() as cursor:
        cursor.execute("SELECT run_id FROM runs ORDER BY id DESC LIMIT 1")
        kind = Kind(name, cursor.fetchone()[0], partition, version)
        of_run = "WHERE run_id = %(run)s"
        for table, condition in (
            ("runs", of_run),
            ("run_tags", of_run),
            ("event_logs", of_run),
            ("asset_event_tags", f"WHERE event_id IN (SELECT id FROM event_logs {of_run})"),
            ("asset_check_executions", of_run),
            ("asset_keys", "WHERE asset_key = %(key)s"),
        ):
            values = {"run": kind.run_id, "key": json.dumps([name])}
            cursor.execute(f"SELECT * FROM {table} {condition} ORDER BY id", values)
            columns = [column[0] for column in cursor.description]
            kind.rows[table] = columns, [list(row) for row in cursor.fetchall()]
    return kind


def _past(
    kinds: Mapping[str, Kind], names: Sequence[str], size: Size, hour: float
) -> Iterator[Past]:
    """All runs, the oldest first: half of them of partitions, one a day."""
    daily = [name for name in names if name.startswith("daily")]
    # Sources before what reads them.
    plain = [name for kind in ("source", "study") for name in names if name.startswith(kind)]
    days = (size.runs - len(daily) * PARTITIONS) // len(plain)
    number = 0
    for ago in range(PARTITIONS - 1, -1, -1):
        due = hour - ago * 86400
        key = f"{datetime.fromtimestamp(due, UTC) - timedelta(days=1):%Y-%m-%d}"
        for minute, some in ((0, daily), (30, plain if ago < days else [])):
            tick = due + 60 * minute
            for index, name in enumerate(some):
                number += 1
                study, partition = name.startswith("study"), name.startswith("daily")
                fails = study and (ago * 31 + int(name[-5:])) % FAILS_EVERY == 0
                schedule = f"{'nightly' if partition else 'morning'}_{int(name[-5:]) // BLOCK:02d}"
                yield Past(
                    kinds["failing" if fails else name.split("_")[0]], number, name,
                    key if partition else None, schedule, tick, tick + 3 + 1500 * index / len(some),
                )  # fmt: skip


# -- Dagster's tables ------------------------------------------------------------------------------


# What differs from run to run in a stored text, beside names: moments, and numbers of events.
_MOVES = re.compile(r'(\b1[789]\d{8}(?:\.\d+)?\b|(?<="storage_id": )\d+|(?<=/source_00000": ")\d+)')


class _Copy:
    """What a cell of a real run is in a copy of it.

    Parameters
    ----------
    run : Past
    first : int
        The number of its first event.
    code_version : str
    made : dict
        Of each notebook the number of its last materialization.
    parts : dict
        Texts that were taken apart before, by their identity.
    """

    def __init__(
        self,
        run: Past,
        first: int,
        code_version: str,
        made: Mapping[str, int],
        parts: dict[int, list[str]],
    ) -> None:
        kind = run.kind
        # Whole seconds, so that moments are the same in texts and in columns.
        self._delta = round(run.at - kind.began.replace(tzinfo=UTC).timestamp())
        self._later = timedelta(seconds=self._delta)
        self.shift = first - kind.first
        self._parts = parts
        self._words = [
            (kind.run_id[:8], run.run_id[:8]),
            (kind.notebook, run.notebook),
            (kind.code_version, code_version),
        ]
        self._read = 0
        if run.notebook.startswith("study"):
            self._words.append(("source_00000", read_by(run.notebook)))
            self._read = made.get(read_by(run.notebook), 0)
        if kind.partition and run.partition:
            self._words.append((kind.partition, run.partition))

    def value(self, found: Any, column: str) -> Any:
        """The cell of a column."""
        if isinstance(found, str):
            text = self._moved(found) if len(found) > 200 else found
            for old, new in self._words:
                text = text.replace(old, new)
            return text
        if isinstance(found, datetime):
            return found + self._later
        if found is None:
            return None
        if column in ("start_time", "end_time"):
            return float(found) + self._delta
        if column == "event_id" or column.endswith("_storage_id"):
            return found + self.shift
        return found

    def _moved(self, text: str) -> str:
        if id(text) not in self._parts:
            self._parts[id(text)] = _MOVES.split(text)
        found = list(self._parts[id(text)])
        for index in range(1, len(found), 2):
            before, old = found[index - 1], found[index]
            if before.endswith('source_00000": "'):
                found[index] = str(self._read)
            elif before.endswith('"storage_id": '):
                found[index] = str(int(old) + self.shift)
            else:
                later = repr(float(old) + self._delta) if "." in old else int(old) + self._delta
                found[index] = str(later)
        return "".join(found)


class _History:
    """Writes runs, in bulk."""

    def __init__(self, connection: Any, code_versions: Mapping[str, str]) -> None:
        self._connection = connection
        self._code_versions = code_versions
        self._parts: dict[int, list[str]] = {}
        self._buffers: dict[str, tuple[list[str], io.StringIO]] = {}
        self._next = 1
        self._made: dict[str, int] = {}
        self._assets: dict[str, list[Any]] = {}

    def write(self, past: Sequence[Past]) -> None:
        """Write them, the oldest first."""
        for number, run in enumerate(past, 1):
            self._add(run)
            if number % 2000 == 0:
                self._flush()
        for row in self._assets.values():
            self._row("asset_keys", row)
        self._flush()
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT setval('event_logs_id_seq', %s)", [self._next])
            cursor.execute("ANALYZE")

    def _add(self, run: Past) -> None:
        kind = run.kind
        copy = _Copy(run, self._next, self._code_versions[run.notebook], self._made, self._parts)
        tags = {
            "dagster/schedule_name": run.schedule,
            ".dagster/scheduled_execution_time": datetime.fromtimestamp(run.tick, UTC).isoformat(),
        }
        for table, (columns, rows) in kind.rows.items():
            for row in rows:
                new = [copy.value(*cell) for cell in zip(row, columns, strict=True)]
                if table == "asset_keys":
                    self._asset(run, columns, new)
                    continue
                if table == "event_logs":
                    new[0] += copy.shift
                    self._next = new[0] + 1
                    if "ASSET_MATERIALIZATION" in new:
                        self._made[run.notebook] = new[0]
                elif table == "runs":
                    at = columns.index("run_body")
                    body = json.loads(new[at])
                    new[at] = json.dumps(body | {"tags": body["tags"] | tags})
                self._row(table, new, columns)
        columns = kind.rows["run_tags"][0]
        for key, text in tags.items():
            found = {"run_id": run.run_id, "key": key, "value": text}
            self._row("run_tags", [found.get(column) for column in columns], columns)

    def _asset(self, run: Past, columns: list[str], row: list[Any]) -> None:
        """The last run of an asset; one that failed leaves the last materialization."""
        before = self._assets.get(run.notebook)
        if before is not None and not run.good:
            before[columns.index("last_run_id")] = run.run_id
        else:
            self._assets[run.notebook] = row
        self._columns("asset_keys", columns)

    def _columns(self, table: str, columns: list[str]) -> io.StringIO:
        if table not in self._buffers:
            self._buffers[table] = columns, io.StringIO()
        return self._buffers[table][1]

    def _row(self, table: str, row: list[Any], columns: list[str] | None = None) -> None:
        buffer = self._columns(table, columns or self._buffers[table][0])
        # Only events keep the numbers that they are given: others refer to those.
        cells = row if table == "event_logs" else row[1:]
        buffer.write("\t".join(map(_cell, cells)) + "\n")

    def _flush(self) -> None:
        with self._connection.cursor() as cursor:
            for table, (columns, buffer) in self._buffers.items():
                named = columns if table == "event_logs" else columns[1:]
                buffer.seek(0)
                quoted = ", ".join(f'"{name}"' for name in named)
                cursor.copy_expert(f"COPY {table} ({quoted}) FROM STDIN", buffer)
                self._buffers[table] = columns, io.StringIO()


def _cell(value: Any) -> str:
    if value is None:
        return "\\N"
    text = str(value)
    if "\\" in text or "\n" in text or "\t" in text or "\r" in text:
        for old, new in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
            text = text.replace(old, new)
    return text


def _ticks(made: Made, past: Sequence[Past]) -> None:
    """What the daemon leaves of each tick of the last month."""
    from dagster import DagsterInstance
    from dagster._core.remote_origin import (
        GrpcServerCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        InstigatorType,
        ScheduleInstigatorData,
        TickData,
        TickStatus,
    )

    of_tick: dict[tuple[str, float], list[str]] = {}
    since = past[-1].tick - 31 * 86400
    for run in past:
        if run.tick > since:
            of_tick.setdefault((run.schedule, run.tick), []).append(run.run_id)
    origin = GrpcServerCodeLocationOrigin("127.0.0.1", port=1, location_name="research_jobs")
    with _environment(made.settings), DagsterInstance.get() as instance:
        states: dict[str, InstigatorState] = {}
        for name in made.schedules:
            states[name] = InstigatorState(
                RemoteInstigatorOrigin(RemoteRepositoryOrigin(origin, "__repository__"), name),
                InstigatorType.SCHEDULE,
                InstigatorStatus.DECLARED_IN_CODE,
                ScheduleInstigatorData("0 0 * * *", past[0].tick - 60),
            )
            instance.add_instigator_state(states[name])
        for (name, tick), run_ids in of_tick.items():
            state = states[name]
            instance.create_tick(
                TickData(
                    state.instigator_origin_id, name, InstigatorType.SCHEDULE, TickStatus.SUCCESS,
                    tick, selector_id=state.selector_id, end_timestamp=tick + 3, run_ids=run_ids,
                    run_keys=[],
                )
            )  # fmt: skip


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# -- files -----------------------------------------------------------------------------------------


def _store(seeds: Path, store: Path, past: Sequence[Past]) -> None:
    """The current version of each notebook and partition: the last that was made."""
    last = {(run.notebook, run.partition): run for run in past if run.good}
    for run in last.values():
        _copy(seeds / run.kind.notebook, store / run.notebook, run)


def _reports(seeds: Path, reports: Path, past: Sequence[Past]) -> None:
    """The last reports of each notebook."""
    kept: dict[str, list[Past]] = {}
    for run in past:
        kept.setdefault(run.notebook, []).append(run)
    for name, runs in kept.items():
        lines: list[str] = []
        for run in runs[-REPORTS_KEPT:]:
            seed = seeds / run.kind.notebook
            (folder,) = (seed / "_runs").glob(f"*-{run.kind.run_id[:8]}-*")
            _copy(folder, reports / name / "_runs" / _renamed(folder.name, run), run)
            told = (seed / "runs.js").read_text().splitlines(keepends=True)
            lines += [_renamed(line, run) for line in told if run.kind.run_id[:8] in line]
        (reports / name / "runs.js").write_text("".join(lines))
        disk().link_or_copy(seed / "index.html", reports / name / "index.html")


def _copy(seed: Path, target: Path, run: Past) -> None:
    """Copy a folder for another run: small texts with its names, hard links of the rest."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(seed):
        place = target / _renamed(entry.name, run)
        if entry.is_symlink():
            if not place.is_symlink():
                place.symlink_to(_renamed(str(Path(entry.path).readlink()), run))
        elif entry.is_dir():
            _copy(Path(entry.path), place, run)
        elif place.exists():
            continue
        elif entry.name.endswith((".json", ".ipynb")):
            place.write_text(_renamed(Path(entry.path).read_text(), run))
        else:
            disk().link_or_copy(Path(entry.path), place)


def _renamed(text: str, run: Past) -> str:
    kind = run.kind
    text = text.replace(kind.run_id[:8], run.run_id[:8]).replace(kind.notebook, run.notebook)
    if run.notebook.startswith("study"):
        text = text.replace("source_00000", read_by(run.notebook))
    if kind.partition and run.partition:
        text = text.replace(kind.partition, run.partition)
    delta = run.at - kind.began.replace(tzinfo=UTC).timestamp()
    return _MOVES.sub(lambda found: repr(float(found[1]) + delta), text)
