"""Cutting a stored table: as `load()` reads it with these filters, row group by row group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research_jobs.errors import OutputNotFoundError, PartitionError, StoreError
from research_jobs.remote.cutting import cut_file
from research_jobs.remote.naming import chosen_notebooks, chosen_partitions
from research_jobs.store.codec import read_output, write_output
from research_jobs.store.origin import Cut

ROWS = 2_500
FRAME = pd.DataFrame(
    {
        "a": np.arange(ROWS),
        "b": [f"x{number % 7}" for number in range(ROWS)],
        "c": pd.Categorical([("u", "v")[number % 2] for number in range(ROWS)]),
    },
    index=pd.date_range("2018-01-01", periods=ROWS, freq="h", name="date"),
)
FLAT = FRAME.reset_index()
VALUES = {
    "times in the index": FRAME,
    "a running index": FLAT,
    "several levels": FRAME.set_index("b", append=True),
    "series": FRAME["a"],
    "polars": pl.from_pandas(FLAT.assign(c=FLAT["c"].astype(str))).with_columns(
        pl.col("b").cast(pl.Enum([f"x{number}" for number in range(7)]))
    ),
    "pyarrow": pa.Table.from_pandas(FLAT),
}


def same(left: Any, right: Any) -> bool:
    """Whether two tables are equal, types included."""
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right, check_freq=False)
        return True
    if isinstance(left, pd.Series):
        pd.testing.assert_series_equal(left, right, check_freq=False)
        return True
    return left.equals(right) and getattr(left, "schema", 0) == getattr(right, "schema", 0)


@pytest.mark.parametrize("kind", VALUES)
def test_a_cut_file_reads_as_the_filtered_one(tmp_path: Path, kind: str) -> None:
    """By time, by columns and by number: each as `load()` of the whole file selects it."""
    path, target = tmp_path / "whole.pq", tmp_path / "cut.pq"
    write_output("x", VALUES[kind], path, options={"row_group_size": 400}, metadata={})
    filters = [("date", ">=", "2018-03-01")]
    assert cut_file(path, target, Cut(since="2018-03-01")) == (1_084, ROWS)
    assert same(read_output(target), read_output(path, filters=filters))
    assert cut_file(path, target, Cut(None, "2018-03-01", ("a",))) == (1_084, ROWS)
    assert same(read_output(target), read_output(path, filters=filters, columns=["a"]))
    assert cut_file(path, target, Cut(700, "2018-03-01")) == (700, ROWS)
    last = read_output(path, as_="arrow").slice(ROWS - 700)
    assert read_output(target, as_="arrow").column("a").equals(last.column("a"))
    assert pq.read_metadata(target).num_rows == 700
    assert cut_file(path, target, Cut(rows=10 * ROWS)) == (ROWS, ROWS)
    assert same(read_output(target), read_output(path))


def test_rows_without_times_are_not_chosen_by_one(tmp_path: Path) -> None:
    """It says so, instead of sending everything."""
    path = tmp_path / "whole.pq"
    write_output("x", FLAT[["a"]], path, options={}, metadata={})
    with pytest.raises(StoreError, match="has no column of times"):
        cut_file(path, tmp_path / "cut.pq", Cut(since="2018-03-01"))


def test_what_is_named_is_found() -> None:
    """Notebooks, outputs and patterns, each once; mistakes get a suggestion."""
    stored = ["models/garch", "models/har", "prices"]

    def named(*names: str) -> dict[str, set[str] | None]:
        return chosen_notebooks(stored, names, lambda _: ["close", "open"])

    assert named() == dict.fromkeys(stored)
    assert named("models/*", "models.har", "models.har.open") == {
        "models/garch": None,
        "models/har": None,
    }
    assert named("prices.close", "notebooks/models/har.py", "prices.open") == {
        "prices": {"close", "open"},
        "models/har": None,
    }
    assert named("prices.close", "prices") == {"prices": None}
    for wrong, hint in (("prics", "'prices'"), ("prices.clse", "'close'"), ("models.hra", "har")):
        with pytest.raises(OutputNotFoundError, match=hint):
            named(wrong)
    with pytest.raises(OutputNotFoundError, match="no notebook with outputs"):
        named("nothing*")


def test_partitions_are_chosen_by_range_key_or_pattern() -> None:
    """Both ends are included, and an open end is none."""
    keys = ["2018-10-31", "2018-11-01", "2018-11-30", "2018-12-01"]

    def chosen(text: str | None) -> list[str]:
        return sorted(chosen_partitions("signals", keys, text))

    assert chosen(None) == keys
    assert chosen("2018-11..2018-11") == keys[1:3]
    assert chosen("2018-11-30..") == keys[2:]
    assert chosen("..2018-10-31") == keys[:1]
    assert chosen("2018-12-*, 2018-10-31") == [keys[0], keys[3]]
    with pytest.raises(PartitionError, match="It has 4, from 2018-10-31 to 2018-12-01"):
        chosen("2019..")
