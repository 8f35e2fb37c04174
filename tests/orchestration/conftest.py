"""Fixtures for tests of real runs: instances, and jobs of ``executor_jobs.py`` run on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus, ReexecutionOptions, execute_job
from dagster._core.definitions.reconstruct import ReconstructableJob

JOBS = Path(__file__).with_name("executor_jobs.py")


@dataclass
class Ran:
    """A run that is over."""

    instance: DagsterInstance
    run_id: str
    marks: list[dict[str, Any]]

    @property
    def status(self) -> DagsterRunStatus:
        return self.instance.get_run_by_id(self.run_id).status

    @property
    def events(self) -> list[Any]:
        return [
            entry.dagster_event
            for entry in self.instance.all_logs(self.run_id)
            if entry.dagster_event is not None
        ]

    def kinds(self, step_key: str) -> list[str]:
        return [e.event_type_value for e in self.events if e.step_key == step_key]

    def steps(self, kind: str) -> list[str]:
        return [e.step_key for e in self.events if e.event_type_value == kind]

    def named(self, *names: str) -> list[dict[str, Any]]:
        return [mark for mark in self.marks if mark["name"] in names]

    def most_at_once(self, belongs: Callable[[str], bool] = lambda _name: True) -> int:
        now = most = 0
        for mark in self.marks:
            if "what" in mark and belongs(mark["name"]):
                now += 1 if mark["what"] == "begin" else -1
                most = max(most, now)
        return most


def read_marks(folder: Path) -> list[dict[str, Any]]:
    """The marks that steps have left so far."""
    path = folder / "marks"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def marks_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the steps of ``executor_jobs.py`` leave marks."""
    folder = tmp_path / "marks-of-steps"
    folder.mkdir()
    monkeypatch.setenv("RESEARCH_JOBS_TEST_FOLDER", str(folder))
    return folder


def open_instance(home: Path, **settings: Any) -> DagsterInstance:
    home.mkdir(exist_ok=True)
    settings = {"telemetry": {"enabled": False}, **settings}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return DagsterInstance.from_config(str(home))


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an instance without runs: to copy one is quicker than to make one."""
    home = tmp_path_factory.mktemp("empty-home")
    open_instance(home).dispose()
    return home


@pytest.fixture
def new_instance(tmp_path: Path, empty_home: Path) -> Iterator[Callable[..., DagsterInstance]]:
    """Open instances of one's own: keywords are what their dagster.yaml says."""
    opened: list[DagsterInstance] = []

    def new(**settings: Any) -> DagsterInstance:
        home = tmp_path / f"home-{len(opened)}"
        if "storage" not in settings:
            shutil.copytree(empty_home, home)
        opened.append(open_instance(home, **settings))
        return opened[-1]

    yield new
    for instance in opened:
        instance.dispose()


@pytest.fixture
def instance(new_instance: Callable[..., DagsterInstance]) -> DagsterInstance:
    return new_instance()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_instance(
    request: pytest.FixtureRequest, new_instance: Callable[..., DagsterInstance]
) -> DagsterInstance:
    if request.param == "postgres":
        return new_instance(storage=request.getfixturevalue("postgres").storage())
    return new_instance()


@pytest.fixture
def run_job(marks_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a job of ``executor_jobs.py``; keywords are the executor's configuration."""

    def run(
        job: str,
        instance: DagsterInstance,
        *,
        executor: str = "",
        reexecute: ReexecutionOptions | None = None,
        **config: Any,
    ) -> Ran:
        monkeypatch.setenv("RESEARCH_JOBS_TEST_EXECUTOR", executor)
        ReconstructableJob.get_definition.cache_clear()  # it knows nothing of the variable
        ReconstructableJob.get_repository_definition.cache_clear()
        run_id = execute_job(
            ReconstructableJob.for_file(str(JOBS), job),
            instance=instance,
            run_config={"execution": {"config": config}} if config else None,
            reexecution_options=reexecute,
        ).run_id
        lines = (
            (marks_folder / "marks").read_text().splitlines()
            if (marks_folder / "marks").exists()
            else []
        )
        return Ran(instance, run_id, [json.loads(line) for line in lines])

    return run
