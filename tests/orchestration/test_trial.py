"""`try` and `rerun`: runs that do not count, what they say, and that nothing else changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.main import main
from research_jobs.provenance.record import NAME

MANIFEST = """
notebooks:
  prices: {outputs: [table]}
  signal:
    outputs: [weights]
    partitions: {by: day, start: 2018-01-01, end: 2018-01-05, parameter: day}
  report: {outputs: [total, trying]}
  alone: {outputs: [x]}
"""
NOTEBOOKS = {
    "prices": (
        '# %% tags=["parameters"]\nrows = 3\n'
        "# %%\nimport pandas as pd\ntable = pd.DataFrame({'close': range(rows)})\n"
    ),
    "signal": (
        '# %% tags=["parameters"]\nday = "2018-01-01"\n'
        "# %%\nfrom research_jobs import load\nweights = load('prices')['close'].sum() + len(day)\n"
    ),
    "report": (
        "# %%\nfrom research_jobs import context, load\n"
        "total = float(load('prices')['close'].sum())\ntrying = context().trying\n"
    ),
    "alone": "# %%\nx = 1\n",
}


def digests(root: Path) -> dict[str, str]:
    """Everything that counts: the store, the history, the reports, with every byte."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if inside.parts[0] in ("data", "reports") or inside.parts[:2] == (
            ".research_jobs",
            "dagster",
        ):
            if path.is_symlink():
                found[str(inside)] = str(path.readlink())
            elif path.is_file():
                found[str(inside)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def project(lab: Any) -> Any:
    lab.write(NOTEBOOKS, MANIFEST)
    for name in ("prices", "report", "alone"):
        assert lab.materialize(name).success
    for day in ("2018-01-02", "2018-01-03"):
        assert lab.materialize("signal", partition=day).success
    return lab


def asked(capsys: pytest.CaptureFixture[str], lab: Any, *words: str) -> tuple[int, Any]:
    """A command's exit code and what it prints as JSON."""
    status = main([*words, "--json", "--project", str(lab.root)])
    return status, json.loads(capsys.readouterr().out)


def test_what_differs_is_tried_with_all_that_reads_it(project: Any, capsys: Any) -> None:
    """The notebook whose code changed and those downstream, and nothing that counts changes."""
    path = project.root / "notebooks" / "prices.py"
    path.write_text(path.read_text().replace("range(rows)", "range(1, rows + 1)"))
    before = digests(project.root)
    status, said = asked(capsys, project, "try")
    assert digests(project.root) == before
    assert status == 1
    by_name = {one["notebook"]: one for one in said}
    assert said[0]["notebook"] == "prices"
    assert set(by_name) == {"prices", "report", "signal"}
    assert all(one["ending"] == "succeeded" for one in said)
    assert by_name["signal"]["partition"] == "2018-01-03"
    assert by_name["prices"]["outputs"]["table"]["rows_added"] == 1
    assert [cause["kind"] for cause in by_name["prices"]["causes"]] == ["code"]
    assert {cause["kind"] for cause in by_name["report"]["causes"]} == {"input"}
    assert not by_name["report"]["outputs"]["trying"]["equal"]  # context().trying
    assert list((project.root / ".research_jobs" / "trials").iterdir()) == []


def test_what_is_published_is_not_tried_again(project: Any, capsys: Any) -> None:
    """Without a change there is nothing to try; one that is named and the same is equal."""
    path = project.root / "notebooks" / "alone.py"
    path.write_text(path.read_text() + "# a comment\n")
    assert asked(capsys, project, "try") == (0, [])
    status, (said,) = asked(capsys, project, "try", "alone")
    assert (status, said["equal"], said["causes"]) == (0, True, [])


def test_a_failure_holds_back_what_reads_it(project: Any, capsys: Any) -> None:
    """The notebook that fails says why, those downstream that they were not run."""
    (project.root / "notebooks" / "prices.py").write_text("# %%\n1 / 0\n")
    status, said = asked(capsys, project, "try", "prices")
    assert status == 1
    endings = {one["notebook"]: one["ending"] for one in said}
    assert endings == {"prices": "failed", "report": "blocked", "signal": "blocked"}
    assert "ZeroDivisionError" in said[0]["error"]


def test_writing_past_outputs_is_said(project: Any, capsys: Any) -> None:
    """A file that the notebook writes itself is named: a trial does not hold it back."""
    target = project.root / "side.csv"
    (project.root / "notebooks" / "alone.py").write_text(
        f"# %%\nimport pandas as pd\npd.DataFrame().to_csv({str(target)!r})\nx = 1\n"
    )
    status, (said,) = asked(capsys, project, "try", "alone")
    assert (status, said["written"]) == (0, ["side.csv"])


def test_a_past_run_makes_the_same_again(project: Any, capsys: Any) -> None:
    """With its code, parameters and inputs, although all of them have changed since."""
    run = project.materialize("prices", "report", config={"prices": {"rows": 5}})
    path = project.root / "notebooks" / "report.py"
    path.write_text(path.read_text().replace("sum())", "sum()) * 7"))
    project.materialize("prices", config={"prices": {"rows": 8}})
    project.materialize("report")
    before = digests(project.root)
    status, said = asked(capsys, project, "rerun", run.run_id, "prices")
    assert (status, said["equal"], said["differs"]) == (0, True, [])
    assert said["outputs"]["table"]["rows_after"] == 5
    status, said = asked(capsys, project, "rerun", run.run_id[:8], "report")
    assert said["outputs"]["total"]["equal"]
    assert said["differs"] == ["trying changed: False → True"]
    assert said["not_restored"] == []
    assert digests(project.root) == before


def test_what_cannot_be_restored_is_named(project: Any, capsys: Any) -> None:
    """A version that is gone, and a run that no record tells of."""
    run = project.materialize("report")
    record = json.loads(
        next(project.project.reports.glob(f"report/_runs/*{run.run_id[:8]}*/{NAME}")).read_bytes()
    )
    version = record["loads"][0]["version"]
    folder = project.root / "data" / "prices" / ".versions"
    project.materialize("prices", config={"prices": {"rows": 9}})
    for file in (folder / version).iterdir():
        file.unlink()
    (folder / version).rmdir()
    status, said = asked(capsys, project, "rerun", run.run_id)
    assert status == 1
    assert said["not_restored"] == [
        f"prices.table: version {version} is no longer stored",
        *said["not_restored"][1:],
    ]
    assert any(line.startswith("total changed") for line in said["differs"])
    assert main(["rerun", "no-such-run", "--project", str(project.root)]) == 2
    assert "no run 'no-such-run'" in capsys.readouterr().err


def test_a_partition_runs_again_as_itself(project: Any, capsys: Any) -> None:
    """The run of a partition is run again for that partition."""
    run = project.materialize("signal", partition="2018-01-04")
    status, said = asked(capsys, project, "rerun", run.run_id)
    assert (status, said["partition"], said["equal"]) == (0, "2018-01-04", True)
