"""A guard between a browser and Dagster's webserver.

Dagster takes a request from whoever sends it: a mutation by GET or from another site's page, under
any ``Host``, in a frame. So any page that a person has open could start runs. `Guard` wraps the
whole application, websockets included, and lets through

- requests for a ``Host`` that is ours (`research_jobs.hosts` says why),
- from no page of another site, except that a person may follow a link to the UI,
- by GET for what only reads, and by POST with a content type that no form can send.

A login is not its business: put a proxy that has one in front.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketClose

from research_jobs.hosts import Authority, KnownHosts

__all__ = ["Guard", "Refusal", "refusal"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = "Content-Security-Policy"
_JSON = frozenset({"application/json", "application/graphql"})
# The UI shows an executed notebook in a frame. It renders it as it is, so the page gets an origin
# of its own, from which every request is refused.
_FOREIGN_CONTENT = ("/notebook", "/logs/", "/download_debug/")


@dataclass(frozen=True)
class Refusal:
    """Why a request is not passed on."""

    status: HTTPStatus
    reason: str


class Guard:
    """An ASGI application that passes on what is safe.

    Parameters
    ----------
    app : callable
        Dagster's application.
    hosts : KnownHosts
    """

    def __init__(self, app: Application, hosts: KnownHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        found = refusal(scope, self._hosts)
        if found is None:
            await self._app(scope, receive, _protected(scope["path"], send))
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, found.reason)(scope, receive, send)
        else:
            answer = PlainTextResponse(f"{found.reason}\n", found.status)
            await answer(scope, receive, _protected("", send))


def refusal(scope: Scope, hosts: KnownHosts) -> Refusal | None:
    """Why a request is refused; None where it is passed on.

    Parameters
    ----------
    scope : mapping
        Of ASGI: ``http`` or ``websocket``.
    hosts : KnownHosts
    """
    headers = Headers(scope=scope)
    named = headers.getlist("host")
    host = Authority.parse(named[0]) if len(named) == 1 else None
    if host is None:
        return Refusal(HTTPStatus.BAD_REQUEST, "The Host header is missing or malformed.")
    if not hosts.know(host):
        return Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"This server does not answer to '{host.name}'. Where that is its public name, say so "
            "in notebooks/manifest.yaml: reports: {dagster: https://...}.",
        )
    if any(not hosts.same_site(origin, host) for origin in headers.getlist("origin")):
        return Refusal(HTTPStatus.FORBIDDEN, "Pages of another origin may not use this server.")
    method = scope.get("method", "GET")
    site = headers.get("sec-fetch-site", "none").lower()
    if site not in ("none", "same-origin") and not (
        method in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    ):
        return Refusal(HTTPStatus.FORBIDDEN, "Pages of another site may not use this server.")
    return _bad_form(scope, method, headers) if scope["type"] == "http" else None


def _bad_form(scope: Scope, method: str, headers: Headers) -> Refusal | None:
    asks = scope["path"].rstrip("/").endswith("/graphql")
    if method in ("GET", "HEAD"):
        queries = QueryParams(scope.get("query_string", b"")).getlist("query")
        if asks and any(_may_change(query) for query in queries):
            return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only queries may be sent by GET.")
        return None
    if method != "POST":
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD and POST are answered.")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # A form, or a script of another site without asking first, can send text and forms only.
    if (kind or asks) and kind not in _JSON:
        return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
    return None


def _may_change(query: str) -> bool:
    """Whether a GraphQL document holds anything but queries, or cannot be read."""
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    try:
        document = parse(query)
    except (GraphQLError, RecursionError):
        return True
    return any(
        isinstance(item, OperationDefinitionNode) and item.operation is not OperationType.QUERY
        for item in document.definitions
    )


def _protected(path: str, send: Send) -> Send:
    """Send answers that no other page can frame, embed or take for something else."""
    foreign = any(part in path for part in _FOREIGN_CONTENT)

    async def forward(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            ancestors = "'self'" if foreign else "'none'"
            # Beside a policy of Dagster's own: browsers hold a page to all of them.
            headers.append(_POLICY, f"frame-ancestors {ancestors}")
            if foreign:
                headers.append(_POLICY, "sandbox allow-scripts")
            headers["X-Frame-Options"] = "SAMEORIGIN" if foreign else "DENY"
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
        await send(message)

    return forward
