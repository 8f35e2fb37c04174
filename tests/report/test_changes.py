"""The page of what changed since the success before."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from research_jobs.comparison.changes import (
    CellChange,
    ColumnChange,
    Comparison,
    OutputChange,
    RowChange,
    TableChange,
    ValueChange,
    ValuesChange,
)
from research_jobs.comparison.shown import compare_shown
from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import Outcome, State
from research_jobs.project import Project
from research_jobs.provenance.causes import Cause
from research_jobs.report.build import build_report, standalone
from research_jobs.report.changes import render_changes
from research_jobs.report.comparing import Compared, KeptRun
from research_jobs.report.gallery import GalleryEntry, NotebookCard, success_before, update_gallery
from research_jobs.report.layout import CHANGES, Report, report_folder
from research_jobs.report.limits import Limits
from research_jobs.report.making import make_changes
from research_jobs.report.pending import read_pending
from research_jobs.report.stored import StoredReport


@pytest.fixture
def made(tmp_path: Path, header) -> Callable[..., Report]:
    """Makes a run's report, and its line in the gallery."""

    def make(**changes: Any) -> Report:
        head = header(**changes)
        reports = tmp_path / "reports"
        report = build_report(None, head, report_folder(reports, head), reports=reports)
        update_gallery(reports, GalleryEntry(NotebookCard(head.outcome.notebook), head, report))
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
    with (tmp_path / "reports/volatility/garch/runs.js").open("ab") as file:
        file.write(b'researchJobsRun({"partition":null,"end\n')
    found = success_before(tmp_path / "reports", "volatility/garch", None)
    assert found is not None
    assert found[0] == report.folder.name
    assert success_before(tmp_path / "reports", "volatility/garch", "2018") is None
    assert success_before(tmp_path / "reports", "none", None) is None


def executed(*outputs: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook of one cell."""
    bundles = [{"output_type": "display_data", "data": data, "metadata": {}} for data in outputs]
    return {"cells": [{"cell_type": "code", "source": "x", "metadata": {}, "outputs": bundles}]}


def compared(before: Any, after: Any, **changes: Any) -> Compared:
    """Two runs that show something else."""
    runs = [
        KeptRun(
            side * 8,
            datetime(2018, 11, 1, 6, tzinfo=UTC),
            None,
            StoredReport(Path("report.html"), Outcome(State.SUCCEEDED, notebook="n")),
        )
        for side in "ab"
    ]
    given = {"outputs": None, "causes": (), "notes": ()} | changes
    shown = compare_shown(before, after)
    return Compared("n", None, *runs, shown=shown, executed=(before, after), **given)


def test_pictures_side_by_side() -> None:
    """A page has the pictures that differ, and nothing that a notebook showed can act in it."""
    drawing = '<svg xmlns="x"><script>alert(1)</script></svg>'
    same, chart = {"image/png": "U0FNRQ=="}, "application/vnd.plotly.v1+json"
    before = executed(same, {"image/png": "T0xE"}, {chart: {"data": [1]}})
    after = executed(same, {"image/svg+xml": drawing}, {chart: {"data": []}})
    page = render_changes(compared(before, after))
    packed = base64.b64encode(drawing.encode()).decode()
    for part in ("data:image/png;base64,T0xE", f"data:image/svg+xml;base64,{packed}", "figure 3"):
        assert part in page
    assert "U0FNRQ" not in page
    assert page.count("<script") == 1
    assert "default-src 'none'; script-src 'sha256-" in page
    hostile = executed({"image/png": '"><script>alert(3)</script>'})
    page = render_changes(compared(before, hostile))
    assert page.count("<script") == 1
    assert "not a picture" in page


def test_everything_that_differs_is_said_as_text() -> None:
    """Causes first, tables, values and rows: markup in any of them is text."""
    evil = "<img src=x onerror=alert(1)>"
    cell = CellChange(evil, 1.0, 3.0, 2.0, 2.0)
    column = ColumnChange(changed=2, largest=cell, typical=1.5, typical_relative=0.5)
    row = RowChange(evil, {evil: (evil, evil)})
    table = TableChange(3, 4, 1, 0, 2, (evil,), evil, {evil: column}, changed=(row,), added=(row,))
    parts = ValuesChange(3, changed=1, changes=(ValueChange(evil, "changed", evil, 2.5),))
    outputs = Comparison(
        {
            "prices": OutputChange("both", "a", "b", table, notes=(evil,)),
            "stats": OutputChange("both", parts=parts),
            "same": OutputChange("both"),
            "new": OutputChange("added", kind_after=evil),
        }
    )
    above = Cause("code", evil, f"--- {evil}\n-{evil}\n+{evil}")
    causes = (Cause("input", f"market_data.prices got 1 row {evil}", because=(above,)),)
    page = render_changes(
        compared(executed(), executed(), outputs=outputs, causes=causes, notes=(evil,))
    )
    assert "<img" not in page
    assert page.index("market_data.prices got 1 row") < page.index("<h2>Outputs</h2>")
    for part in ("+2 <i>200 %</i>", "1 row added", "2 rows changed, 1 shown", "Equal: same"):
        assert part in page


def test_a_comparison_that_takes_too_long_says_so(made, tmp_path: Path) -> None:
    """The page that stays names the reason and the command without limits, and asks again."""
    made(run_id="a" * 8)
    last = made(run_id="b" * 8, started_at=1717700000.0)
    project = Project(tmp_path, str(tmp_path / "data"))
    with pytest.raises(ResearchJobsError, match="its process was killed"):
        make_changes(project, last.folder, limits=Limits(seconds=0.001))
    text = (last.folder / CHANGES).read_text()
    assert "research-jobs diff volatility/garch aaaaaaaa bbbbbbbb --html changes.html" in text
    assert read_pending(last.folder / CHANGES) is not None


def test_what_is_no_longer_kept_is_said(made, tmp_path: Path) -> None:
    """Where nothing is left of the run before, the page says so in plain words."""
    first = made(run_id="a" * 8)
    last = made(run_id="b" * 8, started_at=1717700000.0)
    (first.folder / "notebook.ipynb").unlink()
    project = Project(tmp_path, str(tmp_path / "data"))
    with pytest.raises(ResearchJobsError, match="nothing is kept any more of the run before"):
        make_changes(project, last.folder)
    assert "nothing is kept any more" in (last.folder / CHANGES).read_text()
