"""``sys.stdout`` and ``sys.stderr`` during a notebook: straight to the log, and to the recorder.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO

from research_jobs.runtime.capture import Recorder

__all__ = ["capture_streams"]


class _BytesTee(io.BufferedIOBase):
    """``sys.stdout.buffer``: bytes pass through and are captured as text."""

    def __init__(self, target: BinaryIO, take: Callable[[str], None], encoding: str) -> None:
        super().__init__()
        self._target = target
        self._take = take
        # A character may be split between writes.
        self._decode = codecs.getincrementaldecoder(encoding)("replace").decode

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._target.write(data)
        self._take(self._decode(bytes(data)))
        return written

    def flush(self) -> None:
        self._target.flush()

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return self._target.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class _TextTee(io.TextIOBase):
    """``sys.stdout``: text passes through to the log and, in order, to the recorder."""

    def __init__(self, target: TextIO, name: str, recorder: Recorder) -> None:
        super().__init__()
        self._target = target
        self._name = name
        self._recorder: Recorder | None = recorder
        self._buffer: _BytesTee | None = None

    def _take(self, text: str) -> None:
        if self._recorder is not None:
            self._recorder.stream(self._name, text)

    def release(self) -> None:
        """Keep passing text on (a logging handler may hold this), but stop recording."""
        self._recorder = None

    def write(self, text: str) -> int:
        written = self._target.write(text)
        if self._recorder is not None:
            self._recorder.stream(self._name, text)
        return written

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._target.flush()

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return self._target.isatty()

    def close(self) -> None:
        """Stay open: code that closes its stdout would lose later output."""

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._target.encoding

    @property
    def errors(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._target.errors

    @property
    def buffer(self) -> BinaryIO:
        if self._buffer is None:
            self._buffer = _BytesTee(self._target.buffer, self._take, self.encoding or "utf-8")
        return self._buffer  # pyright: ignore[reportReturnType]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


@contextmanager
def capture_streams(recorder: Recorder) -> Generator[None]:
    """Record what is written to ``sys.stdout`` and ``sys.stderr`` in this context.

    Everything still goes straight to its original destination.

    Parameters
    ----------
    recorder : Recorder
    """
    if not recorder.active:
        yield
        return
    before = sys.stdout, sys.stderr
    tees = [
        _TextTee(stream, name, recorder)
        for name, stream in (("stdout", before[0]), ("stderr", before[1]))
    ]
    sys.stdout, sys.stderr = tees  # pyright: ignore[reportAssignmentType]
    try:
        yield
    finally:
        # Streams that the notebook itself has replaced stay.
        if sys.stdout is tees[0]:
            sys.stdout = before[0]
        if sys.stderr is tees[1]:
            sys.stderr = before[1]
        for tee in tees:
            tee.release()
