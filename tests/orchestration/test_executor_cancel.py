"""Runs that are stopped: through the run launcher as the UI does it, by a signal, by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget

JOBS = Path(__file__).with_name("executor_jobs.py")
DEADLINE_S = 60.0


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Wait for a condition, and give what it gave."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S:g} s"
        time.sleep(0.02)
    return found


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class Launched:
    """A run in a run worker that a code server started."""

    instance: DagsterInstance
    run_id: str
    marks: Callable[[], dict[str, dict[str, Any]]]

    def wait_for_marks(self, *names: str) -> dict[str, dict[str, Any]]:
        until(f"marks {names}", lambda: set(names) <= set(self.marks()))
        return self.marks()

    def wait_for(self, status: DagsterRunStatus) -> None:
        until(str(status), lambda: self.instance.get_run_by_id(self.run_id).status is status)

    def events(self, kind: str) -> list[Any]:
        entries = self.instance.all_logs(self.run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event]
        return [event for event in events if event.event_type_value == kind]

    def messages(self) -> str:
        return "\n".join(event.message or "" for event in self.events("ENGINE_EVENT"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An instance, a folder for marks, and a code server that has loaded ``executor_jobs.py``."""
    home = tmp_path_factory.mktemp("home")
    marks = tmp_path_factory.mktemp("marks")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    target = PythonFileTarget(
        python_file=str(JOBS), attribute="defs", working_directory=None, location_name="jobs"
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RESEARCH_JOBS_TEST_FOLDER", str(marks))
        environment.setenv("PYTHONWARNINGS", "ignore")
        with (
            DagsterInstance.from_config(str(home)) as instance,
            WorkspaceProcessContext(instance, target) as workspace,
        ):
            yield instance, workspace, marks


@pytest.fixture
def launch(server: Any, read_marks: Any) -> Iterator[Callable[..., Launched]]:
    instance, workspace, marks = server
    launched: list[str] = []

    def launch(job: str, **config: Any) -> Launched:
        (marks / "marks").unlink(missing_ok=True)
        request = workspace.create_request_context()
        location = request.get_code_location("jobs")
        remote = location.get_repository("__repository__").get_full_job(job)
        run = instance.create_run_for_job(
            ReconstructableJob.for_file(str(JOBS), job).get_definition(),
            run_config={"execution": {"config": config}},
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
        )
        launched.append(run.run_id)
        instance.launch_run(run.run_id, request)
        return Launched(
            instance, run.run_id, lambda: {mark["name"]: mark for mark in read_marks(marks)}
        )

    yield launch
    for mark in read_marks(marks):
        for pid in (mark["pid"], mark.get("child")):
            if pid is not None and pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_cancel_from_the_ui(launch: Any) -> None:
    """Termination cancels what holds a token, starts nothing more, and the worker goes."""
    run = launch("polite", max_concurrent=2)
    marks = run.wait_for_marks("listener", "quick")
    assert run.instance.run_launcher.terminate(run.run_id)
    run.wait_for(DagsterRunStatus.CANCELED)
    until("the run worker is gone", lambda: gone(marks["listener"]["pid"]))
    (failure,) = run.events("STEP_FAILURE")
    assert failure.step_key == "listener"
    assert failure.step_failure_data.error_source.value == "INTERRUPT"
    assert "next_one" not in {event.step_key for event in run.events("STEP_START")}
    assert "Stopped all running steps" in run.messages()


def test_cancel_of_a_step_that_nothing_can_stop(launch: Any) -> None:
    """After the grace the run ends without it: its failure says so, and its process is gone."""
    run = launch("endless", max_concurrent=2, cancel_grace=1.0)
    run.instance.event_log_storage.set_concurrency_slots("narrow", 1)
    marks = run.wait_for_marks("supervised", "ordinary")
    assert run.instance.run_launcher.terminate(run.run_id)
    run.wait_for(DagsterRunStatus.CANCELED)
    until("the run worker is gone", lambda: gone(marks["ordinary"]["pid"]))
    assert gone(marks["supervised"]["child"])
    failures = {event.step_key: event for event in run.events("STEP_FAILURE")}
    assert set(failures) == {"supervised", "ordinary"}
    message = failures["ordinary"].step_failure_data.error.message
    assert message.startswith("Step ordinary did not stop within 1 s of the cancellation.")


def test_killed_worker_fails_its_run(launch: Any) -> None:
    """Of a run worker that is killed, the code server tells the instance, and nothing goes on."""
    run = launch("polite", max_concurrent=2)
    worker = run.wait_for_marks("listener", "quick")["listener"]["pid"]
    assert worker != os.getpid()
    assert run.instance.get_run_by_id(run.run_id).status is DagsterRunStatus.STARTED
    os.kill(worker, signal.SIGKILL)
    run.wait_for(DagsterRunStatus.FAILURE)
    assert gone(worker)
    # The listener never ends by itself: it was the kill that ended the run.
    assert not run.events("STEP_FAILURE")
    assert "listener" not in {event.step_key for event in run.events("STEP_SUCCESS")}
    assert "next_one" not in {event.step_key for event in run.events("STEP_START")}


@pytest.mark.parametrize(
    ("asked", "status"),
    [(True, DagsterRunStatus.CANCELED), (False, DagsterRunStatus.FAILURE)],
    ids=["asked for", "out of the blue"],
)
def test_interrupt(
    run_job: Any,
    any_instance: DagsterInstance,
    marks_folder: Path,
    read_marks: Any,
    asked: bool,
    status: DagsterRunStatus,
) -> None:
    """A signal stops the run: as cancelled where somebody asked for it, else as failed."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.02):
            if {"listener", "quick"} <= {mark["name"] for mark in read_marks(marks_folder)}:
                if asked:
                    (run,) = any_instance.get_runs()
                    any_instance.report_run_canceling(run)
                os.kill(os.getpid(), signal.SIGINT)
                return

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        ran = run_job("polite", any_instance, max_concurrent=2)
    finally:
        over.set()
        interrupter.join()
    assert ran.status is status
    assert ran.steps("STEP_FAILURE") == ["listener"]
    assert "next_one" not in ran.steps("STEP_START")
    assert not [t for t in threading.enumerate() if t.name.startswith("step ")]


SLEEPER = """
# %% Wait, with a process that would stay
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
pids = pathlib.Path(__file__).with_name("pids")
pids.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
pids.with_suffix(".new").rename(pids)
time.sleep(600)
"""
WORKER = """
import dagster as dg
from dagster import DagsterInstance, execute_job
from dagster._core.definitions.reconstruct import ReconstructableRepository
from research_jobs import build_defs

defs = build_defs({project!r}, executor=dg.{executor})

if __name__ == "__main__":
    repository = ReconstructableRepository.for_file(__file__, "defs")
    with DagsterInstance.from_config({home!r}) as instance:
        execute_job(repository.get_reconstructable_job("__ASSET_JOB"), instance=instance)
"""


@pytest.mark.parametrize("executor", ["in_process_executor", "multiprocess_executor"])
def test_interrupt_under_dagsters_executors(lab: Any, tmp_path: Path, executor: str) -> None:
    """There too an interrupt ends the notebook with all that it started."""
    lab.write({"sleeper": SLEEPER})
    worker = tmp_path / "worker.py"
    home = lab.instance.root_directory
    worker.write_text(WORKER.format(project=str(lab.root), executor=executor, home=home))
    process = subprocess.Popen([sys.executable, worker], start_new_session=True)
    pids = lab.root / "notebooks" / "pids"
    try:
        until("the notebook", pids.exists)
        process.send_signal(signal.SIGINT)  # to the run worker alone, as the code server sends it
        process.wait(60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    until("the notebook's end", lambda: all(gone(int(pid)) for pid in pids.read_text().split()))
    (run,) = lab.instance.get_runs()
    assert run.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)
    assert not (lab.root / "data" / "sleeper").exists()


def test_interrupt_frees_the_pool(
    run_job: Any, instance: DagsterInstance, marks_folder: Path, read_marks: Any
) -> None:
    """Neither a stopped step nor one that was given up keeps its slot."""
    instance.event_log_storage.set_concurrency_slots("narrow", 1)
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.02):
            if {"supervised", "ordinary"} <= {m["name"] for m in read_marks(marks_folder)}:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        ran = run_job("endless", instance, max_concurrent=2, cancel_grace=0.5)
    finally:
        over.set()
        interrupter.join()
    assert sorted(ran.steps("STEP_FAILURE")) == ["ordinary", "supervised"]
    info = instance.event_log_storage.get_concurrency_info("narrow")
    assert (info.active_slot_count, info.pending_step_count) == (0, 0)
