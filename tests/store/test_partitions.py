"""Several partitions as one value: which of them, which columns, and each key beside its rows."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_jobs.errors import StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store.load import load

KEYS = ["2018-11-01", "2018-11-02", "2018-11-05"]
FORMS = ["native", "pandas", "polars", "lazy", "arrow"]


def day(key: str) -> PartitionKey:
    """A partition of one dimension."""
    return PartitionKey(key, {"day": key})


@pytest.fixture
def days(put: Any) -> None:
    """Three partitions of one, no and two rows."""
    for key, rows in zip(KEYS, ([1], [], [2, 3]), strict=True):
        put("s", {"s": pd.DataFrame({"open": rows, "close": rows}, dtype="i8")}, day(key))


def rows(value: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The columns of a table of any library, and its rows."""
    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    if isinstance(value, pd.DataFrame):
        return list(value.columns), list(value.itertuples(index=False, name=None))
    if isinstance(value, pa.Table):
        return value.column_names, list(zip(*value.to_pydict().values(), strict=True))
    return value.columns, value.rows()


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize(
    ("operator", "value", "kept"),
    [
        ("=", KEYS[2], [2, 3]),
        ("==", date(2018, 11, 1), [1]),
        ("!=", KEYS[0], [2, 3]),
        ("<", KEYS[2], [1]),
        ("<=", KEYS[2], [1, 2, 3]),
        (">", KEYS[0], [2, 3]),
        (">=", KEYS[0], [1, 2, 3]),
        ("in", [KEYS[0], KEYS[1]], [1]),
        ("not in", [date(2018, 11, 1)], [2, 3]),
    ],
)
def test_every_comparison_of_a_key(operator: str, value: Any, kept: list[int]) -> None:
    """A filter on the key chooses the partitions that it says, the ends included or not."""
    assert list(load("s", filters=[("day", operator, value)])["open"]) == kept


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize("form", FORMS)
def test_no_filter_leaves_everything(form: str) -> None:
    """An empty list of filters asks for nothing, and every partition is there."""
    assert len(rows(load("s", filters=[], as_=form))[1]) == 3
    assert len(rows(load("s", "s", KEYS[2], filters=[], as_=form))[1]) == 2


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize("form", FORMS)
def test_each_key_is_beside_its_rows(form: str) -> None:
    """Partitions of different lengths have their own key in each row."""
    wanted = [(1, 1, KEYS[0]), (2, 2, KEYS[2]), (3, 3, KEYS[2])]
    assert rows(load("s", as_=form)) == (["open", "close", "day"], wanted)


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("columns", "given"),
    [
        ("close", ["close"]),
        (["open"], ["open"]),
        (["close", "day"], ["close", "day"]),
        ("day", ["day"]),
    ],
    ids=str,
)
def test_columns_are_those_asked_for(form: str, columns: Any, given: list[str]) -> None:
    """One name or several, the key among them or not: these columns and no others."""
    found, values = rows(load("s", columns=columns, as_=form))
    assert found == given
    assert len(values) == 3


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_no_partition_has(form: str) -> None:
    """A column that is not there is one clear error, whatever the form."""
    with pytest.raises(StoreError, match="no column 'z'"):
        load("s", columns=["z"], as_=form)


def test_a_key_that_is_in_the_index(put: Any) -> None:
    """A level of the index, or of the columns, that has the key's name stays the only one."""
    for key in KEYS[:2]:
        index = pd.Index([pd.Timestamp(key)], name="day")
        put("rows", {"s": pd.DataFrame({"x": [1]}, index=index)}, day(key))
        columns = pd.MultiIndex.from_tuples([("day", "a"), ("x", "b")])
        put("columns", {"s": pd.DataFrame([[1, 2]], columns=columns)}, day(key))
    found = load("rows")
    assert list(found.columns) == ["x"]
    assert list(found.index) == [pd.Timestamp(key) for key in KEYS[:2]]
    assert list(load("columns").columns) == [("day", "a"), ("x", "b")]


def test_columns_that_are_stored_differently(put: Any) -> None:
    """A column of objects that is empty in one partition and texts in another is joined."""
    for key, value in zip(KEYS, ("a", None, 1), strict=True):
        put("s", {"s": pd.DataFrame({"x": pd.Series([value], dtype=object)})}, day(key))
    assert list(load("s")["x"]) == ["a", None, 1]


def test_partitions_that_are_all_empty(put: Any) -> None:
    """Where no partition has a row, the columns of the first are there, without rows."""
    for key, kind in zip(KEYS, ("i8", "f8", "O"), strict=True):
        put("s", {"s": pd.DataFrame({"x": np.array([], kind)})}, day(key))
    found = load("s")
    assert (list(found.columns), len(found)) == (["x", "day"], 0)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (pd.Series([1], name="x"), pd.DataFrame),
        (pd.Index([1], name="x"), pd.DataFrame),
        (pl.DataFrame({"x": [1]}), pl.DataFrame),
        (pl.Series("x", [1]), pl.DataFrame),
        (pl.LazyFrame({"x": [1]}), pl.LazyFrame),
        (pa.table({"x": [1]}), pa.Table),
    ],
    ids=lambda each: f"{type(each).__module__.split('.')[0]} {type(each).__name__}",
)
def test_each_library_gets_its_own_table(put: Any, value: Any, kind: type) -> None:
    """What the notebook made with one library comes back as that library's table, with the key."""
    for key in KEYS[:2]:
        put("s", {"s": value}, day(key))
    found = load("s")
    assert type(found) is kind
    assert rows(found) == (["x", "day"], [(1, KEYS[0]), (1, KEYS[1])])


def test_tables_of_two_libraries(put: Any) -> None:
    """Where the library changed between partitions, pandas takes all of them."""
    put("s", {"s": pl.DataFrame({"x": [1]})}, day(KEYS[0]))
    put("s", {"s": pa.table({"x": [2]})}, day(KEYS[1]))
    found = load("s")
    assert type(found) is pd.DataFrame
    assert rows(found) == (["x", "day"], [(1, KEYS[0]), (2, KEYS[1])])


def test_values_of_two_dimensions(put: Any) -> None:
    """What is no table is given by the key as it is typed."""
    for ticker in ("A", "B/C"):
        put("s", {"s": ticker}, PartitionKey(f"1|{ticker}", {"day": "1", "ticker": ticker}))
    assert load("s") == {"1|A": "A", "1|B/C": "B/C"}
