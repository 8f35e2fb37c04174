"""What happens to runs when a code server is away, or a run worker is killed: real services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from research_jobs import build_defs
from research_jobs.orchestration.compat.assets import job_origin
from research_jobs.orchestration.model.instance import LOCATION, default_config
from research_jobs.orchestration.model.workers import worker_of

pytestmark = pytest.mark.timeout(300)

# The first process waits to be killed. Another one says whether any before it is still alive.
ONCE_KILLED = """
# %% Begin
import os, pathlib, time

pids = pathlib.Path(__file__).with_name("pids")
before = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
with pids.open("a") as file:
    file.write(f"{os.getpid()} ")


def lives(pid):
    try:
        return "State:\\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


while not before:
    time.sleep(0.1)

# %% Result
state = {"attempt": len(before) + 1, "alive": [pid for pid in before if lives(pid)]}
"""
NOTEBOOKS = {
    "quick.py": "# %%\nvalue = 1\n",
    "once_killed.py": ONCE_KILLED,
    "wrong.py": "# %%\nraise ValueError('no')\n",
}
MANIFEST = """
notebooks:
  quick: {outputs: [value]}
  once_killed: {outputs: [state]}
"""


class Stack:
    """A code server and a daemon over one project, with shorter waits than a server's."""

    def __init__(self, project: Path, folder: Path, e2e: Any) -> None:
        self._project = project
        self._folder = folder
        self._e2e = e2e
        self._port = e2e.free_port()
        config = default_config(str(folder / "home"))
        config["run_coordinator"]["config"] |= {
            "user_code_failure_retry_delay": 1,
            "dequeue_interval_seconds": 1,
        }
        config["run_monitoring"]["poll_interval_seconds"] = 1
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text(yaml.safe_dump(config))
        server = {"host": "127.0.0.1", "port": self._port, "location_name": LOCATION}
        self._workspace = folder / "workspace.yaml"
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        self.environment = e2e.environment(
            DAGSTER_HOME=str(folder / "home"), RESEARCH_JOBS_PROJECT=str(project)
        )
        self.instance = dg.DagsterInstance.from_config(str(folder / "home"))
        self._repository = build_defs(project).get_repository_def()

    @contextmanager
    def code_server(self, name: str = "code") -> Generator[subprocess.Popen[bytes]]:
        """A code server, answering."""
        command = [
            *(self._e2e.BIN / "dagster", "code-server", "start", "--host", "127.0.0.1"),
            *("--module-name", "research_jobs.definitions", "--port", str(self._port)),
            *("--location-name", LOCATION),
        ]
        with self._e2e.service(
            command, cwd=self._project, env=self.environment, log=self._folder / f"{name}.log"
        ) as process:
            self._e2e.wait_until("the code server", lambda: self._e2e.answers(self._port))
            yield process

    @contextmanager
    def daemon(self) -> Generator[None]:
        """The daemon, ticking."""
        command = [self._e2e.BIN / "dagster-daemon", "run", "--workspace", self._workspace]
        with self._e2e.service(
            command, cwd=self._project, env=self.environment, log=self._folder / "daemon.log"
        ):
            self._e2e.wait_until("the daemon", self.instance.get_daemon_heartbeats)
            yield

    def submit(self, notebook: str) -> str:
        """Queue a run, as a schedule or the UI does."""
        key = dg.AssetKey([notebook])
        job = self._repository.get_implicit_job_def_for_assets([key])
        assert job is not None
        run = self.instance.create_run_for_job(
            job_def=job,
            asset_selection=frozenset({key}),
            remote_job_origin=job_origin(job.name, LOCATION),
            job_code_origin=JobPythonOrigin(
                job.name,
                RepositoryPythonOrigin(
                    sys.executable, ModuleCodePointer("research_jobs.definitions", "defs", None)
                ),
            ),
        )
        self.instance.submit_run(run.run_id, cast("Any", None))
        return run.run_id

    def said(self, run_id: str, text: str) -> bool:
        """Whether an event of the run says `text`."""
        return any(text in event.message for event in self.instance.all_logs(run_id))

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        """How a run ended, once it has."""
        wait = self._e2e.wait_until
        run = wait("the run", lambda: (r := self.run(run_id)).is_finished and r)
        return cast("dg.DagsterRunStatus", run.status)

    def run(self, run_id: str) -> dg.DagsterRun:
        """A run as it is now."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run


@pytest.fixture
def stack(tmp_path: Path, e2e: Any) -> Iterator[Stack]:
    """A project and its services, none of them started."""
    project = e2e.write_project(tmp_path / "project", NOTEBOOKS, MANIFEST)
    found = Stack(project, tmp_path, e2e)
    with found.instance:
        yield found


def test_queued_runs_outlive_the_code_server(stack: Stack, e2e: Any) -> None:
    """Runs that are queued while the code server is away wait for it, and then succeed."""
    with ExitStack() as services:
        with stack.code_server() as server:
            services.enter_context(stack.daemon())
            assert stack.ended(stack.submit("quick")) is dg.DagsterRunStatus.SUCCESS
            os.killpg(server.pid, signal.SIGKILL)
        queued = [stack.submit("quick") for _ in range(3)]
        e2e.wait_until(
            "an attempt", lambda: any(stack.said(run, "re-submitting the run") for run in queued)
        )
        services.enter_context(stack.code_server("again"))
        assert {stack.ended(run) for run in queued} == {dg.DagsterRunStatus.SUCCESS}


def test_a_killed_workers_run_is_tried_again_alone(stack: Stack, e2e: Any) -> None:
    """A killed worker's run runs once more, after its notebook is gone, and publishes once."""
    pids = stack.environment["RESEARCH_JOBS_PROJECT"] + "/notebooks/pids"
    with stack.code_server(), stack.daemon():
        first = stack.submit("once_killed")
        e2e.wait_until("the notebook", Path(pids).exists)
        worker = worker_of(stack.run(first))
        assert worker is not None
        assert worker.alive
        os.kill(worker.pid, signal.SIGKILL)
        assert stack.ended(first) is dg.DagsterRunStatus.FAILURE
        group = e2e.wait_until("the second run", lambda: _group(stack, first))
        assert stack.ended(group[1]) is dg.DagsterRunStatus.SUCCESS
        assert _group(stack, first) == group
    made = stack.instance.fetch_materializations(dg.AssetKey("once_killed"), limit=10).records
    assert [record.run_id for record in made] == [group[1]]
    from research_jobs import load

    project = stack.environment["RESEARCH_JOBS_PROJECT"]
    assert load("once_killed", "state", project=project) == {"attempt": 2, "alive": []}


def _group(stack: Stack, first: str) -> list[str] | None:
    """The runs of a run and its repetitions, in the order in which they were made."""
    found = stack.instance.get_run_group(first)
    runs = list(found[1]) if found else []
    ids = [run.run_id for run in runs]
    return [first, *(run for run in ids if run != first)] if len(ids) > 1 else None


def test_a_failed_notebook_is_not_tried_again(stack: Stack, e2e: Any) -> None:
    """A notebook that raises has failed for good: `retries:` in the manifest says otherwise."""
    with stack.code_server(), stack.daemon():
        failed = stack.submit("wrong")
        assert stack.ended(failed) is dg.DagsterRunStatus.FAILURE
        e2e.wait_until("the daemon's verdict", lambda: stack.said(failed, "Not retrying run"))
    assert _group(stack, failed) is None


def test_a_killed_command_is_not_tried_again(stack: Stack, e2e: Any) -> None:
    """Whoever ran a command sees that it was killed, and says what is to be done."""
    pids = Path(stack.environment["RESEARCH_JOBS_PROJECT"], "notebooks", "pids")
    with stack.code_server(), stack.daemon():
        command = subprocess.Popen(
            [e2e.BIN / "research-jobs", "run", "once_killed"],
            env=stack.environment,
            cwd=pids.parent,
            stdout=subprocess.DEVNULL,
        )
        e2e.wait_until("the notebook", pids.exists)
        (run,) = stack.instance.get_runs()
        command.kill()
        command.wait()
        assert stack.ended(run.run_id) is dg.DagsterRunStatus.FAILURE

        def verdict() -> str | None:
            return stack.run(run.run_id).tags.get("dagster/will_retry")

        assert e2e.wait_until("the verdict", verdict) == "false"
