r"""The capture file: what a run's cells showed, as JSON lines.

One object per line, in order::

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

A killed process leaves everything but ``end``, because a line is a single write.
Binary values are base64 text, as in nbformat. Secrets are masked before anything is written.
Everything that could grow without limit has one: text per cell, bytes per output, bytes in all.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_jobs.notebook.cells import Cell

__all__ = ["CAPTURE_VERSION", "Limits", "NullRecorder", "Recorder"]

CAPTURE_VERSION = 1


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
    """Receives what cells show and keeps nothing: the base class of real recorders."""

    #: whether anything is kept; if not, nothing needs formatting
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
        """Discard what the running cell has shown in this area (``wait``: when it shows more)."""

    def enter(self, area: str) -> None:
        """Enter an area of its own (an output widget): what follows is shown there."""

    def leave(self) -> None:
        """Leave the area that was entered last."""

    def note(self, text: str) -> None:
        """One line about what was left out of the running cell."""

    def asset(self, name: str, path: str) -> None:
        """A file on this machine that a page needs to show an output (plotly's script)."""

    def error(self, ename: str, evalue: str, traceback: Sequence[str], line: int | None) -> None:
        """The exception that ended the running cell."""

    def end(self, status: str) -> None:
        """The run ended; nothing more is recorded."""


class NullRecorder(Recorder):
    """The recorder of a run without a capture file."""
