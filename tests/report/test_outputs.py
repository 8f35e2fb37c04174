"""One thing that a cell showed: nothing of it leaves its place in the page."""

from __future__ import annotations

import re

import pytest

from research_jobs.report import outputs
from research_jobs.report.outputs import Renderer
from research_jobs.report.record import Error, Note, Output, RecordedCell, Stream

HOSTILE = "</script><script>alert(1)</script>\"' onclick=alert(1) <img src=x onerror=alert(1)>"
CELL = RecordedCell(1, "code", None, [], 1, "x", "ok")
PLOTLY = "application/vnd.plotly.v1+json"


def shown(mime, value):
    return Output("display_data", {mime: value, "text/plain": HOSTILE}, {mime: {"width": HOSTILE}})


@pytest.mark.parametrize(
    "item",
    [
        shown(PLOTLY, {"data": [{"name": HOSTILE}], "layout": {"title": HOSTILE, HOSTILE: 1}}),
        shown("application/pdf", f"AAAA{HOSTILE}"),
        shown("application/json", {HOSTILE: [HOSTILE]}),
        shown("text/latex", HOSTILE),
        shown("text/markdown", HOSTILE),
        shown("image/png", f"AAAA{HOSTILE}"),
        shown("image/svg+xml", HOSTILE),
        shown("text/unknown", HOSTILE),
        Stream("stdout", [HOSTILE]),
        Error(HOSTILE, HOSTILE, [HOSTILE], None),
        Note(HOSTILE),
    ],
)
def test_no_output_leaves_its_place(item):
    """Whatever the kind, hostile text comes out as text: no element and no handler of its own."""
    html = Renderer().render(item, CELL)
    assert "<script>" not in html
    assert "<img src=x" not in html
    assert html.count("</script>") == html.count("<script")
    for tag in re.findall(r"<[^<>]*>", html):
        assert not any("onclick" in part for part in tag.split('"')[::2]), tag


def test_a_long_formula_is_cut_as_other_text_is():
    """What a cell shows as LaTeX and no page can set takes no more room than other text."""
    page = Renderer().render(shown("text/latex", "x\n" * 1_000_000), CELL)
    assert "x\nx" in page
    assert "characters in the middle are left out here" in page


@pytest.mark.parametrize(
    "html", ["<script>1</script>", "<button onclick='1'>x", "<table>" + "<tr><td>1" * 500_000]
)
def test_every_frame_is_held(html):
    """A frame may run scripts and nothing more: no origin, no windows, no forms of the page's."""
    renderer = Renderer()
    page = renderer.render(shown("text/html", html), CELL)
    assert re.findall(r'sandbox="([^"]*)"', page) == ["allow-scripts"]
    assert len(renderer.frames) == page.count("<iframe") == 1


@pytest.mark.parametrize(
    ("width", "size"),
    [(1, ' width="1"'), (10_000, ' width="10000"'), (10_001, ""), (0, ""), (-5, ""), ("9", "")],
)
def test_sizes_of_pictures(width, size):
    """A picture is as large as the notebook says, within reason."""
    output = Output("display_data", {"image/png": "AAAA"}, {"image/png": {"width": width}})
    assert f'alt="Figure"{size} src=' in Renderer().render(output, CELL)


@pytest.mark.parametrize(
    ("height", "pixels"), [(40, 40), (4000, 4000), (39, 450), (4001, 450), ("9", 450), (None, 450)]
)
def test_heights_of_figures(height, pixels):
    """A figure keeps its place free, and no more than a page takes."""
    figure = {"data": [], "layout": {"height": height}}
    page = Renderer().render(Output("display_data", {PLOTLY: figure}, {}), CELL)
    assert f'style="min-height:{pixels}px"' in page


@pytest.mark.parametrize(
    ("size", "before", "place"),
    [
        (200, 0, "page"),
        (201, 0, "frame"),
        (300, 0, "frame"),
        (301, 0, "note"),
        (100, 500, "page"),
        (101, 500, "frame"),
    ],
)
def test_where_markup_goes_by_its_size(monkeypatch, size, before, place):
    """What is too large to be cleaned, or for a page that has much already, gets a frame."""
    limits = {"CLEAN_LIMIT": 200, "FRAME_LIMIT": 300, "ROOMY": 500, "LARGE": 100}
    for name, limit in limits.items():
        monkeypatch.setattr(outputs, name, limit)
    renderer = Renderer()
    renderer.render(Stream("stdout", ["x" * before]), CELL)
    page = renderer.render(shown("text/html", "<p>" + "x" * (size - 3)), CELL)
    assert len(renderer.frames) == (place == "frame")
    assert ("<p>x" in page) == (place == "page")
    assert ("is left out here" in page) == (place == "note")


def test_both_ends_of_a_long_text():
    """Of a long text three quarters of what a page takes are its beginning, and one is its end."""
    text = "a" * 75_000 + "b" * 50_000 + "c" * 25_000
    page = Renderer().render(Stream("stdout", [text]), CELL)
    assert (page.count("a" * 75_000), page.count("c" * 25_000), "bb" in page) == (1, 1, False)
    assert "50,000 characters in the middle are left out" in page


def test_one_figure_that_compiles_shaders_is_enough():
    """A page may evaluate code when any of its figures has to, whatever comes after it."""
    renderer = Renderer()
    for kind, evaluates in (("bar", False), ("surface3d", True), ("bar", True)):
        output = Output("display_data", {PLOTLY: {"data": [{"type": kind}]}}, {})
        renderer.render(output, CELL)
        assert renderer.evaluates is evaluates
