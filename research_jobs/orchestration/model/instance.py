"""The Dagster instance of a project, found or made, and the workspace that shows it.

Where the state is, first that applies:

1. ``DAGSTER_HOME``: as everywhere in Dagster.
2. ``dagster.yaml`` in the project's root: what a bare ``dagster dev`` there reads too.
3. Neither: SQLite below ``<project>/.research_jobs/dagster``, which needs no file at all.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from research_jobs.filesystem import make_folder, write_atomically
from research_jobs.orchestration.compat import instance as compat
from research_jobs.orchestration.model.workers import worker_of
from research_jobs.project import PROJECT_VARIABLE, Project, enter_environment

__all__ = [
    "LOCATION",
    "default_config",
    "end_dead_runs",
    "enter_project",
    "has_history",
    "instance_settings",
    "open_instance",
    "service_home",
    "workspace_file",
]

LOCATION = "research_jobs"
"""Name of the code location in workspace.yaml: runs started here carry it too."""

_OPEN = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def default_config(folder: str | Path) -> dict[str, Any]:
    """What dagster.yaml says, with all state below `folder`.

    A test keeps it in step with the project's own dagster.yaml.
    """
    base = str(folder)
    kept = {"skipped": 7, "failure": 30, "success": 90}
    # The account of ticks reads those of schedules.
    accounted = {"skipped": 31, "failure": 90, "success": 90}
    return {
        "storage": {"sqlite": {"base_dir": base}},
        "compute_logs": {
            **compat.STATE_CLASSES["compute_logs"],
            "config": {"base_dir": f"{base}/storage"},
        },
        "local_artifact_storage": {
            **compat.STATE_CLASSES["local_artifact_storage"],
            "config": {"base_dir": base},
        },
        "concurrency": {
            "pools": {"granularity": "op", "op_granularity_run_buffer": 12},
            "runs": {"max_concurrent_runs": 16},
        },
        "run_coordinator": {
            "module": "research_jobs.orchestration.execution.run_queue",
            "class": "NotebookRunQueue",
            "config": {
                "dequeue_interval_seconds": 1,
                "max_user_code_failure_retries": 20,
                "user_code_failure_retry_delay": 15,
            },
        },
        "schedules": {"use_threads": True, "num_workers": 4},
        "run_retries": {
            "enabled": True,
            "max_retries": 2,
            "retry_on_asset_or_op_failure": False,
        },
        "run_launcher": {
            "module": "research_jobs.orchestration.execution.run_launcher",
            "class": "WorkerRunLauncher",
        },
        "run_monitoring": {
            "enabled": True,
            "poll_interval_seconds": 30,
            "free_slots_after_run_end_seconds": 60,
        },
        "retention": {
            "schedule": {"purge_after_days": accounted},
            "sensor": {"purge_after_days": kept},
        },
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }


def enter_project(project: Project) -> None:
    """Make this process one of `project`'s: working directory, environment, its ``.env``.

    Relative paths in dagster.yaml count from the project's root, and the code location finds the
    project by its environment, so every process of ours begins with this.
    """
    os.chdir(project.root)
    os.environ[PROJECT_VARIABLE] = str(project.root)
    enter_environment(project)


def state_folder(project: Project) -> Path:
    """The folder of the embedded instance, made if need be."""
    return project.make_state_folder("dagster")


def has_history(project: Project) -> bool:
    """Whether there is an instance already: opening the embedded one makes it."""
    named = bool(os.environ.get("DAGSTER_HOME")) or (project.root / "dagster.yaml").is_file()
    return named or (project.state / "dagster").is_dir()


@contextmanager
def open_instance(project: Project) -> Generator[DagsterInstance]:
    """The project's instance, as a context; call `enter_project` first.

    Where it is, the rules at the top of this module say.
    """
    folder, where = _source(project)
    with compat.open_instance(folder, **where) as instance:
        yield instance


def instance_settings(
    project: Project,
) -> tuple[Path, dict[str, tuple[str, Mapping[str, Any]]]]:
    """The folder of the project's instance, and the class and settings of each of its parts.

    It is not opened, which would create it; call `enter_project` first.
    """
    folder, where = _source(project)
    return folder, compat.instance_settings(folder, **where)


def _source(project: Project) -> tuple[Path, dict[str, Any]]:
    """The folder of the instance, and what says how it is configured."""
    home = os.environ.get("DAGSTER_HOME")
    if home:
        folder = Path(home).expanduser()
        make_folder(folder, private=True)
        return folder, {}
    folder = state_folder(project)
    if (project.root / "dagster.yaml").is_file():
        return folder, {"config_dir": project.root}
    return folder, {"config": default_config(folder)}


def service_home(project: Project) -> str | None:
    """The ``DAGSTER_HOME`` that Dagster's own programs need to find the same instance.

    Returns
    -------
    str or None
        None where the project's dagster.yaml is found without it. Where the project has none, a
        dagster.yaml that says the same is written below its state folder.
    """
    home = os.environ.get("DAGSTER_HOME")
    if home:
        return home
    if (project.root / "dagster.yaml").is_file():
        return None
    folder = state_folder(project)
    _write_yaml(folder / "dagster.yaml", default_config(folder))
    return str(folder)


def workspace_file(project: Project) -> Path:
    """The workspace that shows the project: its own workspace.yaml, or one that is written."""
    own = project.root / "workspace.yaml"
    if own.is_file():
        return own
    target = state_folder(project) / "workspace.yaml"
    module = {"module_name": "research_jobs.definitions", "location_name": LOCATION}
    _write_yaml(target, {"load_from": [{"python_module": module}]})
    return target


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    write_atomically(path, text.encode(), private=True)


def end_dead_runs(instance: DagsterInstance) -> list[str]:
    """Fail the runs whose process on this machine is gone, and free their slots.

    Dagster's daemon does so too, where it runs (`WorkerRunLauncher`). Where it does not, a run
    whose process was killed would stay "started" for ever and hold its slots in the pools.

    Returns
    -------
    list of str
        Ids of the runs that were ended.
    """
    ended: list[str] = []
    for run in instance.get_runs(RunsFilter(statuses=_OPEN)):
        worker = worker_of(run)
        if worker is None or worker.alive:
            continue
        # The process may have ended its run between our question and our look.
        now = instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:
            continue
        instance.report_run_failed(run, "The process that worked on this run was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(run.run_id)
    return ended
