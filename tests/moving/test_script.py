"""Whole notebooks as scripts: cells, kernels, formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jupytext
import pytest

from research_jobs.errors import NotebookError
from research_jobs.moving.reading import read_jupyter
from research_jobs.moving.script import percent_script
from research_jobs.notebook.cells import CellKind, parse_cells


def cell(kind: str, source: str, **metadata: Any) -> dict[str, Any]:
    """A cell as nbformat has it."""
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": metadata}


def notebook(*cells: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A notebook of format 4."""
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def test_cells_come_back_as_they_were() -> None:
    """Kinds, texts, tags, titles, ids and hard breaks survive, and both readers read them back."""
    named = {**cell("code", "x + 1\n", title="Sum", slideshow={"slide_type": "skip"}), "id": "a-1"}
    script = percent_script(
        notebook(
            cell("markdown", "# Title\n\nSome *prose*,  \nbroken"),
            cell("code", "x = 1\n", tags=["parameters"]),
            cell("raw", "as it is"),
            named,
        )
    )
    assert (script.done, script.look, script.files) == ({}, [], {})
    cells = parse_cells(script.text)
    kinds = [CellKind.MARKDOWN, CellKind.CODE, CellKind.RAW, CellKind.CODE]
    assert [c.kind for c in cells] == kinds
    assert cells[0].source == "# Title\n\nSome *prose*,  \nbroken"
    assert cells[1].tags == ("parameters",)
    assert cells[3].title == "Sum"
    assert cells[3].metadata["id"] == "a-1"
    again = jupytext.reads(script.text, fmt="py:percent")
    assert [c.cell_type for c in again.cells] == [kind.value for kind in kinds]
    assert again.cells[0].source == cells[0].source


@pytest.mark.parametrize(
    "metadata",
    [
        {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}},
        {"kernelspec": {"name": "bash", "display_name": "Bash"}},
        {"kernelspec": {"name": "julia-1.9", "language": "julia", "display_name": "Julia 1.9"}},
        {"kernelspec": {"name": "sos", "language": "sos", "display_name": "SoS"}},
        {"kernelspec": {"name": "sagemath", "display_name": "SageMath 9"}},
        {"language_info": {"name": "R"}},
        {"kernelspec": {"name": "python2", "language": "python", "display_name": "Python 2"}},
        {"kernelspec": {"name": "python3"}, "language_info": {"name": "python", "version": "2.7"}},
    ],
)
def test_other_kernels_are_refused_by_name(metadata: dict[str, Any]) -> None:
    """Code of another language, or of Python 2, does not run as Python."""
    shown = metadata.get("kernelspec", {}).get("display_name", "(?:R|Python 2)")
    with pytest.raises(NotebookError, match=shown):
        percent_script(notebook(cell("code", "x = 3"), **metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"kernelspec": {"name": "conda-env-x-py", "display_name": "x", "language": "python"}},
        {"kernelspec": {"name": "my_env", "display_name": "My env"}},
        {"kernelspec": None, "language_info": {"name": "python", "version": "3.9.1"}},
    ],
)
def test_kernels_of_python_are_converted(metadata: dict[str, Any]) -> None:
    """Whatever the environment is called."""
    assert percent_script(notebook(cell("code", "x = 3"), **metadata)).text == "# %%\nx = 3\n"


@pytest.mark.parametrize("source", ["x = 1\n\0", "x = '\ud800'"])
def test_characters_that_no_file_holds_are_refused(source: str) -> None:
    """One line, and no half-written script."""
    with pytest.raises(NotebookError, match="no text file"):
        percent_script(notebook(cell("code", source)))


def test_cells_of_other_languages_in_an_editor_raise() -> None:
    """A cell that VS Code marks as another language's is not run as Python."""
    script = percent_script(notebook(cell("code", "x = 3", vscode={"languageId": "r"})))
    assert len(script.look) == 1
    assert "# x = 3\nraise NotImplementedError" in script.text


def test_format_3_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    """An old notebook is upgraded, the same each time."""
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": "old"},
        "worksheets": [
            {
                "cells": [
                    {"cell_type": "heading", "level": 2, "source": "Title", "metadata": {}},
                    {
                        "cell_type": "code",
                        "language": "python",
                        "input": ["%time x = 1"],
                        "outputs": [],
                        "metadata": {},
                    },
                ],
                "metadata": {},
            }
        ],
    }
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(old), encoding="utf-8-sig")
    texts = {percent_script(read_jupyter(path)).text for _ in range(2)}
    assert texts == {"# %% [markdown]\n# ## Title\n\n# %%\nx = 1  # %time\n"}
    old["worksheets"][0]["cells"][1]["language"] = "ruby"  # type: ignore[index]
    path.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(NotebookError, match="ruby"):
        read_jupyter(path)


def test_a_pairing_stays() -> None:
    """The header by which jupytext pairs a notebook with a script is kept."""
    paired = notebook(cell("code", "x = 1"), jupytext={"formats": "ipynb,py:percent"})
    text = percent_script(paired).text
    assert "formats: ipynb,py:percent" in text
    assert [c.source.strip() for c in parse_cells(text)] == ["x = 1"]


def test_values_follow_the_order_of_magics() -> None:
    """A statement under %time assigns what later cells read."""
    script = percent_script(
        notebook(
            cell("code", "def f(): return list(range(I))"),
            cell("code", "I = 10\nx = f()"),
            cell("code", "I = 25\n%time x = f()"),
            cell("code", "%%time\nn = len(x)"),
        )
    )
    space: dict[str, Any] = {}
    exec(script.text, space)
    assert space["n"] == 25


def test_frozen_cells_and_raw_headers_stay_what_they_are() -> None:
    """Jupyter's kernel runs a frozen cell, and raw text on top is a cell of its own."""
    header = "---\ntitle: x\n---"
    frozen = cell("code", "x = 1", deletable=False, run_control={"frozen": True})
    text = percent_script(notebook(cell("raw", header), frozen)).text
    cells = parse_cells(text)
    assert [(c.kind, c.source.strip()) for c in cells] == [
        (CellKind.RAW, header),
        (CellKind.CODE, "x = 1"),
    ]
