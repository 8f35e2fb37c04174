"""The gallery: what it lists, what it costs, what it keeps."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys

import pytest

from research_jobs.outcome import Failure
from research_jobs.report import gallery
from research_jobs.report.build import build_report
from research_jobs.report.gallery import (
    GalleryEntry,
    NotebookCard,
    list_notebooks,
    update_gallery,
)
from research_jobs.report.layout import RUNS, report_folder

START = 1717400000.0
CARD = NotebookCard("volatility/garch")


@pytest.fixture
def reports(tmp_path):
    return tmp_path / "reports"


@pytest.fixture
def ran(captures, header, show, reports):
    """Adds a run to the gallery."""

    def add(number=0, *, keep=30, chart=False, **changes):
        run = header(run_id=f"run{number}", started_at=START + number, **changes)
        shows = {1: show("image/png", "iVBORw0KGgo=")} if chart else {}
        capture = captures.write("# %%\nx = 1\n", shows)
        report = build_report(capture, run, report_folder(reports, run), reports=reports)
        card = NotebookCard(
            run.outcome.notebook, "About it", "risk", {"daily": ""}, ("ana",), (START,)
        )
        update_gallery(reports, GalleryEntry(card, run, report), keep=keep)
        return report

    return add


def listed(reports):
    """Notebooks by name, later lines over earlier ones (test_browser has what the page makes)."""
    lines = (reports / "gallery.js").read_text().splitlines()[1:]
    records = [json.loads(line.removeprefix("researchJobsNotebook(")[:-2]) for line in lines]
    return {record["name"]: record for record in records}


def runs(reports, notebook="volatility/garch"):
    lines = (reports / notebook / "runs.js").read_text().splitlines()
    return [json.loads(line.removeprefix("researchJobsRun(").removesuffix(");")) for line in lines]


def test_entry(ran, reports):
    """A notebook's entry has its last run, what it is about, and its chart."""
    report = ran(chart=True)
    entry = listed(reports)["volatility/garch"]
    assert entry["last"]["ending"] == "succeeded"
    assert (reports / entry["last"]["report"]) == report.html
    assert entry["thumbnail"].startswith("volatility/garch/thumbnail.png?")
    assert (entry["group"], entry["tags"], entry["owners"]) == ("risk", {"daily": ""}, ["ana"])
    assert entry["next"] == [START]
    assert (reports / "index.html").exists()
    assert (reports / "volatility" / "garch" / "index.html").exists()


def test_last_chart_stays(ran, reports):
    """A run without a chart does not take the last one away, nor does its report's removal."""
    ran(0, chart=True)
    ran(1, keep=1)
    list_notebooks(reports, [CARD, NotebookCard("new")])
    entry = listed(reports)["volatility/garch"]
    assert entry["last"]["started"] == START + 1
    assert (reports / entry["thumbnail"].split("?")[0]).exists()


def test_late_partition(ran, reports):
    """A run that began earlier does not hide the last one."""
    ran(5)
    ran(3)
    list_notebooks(reports, [CARD, NotebookCard("new")])
    assert listed(reports)["volatility/garch"]["last"]["started"] == START + 5
    assert len(runs(reports)) == 2


def test_pages_are_written_once(ran, reports):
    """Pages do not change from run to run: data do."""
    ran(0)
    before = (reports / "index.html").stat().st_mtime_ns
    ran(1)
    assert (reports / "index.html").stat().st_mtime_ns == before


def test_keeps_the_latest(ran, reports):
    """Of many runs the latest reports are kept, and only they are listed."""
    made = [ran(number, keep=3) for number in range(6)]
    assert [report.folder.exists() for report in made] == [False] * 3 + [True] * 3
    assert [run["id"] for run in runs(reports)] == [report.folder.name for report in made[3:]]


def test_keeps_each_partitions_last(ran, reports):
    """The last report of every partition stays, however many there are."""
    for number in range(6):
        ran(number, keep=1, partition=f"p{number % 3}")
    assert sorted(run["partition"] for run in runs(reports)) == ["p0", "p1", "p2"]
    assert {run["started"] for run in runs(reports)} == {START + 3, START + 4, START + 5}


def test_cost_does_not_grow(ran, reports, monkeypatch):
    """With thousands of partitions behind it, a run reads the list of runs rarely."""
    from research_jobs.report import gallery

    ran(0, partition="p0")
    path = reports / "volatility/garch/runs.js"
    line = json.loads(path.read_text().removeprefix("researchJobsRun(").removesuffix(");\n"))
    with path.open("a") as file:
        for number in range(1, 3000):
            run = line | {"partition": f"p{number}", "id": f"none{number}", "started": number}
            file.write(f"researchJobsRun({json.dumps(run)});\n")
    calls = []
    whole = gallery._retain
    monkeypatch.setattr(gallery, "_retain", lambda *args: calls.append(1) or whole(*args))
    for number in range(1, 12):
        ran(number, partition=f"q{number}")
    assert len(calls) == 1
    assert len(runs(reports)) == 3011


def test_list_is_appended_to(ran, reports, monkeypatch):
    """A run adds a line to the gallery's list, which is read and shortened when it has doubled."""
    from research_jobs.report import gallery

    monkeypatch.setattr(gallery, "_GROWTH", 0)
    list_notebooks(reports, [CARD, *(NotebookCard(f"n{number}") for number in range(20))])
    reads = []
    whole = gallery._read_gallery
    monkeypatch.setattr(gallery, "_read_gallery", lambda place: reads.append(1) or whole(place))
    sizes = []
    for number in range(30):
        ran(number)
        sizes.append(len((reports / "gallery.js").read_text().splitlines()))
    assert 1 < len(reads) < 10
    assert max(sizes) < 60
    assert len(listed(reports)) == 21
    assert listed(reports)["volatility/garch"]["last"]["started"] == START + 29


def test_torn_list_is_repaired(ran, reports):
    """A line that a power cut left half written would break the page: the next run removes it."""
    ran(0)
    with (reports / "gallery.js").open("a") as file:
        file.write('researchJobsNotebook({"name": "x"')
    ran(1)
    lines = (reports / "gallery.js").read_text().splitlines()
    assert all(line.endswith(");") for line in lines[1:])
    assert listed(reports)["volatility/garch"]["last"]["started"] == START + 1


def test_broken_lines_do_not_stop_it(ran, reports):
    """A line that a full disk cut off is dropped, and the rest goes on."""
    ran(0)
    with (reports / "volatility/garch/runs.js").open("a") as file:
        file.write('researchJobsRun({"id": "x')
        file.write("\n")
    (reports / "gallery.js").write_text("nonsense")
    ran(1)
    assert [run["started"] for run in runs(reports)] == [START, START + 1]
    assert listed(reports)["volatility/garch"]["last"]["started"] == START + 1


def test_all_notebooks_are_listed(ran, reports):
    """Notebooks that have not run are listed too; those that are gone are not."""
    ran(0)
    page = list_notebooks(reports, [NotebookCard("volatility/garch"), NotebookCard("new")])
    assert page == reports / "index.html"
    assert set(listed(reports)) == {"volatility/garch", "new"}
    assert listed(reports)["volatility/garch"]["last"] is not None
    assert listed(reports)["new"]["last"] is None
    list_notebooks(reports, [NotebookCard("new")])
    assert set(listed(reports)) == {"new"}


def test_several_processes_at_once(captures, reports):
    """Runs that end at the same time are all listed."""
    capture = captures.write("# %%\nx = 1\n")
    script = """
import sys
from pathlib import Path
from research_jobs.outcome import Outcome, State
from research_jobs.report import gallery
from research_jobs.report.build import build_report
from research_jobs.report.layout import RUNS, report_folder
from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery
from research_jobs.report.header import ReportHeader
reports, capture, worker = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for number in range(10):
    said = {"run_id": f"w{worker}n{number}", "started_at": number}
    run = ReportHeader(Outcome(State.SUCCEEDED, notebook=f"nb{worker}", **said))
    report = build_report(capture, run, report_folder(reports, run), reports=reports)
    update_gallery(reports, GalleryEntry(NotebookCard(run.outcome.notebook), run, report))
    run = ReportHeader(Outcome(State.SUCCEEDED, notebook="shared", **said))
    report = build_report(capture, run, report_folder(reports, run), reports=reports)
    update_gallery(reports, GalleryEntry(NotebookCard(run.outcome.notebook), run, report), keep=100)
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(reports), str(capture), str(number)])
        for number in range(4)
    ]
    assert [worker.wait(timeout=60) for worker in workers] == [0] * 4
    assert set(listed(reports)) == {"shared", *(f"nb{number}" for number in range(4))}
    assert len(runs(reports, "shared")) == 40


@pytest.mark.parametrize(
    ("prose", "shown"),
    [
        ("# Market data\n\nDaily closes of **two** indices.", "Daily closes of two indices."),
        ("## Only a heading", "Only a heading"),
        ("Keeps `perf_df`, not run_date_x.", "Keeps perf_df, not run_date_x."),
    ],
)
def test_a_card_says_what_the_notebook_is_about(reports, prose, shown):
    """A card shows the prose below the headings, as plain text, names with underscores whole."""
    list_notebooks(reports, [NotebookCard("nb", prose)])
    assert listed(reports)["nb"]["description"] == shown


def test_the_latest_is_what_began_last(ran, reports):
    """A run that is recorded late and began early goes first; one report always stays."""
    first, late = ran(5), ran(1, keep=1)
    assert not late.folder.exists()
    assert [run["id"] for run in runs(reports)] == [first.folder.name]
    last = ran(6, keep=0)
    assert [run["id"] for run in runs(reports)] == [last.folder.name]
    assert last.html.exists()


@pytest.mark.parametrize("name", ["../../other", "..", ".", "", "a/b", "/tmp/x"])
def test_retention_removes_reports_only(ran, reports, name):
    """A name in the list that leads elsewhere removes nothing, whoever wrote it."""
    ran(5)
    inside = reports / "volatility" / "garch" / RUNS / "a" / "b"
    inside.mkdir(parents=True)
    other = reports / "volatility" / "other"
    other.mkdir()
    path = reports / "volatility" / "garch" / "runs.js"
    forged = {"id": name, "started": 1.0, "partition": None}
    path.write_text(f"researchJobsRun({json.dumps(forged)});\n" + path.read_text())
    ran(6, keep=1)
    assert inside.exists()
    assert other.exists()
    assert (reports / "volatility" / "garch" / RUNS).exists()


def test_records_are_bounded(ran, reports):
    """However much a run or a notebook says, its line holds the beginning of it."""
    ran(1, ending="failed", failure=Failure("h" * 1000))
    assert runs(reports)[-1]["headline"] == "h" * 300
    ticks = tuple(START + n for n in range(200))
    list_notebooks(reports, [NotebookCard("n", "d" * 2000, next_ticks=ticks)])
    entry = listed(reports)["n"]
    assert entry["description"] == "d" * 500
    assert entry["next"] == list(ticks[:100])


def test_one_at_a_time(reports):
    """While one process changes the gallery, no other one does."""

    def take() -> None:
        with (reports / ".lock").open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with gallery._locked(reports), pytest.raises(BlockingIOError):
        take()
    take()
