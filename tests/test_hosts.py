"""Which names a server answers to, and which pages are its own."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.hosts import Authority, KnownHosts, address, is_everywhere

LOCAL = KnownHosts.of("127.0.0.1", ["https://ui.example.com/sub", None])
EVERYWHERE = KnownHosts.of("0.0.0.0")


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("localhost", "localhost", None),
        ("LOCALHOST:80", "localhost", 80),
        ("[::1]:3000", "::1", 3000),
        ("127.0.0.1:1", "127.0.0.1", 1),
    ],
)
def test_hosts_are_read(text: str, name: str, port: int | None) -> None:
    """A Host header gives its name in lower case and its port."""
    assert Authority.parse(text) == Authority(name, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":80", "a b", "a/b", "a@b", "a\\b", "a:b", "a:", "a:1:2", "a:123456", "a#b"),
        *("[::1", "::1", "[::1]x", "[zz]", "[1.2.3]", "a\n", "a?b", "%61", "ä", "http://a", "a,b"),
    ],
)
def test_malformed_hosts_are_none(text: str) -> None:
    """Whatever is not a host and a port is refused as a whole."""
    assert Authority.parse(text) is None


@given(st.text(max_size=30))
def test_reading_never_fails(text: str) -> None:
    """Any text is read, as a host or as none, and what is known is written as it was read."""
    parsed = Authority.parse(text)
    if parsed is not None and LOCAL.know(parsed):
        assert text.lower().startswith(("localhost", "127.", "[", "ui.example.com")), text
    Authority.of_origin(text)


@pytest.mark.parametrize(
    ("name", "local", "everywhere"),
    [
        ("localhost", True, True),
        ("127.0.0.1", True, True),
        ("127.3.2.1", True, True),
        ("::1", True, True),
        ("ui.example.com", True, False),
        ("192.168.1.5", False, True),
        ("0.0.0.0", False, True),
        (socket.gethostname().lower(), False, True),
        ("localhost.attacker.example", False, False),
        ("127.0.0.1.attacker.example", False, False),
        ("attacker.example", False, False),
        ("notlocalhost", False, False),
        ("localhos", False, False),
        ("attacker.ui.example.com", False, False),
        ("ui.example.com.attacker.example", False, False),
        ("i.example.com", False, False),
        ("0x7f.1", False, False),
    ],
)
def test_known_names(name: str, local: bool, everywhere: bool) -> None:
    """A server of this machine knows its loopback names and public ones; one for all, addresses."""
    assert LOCAL.know(Authority(name, 3000)) is local
    assert EVERYWHERE.know(Authority(name, 3000)) is everywhere


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:3000", "127.0.0.1:3000", True),
        ("http://127.0.0.1:3001", "127.0.0.1:3000", False),
        ("http://localhost:3000", "127.0.0.1:3000", False),
        ("http://127.0.0.1", "127.0.0.1:3000", False),
        ("http://localhost", "localhost", True),
        ("https://localhost", "localhost", True),
        ("https://localhost:444", "localhost", False),
        ("https://ui.example.com", "127.0.0.1:3000", True),
        ("https://ui.example.com", "ui.example.com", True),
        ("http://ui.example.com:8000", "127.0.0.1:3000", False),
        ("http://ui.example.com", "127.0.0.1:3000", False),
        ("null", "127.0.0.1:3000", False),
        ("", "127.0.0.1:3000", False),
        ("file://", "127.0.0.1:3000", False),
        ("ftp://127.0.0.1:3000", "127.0.0.1:3000", False),
        ("http://127.0.0.1:3000/", "127.0.0.1:3000", False),
        ("http://127.0.0.1.evil.example:3000", "127.0.0.1:3000", False),
        ("http://127.0.0.11:3000", "127.0.0.1:3000", False),
        ("http://127.0.0.1:3000", "127.0.0.11:3000", False),
        ("http://evil127.0.0.1:3000", "127.0.0.1:3000", False),
        ("http://localhost.evil.example", "localhost", False),
        ("https://ui.example.com.evil.example", "127.0.0.1:3000", False),
        ("https://evil.ui.example.com", "127.0.0.1:3000", False),
        ("http://127.0.0.1:3000@evil.example", "127.0.0.1:3000", False),
        ("http://evil.example#127.0.0.1:3000", "127.0.0.1:3000", False),
    ],
)
def test_whose_page(origin: str, host: str, same: bool) -> None:
    """A page is the server's own where scheme, name and port are, or where a proxy shows it."""
    authority = Authority.parse(host)
    assert authority is not None
    assert LOCAL.same_site(origin, authority) is same


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "http://127.0.0.1:3000"), ("::1", "http://[::1]:3000")],
)
def test_address_of_a_host(host: str, shown: str) -> None:
    """A server's address is one that a browser takes."""
    assert address(host, 3000) == shown


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0:0::0"])
def test_address_of_all_hosts(host: str) -> None:
    """Listening everywhere, links name this machine: no browser elsewhere could open 0.0.0.0."""
    assert is_everywhere(host)
    assert address(host, 3000) == f"http://{socket.gethostname()}:3000"


@pytest.mark.parametrize("named", ["work-station", "WORK-STATION", "Work-Station:3000"])
def test_a_machine_is_known_in_any_case(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names have no case, so this machine's is known however it or the request spells it."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Work-Station")
    host = Authority.parse(named)
    assert host is not None
    assert KnownHosts.of("0.0.0.0").know(host)
    assert not KnownHosts.of("127.0.0.1").know(host)
    assert KnownHosts.of("Work-Station").know(host)


@pytest.mark.parametrize("text", ["http://localhost\nx", "http://localhost\n", "xhttp://localhost"])
def test_an_origin_is_the_whole_header(text: str) -> None:
    """What only begins or ends like an origin is none."""
    assert Authority.of_origin(text) is None
