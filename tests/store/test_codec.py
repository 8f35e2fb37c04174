"""Values and files: properties over generated values, refusals, options, and damaged files."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
import tempfile
from collections import Counter, namedtuple
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import dateutil.tz
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytz
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from research_jobs.errors import CorruptOutputError, OutputNotParquetError, StoreError
from research_jobs.outcome import StagedOutput
from research_jobs.store.codec import read_output, write_output
from research_jobs.store.codec.parquet import column_facts

BRISK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**62, max_value=2**70)
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=8)
    | st.binary(max_size=8)
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.just(Decimal("NaN"))
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones(), allow_imaginary=False)
    | st.times()
    | st.timedeltas()
)
KEYS = (
    st.text(max_size=4) | st.integers() | st.dates() | st.tuples(st.integers(), st.text(max_size=2))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.frozensets(st.integers(), max_size=4)
    ),
    max_leaves=8,
)


def _round_trip(value: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "v.parquet")
        write_output("value", value, path, options={}, metadata={})
        return read_output(path)


@BRISK
@given(VALUES)
@example([{}])
@example([{"a": [{}]}])
def test_any_value_of_python(same: Callable[[Any, Any], bool], value: Any) -> None:
    """Whatever is built from Python's own types comes back equal, type included."""
    assert same(value, _round_trip(value))


@BRISK
@given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(max_size=3), hnp.array_shapes(min_side=0)))
def test_any_array_of_numpy(same: Callable[[Any, Any], bool], value: Any) -> None:
    """Arrays of any dtype, structured included, and any shape come back equal."""
    if value.dtype.hasobject:
        return
    assert same(value, _round_trip(value))


CELLS = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(),
    "bool": st.booleans(),
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "Float64": st.none() | st.floats(allow_nan=False),
    "boolean": st.none() | st.booleans(),
    "string": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    "object": SCALARS,
    "category": st.none() | st.integers(0, 3),
    "datetime64[ns]": st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - naive ones are meant
    "datetime64[us, Europe/Zagreb]": st.none()
    | st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - naive ones are meant
    "timedelta64[us]": st.none() | st.timedeltas(timedelta(-1000), timedelta(1000)),
}


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Frames of any dtypes, with labels and an index of any of them."""
    rows = draw(st.integers(0, 5))
    names = draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3)
            | st.integers(0, 9).map(lambda n: f"c{n}"),
            unique=True,
            max_size=4,
        )
    )

    def column(dtype: str) -> pd.Series:
        cells = draw(st.lists(CELLS[dtype], min_size=rows, max_size=rows))
        if dtype.startswith("datetime64[us, "):
            stamps = pd.Series(pd.to_datetime(pd.Series(cells, dtype="datetime64[us]"), utc=True))
            return stamps.astype(dtype)
        return pd.Series(cells, dtype=dtype)

    kinds = st.sampled_from(sorted(CELLS))
    data = {name: column(draw(kinds)) for name in names}
    frame = pd.DataFrame(data, index=pd.RangeIndex(rows))
    levels = [column(draw(kinds)) for _ in range(draw(st.integers(0, 2)))]
    if len(levels) == 1:
        frame.index = pd.Index(levels[0], name=draw(st.none() | st.just("i")), tupleize_cols=False)
    elif levels:
        frame.index = pd.MultiIndex.from_arrays(levels, names=["k", None])
    return frame


@BRISK
@given(frames())
def test_any_frame_of_pandas(same: Callable[[Any, Any], bool], frame: pd.DataFrame) -> None:
    """Frames of generated dtypes, labels and indexes come back equal."""
    assert same(frame, _round_trip(frame))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@BRISK
@given(st.lists(st.tuples(st.floats() | st.none(), TEXT), max_size=6))
def test_what_other_tools_can_say_they_say(rows: list[tuple[Any, str]]) -> None:
    """Numbers and text read by pandas and DuckDB are what was written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "v.parquet")
        numbers = pd.array([number for number, _ in rows], "Float64")
        texts = pd.Series([text for _, text in rows], dtype="string")
        frame = pd.DataFrame({"n": numbers, "s": texts})
        write_output("value", frame, path, options={}, metadata={})
        pd.testing.assert_frame_equal(pd.read_parquet(path), frame)
        found = duckdb.sql(f"from '{path}'").fetchall()
        wanted = [None if value is pd.NA else float(value) for value in frame["n"]]
        assert [row[1] for row in found] == list(frame["s"])
        assert repr([row[0] for row in found]) == repr(wanted)


# -- refusals --------------------------------------------------------------------------------


class Colour(enum.Enum):
    """An enumeration of a notebook."""

    RED = 1


class Odd:
    """A class of a notebook, without a form as data."""


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the untyped one is what notebooks have


class Frame(pd.DataFrame):
    """A subclass, as geopandas has."""


def _loop() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "enum": (lambda: Colour.RED, r"Colour.* \.name or its \.value"),
    "enum inside": (lambda: {"a": [Colour.RED]}, r"key 'a'.*Colour inside a list"),
    "object": (Odd, r"type \S*Odd cannot be kept as Parquet"),
    "object in a column": (
        lambda: pd.DataFrame({"ok": [1], "bad": [Odd()]}),
        r"output 'value', column 'bad': type \S*Odd",
    ),
    "object in a list": (lambda: [1, Odd()], r"item 1: type \S*Odd"),
    "function": (lambda: len, r"type builtin_function_or_method"),
    "named tuple": (lambda: Point(1, 2), r"Convert it with tuple"),
    "counter": (lambda: Counter("aab"), r"dict"),
    "frame in a dict": (lambda: {"a": pd.DataFrame()}, r"separate output"),
    "subclass of a frame": (lambda: Frame({"a": [1]}), r"Frame.*pd\.DataFrame"),
    "two columns of a name": (
        lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
        r"two columns named 'a'",
    ),
    "two columns of a text": (
        lambda: pd.DataFrame([[1, 2]], columns=pd.Index([1, "1"], dtype=object)),
        r"two columns written '1'",
    ),
    "sparse": (
        lambda: pd.DataFrame({"s": pd.arrays.SparseArray([0, 1])}),
        r"column 's'.*Sparse.*to_dense",
    ),
    "attrs": (lambda: _with_attrs(Odd()), r"attrs: type \S*Odd inside a dict"),
    "polars object": (
        lambda: pl.DataFrame({"o": pl.Series([Odd()], dtype=pl.Object)}),
        r"column 'o': polars type Object",
    ),
    "arrow table with two of a name": (
        lambda: pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]),
        r"two columns named 'a'",
    ),
    "masked array": (lambda: np.ma.array([1]), r"MaskedArray.*np\.array"),
    "structured objects": (
        lambda: np.array([((1,),)], dtype=[("n", [("o", object)])]),
        r"field 'n'.*objects",
    ),
    "a list in itself": (_loop, r"contains itself"),
    "a list in itself in a column": (lambda: column_of(_loop()), r"column 'x'.*contains itself"),
    "deep lists in a column": (lambda: column_of(_nested(5000)), r"column 'x'.*200 deep"),
    "a zone of dateutil among objects": (
        lambda: column_of(pd.Timestamp("2020", tz=dateutil.tz.gettz("Europe/Zagreb"))),
        r"column 'x'.*zoneinfo",
    ),
    "a zone of pytz that was not set by it": (
        lambda: datetime(2020, 1, 1, tzinfo=pytz.timezone("Europe/Zagreb")),
        r"localize",
    ),
    "broken lazy frame": (lambda: pl.LazyFrame({"a": [1]}).select("b"), r"LazyFrame"),
}


def _with_attrs(value: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["x"] = value
    return frame


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_not_come_back_is_refused(
    tmp_path: Path, make: Callable[[], Any], message: str
) -> None:
    """Output, place, type and a way out stand in one line, and no file is left."""
    path = tmp_path / "v.parquet"
    with pytest.raises(OutputNotParquetError, match=message) as caught:
        write_output("value", make(), path, options={}, metadata={})
    assert str(caught.value).startswith("output 'value'")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    """An error inside the notebook's own generator is reported with its reason."""

    def batches() -> Any:
        yield pa.record_batch({"a": [1]})
        raise RuntimeError("the feed broke")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
    with pytest.raises(OutputNotParquetError, match="the feed broke"):
        write_output("value", reader, tmp_path / "v.parquet", options={}, metadata={})
    assert not list(tmp_path.iterdir())


def test_a_lazy_frame_is_never_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LazyFrame goes to disk by sinking; collecting it would be an error here."""
    monkeypatch.setattr(pl.LazyFrame, "collect", lambda *_, **__: pytest.fail("collected"))
    frame = pl.LazyFrame({"a": range(1000)}).with_columns(b=pl.col("a") * 2)
    staged = write_output("value", frame, tmp_path / "v.parquet", options={}, metadata={})
    assert (staged.rows, staged.kind) == (1000, "polars.LazyFrame")


# -- files -----------------------------------------------------------------------------------


def test_a_file_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A store written by a newer research_jobs is distinguished from a damaged one."""
    record = json.dumps({"format": 99, "kind": "new"})
    table = pa.table({"a": [1]}).replace_schema_metadata({"research_jobs": record})
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(StoreError, match=r"format 99.*Upgrade research_jobs"):
        read_output(tmp_path / "v.parquet")


def test_a_file_of_somebody_else_is_a_table(tmp_path: Path) -> None:
    """A Parquet file without our record reads as pandas reads it."""
    frame = pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="k"))
    frame.to_parquet(tmp_path / "v.parquet")
    pd.testing.assert_frame_equal(read_output(tmp_path / "v.parquet"), frame)


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_file_is_corrupt(stage: Callable[..., StagedOutput], keep: int) -> None:
    """A file cut at any place is one clear error that names it."""
    staged = stage(pd.DataFrame({"a": range(100)}))
    path = Path(staged.path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptOutputError, match=r"value\.parquet.*not a whole Parquet file"):
        read_output(path)


def test_damaged_data_is_corrupt(stage: Callable[..., StagedOutput]) -> None:
    """Bytes changed inside the data are an error, not other data."""
    staged = stage(pd.DataFrame({"a": np.random.default_rng(0).normal(size=1000)}))
    path = Path(staged.path)
    data = bytearray(path.read_bytes())
    data[4:3000] = b"\xff" * 2996
    path.write_bytes(data)
    with pytest.raises(CorruptOutputError, match="cannot be read"):
        read_output(path)


def test_a_damaged_record_is_corrupt(tmp_path: Path) -> None:
    """A footer whose record is no JSON of ours is an error that says so."""
    table = pa.table({"a": [1]}).replace_schema_metadata({"research_jobs": "{"})
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(CorruptOutputError, match="footer"):
        read_output(tmp_path / "v.parquet")


def test_options_reach_the_file(stage: Callable[..., StagedOutput]) -> None:
    """Compression and row groups are as the manifest says, and sensible without."""
    times = pd.to_datetime(["2018", "2019", None], format="%Y")
    frame = pd.DataFrame({"n": [1.5, None, -2], "s": ["a", None, None], "t": times})
    found = stage(frame).statistics
    assert found["n"] == {"nulls": 1, "min": -2.0, "max": 1.5}
    assert found["s"] == {"nulls": 2}
    assert found["t"]["min"].startswith("2018-01-01T00:00:00")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_preview_is_small_and_shows_the_index(stage: Callable[..., StagedOutput]) -> None:
    """Ten rows, twenty columns, forty characters, the index first."""
    frame = pd.DataFrame({f"c{n}": ["x" * 1000] * 50 for n in range(30)})
    frame.index = pd.Index([str(n) for n in range(50)], name="key")
    found = stage(frame).preview
    assert found["columns"][:2] == ["key", "c0"]
    assert (len(found["columns"]), len(found["rows"]), found["more_columns"]) == (20, 10, 11)
    assert max(len(cell) for row in found["rows"] for cell in row) == 40
    assert found["rows"][3][0] == "3"


def test_the_preview_of_a_dict_is_a_list_of_its_keys(stage: Callable[..., StagedOutput]) -> None:
    """A dict shows as key and value, and counts its keys as rows."""
    staged = stage({"sharpe": 1.25, "n": 3})
    assert staged.preview == {
        "columns": ["key", "value"],
        "rows": [["sharpe", "1.25"], ["n", "3"]],
    }
    assert staged.rows == 2


def test_metadata_of_a_wide_frame_is_bounded(stage: Callable[..., StagedOutput]) -> None:
    """Three thousand columns of long names keep preview and statistics under 40 kB."""
    frame = pd.DataFrame(np.ones((20, 3000)), columns=[f"{'x' * 80}{n}" for n in range(3000)])
    staged = stage(frame)
    assert len(json.dumps([staged.preview, staged.statistics])) < 40_000


def test_columns_and_rows_can_be_chosen(tmp_path: Path) -> None:
    """Labels of any type and a filter on the index work as on the frame itself."""
    index = pd.date_range("2018-01-01", periods=4, tz="Europe/Zagreb", name="date")
    frame = pd.DataFrame({1: range(4), "b": list("abcd")}, index=index)
    write_output("value", frame, tmp_path / "v", options={}, metadata={})
    found = read_output(tmp_path / "v", columns=[1], filters=[("date", ">=", "2018-01-03")])
    wanted = frame.loc["2018-01-03":, [1]]
    pd.testing.assert_frame_equal(found, wanted, check_freq=False)
    lazy = read_output(tmp_path / "v", columns=["b"], filters=[("b", "in", ["a"])], as_="lazy")
    assert lazy.collect().to_dict(as_series=False) == {"b": ["a"]}


def test_an_array_is_writable(tmp_path: Path) -> None:
    """What comes back can be worked on in place, as what was written could."""
    for value in (np.arange(3), np.array([1 + 2j]), np.array([1.5])):
        write_output("value", value, tmp_path / "v", options={}, metadata={})
        found = read_output(tmp_path / "v")
        found += 1
        assert (found == value + 1).all()


@pytest.mark.parametrize("width", [1, 3, 150])
def test_a_frame_is_writable(tmp_path: Path, width: int) -> None:
    """Cells can be set and columns added without a warning, however wide the frame."""
    frame = pd.DataFrame({f"c{n}": [1.5, 2.5] for n in range(width)})
    write_output("value", frame, tmp_path / "v", options={}, metadata={})
    found = read_output(tmp_path / "v")
    found.iloc[0, 0] = 9.5
    found["new"] = 1
    assert (found.iloc[0, 0], list(found["new"])) == (9.5, [1, 1])


def test_names_that_are_false(round_trip: Any) -> None:
    """A name of columns or of an index may be 0, and 0 is no missing name."""
    frame = pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], name=0))
    frame.index.name = 0
    back = round_trip(frame)
    assert (back.columns.name, back.index.name) == (0, 0)


def test_aligned_records_stay_aligned(round_trip: Any) -> None:
    """An array's dtype says how C code finds its fields, which its equality overlooks."""
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    assert round_trip(np.zeros(2, dtype)).dtype.isalignedstruct


def test_nothing_but_nan_is_a_column_of_floats(stage: Callable[..., StagedOutput]) -> None:
    """Objects that are all NaN are numbers to other tools, as NaN is."""
    staged = stage(pd.DataFrame({"x": pd.Series([float("nan")] * 2, dtype=object)}))
    assert pq.read_schema(staged.path).field("x").type == pa.float64()


def test_facts_of_a_column_are_over_all_row_groups(stage: Callable[..., StagedOutput]) -> None:
    """Nulls are counted, and the least and the greatest found, in every part of a file."""
    frame = pd.DataFrame({"x": pd.array([5, None, 9, None, 1, None], dtype="Int64")})
    metadata = pq.read_metadata(stage(frame, row_group_size=2).path)
    assert metadata.num_row_groups == 3
    facts = column_facts(metadata, 0)
    assert (facts.nulls, facts.low, facts.high) == (3, 1, 9)


NEW_CODEC = """
from fractions import Fraction

import pyarrow as pa

from research_jobs.store.codec.base import Encoded
from research_jobs.store.codec.registry import Codec
from research_jobs.store.codec.source import read_table

def encode(value, place):
    table = pa.table({"value": [value.numerator, value.denominator]})
    return Encoded("fractions.Fraction", {}, table)

def decode(source, columns, filters):
    return Fraction(*read_table(source, columns, filters).column(0).to_pylist())

CODEC = Codec(frozenset(("fractions.Fraction",)), encode, decode)
"""
USES_IT = """
import sys
from fractions import Fraction
from pathlib import Path
from research_jobs.store import codec

folder = Path(sys.argv[1])
codec.__path__.append(str(folder))
file = folder / "x.parquet"
staged = codec.write_output("x", Fraction(1, 3), file, options={}, metadata={})
assert (staged.kind, staged.rows) == ("fractions.Fraction", 2)
assert codec.read_output(file) == Fraction(1, 3)
assert "polars" not in sys.modules
"""


def test_a_codec_is_one_new_file(tmp_path: Path) -> None:
    """A file named after a library is its codec, and loads no other library."""
    (tmp_path / "fractions_codec.py").write_text(NEW_CODEC)
    subprocess.run([sys.executable, "-c", USES_IT, str(tmp_path)], check=True, timeout=60)


@pytest.mark.parametrize(
    "dtype",
    [
        "longdouble",
        "clongdouble",
        ">g",
        np.dtype([("a", "longdouble", (2,)), ("b", "i1")], align=True),
        np.dtype([("a", [("b", "i1"), ("c", "f8")])], align=True),
        np.dtype([("a", np.dtype([("b", "i1"), ("c", "f8")], align=True), (3,))]),
    ],
    ids=str,
)
def test_what_fills_up_an_item_is_not_stored(tmp_path: Path, dtype: Any) -> None:
    """Equal arrays give equal files, whatever memory held before between their values."""
    files = []
    for filling in (0x00, 0xFF):
        array = np.full(np.dtype(dtype).itemsize * 3, filling, "u1").view(dtype)
        if array.dtype.names is None:
            for place in range(3):
                array[place] = place
            memory = array.view("u1").reshape(3, -1)
            significant = np.arange(memory.shape[1]) % np.dtype("g").itemsize < 10
            padding = significant if np.dtype(dtype).isnative else significant[::-1]
            memory[:, ~padding] = filling
        else:
            array = with_zeros(array)
        target = tmp_path / f"{filling}.parquet"
        write_output("value", array, target, options={}, metadata={})
        np.testing.assert_array_equal(read_output(target), array)
        files.append(target.read_bytes())
    assert files[0] == files[1]


def with_zeros(array: Any) -> Any:
    """A structured array with zeros in its fields and its padding as it is."""
    for name in array.dtype.names:
        field = array[name]
        if field.dtype.names is not None:
            with_zeros(field)
        else:
            field[...] = 0
    return array


# -- values that were changed, or took the process with them ------------------------------------


@dataclasses.dataclass
class Half:
    """A dataclass with a field that nothing has set."""

    a: int
    b: int = dataclasses.field(init=False)


def column_of(*items: Any) -> pd.DataFrame:
    cells = np.empty(len(items), dtype=object)
    cells[:] = items
    return pd.DataFrame({"x": cells})


def _nested(depth: int) -> list[Any]:
    found: list[Any] = [1]
    for _ in range(depth):
        found = [found]
    return found


def _in_zagreb(*, dst: bool) -> datetime:
    return pytz.timezone("Europe/Zagreb").localize(datetime(2020, 10, 25, 2, 30), is_dst=dst)  # noqa: DTZ001 - localized


CHANGED: dict[str, Callable[[], Any]] = {
    "NaN beside NA": lambda: [1.0, float("nan"), pd.NA],
    "NaN beside NaT": lambda: [1.0, float("nan"), pd.NaT],
    "the later of a repeated hour, with a zone of pytz": lambda: [_in_zagreb(dst=False)],
    "the earlier one": lambda: [_in_zagreb(dst=True)],
    "empty text of numpy": lambda: np.str_(""),
    "empty bytes of numpy among others": lambda: [np.bytes_(b""), 1],
    "items without bytes": lambda: [np.zeros(2, "V0"), np.zeros((0, 2)), np.array(5)],
    "lists deeper than Parquet's readers go": lambda: _nested(60),
}


@pytest.mark.parametrize("make", CHANGED.values(), ids=CHANGED)
def test_what_was_changed_comes_back(
    same: Callable[[Any, Any], bool], make: Callable[[], Any]
) -> None:
    """Rare values come back equal, moments with the offset that they had."""
    found = _round_trip(make())
    assert same(found, make())
    assert repr(found) == repr(make())


def test_arrow_dictionaries_of_times_come_back() -> None:
    """A dictionary whose values Parquet stores as they are is one again, in pandas too."""
    coded = pa.array([1, 2, 1], pa.timestamp("s")).dictionary_encode()
    frame = pd.DataFrame({"x": pd.array(coded, dtype=pd.ArrowDtype(coded.type))})
    assert _round_trip(frame).dtypes.iloc[0] == frame.dtypes.iloc[0]


def test_fields_that_are_not_set_are_left_out() -> None:
    """A dataclass without one of its values is kept with the others."""
    assert _round_trip(Half(1)) == {"a": 1}
    assert _round_trip([Half(1)]) == [{"a": 1}]


FILTERED = pl.DataFrame(
    {
        "row": [1, 2, 3],
        "n": [1, None, 3],
        "f": [1.0, float("nan"), 3.0],
        "t": pl.Series([0, 86_400_000_000, None], dtype=pl.Datetime("us", "Europe/Zagreb")),
    }
)


@pytest.mark.parametrize(
    ("term", "rows"),
    [
        (("n", "not in", [1]), [2, 3]),
        (("n", "in", [1, None]), [1, 2]),
        (("n", "not in", [None]), [1, 3]),
        (("f", ">", 1.5), [3]),
        (("f", "<=", 1.5), [1]),
        (("t", ">", datetime(1970, 1, 1, 12, tzinfo=timezone.utc)), [2]),
    ],
)
def test_filters_choose_the_same_rows_in_every_form(
    tmp_path: Path, term: tuple[str, str, Any], rows: list[int]
) -> None:
    """Nulls, NaN, and times of another zone count in polars as they do in pyarrow."""
    path = tmp_path / "v.parquet"
    write_output("value", FILTERED, path, options={}, metadata={})
    for form in ("arrow", "polars"):
        found = read_output(path, filters=[term], as_=form)
        assert pl.DataFrame(found)["row"].to_list() == rows, form


@pytest.mark.skipif(np.__version__ < "2", reason="numpy has no text of its own")
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [it], column_of])
def test_text_of_numpys_own_is_refused(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    """Its items are addresses in memory, which say nothing to a reader."""
    array = np.array(["a", "b" * 50], dtype=np.dtypes.StringDType())
    with pytest.raises(OutputNotParquetError):
        write_output("value", wrap(array), tmp_path / "v.parquet", options={}, metadata={})
