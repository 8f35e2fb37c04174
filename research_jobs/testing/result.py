"""What a tested notebook made."""

from __future__ import annotations

import base64
import shutil
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from research_jobs.errors import OutputError, did_you_mean
from research_jobs.outcome import CheckOutcome, Outcome
from research_jobs.report.record import Output, read_capture
from research_jobs.report.thumbnail import PLOTLY, joined

__all__ = ["Figure", "NotebookResult"]

# Frames that read their file later; it stays as long as the process.
_read_later: list[NotebookResult] = []


@dataclass(frozen=True)
class Figure:
    """A figure that a cell showed.

    Parameters
    ----------
    cell : int
        Its number.
    title : str or None
        The cell's.
    data : mapping
        Its representations by mime type.
    """

    cell: int
    title: str | None
    data: Mapping[str, Any]

    @property
    def png(self) -> bytes | None:
        """Bytes or None: the picture."""
        text = self.data.get("image/png")
        return base64.b64decode(joined(text)) if text is not None else None

    @property
    def plotly(self) -> Any:
        """Dict or None: what plotly draws, with ``data`` and ``layout``."""
        return self.data.get(PLOTLY)


class NotebookResult(Mapping[str, Any]):
    """A run of a notebook: its variables by name, and what it printed and showed.

    Variables are read when they are asked for, and equal what the notebook assigned.

    Parameters
    ----------
    outcome : Outcome
    folder : Path
        Its files; they are removed with this object.
    capture : Path
    stdout, stderr : str
        What it printed.

    Attributes
    ----------
    outcome : Outcome
    stdout, stderr : str
    """

    def __init__(
        self, outcome: Outcome, folder: Path, capture: Path, stdout: str, stderr: str
    ) -> None:
        self.outcome = outcome
        self.stdout = stdout
        self.stderr = stderr
        self._capture = capture
        self._files = {output.name: output for output in outcome.outputs}
        self._values: dict[str, Any] = {}
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @property
    def skipped(self) -> str | None:
        """Str or None: the reason, if the notebook called `skip()`."""
        return self.outcome.skip_reason

    @property
    def checks(self) -> tuple[CheckOutcome, ...]:
        """Tuple of CheckOutcome: the checks of its outputs."""
        return self.outcome.checks

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Tuple of Figure: the figures that its cells showed, in order."""
        return tuple(
            Figure(cell.number, cell.title, shown.data)
            for cell in read_capture(self._capture).cells
            for shown in cell.shown
            if isinstance(shown, Output) and any(map(_is_figure, shown.data))
        )

    def __getitem__(self, name: str) -> Any:
        if name not in self._files:
            self._explain(name)
        if name not in self._values:
            from research_jobs.store.codec import read_output

            output = self._files[name]
            self._values[name] = read_output(Path(output.path))
            if type(self._values[name]).__name__ in ("LazyFrame", "RecordBatchReader"):
                _read_later.append(self)
        return self._values[name]

    def _explain(self, name: str) -> None:
        what = f"{self.outcome.label} "
        if self.skipped is not None:
            raise OutputError(f"{what}skipped its run: {self.skipped}")
        for note in self.outcome.notes:
            if f"'{name}'" in note:
                raise OutputError(f"{what}has '{name}', which cannot be read: {note}")
        known = did_you_mean(name, self._files, label="It has")
        raise KeyError(f"{what}assigns no '{name}'. {known}")

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"<{self.outcome.label}: {', '.join(self)}>"


def _is_figure(mime: str) -> bool:
    return mime == PLOTLY or mime.startswith(("image/", "application/vnd.vega"))
