"""Markdown and mathematics."""

import re
from xml.etree import ElementTree as ET

import pytest

from research_jobs.report.prose import (
    FORMULA_LIMIT,
    MARKDOWN_LIMIT,
    latex_to_html,
    render_markdown,
)


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
    ["costs $5 and $6", r"\$x\$", "`$x$`", "```\n$x$\n```", "$ x $", "1$b$2", "~~~\n$x$ y\n~~~"],
)
def test_no_formulas(source):
    """Prices, code and escaped dollars are no formulas."""
    assert "<math" not in html(source)


def test_unknown_commands_stay_legible():
    """A formula that cannot be converted is shown as it was written."""
    assert latex_to_html(r"\frac{1}{", display=False) == r'<code class="rj-tex">\frac{1}{</code>'
    assert r"\mymacro" in latex_to_html(r"\mymacro{x} < 1", display=True)
    assert "rj-display" in latex_to_html("$$x$$", display=False)


@pytest.mark.parametrize(
    "tex",
    [
        r"$$\begin{aligned} a &= b \\ c &= d \end{aligned}$$",
        r"$$\begin{aligned}[t] a &= b \\ c &= d \end{aligned}$$",
        r"$$\begin{alignat*}{2} a &= b \\ c &= d \end{alignat*}$$",
        r"\begin{eqnarray} a &=& b \\ c &=& d \end{eqnarray}",
        r"$$\begin{gathered} a \\ b \end{gathered}$$",
        r"\begin{multline*} a \\ b \end{multline*}",
        r"$$f = \begin{dcases} a & b \\ c & d \end{dcases}$$",
        r"$$\begin{rcases} a & b \\ c & d \end{rcases} = f$$",
    ],
)
def test_environments_keep_their_rows(tex):
    """LaTeX's environments of several lines are two rows, their columns aligned and not printed."""
    shown = html(tex)
    assert shown.count("<mtr>") == 2
    assert not re.search(r">&(amp;)?<|begin|rj-tex", shown)


def test_what_cannot_be_set_stays_legible():
    """Columns without an environment are the formula's source; an ampersand itself is one."""
    assert "rj-tex" in latex_to_html("a & b", display=True)
    assert "rj-tex" not in latex_to_html(r"a \& b", display=True)


def test_tasks():
    """A list of tasks shows which are done."""
    shown = html("- [ ] todo\n- [x] done\n\n[ ] text")
    for part in ("☐ todo", "☑ done", "[ ] text"):
        assert part in shown


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


@pytest.mark.parametrize(
    "text",
    [
        "&#xe000;d99&#xe001;",
        "\ue000d99\ue001",
        "\0",
        "&#0;",
        "m0000000000000000000000m0;",
        "0;",
        "&nbsp;&#xfffe;&#x10ffff;",
        "\u2028\u2029\ufeff",
    ],
)
def test_places_cannot_be_forged(text):
    """Nothing that a text holds is taken for the place of a formula."""
    shown = html(f"text from a feed: {text} and $x$")
    assert shown.count("<math") == 1
    assert "text from a feed" in shown


@pytest.mark.parametrize(
    "source",
    [
        '<div title="\n\n$x$\n\n">text</div>',
        '<a href="https://a.b/\n\n$x$\n\n">text</a>',
        '<p style="color:\n\n$x$\n\n">text</p>',
        "<b title='\n\n$\\text{\" onclick=f()}$\n\n'>text</b>",
        "![$x$](a.png) text",
        # the attribute ends in the markup behind the formula
        '<div title="\n\n$x$\n\n<p title=">text</p>',
        "<div title='\n\n$x$\n\n<p title='>text</p>",
        '<div class="\n\n$x$\n\n<p title=">text</p>',
        '<div title="\n\n$\\text{" onclick=f()}$\n\n<p title=">text</p>',
        '<div lang="\n\n\\(x\\)\n\n<p title=">text</p>',
    ],
)
def test_no_formula_within_a_tag(source):
    """Where markup makes the place of a formula a part of a tag, the formula is left out."""
    shown = html(source)
    for tag in re.findall(r"<[^>]*>", shown):
        assert "math" not in tag or tag.startswith(("<math", "</math"))
        assert "onclick" not in tag


@pytest.mark.parametrize(
    "heading", ['<h2 title="><img src=x onerror=f()>">a</h2>', "## a <b title='</h2>'>b</b>"]
)
def test_headings_stay_whole(heading):
    """A heading gets its anchor, whatever its attributes hold."""
    prose = render_markdown(f"# Top\n\n{heading}\n", anchor="c")
    assert [item.anchor for item in prose.headings] == ["c-1", "c-2"]
    assert '<h2 id="c-2">' in prose.html
    assert "<img" not in prose.html


def test_limits():
    """Markdown and formulas beyond their limits are shown as they were written."""
    assert "<em>" in html("*a* " + " " * (MARKDOWN_LIMIT - 5) + "b")
    assert html("*a* " + " " * (MARKDOWN_LIMIT - 4) + "b").startswith('<pre class="rj-raw">*a*')
    assert "<math" in latex_to_html("x" + " " * 100 + "y" * (FORMULA_LIMIT - 101), display=False)
    assert "<math" not in latex_to_html("y" * (FORMULA_LIMIT + 1), display=False)
    assert (MARKDOWN_LIMIT, FORMULA_LIMIT) == (50_000, 4000)
    assert html("<div>" * 300).startswith('<pre class="rj-raw">&lt;div&gt;')


@pytest.mark.parametrize("display", [False, True])
@pytest.mark.parametrize("tex", [r"<img src=x onerror=f()>\frac{1}{", "<b>" + "y" * FORMULA_LIMIT])
def test_a_formula_that_cannot_be_set_is_text(tex, display):
    """What stays of a formula that is broken or too long is escaped."""
    shown = latex_to_html(tex, display=display)
    assert shown.startswith("<code")
    assert "<img" not in shown
    assert "<b>" not in shown
    assert "&lt;" in shown


@pytest.mark.parametrize(
    ("tex", "signs"),
    [
        ("1 < 2 > 0", "1<2>0"),
        ("f(x) = [y]", "f(x)=[y]"),
        (r"\alpha \leq \infty", "\N{GREEK SMALL LETTER ALPHA}≤∞"),
        (r"\sum \int \partial", "∑∫∂"),
        (r"a \& b", "a&b"),
        (r"\text{a<b & c}", "a<b\N{NO-BREAK SPACE}&\N{NO-BREAK SPACE}c"),
        (r"\left( x \right\}", "(x}"),
        (r"\{ x | y \}", "{x|y}"),
    ],
)
def test_signs_are_shown_as_signs(tex, signs):
    """A reader sees each sign of a formula, and never the reference that stands for it."""
    shown = latex_to_html(tex, display=False)
    assert shown.startswith("<math")
    assert "".join(ET.fromstring(shown).itertext()) == signs
    assert "&amp;#" not in shown
