"""What is built and configured at the top of the repository. `make test-wheel` builds for real."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

import research_jobs
from research_jobs.manifest.document import read_document

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_all_files_of_the_package_are_in_the_wheel() -> None:
    """Each folder with modules is a package, and each other file is package data."""
    done = subprocess.run(
        ["git", "ls-files", "research_jobs"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a checkout of Git")
    files = [path for path in map(Path, done.stdout.splitlines()) if (ROOT / path).exists()]
    assert len(files) > 300
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["research_jobs"]
    data = {path for pattern in patterns for path in (ROOT / "research_jobs").glob(pattern)}
    for path in files:
        if path.suffix == ".py":
            assert (ROOT / path.parent / "__init__.py").exists(), path
        else:
            assert ROOT / path in data, path


def test_the_changelog_has_this_version() -> None:
    """The version is the newest one that CHANGELOG.md has a date for; news come above it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert text.index("## [Unreleased]") < text.index(f"## [{released[0]}]")
    assert released[0] == research_jobs.__version__


def test_workflow_and_forms() -> None:
    """GitHub can read them, each step calls what there is, and each Python is a classifier."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    documents = {
        path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (ROOT / ".github").rglob("*.yml")
    }
    jobs = documents["test.yml"]["jobs"]
    for step in (step for job in jobs.values() for step in job["steps"]):
        command, *words = step.get("run", "true").split()
        if command == "make":
            assert f"\n{words[0]}:" in makefile, words[0]
        else:
            assert command == "true" or (ROOT / command).exists()
    pythons = jobs["everything"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    named = [one for one in PROJECT["project"]["classifiers"] if one.startswith(prefix)]
    assert [f"3.{one.removeprefix(prefix)}" for one in named] == pythons
    for form in ("bug.yml", "feature.yml"):
        assert all(part["type"] and part["attributes"] for part in documents[form]["body"])


@pytest.mark.parametrize(
    "path",
    [
        *ROOT.glob(".github/**/*.yml"),
        *ROOT.glob("deploy/**/*.yaml"),
        ROOT / ".pre-commit-hooks.yaml",
    ],
    ids=lambda path: path.name,
)
def test_no_key_is_written_twice(path: Path) -> None:
    """YAML that other programs read has no key twice: they would refuse it, or drop one."""
    defects = read_document(path, path.name).defects
    assert [defect.what for defect in defects if "duplicate" in defect.what] == []


def test_the_workflow_calls_targets_that_exist() -> None:
    """Every `make` and `.ci/run` of the workflow names a target of the Makefile."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    called = re.findall(r"(?:make|\.ci/run) ([a-z-]+)", "\n".join(steps))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"test-long", "test-dagster"} <= set(called) <= set(targets)
