"""Markup made harmless: what stays, what goes, and that nothing else can come out."""

from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.report import sanitize
from research_jobs.report.sanitize import clean_html, clean_mathml, scoped_css


class TestTables:
    """Tables as libraries write them stay what they are."""

    def test_pandas(self):
        """A data frame keeps its cells; its own style sheet is left to the page."""
        cleaned = clean_html(pd.DataFrame({"a": [1.5], "<b>": ["x"]})._repr_html_(), scope="#o")
        assert cleaned.complete
        assert '<table border="1" class="u-dataframe">' in cleaned.html
        assert "<th>&lt;b&gt;</th>" in cleaned.html
        assert "#o .u-dataframe tbody tr th" in cleaned.html

    def test_styler(self):
        """A Styler's colours hold for its own table only."""
        frame = pd.DataFrame({"a": [1, 2]})
        html = frame.style.highlight_max(color="#cdebd4").bar().set_caption("Caption").to_html()
        cleaned = clean_html(html, scope="#o1")
        assert cleaned.complete
        assert "background-color: #cdebd4" in cleaned.html
        assert "linear-gradient" in cleaned.html
        assert all(
            rule.strip().startswith("#o1 ")
            for rule in cleaned.html.split("<style>")[1].split("</style>")[0].split("}")
            if rule.strip()
        )

    def test_polars(self):
        """A polars frame keeps its cells and shape."""
        import polars as pl

        cleaned = clean_html(pl.DataFrame({"a": [1]})._repr_html_(), scope="#o")
        assert cleaned.complete
        assert "<small>shape: (1, 1)</small>" in cleaned.html


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<b>x", "<b>x</b>"),
        ("</div></p>x", "x"),
        ("<p><b>x</p>y</b>", "<p><b>x</b></p>y"),
        ('<a href="https://a.b/c?d=e&f">x</a>', 'href="https://a.b/c?d=e&amp;f"'),
        ('<a href="javascript:x">y</a>', "<a>y</a>"),
        ('<a href=" JaVaScRiPt:x">y</a>', "<a>y</a>"),
        ('<a href="data:text/html,x">y</a>', "<a>y</a>"),
        ('<img src="https://a/b.png" alt="chart">', "[chart]"),
        ('<img src="data:image/png;base64,AAAA">', '<img src="data:image/png;base64,AAAA">'),
        ('<img src="data:text/html;base64,AAAA">', "[picture]"),
        ('<p style="color: red; position: fixed; top: 0">x', '<p style="color: red">x</p>'),
        ('<p style="background: url(x)">x', "<p>x</p>"),
        ('<p style="color: expression(x)">x', "<p>x</p>"),
        (r'<p style="col\6fr: red; color: r\65d">x', "<p>x</p>"),
        ('<p class="rj-head a">x', '<p class="u-rj-head u-a">x</p>'),
        ("a &lt;script&gt; b", "a &lt;script&gt; b"),
        ("<!-- comment -->x", "x"),
        ("<body><main>x</main></body>", "x"),
        ("<title>t</title>x", "x"),
    ],
)
def test_kept(markup, expected):
    """What is harmless is kept, in its harmless part."""
    assert expected in clean_html(markup).html


@pytest.mark.parametrize(
    "markup",
    [
        "<script>x</script>",
        "<iframe src=x></iframe>",
        "<form><input></form>",
        "<svg></svg>",
        "<math></math>",
        "<object></object>",
        "<p onclick=x>y</p>",
        "<my-element>x</my-element>",
        "<button>x</button>",
        "<template>x</template>",
        "<link rel=stylesheet href=x>",
    ],
)
def test_needs_more(markup):
    """What would be cut down to nonsense says so."""
    cleaned = clean_html(f"<p>before</p>{markup}<p>after</p>")
    assert not cleaned.complete
    assert cleaned.html.startswith("<p>before</p>")
    assert cleaned.html.endswith("<p>after</p>")


def test_css():
    """At-rules, addresses and rules that reach outside are dropped; the rest is confined."""
    css = """
        @import url(x); @media print { p { color: red } }
        /* } */ .a > td, #b:hover { color: red; background: url(x); position: fixed }
        html { display: none } } * { color: blue } </style><script>
        p { color: "</style>" }
    """
    assert scoped_css(css, "#o") == (
        "#o .u-a > td, #o #u-b:hover { color: red }\n"
        "#o html { display: none }\n"
        "#o * { color: blue }"
    )


def test_mathml():
    """Formulas are formulas: nothing but MathML comes out."""
    cleaned = clean_mathml(
        '<math display="block"><mtext><script>x</script><img src=x onerror=y></mtext>'
        '<mi href="javascript:x" mathcolor="red" style="x">y</mi></math>'
    )
    assert cleaned == ('<math display="block"><mtext>x</mtext><mi mathcolor="red">y</mi></math>')


class _Judge(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.depth: list[str] = []
        self.balanced = True

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in sanitize._VOID:
            self.depth.append(tag)

    def handle_endtag(self, tag):
        self.balanced = self.balanced and bool(self.depth) and self.depth.pop() == tag


pieces = st.sampled_from(
    [
        *(
            "<",
            ">",
            "</",
            "/>",
            '"',
            "'",
            "=",
            " ",
            "&lt;",
            "&#x3c;",
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
        ),
        *("script", "style", "svg", "math", "table", "td", "p", "img", "a", "div", "title"),
        *("noscript", "template", "textarea", "xmp", "plaintext", "select", "mtext", "b"),
        *("onerror", "href", "src", "style", "javascript:x", "data:text/html,x", "x", "\0", "\n"),
        *("<script>", "</script>", "<style>", "</style>", "<img src=x onerror=x>", "<b>", "</b>"),
        *("url(x)", "color:red", "{", "}", ";", "@import", "\\", "/*", "*/"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=25).map("".join))
def test_nothing_else_comes_out(markup):
    """Whatever goes in: known elements, harmless attributes, balanced, no way out of its place."""
    judge = _Judge()
    html = clean_html(markup, scope="#o").html
    judge.feed(html)
    judge.close()
    assert set(judge.tags) <= sanitize._ELEMENTS | {"style"}
    assert judge.balanced
    assert not judge.depth
    for name, value in judge.attributes:
        assert not name.startswith("on")
        assert name in sanitize._ATTRIBUTES | {"style", "href", "src", "rel", "target"}
        assert not value.lower().strip().startswith(("javascript:", "data:text"))
        if name == "style":
            assert "url" not in value
            assert "\\" not in value
    again = clean_html(html, scope="#o").html
    assert again.count("<") == html.count("<")
