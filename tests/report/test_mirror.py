"""Reports that machines exchange through a store: what comes, what stays, what goes."""

from __future__ import annotations

import fsspec
import pytest

from research_jobs.provenance.record import NAME, Record
from research_jobs.provenance.shelf import keep, kept
from research_jobs.report.build import build_report
from research_jobs.report.gallery import (
    GalleryEntry,
    NotebookCard,
    listed_runs,
    prune_reports,
    success_before,
    update_gallery,
)
from research_jobs.report.layout import report_folder
from research_jobs.report.mirror import Mirror
from research_jobs.report.stored import stored_reports
from research_jobs.store.objects import Objects, objects_of

START = 1717400000.0
GARCH = "volatility/garch"


@pytest.fixture
def machine(tmp_path):
    """Each machine's reports, and the place where they exchange them."""

    def mirror(name, keep=30, before=0.0):
        return Mirror(tmp_path / name / "reports", f"memory://{tmp_path.name}/r", keep, before)

    return mirror


@pytest.fixture
def ran(captures, header, show):
    """Makes a report of a run on a machine."""

    def add(mirror, number=0, *, chart=False, send=True, **changes):
        run = header(run_id=f"run{number}", started_at=START + number, **changes)
        shows = {1: show("image/png", "iVBORw0KGgo=")} if chart else {}
        capture = captures.write("# %%\nx = 1\n", shows)
        folder = report_folder(mirror.reports, run)
        report = build_report(capture, run, folder, reports=mirror.reports)
        digest = keep(mirror.reports, f"x = {number}".encode())
        record = Record(GARCH, run.outcome.run_id, files={"notebooks/it.py": digest})
        (folder / NAME).write_bytes(record.dump())
        card = NotebookCard(run.outcome.notebook)
        update_gallery(mirror.reports, GalleryEntry(card, run, report), keep=mirror.keep)
        if send:
            mirror.send(folder)
        return report, digest

    return add


def names(mirror):
    """The runs that a machine lists, in order."""
    return [run["id"].split("-")[1] for run in listed_runs(mirror.reports, GARCH)]


def test_what_one_machine_ran_the_other_reads(machine, ran):
    """Page, picture, sources and scripts come as they are, each run once and in its place."""
    one, two = machine("one"), machine("two")
    _, digest = ran(one, 1, chart=True)
    ran(two, 2)
    ran(one, 3, chart=True)
    ran(one, 0, send=False)  # as when the service was away
    assert {path.name.split("-")[1] for path in two.sync()} == {"run1", "run3"}
    assert two.sync() == []
    one.sync()
    two.sync()
    assert names(one) == names(two) == ["run0", "run1", "run2", "run3"]
    for report in stored_reports(two.reports, GARCH):
        assert report.html.is_file()
    (page,) = (report for report in stored_reports(two.reports, GARCH)
               if report.outcome.run_id == "run1")  # fmt: skip
    theirs = next(r for r in stored_reports(one.reports, GARCH) if r.outcome.run_id == "run1")
    assert page.html.read_bytes() == theirs.html.read_bytes()
    assert kept(two.reports, digest) == b"x = 1"
    assert success_before(two.reports, GARCH, None)[0].split("-")[1] == "run3"
    assert (two.reports / GARCH / "thumbnail.png").is_file()
    assert "run3" in (two.reports / "gallery.js").read_text()
    assets = {path.name for path in (one.reports / "assets").glob("[!.]*")}
    assert assets <= {path.name for path in (two.reports / "assets").iterdir()}
    assert not list(two.reports.rglob(".mirror-*"))


def test_a_new_machine_has_all_with_their_page(machine, ran):
    """It needs no run of its own to show the notebook's page."""
    one, new = machine("one"), machine("new")
    ran(one, 1)
    new.sync()
    assert names(new) == ["run1"]
    page = new.reports / GARCH / "index.html"
    assert page.read_bytes() == (one.reports / GARCH / "index.html").read_bytes()


def test_what_is_no_longer_kept(machine, ran):
    """It goes here and there, comes to nobody again, and the last of a partition stays."""
    one, two = machine("one", keep=2), machine("two", keep=2)
    ran(one, 0, partition="2018-11-01")
    for number in range(1, 6):
        ran((one, two)[number % 2], number, partition="2018-11-02")
    for mirror in (one, two):
        mirror.sync()
        assert names(mirror) == ["run0", "run4", "run5"]
    assert len(list(one.prune(dry_run=True))) == 3
    assert len(list(one.prune())) == 3
    assert all(size > 1000 for size in machine("one", keep=1).prune(dry_run=True))
    assert [mirror.sync() for mirror in (one, two, one)] == [[], [], []]
    late = machine("two", keep=1, before=START + 3)
    assert len(list(late.prune())) == 2
    prune_reports(late.reports, keep=1, before=START + 3, abandoned=0.0)
    assert (late.sync(), names(late)) == ([], ["run5"])


def test_a_damaged_one_does_not_stop_the_others(machine, ran, tmp_path):
    """It is named, and leaves nothing."""
    one, two = machine("one"), machine("two")
    for number in range(4):
        ran(one, number)
    objects = objects_of(one.url)
    paths = [path for path in objects.find(objects.root) if path.endswith(".tgz")]
    system = fsspec.core.url_to_fs(one.url)[0]
    system.pipe_file(paths[0], system.cat_file(paths[0])[:500])
    system.pipe_file(paths[1], system.cat_file(paths[3]))
    whole = system.cat_file(paths[2])
    middle = len(whole) // 2
    system.pipe_file(paths[2], whole[:middle] + b"?" + whole[middle + 1 :])
    system.pipe_file(f"{paths[3].rpartition('/')[0]}/99999999T999999-run4~.tgz", b"")
    lines = []
    two.sync(lines.append)
    assert names(two) == ["run3"]
    assert len(lines) == 3
    assert all("is damaged" in line for line in lines)
    assert not list(two.reports.rglob(".mirror-*"))


def test_a_name_that_leads_elsewhere_is_passed_over(machine, ran, tmp_path, monkeypatch):
    """Nothing is written outside of the reports, whatever an object is called."""
    one, two = machine("one"), machine("two")
    ran(one)
    objects = objects_of(one.url)
    (path,) = [path for path in objects.find(objects.root) if path.endswith(".tgz")]
    away = path.replace(GARCH, "../../away")
    monkeypatch.setattr(Objects, "find", lambda *_: {away: {}})
    assert two.sync() == []
    assert not (tmp_path / "away").exists()
