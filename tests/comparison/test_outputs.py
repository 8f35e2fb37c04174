"""What differs between two versions of an output that need not be a table."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from research_jobs.comparison import outputs
from research_jobs.comparison.changes import OutputChange, to_json
from research_jobs.comparison.outputs import compare_output, compare_outputs
from research_jobs.store.codec import write_output

FRAME = pd.DataFrame({"k": list("abc"), "x": [1.0, 2.0, 3.0]})

RELABELLED = "the name of column 1 is str, and was int"
SHIFTED = "index range(0, 3, 1) -> range(1, 4, 1)"


def written(path: Path, value: Any) -> Path:
    path.unlink(missing_ok=True)
    write_output("x", value, path, options={}, metadata={"run_id": path.stem})
    return path


def compared(folder: Path, before: Any, after: Any, **options: Any) -> OutputChange:
    paths = written(folder / "before.parquet", before), written(folder / "after.parquet", after)
    return compare_output(*paths, **options)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"sharpe": 1.2, "n": 3}, {"sharpe": 1.3, "n": 3}, ["sharpe changed 1.2 1.3"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 5]}}, ["a.b[1] changed 2 5"]),
        ([[1], {}], [[1, 6], {}], ["[0][1] added None 6"]),
        ({"a": 1}, {"b": 1}, ["a removed 1 None", "b added None 1"]),
        ({("x", 1): "p"}, {("x", 1): "q"}, ["[('x', 1)] changed 'p' 'q'"]),
        ([1, 2], [1], ["[1] removed 2 None"]),
        ({"AAPL", "IBM"}, {"IBM", "T"}, [" removed 'AAPL' None", " added None 'T'"]),
        (1, 1.0, [" type 1 1.0"]),
        (float("nan"), float("nan"), []),
        (0.0, -0.0, []),
        (None, None, []),
        (True, False, [" changed True False"]),
        (date(2018, 11, 1), date(2018, 11, 2), [" changed 2018-11-01 2018-11-02"]),
        (Decimal("1.5"), Decimal("1.6"), [" changed 1.5 1.6"]),
        ({"t": pd.Timestamp("2018-11-01")}, {"t": pd.NaT}, ["t type 2018-11-01 NaT"]),
        ({"m": [np.array([1, 2])]}, {"m": [np.array([1, 3])]}, ["m[0][1] changed 2 3"]),
        (2**70, 2**71, [f" changed {hex(2**70)} {hex(2**71)}"]),
        ([], [], []),
    ],
)  # fmt: skip
def test_values_by_path(tmp_path: Path, before: Any, after: Any, changes: list[str]) -> None:
    """Dicts, lists, sets and scalars are compared by path, each type with its own equality."""
    found = compared(tmp_path, before, after)
    assert found.parts is not None or not changes
    listed = found.parts.changes if found.parts else ()
    assert [f"{c.path} {c.what} {c.before} {c.after}" for c in listed] == changes
    assert found.equal is (not changes)


def test_sizes_and_tolerance_of_scalars(tmp_path: Path) -> None:
    """A number's change has a size, and a float within the tolerance is the same."""
    found = compared(tmp_path, {"a": 2.0, "b": 1.0}, {"a": 3.0, "b": 1.0 + 1e-12}, tolerance=1e-9)
    assert found.parts is not None
    (change,) = found.parts.changes
    assert (change.path, change.change, change.relative) == ("a", 1.0, 0.5)


@pytest.mark.parametrize(
    ("before", "after", "rows", "notes"),
    [
        (np.ones((2, 3)), np.ones((3, 3)), (3, 0, 0), ["shape (2, 3) -> (3, 3)"]),
        (np.arange(6.0), np.arange(6.0) + np.eye(1, 6)[0], (0, 0, 1), []),
        (np.ones((2, 3)), np.ones((3, 2)), None, ["shape (2, 3) -> (3, 2)"]),
        (np.arange(3), np.arange(3.0), (0, 0, 0), ["dtype <i8 -> <f8"]),
        (FRAME.x, FRAME.x.rename("y"), (0, 0, 0), ["name 'x' -> 'y'"]),
        (pd.DataFrame({1: [1]}), pd.DataFrame({"1": [1]}), (0, 0, 0), [RELABELLED]),
        (FRAME, FRAME.set_index(FRAME.index + 1), (0, 0, 0), [SHIFTED]),
        (pl.DataFrame({"k": [1, 2]}), pl.DataFrame({"k": [2, 3]}), (1, 1, 0), []),
        ([{"k": 1, "x": "a"}], [{"k": 1, "x": "b"}], (0, 0, 1), []),
    ],
)  # fmt: skip
def test_what_rows_do_not_tell(
    tmp_path: Path, before: Any, after: Any, rows: tuple[int, int, int] | None, notes: list[str]
) -> None:
    """Shapes, names and running indexes are differences beside those of rows."""
    found = compared(tmp_path, before, after)
    counts = found.table and (
        found.table.rows_added,
        found.table.rows_removed,
        found.table.rows_changed,
    )
    assert (counts, list(found.notes), found.equal) == (rows, notes, False)


def test_long_values_are_compared_as_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists by position, dicts by key and sets by item give the same counts, however long."""
    pairs = [
        (list(range(200)), [*range(199), 7, 8]),
        ({f"k{n}": n for n in range(200)}, {f"k{n}": n + (n == 5) for n in range(1, 202)}),
        (set(range(200)), set(range(3, 202))),
    ]
    for before, after in pairs:
        counts = []
        for many in (10_000, 10):
            monkeypatch.setattr(outputs, "MANY", many)
            found = to_json(compared(tmp_path, before, after))
            counts.append([found[f"rows_{what}"] for what in ("added", "removed", "changed")])
            assert ("parts" in found) is (many == 10_000)
        assert counts[0] == counts[1]


def test_kinds_that_differ(tmp_path: Path) -> None:
    """Tables of two libraries are compared by rows; a table and a dict cannot be."""
    found = compared(tmp_path, FRAME, pl.from_pandas(FRAME))
    assert found.table is not None
    assert (found.table.rows_changed, found.equal) == (0, False)
    found = compared(tmp_path, FRAME, {"x": 1})
    assert (found.table, found.parts, found.equal) == (None, None, False)


def test_a_comparison_as_json(tmp_path: Path) -> None:
    """Each output says whether it is equal, its counts of rows and its columns; new ones too."""
    paths = {
        name: written(tmp_path / f"{name}.parquet", value)
        for name, value in {
            "a": FRAME,
            "b": FRAME.assign(x=[1.0, np.inf, 3.0]),
            "d": {"s": 1},
        }.items()
    }
    found = compare_outputs(
        {"t": paths["a"], "gone": paths["d"]}, {"t": paths["b"], "new": paths["a"]}
    )
    record = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert record["equal"] is False
    table = record["outputs"]["t"]
    assert (table["rows_added"], table["rows_removed"], table["rows_changed"]) == (0, 0, 1)
    assert table["columns"]["x"]["largest"]["after"] == "inf"
    assert table["key"] == ["k"]
    assert [record["outputs"][name]["status"] for name in ("gone", "new")] == ["removed", "added"]
    same = compare_outputs({"t": paths["a"]}, {"t": written(tmp_path / "again.parquet", FRAME)})
    assert to_json(same)["outputs"]["t"]["rows_after"] == 3
    assert same.equal
