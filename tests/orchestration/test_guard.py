"""The guard before Dagster's webserver: which requests it passes on."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.hosts import KnownHosts
from research_jobs.orchestration.operations.guard import Guard, refusal
from research_jobs.orchestration.operations.webserver import ReportLinks

HOSTS = KnownHosts.of("127.0.0.1", ["https://ui.example.com"])
HOST = {"host": "127.0.0.1:3000"}
JSON = {"content-type": "application/json"}
OWN = {"origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-origin"}
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
MUTATION = quote("mutation { setNuxSeen }")


def scope(
    method: str = "GET", path: str = "/", kind: str = "http", query: str = "", **headers: str
) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(key.encode(), value.encode("latin-1")) for key, value in named.items()],
    }


def status(*words: str, **changes: Any) -> int:
    headers = {**HOST, **changes.pop("headers", {})}
    named = {key.replace("-", "_"): value for key, value in headers.items()}
    found = refusal(scope(*words, **changes, **named), HOSTS)
    return 0 if found is None else int(found.status)


@pytest.mark.parametrize(
    ("words", "headers"),
    [
        (("GET", "/assets/prices"), {}),
        (("GET", "/"), {"sec-fetch-site": "none", **LINK}),
        (("GET", "/runs/1"), {"sec-fetch-site": "same-site", **LINK}),
        (("GET", "/runs/1"), {"sec-fetch-site": "cross-site", **LINK}),
        (("POST", "/graphql"), {**JSON, **OWN}),
        (("POST", "/graphql"), JSON),
        (("POST", "/graphql"), {"content-type": "application/json; charset=utf-8", **OWN}),
        (("POST", "/graphql"), {"content-type": "application/graphql"}),
        (("POST", "/graphql"), {"content-type": " Application/JSON ;charset=utf-8", **OWN}),
        (("POST", "/graphql"), {**JSON, "origin": "https://ui.example.com"}),
        (("POST", "/report_asset_materialization/a"), {}),
        (("GET", "/static/a.js"), {"sec-fetch-site": "same-origin"}),
    ],
)
def test_what_people_and_scripts_do_passes(words: Any, headers: Any) -> None:
    """The UI's own requests, links to it from elsewhere, and scripts outside of browsers pass."""
    assert status(*words, headers=headers) == 0


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:3001", "null", ""])
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_origins_are_refused(origin: str, kind: str, method: str) -> None:
    """A page of another origin gets no answer, by any method and over no websocket."""
    assert status(method, "/graphql", kind=kind, headers={**JSON, "origin": origin}) == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("other", ["http://evil.example", "null", ""])
def test_every_origin_counts(other: str, kind: str) -> None:
    """A second Origin beside one of ours is refused, whichever comes first."""
    own = OWN["origin"]
    for origins in ((own, other), (other, own)):
        request = scope("POST", "/graphql", kind, **HOST, content_type="application/json")
        request["headers"] += [(b"origin", origin.encode()) for origin in origins]
        found = refusal(request, HOSTS)
        assert found is not None
        assert found.status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unheard-of"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "embed"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "document"},
    ],
)
def test_other_sites_may_only_link(site: str, headers: Any) -> None:
    """What a page of another site embeds is refused, even where a browser names no origin."""
    headers = {**headers, "sec-fetch-site": site}
    assert status("GET", "/logs/x", headers=headers) == 403
    assert status("POST", "/graphql", headers={**JSON, **headers}) == 403
    assert status("POST", "/graphql", headers={**JSON, **LINK, "sec-fetch-site": site}) == 403
    assert status("GET", "/graphql", kind="websocket", headers=headers) == 403


@pytest.mark.parametrize(
    "query",
    [
        f"query={MUTATION}",
        f"query={quote('query A { version } mutation B { setNuxSeen }')}&operationName=B",
        f"query=%7Bversion%7D&query={MUTATION}",
        f"query={MUTATION}&query=%7Bversion%7D",
        f"query={quote('# query' + chr(10) + 'mutation { setNuxSeen }')}",
        f"query={quote('subscription { x }')}",
        "query=%7B",
        "query=" + quote("{a" * 3000),
        "query=",
    ],
)
@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/prefix/graphql"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_only_reads(query: str, path: str, method: str) -> None:
    """Nothing but queries comes in by GET, however the document hides it."""
    assert status(method, path, query=query) == 405
    assert status(method, path, query=query, headers={"sec-fetch-site": "none", **LINK}) == 405


def test_queries_may_come_by_get() -> None:
    """A query by GET passes, and so does a page of the UI with a search of that name."""
    assert status("GET", "/graphql", query="query=%7Bversion%7D") == 0
    assert status("GET", "/graphql") == 0
    assert status("GET", "/runs", query=f"query={MUTATION}") == 0


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "text/plain;a=application/json",
        "text/application/json",
        "application/json-seq",
        ", application/json",
    ],
)
def test_what_a_form_can_send_is_refused(kind: str) -> None:
    """A content type that needs no leave of ours is refused, also where it names JSON inside."""
    assert status("POST", "/graphql", headers={"content-type": kind, **OWN}) == 415
    path = "/report_asset_materialization/a"
    assert status("POST", path, headers={"content-type": kind, **OWN}) == 415


def test_a_mutation_in_the_address_is_refused() -> None:
    """POST without a body takes its query from the address: any page can send that."""
    assert status("POST", "/graphql", query=f"query={MUTATION}") == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X"])
def test_other_methods_are_refused(method: str) -> None:
    """No other method is answered: a preflight least of all."""
    assert status(method, "/graphql", headers=JSON) == 405


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_hosts(kind: str) -> None:
    """A foreign name is not ours, and a missing, malformed or second one is refused."""
    request = scope("GET", "/", kind)
    for named, expected in [
        (["evil.example"], 421),
        (["127.0.0.1.evil.example:3000"], 421),
        (["ui.example.com"], 0),
        ([], 400),
        (["a b"], 400),
        (["127.0.0.1:3000", "evil.example"], 400),
        (["127.0.0.1:3000", "127.0.0.1:3000"], 400),
    ]:
        request["headers"] = [(b"host", name.encode()) for name in named]
        found = refusal(request, HOSTS)
        assert (int(found.status) if found else 0) == expected, named


@given(
    st.sampled_from(["http", "websocket"]),
    st.text(max_size=9),
    st.text(max_size=9),
    st.binary(max_size=30),
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"origin", b"content-type", b"sec-fetch-site"]),
            st.binary(max_size=12),
        ),
        max_size=5,
    ),
)
def test_no_request_breaks_it(
    kind: str, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Whatever is sent, it decides, and passes on nothing that names no host of ours."""
    request = {
        **scope(method, path, kind),
        "query_string": query,
        "headers": headers,
    }
    found = refusal(request, HOSTS)
    if not [value for name, value in headers if name == b"host" and value]:
        assert found is not None


def answer(app: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """What an application sends."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(request, receive, send))
    return sent


def headers_of(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.decode().lower(), value.decode()) for name, value in message["headers"]]


async def dagster(request: Any, _receive: Any, send: Any) -> None:
    """Stands where Dagster's application does."""
    headers = [(b"content-security-policy", b"object-src 'none'")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": request["path"].encode()})


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "evil.example", "a b"])
def test_no_answer_can_be_framed(host: str) -> None:
    """Answers and refusals alike say that no other page may frame, embed or reinterpret them."""
    sent = answer(Guard(dagster, HOSTS), scope("GET", "/", host=host))
    said = headers_of(sent[0])
    assert ("x-frame-options", "DENY") in said
    assert ("content-security-policy", "frame-ancestors 'none'") in said
    assert ("x-content-type-options", "nosniff") in said
    assert ("cross-origin-resource-policy", "same-origin") in said
    assert ("cross-origin-opener-policy", "same-origin") in said
    assert (("content-security-policy", "object-src 'none'") in said) == host.startswith("127")


@pytest.mark.parametrize(
    "path",
    [
        *("/notebook", "/dagit/notebook", "/prefix/notebook", "/logs/a.out"),
        *("/dagit/logs/a.out", "/download_debug/1", "/prefix/download_debug/1"),
    ],
)
def test_foreign_content_has_no_origin(path: str) -> None:
    """What Dagster shows of a notebook or its logs runs on no origin, in a frame of the UI's."""
    sent = answer(Guard(dagster, HOSTS), scope("GET", path, host="127.0.0.1:3000"))
    said = headers_of(sent[0])
    assert ("content-security-policy", "sandbox allow-scripts") in said
    assert ("x-frame-options", "SAMEORIGIN") in said
    assert ("content-security-policy", "frame-ancestors 'self'") in said


def test_a_refused_websocket_is_closed() -> None:
    """A websocket of another origin is closed before it is opened."""
    request = scope(
        "GET", "/graphql", "websocket", host="127.0.0.1:3000", origin="http://a.example"
    )
    [message] = answer(Guard(dagster, HOSTS), request)
    assert (message["type"], message["code"]) == ("websocket.close", 1008)


@pytest.mark.parametrize(
    ("base", "port", "host", "leads"),
    [
        (None, 3601, "127.0.0.1:3600", "http://127.0.0.1:3601/a/x%20y.html"),
        (None, 3601, "localhost:3600", "http://localhost:3601/a/x%20y.html"),
        (None, 3601, "[::1]:3600", "http://[::1]:3601/a/x%20y.html"),
        ("https://r.example/sub/", None, "localhost", "https://r.example/sub/a/x%20y.html"),
        ("https://r.example", 3601, "localhost", "https://r.example/a/x%20y.html"),
    ],
)
def test_links_to_reports(base: Any, port: Any, host: str, leads: str) -> None:
    """A stored link leads to where the reports are served now, by the name the reader used."""
    path = "/research-jobs/reports/a/x y.html"
    sent = answer(ReportLinks(dagster, base, port), scope("GET", path, host=host))
    assert sent[0]["status"] == 302
    assert dict(headers_of(sent[0]))["location"] == leads


def test_links_to_reports_that_nobody_serves() -> None:
    """Where nobody serves the reports, the link says where the file is."""
    path = "/research-jobs/reports/a/b.html"
    start, body = answer(ReportLinks(dagster, None, None), scope("GET", path, host="localhost"))
    assert start["status"] == 404
    assert b"reports/a/b.html" in body["body"]
    assert (
        answer(ReportLinks(dagster, None, None), scope("GET", "/assets"))[1]["body"] == b"/assets"
    )
