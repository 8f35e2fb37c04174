"""Markup made harmless: what stays, what goes, and that nothing else can come out."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.report import sanitize
from research_jobs.report.markup import VOID, look_at
from research_jobs.report.sanitize import clean_html, clean_mathml


class TestTables:
    """Tables as libraries write them stay what they are."""

    def test_pandas(self):
        """A data frame keeps its cells; its own style sheet is left to the page."""
        cleaned = clean_html(pd.DataFrame({"a": [1.5], "<b>": ["x"]})._repr_html_(), scope="#o")
        assert cleaned.complete
        assert '<table border="1" class="u-dataframe">' in cleaned.html
        assert "<th>&lt;b&gt;</th>" in cleaned.html
        assert "#o .u-dataframe tbody tr th" in cleaned.style
        assert cleaned.styled.startswith("<style>")

    def test_styler(self):
        """A Styler's colours hold for its own table only."""
        frame = pd.DataFrame({"a": [1, 2]})
        html = frame.style.highlight_max(color="#cdebd4").bar().set_caption("Caption").to_html()
        cleaned = clean_html(html, scope="#o1")
        assert cleaned.complete
        assert "background-color: #cdebd4" in cleaned.style
        assert "linear-gradient" in cleaned.style
        assert all(
            rule.strip().startswith("#o1 ") for rule in cleaned.style.split("}") if rule.strip()
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
        ("<p><b>x</p>y</b>", "<p><b>x</b></p><b>y</b>"),
        ('<a href="https://a.b/c?d=e&f">x</a>', 'href="https://a.b/c?d=e&amp;f"'),
        ('<a href="javascript:x">y</a>', ">y</a>"),
        ('<a href=" JaVaScRiPt:x">y</a>', ">y</a>"),
        ('<a href="data:text/html,x">y</a>', ">y</a>"),
        ('<img src="https://a/b.png" alt="chart">', '<img alt="chart">'),
        ('<img src="data:image/png;base64,AAAA" alt="x">',) * 2,
        ('<img src="data:text/html;base64,AAAA">', '<img alt="">'),
        ('<p style="color: red; position: fixed; top: 0">x', '<p style="color: red">x</p>'),
        ('<p style="background: url(x)">x', "<p>x</p>"),
        ('<p style="color: expression(x)">x', "<p>x</p>"),
        (r'<p style="color\3a red; color: r\3c d">x', "<p>x</p>"),
        ('<p class="rj-head a">x', '<p class="u-rj-head u-a">x</p>'),
        ("a &lt;script&gt; b", "a &lt;script&gt; b"),
        ("<!-- comment -->x", "x"),
        ("<body><main>x</main></body>", "x"),
        ("<title>t</title>x", "x"),
    ],
)
def test_kept(markup, expected):
    """What is harmless is kept, in its harmless part."""
    html = clean_html(markup).html
    assert expected in html
    assert not re.search(r"script:|data:text", html, re.IGNORECASE)


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


HANDLERS = [
    *("onerror", "onload", "onclick", "onmouseover", "onfocus", "onblur", "onanimationstart"),
    *("ontoggle", "onbegin", "onend", "onpointerdown", "onwheel", "onscroll", "oncopy", "onpaste"),
    *("onbeforetoggle", "onscrollend", "onsubmit", "onsearch", "onanything"),
]


@pytest.mark.parametrize("handler", HANDLERS)
def test_no_handlers(handler):
    """No element keeps a handler, whatever else it keeps, and the markup counts as acting."""
    sources = {"img": 'src="data:image/png;base64,AAAA"', "a": 'href="https://a.b/"'}
    for element in sanitize._ELEMENTS:
        for name in (handler, handler.upper(), f"\t{handler}"):
            markup = f'<{element} {sources.get(element, "title=x")} {name}="f()">x'
            cleaned = clean_html(markup)
            assert handler not in cleaned.html.lower()
            assert not cleaned.complete
    assert 'src="data:image/png;base64,AAAA"' in clean_html(f"<img {sources['img']}>").html


@pytest.mark.parametrize("rel", ["", 'rel="opener"', "rel", 'target="_self" rel="opener"'])
def test_links_open_elsewhere(rel):
    """A link never gives the page that it leads to a hold of ours, nor says where it was."""
    html = clean_html(f'<a href="https://a.b/" {rel}>x</a>').html
    assert html.count('rel="noopener noreferrer"') == 1
    assert html.count('target="_blank"') == 1
    assert "opener" not in html.replace("noopener", "")


def test_attributes_that_mark_a_place():
    """No attribute that holds the mark of a formula's place is kept."""
    assert (
        clean_html('<p title="a SECRET b" class="SECRET">x</p>', secret="SECRET").html == "<p>x</p>"
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("red", True),
        ("0.5em", True),
        ("left right", True),
        ("|", True),
        ("url(x)", False),
        ("javascript:x", False),
        ("x\\79", False),
        ("a;b", False),
        ("expression(x)", False),
        ("<b>", False),
        ("x" * 101, False),
    ],
)
def test_mathml_values(value, kept):
    """A formula's attributes have plain values only."""
    root = ET.Element("math")
    ET.SubElement(root, "mi", mathcolor=value).text = "y"
    assert (clean_mathml(root) == f'<math><mi mathcolor="{value}">y</mi></math>') is kept
    assert kept or clean_mathml(root) == "<math><mi>y</mi></math>"


def test_mathml():
    """Formulas are formulas: nothing but MathML comes out, however deep."""
    root = ET.fromstring(
        '<math display="block"><mtext><script>x</script><img src="x" onerror="y"/></mtext>'
        '<mi href="javascript:x" mathcolor="red" style="x">y &lt; z</mi></math>'
    )
    assert clean_mathml(root) == (
        '<math display="block"><mtext>x</mtext><mi mathcolor="red">y &lt; z</mi></math>'
    )
    deep = ET.Element("math")
    inner = deep
    for _ in range(20_000):
        inner = ET.SubElement(inner, "mrow")
    assert clean_mathml(deep).count("</mrow>") == 20_000


@pytest.mark.parametrize(
    ("markup", "too_much"),
    [
        ("<div>" * 256, False),
        ("<div>" * 257, True),
        ("<div>" * 200 + "</div>" * 200 + "<div>" * 200, False),
        ("<b>" * 16, False),
        ("<b>" * 17, True),
        ("<b></b>" * 500, False),
        ("<p " + "a=1 " * 64 + ">", False),
        ("<p " + "a=1 " * 65 + ">", True),
        ("<table>text", True),
        ("<table><br>", True),
        ("<table><tr>text", True),
        ("<table> <tr><td>text<td>text<tr><td>x</table>text<br>", False),
        ("<table><tr><td><div>x</div><table><tr><td>y</table></table>", False),
        ("<table>" + "<tr><td>x<td>y" * 500, False),
        ("<table><tr>" + "<td>x" * 300, False),
        ("<table><tr>" + "<th>x" * 300, False),
        ("<table>" + "<tbody><tr><th>x" * 300, False),
        ("<table>" + "<thead><tr><td>x" + "<tbody><tr>" + "<tfoot><tr><td>x<tbody>" * 300, False),
        ("<!-- " + "<div>" * 300, False),
        ("<!--> " + "<div>" * 300, True),
        ("<!-- --!> " + "<div>" * 300, True),
        ("<style>" + "<div>" * 300 + "</style>", False),
        ("<style></style >" + "<div>" * 300, True),
        ("<script><!-- <script></script>", True),
        ("<svg><style><a></style>", True),
        ("<svg><![CDATA[ x", True),
        ("<noscript>" + "<div>" * 300, True),
        ("<a title='" + "<div>" * 300 + "'>", False),
        ('<a ="' + ">" + "<div>" * 300, True),
        ("&" * 20_001, True),
        ("&amp;" * 20_000, False),
        ("</div>" * 500, False),
        ("< div>" * 500, False),
    ],
)
def test_what_a_parser_may_have(markup, too_much):
    """The pass over markup sees what a browser's tokenizer sees, and refuses what costs much."""
    assert look_at(markup).too_much is too_much
    assert clean_html(markup).too_much is too_much


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
        if tag not in VOID:
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
    html = clean_html(markup, scope="#o").styled
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
    assert again.count("<") == clean_html(markup).html.count("<")


@pytest.mark.parametrize("element", ["p", "table", "td", "img", "q", "blockquote", "font", "del"])
@pytest.mark.parametrize(
    "attribute",
    [
        *("background", "srcset", "poster", "action", "formaction", "ping", "srcdoc", "data"),
        *("xlink:href", "href", "dynsrc", "lowsrc", "longdesc", "cite", "manifest", "codebase"),
        *("usemap", "profile", "imagesrcset", "is", "slot", "nonce", "target", "rel", "name"),
    ],
)
def test_no_attribute_leads_elsewhere(element, attribute):
    """An attribute that loads, names or sends is kept on no element, whatever else is."""
    markup = f'<table><tr><td><{element} {attribute}="https://x.example/" title="t">'
    html = clean_html(markup).html
    assert "x.example" not in html
    assert 'title="t"' in html


@pytest.mark.parametrize(
    "source",
    [
        "data:image/png;base64,AAAA,https://x.example/",
        "data:image/png;base64,AAAA#<svg onload=x>",
        "data:image/png;base64,AAAA?x",
        "data:image/png,AAAA",
        "data:image/svg+xml,<svg/>",
        "data:image/xml;base64,AAAA",
        "data:text/html;base64,AAAA",
        " https://x.example/",
        "//x.example/",
    ],
)
def test_pictures_are_whole_data(source):
    """A picture's address is base64 of a known kind to its last character, or none."""
    cleaned = clean_html(f"<img src='{source}'>")
    assert cleaned.html == '<img alt="">'
    assert cleaned.remote == 1
    twice = clean_html(f"<img src='{source}'><img src='{source}'>")
    assert twice.remote == 2
