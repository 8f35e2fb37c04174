"""The project's instance: found or made, entered, and cleared of the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from research_jobs.orchestration.model import instance as instances
from research_jobs.orchestration.model.workers import PROCESS_TAG, process_tag
from research_jobs.project import Project

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project that this process has entered."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", "")
    monkeypatch.chdir(tmp_path)
    found = Project(root=tmp_path, store=str(tmp_path / "data"))
    instances.enter_project(found)
    return found


def test_the_default_is_what_dagster_yaml_says() -> None:
    """A project without dagster.yaml gets the same instance as one with ours."""
    written = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    assert instances.default_config(".research_jobs/dagster") == written


def test_the_server_differs_in_storage_only() -> None:
    """deploy/dagster.yaml has the same settings, over Postgres."""
    embedded = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    server = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
    for key in ("storage", "compute_logs", "local_artifact_storage"):
        embedded.pop(key)
        server.pop(key, None)
    assert server == embedded


def test_state_stays_in_one_folder(project: Project) -> None:
    """Opening the instance of a bare project writes below .research_jobs and nowhere else."""
    with instances.open_instance(project) as instance:
        assert instance.get_runs() == []
        assert not instance.nux_enabled
    assert sorted(path.name for path in project.root.iterdir()) == [".research_jobs", "notebooks"]


def test_a_file_of_the_project_wins(project: Project) -> None:
    """dagster.yaml in the root is obeyed, and its relative paths count from the root."""
    config = instances.default_config("elsewhere/dagster")
    (project.root / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with instances.open_instance(project) as instance:
        instance.get_runs()
    assert (project.root / "elsewhere" / "dagster" / "history").is_dir()
    assert instances.service_home(project) is None


def test_dagster_home_wins_over_all(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With DAGSTER_HOME set, neither the project's file nor its state folder is used."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with instances.open_instance(project) as instance:
        assert instance.root_directory == str(home)
    assert instances.service_home(project) == str(home)


def test_services_find_the_same_instance(project: Project) -> None:
    """Dagster's own programs, given `service_home`, see the runs that our process made."""
    with instances.open_instance(project) as instance:
        run = instance.create_run_for_job(dg.define_asset_job("none").resolve(asset_graph=_graph()))
    home = instances.service_home(project)
    assert home is not None
    done = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "run", "list"],
        env=os.environ | {"DAGSTER_HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.run_id in done.stdout


def _graph() -> dg.AssetGraph:  # type: ignore[name-defined]
    @dg.asset
    def one() -> None: ...

    return dg.Definitions(assets=[one]).get_repository_def().asset_graph


def test_the_workspace_is_the_projects_or_written(project: Project) -> None:
    """workspace.yaml of the root is used; without one the same is written into the state."""
    written = instances.workspace_file(project)
    assert written.is_relative_to(project.state)
    ours = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(written.read_text(encoding="utf-8")) == ours
    own = project.root / "workspace.yaml"
    own.write_text("load_from: []\n", encoding="utf-8")
    assert instances.workspace_file(project) == own


def test_dot_env_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables in the project's .env hold for runs from the shell, as in `dagster dev`."""
    monkeypatch.setenv("VENDOR_KEY", "")
    (project.root / ".env").write_text("VENDOR_KEY=abc\n", encoding="utf-8")
    instances.enter_project(project)
    assert os.environ["VENDOR_KEY"] == "abc"


def test_dot_env_hides_no_module_from_dagster(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import path that .env has for the editor brings no notebook into our processes."""
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("RESEARCH_JOBS_STORE", project.store)
    path = f"{project.notebooks}{os.pathsep}{project.root}"
    file = project.root / ".env"
    file.write_text(f"PYTHONPATH={path}\nRESEARCH_JOBS_STORE=other\n", encoding="utf-8")
    instances.enter_project(project)
    assert os.environ["PYTHONPATH"] == "/mine"
    assert os.environ["RESEARCH_JOBS_STORE"] == project.store
    file.write_text(f"PYTHONPATH={path}{os.pathsep}/lib\n", encoding="utf-8")
    instances.enter_project(project)
    assert os.environ["PYTHONPATH"] == "/lib"


def test_runs_of_dead_processes_are_ended(project: Project) -> None:
    """A run whose process was killed is failed; one whose process may live is left alone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.kill()
    job = dg.define_asset_job("none").resolve(asset_graph=_graph())

    def run_id(name: str) -> str:
        return f"{name * 8}-0000-4000-8000-000000000000"

    with instances.open_instance(project) as instance:

        def started(name: str, tag: str | None) -> str:
            run = instance.create_run_for_job(
                job,
                run_id=run_id(name),
                status=dg.DagsterRunStatus.STARTED,
                tags={PROCESS_TAG: tag} if tag else {},
            )
            return run.run_id

        dead = process_tag(run_id("1")).replace(f":{os.getpid()}:", f":{process.pid}:")
        ended = started("1", dead)
        left = [
            started("2", process_tag(run_id("2"))),
            # Of another machine, or another container: its pid means nothing here.
            started("3", "33333333:another-host/0:1:0"),
            started("4", dead.replace("11111111", "44444444").replace("/", "/1")),
            # Copied from the run that this one is to do again, as Dagster does.
            started("5", dead),
            started("6", None),
        ]
        assert instances.end_dead_runs(instance) == [ended]
        assert instances.end_dead_runs(instance) == []
        statuses = {run.run_id: run.status.name for run in instance.get_runs()}
    assert statuses[ended] == "FAILURE"
    assert {statuses[run] for run in left} == {"STARTED"}
