"""Causes out of two records: each kind is found, and nothing is blamed that did not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from research_jobs.provenance.causes import causes
from research_jobs.provenance.code_changes import changed_parts
from research_jobs.provenance.record import FileRead, Load, Record, read_record
from research_jobs.provenance.shelf import keep

BASE = Record(
    "report",
    "run-1",
    code_version="c1",
    parameters={"rows": "3"},
    variables={"MARKET": "Zagreb"},
    python="3.11.7",
    loads=(Load("prices", "table", (), "000001-a", "r", "d1"),),
    reads=(FileRead("raw.csv", "open", "s1", 10, 1.0),),
)


def changed(reports: Path, **fields: Any) -> tuple[Record, Record]:
    before = replace(BASE, environment=keep(reports, b"numpy==1.0\npandas==2.1\n"))
    fields.setdefault("environment", before.environment)
    return before, replace(before, run_id="run-2", **fields)


ONE = {
    "parameter": ({"parameters": {"rows": "4"}}, "parameters", "rows: 3 → 4"),
    "parameter gone": ({"parameters": {}}, "parameters", "rows: 3 → not set"),
    "load": (
        {"loads": (replace(BASE.loads[0], version="000002-b", data_version="d2"),)},
        "input",
        "prices.table changed",
    ),
    "load gone": ({"loads": ()}, "input", "prices.table is no longer read"),
    "file": (
        {"reads": (replace(BASE.reads[0], sha256="s2", bytes=11),)},
        "input",
        "raw.csv changed (10 → 11 bytes)",
    ),
    "variable": ({"variables": {"MARKET": "Wien"}}, "environment", "MARKET: Zagreb → Wien"),
    "python": ({"python": "3.12.0"}, "environment", "Python 3.11.7 → 3.12.0"),
    "code": ({"code_version": "c2"}, "code", "code version c1 → c2"),
}


@pytest.mark.parametrize("case", ONE)
def test_one_change_is_the_one_cause(tmp_path: Path, case: str) -> None:
    """Whatever differs alone is named alone, in one line."""
    fields, kind, what = ONE[case]
    before, after = changed(tmp_path, **fields)
    (cause,) = causes(tmp_path, before, after, differ=True)
    assert (cause.kind, cause.what) == (kind, what)


def test_packages_are_named_with_both_versions(tmp_path: Path) -> None:
    """Updated, new and removed distributions, and no other."""
    lists = keep(tmp_path, b"numpy==1.0\npandas==2.2\npolars==1.0\n")
    before, after = changed(tmp_path, environment=lists)
    assert [(c.kind, c.what) for c in causes(tmp_path, before, after, differ=False)] == [
        ("environment", "pandas: 2.1 → 2.2"),
        ("environment", "polars: not installed → 1.0"),
    ]


def test_equal_data_of_another_version_is_no_cause(tmp_path: Path) -> None:
    """A notebook that made the same again is not blamed."""
    same = replace(BASE.loads[0], version="000002-b")
    touched = replace(BASE.reads[0], modified=2.0)
    before, after = changed(tmp_path, loads=(same,), reads=(touched,))
    assert causes(tmp_path, before, after, differ=False) == ()


def test_what_nothing_explains_is_said(tmp_path: Path) -> None:
    """Without a difference it is chance, unless something was read that is not recorded."""
    before, after = changed(tmp_path)
    (cause,) = causes(tmp_path, before, after, differ=True, first_cell="cell 2")
    assert cause.kind == "nondeterministic"
    assert "cell 2" in cause.what
    before, after = changed(tmp_path, not_seen=("host api.example.com",))
    (cause,) = causes(tmp_path, before, after, differ=True)
    assert cause.kind == "unknown"
    assert "api.example.com" in cause.what


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """What is written is read back equal; what a newer version wrote is not guessed at."""
    path = tmp_path / "provenance.json"
    path.write_bytes(BASE.dump())
    assert read_record(path) == BASE
    path.write_bytes(BASE.dump().replace(b'"format": 1', b'"format": 99'))
    assert read_record(path) is None


NOTEBOOK = (
    '"""Prose."""\n# %% Load\nimport os\nx = 1\n\ndef clean(n):\n    return n\n'
    "# %% [markdown]\n# text\n# %% Smooth\ny = clean(x)\n# %%\nclass Book:\n    size = 3\n"
)
PARTS = {
    "cell": ("y = clean(x)", "y = clean(x) + 1", ['n.py, cell 4 "Smooth"']),
    "function": ("return n", "return n + 1", ["n.py, function clean"]),
    "class": ("size = 3", "size = 4", ["n.py, class Book"]),
    "comment": ("x = 1", "x = 1  # one", []),
    "prose": ("# text", "# other", []),
    "layout": ("y = clean(x)", "y = clean(\n    x\n)", []),
    "new cell": ("# %% Smooth", "# %% New\nz = 3\n# %% Smooth", ['n.py, cell 4 "New"']),
}


@pytest.mark.parametrize("change", PARTS)
def test_the_changed_part_is_named(change: str) -> None:
    """A cell, a function or a class; nothing for comments, prose and layout."""
    old, new, said = PARTS[change]
    assert old in NOTEBOOK
    after = NOTEBOOK.replace(old, new)
    assert changed_parts("n.py", NOTEBOOK.encode(), after.encode()) == said
    undone = changed_parts("n.py", after.encode(), NOTEBOOK.encode())
    assert len(undone) == len(said)
    assert changed_parts("n.py", NOTEBOOK.encode(), b"x = (") == ["n.py"]
