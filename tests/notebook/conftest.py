"""Projects made from a few lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from research_jobs.notebook.cells import NotebookText, parse_cells
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    """A function that writes files (path below the project to text) and gives the project."""

    def make(files: Mapping[str, str]) -> Project:
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return Project(root=tmp_path, store=str(tmp_path / "data"))

    return make


@pytest.fixture
def as_notebook() -> Callable[..., NotebookText]:
    """A function that makes a notebook's text without a file."""

    def make(text: str, path: str = "/p/notebooks/study.py") -> NotebookText:
        text = textwrap.dedent(text)
        return NotebookText(Path(path), text, "0" * 64, parse_cells(text))

    return make
