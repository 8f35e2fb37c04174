"""Fixtures: runs as their capture files tell them, without running anything."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from research_jobs.notebook.cells import parse_cells
from research_jobs.outcome import Outcome, State
from research_jobs.report.header import ReportHeader
from research_jobs.runtime.capture import Recorder
from research_jobs.runtime.recording import open_recorder

Cells = Mapping[int, Callable[[Recorder], object]]


class Captures:
    """Writes capture files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        source: str,
        shows: Cells | None = None,
        *,
        status: Mapping[int, str] | None = None,
        end: str | None = "succeeded",
        name: str = "capture.jsonl",
    ) -> Path:
        """A run in which the named cells showed something, up to the one that did not end well.

        A status of ``"running"`` is a cell in which the process was killed.
        """
        path = self.folder / name
        recorder = open_recorder(str(path))
        cells = parse_cells(textwrap.dedent(source).lstrip("\n"))
        recorder.start(cells)
        for cell in cells:
            if cell.kind.value != "code":
                continue
            recorder.begin_cell(cell.number)
            if shows and cell.number in shows:
                shows[cell.number](recorder)
            ending = (status or {}).get(cell.number, "ok")
            if ending == "running":
                return path
            recorder.end_cell(cell.number, 0.25, ending)
            if ending != "ok":
                break
        if end is not None:
            recorder.end(end)
        return path


def show(mime: str, value: Any) -> Callable[[Recorder], object]:
    """Shows one representation."""
    return lambda recorder: recorder.display({mime: value, "text/plain": "<value>"})


def header(**changes: Any) -> ReportHeader:
    """A header of a run that succeeded."""
    state = State(changes.pop("ending", "succeeded"))
    around = {field.name for field in fields(ReportHeader)} & changes.keys()
    outcome: dict[str, Any] = {
        "state": state,
        "notebook": "volatility/garch",
        "run_id": "ab12cd34-0000",
        "started_at": 1717400000.5,
        "duration_s": 4.2,
    }
    outcome |= {name: value for name, value in changes.items() if name not in around}
    given = {"timezone": "Europe/Zagreb"} | {name: changes[name] for name in around}
    return ReportHeader(Outcome(**outcome), **given)


@pytest.fixture
def captures(tmp_path: Path) -> Captures:
    return Captures(tmp_path)


@pytest.fixture(scope="session")
def captures_in() -> type[Captures]:
    return Captures


@pytest.fixture(name="header", scope="session")
def _header() -> Callable[..., ReportHeader]:
    return header


@pytest.fixture(name="show", scope="session")
def _show() -> Callable[[str, Any], Callable[[Recorder], object]]:
    return show
