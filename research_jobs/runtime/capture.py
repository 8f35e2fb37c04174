r"""What a run's cells showed, as they showed it, in a file of JSON lines.

One object a line, in order::

    {"type": "start", "version": 1, "cells": [{"number", "kind", "title", "tags",
     "first_line", "last_line", "source"}, ...], "time": unix}
    {"type": "cell", "number": n, "time": unix}             a cell begins
    {"type": "stream", "cell": n, "name": "stdout" | "stderr", "text": str}
                                 with "dropped": k when k characters before it were left out
    {"type": "output", "cell": n, "output_type": "display_data" | "execute_result",
     "data": {mime: value}, "metadata": {}, "display_id": str | null, "update": bool}
    {"type": "asset", "name": "plotly", "path": str}        a script that outputs need
    {"type": "note", "cell": n, "text": str}                what was left out, and why
    {"type": "error", "cell": n, "ename", "evalue", "traceback": [lines], "line": n | null}
    {"type": "cell_end", "number": n, "duration_s": f, "status": "ok" | "error" | "skipped"}
    {"type": "end", "status": str}

A process that is killed leaves no ``end``, and everything before it: a line is one write.
Binary values are base64 text, as in nbformat. Secrets are masked before anything is written.
What can grow without bound is bounded here: text per cell, bytes per output, bytes in all.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from research_jobs.runtime.masking import Masker, StreamMasker

if TYPE_CHECKING:
    from research_jobs.notebook.cells import Cell

__all__ = [
    "CAPTURE_VERSION",
    "FileRecorder",
    "Limits",
    "NullRecorder",
    "Recorder",
    "capture_streams",
    "open_recorder",
]

CAPTURE_VERSION = 1

_STREAM_LINE = b'{"type": "stream", '


@dataclass(frozen=True)
class Limits:
    """How much of what a notebook shows is kept.

    Parameters
    ----------
    stream_head, stream_tail : int
        Characters kept of the beginning and the end of one cell's stdout, and of its stderr.
    output : int
        Bytes of one output's largest representation.
    total : int
        Bytes of the whole file; beyond it only text and errors are kept.
    refresh_s : float
        Seconds between two writes of the same progress line or updated output.
    """

    stream_head: int = 128 * 1024
    stream_tail: int = 32 * 1024
    output: int = 24 * 1024 * 1024
    total: int = 256 * 1024 * 1024
    refresh_s: float = 0.5


class Recorder:
    """Takes what cells show and keeps nothing: the base of those that do."""

    #: whether anything is kept; what is not kept need not be formatted
    active: bool = False

    def start(self, cells: Sequence[Cell]) -> None:
        """The notebook's cells, before any runs."""

    def begin_cell(self, number: int) -> None:
        """A code cell begins."""

    def end_cell(self, number: int, duration_s: float, status: str) -> None:
        """The cell ended: ``ok``, ``error`` or ``skipped``."""

    def stream(self, name: str, text: str) -> None:
        """Text written to ``stdout`` or ``stderr``."""

    def display(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        output_type: str = "display_data",
        display_id: str | None = None,
        update: bool = False,
    ) -> None:
        """A value's representations, by mime type; binary ones already as base64 text."""

    def clear(self, *, wait: bool = False) -> None:
        """Forget what the running cell has shown so far (``wait``: when it shows more)."""

    def note(self, text: str) -> None:
        """One line about what was left out of the running cell."""

    def asset(self, name: str, path: str) -> None:
        """A file on this machine that a page needs to show an output (plotly's script)."""

    def error(self, ename: str, evalue: str, traceback: Sequence[str], line: int | None) -> None:
        """The exception that ended the running cell."""

    def end(self, status: str) -> None:
        """The run ended; nothing more is taken."""


class NullRecorder(Recorder):
    """For a run whose outputs nobody asked to keep."""


def open_recorder(
    path: str | None, secrets: Collection[str] = (), *, limits: Limits | None = None
) -> Recorder:
    """A recorder that writes the capture file.

    Parameters
    ----------
    path : str or None
        The file, replaced if it exists. None keeps nothing.
    secrets : collection of str
        Values that must not appear in it.
    limits : Limits, optional

    Returns
    -------
    Recorder
    """
    if path is None:
        return NullRecorder()
    return FileRecorder(path, Masker(secrets), limits or Limits())


@dataclass
class _Stream:
    """One cell's stdout or stderr: the head is written at once, the tail at the cell's end."""

    masker: StreamMasker
    written: int = 0
    tail: deque[str] = field(default_factory=deque[str])
    tail_length: int = 0
    dropped: int = 0

    def keep_tail(self, text: str, limit: int) -> None:
        if len(text) > limit:
            self.dropped += len(text) - limit
            text = text[-limit:]
        self.tail.append(text)
        self.tail_length += len(text)
        while self.tail_length > limit:
            excess = self.tail_length - limit
            first = self.tail.popleft()
            if len(first) > excess:
                self.tail.appendleft(first[excess:])
                self.tail_length -= excess
                self.dropped += excess
            else:
                self.tail_length -= len(first)
                self.dropped += len(first)


@dataclass
class _Live:
    """The file's last record, when it will be replaced by its next state (a progress bar)."""

    key: str
    begin: int
    end: int
    written_at: float


class FileRecorder(Recorder):
    """Writes the capture file.

    A failure to write (a full disk) ends the recording and never the notebook.

    Parameters
    ----------
    path : str
    masker : Masker
    limits : Limits
    """

    active = True

    def __init__(self, path: str, masker: Masker, limits: Limits) -> None:
        self._file = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._masker = masker
        self._limits = limits
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._size = 0
        self._cell: int | None = None
        self._cell_offset = 0
        self._streams: dict[str, _Stream] = {}
        self._progress: tuple[str, str] | None = None
        self._updates: dict[str, bytes] = {}
        self._updated_at: dict[str, float] = {}
        self._own_displays: set[str] = set()
        self._clear_pending = False
        self._live: _Live | None = None
        self._full = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    # -- what the importer calls ------------------------------------------------------------

    def start(self, cells: Sequence[Cell]) -> None:
        self._write(
            {
                "type": "start",
                "version": CAPTURE_VERSION,
                "cells": [
                    {
                        "number": cell.number,
                        "kind": cell.kind.value,
                        "title": cell.title,
                        "tags": list(cell.tags),
                        "first_line": cell.first_line,
                        "last_line": cell.last_line,
                        "markup": cell.metadata.get("markup"),
                        "source": cell.source,
                    }
                    for cell in cells
                ],
                "time": time.time(),
            }
        )

    def begin_cell(self, number: int) -> None:
        if os.getpid() != self._owner:
            self._close()  # a forked copy goes on without us
            return
        with self._lock:
            self._flush()
            self._cell = number
            self._streams = {}
            self._own_displays = set()
            self._clear_pending = False
            self._write({"type": "cell", "number": number, "time": time.time()})
            self._cell_offset = self._size

    def end_cell(self, number: int, duration_s: float, status: str) -> None:
        with self._lock:
            self._flush()
            self._write(
                {
                    "type": "cell_end",
                    "number": number,
                    "duration_s": round(duration_s, 6),
                    "status": status,
                }
            )

    def end(self, status: str) -> None:
        with self._lock:
            if self._file < 0 or os.getpid() != self._owner:
                return
            self._flush()
            self._write({"type": "end", "status": status})
            self._close()

    # -- what cells show --------------------------------------------------------------------

    def stream(self, name: str, text: str) -> None:
        if not text or self._file < 0:
            return
        with self._lock:
            self._clear_if_pending()
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = _Stream(StreamMasker(self._masker))
            text = stream.masker.feed(text)
            if text:
                self._stream_text(name, stream, text)

    def _stream_text(self, name: str, stream: _Stream, text: str) -> None:
        if text[0] == "\r" and "\n" not in text:
            # A progress bar redraws its line: only the last state is worth keeping.
            self._progress = (name, "\r" + text.rsplit("\r", 1)[1])
            self._write_progress(force=False)
            return
        if self._progress is not None:
            self._write_progress(force=True)
            self._progress = None
            self._live = None
        room = self._limits.stream_head - stream.written
        if room > 0 and not stream.tail:
            head, text = text[:room], text[room:]
            stream.written += len(head)
            self._write({"type": "stream", "cell": self._cell, "name": name, "text": head})
        if text:
            stream.keep_tail(text, self._limits.stream_tail)

    def _write_progress(self, *, force: bool) -> None:
        if self._progress is None:
            return
        name, text = self._progress
        record = {"type": "stream", "cell": self._cell, "name": name, "text": text}
        self._write_live(f"progress {name}", record, force=force)

    def display(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        output_type: str = "display_data",
        display_id: str | None = None,
        update: bool = False,
    ) -> None:
        if self._file < 0:
            return
        with self._lock:
            self._clear_if_pending()
            self._settle_progress()
            kept = self._bounded(data)
            if not kept and data:
                return
            line = self._line(
                {
                    "type": "output",
                    "cell": self._cell,
                    "output_type": output_type,
                    "metadata": self._masker.value(dict(metadata or {})),
                    "display_id": display_id,
                    "update": update,
                },
                kept,
            )
            if update and display_id is not None:
                # An animation updates many times a second: its last state is what stays.
                now = time.monotonic()
                if now - self._updated_at.get(display_id, 0.0) < self._limits.refresh_s:
                    self._updates[display_id] = line
                    return
                self._updates.pop(display_id, None)
                self._updated_at[display_id] = now
            elif display_id is not None:
                self._own_displays.add(display_id)
            self._write_line(line)

    def clear(self, *, wait: bool = False) -> None:
        with self._lock:
            if wait:
                self._clear_pending = True
                return
            self._clear_pending = False
            self._progress = None
            self._live = None
            for stream in self._streams.values():
                stream.masker.rest()
            self._streams = {}
            for display_id in self._own_displays:
                self._updates.pop(display_id, None)
            if self._file >= 0 and os.getpid() == self._owner and self._cell is not None:
                foreign = self._foreign_updates()
                try:
                    os.ftruncate(self._file, self._cell_offset)
                except OSError:
                    self._close()
                    return
                self._size = self._cell_offset
                for line in foreign:
                    self._write_line(line)

    def note(self, text: str) -> None:
        with self._lock:
            self._write({"type": "note", "cell": self._cell, "text": self._masker.text(text)})

    def asset(self, name: str, path: str) -> None:
        with self._lock:
            self._write({"type": "asset", "name": name, "path": path})

    def error(self, ename: str, evalue: str, traceback: Sequence[str], line: int | None) -> None:
        with self._lock:
            self._flush()
            self._write(
                {
                    "type": "error",
                    "cell": self._cell,
                    "ename": self._masker.text(ename),
                    "evalue": self._masker.text(evalue),
                    "traceback": [self._masker.text(item) for item in traceback],
                    "line": line,
                }
            )

    # -- inside -----------------------------------------------------------------------------

    def _bounded(self, data: Mapping[str, Any]) -> dict[str, str]:
        """The representations that are small enough, as JSON; what is left out is noted."""
        kept: dict[str, str] = {}
        for mime, value in data.items():
            if self._full and mime != "text/plain":
                continue
            try:
                encoded = json.dumps(self._masker.value(value), default=_unknown)
            except (TypeError, ValueError) as error:
                self.note(f"An output's {mime} was left out: it is not JSON ({error}).")
                continue
            if len(encoded) > self._limits.output:
                self.note(
                    f"An output of {_megabytes(len(encoded))} ({mime}) was left out: "
                    f"at most {_megabytes(self._limits.output)} are kept."
                )
                continue
            kept[mime] = encoded
        return kept

    def _foreign_updates(self) -> list[bytes]:
        """Updates by this cell of other cells' displays: they outlive clearing this one."""
        try:
            with open(os.dup(self._file), "rb") as file:  # noqa: PTH123 - from a descriptor
                file.seek(self._cell_offset)
                lines = file.read().splitlines()
        except OSError:
            return []
        latest: dict[str, bytes] = {}
        for line in lines:
            if b'"update": true' in line:
                display_id = json.loads(line)["display_id"]
                if display_id not in self._own_displays:
                    latest[display_id] = line + b"\n"
        return list(latest.values())

    def _clear_if_pending(self) -> None:
        if self._clear_pending:
            self.clear()

    def _settle_progress(self) -> None:
        if self._progress is not None:
            self._write_progress(force=True)
            self._progress = None
            self._live = None

    def _flush(self) -> None:
        """Write what was kept back: held ends of streams, tails, the last of many updates."""
        for name, stream in self._streams.items():
            rest = stream.masker.rest()
            if rest:
                self._stream_text(name, stream, rest)
        self._settle_progress()
        for name, stream in self._streams.items():
            if stream.tail:
                record = {
                    "type": "stream",
                    "cell": self._cell,
                    "name": name,
                    "text": "".join(stream.tail),
                }
                if stream.dropped:
                    record["dropped"] = stream.dropped
                self._write(record)
                stream.tail.clear()
                stream.tail_length = stream.dropped = 0
        for line in self._updates.values():
            self._write_line(line)
        self._updates = {}

    def _write_live(self, key: str, record: dict[str, Any], *, force: bool) -> None:
        """Write a record in place of its former state, at most every so often."""
        now = time.monotonic()
        live = self._live
        if live is not None and live.key == key:
            if not force and now - live.written_at < self._limits.refresh_s:
                return
            if live.end == self._size and os.getpid() == self._owner:
                try:
                    os.ftruncate(self._file, live.begin)
                except OSError:
                    self._close()
                    return
                self._size = live.begin
        begin = self._size
        self._write(record)
        self._live = _Live(key, begin, self._size, now)

    def _line(self, record: Mapping[str, Any], data: Mapping[str, str]) -> bytes:
        """A record with representations that are JSON already: large ones are encoded once."""
        head = json.dumps(record, default=str)
        parts = ", ".join(f"{json.dumps(mime)}: {encoded}" for mime, encoded in data.items())
        return f'{head[:-1]}, "data": {{{parts}}}}}\n'.encode()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._write_line(json.dumps(record, default=str).encode() + b"\n")

    def _write_line(self, line: bytes) -> None:
        if self._file < 0:
            return
        if os.getpid() != self._owner and not line.startswith(_STREAM_LINE):
            return  # a forked copy's prints are shown, as in the editor, and nothing else of it
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            self._close()
            return
        self._size += len(line)
        if self._size > self._limits.total and not self._full:
            self._full = True
            self.note(
                f"Outputs beyond {_megabytes(self._limits.total)} in one run are left out; "
                "their text is kept."
            )

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _after_fork(self) -> None:
        """In a process that the notebook forked: its prints count, its copies of ours do not."""
        self._lock = threading.RLock()
        self._streams = {}
        self._updates = {}
        self._progress = None
        self._live = None


def _unknown(value: Any) -> Any:
    """Values that a library put into its representation and JSON does not know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(bytes(value)).decode()
    for method in ("tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    return str(value)


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


class _BytesTee(io.BufferedIOBase):
    """``sys.stdout.buffer``: bytes go through and are captured as text."""

    def __init__(self, target: BinaryIO, take: Callable[[str], None], encoding: str) -> None:
        super().__init__()
        self._target = target
        self._take = take
        self._encoding = encoding

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._target.write(data)
        self._take(bytes(data).decode(self._encoding, "replace"))
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
    """``sys.stdout``: text goes through to the log, and to the recorder in order."""

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
        """Go on writing through (a logging handler may hold this), but record no more."""
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
        """Stay open: what closes its own stdout would lose what comes after."""

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
    """Let a recorder see what is written to ``sys.stdout`` and ``sys.stderr`` meanwhile.

    Everything still goes where it went before, at once.

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
        # What the notebook itself put in their place stays.
        if sys.stdout is tees[0]:
            sys.stdout = before[0]
        if sys.stderr is tees[1]:
            sys.stderr = before[1]
        for tee in tees:
            tee.release()
