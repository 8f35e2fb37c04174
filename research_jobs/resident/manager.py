"""Report to the service manager that started this process, by systemd's protocol.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["Manager"]


class Manager:
    """The service manager that has started this process, if it has asked to be told.

    The environment no longer names it afterwards: children are not asked.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", None)
        # A leading @ stands for the abstract namespace.
        named = address is not None and address.startswith("@")
        self._address = "\0" + address[1:] if address and named else address

    def tell(self, said: str) -> None:
        """Tell it something about this service.

        Parameters
        ----------
        said : str
            ``READY=1``, or ``WATCHDOG=1`` (it is well).
        """
        if self._address is None:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        ):
            manager.sendto(said.encode(), self._address)
