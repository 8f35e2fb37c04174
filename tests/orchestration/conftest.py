"""Fixtures for tests of real runs: instances, and jobs of ``executor_jobs.py`` run on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    ReexecutionOptions,
    execute_job,
)
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


def marks_in(folder: Path) -> list[dict[str, Any]]:
    path = folder / "marks"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="session")
def read_marks() -> Callable[[Path], list[dict[str, Any]]]:
    """The marks that steps have left in a folder so far."""
    return marks_in


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


@dataclass
class NotebookRun:
    """A run of notebooks that is over."""

    instance: DagsterInstance
    run_id: str
    events: list[Any]

    @property
    def success(self) -> bool:
        return self.instance.get_run_by_id(self.run_id).status is DagsterRunStatus.SUCCESS

    def _of(self, kind: str, name: str) -> list[Any]:
        return [
            event
            for event in self.events
            if event.event_type_value == kind
            and event.asset_key is not None
            and "/".join(event.asset_key.path) == name
        ]

    def materializations(self, name: str) -> list[Any]:
        return [event.materialization for event in self._of("ASSET_MATERIALIZATION", name)]

    def metadata(self, name: str, partition: str | None = None) -> dict[str, Any]:
        found = [m for m in self.materializations(name) if m.partition == partition]
        assert len(found) == 1, found
        return {key: value.value for key, value in found[0].metadata.items()}

    def observations(self, name: str) -> list[Any]:
        return [
            event.asset_observation_data.asset_observation
            for event in self._of("ASSET_OBSERVATION", name)
        ]

    def failure(self, step: str) -> Any:
        """The `Failure` of a step: description and metadata."""
        (event,) = [
            event
            for event in self.events
            if event.event_type_value == "STEP_FAILURE" and event.step_key == step
        ]
        data = event.step_failure_data
        assert data.user_failure_data is not None, data.error.to_string()
        return data.user_failure_data

    @property
    def errors(self) -> str:
        """What went wrong, for a test's message."""
        failed = [e for e in self.events if e.event_type_value == "STEP_FAILURE"]
        return "\n".join(e.step_failure_data.error.to_string() for e in failed)

    def steps(self, kind: str) -> list[str]:
        return sorted(e.step_key for e in self.events if e.event_type_value == kind)

    def stdout(self, step: str) -> str:
        """What the UI shows of a step's stdout."""
        (captured,) = [
            event.logs_captured_data
            for event in self.events
            if event.event_type_value == "LOGS_CAPTURED"
            and step in event.logs_captured_data.step_keys
        ]
        manager = self.instance.compute_log_manager
        key = manager.build_log_key_for_run(self.run_id, captured.file_key)
        return manager.get_log_data(key).stdout.decode()

    def checks(self) -> dict[str, Any]:
        return {
            event.asset_check_evaluation_data.check_name: event.asset_check_evaluation_data
            for event in self.events
            if event.event_type_value == "ASSET_CHECK_EVALUATION"
        }


@dataclass
class Lab:
    """A project of tiny notebooks, and an instance to run them on."""

    root: Path
    instance: DagsterInstance

    def write(self, notebooks: dict[str, str] | None = None, manifest: str | None = None) -> Lab:
        for name, text in (notebooks or {}).items():
            path = self.root / "notebooks" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if manifest is not None:
            (self.root / "notebooks" / "manifest.yaml").write_text(manifest, encoding="utf-8")
        return self

    @property
    def project(self) -> Any:
        from research_jobs.project import find_project

        return find_project(self.root)

    def defs(self, **options: Any) -> Any:
        from research_jobs import build_defs

        return build_defs(self.root, **options)

    def materialize(
        self,
        *names: str,
        partition: str | None = None,
        span: tuple[str, str] | None = None,
        config: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        definitions: Any = None,
        run_config: dict[str, Any] | None = None,
    ) -> NotebookRun:
        from research_jobs.orchestration.compat.assets import execute_run

        repository = (definitions or self.defs()).get_repository_def()
        keys = frozenset(AssetKey(name.split("/")) for name in names)
        job = repository.get_implicit_job_def_for_assets(keys)
        tags = dict(tags or {})
        if partition is not None:
            tags["dagster/partition"] = partition
        if span is not None:
            tags["dagster/asset_partition_range_start"] = span[0]
            tags["dagster/asset_partition_range_end"] = span[1]
        ops = {op: {"config": values} for op, values in (config or {}).items()}
        run = self.instance.create_run_for_job(
            job_def=job,
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": ops,
                **(run_config or {}),
            },
            tags=tags,
            asset_selection=keys,
        )
        return NotebookRun(self.instance, run.run_id, list(execute_run(job, run, self.instance)))


@pytest.fixture
def lab(tmp_path: Path, instance: DagsterInstance) -> Lab:
    """A project without notebooks yet: ``lab.write({"a": "# %%\\n..."}, "notebooks: ...")``."""
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    return Lab(root, instance)


@pytest.fixture
def any_lab(lab: Lab, any_instance: DagsterInstance) -> Lab:
    """The same, once on SQLite and once on Postgres."""
    return replace(lab, instance=any_instance)


@pytest.fixture(scope="session", autouse=True)
def _end_templates() -> Iterator[None]:
    yield
    from research_jobs.supervisor.shared import close_supervisors

    close_supervisors()
