"""Writes the capture file: bounded, without secrets, one write per line.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from research_jobs.runtime.capture import CAPTURE_VERSION, Limits, NullRecorder, Recorder
from research_jobs.runtime.failure import safe_str
from research_jobs.runtime.masking import Masker, StreamMasker
from research_jobs.units import readable_size

if TYPE_CHECKING:
    from research_jobs.notebook.cells import Cell

__all__ = ["FileRecorder", "open_recorder"]


def open_recorder(
    path: str | None, secrets: Collection[str] = (), *, limits: Limits | None = None
) -> Recorder:
    """A recorder that writes the capture file.

    Parameters
    ----------
    path : str or None
        The file, replaced if it exists. With None, or where it cannot be opened, nothing is kept.
    secrets : collection of str
        Values that must not appear in it.
    limits : Limits, optional

    Returns
    -------
    Recorder
    """
    if path is None:
        return NullRecorder()
    try:
        return FileRecorder(path, Masker(secrets), limits or Limits())
    except OSError as error:  # a full disk, for instance: the notebook runs all the same
        sys.stderr.write(f"What cells show is not recorded: {path}: {error.strerror or error}\n")
        return NullRecorder()


_STREAM_LINE = b'{"type": "stream", '


@dataclass
class _Stream:
    """A stream of a cell or an area in it: the head is written at once, the tail at the end."""

    name: str
    area: str | None
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
    """The file's last record, if its next state will replace it (a progress bar)."""

    key: str
    begin: int
    end: int
    written_at: float


class FileRecorder(Recorder):
    """Writes the capture file.

    A failure to write (a full disk) ends the recording, never the notebook.

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
        self._streams: dict[tuple[str | None, str], _Stream] = {}
        self._progress: tuple[_Stream, str] | None = None
        #: the areas entered, innermost last, and those to clear when more is shown
        self._areas: list[str] = []
        self._cleared: set[str | None] = set()
        self._updates: dict[str, bytes] = {}
        self._updated_at: dict[str, float] = {}
        self._own_displays: set[str] = set()
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
                        "title": self._masker.value(cell.title),
                        "tags": self._masker.value(list(cell.tags)),
                        "first_line": cell.first_line,
                        "last_line": cell.last_line,
                        "source": self._masker.text(cell.source),
                    }
                    for cell in cells
                ],
                "time": time.time(),
            }
        )

    def begin_cell(self, number: int) -> None:
        if os.getpid() != self._owner:
            self._close()  # a forked copy continues without us
            return
        with self._lock:
            self._flush()
            self._cell = number
            self._streams = {}
            self._own_displays = set()
            self._areas = []
            self._cleared = set()
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
            area = self._area
            stream = self._streams.get((area, name))
            if stream is None:
                stream = _Stream(name, area, StreamMasker(self._masker))
                self._streams[area, name] = stream
            text = stream.masker.feed(text)
            if text:
                self._stream_text(stream, text)

    def _stream_text(self, stream: _Stream, text: str) -> None:
        if text[0] == "\r" and "\n" not in text:
            # A progress bar redraws its line: only the last state is worth keeping.
            self._progress = (stream, "\r" + text.rsplit("\r", 1)[1])
            self._write_progress(force=False)
            return
        if self._progress is not None:
            self._write_progress(force=True)
            self._progress = None
            self._live = None
        room = self._limits.stream_head - stream.written
        if room > 0:
            head, text = text[:room], text[room:]
            stream.written += len(head)
            self._write(self._stream_record(stream, head))
        if text:
            stream.keep_tail(text, self._limits.stream_tail)

    def _write_progress(self, *, force: bool) -> None:
        if self._progress is None:
            return
        stream, text = self._progress
        key = f"progress {stream.name} {stream.area}"
        self._write_live(key, self._stream_record(stream, text), force=force)

    def _stream_record(self, stream: _Stream, text: str) -> dict[str, Any]:
        record = {"type": "stream", "cell": self._cell, "name": stream.name, "text": text}
        return record if stream.area is None else record | {"area": stream.area}

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
                    "display_id": display_id,
                    "update": update,
                    **({} if self._area is None else {"area": self._area}),
                },
                self._json("An output's metadata", dict(metadata or {})) or "{}",
                kept,
            )
            if update and display_id is not None:
                # An animation updates many times a second: only its last state stays.
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
            area = self._area
            if wait:
                self._cleared.add(area)
                return
            self._cleared.discard(area)
            self._progress = None
            self._live = None
            for key in [key for key in self._streams if key[0] == area]:
                self._streams.pop(key).masker.rest()
            if area is None:
                for display_id in self._own_displays:
                    self._updates.pop(display_id, None)
            if self._file >= 0 and os.getpid() == self._owner and self._cell is not None:
                kept = self._kept_by_clear(area)
                try:
                    os.ftruncate(self._file, self._cell_offset)
                except OSError:
                    self._close()
                    return
                self._size = self._cell_offset
                for line in kept:
                    self._write_line(line)

    def enter(self, area: str) -> None:
        with self._lock:
            self._settle_progress()
            self._areas.append(area)

    def leave(self) -> None:
        with self._lock:
            self._settle_progress()
            if self._areas:
                self._areas.pop()

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
        """The representations that are small enough, as JSON; a note names the others."""
        kept: dict[str, str] = {}
        for mime, value in data.items():
            if self._full and mime != "text/plain":
                continue
            encoded = self._json(f"An output's {mime}", value)
            if encoded is None:
                continue
            if len(encoded) > self._limits.output:
                self.note(
                    f"An output of {readable_size(len(encoded))} ({mime}) was left out: "
                    f"at most {readable_size(self._limits.output)} are kept."
                )
                continue
            kept[self._masker.text(mime)] = encoded
        return kept

    def _json(self, what: str, value: Any) -> str | None:
        """A value without secrets as JSON; a note says so if it cannot be."""
        try:
            return _json(self._masker.value(value))
        except Exception as error:  # noqa: BLE001 - a value of a library may raise anything
            self.note(f"{what} was left out: it is not JSON ({safe_str(error)}).")
            return None

    def _kept_by_clear(self, area: str | None) -> list[bytes]:
        """The records that clearing an area keeps.

        These are the other areas and the last updates of other cells' displays.
        """
        try:
            with open(os.dup(self._file), "rb") as file:  # noqa: PTH123 - from a descriptor
                file.seek(self._cell_offset)
                lines = file.read().splitlines(keepends=True)
        except OSError:
            return []
        kept: list[bytes] = []
        latest: dict[str, int] = {}
        for line in lines:
            record = json.loads(line)
            if record.get("update") and record["display_id"] not in self._own_displays:
                before = latest.get(record["display_id"])
                if before is not None:
                    kept[before] = b""
                latest[record["display_id"]] = len(kept)
                kept.append(line)
            elif record.get("area") != area:
                kept.append(line)
        return [line for line in kept if line]

    @property
    def _area(self) -> str | None:
        return self._areas[-1] if self._areas else None

    def _clear_if_pending(self) -> None:
        if self._area in self._cleared:
            self.clear()

    def _settle_progress(self) -> None:
        if self._progress is not None:
            self._write_progress(force=True)
            self._progress = None
            self._live = None

    def _flush(self) -> None:
        """Write what is held back: ends of streams, tails, the last of many updates."""
        for stream in self._streams.values():
            rest = stream.masker.rest()
            if rest:
                self._stream_text(stream, rest)
        self._settle_progress()
        for stream in self._streams.values():
            if stream.tail:
                record = self._stream_record(stream, "".join(stream.tail))
                if stream.dropped:
                    record["dropped"] = stream.dropped
                self._write(record)
                stream.tail.clear()
                stream.tail_length = stream.dropped = 0
        for line in self._updates.values():
            self._write_line(line)
        self._updates = {}

    def _write_live(self, key: str, record: dict[str, Any], *, force: bool) -> None:
        """Write a record over its previous state, but not too often."""
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

    def _line(self, record: Mapping[str, Any], metadata: str, data: Mapping[str, str]) -> bytes:
        """A record with representations that are already JSON: large ones are encoded only once."""
        parts = ", ".join(f"{_json(mime)}: {encoded}" for mime, encoded in data.items())
        return _encoded(f'{_json(record)[:-1]}, "metadata": {metadata}, "data": {{{parts}}}}}\n')

    def _write(self, record: Mapping[str, Any]) -> None:
        self._write_line(_encoded(_json(record) + "\n"))

    def _write_line(self, line: bytes) -> None:
        if self._file < 0:
            return
        if os.getpid() != self._owner and not line.startswith(_STREAM_LINE):
            return  # of a forked copy, only what it prints is shown, as in the editor
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
                f"Outputs beyond {readable_size(self._limits.total)} in one run are left out; "
                "their text is kept."
            )

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _after_fork(self) -> None:
        """In a forked copy: what it prints counts, its copy of our buffers does not."""
        self._lock = threading.RLock()
        self._streams = {}
        self._updates = {}
        self._progress = None
        self._live = None


def _json(value: Any) -> str:
    return json.dumps(value, default=_unknown, ensure_ascii=False)


def _encoded(text: str) -> bytes:
    """The text as UTF-8, with a question mark for each lone surrogate."""
    return text.encode("utf-8", "replace")


def _unknown(value: Any) -> Any:
    """Convert values of a library's representation that JSON does not support."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(bytes(value)).decode()
    for method in ("tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    return str(value)
