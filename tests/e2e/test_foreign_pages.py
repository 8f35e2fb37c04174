"""Any web page against Dagster's UI: with our guard it can do nothing, without it a lot.

The page of an attacker tries every way a browser offers to send a request to another origin. What
it wants is one change that shows: Dagster's switch for automation.
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser

pytestmark = pytest.mark.timeout(240)

GUARDED = "research_jobs.orchestration.operations.webserver"
PAUSE = "mutation { setAutoMaterializePaused(paused: true) }"
RESUME = PAUSE.replace("true", "false")
PAUSED = "{ instance { autoMaterializePaused } }"


@dataclass(frozen=True)
class Webserver:
    """A running webserver, and what its switch says."""

    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, query: str) -> Any:
        """What GraphQL answers."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def paused(self) -> bool:
        """Whether the switch was thrown."""
        return self.ask(PAUSED)["instance"]["autoMaterializePaused"]


@contextmanager
def serving(e2e: Any, module: str, folder: Path) -> Generator[Webserver]:
    """A webserver without any code location."""
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    server = Webserver(e2e.free_port())
    command = [*(sys.executable, "-m", module), "--empty-workspace", "--port", str(server.port)]
    environment = e2e.environment(DAGSTER_HOME=str(folder))
    with e2e.service(command, cwd=folder, env=environment, log=folder / "log") as process:
        assert isinstance(process, subprocess.Popen)
        e2e.wait_until("the webserver", lambda: process.poll() or e2e.answers(server.port))
        server.ask(RESUME)
        yield server


@pytest.fixture(scope="module")
def guarded(e2e: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    with serving(e2e, GUARDED, tmp_path_factory.mktemp("guarded") / "home") as server:
        yield server


@pytest.fixture(scope="module")
def bare(e2e: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    with serving(e2e, "dagster_webserver", tmp_path_factory.mktemp("bare") / "home") as server:
        yield server


@pytest.fixture(scope="module")
def attacker() -> Iterator[int]:
    """A web server with an empty page, whatever is asked for; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>any page</title>")

        def log_message(self, *_args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with open_browser(chromium) as made:
        yield made


def ways(url: str) -> dict[str, str]:
    """Scripts that each try to throw the switch from a page of another origin."""
    target = f"{url}/graphql?query={urllib.parse.quote(PAUSE)}"
    body = json.dumps(json.dumps({"query": PAUSE}))

    def post(kind: str, mode: str = "no-cors") -> str:
        headers = f"headers: {{'Content-Type': '{kind}'}}"
        return (
            f"fetch('{url}/graphql', {{method: 'POST', mode: '{mode}', body: {body}, {headers}}})"
        )

    def form(more: str) -> str:
        return (
            "const form = document.createElement('form'), field = document.createElement('input');"
            f"form.method = 'POST'; form.action = '{target}'; field.name = 'query';"
            f"field.value = '{PAUSE}'; form.append(field); document.body.append(form); {more};"
            "form.submit()"
        )

    frame = "const frame = document.createElement('iframe'); document.body.append(frame);"
    websocket = url.replace("http", "ws") + "/graphql"
    return {
        "post without a body": f"fetch('{target}', {{method: 'POST', mode: 'no-cors'}})",
        "post of text": post("text/plain"),
        "post of text that says JSON": post("text/plain; application/json"),
        "post of JSON": post("application/json", "cors"),
        "get": f"fetch('{target}', {{mode: 'no-cors'}})",
        "get without a referrer": (
            f"fetch('{target}', {{mode: 'no-cors', referrerPolicy: 'no-referrer'}})"
        ),
        "picture": f"new Image().src = '{target}'",
        "script": (
            "const script = document.createElement('script');"
            f"script.src = '{target}'; document.head.append(script)"
        ),
        "beacon": f"navigator.sendBeacon('{target}', new Blob(['x'], {{type: 'text/plain'}}))",
        "frame": f"{frame} frame.src = '{target}'",
        "form": form(""),
        "form of text": form("form.enctype = 'text/plain'"),
        "form in a frame": form(f"{frame} frame.name = 'inner'; form.target = 'inner'"),
        "going there": f"location.href = '{target}'",
        "websocket": (
            f"const socket = new WebSocket('{websocket}', 'graphql-ws');"
            "socket.onopen = () => { window.opened = true; socket.send(JSON.stringify("
            f"{{type: 'start', id: '1', payload: {{query: '{PAUSE}'}}}})) }}"
        ),
    }


@pytest.fixture
def attack(browser: Any, attacker: int) -> Iterator[Any]:
    """``attack(script, host)`` runs a script in a page of another origin; gives the page."""
    opened: list[Any] = []

    def run(script: str, host: str) -> Any:
        page = browser.new_page()
        opened.append(page)
        page.goto(f"http://{host}:{attacker}/")
        page.evaluate(f"() => {{ {script} }}")
        return page

    yield run
    for page in opened:
        page.close()


@pytest.mark.browser
def test_the_attack_works(bare: Webserver, attack: Any) -> None:
    """Without our guard the page throws the switch, in several ways: the attack is a real one."""
    scripts = ways(bare.url)
    for way in ("post without a body", "get", "picture", "beacon", "form", "going there"):
        bare.ask(RESUME)
        attack(scripts[way], "localhost").wait_for_load_state("networkidle")
        assert bare.paused() is (way != "going there"), way
    page = attack(scripts["websocket"], "localhost")
    page.wait_for_function("window.opened")


@pytest.mark.browser
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_no_page_can_do_anything(guarded: Webserver, attack: Any, host: str) -> None:
    """No way works, neither for another site nor for another port of this one (the reports')."""
    pages = [attack(script, host) for script in ways(guarded.url).values()]
    for page in pages:
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.opened") is None
    assert not guarded.paused()


@pytest.mark.browser
def test_no_page_can_frame_it(guarded: Webserver, bare: Webserver, attack: Any) -> None:
    """The UI does not show in another page's frame, where without the guard it does."""
    script = (
        "const frame = document.createElement('iframe'); frame.src = '{}/server_info';"
        "document.body.append(frame)"
    )
    for server, framed in ((bare, True), (guarded, False)):
        page = attack(script.replace("{}", server.url), "localhost")
        page.wait_for_load_state("networkidle")
        assert ("dagster_version" in page.frames[1].content()) is framed


@pytest.mark.browser
def test_its_own_page_can(guarded: Webserver, browser: Any) -> None:
    """The UI's own pages change what they like, and their websocket opens."""
    page = browser.new_page()
    page.goto(f"{guarded.url}/server_info")
    send = "query => fetch('/graphql', {method: 'POST', body: JSON.stringify({query}), headers: "
    send += "{'Content-Type': 'application/json'}}).then(answer => answer.status)"
    assert page.evaluate(send, PAUSE) == 200
    assert guarded.paused()
    assert page.evaluate(send, RESUME) == 200
    assert not guarded.paused()
    opens = (
        "() => new Promise(done => { const socket = new WebSocket("
        "`ws://${location.host}/graphql`, 'graphql-ws');"
        "socket.onopen = () => done('open'); socket.onerror = () => done('refused') })"
    )
    assert page.evaluate(opens) == "open"
    page.close()


def raw(port: int, *lines: str) -> bytes:
    """What the server says to a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(65536)


@pytest.mark.parametrize("upgrade", [(), ("Connection: Upgrade", "Upgrade: websocket")])
@pytest.mark.parametrize(
    "hosts", [["attacker.example"], ["127.0.0.1.attacker.example"], [], ["localhost", "a.example"]]
)
def test_no_foreign_name(guarded: Webserver, hosts: list[str], upgrade: tuple[str, ...]) -> None:
    """A name that an attacker made lead here gets no answer of Dagster's, and no websocket."""
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    headers = [*(f"Host: {host}" for host in hosts), *upgrade, key, "Sec-WebSocket-Version: 13"]
    answer = raw(guarded.port, "GET /graphql?query=%7Bversion%7D HTTP/1.1", *headers)
    assert answer.split()[1] in (b"400", b"403", b"421"), answer
    assert b'"version"' not in answer
