"""Telling another run's worker that its step's turn for a pool's slot has come.

Dagster assigns a slot that becomes free to the next step in line, and that step's worker finds out
when it asks: each second. A pool of two slots whose runs last a tenth of a second would stand
empty most of the time. So whoever frees a slot tells the worker that is next. Word is sent by a
datagram to a name in Linux's abstract namespace, which leaves no file behind. It carries nothing
and is not trusted: whoever gets it asks the database. Where it does not arrive, asking each
second remains.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

__all__ = ["Turns"]

_END = b"end"


class Turns:
    """What a run hears and says of turns; a context.

    Parameters
    ----------
    run_id : str
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._socket: socket.socket | None = None
        self._listens = False
        if sys.platform == "linux":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        if self._socket is not None:
            try:
                self._socket.bind(_address(self._run_id))
            except OSError:  # somebody has the name: asking remains
                self._socket.close()
                self._socket = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is None:
            return
        if self._listens:
            self._send(self._run_id, _END)  # its thread closes the socket
        else:
            self._socket.close()

    def listen(self, heard: Callable[[], None]) -> None:
        """Have `heard` called, in another thread, when a turn of this run may have come.

        What was said since the context began is heard as well. A second call does nothing.
        """
        if self._socket is None or self._listens:
            return
        self._listens = True
        threading.Thread(
            target=_hear, args=(self._socket, heard), name="turns", daemon=True
        ).start()

    def tell(self, run_ids: Iterable[str]) -> None:
        """Say to other runs on this machine that their turn may have come."""
        for run_id in run_ids:
            if run_id != self._run_id:
                self._send(run_id, b"")

    def _send(self, run_id: str, word: bytes) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it has ended, is elsewhere, or has been told often enough
                self._socket.sendto(word, socket.MSG_DONTWAIT, _address(run_id))


def _address(run_id: str) -> bytes:
    return b"\0research_jobs/turn/%d/%s" % (os.getuid(), run_id.encode())


def _hear(listener: socket.socket, heard: Callable[[], None]) -> None:
    with listener:
        while listener.recv(len(_END)) != _END:
            heard()
