"""A proxy in front of a real S3 server that counts requests and breaks some of them."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CONDITIONS = ("if-match", "if-none-match")
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code>{}</Error>"


@dataclass(frozen=True)
class Fault:
    """What becomes of a request instead of an answer.

    Parameters
    ----------
    status, code, message
        The answer of the proxy, if `status` is set. The server does not get the request.
    cut : str
        ``"request"``: the connection ends while the body is sent. ``"answer"``: the server does
        what is asked, and the connection ends before its answer.
    without_conditions : bool
        The server gets the request without its conditions.
    bare_tags : bool
        No tag that stands in quotation marks is right, as for Ceph's gateway, version 16.
    """

    status: int = 0
    code: str = ""
    message: str = ""
    cut: str = ""
    without_conditions: bool = False
    bare_tags: bool = False


SLOW_DOWN = Fault(503, "SlowDown", "Please reduce your request rate.")
EXPIRED = Fault(400, "ExpiredToken", "The provided token has expired.")
SKEWED = Fault(403, "RequestTimeTooSkewed", "The difference between the request time and the "
               "current time is too large.")  # fmt: skip
UNSIGNED = Fault(403, "SignatureDoesNotMatch")  # as Ceph's gateway answers, without a message
NOT_IMPLEMENTED = Fault(501, "NotImplemented", "A header you provided is not implemented.")


@dataclass
class Proxy:
    """Where it listens, what was asked of it, and what it breaks.

    Parameters
    ----------
    requests : list of str
        ``PUT /bucket/key?query`` of each request since `forget`.
    fault : callable or None
        Called with such a text and the lower-case names of the headers.
    """

    address: str = ""
    requests: list[str] = field(default_factory=list)
    fault: Callable[[str, set[str]], Fault | None] | None = None

    def reset(self) -> None:
        """Forget the requests, and break none."""
        self.requests.clear()
        self.fault = None

    def some(self, fault: Fault, match: str, times: int = 10**9) -> None:
        """Break the first requests whose text contains `match`."""
        left = iter(range(times))

        def broken(text: str, _headers: set[str]) -> Fault | None:
            return fault if match in text and next(left, None) is not None else None

        self.fault = broken


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # the answer in one packet
    proxy: Proxy
    server_host: str

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Let the client send its body."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _answer(self) -> None:
        text = f"{self.command} {self.path}"
        self.proxy.requests.append(text)
        names = {name.lower() for name in self.headers}
        fault = (self.proxy.fault and self.proxy.fault(text, names)) or Fault()
        length = int(self.headers.get("Content-Length") or 0)
        if fault.cut == "request":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if fault.bare_tags and '"' in (self.headers.get("If-Match") or ""):
            fault = Fault(412, "PreconditionFailed")
        if fault.status:
            message = fault.message and f"<Message>{fault.message}</Message>"
            content = ERROR.format(fault.code, message).encode()
            self._send(fault.status, [("Content-Type", "application/xml")], content)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        if fault.without_conditions:
            headers = {n: v for n, v in headers.items() if n.lower() not in CONDITIONS}
        connection = http.client.HTTPConnection(self.server_host, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault.cut == "answer":
            self._cut()
            return
        dropped = ("transfer-encoding", "connection", "server", "date")
        kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in dropped]
        self._send(answer.status, kept, content)

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        length = f"{len(content)}"
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
            elif self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class's names


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients go away."""


@contextmanager
def faulty_proxy(server: str) -> Iterator[Proxy]:
    """Start one in this process, in front of the server at an address."""
    proxy = Proxy()
    handler = type("Handler", (_Handler,), {"proxy": proxy, "server_host": urlsplit(server).netloc})
    with _Server(("127.0.0.1", 0), handler) as listening:
        proxy.address = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown()
            thread.join()
