"""Drawings that are files of their own."""

import re

import pytest

from research_jobs.report.svg import SVG_LIMIT, clean_svg

SVG = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
DRAWN = "<rect width='1' height='1'/>"


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        "<x:script xmlns:x='http://www.w3.org/2000/svg'>alert(1)</x:script>",
        "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
        "<y:rect xmlns:y='http://www.w3.org/1999/xhtml' onload='alert(1)'/>",
        "<foreignObject><b xmlns='http://www.w3.org/1999/xhtml'>alert(1)</b></foreignObject>",
        "<handler xmlns='http://www.w3.org/2001/xml-events'>alert(1)</handler>",
        "<animate attributeName='href' values='javascript:alert(1)'/>",
        "<set attributeName='onclick' to='alert(1)'/>",
        "<a xlink:href='javascript:alert(1)'><text>x</text></a>",
        "<a href='javascript:alert(1)'><text>x</text></a>",
        "<image xlink:href='http://alert/1'/>",
        "<image href='data:image/svg+xml;base64,YWxlcnQ='/>",
        "<use href='http://alert/1#a'/>",
        "<use xlink:href='data:image/svg+xml,alert#a'/>",
        "<rect onclick='alert(1)'/>",
        "<rect x:onclick='alert(1)' xmlns:x='http://www.w3.org/2000/svg'/>",
        "<rect fill='url(http://alert/1)'/>",
        "<rect style='fill: url(http://alert/1#x)'/>",
        "<rect style='fill: ur\\6c(alert)'/>",
        "<rect style='@import \"alert\"'/>",
        "<rect clip-path='url(#a) url(//alert)'/>",
        "<style>@import url(alert)</style>",
        "<iframe xmlns='http://www.w3.org/1999/xhtml' src='alert'/>",
        "<?xml-stylesheet href='alert'?>",
        "<!-- alert -->",
        "<feImage href='alert'/>",
        "<metadata>alert</metadata>",
        "<TEXT>alert</TEXT>",
        "<text xmlns='http://www.w3.org/1999/xhtml'>alert</text>",
        "<rect fill='URL(http://alert/1)'/>",
        "<rect style='@IMPORT \"alert\"'/>",
        "<linearGradient href='http://alert/1#a'/>",
        "<pattern xlink:href='alert.svg#a'/>",
    ],
)
def test_nothing_active(inside):
    """Whatever acts or loads goes, in every namespace and under every prefix; the drawing stays."""
    cleaned = clean_svg(f"<svg {SVG}>{inside}{DRAWN}</svg>")
    assert cleaned is not None
    assert "alert" not in cleaned
    assert "onclick" not in cleaned
    assert "<rect" in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no drawing",
        "<svg",
        f"<html xmlns='http://www.w3.org/1999/xhtml'>{DRAWN}</html>",
        f"<svg {SVG}/>",
        f"<svg {SVG}><script>1</script></svg>",
        f"<!DOCTYPE svg [<!ENTITY a 'b'>]><svg {SVG}>{DRAWN}&a;</svg>",
        f"<svg {SVG}>{DRAWN}" + " " * SVG_LIMIT + "</svg>",
    ],
)
def test_no_drawing(text):
    """What is not well-formed, draws nothing, declares entities or is too large is none."""
    assert clean_svg(text) is None


def test_uses_do_not_multiply():
    """A repeated element is a single shape: groups of groups would grow without end."""
    groups = "".join(
        f"<g id='g{n}'><use href='#g{n - 1}'/><use href='#g{n - 1}'/></g>" for n in range(1, 40)
    )
    cleaned = clean_svg(
        f"<svg {SVG}><path id='p' d='M0 0'/><g id='g0'><use href='#p'/></g>{groups}</svg>"
    )
    assert cleaned.count("<use") == 1


def test_matplotlib(tmp_path):
    """A drawing of matplotlib's keeps its lines, its letters and where they are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], "o--", label="a & b")
    axes.legend()
    figure.savefig(tmp_path / "drawing.svg")
    drawn = (tmp_path / "drawing.svg").read_text()
    cleaned = clean_svg(drawn)
    for part in ("<path", "<use", "clip-path=", "stroke-dasharray"):
        assert cleaned.count(part) == drawn.count(part) > 0
    assert re.search(r'<svg xmlns="[^"]*" xmlns:xlink="[^"]*" [^>]*viewBox=', cleaned)
    assert clean_svg(cleaned) == cleaned


def test_text_stays_text():
    """What a drawing writes in letters is escaped again, in elements and in attributes."""
    letters = "&lt;script&gt;alert(1)&lt;/script&gt; &amp;lt;"
    cleaned = clean_svg(f"<svg {SVG}><text font-family='&quot;&lt;'>{letters}</text></svg>")
    assert f">{letters}</text>" in cleaned
    assert "<script" not in cleaned
    assert 'font-family="&quot;&lt;"' in cleaned
    assert clean_svg(cleaned) == cleaned


def test_a_drawing_as_large_as_may_be():
    """At the limit a drawing is kept, and one character beyond it is not."""
    start, end = f"<svg {SVG}>{DRAWN}", "</svg>"
    room = SVG_LIMIT - len(start) - len(end)
    assert clean_svg(start + " " * room + end) is not None
    assert clean_svg(start + " " * (room + 1) + end) is None
