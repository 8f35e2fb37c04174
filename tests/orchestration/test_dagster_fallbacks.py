"""Where a version of Dagster lacks a private name, Dagster's public way takes its place."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from research_jobs.orchestration import compat

FOLDER = Path(compat.__file__).parent
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "without_names.py"


def private_names(path: Path) -> Iterator[tuple[str, str]]:
    """The private names of Dagster that a module imports at run time, by module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            parts = (node.module or "").split(".")
            if parts[0].startswith("dagster") and any(part.startswith("_") for part in parts):
                yield from ((node.module or "", alias.name) for alias in node.names)


MODULES = {path.stem: sorted(private_names(path)) for path in sorted(FOLDER.glob("*.py"))}
MODULES = {name: names for name, names in MODULES.items() if names}
NAMES = [(module, name) for names in MODULES.values() for module, name in names]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a dependency and with partitions, and no pandas in it."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "first.py").write_text("# %%\nvalue = 1\n")
    (notebooks / "second.py").write_text(
        '# %%\nfrom research_jobs import load\n\nvalue = load("first", "value") + 1\n'
    )
    (notebooks / "days.py").write_text('# %% tags=["parameters"]\nday = "a"\n\n# %%\nkey = day\n')
    (notebooks / "manifest.yaml").write_text(
        "notebooks:\n"
        "  first: {outputs: [value]}\n"
        "  second: {outputs: [value]}\n"
        "  days: {outputs: [key], partitions: {values: [a, b], parameter: day}}\n"
        "schedules:\n"
        '  daily: {cron: "0 6 * * *", notebooks: [first]}\n'
    )
    return tmp_path


def run(
    project: Path, missing: Sequence[tuple[str, str]], *commands: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run commands where these names are missing."""
    calls = [[*command, "--project", str(project)] for command in commands]
    return subprocess.run(
        [sys.executable, PROGRAM, json.dumps(missing), json.dumps(calls)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def said_without(names: Sequence[tuple[str, str]], project: Path) -> list[str]:
    """What commands that have to succeed say about names that are missing."""
    done = run(
        project,
        names,
        ["run", "first", "second"],
        ["backfill", "days", "--all"],
        ["run", "first", "second", "--stale"],
        ["list"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for made in ("first/value", "second/value", "days/key/day=a/part-0", "days/key/day=b/part-0"):
        assert (project / "data" / f"{made}.parquet").exists(), done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if "With Dagster " in line]
    assert len(said) == len(set(said))
    return said


def test_a_project_runs_without_any_private_name(project: Path) -> None:
    """Notebooks run, backfill and are listed; what is slower is said once."""
    assert said_without(NAMES, project)


@pytest.mark.parametrize("module", MODULES)
def test_a_project_runs_without_the_names_of(module: str, project: Path) -> None:
    """The same where the names of one module are missing and all others are there."""
    # Nothing goes wrong or is pruned here, there is no Postgres that could go away, no server.
    unused = ("code_server", "daemon", "errors", "outages", "pruning", "run_files")
    assert said_without(MODULES[module], project) or module in unused


def test_all_names_are_there_in_the_version_that_is_installed() -> None:
    """Else: this version of Dagster takes the slower way, and only the log says so."""
    absent = []
    for module, name in NAMES:
        done = __import__(module, fromlist=[name])
        if not hasattr(done, name):
            absent.append(f"{module}.{name}")
    assert absent == []


def test_nothing_else_holds_a_private_name_of_dagster() -> None:
    """Private names are in compat/ alone, so that a new version of Dagster changes one folder."""
    package = FOLDER.parents[1]
    elsewhere = [
        f"{path.relative_to(package)}: {module}.{name}"
        for path in sorted(package.rglob("*.py"))
        if FOLDER not in path.parents
        for module, name in private_names(path)
    ]
    assert elsewhere == []
