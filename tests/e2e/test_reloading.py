"""A running UI follows the project's files without a click."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from research_jobs.orchestration.model.names import PRUNE_SCHEDULE
from research_jobs.orchestration.operations.served import ask

pytestmark = pytest.mark.timeout(240)

NOTEBOOKS = {
    "first.py": "# %%\nfrom tools import steps\n\nx = steps.one()\n",
    "slow.py": "# %%\nimport pathlib\nimport time\n\nwhile not pathlib.Path('go').exists():\n"
    "    time.sleep(0.05)\ndone = True\n",
}
MANIFEST = """
defaults: {sys_path: [.]}
notebooks: {first: {outputs: [x]}, slow: {outputs: [done]}}
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


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, e2e: Any) -> Iterator[Any]:
    """A UI over a project whose helpers are a package in its root, under Git."""
    folder = tmp_path_factory.mktemp("reloading")
    project = e2e.write_project(folder / "project", NOTEBOOKS, MANIFEST)
    (project / "tools").mkdir()
    (project / "tools" / "steps.py").write_text("def one():\n    return 1\n")
    git(project, "init", "-q")
    commit(project)
    with e2e.running_ui(project, folder) as running:
        yield running


def git(project: Path, *words: str) -> None:
    command = ["git", "-c", "user.name=Tester", "-c", "user.email=tester@localhost", *words]
    subprocess.run(command, cwd=project, check=True, capture_output=True)


def commit(project: Path) -> None:
    git(project, "add", "notebooks", "tools")
    git(project, "commit", "-qm", "now")


def served(ui: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Notebook to what the UI shows of it, and schedule to cron expression."""
    (repository,) = ask(ui.url, SERVED)["repositoriesOrError"]["nodes"]
    assets = {"/".join(node["assetKey"]["path"]): node for node in repository["assetNodes"]}
    schedules = {one["name"]: one["cronSchedule"] for one in repository["schedules"]}
    assert schedules.pop(PRUNE_SCHEDULE)
    return assets, schedules


def reloads(ui: Any) -> list[str]:
    """What the command has said about that."""
    lines = ui.log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith(("Reloaded", "Not reloaded"))]


def test_notebooks_come_and_go(ui: Any, e2e: Any) -> None:
    """A new notebook is in the UI and the gallery, and out of the UI once its file is deleted."""
    folder = ui.project / "notebooks" / "new"
    folder.mkdir()
    (folder / "arrival.py").write_text("# %%\ny = 2\n")
    e2e.wait_until("the new notebook", lambda: "new/arrival" in served(ui)[0])
    e2e.wait_until("a line", lambda: reloads(ui)[-1:] == ["Reloaded: 1 notebook added"])
    gallery = ui.project / "reports" / "index.html"
    e2e.wait_until("the gallery", lambda: "new/arrival" in gallery.read_text())
    (folder / "arrival.py").unlink()
    e2e.wait_until("the deletion", lambda: "new/arrival" not in served(ui)[0])
    e2e.wait_until("a line", lambda: reloads(ui)[-1:] == ["Reloaded: 1 notebook removed"])


def test_only_what_changes_definitions_reloads(ui: Any, e2e: Any) -> None:
    """A helper outside notebooks/ changes its notebook's version; a comment reloads nothing."""
    before = len(reloads(ui))
    version = served(ui)[0]["first"]["opVersion"]
    (ui.project / "notebooks" / "first.py").write_text(f"{NOTEBOOKS['first.py']}# a comment\n")
    (ui.project / "notebooks" / ".first.py.swp").write_text("an editor's")
    (ui.project / "tools" / "steps.py").write_text("def one():\n    return 11\n")
    e2e.wait_until("the version", lambda: served(ui)[0]["first"]["opVersion"] != version)
    e2e.wait_until("a line", lambda: reloads(ui)[before:])
    assert reloads(ui)[before:] == ["Reloaded: 1 notebook changed"]


def test_a_manifest_that_breaks_ends_nothing(ui: Any, e2e: Any) -> None:
    """The UI shows what is wrong with a broken manifest, and the schedule of the mended one."""
    manifest = ui.project / "notebooks" / "manifest.yaml"
    good = manifest.read_text()
    manifest.write_text("notebooks: {first: [\n")

    def says_why() -> bool:
        return "Cannot run" in (served(ui)[0]["first"]["description"] or "")

    e2e.wait_until("the mistake", says_why)
    manifest.write_text(
        f'{good}schedules: {{often: {{cron: "5 8 * * *", notebooks: [first], enabled: false}}}}\n'
    )
    e2e.wait_until("the schedule", lambda: served(ui)[1] == {"often": "5 8 * * *"})
    assert not says_why()
    assert ui.process.poll() is None


def test_a_checkout_reloads_once(ui: Any, e2e: Any) -> None:
    """A hundred files that Git writes at once are one reload."""
    commit(ui.project)
    git(ui.project, "checkout", "-qb", "many")
    for number in range(100):
        (ui.project / "notebooks" / f"n{number}.py").write_text(f"# %%\nn = {number}\n")
    e2e.wait_until("the notebooks", lambda: "n99" in served(ui)[0])
    commit(ui.project)
    git(ui.project, "checkout", "-q", "-")
    e2e.wait_until("their end", lambda: "n99" not in served(ui)[0])
    before = len(reloads(ui))
    git(ui.project, "checkout", "-q", "many")
    e2e.wait_until("the notebooks", lambda: reloads(ui)[before:])
    assert reloads(ui)[before:] == ["Reloaded: 100 notebooks added"]
    assert "n0" in served(ui)[0]


def test_a_run_goes_on(ui: Any, e2e: Any) -> None:
    """A run that began before a reload succeeds after it."""
    params = {
        "selector": {
            "repositoryLocationName": "research_jobs",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": ["slow"]}],
        },
        "runConfigData": {},
        "mode": "default",
    }
    run_id = ask(ui.url, LAUNCH, params=params)["launchRun"]["run"]["runId"]

    def status() -> str:
        return str(ask(ui.url, STATUS, id=run_id)["runOrError"]["status"])

    e2e.wait_until("the run", lambda: status() == "STARTED")
    (ui.project / "notebooks" / "later.py").write_text("# %%\nz = 1\n")
    e2e.wait_until("the reload", lambda: "later" in served(ui)[0])
    assert status() == "STARTED"
    for folder in (ui.project, ui.project / "notebooks"):
        (folder / "go").touch()
    e2e.wait_until("the end", lambda: status() not in ("STARTED", "STARTING"))
    assert status() == "SUCCESS"
