"""The templates of all pages: what they escape, and when they are loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from research_jobs.outcome import Failure, StagedOutput, State, Tone
from research_jobs.report import templates
from research_jobs.report.assets import asset_text
from research_jobs.report.outputs import Renderer
from research_jobs.report.page import (
    SOURCE_LIMIT,
    CellView,
    Links,
    Page,
    render_body,
    render_page,
)
from research_jobs.report.record import Error, Recorded, RecordedCell

HOSTILE = "\"'><script>alert(1)</script>&<img src=x onerror=alert(1)>"


@pytest.fixture
def pages(header):
    """Pages in which every text comes from somebody hostile."""
    bad = Failure(headline=HOSTILE, traceback=HOSTILE)
    fields = ("notebook", "run_id", "partition", "path", "code_version", "git_commit")
    said = dict.fromkeys(fields, HOSTILE) | {"notes": (HOSTILE,), "parameters": {HOSTILE: HOSTILE}}
    said["outputs"] = (StagedOutput(HOSTILE, "", "", None, 1),)
    run = header(**said, ending="failed", failure=bad, run_url=f"/{HOSTILE}")
    url = f"https://{HOSTILE}"
    skipped = header(**said, ending="skipped", skip_reason=HOSTILE, run_url=url)
    links = Links(*[HOSTILE] * 3, scripts=(HOSTILE,))
    cell = CellView(
        HOSTILE, raw=HOSTILE, title=HOSTILE, when=HOSTILE, code=Markup("x"), failure=bad
    )
    untitled = replace(cell, title="", preview=HOSTILE, prose=Markup("<b>prose</b>"))
    page = Page((cell, untitled), (), HOSTILE, HOSTILE)
    return [
        render_page(shown, made, links, evaluates=False)
        for made in (run, skipped)
        for shown in (page, replace(page, anchor=None))
    ]


def test_every_text_is_escaped(pages):
    """No text of a run or a notebook becomes markup, wherever in the page it is put."""
    for page in pages:
        assert "<script>" not in page
        assert "<img" not in page
        assert not re.search(r'="[^"]*"\'', page)
        assert page.count("&lt;script&gt;") >= 15
        assert "<b>prose</b>" in page


def test_a_name_that_is_missing_is_an_error():
    """A template that names what it is not given fails: nothing is silently left out."""
    with pytest.raises(UndefinedError):
        templates.render("notebook.html", up="x")


def test_all_templates_compile_and_are_shipped():
    """Each template is compiled ahead where pages are made, and is part of the package."""
    templates.compile_templates()
    found = {path.name for path in Path(templates.__file__).parent.glob("*.html")}
    assert found == {
        *("page.html", "header.html", "cell.html"),
        *("notebook.html", "morning.html", "mail.html", "changes.html", "pending.html"),
    }


def test_templates_are_loaded_when_a_page_is_made():
    """Importing the pages does not import the template engine: a run worker makes none."""
    program = "import research_jobs.report.gallery, research_jobs.report.page, sys\n"
    program += "raise SystemExit('jinja2' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("state", [state for state in State if state.ended])
def test_a_page_names_each_ending(header, state):
    """In its words, and in a colour that the page's style sheet has."""
    html = render_page(Page((), (), None), header(ending=state), Links(), evaluates=False)
    assert f'<p class="rj-ending rj-{state.tone}"><b>{state.heading}</b>' in html
    assert state.tone is Tone.GOOD or f".rj-ending.rj-{state.tone} " in asset_text("page.css")


def body(header, *, line=None, shown=(), **changes):
    """The one cell of a failed run as its template gets it."""
    fields = {"source": "\n\n# note\nx = 1\ny = 2\n", "status": "error", "first_line": 10}
    cell = RecordedCell(number=1, kind="code", title=None, tags=[], **fields | changes)
    cell.shown.extend(shown)
    failure = Failure("it failed", line=line)
    run = header(ending="failed", failure=failure).outcome
    [view] = render_body(Recorded(cells=[cell]), run, Renderer()).cells
    return view


@pytest.mark.parametrize(("line", "marked"), [(12, "# note"), (13, "x = 1"), (14, "y = 2")])
def test_the_failing_line_is_marked(header, line, marked):
    """The line of the file is marked, blank lines above the code or not."""
    for shown in ((), (Error("E", "e", [], line),)):
        view = body(header, line=line, shown=shown)
        [found] = re.findall(r"<mark>(.*?)</mark>", str(view.code))
        assert re.sub(r"<[^>]*>", "", found) == marked


def test_a_failure_is_reported_once(header):
    """What the cell's own exception says is not said again; what it could not say is."""
    assert body(header, line=13).failure is not None
    assert body(header, line=13, shown=(Error("E", "e", [], 13),)).failure is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, False), (0.049, False), (0.05, True), (3.0, True)]
)
def test_what_took_time_says_how_long(header, seconds, shown):
    """A cell of a twentieth of a second or more says how long it took."""
    assert bool(body(header, duration_s=seconds).when) is shown


def test_long_code_is_cut(header):
    """Code beyond the limit ends in an ellipsis, code at the limit does not."""
    fits = "x" * SOURCE_LIMIT
    assert "…" not in str(body(header, source=fits).code)
    cut = str(body(header, source=f"{fits}y").code)
    assert cut.endswith("…")
    assert "y" not in re.sub(r"<[^>]*>", "", cut)
