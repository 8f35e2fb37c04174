"""Serve the reports' folder: files only, each with a policy that says what it may do.

The server has a port of its own, and so an origin of its own: whatever a report holds, it cannot
reach Dagster's pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from research_jobs.errors import ResearchJobsError
from research_jobs.hosts import Authority, KnownHosts, address
from research_jobs.report.assets import UI_SCRIPT
from research_jobs.report.layout import CHANGES
from research_jobs.report.outputs import FRAME_POLICY
from research_jobs.report.pending import read_pending

__all__ = ["ReportServer", "find_file", "policy_for"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".css": "text/css; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".ipynb": "application/x-ipynb+json",
}
_INERT = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
# What every answer has that says nothing else.
_DEFAULTS = {
    "Content-Security-Policy": _INERT,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_CHUNK = 256 * 1024

MakeChanges = Callable[[Path], None]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def find_file(folder: Path, path: str) -> Path | None:
    """The file that an address names.

    Parameters
    ----------
    folder : Path
        The reports' folder, resolved.
    path : str
        The request's path, decoded.

    Returns
    -------
    Path or None
        Always a file inside `folder`, links followed, and never a hidden one.
    """
    parts = path.removeprefix("/").split("/")
    if parts[-1] == "":
        parts.pop()
    if any(not part or part.startswith(".") or "\\" in part for part in parts):
        return None
    try:
        file = folder.joinpath(*parts).resolve()
        if file.is_dir():
            file = (file / "index.html").resolve()
        inside = file.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in inside)
        return file if not hidden and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, outside; a loop before 3.13
        return None


def policy_for(path: Path, head: bytes, *, embedded: bool = True) -> str:
    """The content security policy that a file is served with.

    Parameters
    ----------
    path : Path
        A file of the reports' folder.
    head : bytes
        Its first kilobyte.
    embedded : bool
        False where the browser says that it opens the file by itself.

    Returns
    -------
    str
    """
    if path.suffix == ".html" and path.parent.name == "frames":
        # In a report it may act, on an origin of its own, and the report keeps it in its place.
        # By itself nothing would keep it from going elsewhere: there it may not act at all.
        rights = "sandbox allow-scripts" if embedded else "sandbox"
        return f"{rights}; {FRAME_POLICY}; frame-ancestors 'self'"
    if path.suffix == ".html":
        # The page says in its first lines, above anything of the notebook's.
        evaluates = b"'unsafe-eval'" in head.split(b"<title>", 1)[0]
        scripts = "'self' 'unsafe-eval'" if evaluates else "'self'"
        return (
            f"default-src 'none'; script-src {scripts}; "
            "style-src 'unsafe-inline'; img-src 'self' data: blob:; frame-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        )
    return _INERT


class _Reports:
    """The application: one folder, for readers who know our name."""

    def __init__(
        self, folder: Path, hosts: KnownHosts, ui: str | int | None, make: MakeChanges | None
    ) -> None:
        self._folder = folder
        self._make = make
        self._making = threading.Lock()
        self._hosts = hosts
        self._ui = ui
        self._static = StaticFiles()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await run_in_threadpool(self._answer, Request(scope))
        except Exception:  # noqa: BLE001 - whatever it is, the reader gets a clean answer
            response = _refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
        await response(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        named = request.headers.getlist("host")
        host = Authority.parse(named[0]) if len(named) == 1 else None
        if host is None:
            return _refuse(HTTPStatus.BAD_REQUEST)
        if not self._hosts.know(host):
            return _refuse(HTTPStatus.MISDIRECTED_REQUEST)
        if request.method not in ("GET", "HEAD"):
            return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        path: str = request.scope["path"]
        if path == f"/{UI_SCRIPT}":
            return self._ui_script(host)
        file = find_file(self._folder, path)
        if file is None:
            return _refuse(HTTPStatus.NOT_FOUND)
        if file.name == "index.html" and not path.endswith(("/", "index.html")):
            # Relative addresses in the page count from its folder.
            target = quote(path.rpartition("/")[2]) + "/"
            return Response(status_code=301, headers={"Location": target})
        if file.name == CHANGES and request.method == "GET":
            self._made(file)
        try:
            return self._file(request, file, file.open("rb"))
        except OSError:
            return _refuse(HTTPStatus.NOT_FOUND)  # removed meanwhile, or not ours to read

    def _made(self, page: Path) -> None:
        """Make a page of what changed, if it is not made yet: one at a time."""
        if self._make is None or read_pending(page) is None:
            return
        with self._making:
            if read_pending(page) is not None:
                with suppress(ResearchJobsError):  # the page says it
                    self._make(page.parent)

    def _file(self, request: Request, path: Path, file: BinaryIO) -> Response:
        # Of the open file: another may take its place, and some grow while they are read.
        status = os.fstat(file.fileno())
        head = file.read(1024)
        file.seek(0)
        kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        version = f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
        headers = {
            "Content-Type": kind,
            "Content-Length": str(status.st_size),
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "ETag": f'"{hashlib.sha256(version.encode()).hexdigest()[:16]}"',
            "Content-Security-Policy": policy_for(
                path, head, embedded=request.headers.get("sec-fetch-dest") != "document"
            ),
            "Vary": "Sec-Fetch-Dest",
        }
        if path.parent.name == "assets":
            headers["Cache-Control"] = "public, max-age=31536000, immutable"
        if kind.startswith("image/"):
            # Dagster's pages show thumbnails; nothing else of a report is for other origins.
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        if kind.startswith(("application/x-ipynb", "application/octet")):
            headers["Content-Disposition"] = "attachment"
        response = Response(headers=headers)
        if self._static.is_not_modified(response.headers, request.headers):
            # With the file's own policy: a browser puts these headers in place of the old ones.
            del response.headers["Content-Length"], response.headers["Content-Type"]
            response.status_code = 304
        elif request.method == "GET":
            return StreamingResponse(_content(file, status.st_size), headers=headers)
        file.close()
        return response

    def _ui_script(self, host: Authority) -> Response:
        # By the name that the reader used, which is one that reaches this machine.
        base = address(host.name, self._ui) if isinstance(self._ui, int) else self._ui
        code = f"window.researchJobsUi = {json.dumps(base)};\n"
        return Response(code, headers={"Content-Type": _TYPES[".js"], "Cache-Control": "no-store"})


def _content(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        while size > 0 and (chunk := file.read(min(_CHUNK, size))):
            size -= len(chunk)
            yield chunk


def _refuse(status: HTTPStatus, **headers: str) -> Response:
    return PlainTextResponse(f"{status.phrase}\n", status, headers)


def _with_defaults(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Any:
    """Give every answer of an application the headers that it lacks."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def forward(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, forward)

    return answer


class _Protocol(H11Protocol):
    """HTTP/1.1 with our headers on the answer to malformed requests too."""

    def send_400_response(self, msg: str) -> None:
        """Answer before there is a request that an application could answer."""
        body = f"{msg}\n"
        lines = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close", **_DEFAULTS}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        length = f"Content-Length: {len(body)}\r\n"
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{head}{length}\r\n{body}".encode())
        self.transport.close()

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer a reader that has said all it will say, then close."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        if cycle is None or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True


class ReportServer:
    """Serves the reports from a thread, until it is closed.

    Parameters
    ----------
    folder : Path
        The reports' folder, made if missing.
    host : str
    port : int
        0 takes a free one.
    public : collection of str
        Addresses by which a proxy shows the reports.
    ui : str or int, optional
        Where pages find Dagster's UI: its public address, or its port on this machine.
    make_changes : callable, optional
        Makes the page of what changed in a report's folder; it may raise `ResearchJobsError`.

    Raises
    ------
    OSError
        When the port is taken.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 3001,
        *,
        public: Collection[str] = (),
        ui: str | int | None = None,
        make_changes: MakeChanges | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = host
        self._socket = socket.create_server((host, port), family=family)
        reports = _Reports(folder.resolve(), KnownHosts.of(host, public), ui, make_changes)
        self._server = uvicorn.Server(
            uvicorn.Config(
                _with_defaults(GZipMiddleware(reports)),
                http=_Protocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="reports", daemon=True
        )

    @property
    def url(self) -> str:
        """str: its address, without a slash at the end."""
        return address(self._host, self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop, and free the port."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
