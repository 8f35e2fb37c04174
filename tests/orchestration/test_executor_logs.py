"""Logs of real runs: each step has its own, whatever wrote it, and the helpers work anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus


def captures(ran: Any) -> dict[str, list[Any]]:
    """The capture events that name each step, in order: the UI shows the first."""
    found: dict[str, list[Any]] = {}
    for event in ran.events:
        if event.event_type_value == "LOGS_CAPTURED":
            for key in event.logs_captured_data.step_keys:
                found.setdefault(key, []).append(event.logs_captured_data)
    return found


def log_of(ran: Any, step_key: str) -> tuple[list[str], list[str]]:
    """The lines that the UI shows of a step."""
    manager = ran.instance.compute_log_manager
    data = captures(ran)[step_key][0]
    key = manager.build_log_key_for_run(ran.run_id, data.file_key)
    assert manager.is_capture_complete(key)
    log = manager.get_log_data(key)
    return log.stdout.decode().splitlines(), log.stderr.decode().splitlines()


def test_each_step_has_its_own_log(run_job: Any, instance: DagsterInstance) -> None:
    """Of two steps that talk at once, each log has all that its step wrote, in order, alone."""
    ran = run_job("talking", instance, max_concurrent=2)
    assert ran.status is DagsterRunStatus.SUCCESS
    assert {key: len(found) for key, found in captures(ran).items()} == {"left": 1, "right": 1}
    for name in ("left", "right"):
        stdout, stderr = log_of(ran, name)
        said = ["before", "print", "bytes", "process", "after"]
        assert stdout == [f"{name}: {word}" for word in said]
        text = "\n".join(stderr)
        other = {"left": "right", "right": "left"}[name]
        assert stderr[0] == f"{name}: stderr"
        assert f"{name}: oops" in text
        assert f"{other}:" not in text
        # Dagster's own lines are in the run's events, and not among the notebook's.
        assert "STEP_START" not in text


def test_python_logs_go_to_the_step_that_wrote_them(run_job: Any, new_instance: Any) -> None:
    """Records of a managed logger are events of the step whose thread logged them, once."""
    managed = {"managed_python_loggers": ["somewhere"], "python_log_level": "INFO"}
    ran = run_job("talking", new_instance(python_logs=managed), max_concurrent=2)
    logged = [
        (entry.step_key, entry.user_message)
        for entry in ran.instance.all_logs(ran.run_id)
        if entry.user_message.endswith(("python log", "dagster log"))
    ]
    assert sorted(logged) == [
        ("left", "left: dagster log"),
        ("left", "left: python log"),
        ("right", "right: dagster log"),
        ("right", "right: python log"),
    ]


def test_log_of_all_attempts(run_job: Any, instance: DagsterInstance) -> None:
    """The one log of a step has its attempts one below the other, each under a line of its own."""
    ran = run_job("talking_retries", instance)
    assert len(captures(ran)["step"]) == 1
    stdout, _ = log_of(ran, "step")
    assert stdout[0] == "this is attempt 1"
    assert stdout[1].startswith("--- attempt 2, ")
    assert stdout[2] == "this is attempt 2"
    assert stdout[3].startswith("--- attempt 3, ")
    assert stdout[4:] == ["this is attempt 3"]


def test_run_without_kept_logs(run_job: Any, new_instance: Any) -> None:
    """With a manager that keeps nothing a run succeeds all the same."""
    manager = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    ran = run_job("talking_retries", new_instance(compute_logs=manager))
    assert ran.status is DagsterRunStatus.SUCCESS


def test_log_that_cannot_be_kept_is_reported(
    run_job: Any, new_instance: Any, tmp_path: Any
) -> None:
    """A log folder that cannot be written is an event of the run, and fails no step."""
    in_the_way = tmp_path / "a-file"
    in_the_way.touch()
    manager = {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": str(in_the_way)},
    }
    ran = run_job("talking_retries", new_instance(compute_logs=manager))
    assert ran.status is DagsterRunStatus.SUCCESS
    assert "The log of step step cannot be kept" in [e.message for e in ran.events]


@pytest.mark.parametrize("executor", ["", "in_process", "multiprocess"])
def test_helpers_work_under_every_executor(
    run_job: Any, instance: DagsterInstance, executor: str
) -> None:
    """What goes to the streams is in the step's log, and the token is there, not cancelled."""
    ran = run_job("helpers", instance, executor=executor)
    assert ran.status is DagsterRunStatus.SUCCESS
    (mark,) = ran.marks
    assert not mark["cancelled"]
    if executor:
        assert mark["streams"] == [1, 2]
    else:
        assert mark["same"]
    if executor != "in_process":  # under pytest, sys.stdout is not the process's own there
        assert log_of(ran, "step")[0] == ["by print", "by descriptor"]
