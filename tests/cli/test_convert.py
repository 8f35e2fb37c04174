"""``research-jobs convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.convert import percent_script
from research_jobs.cli.main import main
from research_jobs.notebook.cells import CellKind, parse_cells


def cell(kind: str, source: str, **metadata: Any) -> dict[str, Any]:
    """A cell as nbformat has it."""
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": metadata}


def test_cells_come_back_as_they_were() -> None:
    """Kinds, sources and tags survive, and our own parser reads them back."""
    script, commented = percent_script(
        {
            "cells": [
                cell("markdown", "# Title\n\nSome *prose*."),
                cell("code", "x = 1\n", tags=["parameters"]),
                cell("raw", "as it is"),
                cell("code", "x + 1"),
            ]
        }
    )
    assert commented == 0
    cells = parse_cells(script)
    assert [c.kind for c in cells] == [
        CellKind.MARKDOWN,
        CellKind.CODE,
        CellKind.RAW,
        CellKind.CODE,
    ]
    assert cells[0].source == "# Title\n\nSome *prose*."
    assert cells[1].tags == ("parameters",)
    assert cells[1].source.strip() == "x = 1"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("%matplotlib inline\nx = 1", "# %matplotlib inline\nx = 1"),
        ("!pip install x", "# !pip install x"),
        ("files = !ls", "# files = !ls"),
        ("df?", "# df?"),
        ("if x:\n    %time f()\n    g()", "if x:\n    # %time f()\n    g()"),
        ("%%time\nx = 1", "# %%time\nx = 1"),
        ("%%bash\nls", "# %%bash\n# ls"),
        ("y = x % 2\nz = 'really?'", "y = x % 2\nz = 'really?'"),
        ("await f()", "await f()"),
    ],
)
def test_what_only_ipython_understands_is_commented(source: str, expected: str) -> None:
    """Magics, shell lines and questions become comments; Python stays Python."""
    script, commented = percent_script({"cells": [cell("code", source)]})
    assert script == f"# %%\n{expected}\n"
    assert bool(commented) == (source != expected)


def test_the_command_writes_into_the_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script lands in notebooks/ under a name that can be imported, and not twice."""
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "My Analysis (2).ipynb"
    source.write_text(json.dumps({"cells": [cell("code", "x = 1")]}), encoding="utf-8")
    words = ["convert", str(source), "--project", str(tmp_path)]
    assert main(words) == 0
    target = tmp_path / "notebooks" / "My_Analysis_2.py"
    assert target.read_text(encoding="utf-8") == "# %%\nx = 1\n"
    assert main(words) == 2
    assert main([*words, "--force"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"worksheets": []}'])
def test_what_is_no_notebook_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken and old files are one line and exit code 2."""
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "x.ipynb"
    source.write_text(text, encoding="utf-8")
    assert main(["convert", str(source), "--project", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
