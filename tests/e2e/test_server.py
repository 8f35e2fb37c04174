"""The server of deploy/: its own files, a real PostgreSQL, three real services."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent

NOTEBOOKS = {
    "every_minute.py": "# %%\nimport os\n\npid = os.getpid()\n",
    "upper.py": "# %%\nnumbers = [1, 2, 3]\n",
    "lower.py": (
        "# %%\nfrom research_jobs import load\n\n"
        'total = sum(load("upper", "numbers"))\nprint("total", total)\n'
    ),
    "daily.py": (
        '# %% tags=["parameters"]\nfrom datetime import date\n\nday: date = date(2024, 1, 1)\n\n'
        "# %%\nvalue = day.day\n"
    ),
}
MANIFEST = """
notebooks:
  every_minute: {outputs: [pid]}
  upper: {outputs: [numbers]}
  lower: {outputs: [total]}
  daily:
    outputs: [value]
    partitions: {by: day, start: 2024-01-01, end: 2024-01-11, parameter: day}
schedules:
  minutes: {cron: "* * * * *", timezone: Europe/Zagreb, notebooks: [every_minute]}
"""


@dataclass(frozen=True)
class Server:
    """The three services, and where they are."""

    project: Path
    environment: Mapping[str, str]
    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        """What Dagster's GraphQL answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``research-jobs`` as an administrator calls it on the server."""
        return subprocess.run(
            [BIN / "research-jobs", *words],
            cwd=self.project,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def server(postgres: Any, tmp_path_factory: pytest.TempPathFactory, e2e: Any) -> Iterator[Server]:
    """All of deploy/, on free ports and a database of its own."""
    folder = tmp_path_factory.mktemp("server")
    project = e2e.write_project(folder / "research", NOTEBOOKS, MANIFEST)
    home = folder / "home"
    home.mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", home)
    environment = e2e.environment(
        DAGSTER_HOME=str(home),
        RESEARCH_JOBS_PROJECT=str(project),
        RESEARCH_JOBS_PG_URL=postgres.url(postgres.create_database()),
    )
    code_port, port = str(e2e.free_port()), str(e2e.free_port())
    (project / "deploy").mkdir()
    workspace = (DEPLOY / "workspace.yaml").read_text(encoding="utf-8")
    assert "port: 4266" in workspace
    (project / "deploy" / "workspace.yaml").write_text(
        workspace.replace("port: 4266", f"port: {code_port}"), encoding="utf-8"
    )
    binaries = {"/srv/research-jobs/.venv/bin/": f"{BIN}/"}
    commands = {
        "code": e2e.unit_command(
            "research-jobs-code.service", {**binaries, "--port 4266": f"--port {code_port}"}
        ),
        "webserver": e2e.unit_command(
            "research-jobs-webserver.service", {**binaries, "--port 3000": f"--port {port}"}
        ),
        "daemon": e2e.unit_command("research-jobs-daemon.service", binaries),
    }
    found = Server(project, environment, f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        for name, command in commands.items():
            stack.enter_context(
                e2e.service(command, cwd=project, env=environment, log=folder / f"{name}.log")
            )
            if name == "code":
                e2e.wait_until("the code server", lambda: e2e.answers(int(code_port)))
        e2e.wait_until("the webserver", lambda: e2e.answers(int(port)))
        e2e.wait_until("the code location", lambda: _loaded(found))
        yield found


def _loaded(server: Server) -> bool:
    query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
    return bool(server.ask(query)["repositoriesOrError"].get("nodes"))


LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    ... on Runs { results { runId status tags { key value } } }
  }
}
"""


def launch(server: Server, *notebooks: str, **tags: str) -> str:
    """Launch a run as the UI's button does; its id."""
    params = {
        "selector": {
            "repositoryLocationName": "research_jobs",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": name.split("/")} for name in notebooks],
        },
        "runConfigData": {},
        "mode": "default",
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
    }
    answer = server.ask(LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def statuses(server: Server, **filters: Any) -> dict[str, str]:
    """Status of each run that the filter names."""
    runs = server.ask(RUNS, filter=filters)["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in runs}


def test_ten_runs_at_once(server: Server, e2e: Any) -> None:
    """Ten runs launched together all succeed, and the last one's value is in the store."""
    ids = [launch(server, "upper", "lower") for _ in range(10)]

    def done() -> dict[str, str] | None:
        found = statuses(server, runIds=ids)
        return found if all(s in ("SUCCESS", "FAILURE") for s in found.values()) else None

    found = e2e.wait_until("the ten runs", done, timeout=200)
    assert found == dict.fromkeys(ids, "SUCCESS")
    shown = server.command("show", "lower", "total")
    assert shown.stdout.strip() == "6", shown.stderr


def test_the_daemon_ticks(server: Server, e2e: Any) -> None:
    """The schedule is on without anybody's doing, and its run makes the notebook's output."""

    def ticked() -> list[str]:
        tags = [{"key": "dagster/schedule_name", "value": "minutes"}]
        found = statuses(server, tags=tags)
        return [run for run, status in found.items() if status == "SUCCESS"]

    assert e2e.wait_until("a run of the schedule", ticked, timeout=150)
    assert (server.project / "data" / "every_minute" / "pid.parquet").exists()


def test_commands_share_the_servers_history(server: Server) -> None:
    """A run and a backfill from the shell are in the server's database, seen by its UI."""
    done = server.command("run", "upper", "lower", "--json")
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)[0]["run_id"]
    assert statuses(server, runIds=[run_id]) == {run_id: "SUCCESS"}

    done = server.command("backfill", "daily", "--to", "2024-01-05", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"succeeded": 5}
    listed = json.loads(server.command("list", "--json").stdout)
    daily = next(line for line in listed if line["notebook"] == "daily")
    assert daily["partitions"]["materialized"] >= 5
    assert not (server.project / ".research_jobs" / "dagster").exists()


BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def test_a_backfill_from_the_ui(server: Server, e2e: Any) -> None:
    """A ranged backfill, as the UI starts it, is one run of the daemon's over all partitions."""
    keys = [f"2024-01-{day:02d}" for day in range(6, 11)]
    params = {"assetSelection": [{"path": ["daily"]}], "partitionNames": keys}
    answer = server.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    tags = [{"key": "dagster/backfill", "value": answer["backfillId"]}]

    def done() -> dict[str, str] | None:
        found = statuses(server, tags=tags)
        return found if found and "SUCCESS" in found.values() else None

    found = e2e.wait_until("the backfill", done, timeout=150)
    assert list(found.values()) == ["SUCCESS"]
    stored = server.project / "data" / "daily" / "value"
    assert {path.name for path in stored.iterdir()} >= {f"day={key}" for key in keys}
