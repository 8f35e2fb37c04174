"""Two projects on one Dagster instance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from research_jobs.cli.main import main
from research_jobs.orchestration.definitions.factory import catalog_defs
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.launch import Launcher
from research_jobs.orchestration.operations.plan import Batch
from research_jobs.outcome import Outcome, State
from research_jobs.project import find_project

MANIFEST = """
prefix: {prefix}
defaults: {{concurrency: {width}}}
notebooks:
  prices: {{outputs: [value]}}
  heavy: {{pool: memory}}
  reader: {{deps: [prices], outputs: [value]}}
"""


class TwoProjects:
    """Two projects with notebooks of the same names, and one DAGSTER_HOME."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    def write(self, name: str, width: int, prefix: str = "") -> None:
        """A project whose `prices` has its name as value."""
        notebooks = self._folder / name / "notebooks"
        notebooks.mkdir(parents=True)
        (notebooks / "prices.py").write_text(f"# %%\nvalue = {name!r}\n")
        (notebooks / "heavy.py").write_text("# %%\n")
        (notebooks / "reader.py").write_text(
            '# %%\nfrom research_jobs import load\nvalue = load("prices", "value")\n'
        )
        (notebooks / "manifest.yaml").write_text(MANIFEST.format(width=width, prefix=prefix))

    def call(self, name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of that project."""
        return subprocess.run(
            [Path(sys.executable).with_name("research-jobs"), *words],
            env=os.environ
            | {
                "DAGSTER_HOME": str(self.home),
                "RESEARCH_JOBS_PROJECT": str(self._folder / name),
                "RESEARCH_JOBS_STORE": "",
            }
            | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def say(self, name: str, *words: str) -> Any:
        """What a command of that project prints as JSON."""
        done = self.call(name, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def two(tmp_path: Path) -> TwoProjects:
    """One and another, with a prefix each."""
    made = TwoProjects(tmp_path)
    made.write("one", 3, "first")
    made.write("another", 5, "second")
    return made


def test_a_prefix_keeps_projects_apart(two: TwoProjects) -> None:
    """Neither history, keys, nor the width of a pool is shared; each reads its own outputs."""
    ran = two.say("one", "run", "prices", "heavy", "reader")
    assert [outcome["ending"] for outcome in ran] == ["succeeded"] * 3
    assert {outcome["notebook"] for outcome in ran} == {"prices", "heavy", "reader"}
    assert two.say("another", "show", "prices")["runs"] == []
    before = {line["notebook"]: line["last"]["ending"] for line in two.say("another", "list")}
    assert before == dict.fromkeys(("prices", "heavy", "reader"), "never_run")
    two.say("another", "run", "--all")
    after = {line["notebook"]: line["last"]["ending"] for line in two.say("one", "list")}
    assert set(after.values()) == {"succeeded"}
    assert len(two.say("one", "show", "prices")["runs"]) == 1
    assert two.say("one", "show", "reader", "value")["head"] == "one"
    with dg.DagsterInstance.from_config(str(two.home)) as instance:
        assert {key.to_user_string() for key in instance.get_asset_keys()} == {
            f"{prefix}/{name}"
            for prefix in ("first", "second")
            for name in ("prices", "heavy", "reader")
        }
        pools = instance.event_log_storage.get_pool_limits()
        assert {pool.name: pool.limit for pool in pools} == {
            "first_notebooks": 3,
            "second_notebooks": 5,
        }


@pytest.fixture
def sharing(tmp_path: Path) -> TwoProjects:
    """One and another without a prefix; one has run."""
    made = TwoProjects(tmp_path)
    made.write("one", 3)
    made.write("another", 5)
    notebooks = tmp_path / "another" / "notebooks"
    (notebooks / "daily.py").write_text('# %% tags=["parameters"]\nday: str = "2024-01-01"\n')
    with (notebooks / "manifest.yaml").open("a") as manifest:
        manifest.write("  daily: {partitions: {by: day, start: 2024-01-01, parameter: day}}\n")
    made.say("one", "run", "prices")
    return made


def limits(two: TwoProjects) -> dict[str, int]:
    """The pools of the shared instance."""
    with dg.DagsterInstance.from_config(str(two.home)) as instance:
        return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def test_a_second_project_without_a_prefix_is_refused(
    sharing: TwoProjects,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs nothing and sets no pool; the line names the other project and the way out."""
    monkeypatch.setenv("DAGSTER_HOME", str(sharing.home))
    there = ("--project", str(tmp_path / "another"))
    for words in (
        ("run", "prices"),
        ("run", "--all"),
        ("run", "--stale"),
        ("backfill", "daily", "--all"),
    ):
        assert main([*words, *there]) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert f"like {tmp_path / 'one'} on the same Dagster instance" in line
        assert "`prefix: another`" in line
    assert not (tmp_path / "another" / "data").exists()
    assert limits(sharing) == {"notebooks": 3}
    # What only looks is not refused, and claims nothing.
    for words in (("list",), ("show", "prices"), ("backfill", "daily", "--all", "--dry-run")):
        assert main([*words, *there]) == 0, words
    assert sharing.say("one", "run", "prices")[0]["ending"] == "succeeded"
    manifest = tmp_path / "another" / "notebooks" / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("prefix:", "prefix: another"))
    assert sharing.say("another", "run", "prices")[0]["ending"] == "succeeded"


def test_two_projects_with_one_prefix_are_refused(two: TwoProjects, tmp_path: Path) -> None:
    """A prefix that another project has is no better than none."""
    two.say("one", "run", "prices")
    manifest = tmp_path / "another" / "notebooks" / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("second", "first"))
    refused = two.call("another", "run", "prices")
    assert refused.returncode == 2
    assert f"has the prefix 'first', like {tmp_path / 'one'} on" in refused.stderr


def test_a_run_of_the_code_location_is_refused(sharing: TwoProjects, tmp_path: Path) -> None:
    """Without our commands, each step fails with the line, and the pool keeps its width."""
    catalog = load_catalog(find_project(tmp_path / "another"))
    keys = tuple(catalog.names.key(name) for name in ("prices", "heavy"))
    with dg.DagsterInstance.from_config(str(sharing.home)) as instance:
        launcher = Launcher(instance, catalog, catalog_defs(catalog))
        outcomes = [seen for seen in launcher.run(Batch(keys)) if isinstance(seen, Outcome)]
    assert [outcome.state for outcome in outcomes] == [State.BLOCKED] * 2
    assert all(f"like {tmp_path / 'one'} on" in str(outcome.reason) for outcome in outcomes)
    assert limits(sharing) == {"notebooks": 3}


@pytest.mark.parametrize("gone", ["moved", "emptied", "one store"])
def test_a_claim_is_handed_over(sharing: TwoProjects, tmp_path: Path, gone: str) -> None:
    """A project that moved, one whose folder was given up, and one that shares its store."""
    store = {}
    if gone == "moved":
        (tmp_path / "one").rename(tmp_path / "elsewhere")
    elif gone == "emptied":
        (tmp_path / "one" / "notebooks").rename(tmp_path / "one" / "old")
    else:
        store = {"RESEARCH_JOBS_STORE": str(tmp_path / "one" / "data")}
    ran = sharing.call("another", "run", "prices", **store)
    assert ran.returncode == 0, ran.stderr
    assert limits(sharing) == {"notebooks": 5}


def test_a_copied_project_has_its_own_instance(tmp_path: Path) -> None:
    """The copy of an embedded instance is the copy's, whatever it remembers."""
    made = TwoProjects(tmp_path)
    made.write("one", 3)
    made.call("one", "run", "prices", DAGSTER_HOME="")
    shutil.copytree(tmp_path / "one", tmp_path / "copy", symlinks=True)
    for name in ("copy", "one"):
        ran = made.call(name, "run", "prices", DAGSTER_HOME="")
        assert ran.returncode == 0, ran.stderr
