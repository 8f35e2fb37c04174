"""``research-jobs convert --verify``: real runs against stored outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.main import main


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    """A code cell with what it showed."""
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": list(outputs)}


def printed(text: str) -> dict[str, Any]:
    """Text on stdout."""
    return {"output_type": "stream", "name": "stdout", "text": text}


def value(text: str) -> dict[str, Any]:
    """A cell's value."""
    return {"output_type": "execute_result", "data": {"text/plain": text}}


def write(path: Path, *cells: dict[str, Any]) -> str:
    """A Jupyter notebook on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}),
        encoding="utf-8",
    )
    return str(path)


def test_what_is_the_same_and_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A move is proved by its numbers: those that differ are listed with their cell."""
    prose = {"cell_type": "markdown", "metadata": {}, "source": "text"}
    (tmp_path / "notebooks").mkdir()
    same = write(
        tmp_path / "same.ipynb",
        prose,
        code("def f(): return list(range(I))"),
        code("I = 10\nx = f()"),
        code("I = 25\n%time x = f()", printed("Wall time: 3 ms\n")),
        code("print(len(x))\nsum(x)", printed("25\n"), value("300")),
    )
    words = ["--project", str(tmp_path)]
    assert main(["convert", same, "--verify", *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "same", "succeeded", "2", "2", "0", "0", "of", "0",
    ]  # fmt: skip
    other = write(
        tmp_path / "other.ipynb",
        code("x = 2\nx * 2", value("5")),
        code("1 / 0", printed("never\n")),
    )
    assert main(["convert", other, "--verify", *words]) == 1
    out = capsys.readouterr().out
    assert "other: cell 1: numbers: 5 -> 4" in out
    assert "other: cell 2: error: no error -> ZeroDivisionError" in out
    script = tmp_path / "notebooks" / "other.py"
    script.write_text(script.read_text(encoding="utf-8") + "\n# %%\n1\n", encoding="utf-8")
    assert main(["convert", other, "--verify", *words]) == 1
    assert "was edited since it was converted" in capsys.readouterr().err
