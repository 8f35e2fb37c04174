"""The gallery: what it lists, what it costs, what it keeps."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest

from research_jobs.outcome import Failure
from research_jobs.report import gallery
from research_jobs.report.build import build_report
from research_jobs.report.gallery import (
    GalleryEntry,
    NotebookCard,
    prune_reports,
    update_gallery,
    write_page,
)
from research_jobs.report.layout import RUNS, report_folder
from research_jobs.report.morning import MorningPage, Row

START = 1717400000.0


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
        card = NotebookCard(run.outcome.notebook, "# It\n\nAbout *it*", "mornings", "/assets/it")
        update_gallery(reports, GalleryEntry(card, run, report), keep=keep)
        return report

    return add


def listed(reports):
    """The lines beside the morning page (test_morning has what the page makes of them)."""
    lines = (reports / "gallery.js").read_text().splitlines()
    return [json.loads(line.removeprefix("researchJobsRan(")[:-2]) for line in lines]


def page_at(unix):
    """A page that somebody wrote at a time."""
    return MorningPage(now=datetime.fromtimestamp(unix, timezone.utc), rows=(Row("new"),))


def runs(reports, notebook="volatility/garch"):
    lines = (reports / notebook / "runs.js").read_text().splitlines()
    return [json.loads(line.removeprefix("researchJobsRun(").removesuffix(");")) for line in lines]


def test_entry(ran, reports):
    """A run is listed with its report and its chart; its notebook's page says what it is about."""
    report = ran(chart=True)
    (line,) = listed(reports)
    assert (line["name"], line["ending"]) == ("volatility/garch", "succeeded")
    assert (reports / line["report"]) == report.html
    assert line["thumbnail"].startswith("volatility/garch/thumbnail.png?")
    page = (reports / "volatility" / "garch" / "index.html").read_text()
    assert "About it" in page
    assert "mornings" in page
    assert 'data-asset="/assets/it"' in page
    assert (reports / "index.html").exists()


def test_last_chart_stays(ran, reports):
    """A run without a chart does not take the last one away, nor does its report's removal."""
    ran(0, chart=True)
    ran(1, keep=1)
    assert (reports / "volatility" / "garch" / "thumbnail.png").exists()
    assert listed(reports)[-1]["thumbnail"] is None


def test_pages_are_written_once(ran, reports):
    """Pages do not change from run to run: data do."""
    ran(0)
    pages = [reports / "index.html", reports / "volatility" / "garch" / "index.html"]
    before = [page.stat().st_mtime_ns for page in pages]
    ran(1)
    assert [page.stat().st_mtime_ns for page in pages] == before


def test_the_page_takes_the_lines_that_it_holds(ran, reports):
    """A page that is written drops the runs that ended well before it, and no others."""
    ran(0)
    ran(5000)
    page = write_page(reports, page_at(START + 5000))
    assert page == reports / "index.html"
    assert [run["started"] for run in listed(reports)] == [START + 5000]
    assert ">new</a>" in page.read_text()
    ran(9000)
    assert len(listed(reports)) == 2
    write_page(reports, page_at(START + 90000))
    assert listed(reports) == []


def test_lines_of_an_earlier_version_are_dropped(ran, reports):
    """The list that an earlier version wrote goes when the page is written; runs stay."""
    reports.mkdir()
    (reports / "gallery.js").write_text('// 10\nresearchJobsNotebook({"name":"x"});\n')
    ran(5)
    write_page(reports, page_at(START))
    assert [run["started"] for run in listed(reports)] == [START + 5]


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


def test_list_is_cut(ran, reports, monkeypatch):
    """Where nobody writes the page, its list keeps each notebook's last run and stays short."""
    monkeypatch.setattr(gallery, "_LONGEST", 4000)
    ran(0, notebook="other")
    for number in range(1, 40):
        ran(number)
        assert (reports / "gallery.js").stat().st_size <= 4000
    last = {run["name"]: run["started"] for run in listed(reports)}
    assert last == {"other": START, "volatility/garch": START + 39}


def test_torn_list(ran, reports):
    """A line that a power cut left half would break the page: the next run removes it."""
    ran(0)
    with (reports / "gallery.js").open("a") as file:
        file.write('researchJobsRan({"name": "x"')
    ran(1)
    assert [run["started"] for run in listed(reports)] == [START, START + 1]


def test_broken_lines_do_not_stop_it(ran, reports):
    """A line that a full disk cut off is dropped, and the rest goes on."""
    ran(0)
    with (reports / "volatility/garch/runs.js").open("a") as file:
        file.write('researchJobsRun({"id": "x')
        file.write("\n")
        for other in ("[]", '{"id": "x"}', '{"id":1,"started":1,"duration":1,"partition":null}'):
            file.write(f"researchJobsRun({other});\n")
    ran(1)
    assert [run["started"] for run in runs(reports)] == [START, START + 1]


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
    assert len(listed(reports)) == 80
    assert len(runs(reports, "shared")) == 40


@pytest.mark.parametrize(
    ("prose", "shown"),
    [
        ("# Market data\n\nDaily closes of **two** indices.", "Daily closes of two indices."),
        ("## Only a heading", "Only a heading"),
        ("Keeps `perf_df`, not run_date_x.", "Keeps perf_df, not run_date_x."),
    ],
)
def test_a_page_says_what_the_notebook_is_about(prose, shown):
    """A page shows the prose below the headings, as plain text, names with underscores whole."""
    assert gallery.plain(prose) == shown


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
    """However much a run says, its line holds the beginning of it."""
    ran(1, ending="failed", failure=Failure("h" * 1000))
    assert runs(reports)[-1]["headline"] == "h" * 300


def test_one_at_a_time(reports):
    """While one process changes the gallery, no other one does."""

    def take() -> None:
        with (reports / ".lock").open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with gallery._locked(reports), pytest.raises(BlockingIOError):
        take()
    take()


def test_reports_are_pruned_at_night(ran, reports):
    """By a smaller `keep`, by the age of a partition's last one, and what no page leads to."""
    old = [ran(number, partition=f"p{number}") for number in range(4)]
    new = [ran(number + 1000) for number in range(6)]
    stray = old[0].folder.with_name("20240101T000000-abcdef01-00000000")
    stray.mkdir()
    options = {"keep": 2, "before": START + 2, "abandoned": START}
    planned = prune_reports(reports, **options, dry_run=True)
    assert [path for path, _ in planned] == [one.folder for one in (*old[:2], *new[:4])]
    assert all(one.html.exists() for one in (*old, *new))
    assert prune_reports(reports, **options) == planned
    assert min(size for _, size in planned) > 1000
    left = [*old[2:], *new[4:]]
    folders = sorted(path for path in old[0].folder.parent.iterdir() if path.is_dir())
    assert folders == sorted([stray, *(one.folder for one in left)])
    assert [run["id"] for run in runs(reports)] == [one.folder.name for one in left]
    options["abandoned"] = time.time() + 1
    assert [path for path, _ in prune_reports(reports, **options)] == [stray]
    assert prune_reports(reports, **options) == []
