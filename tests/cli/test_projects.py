"""Two projects on one Dagster instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

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

    def write(self, name: str, width: int, prefix: str) -> None:
        """A project whose `prices` has its name as value."""
        notebooks = self._folder / name / "notebooks"
        notebooks.mkdir(parents=True)
        (notebooks / "prices.py").write_text(f"# %%\nvalue = {name!r}\n")
        (notebooks / "heavy.py").write_text("# %%\n")
        (notebooks / "reader.py").write_text(
            '# %%\nfrom research_jobs import load\nvalue = load("prices", "value")\n'
        )
        (notebooks / "manifest.yaml").write_text(MANIFEST.format(width=width, prefix=prefix))

    def say(self, name: str, *words: str) -> Any:
        """What a command of that project prints as JSON."""
        done = subprocess.run(
            [Path(sys.executable).with_name("research-jobs"), *words, "--json"],
            env=os.environ
            | {
                "DAGSTER_HOME": str(self.home),
                "RESEARCH_JOBS_PROJECT": str(self._folder / name),
                "RESEARCH_JOBS_STORE": "",
            },
            capture_output=True,
            text=True,
            check=False,
        )
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
    assert before == {"prices": "never", "heavy": "never", "reader": "never"}
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
