"""What would open a browser is in the report, and the run goes on."""

from __future__ import annotations

import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from research_jobs.notebook.cells import read_notebook_text
from research_jobs.report.record import read_capture
from research_jobs.runtime.importer import import_notebook
from research_jobs.runtime.recording import open_recorder

PLOTLY = "application/vnd.plotly.v1+json"
WRITTEN = """
import webbrowser, pathlib
path = pathlib.Path('{folder}/page one.html')
path.write_text('<h1>served</h1>')
assert webbrowser.{how}(path.as_uri())
"""
SERVED = """
import http.server, threading, webbrowser
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>served</h1>")
    def log_message(self, *args): ...
server = http.server.HTTPServer(("127.0.0.1", 0), Page)
webbrowser.get("firefox").open(f"http://127.0.0.1:{server.server_port}")
server.handle_request()
server.server_close()
"""


def shown(tmp_path: Path, cell: str) -> list[Any]:
    """What a notebook of one cell showed."""
    path = tmp_path / "opens.py"
    path.write_text(f"# %%\n{cell}\n# %%\nprint('went on')\n")
    recorder = open_recorder(str(tmp_path / "capture.jsonl"))
    try:
        import_notebook(read_notebook_text(path), "opens", recorder=recorder)
    finally:
        sys.modules.pop("opens", None)
        recorder.end("succeeded")
    first, last = read_capture(tmp_path / "capture.jsonl").cells
    assert [item.text for item in last.shown] == ["went on\n"]
    return first.shown


@pytest.mark.parametrize(
    "renderer", ["browser", "firefox", "chrome", "chromium", "databricks", "png", "svg"]
)
@pytest.mark.parametrize("how", ["default", "call"])
def test_plotly(tmp_path: Path, renderer: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of plotly's renderers that wants a browser leaves the chart, once."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no browser
    set_default = f"pio.renderers.default = {renderer!r}\n" if how == "default" else ""
    argument = "" if how == "default" else f"renderer={renderer!r}"
    items = shown(
        tmp_path,
        "import plotly.graph_objects as go, plotly.io as pio\n"
        f"before = pio.renderers.default\n{set_default}"
        f"go.Figure(go.Scatter(y=[1, 2])).show({argument})\n"
        "pio.renderers.default = before\n",
    )
    (chart,) = [item for item in items if hasattr(item, "data")]
    assert chart.data[PLOTLY]["data"][0]["y"] == [1, 2]


@pytest.mark.parametrize(
    "cell",
    [
        WRITTEN,
        SERVED,
    ],
)
@pytest.mark.parametrize("how", ["open", "open_new", "open_new_tab"])
def test_a_page(tmp_path: Path, cell: str, how: str) -> None:
    """A page that a library writes, or serves once, and opens in a browser is in the report."""
    text = cell.replace("{folder}", str(tmp_path)).replace("{how}", how)
    (page,) = shown(tmp_path, text)
    assert page.data["text/html"] == "<h1>served</h1>"


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/help",
        "file:///no/such/page.html",
        "file:///a%00page.html",
        "http://127.0.0.1:9/nobody",
        "http://[no address",
    ],
)
def test_what_cannot_be_shown_is_noted(tmp_path: Path, address: str) -> None:
    """The address of any other page is noted, and nothing is fetched from other machines."""
    (note,) = shown(tmp_path, f"import webbrowser\nassert webbrowser.open({address!r})")
    assert urllib.parse.unquote(address.removeprefix("file://")) in note.text


def test_a_server_that_does_not_speak_http(tmp_path: Path) -> None:
    """What a local server answers that is not HTTP is noted, with no traceback of a thread."""
    items = shown(
        tmp_path,
        "import socket, threading, webbrowser\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "def answer():\n"
        "    one, _ = server.accept()\n"
        "    one.recv(1000)\n"
        "    one.sendall(b'HTTP/x nonsense\\r\\n\\r\\n')\n"
        "    one.close()\n"
        "    server.close()\n"
        "threading.Thread(target=answer).start()\n"
        "webbrowser.open(f'http://127.0.0.1:{server.getsockname()[1]}/')\n",
    )
    assert "could not be shown" in items[-1].text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its socket
def test_altair(tmp_path: Path) -> None:
    """altair's own way to a browser is the same."""
    items = shown(
        tmp_path,
        "import altair\n"
        "from altair.utils._show import open_html_in_browser\n"
        "open_html_in_browser('<p>a chart</p>')\n",
    )
    assert "<p>a chart</p>" in items[0].data["text/html"]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """After the notebook `webbrowser` is what it was."""
    import webbrowser

    before = webbrowser.open, webbrowser.get
    shown(tmp_path, "import webbrowser")
    assert (webbrowser.open, webbrowser.get) == before
