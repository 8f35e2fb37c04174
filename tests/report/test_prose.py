"""Markdown and mathematics."""

import pytest

from research_jobs.report.prose import latex_to_html, render_markdown


def html(source: str) -> str:
    return render_markdown(source, anchor="c").html


@pytest.mark.parametrize(
    "source",
    ["$x^2$", r"\(x^2\)", "$$x^2$$", r"\[x^2\]", "\\begin{align}\nx &= 2\n\\end{align}"],
)
def test_formulas(source):
    """Every way of writing a formula gives MathML."""
    assert html(f"before {source} after").count("<math") == 1


@pytest.mark.parametrize(
    "source",
    ["costs $5 and $6", r"\$x\$", "`$x$`", "```\n$x$\n```", "$ x $", "a$b$c1", "~~~\n$x$ y\n~~~"],
)
def test_no_formulas(source):
    """Prices, code and escaped dollars are no formulas."""
    assert "<math" not in html(source)


def test_unknown_commands_stay_legible():
    """A formula that cannot be converted is shown as it was written."""
    assert latex_to_html(r"\frac{1}{", display=False) == r'<code class="rj-tex">\frac{1}{</code>'
    assert r"\mymacro" in latex_to_html(r"\mymacro{x} < 1", display=True)
    assert "rj-display" in latex_to_html("$$x$$", display=False)


def test_markdown():
    """Tables, lists, code and emphasis are what they should be."""
    shown = html("- *a*\n- ~~b~~\n\n|x|y|\n|-|-:|\n|1|2|\n\n```python\nx < 1\n```\n")
    for part in ("<em>a</em>", "<s>b</s>", "<table>", "align: right", "x &lt; 1"):
        assert part in shown


def test_headings():
    """Headings have anchors and are listed with their text."""
    prose = render_markdown("# A *b* `c`\n\ntext\n\n## $x$ & <b>d</b>\n", anchor="cell-3")
    assert [(h.level, h.text, h.anchor) for h in prose.headings] == [
        (1, "A b c", "cell-3-1"),
        (2, "x & d", "cell-3-2"),
    ]
    assert '<h1 id="cell-3-1">' in prose.html


def test_markup_in_it_is_harmless():
    """HTML in prose is cleaned like any other."""
    shown = html("<script>x</script> <b onclick=x>y</b> [z](javascript:x) <kbd>k</kbd>")
    assert "<script" not in shown
    assert "onclick" not in shown
    assert "href" not in shown
    assert "<kbd>k</kbd>" in shown


def test_placeholders_cannot_be_forged():
    """Characters that stand in for formulas mean nothing in a text."""
    assert "<math" not in html("\ue000i0\ue001 plain")
