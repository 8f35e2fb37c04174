"""``research-jobs deploy``: a real Git remote, and the services of deploy/ on SQLite."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from research_jobs.orchestration.model.instance import default_config
from research_jobs.orchestration.model.names import PRUNE_SCHEDULE
from research_jobs.orchestration.operations.served import ask

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {
    "one.py": "# %%\nx = 1\n",
    "two.py": "# %%\ny = 2\n",
    "never.py": "# %%\nz = 3\n",
    "slow.py": "# %%\nimport pathlib\nimport time\n\npathlib.Path('began').touch()\n"
    "while not pathlib.Path('go').exists():\n    time.sleep(0.05)\ndone = True\n",
}
MANIFEST = """
notebooks: {one: {outputs: [x]}, two: {outputs: [y]}, slow: {outputs: [done]}}
schedules:
  morning: {cron: "0 8 * * *", notebooks: [two], enabled: false}
"""
SERVED = """
{
  repositoriesOrError {
    ... on RepositoryConnection {
      nodes {
        assetNodes { assetKey { path } opVersion description }
        schedules { name cronSchedule }
      }
    }
  }
}
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }
"""
TICKS = """
query Ticks($selector: ScheduleSelector!) {
  scheduleOrError(scheduleSelector: $selector) {
    ... on Schedule { scheduleState { ticks { timestamp status } } }
  }
}
"""
SELECTOR = {"repositoryLocationName": "research_jobs", "repositoryName": "__repository__"}


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass
class Server:
    """A clone that services run from, and the author's clone that it pulls from."""

    project: Path
    author: Path
    environment: Mapping[str, str]
    url: str

    def publish(self, **files: str | None) -> str:
        """Commit and push notebooks (None deletes); ``manifest`` is the manifest."""
        for name, text in files.items():
            path = (
                self.author
                / "notebooks"
                / (f"{name}.py" if name != "manifest" else "manifest.yaml")
            )
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        return self.push()

    def push(self) -> str:
        git(self.author, "add", "--all")
        git(self.author, "commit", "-qm", "change")
        git(self.author, "push", "-q", "origin", "HEAD")
        return git(self.author, "rev-parse", "HEAD")

    def head(self) -> str:
        return git(self.project, "rev-parse", "HEAD")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, as an administrator calls it on the server."""
        return subprocess.run(
            [sys.executable, "-m", "research_jobs.cli.main", *words],
            cwd=self.project,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def deploy(self, *words: str, code: int = 0) -> Any:
        """What ``deploy --json`` says; the line on stderr where a step failed."""
        done = self.command("deploy", "--url", self.url, "--json", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr.splitlines()[-1]

    def served(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Notebook to what the webserver shows of it, and schedule to cron expression."""
        (repository,) = ask(self.url, SERVED)["repositoriesOrError"]["nodes"]
        assets = {"/".join(node["assetKey"]["path"]): node for node in repository["assetNodes"]}
        schedules = {one["name"]: one["cronSchedule"] for one in repository["schedules"]}
        assert schedules.pop(PRUNE_SCHEDULE)
        return assets, schedules


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, e2e: Any) -> Iterator[Server]:
    """Code server, webserver, daemon and host of deploy/ over a clone."""
    folder = tmp_path_factory.mktemp("deploy")
    author = e2e.write_project(folder / "author", NOTEBOOKS, MANIFEST)
    (author / ".gitignore").write_text(".research_jobs/\ndata/\nreports/\n/began\n/go\ndeploy/\n")
    git(folder, "init", "-q", "--bare", "origin.git")
    git(author, "init", "-q")
    git(author, "remote", "add", "origin", str(folder / "origin.git"))
    git(author, "add", "--all")
    git(author, "commit", "-qm", "first")
    git(author, "push", "-q", "-u", "origin", "HEAD")
    git(folder, "clone", "-q", "origin.git", "project")
    project, home = folder / "project", folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(default_config(home)))
    environment = e2e.environment(DAGSTER_HOME=str(home), RESEARCH_JOBS_PROJECT=str(project))
    code_port, port = str(e2e.free_port()), str(e2e.free_port())
    (project / "deploy").mkdir()
    workspace = (ROOT / "deploy" / "workspace.yaml").read_text(encoding="utf-8")
    (project / "deploy" / "workspace.yaml").write_text(
        workspace.replace("port: 4266", f"port: {code_port}"), encoding="utf-8"
    )
    ports = {"code": {"--port 4266": f"--port {code_port}"}}
    ports |= {"webserver": {"--port 3000": f"--port {port}"}}
    started = Server(project, author, environment, f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        for name in ("host", "code", "webserver", "daemon"):
            changes = {"/srv/research-jobs/.venv/bin/": f"{e2e.BIN}/", **ports.get(name, {})}
            command = e2e.unit_command(f"research-jobs-{name}.service", changes)
            log = folder / f"{name}.log"
            stack.enter_context(e2e.service(command, cwd=project, env=environment, log=log))
            if name == "code":
                e2e.wait_until("the code server", lambda: e2e.answers(int(code_port)))
        e2e.wait_until("the webserver", lambda: e2e.answers(int(port)))
        e2e.wait_until("the definitions", lambda: "one" in started.served()[0])
        yield started


def test_new_code_is_served(server: Server) -> None:
    """What was pulled is served when the command ends, and reported. Then nothing is new."""
    before = server.head()
    after = server.publish(
        added="# %%\na = 1\n",
        two="# %%\ny = 22\n",
        never=None,
        manifest=MANIFEST.replace("0 8 * * *", "30 9 * * *"),
    )
    plan = server.deploy("--pull", "--dry-run")
    assert plan["result"] == "would deploy"
    assert server.head() == before
    done = server.deploy("--pull")
    assert (done["result"], done["before"], done["after"]) == ("deployed", before, after)
    assert done["changes"] == plan["changes"]
    assert done["changes"]["added"] == ["added"]
    assert done["changes"]["removed"] == ["never"]
    assert done["changes"]["changed"] == ["two"]
    assert done["changes"]["schedules"] == {"morning": ["0 8 * * * (UTC)", "30 9 * * * (UTC)"]}
    assert done["notes"] == []
    assert server.head() == after
    notebooks, schedules = server.served()
    assert {"added", "never"} & notebooks.keys() == {"added"}
    assert schedules == {"morning": "30 9 * * *"}
    assert server.deploy("--pull")["result"] == "nothing new"
    assert "Nothing new" in server.command("deploy", "--url", server.url).stdout


def test_what_would_take_notebooks_down_is_refused(server: Server) -> None:
    """A notebook that ran and is broken now keeps the commit out; with --anyway it comes in."""
    assert server.command("run", "one").returncode == 0
    before, good = server.head(), server.served()
    server.publish(one="# %%\nx = (\n", fresh="# %%\nneither = (\n")
    for words in (("--pull",), ("--pull", "--dry-run")):
        refused = server.deploy(*words, code=1)
        assert refused["result"] == "refused"
        # The other has never run, so nothing is lost.
        assert [one["name"] for one in refused["refusals"]] == ["one"]
        assert "notebooks/one.py:2" in refused["refusals"][0]["reason"]
    assert server.head() == before
    assert git(server.project, "status", "--porcelain") == ""
    assert len(git(server.project, "worktree", "list").splitlines()) == 1
    assert server.served() == good
    done = server.deploy("--pull", "--anyway")
    assert (done["result"], len(done["refusals"])) == ("deployed", 1)
    assert "Cannot run" in server.served()[0]["one"]["description"]
    server.publish(one="# %%\nx = 1\n", fresh=None)
    assert server.deploy("--pull")["changes"]["changed"] == ["one"]


def test_a_tree_that_was_pulled_is_checked(server: Server) -> None:
    """Without --pull the working tree is checked: schedules that lose a notebook, the manifest."""
    manifest = (server.author / "notebooks" / "manifest.yaml").read_text()
    server.publish(two=None, manifest=manifest.replace("two: {outputs: [y]}, ", ""))
    git(server.project, "pull", "-q")
    (refusal,) = server.deploy(code=1)["refusals"]
    assert refusal["name"] == "morning"
    assert "there is no notebook 'two'" in refusal["reason"]
    server.publish(manifest="notebooks: [\n")
    git(server.project, "pull", "-q")
    (refusal,) = server.deploy(code=1)["refusals"]
    assert refusal["name"] == "notebooks/manifest.yaml"
    server.publish(two="# %%\ny = 22\n", manifest=manifest)
    git(server.project, "pull", "-q")
    server.deploy()
    assert server.served()[1] == {"morning": "30 9 * * *"}


def test_local_files_are_part_of_the_new_tree(server: Server) -> None:
    """Files that only the server has are served after a pull as before, and not called removed."""
    local = server.project / "notebooks" / "local.py"
    local.write_text("# %%\nonly_here = 1\n")
    try:
        server.deploy()
        server.publish(added="# %%\na = 2\n")
        assert server.deploy("--pull")["changes"]["removed"] == []
        assert "local" in server.served()[0]
    finally:
        local.unlink()
    assert server.deploy()["changes"]["removed"] == ["local"]


def test_a_run_goes_on(server: Server, e2e: Any) -> None:
    """A run that is active while new code is deployed ends as it would have."""
    params = {
        "selector": {**SELECTOR, "jobName": "__ASSET_JOB", "assetSelection": [{"path": ["slow"]}]},
        "runConfigData": {},
        "mode": "default",
    }
    run_id = ask(server.url, LAUNCH, params=params)["launchRun"]["run"]["runId"]

    def status() -> str:
        return str(ask(server.url, STATUS, id=run_id)["runOrError"]["status"])

    e2e.wait_until("the notebook", lambda: any(server.project.rglob("began")))
    server.publish(slow="# %%\ndone = 'new'\n")
    assert server.deploy("--pull")["changes"]["changed"] == ["slow"]
    assert status() == "STARTED"
    for folder in (server.project, server.project / "notebooks"):
        (folder / "go").touch()
    e2e.wait_until("the end", lambda: status() != "STARTED")
    assert status() == "SUCCESS"
    (server.project / "notebooks" / "go").unlink()


def test_no_tick_is_lost(server: Server, e2e: Any) -> None:
    """A schedule fires in the minute in which a deployment reloads its definition."""
    manifest = (server.author / "notebooks" / "manifest.yaml").read_text()
    often = '  often: {cron: "* * * * *", notebooks: [one]}\n'
    server.publish(manifest=manifest + often)
    server.deploy("--pull")

    def minutes() -> list[int]:
        found = ask(server.url, TICKS, selector={**SELECTOR, "scheduleName": "often"})
        ticks = found["scheduleOrError"]["scheduleState"]["ticks"]
        return sorted(int(tick["timestamp"]) // 60 for tick in ticks if tick["status"] == "SUCCESS")

    # The daemon looks for new schedules once a minute, and one begins with its next tick.
    first = e2e.wait_until("a tick", minutes, timeout=200)[0]
    server.publish(two="# %%\ny = 100\n")
    while time.time() % 60 < 57:
        time.sleep(0.2)
    server.deploy("--pull")
    e2e.wait_until("the next tick", lambda: minutes()[-1] > first, timeout=150)
    assert minutes()[1] == first + 1
    server.publish(manifest=manifest)
    assert "often" in server.deploy("--pull")["changes"]["schedules"]


def test_packages_are_not_installed_but_named(server: Server) -> None:
    """A commit that changes which packages there must be is served; a note names the file."""
    listed = server.author / "requirements.txt"
    listed.write_text("numpy\n")
    server.push()
    (note,) = server.deploy("--pull")["notes"]
    assert note.startswith("requirements.txt has changed")
    server.publish(two="# %%\ny = 5\n")
    assert server.deploy("--pull")["notes"] == []


def test_where_nobody_serves(server: Server, e2e: Any) -> None:
    """Without a webserver nothing is pulled; the line names the address."""
    before = server.head()
    server.publish(two="# %%\ny = 7\n")
    url = f"http://127.0.0.1:{e2e.free_port()}"
    done = server.command("deploy", "--pull", "--url", url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert url in done.stderr
    assert server.head() == before


def test_a_server_of_another_folder(server: Server, tmp_path: Path) -> None:
    """If the webserver does not come to serve the new tree, the working tree moves back."""
    git(tmp_path, "clone", "-q", str(server.author.parent / "origin.git"), "other")
    other = tmp_path / "other"
    environment = {**server.environment, "RESEARCH_JOBS_PROJECT": str(other)}
    elsewhere = Server(other, server.author, environment, server.url)
    before, good = elsewhere.head(), server.served()
    server.publish(two="# %%\ny = 8\n")
    line = elsewhere.deploy("--pull", code=2)
    assert "serves other notebooks than these" in line
    assert f"The working tree is back at {before[:10]}, and served as before." in line
    assert (elsewhere.head(), server.served()) == (before, good)


def test_a_branch_that_has_diverged(server: Server) -> None:
    """A branch with commits of its own is not moved."""
    (server.project / "notebooks" / "mine.py").write_text("# %%\nmine = 1\n")
    git(server.project, "add", "--all")
    git(server.project, "commit", "-qm", "mine")
    before = server.head()
    assert "has commits that its upstream branch lacks" in server.deploy("--pull", code=2)
    assert server.head() == before
