"""How large pages are, in bytes."""

from __future__ import annotations

import base64
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from research_jobs.outcome import State
from research_jobs.report.build import build_report, standalone
from research_jobs.report.gallery import write_page
from research_jobs.report.layout import report_folder
from research_jobs.report.morning import MorningPage, Row, Run

NOW = datetime(2024, 6, 1, 7, tzinfo=timezone.utc)


def test_a_page_with_one_chart(captures, header, show, tmp_path):
    """A report with a chart of 60 KB is under 150 kB, and so is one that plotly draws."""
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + os.urandom(60_000)).decode()
    figure = {"data": [{"type": "scatter", "y": list(range(2000))}], "layout": {}}
    for mime, value in (("image/png", picture), ("application/vnd.plotly.v1+json", figure)):
        run = header(run_id=mime)
        capture = captures.write("# %% [markdown]\n# # T\n# %%\nx = 1\n", {2: show(mime, value)})
        report = build_report(capture, run, report_folder(tmp_path, run), reports=tmp_path)
        assert report.html.stat().st_size < 150_000
    # With plotly's whole script in it.
    assert 1_000_000 < len(standalone(report.html).encode()) < 2_200_000


def test_the_gallery_of_a_hundred_notebooks(tmp_path: Path) -> None:
    """The morning page of 100 notebooks, each with all that a row shows, is under 400 kB."""
    mark = Run(State.SUCCEEDED, "Sat 01 Jun 07:00, 2024-05-31, 12.3 s")
    rows = tuple(
        Row(
            f"group_{n % 8}/notebook_number_{n}",
            State.SUCCEEDED,
            f"group_{n % 8}",
            "What a researcher wrote about this notebook, in one line of a usual length.",
            ("daily", "prices"),
            ("research@example.com",),
            strip=(mark,) * 14,
            took=12.3,
            made=250,
            partitions=260,
            failed=2,
            ended=NOW - timedelta(hours=1),
            next_tick=NOW + timedelta(hours=23),
            used_by=3,
            report=f"group_{n % 8}/notebook_number_{n}/_runs/20240601T050000-ab12cd34/report.html",
            thumbnail=f"group_{n % 8}/notebook_number_{n}/thumbnail.png?20240601T050000-ab12cd34",
        )
        for n in range(100)
    )
    write_page(tmp_path, MorningPage(NOW, "yesterday", "100 runs", "UTC", (), rows, {}))
    assert (tmp_path / "index.html").stat().st_size < 400_000
