"""Everything that comes back equal, as a table: tested here, and printed in docs/outputs.md.

``RESEARCH_JOBS_UPDATE_DOCS=1 pytest tests/store/test_matrix.py`` writes the table anew.
"""

from __future__ import annotations

import dataclasses
import os
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_jobs.comparison.outputs import compare_output
from research_jobs.store.codec import read_output, write_output

ZAGREB = ZoneInfo("Europe/Zagreb")
DOCS = Path(__file__).parents[2] / "docs" / "outputs.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


@dataclasses.dataclass
class Trade:
    """A dataclass such as a notebook defines."""

    ticker: str = "AAPL"
    shares: int = 3
    legs: tuple[int, ...] = (1, 2)


def dates(count: int = 3, **arguments: Any) -> pd.DatetimeIndex:
    return pd.date_range("2018-11-01", periods=count, **arguments)


def column(values: Any, **arguments: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(values, **arguments)})


def indexed(index: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": range(len(index))}, index=index)


def with_attrs() -> pd.DataFrame:
    frame = pd.DataFrame({"x": [1]})
    frame.attrs = {"source": "desk", "when": date(2018, 11, 1), "range": (1, 2)}
    return frame


def infinity() -> list[float]:
    return [1.5, -0.0, float("inf"), float("-inf"), float("nan")]


PANDAS: dict[str, Callable[[], Any]] = {
    "DataFrame of numbers, text, booleans": lambda: pd.DataFrame(
        {"i": [1, 2], "f": [1.5, np.nan], "s": ["a", "b"], "b": [True, False]}
    ),
    "every integer and float dtype": lambda: pd.DataFrame(
        {n: np.array([1, 2], n) for n in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}
        | {n: np.array([1.5, np.nan], n) for n in ("f2", "f4", "f8")}
    ),
    "big-endian numbers": lambda: column(np.array([1.5, 2.5], ">f8")),
    "complex numbers": lambda: column(np.array([1 + 2j, complex("nan")])),
    "empty frame with columns": lambda: pd.DataFrame(
        {"i": np.array([], "i8"), "o": np.array([], object), "t": dates(0)}
    ),
    "frame without columns": lambda: pd.DataFrame(index=dates()),
    "frame with nothing at all": lambda: pd.DataFrame(),  # noqa: PLW0108 - one shape for all
    "index: DatetimeIndex with zone and frequency": lambda: indexed(dates(tz=ZAGREB, freq="B")),
    "index: custom business days": lambda: indexed(
        dates(freq=pd.offsets.CustomBusinessDay(2, normalize=True, holidays=["2018-11-02"]))
    ),
    "index: TimedeltaIndex with frequency": lambda: indexed(
        pd.timedelta_range("1h", periods=3, freq="30min")
    ),
    "index: PeriodIndex": lambda: indexed(pd.period_range("2018-01", periods=3, freq="M")),
    "index: IntervalIndex": lambda: indexed(pd.interval_range(0, 3, closed="left")),
    "index: CategoricalIndex": lambda: indexed(
        pd.CategoricalIndex(["a", "b"], categories=["b", "a", "z"], ordered=True, name="c")
    ),
    "index: RangeIndex with step and name": lambda: indexed(pd.RangeIndex(10, 0, -3, name="r")),
    "index: text, named": lambda: indexed(pd.Index(["a", "b"], name="ticker")),
    "index: dates of Python": lambda: indexed(pd.Index([date(2018, 11, 1), None], dtype=object)),
    "index: named as a column": lambda: indexed(pd.Index([1, 2], name="x")),
    "MultiIndex, named, with zone": lambda: indexed(
        pd.MultiIndex.from_product([dates(2, tz="UTC"), ["a", "b"]], names=["date", None])
    ),
    "MultiIndex of mixed objects": lambda: indexed(
        pd.MultiIndex.from_tuples([(1, ("a", 1)), ("b", ("a", 2))], names=["k", "k"])
    ),
    "columns: MultiIndex": lambda: pd.DataFrame(
        [[1, 2.5]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")], names=["l", None])
    ),
    "columns: numbers": lambda: pd.DataFrame(np.ones((2, 3)), columns=[1, 5, 9]),
    "columns: times with frequency": lambda: pd.DataFrame(np.ones((2, 3)), columns=dates()),
    "columns: mixed types, named": lambda: pd.DataFrame(
        [[1, 2, 3]], columns=pd.Index(["a", 1, ("b", 2)], name="n", tupleize_cols=False)
    ),
    "columns: categories": lambda: pd.DataFrame(
        [[1, 2]], columns=pd.CategoricalIndex(["a", "b"], categories=["b", "a"])
    ),
    "times in every unit": lambda: pd.DataFrame(
        {u: dates().as_unit(u) for u in ("s", "ms", "us", "ns")}
    ),
    "times with zones and missing": lambda: pd.DataFrame(
        {
            "z": pd.DatetimeIndex(
                ["2018-10-28 00:30", None, "2018-10-28 01:30"], tz="UTC"
            ).tz_convert(ZAGREB),
            "o": pd.to_datetime(["2018-11-01T00:00:00+01:30"] * 3),
        }
    ),
    "timedeltas in every unit": lambda: pd.DataFrame(
        {u: pd.to_timedelta([1, None], unit="s").as_unit(u) for u in ("s", "ms", "us", "ns")}
    ),
    "periods and intervals, some missing": lambda: pd.DataFrame(
        {
            "p": pd.PeriodIndex(["2018-11-01", None], freq="D"),
            "i": pd.arrays.IntervalArray.from_tuples([(1.0, 2.0), np.nan]),
            "t": pd.arrays.IntervalArray.from_breaks(dates(3, tz="UTC")),
        }
    ),
    "categories: ordered, unused, missing": lambda: column(
        pd.Categorical(["b", None, "a"], categories=["z", "b", "a"], ordered=True)
    ),
    "categories of numbers, times, intervals": lambda: pd.DataFrame(
        {
            "i": pd.Categorical([3, None, 1], categories=[5, 3, 1]),
            "f": pd.Categorical([1.5, 2.5, None]),
            "b": pd.Categorical([True, False, None]),
            "t": pd.Categorical(dates()),
            "c": pd.cut([1, 2, 3], 2),
            "d": pd.Categorical([date(2018, 1, 1), date(2018, 1, 2), None]),
        }
    ),
    "nullable dtypes": lambda: pd.DataFrame(
        {
            "i": pd.array([1, None], "Int64"),
            "u": pd.array([1, None], "UInt8"),
            "f": pd.array([1.5, None], "Float32"),
            "b": pd.array([True, None], "boolean"),
        }
    ),
    "every string dtype": lambda: pd.DataFrame(
        {
            "python": pd.array(["a", None], pd.StringDtype("python")),
            "pyarrow": pd.array(["a", None], pd.StringDtype("pyarrow")),
            "object": pd.Series(["a", None], dtype=object),
            "default": pd.Series(["a", None], dtype="str" if pd.__version__ >= "3" else object),
        }
    ),
    "Arrow-backed dtypes": lambda: pd.DataFrame(
        {
            "i": pd.array([1, None], pd.ArrowDtype(pa.int8())),
            "s": pd.array(["a", None], pd.ArrowDtype(pa.large_string())),
            "t": pd.array([datetime(2018, 1, 1), None], pd.ArrowDtype(pa.timestamp("s", "UTC"))),  # noqa: DTZ001 - naive is meant
            "l": pd.array([[1], None], pd.ArrowDtype(pa.list_(pa.int8()))),
            "d": pd.array([Decimal("1.10"), None], pd.ArrowDtype(pa.decimal128(5, 2))),
        }
    ),
    "objects: dates, Decimals, bytes": lambda: pd.DataFrame(
        {
            "d": pd.Series([date(2018, 1, 1), None], dtype=object),
            "t": pd.Series([datetime(2018, 1, 1, 9), None], dtype=object),  # noqa: DTZ001 - naive is meant
            "c": pd.Series([Decimal("1.1"), Decimal("1.10")], dtype=object),
            "b": pd.Series([b"\x00\xff", None], dtype=object),
        }
    ),
    "objects: lists, dicts, tuples, arrays": lambda: pd.DataFrame(
        {
            "l": [[1, 2], None],
            "d": [{"a": 1}, {"b": [2]}],
            "t": [(1, "a"), ()],
            "n": [{"x": np.arange(3)}, np.float32(1.5)],
        }
    ).iloc[:, :3],
    "objects: mixed types": lambda: column([1, "a", 2.5, None, True, 2**70], dtype=object),
    "objects: None, NaN, NaT, NA kept apart": lambda: pd.DataFrame(
        {
            "none": pd.Series(["a", None], dtype=object),
            "nan": pd.Series(["a", np.nan], dtype=object),
            "na": pd.Series([1, pd.NA], dtype=object),
            "nat": pd.Series([pd.NaT, None], dtype=object),
            "all": pd.Series([np.nan, None], dtype=object),
        }
    ),
    "attrs": with_attrs,
    "Series without name": lambda: pd.Series([1.5, None]),
    "Series with a name, index and frequency": lambda: pd.Series(
        [1, 2, 3], index=dates(freq="B"), name="close"
    ),
    "Series named by a tuple": lambda: pd.Series(["a"], name=("a", 1)),
    "Index": lambda: dates(tz=ZAGREB, freq="D"),
}

POLARS: dict[str, Callable[[], Any]] = {
    "DataFrame": lambda: pl.DataFrame(
        {
            "i": [1, None],
            "s": ["a", "b"],
            "l": [[1], None],
            "d": [date(2018, 1, 1)] * 2,
            "t": pl.Series([datetime(2018, 1, 1)] * 2, dtype=pl.Datetime("ms", "Europe/Zagreb")),  # noqa: DTZ001 - naive is meant
            "u": [timedelta(1)] * 2,
            "m": [time(9)] * 2,
            "c": pl.Series(["a", "b"], dtype=pl.Categorical),
            "e": pl.Series(["a", "b"], dtype=pl.Enum(["b", "a", "z"])),
            "x": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)),
            "r": [{"a": 1}, {"a": None}],
            "n": [None, None],
            "y": [b"a", b"b"],
            "f": [float("nan"), None],
            "p": [Decimal("1.10"), None],
        }
    ),
    "empty DataFrame": lambda: pl.DataFrame(schema={"a": pl.Int8, "b": pl.Categorical}),
    "LazyFrame (streamed)": lambda: pl.LazyFrame({"a": [1, 2], "b": ["x", None]}),
    "Series, named and not": lambda: pl.Series([1, 2], dtype=pl.UInt16),
}

ARROW: dict[str, Callable[[], Any]] = {
    "Table with schema metadata": lambda: pa.table(
        {
            "i": pa.array([1, None], pa.int8()),
            "d": pa.array(["a", "b"]).dictionary_encode(),
            "n": pa.array([1, 5]).dictionary_encode(),
            "l": pa.array(["a", "b"], pa.large_string()),
            "t": pa.array([1, 2], pa.timestamp("s", "UTC")),
            "m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())),
        }
    ).replace_schema_metadata({"owner": "desk"}),
    "RecordBatch": lambda: pa.record_batch({"a": [1, 2]}),
    "Array": lambda: pa.array([1, None]),
    "ChunkedArray": lambda: pa.chunked_array([[1], [2]]),
}

NUMPY: dict[str, Callable[[], Any]] = {
    "one dimension, every number": lambda: np.array([1.5, np.nan, -0.0, np.inf]),
    "three dimensions": lambda: np.arange(24, dtype="i2").reshape(2, 3, 4),
    "no dimension": lambda: np.array(5),
    "no rows": lambda: np.zeros((0, 3)),
    "complex, float16, long double": lambda: np.array([1 + 2j, complex(np.nan, 1)]),
    "long double": lambda: np.array([1, 2], "longdouble"),
    "text and bytes": lambda: np.array(["a", "bcd", ""]),
    "bytes": lambda: np.array([b"a", b"bc"]),
    "datetime64 of days": lambda: np.array(["2018-11-01", "NaT"], "M8[D]"),
    "timedelta64": lambda: np.array([1, 2], "m8[ns]"),
    "structured, nested, with shape": lambda: np.array(
        [(1, "a", [1, 2], (3,))],
        dtype=[("i", ">i4"), ("s", "U3"), ("v", "f8", (2,)), ("n", [("m", "i1")])],
    ),
    "objects": lambda: np.array([[1, None], ["a", (1, 2)]], dtype=object),
    "scalar": lambda: np.float32(1.5),
}

PYTHON: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "bool": lambda: True,
    "int": lambda: -5,
    "int beyond 64 bits": lambda: 3**500,
    "float, nan, inf": lambda: float("nan"),
    "complex": lambda: complex(1, float("inf")),
    "str": lambda: "Zagreb ǆ 日本",
    "str that is not UTF-8": lambda: "\ud800",
    "bytes": lambda: b"\x00\xff",
    "Decimal": lambda: Decimal("1.10"),
    "date": lambda: date(2018, 11, 1),
    "datetime": lambda: datetime(2018, 11, 1, 9, 30, 0, 123456),  # noqa: DTZ001 - naive is meant
    "datetime with zone, repeated hour": lambda: datetime(
        2018, 10, 28, 2, 30, tzinfo=ZAGREB, fold=1
    ),
    "datetime with offset": lambda: datetime(2018, 1, 1, tzinfo=timezone(timedelta(hours=5.5))),
    "time": lambda: time(9, 30),
    "timedelta": lambda: timedelta(-1, 5, 7),
    "Timestamp, Timedelta, Period, Interval": lambda: [
        pd.Timestamp("2018-11-01", tz=ZAGREB),
        pd.Timedelta("1h"),
        pd.Period("2018-11", "M"),
        pd.Interval(1, 2),
        pd.NaT,
        pd.NA,
    ],
    "list of numbers": lambda: [1, 2, None],
    "list of floats": infinity,
    "list of mixed values": lambda: [1, "a", None, 2.5, [1, (2,)]],
    "list of records": lambda: [{"t": "AAPL", "w": 0.5}, {"t": "MSFT", "w": 0.5}],
    "list of other dicts": lambda: [{"a": 1}, {"b": {"c": 2}}],
    "empty list, tuple, set, dict": list,
    "tuple": lambda: (1, "a", (2, 3)),
    "set": lambda: {1, 2, 3},
    "frozenset": lambda: frozenset({"a", "b"}),
    "dict of results": lambda: {
        "sharpe": np.float64(1.25),
        "trades": 12,
        "best": {"AAPL": [1, 2]},
        "when": pd.Timestamp("2018-11-01"),
        "curve": np.arange(3.0),
    },
    "dict with other keys": lambda: {1: "a", (2, "b"): None, date(2018, 1, 1): {3}},
    "dict of many keys": lambda: {f"T{n}": n / 7 for n in range(500)},
    "dataclass (comes back as a dict)": Trade,
}

GROUPS = {"pandas": PANDAS, "polars": POLARS, "pyarrow": ARROW, "numpy": NUMPY, "Python": PYTHON}
CASES = [
    pytest.param(make, id=f"{group}: {name}")
    for group, cases in GROUPS.items()
    for name, make in cases.items()
]


@pytest.mark.parametrize("make", CASES)
def test_comes_back_equal(
    make: Callable[[], Any],
    round_trip: Callable[[Any], Any],
    same: Callable[[Any, Any], bool],
) -> None:
    """Every kind of value of the table is equal after a round trip, type included."""
    wanted = make()
    found = round_trip(make())
    if dataclasses.is_dataclass(wanted):
        wanted = {item.name: getattr(wanted, item.name) for item in dataclasses.fields(wanted)}
    assert same(wanted, found)


@pytest.mark.parametrize("make", CASES)
def test_a_value_is_compared_with_itself(tmp_path: Path, make: Callable[[], Any]) -> None:
    """Every value can be compared, and equals itself, however its file was written."""
    paths = tmp_path / "before.parquet", tmp_path / "after.parquet"
    for path, compression in zip(paths, ("zstd", "none"), strict=True):
        options = {"compression": compression}
        write_output("value", make(), path, options=options, metadata={})
    found = compare_output(*paths)
    assert found.equal, found
    assert found.table is not None or found.parts is not None


def test_a_stream_comes_back_as_a_stream(
    round_trip: Callable[[Any], Any], same: Callable[[Any, Any], bool]
) -> None:
    """A RecordBatchReader comes back as one, with the same rows."""
    table = ARROW["Table with schema metadata"]()
    found = round_trip(table.to_reader(max_chunksize=1))
    assert isinstance(found, pa.RecordBatchReader)
    assert same(table.combine_chunks(), found.read_all().combine_chunks())


def test_an_ordered_dict_is_refused_rather_than_changed(round_trip: Callable[[Any], Any]) -> None:
    """A subclass would come back as its base, so it is refused with the way out."""
    with pytest.raises(Exception, match=r"output 'value'.*OrderedDict.*Convert it with dict"):
        round_trip(OrderedDict(a=1))


def test_the_table_in_the_docs_is_this_one(tmp_path: Path) -> None:
    """docs/outputs.md shows what these values look like to other tools, as it is."""
    text = DOCS.read_text(encoding="utf-8")
    table = _table(tmp_path)
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    if os.environ.get("RESEARCH_JOBS_UPDATE_DOCS"):
        DOCS.write_text(f"{text[:begin]}\n{table}\n{text[end:]}", encoding="utf-8")
        return
    if pd.__version__ >= "3":  # the table is written with the newest pandas
        assert text[begin:end].strip() == table.strip()


def _table(folder: Path) -> str:
    lines = [
        "| Value | Columns in the file | `load()` | `pd.read_parquet` | polars | DuckDB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for group, cases in GROUPS.items():
        for name, make in cases.items():
            path = folder / "value.parquet"
            value = make()
            staged = write_output("value", value, path, options={}, metadata={})
            shown = ", ".join(f"{column} {kind}" for column, kind in staged.columns[:3])
            shown = shown.replace("|", "\\|") + (", …" if len(staged.columns) > 3 else "")
            readers = [_plain_pandas(path, value), _rows(path, pl.read_parquet), _duckdb(path)]
            cells = [f"{group}: {name}", f"`{shown[:70]}`" if shown else "", "equal", *readers]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain_pandas(path: Path, value: Any) -> str:
    try:
        found = pd.read_parquet(path)
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, found)
            return "equal"
    except AssertionError:
        return "reads"
    except Exception:  # noqa: BLE001 - whatever it says, it does not read it
        return "no"
    return "reads"


def _rows(path: Path, read: Callable[[Path], Any]) -> str:
    try:
        read(path)
    except BaseException as error:  # polars' panics are no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return "no"
    return "reads"


def _duckdb(path: Path) -> str:
    return _rows(path, lambda file: duckdb.sql(f"select * from '{file}'").fetchall())


def test_the_footer_says_whose_it_is(tmp_path: Path) -> None:
    """Notebook, run and partition stand in the footer, for whoever finds the file."""
    import json

    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    metadata = {"notebook": "garch", "run_id": "r", "partition": "2018-11-01", "code_version": "c"}
    write_output("x", [1], path, options={}, metadata=metadata)
    record = json.loads(pq.read_metadata(path).metadata[b"research_jobs"])
    assert metadata.items() <= record.items()
    assert (record["kind"], record["format"]) == ("list", 1)
    assert read_output(path) == [1]
