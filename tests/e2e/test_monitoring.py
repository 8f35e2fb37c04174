"""Runs that the UI ends, and runs whose process was killed, under Dagster's real daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from research_jobs.orchestration.model.instance import default_config

pytestmark = pytest.mark.timeout(300)

# Says which processes it consists of, and would go on for ever.
SLEEPER = """
# %% Wait
import os, pathlib, subprocess, time

child = subprocess.Popen(["sleep", "600"], start_new_session=True)
pids = pathlib.Path(__file__).with_name("pids")
pids.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
print("still here")
pids.with_suffix(".new").rename(pids)
time.sleep(600)

# %% Too late
value = 1
"""
NOTEBOOKS = {
    "sleeper.py": SLEEPER,
    "first.py": "# %%\nimport time\nstamp = time.time()\n",
    "second.py": """
        # %%
        import pathlib
        from research_jobs import load
        if not pathlib.Path(__file__).with_name("repaired").exists():
            raise OSError("not yet")
        copy = load("first", "stamp")
        """,
}
# One slot for all runs: what a killed worker held has to be given back for the next to begin.
MANIFEST = """
defaults: {concurrency: 1}
notebooks:
  sleeper: {outputs: [value]}
  first: {outputs: [stamp]}
  second: {outputs: [copy]}
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""
TERMINATE = "mutation Terminate($id: String!) { terminateRun(runId: $id) { __typename } }"
RUNS = """
query Runs {
  runsOrError(limit: 1) { ... on Runs { results { runId status tags { key value } } } }
}
"""
EVENTS = """
query Events($id: ID!) {
  logsForRun(runId: $id) {
    ... on EventConnection {
      events {
        __typename
        ... on MessageEvent { message stepKey }
        ... on LogsCapturedEvent { fileKey stepKeys }
      }
    }
  }
}
"""
LOG = "query Log($key: [String!]!) { capturedLogs(logKey: $key) { stdout } }"
REEXECUTE = """
mutation Again($id: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
    __typename
  }
}
"""


class Watched:
    """A project under a running UI, whose daemon looks after runs every second."""

    def __init__(self, ui: Any, e2e: Any) -> None:
        self.ui = ui
        self.e2e = e2e
        self.pids_file: Path = ui.project / "notebooks" / "pids"

    def ask(self, query: str, **variables: Any) -> Any:
        """What Dagster's GraphQL answers, which is all that the UI itself knows."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.ui.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def last_run(self) -> dict[str, Any]:
        """The youngest run."""
        (run,) = self.ask(RUNS)["runsOrError"]["results"]
        return run

    def wait_for(self, status: str) -> None:
        """Until the youngest run has ended, which has to be in this status."""
        ended = ("SUCCESS", "FAILURE", "CANCELED")
        wait = self.e2e.wait_until
        assert wait("an end", lambda: (s := self.last_run()["status"]) in ended and s) == status

    def events(self) -> list[dict[str, Any]]:
        """The events of the youngest run, as its page shows them."""
        return self.ask(EVENTS, id=self.last_run()["runId"])["logsForRun"]["events"]

    def log(self, step: str) -> str:
        """What its page shows of a step's stdout by now."""
        captured = [event for event in self.events() if event["__typename"] == "LogsCapturedEvent"]
        (file,) = [event["fileKey"] for event in captured if event["stepKeys"] == [step]]
        key = [self.last_run()["runId"], "compute_logs", file]
        return self.ask(LOG, key=key)["capturedLogs"]["stdout"] or ""

    def start_command(self, *options: str) -> subprocess.Popen[bytes]:
        """``research-jobs run sleeper``, once the notebook runs."""
        self.pids_file.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                self.e2e.BIN / "research-jobs",
                "run",
                "sleeper",
                *options,
                "--project",
                self.ui.project,
            ],
            env=self.e2e.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.e2e.wait_until("the notebook", self.pids_file.exists)
        return process

    def launch(self) -> None:
        """Launch it as the UI's button does, until the notebook runs."""
        self.pids_file.unlink(missing_ok=True)
        params = {
            "selector": {
                "repositoryLocationName": "research_jobs",
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": ["sleeper"]}],
            },
            "runConfigData": {},
            "mode": "default",
        }
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        self.e2e.wait_until("the notebook", self.pids_file.exists)

    def pids(self) -> list[int]:
        """The notebook's process, and the one that it has started."""
        return [int(word) for word in self.pids_file.read_text().split()]

    def assert_nothing_is_left(self) -> None:
        """No process of the notebook is there, and nothing was published."""
        self.e2e.wait_until("the notebook's end", lambda: not any(map(_alive, self.pids())))
        assert not list((self.ui.project / "data").glob("sleeper/*"))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, e2e: Any) -> Iterator[Watched]:
    """A UI over a notebook that never ends."""
    folder = tmp_path_factory.mktemp("watched")
    project = e2e.write_project(folder / "project", NOTEBOOKS, MANIFEST)
    config = default_config(".research_jobs/dagster")
    config["run_monitoring"] |= {"poll_interval_seconds": 1, "free_slots_after_run_end_seconds": 1}
    (project / "dagster.yaml").write_text(yaml.safe_dump(config))
    with e2e.running_ui(project, folder) as ui:
        yield Watched(ui, e2e)


def test_terminate_reaches_a_run_of_a_command(watched: Watched) -> None:
    """The UI's "Terminate" cancels a run that a command works on, and the command says so."""
    process = watched.start_command()
    run = watched.last_run()
    # Meanwhile its page shows what it prints.
    watched.e2e.wait_until("its log", lambda: watched.log("sleeper") == "still here\n")
    answer = watched.ask(TERMINATE, id=run["runId"])["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess"
    watched.wait_for("CANCELED")
    assert process.wait(60) == 130
    watched.assert_nothing_is_left()


def test_terminate_reaches_a_launched_run(watched: Watched) -> None:
    """So it does for a run that it has launched itself."""
    watched.launch()
    run = watched.last_run()
    watched.e2e.wait_until("its log", lambda: watched.log("sleeper") == "still here\n")
    answer = watched.ask(TERMINATE, id=run["runId"])["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess"
    watched.wait_for("CANCELED")
    watched.assert_nothing_is_left()


def _messages(watched: Watched) -> str:
    return "\n".join(event.get("message") or "" for event in watched.events())


def test_again_from_failure(watched: Watched) -> None:
    """The UI does again what failed of a run of a command, and nobody takes it for a dead one."""
    command = [watched.e2e.BIN / "research-jobs", "run", "--project", watched.ui.project]
    environment = watched.e2e.environment()
    done = subprocess.run(
        [*command, "first", "second"], env=environment, check=False, capture_output=True
    )
    assert done.returncode == 1
    failed = watched.last_run()
    (watched.ui.project / "notebooks" / "repaired").touch()
    answer = watched.ask(REEXECUTE, id=failed["runId"])["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    watched.e2e.wait_until("the run", lambda: watched.last_run()["runId"] != failed["runId"])
    watched.wait_for("SUCCESS")
    steps = {
        event["stepKey"]
        for event in watched.events()
        if event["__typename"] == "ExecutionStepStartEvent"
    }
    assert steps == {"second"}
    assert (watched.ui.project / "data" / "second" / "copy.parquet").exists()


def test_another_host_takes_the_place_of_one_that_was_killed(watched: Watched) -> None:
    """The UI starts another host, which works on the next run; the one before it goes on."""
    watched.launch()
    (host,) = _hosts(watched)
    host.kill()
    watched.e2e.wait_until("another host", lambda: set(_hosts(watched)) - {host})
    assert all(map(_alive, [*watched.pids(), _worker(watched.last_run())]))
    _terminate(watched)
    watched.launch()
    (other,) = _hosts(watched)
    assert psutil.Process(_worker(watched.last_run())).parent() == other
    _terminate(watched)
    watched.assert_nothing_is_left()


def test_killed_command_is_noticed(watched: Watched) -> None:
    """Run monitoring fails the run of a command that got SIGKILL; its notebook is gone."""
    process = watched.start_command("--no-host")
    process.kill()
    process.wait()
    watched.wait_for("FAILURE")
    assert f"process {process.pid}, which worked on it, is gone" in _messages(watched)
    watched.assert_nothing_is_left()


def test_killed_worker_is_noticed(watched: Watched) -> None:
    """So it does where a worker is killed, and the host that would have recorded it."""
    watched.launch()
    worker = psutil.Process(_worker(watched.last_run()))
    server = worker.parent()
    assert server is not None
    assert "research_jobs.cli.main host" in " ".join(server.cmdline())
    os.kill(server.pid, signal.SIGKILL)
    worker.kill()
    watched.wait_for("FAILURE")
    assert f"process {worker.pid}, which worked on it, is gone" in _messages(watched)
    watched.assert_nothing_is_left()


def _terminate(watched: Watched) -> None:
    run = watched.last_run()
    assert watched.ask(TERMINATE, id=run["runId"])["terminateRun"]["__typename"].endswith("Success")
    watched.wait_for("CANCELED")


def _hosts(watched: Watched) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(watched.ui.process.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE and "host" in child.cmdline()
    ]


def _worker(run: dict[str, Any]) -> int:
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    return int(tags["research_jobs/process"].split(":")[2])


def test_without_a_daemon_the_next_command_notices_it(
    tmp_path: Path, e2e: Any, wait_for: Callable[..., Any]
) -> None:
    """Where no daemon runs, the next command fails the run of one that was killed."""
    project = e2e.write_project(
        tmp_path / "project", {"sleeper.py": SLEEPER, "quick.py": "# %% One\nvalue = 1\n"}
    )
    command = [e2e.BIN / "research-jobs", "run", "--project", project]
    process = subprocess.Popen(
        [*command, "sleeper"], env=e2e.environment(), stdout=subprocess.DEVNULL
    )
    pids = project / "notebooks" / "pids"
    wait_for("the notebook", pids.exists)
    process.kill()
    process.wait()
    wait_for("its end", lambda: not any(_alive(int(pid)) for pid in pids.read_text().split()))
    subprocess.run([*command, "quick"], env=e2e.environment(), check=True, capture_output=True)
    listed = subprocess.run(
        [e2e.BIN / "research-jobs", "list", "--json", "--project", project],
        env=e2e.environment(),
        check=True,
        capture_output=True,
    )
    last = {line["notebook"]: line["last"] for line in json.loads(listed.stdout)}
    assert last["quick"]["ending"] == "succeeded"
    assert last["sleeper"]["ending"] == "cancelled"
    assert last["sleeper"]["error"] == "The process that worked on this run was killed."
