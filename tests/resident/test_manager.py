"""The host as a service of systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from hosted import Hosted

from research_jobs.resident.client import ask, connect


def test_it_says_when_it_is_ready(own: Hosted, tmp_path: Path) -> None:
    """The manager hears of a host that serves, also when it has loaded itself anew."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        own.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        own.start()
        assert manager.recv(100) == b"READY=1"
        with connect(own.project, environment=own.environment) as connection:
            ask(connection, "Renew")
        assert manager.recv(100) == b"READY=1"


def test_abstract_address(own: Hosted) -> None:
    """The manager's socket may be in the abstract namespace, as in a container."""
    name = f"research-jobs-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(60)
        own.environment["NOTIFY_SOCKET"] = f"@{name}"
        own.start()
        assert manager.recv(100) == b"READY=1"
