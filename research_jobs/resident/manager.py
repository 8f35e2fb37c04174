"""Report to the service manager that started this process: systemd's readiness protocol.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify_ready"]


def notify_ready() -> None:
    """Tell systemd, if it asks, that this service is ready. Children are not asked."""
    address = os.environ.pop("NOTIFY_SOCKET", None)
    if address is None:
        return
    # A leading @ stands for the abstract namespace.
    address = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.sendto(b"READY=1", address)
