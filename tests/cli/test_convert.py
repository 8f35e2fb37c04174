"""``research-jobs convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.convert import percent_script
from research_jobs.cli.main import main
from research_jobs.notebook.cells import CellKind, parse_cells
from research_jobs.notebook.scan import scan
from research_jobs.project import find_project


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


def make_ipynb(path: Path, source: str = "x = 1") -> Path:
    """A Jupyter notebook of one cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [cell("code", source)]}), encoding="utf-8")
    return path


def scripts(root: Path) -> list[str]:
    """The scripts in a project's notebooks/."""
    return sorted(p.relative_to(root).as_posix() for p in root.joinpath("notebooks").rglob("*.py"))


@pytest.mark.parametrize("named", ["notebooks", "."])
def test_a_folder_is_converted_in_place(
    tmp_path: Path, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file lands beside its source, by a name that can be imported; copies are left alone."""
    notebooks = tmp_path / "notebooks"
    ligature = "\N{LATIN SMALL LIGATURE FI}t"
    for name in ("top", "sub/deep/inner", "2024/3 ways", "class", "_drafts/a-b", ligature):
        make_ipynb(notebooks / f"{name}.ipynb")
    make_ipynb(notebooks / ".ipynb_checkpoints" / "top-checkpoint.ipynb")
    make_ipynb(tmp_path / "reports" / "top" / "_runs" / "1" / "notebook.ipynb")
    assert main(["convert", str(tmp_path / named), "--project", str(tmp_path)]) == 0
    assert scripts(tmp_path) == [
        "notebooks/_drafts/a_b.py",
        "notebooks/fit.py",
        "notebooks/nb_2024/nb_3_ways.py",
        "notebooks/nb_class.py",
        "notebooks/sub/deep/inner.py",
        "notebooks/top.py",
    ]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["from", "written", "lines", "commented"]
    assert len(table) == 7
    found = scan(find_project(notebooks.parent))
    assert not found.problems
    assert len(found.notebooks) == 5  # what is in _drafts is private


def test_what_lies_elsewhere_keeps_its_subfolders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder's files keep their places below it, and a file alone goes to the top."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    make_ipynb(tmp_path / "old" / "top.ipynb")
    make_ipynb(tmp_path / "old" / "rates" / "curve.ipynb", "%matplotlib inline\n!ls")
    alone = make_ipynb(tmp_path / "other" / "alone.ipynb")
    words = ["convert", str(tmp_path / "old"), str(alone), "--project", str(tmp_path / "project")]
    assert main(words) == 0
    assert scripts(tmp_path / "project") == [
        "notebooks/alone.py",
        "notebooks/rates/curve.py",
        "notebooks/top.py",
    ]
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in table[1:4]] == ["0", "2", "0"]


def test_one_bad_file_holds_up_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is broken, missing, there already or equally named is a line each and exit code 2."""
    notebooks = tmp_path / "notebooks"
    good = make_ipynb(notebooks / "a b.ipynb")
    same = make_ipynb(notebooks / "a-b.ipynb", "y = 2")
    there = make_ipynb(notebooks / "kept.ipynb")
    (notebooks / "kept.py").write_text("# mine\n", encoding="utf-8")
    broken = notebooks / "broken.ipynb"
    broken.write_text("{", encoding="utf-8")
    last = make_ipynb(notebooks / "last.ipynb")
    files = [good, same, there, broken, notebooks / "missing.ipynb", last]
    assert main(["convert", *map(str, files), "--project", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    bad = ("a-b.ipynb", "kept.py", "broken.ipynb", "missing.ipynb")
    assert len(lines) == len(bad)
    assert all(
        line.startswith("error: ") and name in line for line, name in zip(lines, bad, strict=True)
    )
    assert scripts(tmp_path) == ["notebooks/a_b.py", "notebooks/kept.py", "notebooks/last.py"]
    assert (notebooks / "a_b.py").read_text(encoding="utf-8") == "# %%\nx = 1\n"
    assert (notebooks / "kept.py").read_text(encoding="utf-8") == "# mine\n"


def test_an_empty_folder_and_one_name_for_several_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to convert is an error, and so is ``--output`` with more than one file."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    assert main(["convert", str(notebooks), "--project", str(tmp_path)]) == 2
    assert "has no .ipynb file" in capsys.readouterr().err
    one, two = make_ipynb(tmp_path / "one.ipynb"), make_ipynb(tmp_path / "two.ipynb")
    target = tmp_path / "out.py"
    assert main(["convert", str(one), str(two), "-o", str(target)]) == 2
    assert main(["convert", str(tmp_path), "-o", str(target)]) == 2
    assert not target.exists()
    assert main(["convert", str(one), "-o", str(target)]) == 0
    assert target.exists()
