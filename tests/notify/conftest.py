"""Real servers to deliver to: an SMTP server, HTTP endpoints that answer, lie, hang or are gone."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mail_server import Mailbox, serve_mail

from research_jobs.manifest import Manifest, load_manifest
from research_jobs.project import Project, find_project


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """An SMTP server that accepts."""
    yield from serve_mail()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(params=["starttls", "tls"])
def locked_mailbox(
    request: pytest.FixtureRequest, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mailbox]:
    """An SMTP server that wants encryption and a password."""

    def check(server, session, envelope, mechanism, data):
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login, data.password) == (b"ops", b"sesame-open-9"))

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    options: dict[str, Any] = {"authenticator": check, "auth_required": True}
    if request.param == "tls":
        # What is encrypted from the first byte counts for it as not encrypted.
        options |= {"ssl_context": context, "auth_require_tls": False}
    else:
        options |= {"tls_context": context, "require_starttls": True}
    for mailbox in serve_mail(**options):
        mailbox.encryption = request.param
        yield mailbox


@dataclass
class Hook:
    """An HTTP endpoint: what it answers, and what it got."""

    port: int = 0
    status: int = 200
    location: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """As apprise writes a webhook that gets JSON."""
        return f"json://127.0.0.1:{self.port}/hook"


@pytest.fixture
def hooks() -> Iterator[Callable[..., Hook]]:
    """Make HTTP endpoints."""
    servers: list[ThreadingHTTPServer] = []

    def make(status: int = 200) -> Hook:
        hook = Hook(status=status)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                hook.paths.append(self.path)
                hook.got.append(json.loads(content))
                self.send_response(hook.status)
                if hook.location:
                    self.send_header("Location", hook.location)
                self.end_headers()
                self.wfile.write(b"It works!")

            def do_GET(self) -> None:
                hook.paths.append(self.path)
                self.send_response(200 if hook.location else hook.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        hook.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return hook

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def silent() -> Iterator[Callable[[str], int]]:
    """Ports behind which somebody accepts and then hangs, breaks off, or is endlessly slow."""
    done = threading.Event()
    listening: list[socket.socket] = []
    accepted: list[socket.socket] = []

    def make(way: str) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if way == "break":
                    connection.close()
                    continue
                accepted.append(connection)
                if way == "drip":
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

        def drip(connection: socket.socket) -> None:
            with suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not done.wait(0.2):
                    connection.sendall(b"x")

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[1]

    yield make
    done.set()
    for one in (*listening, *accepted):
        one.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with two notebooks and no manifest."""
    for name in ("RESEARCH_JOBS_STORE", "RESEARCH_JOBS_REPORTS_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "research" / "notebooks"
    folder.mkdir(parents=True)
    return find_project(folder.parent)


@pytest.fixture
def write(project: Project) -> Callable[[str], Manifest]:
    """Write the project's manifest, and load it."""

    def write_text(text: str) -> Manifest:
        project.manifest.write_text(text, encoding="utf-8")
        return load_manifest(project, ("garch", "risk/var", "risk/limits"))

    return write_text
