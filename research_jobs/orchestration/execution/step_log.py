"""The log of one step, and the streams that tell steps in threads apart.

What an ordinary asset prints in the run worker is routed to its step's log by context
(`RoutedStream`); a notebook's process writes straight into the log's descriptors.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple, TextIO

__all__ = ["WORKER_STREAMS", "LogStreams", "RoutedStream", "StepLog", "route_output", "writing_to"]

WORKER_STDOUT, WORKER_STDERR = 1, 2


class LogStreams(NamedTuple):
    """Two open descriptors. Whoever gets them writes to them and does not close them."""

    stdout: int
    stderr: int


WORKER_STREAMS = LogStreams(WORKER_STDOUT, WORKER_STDERR)


class StepLog:
    """The log of one step, for all of its attempts.

    Parameters
    ----------
    key : sequence of str
        The compute log manager's key of it.
    streams : LogStreams
        Where a process started by the step writes.
    """

    def __init__(self, key: Sequence[str], streams: LogStreams) -> None:
        self.key = key
        self.streams = streams
        self.reported = False
        self._texts: dict[int, TextIO] = {}
        self._lock = threading.Lock()

    @property
    def is_captured(self) -> bool:
        """bool: False where the step writes to the run worker's own streams."""
        return self.streams is not WORKER_STREAMS

    def text(self, descriptor: int) -> TextIO:
        """A text stream onto one of the two descriptors (1 or 2), made when first asked for."""
        with self._lock:
            text = self._texts.get(descriptor)
            if text is None:
                text = self._texts[descriptor] = open(  # noqa: SIM115 - closed in `close`
                    self.streams[descriptor - 1],
                    "w",
                    buffering=1,
                    encoding="utf-8",
                    errors="backslashreplace",
                    closefd=False,
                )
            return text

    def begin_attempt(self, number: int) -> None:
        """Say in both streams that a further attempt of the step begins."""
        if number == 1:
            return
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        line = f"--- attempt {number}, {now} ---\n".encode()
        self.flush()
        with suppress(OSError):
            for descriptor in self.streams:
                os.write(descriptor, line)

    def flush(self) -> None:
        """Write out what the run worker's side still holds; a full disk fails no step."""
        with self._lock:
            for text in self._texts.values():
                with suppress(OSError):
                    text.flush()

    def close(self) -> None:
        """Flush, and drop the text streams (not the descriptors)."""
        with self._lock:
            for text in self._texts.values():
                with suppress(OSError):
                    text.close()
            self._texts.clear()


_writing_to: ContextVar[StepLog | None] = ContextVar("research_jobs_step_log", default=None)


@contextmanager
def writing_to(log: StepLog) -> Generator[None]:
    """Within this context, ``print`` and everything else by ``sys.stdout`` goes to `log`."""
    token = _writing_to.set(log)
    try:
        yield
    finally:
        _writing_to.reset(token)
        log.flush()


class RoutedStream(io.TextIOBase):
    """Replaces ``sys.stdout`` or ``sys.stderr``: each step writes to its own log.

    A context variable says which step writes. A thread that a step starts does not inherit it:
    it writes to the run worker's own stream, as does a process that inherits
    the descriptors 1 and 2.

    Parameters
    ----------
    original : text stream
        Where what no step wrote goes.
    descriptor : int
        1 or 2.
    """

    def __init__(self, original: TextIO, descriptor: int) -> None:
        super().__init__()
        self.original = original
        self._descriptor = descriptor

    def _target(self) -> TextIO:
        log = _writing_to.get()
        return self.original if log is None or not log.is_captured else log.text(self._descriptor)

    def write(self, text: str, /) -> int:
        return self._target().write(text)

    def writelines(self, lines: Any, /) -> None:
        self._target().writelines(lines)

    def flush(self) -> None:
        self._target().flush()

    def fileno(self) -> int:
        return self._target().fileno()

    def isatty(self) -> bool:
        return self._target().isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: the stream is the process's, not the caller's."""

    @property
    def buffer(self) -> Any:
        return self._target().buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target().encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._target().errors

    def __getattr__(self, name: str) -> Any:
        # what only some streams have: `reconfigure`, `mode`, `name`, `line_buffering`
        return getattr(self._target(), name)


_routing = threading.Lock()
_routed = 0


@contextmanager
def route_output() -> Generator[None]:
    """Have ``sys.stdout`` and ``sys.stderr`` tell steps apart, for as long as a run lasts."""
    global _routed
    with _routing:
        _routed += 1
        for name, descriptor in (("stdout", WORKER_STDOUT), ("stderr", WORKER_STDERR)):
            stream = getattr(sys, name)
            if not isinstance(stream, RoutedStream):
                setattr(sys, name, RoutedStream(stream, descriptor))
    try:
        yield
    finally:
        with _routing:
            _routed -= 1
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                # not where someone else replaced it meanwhile
                if _routed == 0 and isinstance(stream, RoutedStream):
                    setattr(sys, name, stream.original)
