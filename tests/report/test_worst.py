"""Parsers over what a notebook showed take time in proportion to it: 1 MB of the worst of each.

Where a limit cuts in, what is just below it is tried as well.

Each runs in a process of its own whose CPU time the kernel limits: a parser that does not end is
killed, and the test fails. No clock is read, and other work on the machine changes nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

SIZE = 400000
SECONDS = 20

ANSI = {
    "down": lambda n: "\x1b[999999999Bx" * (n // 13),
    "down, digits": lambda n: f"\x1b[{'9' * n}B",
    "colour, digits": lambda n: f"\x1b[{'9' * n}mx",
    "colours": lambda n: f"\x1b[{'1;' * (n // 2)}mx",
    "up and down": lambda n: "a\n\x1b[A\x1b[B" * (n // 8),
    "erase": lambda n: "x\x1b[K" * (n // 4),
    "erase, fresh": lambda n: "\rx\x1b[K" * (n // 5),
    "returns": lambda n: "x\r" * (n // 2),
    "returns only": lambda n: "\r" * n,
    "backspaces": lambda n: "a" * (n // 2) + "\b" * (n // 2),
    "backspaces, text": lambda n: "a" * (n // 2) + "\bx" * (n // 4),
    "backspaces, colours": lambda n: "\x1b[1m" * (n // 8) + "\b" * (n // 2),
    "colour and plain": lambda n: "\x1b[1;2;3;4;7;9;31;41mx\x1b[0mx" * (n // 28),
    "titles": lambda n: "\x1b]" * (n // 2),
    "titles, closed": lambda n: "\x1b]0;a\x07" * (n // 6),
    "open sequences": lambda n: "\x1b[1" * (n // 3),
    "one line": lambda n: "<" * n,
    "lines": lambda n: "\n" * n,
    "controls": lambda n: "\x00\x1b" * (n // 2),
}
HTML = {
    "nested": lambda n: "<div>" * (n // 5),
    "nested, closed": lambda n: "<b>" * (n // 6) + "</i>" * (n // 6),
    "formats": lambda n: "".join(f"<b id={k}>" for k in range(16)) + "<p>x" * (n // 4),
    "formats, many": lambda n: "<b>" * 250 + "<p>x" * (n // 4),
    "formats, closed badly": lambda n: "<a><b></a></b>" * (n // 14),
    "in a table": lambda n: "<table>" + "<br>" * (n // 4),
    "text in a table": lambda n: "<table>" + "x<tr>" * (n // 5),
    "tables": lambda n: "<table><tr><td>" * (n // 15),
    "deep and wide": lambda n: "<div>" * 250 + "<i>x</i>" * (n // 8),
    "end tags": lambda n: "<div>" * 250 + "</i>" * (n // 4),
    "lists": lambda n: "<ul><li>" * 100 + "<li>x" * (n // 5),
    "attributes": lambda n: "<b " + "".join(f"a{k} " for k in range(n // 8)) + ">",
    "attributes, many tags": lambda n: ("<b " + "a=1 " * 60 + ">x</b>") * (n // 250),
    "attribute, long": lambda n: "<b title='" + "x" * n,
    "attributes, open": lambda n: "<b a='" * (n // 6),
    "styles": lambda n: "<b style='color:red;a:b'>x</b>" * (n // 30),
    "styles, each its own": lambda n: "".join(
        f"<b style='width:{k}px'>x</b>" for k in range(n // 30)
    ),
    "entities": lambda n: "&amp;" * (n // 5),
    "entities, odd": lambda n: "&notit;&#x10ffff;&" * (n // 18),
    "entity, long": lambda n: "&#" + "9" * n,
    "comments": lambda n: "<!--" * (n // 4),
    "comments, closed": lambda n: "<!---->" * (n // 7),
    "comments, almost": lambda n: "<!--" + "--!" * (n // 3),
    "less": lambda n: "<" * n,
    "tags, open": lambda n: "<a " * (n // 3),
    "declarations": lambda n: "<!a" * (n // 3),
    "raw": lambda n: "<title>" * (n // 7),
    "raw, closed": lambda n: "<title></title>" * (n // 15),
    "unknown": lambda n: "<x-y>a</x-y>" * (n // 12),
    "pictures": lambda n: "<img src='data:image/png;base64," + "A" * n + "'>",
    "pictures, not quite": lambda n: "<img src='data:image/png;base64," + "A" * n + "!'>",
    "remote, open": lambda n: "<img " * (n // 5) + "<script>",
    "links": lambda n: "<a href='http://" + "a" * n + " '>x</a>",
    "classes": lambda n: "<b class='" + "a " * (n // 2) + "'>x</b>",
    "svg": lambda n: "<svg>" + "<g>" * (n // 3),
}
CSS = {
    "nested": lambda n: "a{" * (n // 2),
    "blocks": lambda n: "{" * n,
    "brackets": lambda n: "a{b:" + "(" * n,
    "functions": lambda n: "a{width:" + "calc(" * (n // 5),
    "escapes": lambda n: "\\" * n,
    "escapes, names": lambda n: "a{\\62 :\\63 ;}" * (n // 13),
    "declarations": lambda n: "a{" + "color:red;" * (n // 10) + "}",
    "declarations, short": lambda n: "a{" + "a:b;" * (n // 4) + "}",
    "declarations, none": lambda n: "a{" + "a{};:" * (n // 5) + "}",
    "rules": lambda n: "a{color:red}" * (n // 12),
    "selectors": lambda n: "a," * (n // 2) + "a{color:red}",
    "selectors, long": lambda n: "a>" * (n // 2) + "a{color:red}",
    "combinators": lambda n: "a" + "~" * n + "{color:red}",
    "comments": lambda n: "/*" * (n // 2),
    "strings": lambda n: "'" * n,
    "strings, open": lambda n: "'a\n" * (n // 3),
    "urls": lambda n: "url(( " * (n // 6),
    "at": lambda n: "@" * n,
    "numbers": lambda n: "a{width:" + "1e" * (n // 2) + "}",
}
MARKDOWN = {
    "quotes": lambda n: "> " * (n // 2),
    "quotes, lazy": lambda n: "> " * 500 + "a\n" * (n // 2),
    "lists": lambda n: "- " * (n // 2),
    "lists, deep": lambda n: "".join(" " * k + "- a\n" for k in range(1300)),
    "brackets": lambda n: "[" * n,
    "brackets, lines": lambda n: "[\n" * (n // 2),
    "links": lambda n: "[a](" * (n // 4),
    "links, nested": lambda n: "[" * (n // 5) + "](a)" * (n // 5),
    "pictures": lambda n: "![" * (n // 2),
    "backticks": lambda n: "".join("`" * k + "a" for k in range(1, 1400)),
    "emphasis": lambda n: "*a **a " * (n // 7),
    "emphasis, mixed": lambda n: "a**b" + "c* " * (n // 3),
    "underscores": lambda n: "_a" * (n // 2),
    "strikes": lambda n: "~~a" * (n // 3),
    "tags": lambda n: "<a " * (n // 3),
    "comments": lambda n: "<!-- " * (n // 5),
    "instructions": lambda n: "<?a " * (n // 4),
    "less": lambda n: "<" * n,
    "addresses": lambda n: "<http:a" * (n // 7),
    "references": lambda n: "".join(f"[a{k}]: b\n" for k in range(n // 10)),
    "reference, open": lambda n: "[a]: b '" + "c\n" * (n // 2),
    "entities": lambda n: "&amp;" * (n // 5),
    "table": lambda n: "|" * 300 + "\n" + "|-" * 300 + "\n" + "a\n" * (n // 2),
    "fences": lambda n: "```\n" * (n // 4),
    "backslashes": lambda n: "\\" * n,
    "headings": lambda n: "# a\n" * (n // 4),
    "markup": lambda n: "<h1>" * (n // 4),
    "spaces": lambda n: "a" + " " * n + "b",
    "dollars": lambda n: "$a " * (n // 3),
    "formulas": lambda n: "$x^2$ " * (n // 6),
    "blocks": lambda n: "$$\na\n" * (n // 5),
    "environments": lambda n: "\\begin{align}\n" * (n // 14),
    "parentheses": lambda n: "\\(" * (n // 2),
    "parentheses, one closed": lambda n: "\\(a " * (n // 4) + "\\)",
    "tasks": lambda n: "- [x] a\n" * (n // 8),
}
LATEX = {
    "braces": lambda n: "{" * (n // 2) + "}" * (n // 2),
    "braces, open": lambda n: "{" * n,
    "powers": lambda n: "x^{" * (n // 4) + "}" * (n // 4),
    "fractions": lambda n: "\\frac{a}{" * (n // 10) + "}" * (n // 10),
    "rows": lambda n: "\\begin{matrix}" + "a&b\\\\" * (n // 5) + "\\end{matrix}",
    "environments": lambda n: "\\begin{matrix}" * (n // 14),
    "left": lambda n: "\\left(" * (n // 6),
    "labels": lambda n: "\\label{" * (n // 7),
    "text": lambda n: "\\text{" * (n // 6),
    "plain": lambda n: "x+" * (n // 2),
    "dollars": lambda n: "$" * n,
    "backslashes": lambda n: "\\" * n,
    "primes": lambda n: "x'" * (n // 2),
}
SVG = {
    "nested": lambda n: "<g>" * (n // 3),
    "nested, hidden": lambda n: "<a>" * (n // 7) + "</a>" * (n // 7),
    "attributes": lambda n: "<rect " + "".join(f"a{k}='' " for k in range(n // 10)) + "/>",
    "values": lambda n: "<rect fill='" + "url(#a) " * (n // 8) + "'/>",
    "values, open": lambda n: "<rect fill='" + "url(#a " * (n // 7) + "'/>",
    "picture": lambda n: "<image href='data:image/png;base64," + "A" * n + "!'/>",
    "entities": lambda n: "&amp;" * (n // 5),
    "shapes": lambda n: "<path/>" * (n // 7),
    "namespaces": lambda n: "".join(
        f"<a{k}:rect xmlns:a{k}='http://www.w3.org/2000/svg'/>" for k in range(n // 50)
    ),
}
JSON = {
    "nested": lambda n: "[" * (n // 2) + "]" * (n // 2),
    "objects": lambda n: '{"a":' * (n // 6) + "1" + "}" * (n // 6),
    "keys": lambda n: "{" + ",".join(f'"{k}":1' for k in range(n // 10)) + "}",
    "digits": lambda n: "1" * n,
    "escapes": lambda n: '"' + "\\u0041" * (n // 6) + '"',
}
PYTHON = {
    "match": lambda n: "match " * (n // 6),
    "match, lines": lambda n: "match x:\n" * (n // 9),
    "colons": lambda n: "match " + ": " * (n // 2) + "x",
    "spaces": lambda n: " " * n + "match",
    "strings, open": lambda n: "'a" * (n // 2),
    "texts, open": lambda n: '"""\\' + "\\" * n,
    "texts": lambda n: '"""a' * (n // 4),
    "prefixes": lambda n: "rb" * (n // 2),
    "numbers": lambda n: "1_" * (n // 2),
    "decorators": lambda n: "@a." * (n // 3),
    "comments": lambda n: "#" * n,
}
KINDS: dict[str, dict[str, Callable[[int], str]]] = {
    "ansi": ANSI,
    "html": HTML,
    "css": CSS,
    "markdown": MARKDOWN,
    "latex": LATEX,
    "svg": SVG,
    "json": JSON,
    "python": PYTHON,
}

CODE = """
import json, os, resource, sys, traceback
from pathlib import Path
from research_jobs.report.ansi import ansi_to_html, settle_lines
from research_jobs.report.css import harmless_declarations, scoped_css
from research_jobs.report.highlight import highlight_python
from research_jobs.report.outputs import Renderer, warm_up
from research_jobs.report.record import Error, Output, RecordedCell, Stream, read_capture
from research_jobs.report.sanitize import clean_html
from research_jobs.report.svg import clean_svg
kind, cases, seconds = json.load(sys.stdin)
warm_up()
cell = RecordedCell(1, "code", None, [], 1, "", "ok")
def show(mime, value):
    return Renderer().render(Output("display_data", {mime: value}, {}), cell)
def read(line):
    path = Path(sys.argv[1])
    path.write_text(line + "\\n")
    return read_capture(path).cells
WAYS = {
    "ansi": [
        settle_lines, ansi_to_html,
        lambda text: Renderer().render(Stream("stdout", [text]), cell),
        lambda text: Renderer().render(Error(text, text, [text], None), cell),
        lambda text: show("text/plain", text),
    ],
    "html": [lambda text: clean_html(text, scope="#o"), lambda text: show("text/html", text)],
    "css": [
        lambda text: scoped_css(text, "#o"), harmless_declarations,
        lambda text: scoped_css(text[:100_000], "#o"),
        lambda text: harmless_declarations(text[:100_000]),
        lambda text: show("text/html", f"<style>{text}</style><p>x</p>"),
    ],
    "markdown": [
        lambda text: show("text/markdown", text),
        lambda text: show("text/markdown", text[:50_000]),
        lambda text: Renderer().prose(text[:50_000], anchor="a"),
    ],
    "latex": [
        lambda text: show("text/latex", text), lambda text: show("text/latex", text[:4000]),
        lambda text: show("text/markdown", f"$${text[:3000]}$$"),
    ],
    "svg": [
        lambda text: clean_svg(f"<svg xmlns='http://www.w3.org/2000/svg'>{text}</svg>"),
        lambda text: show("image/svg+xml", text),
    ],
    "json": [
        read, lambda text: read('{"type": "output", "cell": 1, "data": ' + text + "}"),
        lambda text: show("application/json", text), lambda text: show("text/html", [text]),
    ],
    "python": [highlight_python],
}
for name, text in cases.items():
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        try:
            for way in WAYS[kind]:
                way(text)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        print(f"{kind}, {name}: {status}", flush=True)
print("done")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_worst(tmp_path, kind):
    """One megabyte of what is hardest on a parser ends within the CPU time that it may take."""
    size = 200_000 if kind == "python" else SIZE  # as much source as a page shows
    cases = {name: make(size) for name, make in KINDS[kind].items()}
    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "capture.jsonl"],
        input=json.dumps([kind, cases, SECONDS]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr[-2000:]
