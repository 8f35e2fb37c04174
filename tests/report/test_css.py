"""Style confined to its output."""

import pytest

from research_jobs.report.css import CSS_LIMIT, harmless_declarations, scoped_css


def test_sheet():
    """At-rules, addresses and rules that reach outside are dropped; the rest is confined."""
    css = """
        @import url(x); @media print { p { color: red } } @font-face { font-family: x }
        /* } */ .a > td, #b:hover { color: red; background: url(x); position: fixed }
        html { display: none } * { color: blue } p:NTH-child(2n+1) { color: rgb(1, 2, 3) }
        .a ~ .b + i { color: red !important } p { "Segoe UI": x; font-family: "Segoe UI", serif }
    """
    assert scoped_css(css, "#o").split("\n") == [
        "#o .u-a > td, #o #u-b:hover { color: red }",
        "#o html { display: none }",
        "#o * { color: blue }",
        "#o p:nth-child(2n+1) { color: rgb(1, 2, 3) }",
        "#o .u-a ~ .u-b + i { color: red !important }",
        '#o p { font-family: "Segoe UI", serif }',
    ]


@pytest.mark.parametrize(
    "selector",
    [
        "~ *",
        "+ p",
        "> p",
        "~",
        "",
        ", p",
        "p,",
        "p >",
        "a, ~ *",
        ":root",
        ":host",
        ":has(p)",
        "*:has(~ p)",
        ":is(p)",
        ":not(p)",
        ":where(p)",
        "::slotted(p)",
        "p::before",
        "&",
        "& ~ *",
        "p & ~ *",
        "[title]",
        "p || td",
        "svg|a",
        "*|*",
        ":nth-child(2n of p)",
        ":nth-child(1 of ~ *)",
        r"\3c /style\3e",
        r".a\3c b",
        "\\7e *",
        "@x ~ *",
        "p:target",
    ],
)
def test_selectors_that_reach_outside(selector):
    """A selector whose parts are not all plain drops its rule."""
    css = scoped_css(f"{selector} {{ display: none }} i {{ color: red }}", "#o")
    assert "display" not in css
    assert "<" not in css


@pytest.mark.parametrize(
    "body",
    [
        "position: fixed",
        "position: absolute; top: 0",
        "margin: -10px",
        "margin-top: -1px !important",
        "margin-left: calc(0px - 50px)",
        "text-indent: -9999px",
        "transform: scale(9)",
        "z-index: 9",
        "--x: red",
        "color: var(--x)",
        "background: url(x)",
        "background: URL('x')",
        "background: image-set('x' 1x)",
        "background: \\75rl(x)",
        "background: src('x')",
        "width: expression(x)",
        "width: env(x)",
        "content: 'x'",
        "inset: 0",
        "box-shadow: 0 0 0 9999px white",
        "outline: 9999px solid white",
        "font-family: '</style>'",
        "font-family: '\\3c/style>'",
        "color: red<",
        "color: {red}",
        "color: (red)",
        "display: contents",
        "filter: blur(1px)",
        "animation: x",
        "behavior: x",
        "-moz-binding: x",
        "~ * { color: red }",
        "& ~ * { color: red }",
        "@media all { color: red }",
        "color: " + "calc(" * 8 + "1px" + ")" * 8,
    ],
)
def test_declarations_that_reach_outside(body):
    """What could draw elsewhere, load something or end the sheet is dropped; the rest stays."""
    assert harmless_declarations(f"{body}; font-size: 1px") in ("font-size: 1px", "")
    assert harmless_declarations(f"font-size: 1px; {body}") == "font-size: 1px"
    assert scoped_css(f"p {{ font-size: 1px; {body} }}", "#o") == "#o p { font-size: 1px }"


def test_kept():
    """What tables use is kept as it was written."""
    text = (
        "background: linear-gradient(90deg, #d65f5f 50.0%, transparent 50.0%); "
        "width: calc(100% - 5px); border: 1px solid rgba(0, 0, 0, .5); margin: 0 auto"
    )
    assert harmless_declarations(text) == text


def test_limit():
    """A sheet beyond the limit is dropped whole, one at the limit is kept."""
    rule = "p{color:red}"
    fits = rule + " " * (CSS_LIMIT - len(rule))
    assert scoped_css(fits, "#o") == "#o p { color: red }"
    assert scoped_css(fits + " ", "#o") == ""
    assert harmless_declarations("color:red" + " " * (CSS_LIMIT - 9)) == "color: red"
    assert harmless_declarations("color:red" + " " * (CSS_LIMIT - 8)) == ""


@pytest.mark.parametrize(
    "value", ["-1px", "-.1em", "1px -1px", "calc(1px - 9px)", "calc(1px * 9)", "max(1px, 9px)"]
)
@pytest.mark.parametrize(
    "name",
    [
        *("margin", "margin-top", "margin-right", "margin-bottom", "margin-left"),
        *("text-indent", "letter-spacing"),
    ],
)
def test_nothing_is_moved_out_of_its_place(name, value):
    """No margin, indent or spacing is negative or of unknown size."""
    assert harmless_declarations(f"{name}: {value}") == ""
    assert harmless_declarations(f"{name.upper()}: {value}") == ""
    assert harmless_declarations(f"{name}: 1px") == f"{name}: 1px"


@pytest.mark.parametrize("sign", ["<", ">", "\\\\"])
def test_signs_that_end_a_sheet(sign):
    """A text in a value that holds a sign of markup or an escape drops its declaration."""
    assert harmless_declarations(f'font-family: "a{sign}b"') == ""
    assert harmless_declarations('font-family: "a/b"') == 'font-family: "a/b"'


@pytest.mark.parametrize(
    ("value", "kept"),
    [("block", True), ("BLOCK", True), ("none", True), ("contents", False), ("CONTENTS", False)],
)
def test_displays_in_any_case(value, kept):
    """CSS has no case: a display is kept or dropped however it is written."""
    assert harmless_declarations(f"display: {value}") == (f"display: {value}" if kept else "")


def test_functions_nest_so_deep():
    """Six functions in one another are kept, and seven are dropped."""

    def nested(depth):
        return "calc(" * depth + "1px" + ")" * depth

    assert harmless_declarations(f"width: {nested(6)}") == f"width: {nested(6)}"
    assert harmless_declarations(f"width: {nested(7)}") == ""
