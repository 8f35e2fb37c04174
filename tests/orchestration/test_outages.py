"""A Postgres that goes away while notebooks run, and comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
import sqlalchemy as sa
import yaml
from dagster import DagsterInstance, DagsterRun
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from research_jobs.errors import ProjectError
from research_jobs.orchestration.compat.outages import (
    PATIENCE_VARIABLE,
    patience,
    ride_out_outages,
)
from research_jobs.orchestration.compat.storage import held_connections

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]

# Longer than Dagster tries by itself, which is 6.2 seconds.
AWAY_S = 9.0

NOTEBOOK = """
# %%
import pathlib
import time

here = pathlib.Path(__file__).parent
(here / "started").touch()
while not (here / "go").exists():
    time.sleep(0.05)
value = 1
"""


class Project:
    """A project whose instance is in a Postgres of the test's own, and its command."""

    def __init__(self, folder: Path, server: Any, **variables: str) -> None:
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        (self.notebooks / "slow.py").write_text(NOTEBOOK)
        (self.notebooks / "manifest.yaml").write_text("notebooks: {slow: {outputs: [value]}}\n")
        home = folder / "home"
        home.mkdir()
        config = {"storage": server.storage(), "telemetry": {"enabled": False}}
        (home / "dagster.yaml").write_text(yaml.safe_dump(config))
        self.environment = os.environ | {
            "DAGSTER_HOME": str(home),
            "RESEARCH_JOBS_PROJECT": str(folder),
            **variables,
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """``research-jobs`` with these words."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("research-jobs"), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def history(self) -> list[dict[str, Any]]:
        """The runs of the notebook, newest first."""
        process = self.start("show", "slow", "--json")
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return json.loads(out)["runs"]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the file is there."""
    deadline = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server_away(own_postgres: Any) -> Iterator[Callable[[], None]]:
    """Stops the server, and has it start again in a while."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def come_back() -> None:
        time.sleep(AWAY_S)
        own_postgres.start()
        over.wait()  # the server is made to end with the thread that started it

    def away() -> None:
        own_postgres.stop()
        threads.append(threading.Thread(target=come_back))
        threads[-1].start()

    yield away
    over.set()
    for thread in threads:
        thread.join()


def test_a_restart_while_a_notebook_runs_and_ends(
    own_postgres: Any, server_away: Callable[[], None], tmp_path: Path
) -> None:
    """The database is away when the notebook ends: it is published, and recorded once."""
    project = Project(tmp_path, own_postgres)
    command = project.start("run", "slow", "--json")
    wait_for(project.notebooks / "started", command)
    server_away()
    (project.notebooks / "go").touch()
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert json.loads(out)[0]["ending"] == "succeeded"
    assert [run["ending"] for run in project.history()] == ["succeeded"]


def test_a_database_that_stays_away_is_named(own_postgres: Any, tmp_path: Path) -> None:
    """Once waiting is given up, the command names the database, and the notebook is dead."""
    project = Project(tmp_path, own_postgres, **{PATIENCE_VARIABLE: "1"})
    command = project.start("run", "slow", "--json")
    wait_for(project.notebooks / "started", command)
    own_postgres.stop()
    (project.notebooks / "go").touch()
    out, _err = command.communicate(timeout=120)
    assert command.returncode == 1
    (outcome,) = json.loads(out)
    assert outcome["ending"] == "failed"
    assert "the database has been away for" in outcome["error"]
    assert "what it depends on" not in outcome["error"]


@pytest.fixture
def instance(own_postgres: Any, new_instance: Callable[..., DagsterInstance]) -> DagsterInstance:
    """An instance over a server of its own."""
    return new_instance(storage=own_postgres.storage())


def run_two(instance: DagsterInstance, between: Callable[[], object]) -> dg.ExecuteInProcessResult:
    """Run two assets, with something between them."""
    from research_jobs.orchestration.execution.executor import notebook_executor

    @dg.asset
    def first() -> None:
        between()

    @dg.asset(deps=[first])
    def second() -> None: ...

    job = dg.Definitions(
        assets=[first, second], executor=notebook_executor
    ).resolve_implicit_global_asset_job_def()
    ride_out_outages(instance)
    return job.execute_in_process(instance=instance)


def test_a_run_that_begins_while_the_server_is_away(
    instance: DagsterInstance, server_away: Callable[[], None]
) -> None:
    """To make a run waits for the database too."""
    ride_out_outages(instance)
    server_away()
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    instance.report_engine_event("first", run)
    assert [entry.message for entry in instance.all_logs("a-run")] == ["first"]


def test_a_restart_between_two_steps(
    instance: DagsterInstance, server_away: Callable[[], None]
) -> None:
    """Connections that a run holds are renewed, and the next step runs."""
    assert run_two(instance, server_away).success
    for name in ("first", "second"):
        made = instance.fetch_materializations(dg.AssetKey(name), limit=5).records
        assert len(made) == 1


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("number", range(1, 5))
def test_a_connection_that_breaks_within_an_event(
    postgres: Any, new_instance: Callable[..., DagsterInstance], number: int, *, held: bool
) -> None:
    """Whichever statement of a materialisation the break hits, it is stored once, with its tags."""
    instance = new_instance(storage=postgres.storage())
    run = DagsterRun(job_name="job", run_id="a-run")
    instance.add_run(run)
    ride_out_outages(instance)
    seen = 0

    def break_off(connection: Any, *_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            pid = connection.connection.dbapi_connection.info.backend_pid
            with psycopg2.connect(postgres.dsn("postgres")) as other:
                other.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    def store() -> None:
        instance.report_dagster_event(
            dg.DagsterEvent(
                event_type_value="ASSET_MATERIALIZATION",
                job_name="job",
                event_specific_data=_materialization(),
            ),
            "a-run",
        )

    instance.report_engine_event("before", run)
    if held:
        with held_connections(instance):
            sa.event.listen(instance.event_log_storage._engine, "after_cursor_execute", break_off)
            store()
    else:
        sa.event.listen(instance.event_log_storage._engine, "after_cursor_execute", break_off)
        store()
    assert seen > number, "the break came, and something was tried again"
    key = dg.AssetKey("table")
    (record,) = instance.fetch_materializations(key, limit=5).records
    tags = instance.event_log_storage.get_event_tags_for_asset(key)
    assert tags == [{DATA_VERSION_TAG: "abc"}]
    (asset,) = instance.get_asset_records([key])
    assert asset.asset_entry.last_materialization_record.storage_id == record.storage_id


def _materialization() -> Any:
    from dagster._core.events import StepMaterializationData

    return StepMaterializationData(
        dg.AssetMaterialization("table", metadata={"rows": 1}, tags={DATA_VERSION_TAG: "abc"})
    )


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_patience_is_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Anything else in the variable is an error that names it."""
    monkeypatch.setenv(PATIENCE_VARIABLE, text)
    with pytest.raises(ProjectError, match=PATIENCE_VARIABLE):
        patience()


def test_patience_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes: longer than the restart of a server takes."""
    monkeypatch.setenv(PATIENCE_VARIABLE, "")
    assert patience() == 300
