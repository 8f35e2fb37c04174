"""What the nightly job removes from 400 days of history, and that nobody sees a difference.

``RESEARCH_JOBS_TEST_DAYS_APART=1`` has a run of each notebook every day instead of every twelfth.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from past import Past

from research_jobs import failpoints
from research_jobs.cli.main import main
from research_jobs.errors import PruneError
from research_jobs.orchestration.compat import pruning
from research_jobs.orchestration.compat.run_files import copy_run_files
from research_jobs.orchestration.compat.storage import held_connections
from research_jobs.orchestration.compat.vacuum import vacuum
from research_jobs.orchestration.definitions.factory import catalog_defs
from research_jobs.orchestration.execution import prune as pruner
from research_jobs.orchestration.execution.prune import Pruned, prune
from research_jobs.orchestration.execution.prune_history import THINNED_TAG, _versions, plan_history
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.names import PRUNE_JOB, PRUNE_SCHEDULE
from research_jobs.orchestration.operations.account import read_account
from research_jobs.orchestration.operations.history import read_histories, read_partitions
from research_jobs.orchestration.operations.morning import morning_page
from research_jobs.orchestration.operations.overview import read_overview
from research_jobs.orchestration.operations.staleness import stale_notebooks, stale_partitions
from research_jobs.project import find_project
from research_jobs.upkeep.turns import turn

pytestmark = pytest.mark.timeout(600)

DAY = 86_400.0
APART = int(os.environ.get("RESEARCH_JOBS_TEST_DAYS_APART", "12"))
NOTEBOOKS = {
    "prices": "# %%\nx = 1\n",
    "signals": "# %%\nfrom research_jobs import load\nx = load('prices', 'x')\n",
    "report": "# %%\nfrom research_jobs import load\nx = load('signals', 'x')\n",
    "flaky": "# %%\nx = 1\n",
    "rare": "# %%\nx = 1\n",
}


@pytest.fixture(scope="module")
def fast_folder() -> Iterator[Path]:
    """A folder in memory, where there is one: SQLite syncs each event."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


class World:
    """A project with 400 days of history."""

    def __init__(self, folder: Path, storage: dict[str, Any] | None) -> None:
        self.root, self.home = folder / "project", folder / "home"
        (self.root / "notebooks").mkdir(parents=True)
        self.home.mkdir()
        settings = {"telemetry": {"enabled": False}, **({"storage": storage} if storage else {})}
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        for name, text in NOTEBOOKS.items():
            (self.root / "notebooks" / f"{name}.py").write_text(text)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.first = today - timedelta(days=400)
        self.now = time.time()
        daily = {"partitions": {"by": "day", "start": f"{self.first:%Y-%m-%d}"}}
        manifest = {
            "notebooks": {"signals": daily, "report": daily},
            "retention": {"keep": 14},
            "schedules": {
                "mornings": {"cron": "0 6 * * *", "notebooks": ["prices"], "timezone": "UTC"}
            },
        }
        (self.root / "notebooks" / "manifest.yaml").write_text(json.dumps(manifest))
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        self.past = Past(self.instance, self.catalog)
        copy_run_files()
        with held_connections(self.instance):
            self._live()

    @property
    def catalog(self) -> Catalog:
        return load_catalog(find_project(self.root))

    def _live(self) -> None:
        run = self.past.run
        for days in range(0, 400, APART):
            at = (self.first + timedelta(days=days, hours=6)).timestamp()
            key = f"{self.first + timedelta(days=days):%Y-%m-%d}"
            tick = {
                "research_jobs/schedule": "mornings",
                "research_jobs/tick": datetime.fromtimestamp(at, UTC).isoformat(),
            }
            run(at, {"prices": f"p{days // 40}"}, tags=tick)
            made = {0: None, 1: "skip"}.get(days // APART % 7, f"s{days}")
            run(at + 60, {"signals": made}, partition=key)
            if made not in (None, "skip"):
                run(at + 120, {"report": f"r{days}"}, partition=key)
            if days % (5 * APART) == 0:  # again: what is downstream stays fresh, or becomes stale
                run(at + 200, {"signals": made if days % 2 else f"n{days}"}, partition=key)
                run(at + 250, {"signals": f"n{days}"}, partition=key)
                run(at + 300, {"flaky": None if days % (10 * APART) else "f"})
            if made is None and days % 3 == 0:
                run(at + 400, {"signals": f"s{days}"}, partition=key)
        for days in (5, 20, 30):
            run((self.first + timedelta(days=days)).timestamp(), {"rare": "x"})

    def seen(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """All that a person sees, but for the runs that are listed in Dagster."""
        instance, catalog = self.instance, self.catalog
        now = datetime.fromtimestamp(self.now, UTC)
        overview = read_overview(instance, catalog, now, now - timedelta(days=1))
        definitions = catalog_defs(catalog)
        seen: dict[str, Any] = {
            "page": morning_page(catalog, overview),
            "histories": read_histories(instance, catalog, catalog, limit=14, looked_at=9999),
            "stale": stale_notebooks(instance, definitions),
            "account": read_account(instance, catalog, self.now - 80 * DAY, self.now).as_dict(),
        }
        for name in ("signals", "report"):
            key = catalog.names.key(name)
            status = read_partitions(instance, catalog, catalog.entries[name])
            assert status is not None
            seen[name] = status
            seen[name, "stale"] = stale_partitions(
                instance, definitions, key, sorted(status.materialized)
            )
            graph = definitions.get_repository_def().asset_graph
            seen[name, "dagster"] = instance.get_status_by_partition(
                key, status.keys, graph.get(key).partitions_def
            )
        for entry in catalog:
            key = catalog.names.key(entry.name)
            seen[entry.name, "last"] = instance.get_latest_materialization_event(key)
        capsys.readouterr()
        assert main(["list", "--json", "--project", str(self.root)]) == 0
        seen["list"] = capsys.readouterr().out
        return seen


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def world(request: pytest.FixtureRequest, fast_folder: Path) -> Iterator[World]:
    """The history, once in each kind of database."""
    storage = None
    if request.param == "postgres":
        storage = request.getfixturevalue("postgres").storage()
    world = World(fast_folder / request.param, storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(world.home))
        patch.chdir(world.root)
        yield world
    world.instance.dispose()


def _prune(world: World, **options: Any) -> dict[str, Pruned]:
    done = prune(world.instance, world.catalog, location="research_jobs", now=world.now, **options)
    assert [one for one in done if one.error] == []
    return {one.kind: one for one in done}


def _runs(world: World) -> set[str]:
    return {run.run_id for run in world.instance.get_runs()}


def test_nobody_sees_a_difference(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Status, staleness, the page, `list`, the account and partitions are as before; runs go."""
    before, runs = world.seen(capsys), _runs(world)
    planned = _prune(world, dry_run=True)
    assert _runs(world) == runs
    done = _prune(world)
    assert (done["runs"], done["logs of runs"]) == (planned["runs"], planned["logs of runs"])
    gone = runs - _runs(world)
    assert len(gone) == done["runs"].count > 0.1 * len(runs)
    assert done["logs of runs"].count > 0.2 * len(runs)
    assert done["runs"].bytes > 1000 * len(gone)
    after = world.seen(capsys)
    assert {what for what in before if before[what] != after[what]} == set()
    # Nothing of them is left, and nothing is left to do.
    left = {row.run for row in pruning.asset_events(world.instance)}
    left |= {row.run for row in pruning.check_rows(world.instance)}
    assert not left & gone
    assert not [path for path in world.home.rglob("*") for run in gone if run in path.name]
    again = _prune(world)
    assert (again["runs"].count, again["logs of runs"].count) == (0, 0)


def test_a_thinned_run_says_so(world: World) -> None:
    """It keeps what it made and how it ended; its log and output are gone, and a tag says when."""
    _prune(world)
    instance = world.instance
    thinned = [run for run in instance.get_runs() if THINNED_TAG in run.tags]
    run = next(run for run in thinned if run.is_success and "report" in str(run.asset_selection))
    kinds = {log.dagster_event.event_type_value for log in instance.all_logs(run.run_id)}
    assert {"ASSET_MATERIALIZATION", "STEP_SUCCESS", "PIPELINE_SUCCESS"} < kinds
    assert "ENGINE_EVENT" not in kinds
    assert not list((world.home / "storage" / run.run_id).rglob("*.out"))
    assert run.tags[THINNED_TAG].startswith(run.run_id[:8])
    if instance.event_log_storage.is_run_sharded:
        file = Path(instance.event_log_storage.path_for_shard(run.run_id))
        with closing(sqlite3.connect(file)) as opened:
            assert opened.execute("PRAGMA page_size").fetchone() == (pruning.PAGE_BYTES,)
            assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_command_shows_what_would_go(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """`prune --dry-run` prints each kind with number and size, and why runs stay."""
    capsys.readouterr()
    assert main(["prune", "--dry-run", "--project", str(world.root)]) == 0
    said = capsys.readouterr().out
    assert "would go" in said
    for words in ("logs of runs", "reports", "young", "among the last of a notebook"):
        assert words in said, said
    assert main(["prune", "--json", "--project", str(world.root)]) == 0
    done = {one["kind"]: one for one in json.loads(capsys.readouterr().out)}
    assert done["runs"]["kept"]["young"] > 10


def test_the_job_is_one_like_any_other(world: World) -> None:
    """It runs in Dagster, says what it removed, and is no run of any notebook."""
    _prune(world)
    catalog = world.catalog
    definitions = catalog_defs(catalog)
    before = read_histories(world.instance, catalog, catalog, limit=14)
    result = definitions.resolve_job_def(PRUNE_JOB).execute_in_process(instance=world.instance)
    assert result.success
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    assert output.step_output_data.metadata["runs"].value == 0
    assert read_histories(world.instance, catalog, catalog, limit=14) == before
    schedule = definitions.get_repository_def().get_schedule_def(PRUNE_SCHEDULE)
    assert (schedule.cron_schedule, schedule.default_status.value) == ("45 3 * * *", "RUNNING")


def test_a_part_that_fails_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one part cannot do is its error; the others are done, and the job fails at last."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no reports today")

    monkeypatch.setattr(pruner, "prune_reports", refuse)
    done = prune(world.instance, world.catalog, location="research_jobs", dry_run=True)
    assert {one.kind: one.error for one in done if one.error} == {"reports": "no reports today"}
    assert done[-1].kind == "free space of the database"
    result = (
        catalog_defs(world.catalog)
        .resolve_job_def(PRUNE_JOB)
        .execute_in_process(instance=world.instance, raise_on_error=False)
    )
    assert not result.success


def test_a_damaged_notebook_keeps_its_runs_and_stops_no_other(tmp_path: Path) -> None:
    """What its versions are of cannot be read, so all of its runs stay; the others' versions go."""
    (tmp_path / "notebooks").mkdir()
    for name in ("a", "b"):
        (tmp_path / "notebooks" / f"{name}.py").write_text("# %%\nx = 1\n")
    outputs = {"notebooks": {"a": {"outputs": ["x"]}, "b": {"outputs": ["x"]}}}
    (tmp_path / "notebooks" / "manifest.yaml").write_text(yaml.safe_dump(outputs))
    catalog = load_catalog(find_project(tmp_path))
    version = tmp_path / "data" / "a" / ".versions" / "000001-abcdef01"
    version.mkdir(parents=True)
    (version.parent / "current").symlink_to(version.name)
    (version / "version.json").write_text("[]")
    assert _versions(catalog, {"a": {"run"}, "b": {"other"}}) == {"run"}
    (tmp_path / "data" / "a" / ".partitioning.json").write_text("[]")
    site = SimpleNamespace(catalog=catalog, dry_run=False)
    (found,) = pruner._versions(site)  # type: ignore[arg-type]
    assert found.error is not None
    assert found.error.startswith("a: ")


def test_nothing_is_pruned_by_a_manifest_with_a_mistake(world: World) -> None:
    """A key that is misspelt may be the one that keeps something; a second process waits."""
    path = world.root / "notebooks" / "manifest.yaml"
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), "retenton": {"runs": "700d"}}))
        wrong = world.catalog
    finally:
        path.write_text(text)
    with pytest.raises(PruneError, match=r"mistake: .*retenton"):
        prune(world.instance, wrong, location="research_jobs")
    with turn(wrong.project, "prune"), pytest.raises(PruneError, match="another process prunes"):
        prune(world.instance, world.catalog, location="research_jobs")


# -- interruptions -------------------------------------------------------------------------


class SmallWorld:
    """A notebook that ran every fifth day of a year, on SQLite."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "project", folder / "home"
        (self.root / "notebooks").mkdir(parents=True)
        self.home.mkdir()
        (self.root / "notebooks" / "a.py").write_text("# %%\nx = 1\n")
        daily = {"by": "values", "values": [str(number) for number in range(20)]}
        manifest = {"notebooks": {"a": {"partitions": daily}}, "retention": {"keep": 14}}
        (self.root / "notebooks" / "manifest.yaml").write_text(json.dumps(manifest))
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}")
        self.now = time.time()
        with self.open() as instance, held_connections(instance):
            past = Past(instance, self.catalog)
            for number in range(60):
                partition = str(number // 3) if number < 30 else "19"
                past.run(self.now - (400 - 5 * number) * DAY, {"a": "x"}, partition=partition)

    def open(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home))

    @property
    def catalog(self) -> Catalog:
        return load_catalog(find_project(self.root))

    def prune(self) -> dict[str, Pruned]:
        with self.open() as instance:
            done = prune(instance, self.catalog, location="research_jobs", now=self.now)
        return {one.kind: one for one in done}

    def prune_and_die(self, point: str) -> None:
        """Prune in a forked process that is killed at a point."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = os.fork()
        if child == 0:
            try:
                failpoints.install(
                    lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None
                )
                self.prune()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"it was not killed at {point}"

    def status(self) -> object:
        catalog = self.catalog
        with self.open() as instance:
            return read_partitions(instance, catalog, catalog.entries["a"])


@pytest.fixture(scope="module")
def lived(fast_folder: Path) -> SmallWorld:
    """A history that no test changes."""
    return SmallWorld(fast_folder / "lived")


@pytest.fixture
def small(fast_folder: Path, tmp_path: Path, lived: SmallWorld) -> SmallWorld:
    """A history of its own."""
    own = copy(lived)
    folder = shutil.copytree(lived.root.parent, fast_folder / tmp_path.name)
    own.root, own.home = folder / "project", folder / "home"
    return own


def test_killed_at_any_point(small: SmallWorld) -> None:
    """Partitions stay as they were, and the next one finishes what the killed ones began."""
    before = small.status()
    for point in pruning.FAILPOINTS:
        small.prune_and_die(point)
        assert small.status() == before, point
    done = small.prune()
    assert [one for one in done.values() if one.error] == []
    assert small.status() == before
    with small.open() as instance:
        runs = {run.run_id for run in instance.get_runs()}
        rows = {row.run for row in pruning.asset_events(instance)}
    assert {path.stem for path in small.home.rglob("*-*.db")} == rows == runs
    again = small.prune()
    assert (again["runs"].count, again["logs of runs"].count) == (0, 0)
    # A copy that was cut off goes once it is a day old.
    stray = list(small.home.rglob("*.part"))
    assert len(stray) == 1
    for path in stray:
        os.utime(path, (0, 0))
    assert small.prune()["files of deleted runs"].count == 1


def test_runs_that_the_ui_deleted(small: SmallWorld) -> None:
    """Dagster leaves their files; they go after a day."""
    small.prune()
    with small.open() as instance:
        run_id = instance.get_runs(limit=1)[0].run_id
        file = Path(instance.event_log_storage.path_for_shard(run_id))
        instance.delete_run(run_id)
    assert file.exists()
    assert small.prune()["files of deleted runs"].count == 0
    for path in (file, small.home / "storage" / run_id):
        os.utime(path, (0, 0))
    found = small.prune()["files of deleted runs"]
    assert (found.count, found.bytes > 10_000) == (2, True)
    assert not file.exists()


def test_a_file_that_is_open_is_left(small: SmallWorld) -> None:
    """A run that somebody writes is not thinned, and has no tag that says so.

    Nor does a file that is called as a folder of reports stop the plan.
    """
    (small.catalog.project.reports / "odd").mkdir(parents=True)
    (small.catalog.project.reports / "odd" / "_runs").write_text("")
    with small.open() as instance:
        plan = plan_history(instance, small.catalog, small.now, location="research_jobs")
        file = Path(instance.event_log_storage.path_for_shard(plan.thinned[0]))
        size = file.stat().st_size
        with closing(sqlite3.connect(file, isolation_level=None)) as writer:
            writer.execute("UPDATE event_logs SET step_key = 'a' WHERE id = 1")
            small.prune()
            run = instance.get_run_by_id(plan.thinned[0])
            assert run is not None
            assert THINNED_TAG not in run.tags
        small.prune()
        run = instance.get_run_by_id(plan.thinned[0])
        assert run is not None
        assert THINNED_TAG in run.tags
        assert file.stat().st_size <= size


def test_space_is_given_back_unless_somebody_writes(small: SmallWorld) -> None:
    """A file a quarter of which is free is vacuumed; one that is locked waits for another night."""
    file = small.home / "history" / "runs" / "index.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as index:
        index.execute("CREATE TABLE large (x)")
        index.execute("INSERT INTO large VALUES (zeroblob(16000000))")
        index.execute("DROP TABLE large")
        index.execute("BEGIN IMMEDIATE")
        with small.open() as instance:
            (left,) = [why for name, _, why in vacuum(instance) if name == "index.db"]
        assert "locked" in left
        index.execute("ROLLBACK")
    with small.open() as instance:
        (freed,) = [size for name, size, _ in vacuum(instance) if name == "index.db"]
    assert freed > 15_000_000
    assert file.stat().st_size < 8_000_000


def test_what_killed_processes_left(small: SmallWorld) -> None:
    """Folders of runs that nobody knows and of proofs go, and a long log keeps its end."""
    state = small.root / ".research_jobs"
    unknown = state / "runs" / "00000000-0000-4000-8000-000000000000-a"
    proof, log = state / "proof" / "tmp1", state / "ui.log"
    for folder in (unknown, proof):
        folder.mkdir(parents=True)
    log.write_bytes(b"line\n" * 4_000_000 + b"last\n")
    assert small.prune()[".research_jobs"].count == 1
    assert unknown.exists()
    assert log.stat().st_size < 2**20
    assert log.read_bytes().endswith(b"line\nlast\n")
    for folder in (unknown, proof):
        os.utime(folder, (0, 0))
    assert small.prune()[".research_jobs"].count == 2
    assert not unknown.exists()


def test_a_backup_and_the_history_take_turns(small: SmallWorld) -> None:
    """While a backup fixes the history nothing goes from it; then the job goes on."""
    with small.open() as instance:
        before = instance.get_runs_count()
        with ThreadPoolExecutor(1) as pool:
            with turn(small.catalog.project, "history"):
                pruning_on = pool.submit(small.prune)
                with pytest.raises(TimeoutError):
                    pruning_on.result(3)
                assert instance.get_runs_count() == before
            done = pruning_on.result(120)
        assert instance.get_runs_count() == before - done["runs"].count < before


def test_a_history_that_cannot_be_pruned(
    small: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Dagster lacks what is needed, its history is left alone, and the rest is done."""

    def lacking() -> Any:
        raise ImportError("no such table")

    monkeypatch.setattr(pruning, "_tables", lacking)
    done = small.prune()
    assert done["runs"].note == "this storage of Dagster's history cannot be pruned"
    assert not any(one.error for one in done.values())
    assert ".research_jobs" in done
