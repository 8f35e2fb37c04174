"""docs/faults.md names tests that are there, and leaves no row out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_test_of_the_table_is_there() -> None:
    """Each test that the table names is a function of that file."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE)
    assert len(named) > 50
    for file, name in named:
        path = ROOT / (file if "/" in file else f"tests/faults/{file}")
        functions = [
            node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")
        ]
        assert name in functions, f"{file}::{name}"


def test_every_row_is_there() -> None:
    """The rows are numbered from 1 to 27."""
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", TABLE, re.MULTILINE)}
    assert rows == set(range(1, 28))


def test_every_numbered_test_is_in_the_table() -> None:
    """No test that is named for a row is left out of it."""
    for file in ("test_supervision.py", "test_cgroup.py"):
        text = (ROOT / "tests" / "faults" / file).read_text(encoding="utf-8")
        for name in re.findall(r"^def (test_row_\w+)\(", text, re.MULTILINE):
            assert f"`{file}::{name}`" in TABLE
