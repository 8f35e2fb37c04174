"""Serve the reports' folder: files only, each with a policy that says what it may do.

It stands on a port of its own, and so on an origin of its own: whatever a report holds, it cannot
reach Dagster's pages. Standard library only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from research_jobs.report.outputs import FRAME_POLICY

__all__ = ["ReportServer", "find_file", "policy_for", "serve_reports"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".ipynb": "application/x-ipynb+json",
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CHUNK = 256 * 1024


def find_file(folder: Path, target: str) -> Path | None:
    """The file that an address names.

    Parameters
    ----------
    folder : Path
        The reports' folder, resolved.
    target : str
        The request's path, percent-encoded, with or without a query.

    Returns
    -------
    Path or None
        Always a file inside `folder`, links followed; never a hidden one.
    """
    path = unquote(urlsplit(target).path, errors="replace")
    parts = PurePosixPath(path.lstrip("/")).parts
    if "\0" in path or "\\" in path or any(part.startswith(".") for part in parts):
        return None
    try:
        found = folder.joinpath(*parts).resolve()
        if found.is_dir():
            found = (found / "index.html").resolve()
        return found if found.is_relative_to(folder) and found.is_file() else None
    except (OSError, ValueError):
        return None


def policy_for(path: Path, *, embedded: bool = True) -> str:
    """The content security policy that a file is served with.

    Parameters
    ----------
    path : Path
        A file of the reports' folder.
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
        scripts = "'self'"
        with path.open("rb") as file:
            # The page says in its first lines, above anything of the notebook's.
            if b"'unsafe-eval'" in file.read(1024).split(b"<title>", 1)[0]:
                scripts += " 'unsafe-eval'"
        return (
            f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
            "img-src 'self' data: blob:; frame-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'self'"
        )
    return "default-src 'none'; style-src 'unsafe-inline'; sandbox"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "research-jobs"
    sys_version = ""
    timeout = 30
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if not self._known_host():
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return
        target = urlsplit(self.path)
        path = find_file(self.server.folder, self.path)
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        if path.name == "index.html" and not target.path.endswith(("/", "index.html")):
            # Relative addresses in the page count from its folder.
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", PurePosixPath("/" + target.path.lstrip("/")).name + "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            self._send(path, with_body=with_body)
        except OSError:
            # The reader left, or the report was removed meanwhile.
            self.close_connection = True

    def _send(self, path: Path, *, with_body: bool) -> None:
        with path.open("rb") as file:
            status = path.stat()
            if self._unchanged(status.st_mtime):
                self.send_response(HTTPStatus.NOT_MODIFIED)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(status.st_size))
            self.send_header("Last-Modified", formatdate(status.st_mtime, usegmt=True))
            fixed = path.parent.name == "assets"
            self.send_header(
                "Cache-Control", "public, max-age=31536000, immutable" if fixed else "no-cache"
            )
            embedded = self.headers.get("Sec-Fetch-Dest", "iframe") != "document"
            self.send_header("Content-Security-Policy", policy_for(path, embedded=embedded))
            self.send_header("Vary", "Sec-Fetch-Dest")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            picture = kind.startswith("image/")
            # Dagster's pages show thumbnails; nothing else of a report is for other origins.
            self.send_header(
                "Cross-Origin-Resource-Policy", "cross-origin" if picture else "same-origin"
            )
            if kind.startswith(("application/x-ipynb", "application/octet")):
                self.send_header("Content-Disposition", "attachment")
            self.end_headers()
            if with_body:
                remaining = status.st_size
                while remaining > 0 and (chunk := file.read(min(_CHUNK, remaining))):
                    self.wfile.write(chunk)
                    remaining -= len(chunk)

    def _unchanged(self, modified: float) -> bool:
        since = self.headers.get("If-Modified-Since")
        if since is None:
            return False
        try:
            return int(modified) <= parsedate_to_datetime(since).timestamp()
        except (TypeError, ValueError):
            return False

    def _known_host(self) -> bool:
        """Whether the address that was asked for is ours (a foreign name may lead here)."""
        if self.server.hosts is None:
            return True
        name = urlsplit("//" + self.headers.get("Host", "")).hostname
        return name in self.server.hosts

    def _refuse(self, status: HTTPStatus) -> None:
        text = f"{status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing for each request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Another server on the port is an error to tell, not one to share it with.
    allow_reuse_port = False

    def __init__(
        self, folder: Path, address: tuple[str, int], hosts: frozenset[str] | None
    ) -> None:
        self.folder = folder
        self.hosts = hosts
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away is no error."""


class ReportServer:
    """Serves the reports until it is closed.

    Parameters
    ----------
    folder : Path
        The reports' folder, made if missing.
    host : str
    port : int
        0 takes a free one.
    hosts : collection of str
        Names by which it may be asked for besides its own (a proxy's public one). Checked only
        where `host` is this machine alone: there, a name that leads here is an attack.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 3001,
        *,
        hosts: Collection[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        known = _LOOPBACK | {host, *hosts} if host in _LOOPBACK else None
        self._server = _Server(folder.resolve(), (host, port), known)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """str: its address, without a slash at the end."""
        host, port = self._server.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def start(self) -> None:
        """Serve from a thread of this process."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="reports", daemon=True
        )
        self._thread.start()

    def run(self) -> None:
        """Serve until interrupted."""
        self._server.serve_forever()

    def close(self) -> None:
        """Stop, and free the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def serve_reports(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 3001,
    *,
    hosts: Collection[str] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the reports' folder until interrupted.

    Parameters
    ----------
    folder, host, port, hosts
        As for `ReportServer`.
    ready : callable, optional
        Called with the address once it answers.

    Raises
    ------
    OSError
        When the port is taken.
    """
    server = ReportServer(folder, host, port, hosts=hosts)
    try:
        if ready is not None:
            ready(server.url)
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
