"""A store in a temporary folder, and strict equality."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_jobs.outcome import StagedOutput
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import read_output, write_output
from research_jobs.store.commit import PublishedOutput, open_staging, publish


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of a project without notebooks, found by the environment."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(tmp_path / "project"))
    monkeypatch.delenv("RESEARCH_JOBS_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(tmp_path / "project" / "data")


Publish = Callable[..., tuple[PublishedOutput, ...]]


@pytest.fixture
def put(store: str) -> Publish:
    """Stage and publish values: ``put("prices", {"df": frame}, day)``."""

    def publish_values(
        notebook: str,
        values: Mapping[str, Any],
        partition: PartitionKey | None = None,
        keep: Mapping[str, int] | None = None,
        where: str = store,
    ) -> tuple[PublishedOutput, ...]:
        with open_staging(where, "run-1") as staging:
            staged = [
                write_output(name, value, staging.path / f"{name}.parquet", options={}, metadata={})
                for name, value in values.items()
            ]
            return publish(
                where,
                notebook,
                staged,
                staging=staging,
                partition=partition,
                keep=keep,
                run_id="run-1",
            )

    return publish_values


@pytest.fixture
def round_trip(tmp_path: Path) -> Callable[[Any], Any]:
    """Write a value and read it again."""

    def there_and_back(value: Any) -> Any:
        path = tmp_path / "value.parquet"
        write_output("value", value, path, options={}, metadata={"notebook": "n"})
        return read_output(path)

    return there_and_back


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., StagedOutput]:
    """Write a value to a file that is not published."""

    def write(value: Any, name: str = "value", **options: Any) -> StagedOutput:
        return write_output(name, value, tmp_path / f"{name}.parquet", options=options, metadata={})

    return write


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """Whether two values are equal, types included, all the way down."""
    return _same


def _same(left: Any, right: Any) -> bool:  # noqa: C901 - one branch a library
    if type(left) is not type(right):
        return False
    if isinstance(left, pd.DataFrame):
        return _same_frame(left, right)
    if isinstance(left, pd.Series):
        return _same(left.name, right.name) and _same_frame(left.to_frame("x"), right.to_frame("x"))
    if isinstance(left, pd.Index):
        return _same_index(left, right)
    if isinstance(left, pl.LazyFrame):
        return _same(left.collect(), right.collect())
    if isinstance(left, pl.DataFrame):
        return left.schema == right.schema and left.equals(right)
    if isinstance(left, pl.Series):
        return left.name == right.name and _same(left.to_frame("x"), right.to_frame("x"))
    if isinstance(left, (pa.Table, pa.RecordBatch)):
        return left.schema.equals(right.schema, check_metadata=True) and left.equals(right)
    if isinstance(left, (pa.Array, pa.ChunkedArray)):
        return left.type == right.type and left.equals(right)
    if isinstance(left, np.ndarray):
        return _same_array(left, right)
    if dataclasses.is_dataclass(left):
        return _same(dataclasses.asdict(left), dataclasses.asdict(right))
    return _same_plain(left, right)


def _same_plain(left: Any, right: Any) -> bool:  # noqa: C901 - one branch a type  # noqa: C901 - one branch a type
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return _same(list(left), list(right)) and _same(list(left.values()), list(right.values()))
    if isinstance(left, complex):
        return _same(left.real, right.real) and _same(left.imag, right.imag)
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if left is pd.NaT or left is pd.NA or left is None:
        return left is right
    if isinstance(left, np.generic):
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    if isinstance(left, pd.Timestamp):
        return left == right and left.unit == right.unit and str(left.tz) == str(right.tz)
    if hasattr(left, "fold") and (left.fold != right.fold or str(left.tzinfo) != str(right.tzinfo)):
        return False
    if hasattr(left, "as_tuple"):
        return left.as_tuple() == right.as_tuple()
    return bool(left == right)


def _same_array(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.hasobject:
        return _same(left.ravel().tolist(), right.ravel().tolist())
    if left.dtype.names is not None:
        return all(_same_array(left[name], right[name]) for name in left.dtype.names)
    if left.dtype.kind in "fc":
        return bool(np.array_equal(left, right, equal_nan=True))
    return left.tobytes() == right.tobytes()


def _same_frame(left: Any, right: Any) -> bool:
    pd.testing.assert_frame_equal(
        left, right, check_exact=True, check_index_type="exact", check_column_type="exact",
        check_freq=True, check_flags=True,
    )  # fmt: skip
    if not _same_index(left.columns, right.columns) or not _same_index(left.index, right.index):
        return False
    if not _same(left.attrs, right.attrs):
        return False
    for place in range(left.shape[1]):
        a, b = left.iloc[:, place], right.iloc[:, place]
        if str(a.dtype) != str(b.dtype) or a.dtype != b.dtype:
            return False
        if a.dtype == object and not _same(list(a), list(b)):
            return False
    return True


def _same_index(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or not _same(list(left.names), list(right.names)):
        return False
    if isinstance(left, pd.MultiIndex):
        return all(
            _same_index(left.get_level_values(n), right.get_level_values(n))
            for n in range(left.nlevels)
        )
    pd.testing.assert_index_equal(left, right, exact=True, check_exact=True)
    if getattr(left, "freq", None) != getattr(right, "freq", None):
        return False
    return left.dtype != object or _same(list(left), list(right))
