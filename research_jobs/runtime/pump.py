"""A stream from the notebook to its log: live, without secrets, and bounded.

Bytes pass unchanged: the log keeps those that are not UTF-8, and programs that show it replace
them.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Collection

from research_jobs.runtime.masking import ByteStreamMasker, Masker
from research_jobs.units import readable_size

__all__ = ["BoundedLog", "Pump"]

_CHUNK = 256 * 1024
# A pipe has no more.
_PIECES = 4


class BoundedLog:
    """Writes a stream's head at once and its tail at the end, without secrets.

    Parameters
    ----------
    descriptor : int
        The log.
    limit : int
        Total bytes; half for the head, half for the tail.
    secrets : collection of str
        Values to mask, even if they are split between writes.
    """

    def __init__(self, descriptor: int, *, limit: int, secrets: Collection[str] = ()) -> None:
        self._descriptor = descriptor
        self._room = limit // 2
        self._tail_limit = limit - limit // 2
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        masker = Masker(secrets)
        self._masker = ByteStreamMasker(masker) if masker else None
        self._told = False
        self.dropped = 0
        self.error: OSError | None = None

    def feed(self, data: bytes) -> None:
        """Process bytes of the stream."""
        self._take(data if self._masker is None else self._masker.feed(data))

    def finish(self) -> None:
        """Write the held bytes; no more follow."""
        if self._masker is not None:
            self._take(self._masker.rest())
        over = self._tail_size - self._tail_limit
        if over > 0:  # of its first piece
            self._tail[0] = self._tail[0][over:]
            self.dropped += over
        if self.dropped:
            self._write(
                f"\n[research_jobs: {readable_size(self.dropped)} left out here, "
                f"the log keeps the beginning and the end]\n".encode()
            )
        for piece in self._tail:
            self._write(piece)
        self._tail.clear()

    def _take(self, data: bytes) -> None:
        if self._room:
            head, data = data[: self._room], data[self._room :]
            self._room -= len(head)
            self._write(head)
        if not data:
            return
        if not self._told:
            self._told = True
            self._write(b"\n[research_jobs: much output, the rest is shown at the end]\n")
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail and self._tail_size - len(self._tail[0]) >= self._tail_limit:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self.dropped += gone

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self.error is None:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:  # noqa: PERF203 - a write may take a part only
                # A full disk or a closed reader must not block the notebook: drain on.
                self.error = error


class Pump(threading.Thread):
    """Drains a pipe into a log.

    It is a thread because a write may block (a stalled reader) and must not delay the timeout.

    Parameters
    ----------
    source : int
        The pipe's reading end, closed at the end.
    log : BoundedLog
    """

    def __init__(self, source: int, log: BoundedLog) -> None:
        super().__init__(daemon=True)
        self.source = source
        self.log = log
        self._cut, self._cutter = os.pipe()
        self._logged = threading.Event()
        self._lock = threading.Lock()

    def cut(self, patience: float) -> None:
        """End the log after what has been written by now; what follows is drained to nowhere.

        Parameters
        ----------
        patience : float
            Seconds.
        """
        with self._lock:
            if not self._logged.is_set():
                os.write(self._cutter, b"x")
        self._logged.wait(patience)

    def run(self) -> None:
        poller = select.poll()
        for descriptor in (self.source, self._cut):
            poller.register(descriptor, select.POLLIN)
        more = True
        while more and self._cut not in [descriptor for descriptor, _ in poller.poll()]:
            more = self._drain(self.log.feed)
        # Not for ever: something may write all the time.
        for _ in range(_PIECES if more else 0):
            if not select.select([self.source], [], [], 0)[0]:
                break
            more = self._drain(self.log.feed)
        self.log.finish()
        with self._lock:
            self._logged.set()
            os.close(self._cutter)
        os.close(self._cut)
        while more:
            more = self._drain(lambda _: None)
        os.close(self.source)

    def _drain(self, take: Callable[[bytes], None]) -> bool:
        """Take a piece; whether more may follow."""
        try:
            data = os.read(self.source, _CHUNK)
        except OSError:
            return False
        take(data)
        return bool(data)
