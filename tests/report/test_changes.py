"""The page of what changed since the success before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research_jobs.report.build import build_report, standalone
from research_jobs.report.changes import read_pending
from research_jobs.report.gallery import GalleryEntry, NotebookCard, success_before, update_gallery
from research_jobs.report.layout import CHANGES, Report, report_folder


@pytest.fixture
def made(tmp_path: Path, header) -> Callable[..., Report]:
    """Makes a run's report, and its line in the gallery."""

    def make(**changes: Any) -> Report:
        head = header(**changes)
        report = build_report(None, head, report_folder(tmp_path, head), reports=tmp_path)
        update_gallery(tmp_path, GalleryEntry(NotebookCard(head.outcome.notebook), head, report))
        return report

    return make


def test_a_report_leads_to_the_success_before(made) -> None:
    """A report links to what changed since the last success of its partition, and no other."""
    first = made(run_id="a" * 8, partition="2018-11-01")
    made(run_id="b" * 8, partition="2018-11-01", ending="failed", started_at=1717500000.0)
    other = made(run_id="c" * 8, partition="2018-11-02", started_at=1717600000.0)
    last = made(run_id="d" * 8, partition="2018-11-01", started_at=1717700000.0)

    assert not first.changes
    assert not other.changes
    assert last.changes
    assert "Changes since Mon 3 Jun 2024, 09:33</a>" in last.html.read_text()
    pending = read_pending(last.folder / CHANGES)
    assert pending is not None
    assert pending.before == first.folder.name
    assert (
        "report volatility/garch --run dddddddd --partition 2018-11-01 --changes"
        in (last.folder / CHANGES).read_text()
    )
    assert "Changes since" not in standalone(last.html)


def test_the_success_before_is_found_behind_broken_lines(tmp_path: Path, made) -> None:
    """A line that a power cut left half is passed over."""
    report = made()
    with (tmp_path / "volatility/garch/runs.js").open("ab") as file:
        file.write(b'researchJobsRun({"partition":null,"end\n')
    found = success_before(tmp_path, "volatility/garch", None)
    assert found is not None
    assert found[0] == report.folder.name
    assert success_before(tmp_path, "volatility/garch", "2018") is None
    assert success_before(tmp_path, "none", None) is None
