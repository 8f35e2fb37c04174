"""Files that somebody forged or damaged: data, or an error of ours, and nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research_jobs.errors import CorruptOutputError, StoreError
from research_jobs.store.codec import read_file_header, read_output, write_output
from research_jobs.store.codec.api import describe
from research_jobs.store.partitions import read_partitions

KEY = b"research_jobs"
FRAME = pd.DataFrame(
    {
        "i": [1, 2],
        "o": ["a", None],
        "c": pd.Categorical(["x", "y"], ordered=True),
        "t": pd.to_datetime(["2018-11-01", "2018-11-02"]).tz_localize("Europe/Zagreb"),
        "p": pd.period_range("2018-11", periods=2, freq="M"),
        "v": pd.interval_range(0, 2),
        "n": pd.array([1, None], dtype="Int64"),
        "mixed": [1, "a"],
    },
    index=pd.date_range("2018-11-01", periods=2, freq="D", name="d"),
)
FRAME.attrs["unit"] = "EUR"
VALUES: dict[str, Any] = {
    "frame": FRAME,
    "range index": pd.DataFrame({"a": [1, 2]}),
    "multi": FRAME[["i"]].set_index(pd.MultiIndex.from_tuples([(1, "a"), (2, "b")])),
    "series": pd.Series([1.5, 2.5], name=("a", 1)),
    "index": pd.Index(["x", "y"], name="k"),
    "polars": pl.DataFrame({"a": [1, 2]}),
    "polars series": pl.Series("s", [1, 2]),
    "arrow": pa.table({"a": [1, 2]}),
    "arrow array": pa.array([1, 2]),
    "numpy": np.arange(6).reshape(2, 3),
    "numpy complex": np.array([1j]),
    "numpy structured": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "dict": {"a": 1, "b": date(2018, 11, 1)},
    "rows dict": {1: "a", 2: Decimal(2)},
    "list": [1, "a", None],
    "records": [{"a": 1}, {"a": 2}],
    "scalar": datetime(2018, 11, 1, tzinfo=timezone.utc),
}
WRONG: list[Any] = [
    None, -1, 3, 10**30, "", "x", [], ["x"], {}, {"numpy": "<V99"}, {"$int": "zz"}, {"as": "json"},
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A valid file for each value."""
    folder = tmp_path_factory.mktemp("valid")
    found = {}
    for name, value in VALUES.items():
        found[name] = folder / f"{name}.parquet"
        write_output("x", value, found[name], options={}, metadata={"notebook": "n"})
    return found


def forge(source: Path, target: Path, footer: bytes | None) -> Path:
    """The same columns under another footer."""
    table = pq.read_table(source)
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != KEY}
    if footer is not None:
        metadata[KEY] = footer
    pq.write_table(table.replace_schema_metadata(metadata), target)
    return target


def read_all(path: Path) -> None:
    """Read a file in every way that there is: a value, or an error of ours."""
    for form in ("native", "pandas", "polars", "arrow"):
        with contextlib.suppress(StoreError):
            read_output(path, as_=form)
    for work in (
        lambda: read_output(path, columns=["a"]),
        lambda: read_output(path, filters=[("a", "=", 1)]),
        lambda: describe("x", path),
        lambda: read_file_header(path),
        lambda: read_partitions(
            [({"k": "1"}, path), ({"k": "2"}, path)], columns=None, filters=None, as_="native"
        ),
    ):
        with contextlib.suppress(StoreError):
            work()


def variations(record: Any) -> Iterator[Any]:
    """A record with each part of it, at any depth, left out or replaced by each wrong thing."""
    places: list[tuple[Any, ...]] = []

    def walk(node: Any, place: tuple[Any, ...]) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            places.append((*place, key))
            if isinstance(child, (dict, list)):
                walk(child, (*place, key))

    walk(record, ())
    for place in places:
        for wrong in (..., *WRONG):
            found = copy.deepcopy(record)
            node = found
            for key in place[:-1]:
                node = node[key]
            if wrong is ...:
                del node[place[-1]]
            else:
                node[place[-1]] = wrong
            yield found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", VALUES)
def test_every_field_of_a_footer_forged(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Each field of a valid footer, left out or of a wrong type, is data or an error of ours."""
    record = json.loads(pq.read_metadata(files[name]).metadata[KEY])
    for forged in variations(record):
        path = forge(files[name], tmp_path / "x.parquet", json.dumps(forged).encode())
        try:
            read_output(path)
        except StoreError as error:
            newer = isinstance(forged.get("format"), int) and forged["format"] > 1
            assert newer or isinstance(error, CorruptOutputError), forged  # noqa: PT017


@pytest.mark.parametrize("name", VALUES)
def test_footers_exchanged(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """The footer of one value over the columns of another is data or an error of ours."""
    for other in files.values():
        footer = pq.read_metadata(other).metadata[KEY]
        read_all(forge(files[name], tmp_path / "x.parquet", footer))


START = b'{"format": 1, "kind": '
DEEP = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"format": 1, "kind": "list", "detail": ' + b"[" * 9999,
]


@pytest.mark.parametrize(
    "footer",
    [
        *DEEP,
        b"", b"{", b"null", b'"x"', b"1", b"\xff\xfe", b"9" * 100_000, b"{}", b'{"format": 1}',
        b'{"format": 1e999, "kind": "list", "detail": {}}',
        b'{"format": NaN, "kind": "list", "detail": {}}',
        b'{"format": 1, "kind": {}, "detail": {}}',
        b'{"format": 1, "kind": "list", "detail": []}',
        b'{"format": 1, "kind": "os.system", "detail": {}}',
        b'{"format": 1, "kind": "builtins.eval", "detail": {}}',
        b'{"format": 1, "kind": "dict", "detail": {"json": "' + b"[" * 100_000 + b'"}}',
        START + b'"numpy.ndarray", "detail": {"dtype": "O", "shape": [2], "how": "raw"}}',
        START + b'"int", "detail": {"json": "1"}, "extra": "' + b"A" * 3_000_000 + b'"}',
    ],
    ids=lambda footer: repr(footer[:40]),
)  # fmt: skip
def test_footers_that_make_no_sense(files: dict[str, Path], tmp_path: Path, footer: bytes) -> None:
    """Deeply nested, huge, empty and foreign footers are data or an error of ours."""
    for name in ("frame", "dict", "arrow"):
        read_all(forge(files[name], tmp_path / "x.parquet", footer))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    footer=st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {
            "format": st.just(1) | json_values,
            "kind": st.sampled_from(["pandas.DataFrame", "dict", "list", "numpy.ndarray", "int"]),
            "detail": json_values,
        }
    ).map(lambda value: json.dumps(value).encode()),
    name=st.sampled_from(["frame", "dict", "numpy", "arrow", "polars series"]),
)
def test_any_footer(files: dict[str, Path], tmp_path: Path, footer: bytes, name: str) -> None:
    """Whatever stands in the footer: data, or an error of ours."""
    read_all(forge(files[name], tmp_path / "x.parquet", footer))


@pytest.mark.parametrize("name", ["frame", "dict", "numpy"])
def test_damaged_bytes(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """A file cut anywhere is corrupt, and so is one of other content."""
    content = files[name].read_bytes()
    path = tmp_path / "x.parquet"
    for length in (0, 1, 4, 8, 100, len(content) // 2, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptOutputError, match="is not a whole Parquet file"):
            read_output(path)
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch PWN'\ntR.")
    with pytest.raises(CorruptOutputError):
        read_output(path)


def test_a_filter_that_does_not_fit_is_not_the_files_fault(files: dict[str, Path]) -> None:
    """A filter of the wrong type is reported as such, and the file is not called corrupt."""
    for form in ("native", "polars", "arrow"):
        with pytest.raises(StoreError, match="filter") as caught:
            read_output(files["range index"], filters=[("a", "=", [1])], as_=form)
        assert not isinstance(caught.value, CorruptOutputError)


def test_pandas_own_metadata_forged(tmp_path: Path) -> None:
    """A foreign table whose pandas metadata lies is data or an error of ours."""
    table = pa.table({"a": [1]})
    for text in (
        b"{", b"null", b"[]", b"{}", b"[" * 100_000,
        (
            b'{"index_columns": [{"kind": "range", "start": 0, "stop": 99999999999999, "step": 1, '
            b'"name": null}], "column_indexes": [], "columns": [], "creator": {}}'
        ),
        b'{"index_columns": ["z"], "column_indexes": [{}], "columns": [{}]}',
    ):  # fmt: skip
        path = tmp_path / "x.parquet"
        pq.write_table(table.replace_schema_metadata({b"pandas": text}), path)
        read_all(path)
