"""``research-jobs new``."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from research_jobs.cli.main import main
from research_jobs.notebook.cells import read_notebook_text
from research_jobs.notebook.facts import read_facts


def test_the_template_is_a_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `new` writes has a description, parameters and a result, and runs as plain Python."""
    (tmp_path / "notebooks").mkdir()
    assert main(["new", "rates/yield-curve", "--project", str(tmp_path)]) == 2
    assert main(["new", "rates.yield_curve", "--project", str(tmp_path)]) == 0
    path = tmp_path / "notebooks" / "rates" / "yield_curve.py"
    interface = read_facts(read_notebook_text(path), notebook=True, shown="n.py")
    assert interface.description.startswith("# Yield curve")
    assert [(p.name, p.type, p.default) for p in interface.parameters] == [("days", "int", 30)]
    assert len(runpy.run_path(str(path))["result"]) == 8
    assert "research-jobs run rates/yield_curve" in capsys.readouterr().out


def test_new_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A notebook that exists stays as it is."""
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "mine.py"
    path.write_text("# %%\nx = 1\n", encoding="utf-8")
    assert main(["new", "mine", "--project", str(tmp_path)]) == 2
    assert path.read_text(encoding="utf-8") == "# %%\nx = 1\n"
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "a b", "class", "_private", "1st", "a//b", ""])
def test_names_that_no_import_could_reach_are_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only names that are modules become files, and none outside notebooks/."""
    (tmp_path / "notebooks").mkdir()
    assert main(["new", name, "--project", str(tmp_path)]) == 2
    assert list(tmp_path.rglob("*.py")) == []
    assert "is not a valid notebook name" in capsys.readouterr().err
