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

from research_jobs.protocol import Ending, Failure
from research_jobs.report import templates
from research_jobs.report.assets import asset_text
from research_jobs.report.header import OutputLine
from research_jobs.report.page import ENDINGS, CellView, Links, Page, render_page

HOSTILE = "\"'><script>alert(1)</script>&<img src=x onerror=alert(1)>"


@pytest.fixture
def pages(header):
    """Pages in which every text comes from somebody hostile."""
    bad = Failure(headline=HOSTILE, traceback=HOSTILE)
    fields = ("notebook", "ending", "run_id", "partition", "path", "code_version", "git_commit")
    run = header(**dict.fromkeys(fields, HOSTILE), notes=(HOSTILE,), failure=bad)
    run = replace(run, parameters={HOSTILE: HOSTILE}, run_url=f"/{HOSTILE}")
    run = replace(run, outputs=(OutputLine(HOSTILE, None, 1),))
    skipped = replace(run, ending="skipped", skip_reason=HOSTILE, run_url=f"https://{HOSTILE}")
    links = Links(*[HOSTILE] * 5)
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
        templates.render("gallery.html", title="x")


def test_all_templates_compile_and_are_shipped():
    """Each template is compiled ahead where pages are made, and is part of the package."""
    templates.compile_templates()
    found = {path.name for path in Path(templates.__file__).parent.glob("*.html")}
    assert found == {"page.html", "header.html", "cell.html", "gallery.html"}


def test_templates_are_loaded_when_a_page_is_made():
    """Importing the pages does not import the template engine: a run worker makes none."""
    program = "import research_jobs.report.gallery, research_jobs.report.page, sys\n"
    program += "raise SystemExit('jinja2' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_ending_has_a_name():
    """A report and the gallery name the endings alike, and all that there are."""
    script = asset_text("gallery.js")
    words = dict(
        re.findall(r'(\w+): "([^"]+)"', script.partition("var WORDS = {")[2].split("}")[0])
    )
    assert words == ENDINGS
    assert set(words) >= {str(ending) for ending in Ending}
