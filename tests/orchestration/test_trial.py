"""`try` and `rerun`: runs that do not count, what they say, and that nothing else changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from research_jobs import load
from research_jobs.cli.main import main
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.prove import _newest
from research_jobs.orchestration.operations.publishing import MovedError, publish_tried
from research_jobs.orchestration.operations.sampling import sample_partitions
from research_jobs.orchestration.operations.trial import _written, open_trial
from research_jobs.orchestration.operations.trying import try_entries
from research_jobs.outcome import Outcome, State
from research_jobs.project import Project, find_project
from research_jobs.provenance.record import NAME, find_record
from research_jobs.store.view import READS

MANIFEST = """
notebooks:
  prices: {outputs: [table]}
  signal:
    outputs: [weights]
    partitions: {by: day, start: 2018-01-01, end: 2018-01-05, parameter: day}
  report: {after: [prices], outputs: [total, trying]}
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
    assert lab.materialize("prices", "report", "alone").success
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
    """With its code, parameters and inputs, although all of them have changed since.

    Neither a notebook that the manifest names and the run did not need, nor a module that would be
    found before Python's own or the run's, is in its way.
    """
    run = project.materialize("prices", "report", config={"prices": {"rows": 5}})
    path = project.root / "notebooks" / "report.py"
    path.write_text(path.read_text().replace("sum())", "sum()) * 7"))
    project.materialize("prices", config={"prices": {"rows": 8}})
    project.materialize("report")
    for name in ("decimal.py", "report/__init__.py"):
        shadow = project.root / "notebooks" / name
        shadow.parent.mkdir(exist_ok=True)
        shadow.write_text("raise ValueError('another')\n")
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


def test_what_is_published_and_damaged_stops_no_other(project: Any, capsys: Any) -> None:
    """What cannot be read of one notebook's outputs is said of it; the others are tried."""
    run = project.materialize("alone")
    (stored,) = project.root.glob(f"data/alone/.versions/*{run.run_id[:8]}/x.pq")
    for damage in (lambda: stored.write_bytes(b"PAR1"), stored.unlink):
        damage()
        status, said = asked(capsys, project, "try", "alone", "report")
        assert status == 1
        assert [(one["notebook"], one["ending"]) for one in said] == [
            ("alone", "succeeded"),
            ("report", "succeeded"),
        ]
        assert said[0]["published"]
        assert "x.pq" in said[0]["unreadable"]
        status, again = asked(capsys, project, "rerun", run.run_id)
        assert (status, again["equal"]) == (0, True)
        status, shown = asked(capsys, project, "show", "alone")
        assert (status, shown["outputs"][0]["rows"]) == (0, None)


def test_a_sample_needs_no_readable_input(project: Any) -> None:
    """Inputs that are damaged, or stored by other keys than now, do not keep from sampling."""
    for stored in project.root.glob("data/prices/.versions/*/table.pq"):
        stored.write_bytes(b"PAR1")
    (project.root / "notebooks" / "late.py").write_text(
        NOTEBOOKS["signal"].replace("load('prices')['close'].sum()", "load('signal')")
    )
    path = project.root / "notebooks" / "manifest.yaml"
    monthly = MANIFEST.replace(
        "by: day, start: 2018-01-01, end: 2018-01-05", "by: month, start: 2018-01-01"
    )
    late = MANIFEST.partition("  signal:")[2].partition("  report:")[0]
    path.write_text(f"{monthly}  late:{late}")
    catalog = load_catalog(project.project)
    assert len(sample_partitions(catalog, catalog.entries["late"], 2)) == 2
    assert _newest(catalog, catalog.entries["signal"]) is None  # nor does a backup rest on it
    path.write_text(MANIFEST)
    catalog = load_catalog(project.project)
    assert len(sample_partitions(catalog, catalog.entries["signal"], 2)) == 2
    newest = _newest(catalog, catalog.entries["signal"])
    assert newest is not None
    assert newest[0] == "2018-01-03"


def test_a_damaged_line_of_what_was_written_is_passed_over(tmp_path: Path) -> None:
    """The notebook's own process can write anything there."""
    (tmp_path / READS).write_text("[" * 100_000 + '\n{"written": "out.csv"}\n')
    assert _written(tmp_path / "capture", Project(tmp_path, "")) == ("out.csv",)


def test_a_partition_runs_again_as_itself(project: Any, capsys: Any) -> None:
    """The run of a partition is run again for that partition."""
    run = project.materialize("signal", partition="2018-01-04")
    status, said = asked(capsys, project, "rerun", run.run_id)
    assert (status, said["partition"], said["equal"]) == (0, "2018-01-04", True)


def test_what_was_tried_is_published(project: Any, capsys: Any) -> None:
    """`try --publish` publishes what it made, without a second run; history is as after one."""
    notebooks = project.root / "notebooks"
    path = notebooks / "prices.py"
    count = f"open({str(project.root / 'ran.txt')!r}, 'a').write('x')\n"
    path.write_text(path.read_text().replace("range(rows)", "range(1, rows + 1)") + count)
    status, said = asked(capsys, project, "try", "--publish")
    assert status == 0
    assert {one["notebook"] for one in said} == {"prices", "report", "signal"}
    assert (project.root / "ran.txt").read_text() == "x"
    runs = {one["run_id"] for one in said if one["notebook"] != "signal"}
    assert len(runs) == 1
    assert None not in runs
    assert load("report", project=project.root) == {"total": 6.0, "trying": True}
    assert load("signal", "weights", partition="2018-01-03", project=project.root) == 16

    # Dagster knows, and so does every record: nothing is stale, inputs are those of the store.
    _, planned = asked(capsys, project, "run", "--stale", "--dry-run")
    assert not {"prices", "report"} & {one["notebook"] for one in planned["plan"]}
    status, differs = asked(capsys, project, "diff", "report")
    assert (status, differs["after"]["run_id"]) == (1, *runs)
    (cause,) = differs["causes"]
    assert (cause["kind"], cause["what"]) == ("input", "prices.table got 1 row, lost 1 row")
    assert [below["kind"] for below in cause["because"]] == ["code"]
    assert Path(differs["after"]["report"]).is_file()
    found = find_record(project.root / "reports", "report", *runs)
    assert found is not None
    assert [(one.store, one.run_id) for one in found[1].loads] == [("", *runs)]
    assert list((project.root / ".research_jobs" / "trials").iterdir()) == []
    assert list((project.root / ".research_jobs" / "runs").iterdir()) == []


def test_what_moved_since_is_not_published(project: Any) -> None:
    """What changed meanwhile is named and stays; where a file is lost, so does the old output."""
    path = project.root / "notebooks" / "prices.py"
    source = path.read_text()
    path.write_text(source.replace("range(rows)", "range(1, rows + 1)"))
    real = load_catalog(find_project(project.root))
    entries = [real.entries[name] for name in ("prices", "report")]
    with open_trial(real, captures=True) as trial:
        verdicts = list(try_entries(trial, real, entries))
        alone = list(try_entries(trial, real, [real.entries["alone"]]))
        tried = path.read_text()
        path.write_text(source)
        project.materialize("prices", "alone")
        before = digests(project.root)
        with pytest.raises(MovedError) as moved:
            list(publish_tried(real.project, trial, verdicts + alone))
        assert digests(project.root) == before
        lines = (moved.value.details or "").splitlines()
        assert lines[0] == "- the code of prices"
        assert lines[1].startswith("- the outputs of prices were published by run ")
        assert lines[2].startswith("- the outputs of alone were published by run ")
        assert len(lines) == 3

        path.write_text(tried)
        verdicts = list(try_entries(trial, real, entries))
        verdicts[1].tried.files["total"].unlink()
        seen = [
            one for one in publish_tried(real.project, trial, verdicts) if isinstance(one, Outcome)
        ]
    assert [(one.notebook, one.state) for one in seen] == [
        ("prices", State.SUCCEEDED),
        ("report", State.BLOCKED),
    ]
    assert "what was tried cannot be read" in (seen[1].reason or "")
    assert load("prices", "table", project=project.root)["close"].tolist() == [1, 2, 3]
    assert load("report", "total", project=project.root) == 3.0
