"""The host names that our servers answer to.

An attacker can make a name resolve to this machine (DNS rebinding). A browser then treats the
attacker's page and our server as one site, and only the requested name tells them apart. So a
server answers only to names that it knows.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Authority", "KnownHosts", "address", "is_everywhere"]

_AUTHORITY = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<rest>.+)")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Authority:
    """A host and a port, as a ``Host`` header or an origin names them.

    Parameters
    ----------
    name : str
        In lower case; an IPv6 address without its brackets.
    port : int or None
        None for the scheme's default.
    """

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a ``Host`` header; None if it is malformed."""
        match = _AUTHORITY.fullmatch(text)
        if match is None:
            return None
        name = match["name"].strip("[]").lower()
        if match["name"].startswith("[") and _ip(name) is None:
            return None
        return cls(name, int(match["port"]) if match["port"] else None)

    @classmethod
    def of_origin(cls, text: str) -> Self | None:
        """Parse an ``Origin`` header or one of our URLs; None for ``null`` and other schemes."""
        match = _ORIGIN.fullmatch(text)
        parsed = cls.parse(match["rest"]) if match else None
        if match is None or parsed is None:
            return None
        return cls(parsed.name, parsed.port or _PORTS[match["scheme"]])

    def is_at(self, other: Authority) -> bool:
        """Whether this origin is the one that a request with `other` as its ``Host`` was sent to.

        A ``Host`` without a port is sent for the port of either scheme: behind a proxy that ends
        TLS we cannot tell which.
        """
        ports = _PORTS.values() if other.port is None else (other.port,)
        return self.name == other.name and self.port in ports


@dataclass(frozen=True)
class KnownHosts:
    """The names that a server answers to.

    Parameters
    ----------
    names : frozenset of str
    origins : frozenset of Authority
        The public origins under which a proxy serves it.
    any_address : bool
        Whether every IP address counts as ours. That is safe, because rebinding needs a name, and
        a server that listens on several addresses cannot know which one is used.
    """

    names: frozenset[str]
    origins: frozenset[Authority] = frozenset()
    any_address: bool = False

    @classmethod
    def of(cls, host: str, public: Iterable[str | None] = ()) -> Self:
        """The names of a server.

        Parameters
        ----------
        host : str
            What it listens on.
        public : iterable of str
            URLs under which a proxy serves it, ``https://reports.example.com/path``.
        """
        split = [urlsplit(address) for address in public if address]
        origins = {Authority.of_origin(f"{part.scheme}://{part.netloc}") for part in split}
        known = frozenset(origin for origin in origins if origin is not None)
        names = {"localhost", host.lower(), *(origin.name for origin in known)}
        local = host.lower() == "localhost" or _is_loopback(host)
        if not local:
            names.add(socket.gethostname().lower())
        return cls(frozenset(names), known, any_address=not local)

    def know(self, host: Authority) -> bool:
        """Whether a request with this ``Host`` is meant for us."""
        if host.name in self.names or _is_loopback(host.name):
            return True
        return self.any_address and _ip(host.name) is not None

    def same_site(self, origin: str, host: Authority) -> bool:
        """Whether a page with this ``Origin`` is one of the server that `host` names."""
        parsed = Authority.of_origin(origin)
        return parsed is not None and (parsed.is_at(host) or parsed in self.origins)


def address(host: str, port: int) -> str:
    """The host to open in a browser for a server that listens on `host`."""
    if is_everywhere(host):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_everywhere(host: str) -> bool:
    """Whether a server on `host` listens on every address of this machine."""
    ip = _ip(host)
    return ip is not None and ip.is_unspecified


def _is_loopback(name: str) -> bool:
    ip = _ip(name)
    return ip is not None and ip.is_loopback


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
