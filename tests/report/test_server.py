"""The server of reports: files of its folder only, each with its policy."""

from __future__ import annotations

import gzip
import http.client
import os
import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.project import Project
from research_jobs.report.build import build_report
from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery
from research_jobs.report.layout import CHANGES, report_folder
from research_jobs.report.making import make_changes
from research_jobs.report.pending import read_pending
from research_jobs.report.server import ReportServer, find_file, policy_for


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
    (reports / "a" / "_runs" / "1" / "shown.jsonl").write_text("{}")
    (reports / "a" / "_runs" / "1" / "thumbnail.svg").write_text("<svg/>")
    (reports / "a" / "_runs" / "1" / "frames" / "1.html").write_text("frame")
    (reports / "assets" / "page-1.js").write_text("1")
    (reports / "gallery.js").write_text("1")
    (reports / ".lock").write_text("hidden")
    (root / "secret.txt").write_text("secret")
    (reports / "link").symlink_to(root / "secret.txt")
    (reports / "up").symlink_to(root)
    (reports / "to-hidden").symlink_to(reports / ".lock")
    (reports / ".private").mkdir()
    (reports / ".private" / "secret.html").write_text("secret")
    (reports / "to-private").symlink_to(reports / ".private")
    (reports / "loop").symlink_to(reports / "loop")
    (reports / "there").symlink_to(reports / "back")
    (reports / "back").symlink_to(reports / "there")
    (reports / "latest").symlink_to(reports / "a" / "_runs" / "1")
    os.mkfifo(reports / "pipe")
    (reports / "with space").mkdir()
    (reports / "with space" / "index.html").write_text("spaced")
    (reports / "big.html").write_text("<p>table</p>" * 100_000)
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


def directives(text: str) -> dict[str, str]:
    """A policy by directive; none stands twice, where a browser takes the first."""
    parts = [part.strip().partition(" ") for part in text.split(";")]
    assert len({name for name, _, _ in parts}) == len(parts)
    return {name: value for name, _, value in parts}


PAGE = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "frame-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'self'",
}
FRAME = {
    "sandbox": "allow-scripts",
    "default-src": "'none'",
    "script-src": "'unsafe-inline' 'unsafe-eval' blob:",
    "style-src": "'unsafe-inline'",
    "img-src": "data: blob:",
    "font-src": "data:",
    "media-src": "data:",
    "worker-src": "blob:",
    "child-src": "'none'",
    "frame-src": "'none'",
    "object-src": "'none'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "webrtc": "'block'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "rj default",
    "frame-ancestors": "'self'",
}
INERT = {
    "default-src": "'none'",
    "style-src": "'unsafe-inline'",
    "sandbox": "",
    "frame-ancestors": "'none'",
}


@pytest.mark.parametrize(
    ("path", "opened", "expected"),
    [
        ("/", "document", PAGE),
        ("/a/", "document", PAGE),
        ("/a/_runs/1/report.html", "document", PAGE | {"script-src": "'self' 'unsafe-eval'"}),
        ("/a/_runs/1/frames/1.html", "iframe", FRAME),
        ("/a/_runs/1/frames/1.html", "document", FRAME | {"sandbox": ""}),
        ("/a/_runs/1/notebook.ipynb", "document", INERT),
        ("/a/_runs/1/thumbnail.svg", "image", INERT),
        ("/assets/page-1.js", "script", INERT),
        ("/ui.js", "script", INERT),
        ("/missing", "document", INERT),
    ],
)
def test_each_kind_has_its_whole_policy(server, path, opened, expected):
    """Every directive of every kind of answer is as it was decided: none is missing or wider."""
    answer, _ = get(server, path, Sec_Fetch_Dest=opened)
    assert directives(policy(answer)) == expected
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("head", "evaluates"),
    [
        (b"<meta content=\"script-src 'self' 'unsafe-eval'\"><title>x</title>", True),
        (b"<meta content=\"script-src 'self'\"><title>'unsafe-eval'</title>", False),
        (b"<title>x</title><p>'unsafe-eval'", False),
        (
            b"<meta content=\"script-src 'self'\"><title>x</title><meta content='unsafe-eval'>",
            False,
        ),
    ],
)
def test_only_our_lines_ask_for_evaluation(head, evaluates):
    """What a notebook's name or prose says of evaluation below our own lines means nothing."""
    assert ("'unsafe-eval'" in policy_for(Path("a/report.html"), head)) is evaluates


def test_a_backslash_is_no_name(tmp_path):
    """A name that some systems read as a path is never served, though the file exists."""
    (tmp_path / "a\\b.html").write_text("x")
    assert find_file(tmp_path, "/a\\b.html") is None


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
    """A drawing is no page, and may be shown by Dagster's pages; nothing else may."""
    for path in ("/", "/a/_runs/1/report.html", "/a/_runs/1/notebook.ipynb", "/gallery.js"):
        assert get(server, path)[0].headers["Cross-Origin-Resource-Policy"] == "same-origin"
    answer, _ = get(server, "/a/_runs/1/thumbnail.svg")
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert "sandbox" in policy(answer)
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/assets/page-1.js", "public, max-age=31536000, immutable"),
        ("/gallery.js", "no-cache"),
        ("/a/", "no-cache"),
        ("/ui.js", "no-store"),
        ("/missing", "no-cache"),
    ],
)
def test_only_what_is_named_by_its_content_is_kept(server, path, kept):
    """A browser asks again for all that can change."""
    answer, _ = get(server, path)
    assert answer.headers["Cache-Control"] == kept


def test_notebooks_are_downloads(server):
    """An .ipynb, and what we know no type of, is saved and not shown."""
    for name in ("notebook.ipynb", "shown.jsonl"):
        answer, _ = get(server, f"/a/_runs/1/{name}")
        assert answer.headers["Content-Disposition"] == "attachment"
    answer, _ = get(server, "/a/_runs/1/report.html")
    assert "Content-Disposition" not in answer.headers


def test_folders_end_in_a_slash(server):
    """A folder without a slash leads to the one with, so that its links are right."""
    answer, _ = get(server, "/a")
    assert answer.status == 301
    assert answer.headers["Location"] == "a/"
    assert get(server, "/a/")[1] == b"one"


def test_unchanged_files_are_not_sent_again(server):
    """A browser that already has a page gets a short answer that says so."""
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
    for method in ("POST", "DELETE", "PUT", "OPTIONS", "TRACE", "PATCH", "CONNECT", "FOO"):
        answer, _ = get(server, "/", method=method)
        assert answer.status == 405, method
        assert answer.headers["Allow"] == "GET, HEAD"


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
        "/%2elock",
        "/to-hidden",
        "/to-private/secret.html",
        "/.private/secret.html",
        "/loop",
        "/loop/index.html",
        "/there",
        "/pipe",
        "/%00",
        "/a/%2e%2e/%2e%2e/secret.txt",
        "/a/./index.html",
        "/a//index.html",
        "/index.html/x",
        "/index.html%00",
        "/%ff%fe",
        "/%",
        "/%zz",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
        "/missing",
        "/assets/",
    ],
)
def test_nothing_else(server, path):
    """Nothing outside the folder, nothing hidden, no listings, and a policy on the refusal."""
    answer, body = get(server, path)
    assert answer.status == 404
    assert b"secret" not in body
    assert_protected(answer)


def assert_protected(answer):
    """An answer by itself acts on nothing, is taken for nothing else, and stands in no frame."""
    assert policy(answer).startswith("default-src 'none'")
    assert "sandbox" in policy(answer)
    assert "frame-ancestors 'none'" in policy(answer)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("POST", "/", "localhost", 405),
        ("GET", "/missing", "localhost", 404),
        ("GET", "/", "attacker.example", 421),
        ("GET", "/", "not a host", 400),
        ("GET", "/", "[::1", 400),
        ("GET", "/", "", 400),
        ("GET", "/ui.js", "attacker.example", 421),
    ],
)
def test_refusals_have_a_policy(server, method, path, host, status):
    """Each refusal carries what keeps a browser from making more of it."""
    answer, _ = get(server, path, method=method, Host=host)
    assert answer.status == status
    assert_protected(answer)


def test_failures_have_a_policy(folder, monkeypatch):
    """Even what nobody foresaw is answered, with the same headers and without a word of it."""

    def fail(*_args):
        raise RuntimeError("secret")

    monkeypatch.setattr("research_jobs.report.server.find_file", fail)
    with ReportServer(folder, port=0) as server:
        answer, body = get(server, "/")
    assert (answer.status, body) == (500, b"Internal Server Error\n")
    assert_protected(answer)


def test_links_inside_are_followed(server):
    """A link to something visible inside the folder is served as what it leads to."""
    assert get(server, "/latest/frames/1.html")[1] == b"frame"
    answer, _ = get(server, "/latest/report.html")
    assert "script-src 'self' 'unsafe-eval'" in policy(answer)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(folder, server):
    """A file that the server may not read is not there."""
    path = folder / "closed.html"
    path.write_text("closed")
    path.chmod(0)
    assert get(server, "/closed.html")[0].status == 404


def test_addresses_with_spaces(server):
    """A folder's name is encoded where the reader is sent on to it."""
    answer, _ = get(server, "/with%20space")
    assert answer.headers["Location"] == "with%20space/"
    assert get(server, "/with%20space/")[1] == b"spaced"


def test_gzip(server):
    """Pages travel compressed to whom can read that, and come out the same."""
    answer, body = get(server, "/big.html", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(body) < 100_000
    assert gzip.decompress(body) == b"<p>table</p>" * 100_000
    assert "Accept-Encoding" in answer.headers["Vary"]
    plain, body = get(server, "/big.html")
    assert "Content-Encoding" not in plain.headers
    assert len(body) == int(plain.headers["Content-Length"]) == 1_200_000


@pytest.mark.parametrize("name", ["If-None-Match", "If-Modified-Since"])
def test_what_is_not_sent_again_keeps_its_policy(server, name):
    """A browser puts these headers in place of those it has: they are the page's own."""
    path = "/a/_runs/1/report.html"
    first, _ = get(server, path)
    known = first.headers["ETag" if name == "If-None-Match" else "Last-Modified"]
    again, body = get(server, path, **{name.replace("-", "_"): known})
    assert (again.status, body) == (304, b"")
    assert policy(again) == policy(first)
    assert again.headers["ETag"] == first.headers["ETag"]


def test_a_change_within_a_second_is_seen(folder, server):
    """What grew since is sent again, however short the time between."""
    path = folder / "grows.js"
    path.write_text("1")
    first, _ = get(server, "/grows.js")
    with path.open("a") as file:
        file.write("2")
    assert get(server, "/grows.js", If_None_Match=first.headers["ETag"])[1] == b"12"


def test_a_file_in_anothers_place_is_seen(folder, server):
    """A file that took the place of one with the same size and time is sent again."""
    path, other = folder / "swapped.js", folder / "other.js"
    path.write_text("1")
    other.write_text("2")
    for one in (path, other):
        os.utime(one, ns=(10**18, 10**18))
    first, _ = get(server, "/swapped.js")
    other.replace(path)
    assert get(server, "/swapped.js", If_None_Match=first.headers["ETag"])[1] == b"2"


def test_a_file_that_grows_while_it_is_read(folder, server):
    """Readers of a list that runs append to get whole answers, each a beginning of the next."""
    path = folder / "list.js"
    path.write_text("x" * 1000)

    def grow():
        for _ in range(2000):
            with path.open("a") as file:
                file.write("y" * 1000)

    writer = threading.Thread(target=grow)
    writer.start()
    while writer.is_alive():
        answer, body = get(server, "/list.js")
        assert answer.status == 200
        assert len(body) == int(answer.headers["Content-Length"])
    writer.join()


def test_where_the_ui_is(folder):
    """Pages learn where Dagster's UI is from the server, by the name that the reader used."""
    for ui, host, said in [
        (3000, "localhost:1", '"http://localhost:3000"'),
        (3000, "[::1]:1", '"http://[::1]:3000"'),
        ("https://ui.example.com", "127.0.0.1", '"https://ui.example.com"'),
        (None, "127.0.0.1", "null"),
    ]:
        with ReportServer(folder, port=0, ui=ui) as server:
            answer, body = get(server, "/ui.js", Host=host)
        assert body.decode() == f"window.researchJobsUi = {said};\n"
        assert answer.headers["Cache-Control"] == "no-store"
        assert_protected(answer)


def test_foreign_name(server):
    """A foreign name that leads to this machine is refused."""
    assert get(server, "/", Host="attacker.example")[0].status == 421
    assert get(server, "/", Host="localhost:1")[0].status == 200


def test_public_name(folder):
    """A proxy's public name is accepted where it was named."""
    with ReportServer(folder, port=0, public=("https://reports.example.com/x",)) as server:
        assert get(server, "/", Host="reports.example.com")[0].status == 200
        assert get(server, "/", Host="example.com")[0].status == 421


def test_taken_port(folder, server):
    """A port that is taken is an error, not a second server on it."""
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        ReportServer(folder, port=port)


PIECES = ["..", ".", "/", "//", "%2e", "%2f", "%5c", "\\", "%00", "%", "%ff", "?", "#", "~", ":"]
PIECES += ["a", "up", "link", "loop", "to-private", "secret.html", "index.html", "_runs", ".lock"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_always_inside(folder, target):
    """Whatever is asked for, what is found is a visible file inside the folder."""
    found = find_file(folder.resolve(), "/" + target)
    if found is not None:
        inside = found.resolve().relative_to(folder.resolve())
        assert not any(part.startswith(".") for part in inside.parts)
        assert found.is_file()


def raw(server, request: bytes) -> bytes:
    """What the server answers to bytes that no client library would send."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def assert_clean(answer: bytes):
    """One or more whole answers, none of which says more than it should."""
    assert re.match(rb"HTTP/1\.1 (200|301|304|400|404|405|421) ", answer), answer[:200]
    assert b"secret" not in answer
    assert b"Traceback" not in answer
    heads = [part.partition(b"\r\n\r\n")[0].lower() for part in answer.split(b"HTTP/1.1 ")[1:]]
    for head in heads:
        assert b"content-security-policy: " in head
        assert b"x-content-type-options: nosniff" in head


METHODS = ["GET", "HEAD", "POST", "get", "G@T", "", "A" * 40]
TARGETS = [
    "/",
    "/index.html",
    "/missing",
    "*",
    "",
    "x",
    "http://localhost/",
    "http://evil/",
    "/\xe9",
]
LINES = [
    "Host: localhost",
    "Host: 127.0.0.1:1",
    "Host: evil.example",
    "Host: a b",
    "Host:",
    "Content-Length: 3",
    "Content-Length: -1",
    "Content-Length: x",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: x",
    "Range: bytes=0-3",
    "Range: bytes=9-1,-",
    "Accept-Encoding: gzip",
    "If-None-Match: *",
    "If-Modified-Since: yesterday",
    "Expect: 100-continue",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-Fetch-Dest: \x00",
    "no colon",
    ": empty",
    "X: " + "y" * 9000,
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.one_of(
        st.sampled_from(TARGETS),
        st.lists(st.sampled_from(PIECES), max_size=6).map(lambda parts: "/" + "".join(parts)),
    ),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP", ""]),
    st.lists(st.sampled_from(LINES), max_size=4),
    st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
)
def test_every_request_gets_a_clean_answer(server, method, target, version, lines, body):
    """Whatever a request says, the answer is one that a browser can do nothing with."""
    head = "\r\n".join([f"{method} {target} {version}", *lines, "", ""])
    answer = raw(server, head.encode("latin-1") + body)
    # One that announces more than it sends is left alone, as is one that waits to be asked on.
    if answer and not answer.startswith(b"HTTP/1.1 100"):
        assert_clean(answer)
    assert get(server, "/index.html")[0].status == 200


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 200),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-3\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET http://evil/secret.txt HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: a:1\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 421),
    ],
)
def test_odd_requests(server, request_line, status):
    """What is no HTTP is refused with a policy; what merely is unusual is answered."""
    answer = raw(server, request_line)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert_clean(answer)


def test_ipv6(folder):
    """The reports can be served on an IPv6 address."""
    with ReportServer(folder, "::1", 0) as server:
        assert server.url.startswith("http://[::1]:")
        assert raw_ipv6(server).startswith(b"HTTP/1.1 200 ")


def raw_ipv6(server) -> bytes:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        return connection.recv(65536)


def test_closing_frees_the_port(folder):
    """A server that is closed leaves its port and no thread, also with a reader connected."""
    with ReportServer(folder, port=0) as first:
        port = int(first.url.rpartition(":")[2])
        reader = socket.create_connection(("127.0.0.1", port))
    with ReportServer(folder, port=port) as second:
        assert get(second, "/index.html")[0].status == 200
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "reports"][1:]


def test_the_server_makes_a_page_once_when_it_is_asked_for(header, tmp_path):
    """A reader gets the comparison, made in the limited process; it is a file from then on."""
    reports = tmp_path / "reports"
    folders = []
    for number in range(2):
        head = header(run_id=f"{number}" * 8, started_at=1717400000.0 + 86400 * number)
        folders.append(report_folder(reports, head))
        report = build_report(None, head, folders[-1], reports=reports)
        update_gallery(reports, GalleryEntry(NotebookCard("volatility/garch"), head, report))
    first, last = folders
    project = Project(tmp_path, str(tmp_path / "data"))
    asked = []

    def make(folder):
        asked.append(folder)
        make_changes(project, folder)

    with ReportServer(reports, port=0, make_changes=make) as server:
        address = f"{server.url}/{last.relative_to(reports).as_posix()}/{CHANGES}"
        for _ in range(2):
            with urllib.request.urlopen(address) as answer:
                page = answer.read().decode()
            assert "0 cells show the same" in page
    assert f"../{first.name}/report.html" in page
    assert asked == [last]
    assert read_pending(last / CHANGES) is None
