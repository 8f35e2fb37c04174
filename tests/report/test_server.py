"""The server of reports: files of its folder only, each with its policy."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.report.server import ReportServer, find_file, serve_reports


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("served")
    reports = root / "reports"
    (reports / "a" / "_runs" / "1" / "frames").mkdir(parents=True)
    (reports / "assets").mkdir()
    (reports / "index.html").write_text("<title>gallery</title>")
    (reports / "a" / "index.html").write_text("one")
    (reports / "a" / "_runs" / "1" / "report.html").write_text(
        "<meta content=\"script-src 'self' 'unsafe-eval'\"><title>"
    )
    (reports / "a" / "_runs" / "1" / "notebook.ipynb").write_text("{}")
    (reports / "a" / "_runs" / "1" / "thumbnail.svg").write_text("<svg/>")
    (reports / "a" / "_runs" / "1" / "frames" / "1.html").write_text("frame")
    (reports / "assets" / "page-1.js").write_text("1")
    (reports / ".lock").write_text("hidden")
    (root / "secret.txt").write_text("secret")
    (reports / "link").symlink_to(root / "secret.txt")
    (reports / "up").symlink_to(root)
    return reports


@pytest.fixture(scope="module")
def server(folder):
    with ReportServer(folder, port=0) as made:
        yield made


def get(server, path, *, method="GET", **headers):
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def policy(answer) -> str:
    return answer.headers["Content-Security-Policy"]


def test_pages(server):
    """Pages are HTML whose scripts come from this server only."""
    answer, body = get(server, "/")
    assert (answer.status, body) == (200, b"<title>gallery</title>")
    assert "script-src 'self';" in policy(answer)
    assert "frame-ancestors 'self'" in policy(answer)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_report_that_compiles_shaders(server):
    """Only a page that asks for it in its head may compile code."""
    answer, _ = get(server, "/a/_runs/1/report.html")
    assert "'unsafe-eval'" in policy(answer)


def test_frames(server):
    """A frame acts on an origin of its own, and not at all when it is opened by itself."""
    answer, _ = get(server, "/a/_runs/1/frames/1.html", Sec_Fetch_Dest="iframe")
    assert policy(answer).startswith("sandbox allow-scripts; default-src 'none'")
    answer, _ = get(server, "/a/_runs/1/frames/1.html", Sec_Fetch_Dest="document")
    assert policy(answer).startswith("sandbox; ")


def test_pictures(server):
    """A drawing is no page, and may be shown by Dagster's pages."""
    answer, _ = get(server, "/a/_runs/1/thumbnail.svg")
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert policy(answer).endswith("sandbox")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


def test_notebooks_are_downloads(server):
    """An .ipynb is saved, not shown."""
    answer, _ = get(server, "/a/_runs/1/notebook.ipynb")
    assert answer.headers["Content-Disposition"] == "attachment"


def test_folders_end_in_a_slash(server):
    """A folder without a slash leads to the one with, so that its links are right."""
    answer, _ = get(server, "/a")
    assert answer.status == 301
    assert answer.headers["Location"] == "a/"
    assert get(server, "/a/")[1] == b"one"


def test_unchanged_files_are_not_sent_again(server):
    """A browser that has a page already is told so."""
    answer, _ = get(server, "/index.html")
    modified = answer.headers["Last-Modified"]
    answer, body = get(server, "/index.html", If_Modified_Since=modified)
    assert (answer.status, body) == (304, b"")
    assert get(server, "/index.html", If_Modified_Since="nonsense")[0].status == 200


def test_head(server):
    """HEAD gives the headers alone."""
    answer, body = get(server, "/", method="HEAD")
    assert (answer.status, body) == (200, b"")
    assert answer.headers["Content-Length"] == "22"


def test_no_writing(server):
    """Nothing but reading is answered."""
    assert get(server, "/", method="POST")[0].status == 501
    assert get(server, "/", method="DELETE")[0].status == 501


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/a/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "//secret.txt",
        "/link",
        "/up/secret.txt",
        "/.lock",
        "/%00",
        "/a/%2e%2e/%2e%2e/secret.txt",
        "/" + "a" * 5000,
        "/missing",
        "/assets/",
    ],
)
def test_nothing_else(server, path):
    """Nothing outside the folder, nothing hidden, no listings."""
    answer, body = get(server, path)
    assert answer.status == 404
    assert b"secret" not in body


def test_foreign_name(server):
    """A foreign name that leads to this machine is refused."""
    assert get(server, "/", Host="attacker.example")[0].status == 421
    assert get(server, "/", Host="localhost:1")[0].status == 200


def test_public_name(folder):
    """A proxy's public name is accepted where it was named."""
    with ReportServer(folder, port=0, hosts=("reports.example.com",)) as server:
        assert get(server, "/", Host="reports.example.com")[0].status == 200


def test_taken_port(folder, server):
    """A port that is taken is an error, not a second server on it."""
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        serve_reports(folder, port=port)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["..", ".", "/", "%2e", "%2f", "%5c", "\\", "%00", "a", "up", "link", "%"]),
        max_size=10,
    ).map("".join)
)
def test_always_inside(folder, target):
    """Whatever is asked for, what is found is a file inside the folder."""
    found = find_file(folder.resolve(), "/" + target)
    if found is not None:
        assert os.path.commonpath([found.resolve(), folder.resolve()]) == str(folder.resolve())
        assert found.is_file()
