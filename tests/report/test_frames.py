"""No packet leaves the frame of an output, whatever its scripts try: shown in a browser.

A UDP socket and a TCP server on this machine listen for what WebRTC, connections made ahead, pages
within the frame, and navigation would send.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from browser import open_browser

from research_jobs.report.build import build_report, standalone
from research_jobs.report.layout import report_folder
from research_jobs.report.server import ReportServer

pytestmark = pytest.mark.browser


@dataclass
class Ears:
    """Ports on which everything that arrives is noted."""

    udp: int = 0
    tcp: int = 0
    heard: list[str] = field(default_factory=list[str])


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    found = Ears()
    stop = threading.Event()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connections = socket.socket()
    for each in (datagrams, connections):
        each.bind(("127.0.0.1", 0))
        each.settimeout(0.2)
    connections.listen(50)
    found.udp, found.tcp = datagrams.getsockname()[1], connections.getsockname()[1]

    def listen(each: socket.socket, kind: str) -> None:
        while not stop.is_set():
            try:
                if kind == "udp":
                    each.recvfrom(2000)
                    found.heard.append("packet")
                    continue
                connection = each.accept()[0]
            except TimeoutError:
                continue
            found.heard.append("connection")
            connection.settimeout(1)
            with connection, contextlib.suppress(OSError):
                if connection.recv(1):
                    found.heard.append("request")

    threads = [
        threading.Thread(target=listen, args=(datagrams, "udp")),
        threading.Thread(target=listen, args=(connections, "tcp")),
    ]
    for thread in threads:
        thread.start()
    yield found
    stop.set()
    for thread in threads:
        thread.join()
    datagrams.close()
    connections.close()


@pytest.fixture(autouse=True)
def _silence(ears: Ears) -> Iterator[None]:
    ears.heard.clear()
    yield
    ears.heard.clear()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with open_browser(chromium) as made:
        yield made


def call(ears: Ears, window: str = "window") -> str:
    """Script that sends a packet by the WebRTC of a window."""
    return (
        f"(function(w){{const C=w.RTCPeerConnection||w.webkitRTCPeerConnection;"
        f"const p=new C({{iceServers:[{{urls:'stun:127.0.0.1:{ears.udp}'}}]}});"
        "p.createDataChannel('x');p.createOffer().then(o=>p.setLocalDescription(o));"
        f"}})({window})"
    )


def tries(ears: Ears) -> dict[str, str]:
    """Ways out of a frame, each as the markup of one output. `ran` shows that its script ran."""
    code, address = call(ears), f"http://127.0.0.1:{ears.tcp}/"
    inner = f"<script>{code}</script>".replace('"', "&quot;")
    child = call(ears, "w")
    frame = "<ifr' + 'ame></ifr' + 'ame>"
    nested = f"for (let i = 0; i < window.length; i++) {{ const w = window[i]; {child} }}"
    b64 = base64.b64encode(f"<script>{code}</script>".encode()).decode()
    link = f"<link rel=preconnect href={address}>"
    script: dict[str, str] = {
        "itself": code,
        "found again": f"delete window.RTCPeerConnection; {code}",
        "by its prototype": f"const w = Object.getPrototypeOf(window); {child}",
        "made": f"const f = document.createElement('iframe'); document.body.append(f);"
        f"const w = f.contentWindow; {child}",
        "made in capitals": f"const f = document.createElement('IFRAME'); document.body.append(f);"
        f"const w = f.contentWindow; {child}",
        "made by object": "const f = document.createElement({toString: () => 'iframe'});"
        f"document.body.append(f); const w = f.contentWindow; {child}",
        "made in a space": "const f = document.createElementNS('http://www.w3.org/1999/xhtml',"
        f"'x:iframe'); document.body.append(f); const w = f.contentWindow; {child}",
        "made elsewhere": "const d = document.implementation.createHTMLDocument('');"
        "const f = d.createElement('iframe'); document.body.append(f);"
        f"const w = f.contentWindow; {child}",
        "inner": f"document.body.innerHTML += '{frame}'; {nested}",
        "outer": f"const d = document.createElement('div'); document.body.append(d);"
        f"d.outerHTML = '{frame}'; {nested}",
        "adjacent": f"document.body.insertAdjacentHTML('beforeend', '{frame}'); {nested}",
        "fragment": "document.body.append(document.createRange().createContextualFragment("
        f"'{frame}')); {nested}",
        "parsed": f"const d = new DOMParser().parseFromString('{frame}', 'text/html');"
        f"document.body.append(d.querySelector('*|iframe')); {nested}",
        "parsed as XML": "const d = new DOMParser().parseFromString('<i' + 'frame xmlns="
        '"http://www.w3.org/1999/xhtml"/>\', "application/xml");'
        f"document.body.append(d.documentElement); {nested}",
        "written": f"document.write('<ifr'); document.write('ame></iframe>'); {nested}",
        "written elsewhere": "const d = document.implementation.createHTMLDocument('');"
        "Document.prototype.write.call(d, '<ifr'); Document.prototype.write.call(d, 'ame>');"
        f"document.body.append(d.querySelector('iframe')); {nested}",
        "unsafely": f"document.body.setHTMLUnsafe('{frame}'); {nested}",
        "shadow": "const h = document.createElement('div'); document.body.append(h);"
        f"h.attachShadow({{mode: 'open'}}).innerHTML = '{frame}'; {nested}",
        "own policy": "const p = trustedTypes.createPolicy('mine', {createHTML: s => s});"
        f"document.body.innerHTML = p.createHTML('{frame}'); {nested}",
        "policy again": "const p = trustedTypes.createPolicy('rj', {createHTML: s => s});"
        f"document.body.innerHTML = p.createHTML('{frame}'); {nested}",
        "custom": "class F extends HTMLIFrameElement {}; customElements.define('x-f', F,"
        f"{{extends: 'iframe'}}); document.body.append(new F()); {nested}",
        "poisoned": "String.prototype.toLowerCase = () => ''; String.prototype.indexOf = () => -1;"
        "Reflect.apply = () => -1; Array.prototype[Symbol.iterator] = function* () {};"
        f"document.body.innerHTML = '{frame}'; document.body.append("
        f"document.createElement('iframe')); {nested}",
        "own property": "delete document.createElement; delete Document.prototype.createElement;"
        f"document.body.append(document.createElement('iframe')); {nested}",
        "template": "const t = document.querySelector('template'); "
        f"document.body.append(t.content.cloneNode(true)); {nested}",
        "blob": f"const u = URL.createObjectURL(new Blob([atob('{b64}')], {{type: 'text/html'}}));"
        "document.body.innerHTML += '<obj' + `ect data=${u}></object>`; location = u",
        "data": f"location = 'data:text/html;base64,{b64}'",
        "opens": f"open('{address}'); open('about:blank')",
        "fetches": f"fetch('{address}'); new WebSocket('{address}'.replace('http', 'ws'));"
        f"new EventSource('{address}'); navigator.sendBeacon('{address}');"
        f"new Image().src = '{address}'; import('{address}x.js')",
        "transport": f"new WebTransport('https://127.0.0.1:{ears.udp}/')",
        "worker": "new Worker(URL.createObjectURL(new Blob(["
        f"`fetch('{address}'); new WebSocket('{address}'.replace('http', 'ws'));"
        f"new WebTransport('https://127.0.0.1:{ears.udp}/'); importScripts('{address}')`])))",
        "link made": "const l = document.createElement('link'); l.rel = 'preconnect';"
        f"l.href = '{address}'; document.head.append(l)",
        "link inner": f"document.head.innerHTML += '<li' + 'nk rel=preconnect href={address}>'",
        "meta made": "const m = document.createElement('meta'); m.httpEquiv = 'refresh';"
        f"m.content = '0;{address}'; document.head.append(m)",
        "prefetch": "const s = document.createElement('script'); s.type = 'speculationrules';"
        f"s.textContent = JSON.stringify({{prefetch: [{{urls: ['{address}']}}]}});"
        "document.head.append(s)",
    }
    markup = {
        "static page": f"<iframe></iframe><script>{nested}</script>",
        "static text": f'<iframe srcdoc="{inner}"></iframe>',
        "static object": f"<object data='data:text/html;base64,{b64}'></object>",
        "static embed": f"<embed src='{address}'>",
        "static link": link,
        "static links": f"<link rel='dns-prefetch preconnect' href={address}><a href={address}>x",
        "static refresh": f"<meta http-equiv=refresh content='0;{address}'>",
        "static base": f"<base href={address}><img src=x><a href=x ping=y>z</a>",
        "set of frames": f"<frameset><frame src='{address}'></frameset>",
        "hidden": f"<template><iframe></iframe><template>{link}<iframe></iframe></template>"
        "</template>",
        "svg": f"<svg><foreignObject><iframe></iframe></foreignObject><image href='{address}'/>"
        f"<use href='{address}#a'/></svg>",
        "ends the script": f"</script><script>{code}</script>{link}",
    }
    ran = "<script>window.ran = 1</script>"
    outputs = {name: f"{ran}<script>{body}</script>" for name, body in script.items()}
    outputs["template"] = "<template><iframe></iframe></template>" + outputs["template"]
    return outputs | {
        name: ran + body + f"<script>{nested}</script>" for name, body in markup.items()
    }


def departures(ears: Ears) -> dict[str, str]:
    """Ways for a frame to go to another page."""
    address = f"http://127.0.0.1:{ears.tcp}/"
    put = "document.body.append(e); e"
    scripts = [
        f"location = '{address}'",
        f"location.replace('{address}')",
        f"navigation.navigate('{address}')",
        f"const e = document.createElement('a'); e.href = '{address}'; {put}.click()",
        f"const e = document.createElement('form'); e.action = '{address}'; {put}.submit()",
        f"parent.location = '{address}'",
        f"top.location = '{address}'",
    ]
    return {script: f"<script>{script}</script>" for script in scripts}


def make_report(captures: Any, header: Any, folder: Any, outputs: dict[str, str]) -> Any:
    def shows(recorder: Any) -> None:
        for markup in outputs.values():
            recorder.display({"text/html": markup})

    run = header()
    capture = captures.write("# %%\nx = 1\n", {1: shows})
    return build_report(capture, run, report_folder(folder, run), reports=folder)


def test_ears_hear(browser, ears, tmp_path):
    """A page that nothing holds back is heard, on both ports."""
    page = browser.new_page()
    (tmp_path / "bare.html").write_text(
        f"<script>{call(ears)}</script><img src=http://127.0.0.1:{ears.tcp}/>"
    )
    page.goto((tmp_path / "bare.html").as_uri())
    page.wait_for_timeout(1500)
    assert set(ears.heard) == {"packet", "connection", "request"}
    page.close()


@pytest.mark.parametrize("way", ["served", "file", "standalone"])
def test_no_packet_leaves(browser, ears, captures, header, tmp_path, way):
    """Of some fifty ways out of a frame none opens a connection; the scripts themselves run."""
    outputs = tries(ears)
    folder = tmp_path / "reports"
    report = make_report(captures, header, folder, outputs)
    assert len(list((report.folder / "frames").iterdir())) == len(outputs)
    address = report.html.as_uri()
    if way == "standalone":
        (tmp_path / "mail.html").write_text(standalone(report.html))
        address = (tmp_path / "mail.html").as_uri()
    with ReportServer(folder, port=0) as server:
        if way == "served":
            address = f"{server.url}/{report.html.relative_to(folder).as_posix()}"
        page = browser.new_page()
        page.goto(address)
        page.evaluate("document.querySelectorAll('iframe').forEach(f => { f.loading = 'eager' })")
        page.wait_for_timeout(2500)
        ran = [frame for frame in page.frames[1:] if frame.evaluate("window.ran") == 1]
        page.close()
    assert len(ran) >= len(outputs) - 6  # some leave their own page, for an empty one
    assert ears.heard == []


@pytest.mark.parametrize("way", ["served", "file"])
def test_no_request_leaves(browser, ears, captures, header, tmp_path, way):
    """A frame that goes to another page sends no request: at most a connection is opened."""
    folder = tmp_path / "reports"
    report = make_report(captures, header, folder, departures(ears))
    with ReportServer(folder, port=0) as server:
        page = browser.new_page()
        served = f"{server.url}/{report.html.relative_to(folder).as_posix()}"
        page.goto(served if way == "served" else report.html.as_uri())
        page.wait_for_timeout(2500)
        assert "report.html" in page.url
        page.close()
    assert not {"packet", "request"} & set(ears.heard)


@pytest.mark.parametrize("way", ["served", "file"])
def test_frame_opened_by_itself(browser, ears, captures, header, tmp_path, way):
    """A frame's page that is opened without its report shows a line and runs nothing."""
    folder = tmp_path / "reports"
    report = make_report(captures, header, folder, tries(ears))
    with ReportServer(folder, port=0) as server:
        page = browser.new_page()
        for frame in sorted((report.folder / "frames").iterdir()):
            base = server.url if way == "served" else folder.as_uri()
            page.goto(f"{base}/{frame.relative_to(folder).as_posix()}")
            assert page.evaluate("window.ran") is None
            assert page.evaluate("window.length") == 0
        page.wait_for_timeout(500)
        page.close()
    assert ears.heard == []


def test_libraries_work(browser, captures, header, tmp_path):
    """What libraries do in a frame works: markup, handlers, workers, drawings, scripts in order."""
    body = """<div id=a onclick="window.clicked = event.type"></div><script>window.order = [1];
    document.addEventListener('DOMContentLoaded', () => order.push('loaded'))</script>
    <script>order.push(2); document.getElementById('a').innerHTML = '<b>bold</b><svg><g/></svg>';
    order.push(document.currentScript.tagName, new Function('return 3')(), eval('4'));
    document.getElementById('a').click();
    const c = document.createElement('canvas'); document.body.append(c);
    c.getContext('2d').fill();
    const w = new Worker(URL.createObjectURL(new Blob(['postMessage(5)'])));
    w.onmessage = e => order.push(e.data);
    try { trustedTypes.createPolicy('lit', {createHTML: s => s}) } catch (e) { order.push('no') }
    </script><style>b { color: rgb(1, 2, 3) }</style>"""
    report = make_report(captures, header, tmp_path / "reports", {"library": body})
    page = browser.new_page()
    page.goto(report.html.as_uri())
    page.wait_for_timeout(800)
    frame = page.frames[1]
    assert frame.evaluate("order") == [1, 2, "SCRIPT", 3, 4, "loaded", 5]
    assert frame.evaluate("window.clicked") == "click"
    assert frame.evaluate("getComputedStyle(document.querySelector('b')).color") == "rgb(1, 2, 3)"
    page.close()


def test_styles_stay_inside(browser, captures, header, tmp_path):
    """No style of an output hides, moves or covers what stands before and after it."""
    sheets = [
        "~ * {display: none}",
        "+ * {display: none}",
        "* {display: none !important} ~ * {display: none}",
        ":root, html, body, main, section {display: none}",
        ":has(p) {display: none}",
        "*:has(~ *) {display: none}",
        "p {margin: -500px; position: fixed; inset: 0; background: #fff}",
        "p {margin-bottom: -9999px} p {transform: scale(99)}",
        "p {box-shadow: 0 0 0 9999px #fff; outline: 9999px solid #fff; z-index: 99}",
        "p { & ~ * {display: none} }",
        "@scope (body) { * {display: none} }",
        "@media all { * {display: none} }",
        "p {--x: none} * {display: var(--x)}",
        "</style><style>* {display: none}",
    ]

    def shows(recorder: Any) -> None:
        recorder.stream("stdout", "BEFORE\n")
        for sheet in sheets:
            recorder.display({"text/html": f"<style>{sheet}</style><p style='float: left'>x</p>"})
        recorder.display({"text/html": "<p style='margin: -9999px; background: #fff'>x</p>"})
        recorder.display({"text/markdown": "<style>~ * {display: none}</style>\n\nx"})
        recorder.stream("stdout", "AFTER\n")
        recorder.error("ValueError", "this must be visible", ["Traceback"], 1)

    run = header(ending="failed")
    capture = captures.write("# %%\nx = 1\n", {1: shows}, status={1: "error"})
    report = build_report(capture, run, tmp_path / "out")
    page = browser.new_page()
    page.goto(report.html.as_uri())
    for selector in ("pre.rj-out >> nth=0", "pre.rj-out >> nth=-1", ".rj-error", "header.rj-head"):
        place = page.locator(selector)
        assert place.is_visible()
        box = place.bounding_box()
        assert box["width"] > 50
        assert box["height"] > 5
        # What is in its middle is itself, and nothing that covers it.
        place.scroll_into_view_if_needed()
        assert place.evaluate(
            "e => { const r = e.getBoundingClientRect();"
            "const t = document.elementFromPoint(r.left + 20, r.top + r.height / 2);"
            "return e === t || e.contains(t) }"
        )
    page.close()


def test_figure_in_the_gallery(browser, captures, header, tmp_path):
    """The gallery draws a figure of plotly's with plotly's own script, from the disk too."""
    from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery

    folder = tmp_path / "reports"
    figure = {"data": [{"type": "bar", "x": ["a", "b"], "y": [1, 2]}], "layout": {}}
    for name in ("alpha", "beta"):
        run = header(notebook=name)
        capture = captures.write(
            "# %%\nx = 1\n",
            {1: lambda r: r.display({"application/vnd.plotly.v1+json": figure})},
        )
        report = build_report(capture, run, report_folder(folder, run), reports=folder)
        update_gallery(folder, GalleryEntry(NotebookCard(name), run, report))
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri() + "#view=charts")
    page.locator(".rg-plot .bars path").first.wait_for(timeout=10_000)
    page.wait_for_timeout(300)
    assert page.locator(".rg-plot .main-svg .bars").count() == 2
    page.fill("input[type=search]", "beta")
    page.locator(".rg-plot .bars path").first.wait_for(timeout=10_000)
    assert page.locator(".rg-plot .bars").count() == 1
    page.close()
