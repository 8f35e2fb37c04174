"""What an earlier version left in the instance and in the reports' folder is still read.

``earlier/`` holds what the version before the record of outcomes wrote: the events of three runs
of the command, and two executed notebooks.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.runs.schema import RunsTable
from dagster_shared.serdes import deserialize_value

from research_jobs.orchestration.model.instance import enter_project, open_instance
from research_jobs.project import find_project

EARLIER = Path(__file__).with_name("earlier")
NOTEBOOKS = {
    "behind": "from research_jobs import load\nload('failing', 'x')\n",
    "daily": "day = None\n",
    **dict.fromkeys(("checked", "failing", "needs_value", "prices", "skips", "slow"), "x = 1\n"),
}
MANIFEST = """
notebooks:
  daily: {partitions: {by: day, start: 2024-01-01, end: 2024-01-08, parameter: day}}
"""


@pytest.fixture
def earlier(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose runs are those of an earlier version."""
    root = project
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, source in NOTEBOOKS.items():
        path = root / "notebooks" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        cell = '# %% tags=["parameters"]' if name == "daily" else "# %%"
        path.write_text(f"{cell}\n{source}")
    (root / "notebooks/manifest.yaml").write_text(MANIFEST)
    found = find_project(root)
    enter_project(found)
    with open_instance(found) as instance:
        for line in (EARLIER / "runs.jsonl").read_text().splitlines():
            record = json.loads(line)
            run = deserialize_value(json.dumps(record["run"]), dg.DagsterRun)
            instance.add_run(run)
            for event in record["events"]:
                entry = deserialize_value(json.dumps(event), dg.EventLogEntry)
                instance.store_event(entry)
        # A run is created before its events, not when this test adds it.
        with instance.run_storage.connect() as connection:
            connection.execute(RunsTable.update().values(create_timestamp=datetime(2026, 11, 1)))  # noqa: DTZ001 - as Dagster stores it
    for name in ("failing", "checked"):
        folder = found.reports / name / "_runs" / "20261127T183953-2631df3f"
        folder.mkdir(parents=True)
        (folder / "notebook.ipynb").write_bytes((EARLIER / f"{name}.ipynb").read_bytes())
    return root


def test_list_reads_runs_of_an_earlier_version(say: Any, earlier: Path) -> None:
    """Each ending has its state; what was called "not run" or "not started" is blocked."""
    listed = {line["notebook"]: line["last"] for line in say("list", "--json").json}
    listed = {name: last for name, last in listed.items() if name in NOTEBOOKS}
    assert {name: last["ending"] for name, last in listed.items()} == {
        "behind": "blocked",
        "checked": "refused",
        "daily": "failed",
        "failing": "failed",
        "needs_value": "blocked",
        "prices": "succeeded",
        "skips": "skipped",
        "slow": "timed_out",
    }
    assert listed["behind"]["blocked_by"] == ["failing"]
    assert listed["behind"]["error"] == "what it depends on failed: failing"
    assert "cell 2 \"Take one\": KeyError: 'Close'" in listed["failing"]["error"]
    assert listed["failing"]["duration_s"] == 0.15
    assert listed["skips"]["reason"] == "market closed"
    assert listed["slow"]["report"].endswith("/report.html")


def test_show_reads_runs_of_an_earlier_version(say: Any, earlier: Path) -> None:
    """Also a range of partitions, with the time of the whole step."""
    (past,) = say("show", "daily", "--json").json["runs"]
    assert (past["ending"], past["partition"]) == ("failed", "2024-01-01...2024-01-03")
    assert past["error"].startswith("daily: 1 of 3 partitions failed (2024-01-02).")
    assert past["duration_s"] > 0.5
    (past,) = say("show", "prices", "--json").json["runs"]
    assert past["duration_s"] == 0.174


@pytest.mark.parametrize(("notebook", "ending"), [("failing", "failed"), ("checked", "refused")])
def test_report_reads_notebooks_of_an_earlier_version(
    say: Any, earlier: Path, notebook: str, ending: str
) -> None:
    """The ending, the line that says why, and when it was."""
    (report,) = say("report", notebook, "--list", "--json").json
    assert report["ending"] == ending
    assert report["run_id"].startswith("2631df3f")
    assert report["error"]
    assert f"  {ending}  " in say("report", notebook, "--list").out
