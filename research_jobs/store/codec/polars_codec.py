"""polars' values and Parquet: polars itself writes and reads them, a LazyFrame as a stream."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from research_jobs.store.codec.base import Encoded, ErrorContext

if TYPE_CHECKING:
    from research_jobs.store.codec.parquet import WriteOptions

__all__ = ["check_schema", "encode_polars", "sink"]

_COMPRESSION = {"none": "uncompressed"}


def encode_polars(value: Any, place: ErrorContext) -> Encoded | None:
    """A DataFrame, LazyFrame or Series; None for any other type of polars.

    Raises
    ------
    OutputNotParquetError
    """
    cls = type(value)
    if cls is pl.LazyFrame:
        try:
            schema = value.collect_schema()
        except pl.exceptions.PolarsError as error:  # the notebook's own query fails
            raise place.error(f"this polars.LazyFrame ({str(error).splitlines()[0]})") from error
        _refuse_types(schema, place)
        return Encoded("polars.LazyFrame", {}, frame=value)
    if cls is pl.DataFrame:
        _refuse_types(value.schema, place)
        return Encoded("polars.DataFrame", {}, frame=value)
    if cls is pl.Series:
        frame = value.to_frame(value.name or "value")
        _refuse_types(frame.schema, place)
        return Encoded("polars.Series", {"name": value.name}, frame=frame)
    return None


def _refuse_types(schema: Any, place: ErrorContext) -> None:
    for name, dtype in schema.items():
        if _contains_refused(dtype):
            raise place.at(f"column {name!r}").error(
                f"polars type {dtype}", "cast it to a type that other tools read, or to text"
            )


# By name: older versions of polars do not have all of them.
_REFUSED = ("Object", "Int128", "UInt128", "Unknown", "Extension")


def _contains_refused(dtype: Any) -> bool:
    if dtype.base_type().__name__ in _REFUSED:
        return True
    inner = getattr(dtype, "inner", None)
    if inner is not None:
        return _contains_refused(inner)
    return any(_contains_refused(field.dtype) for field in getattr(dtype, "fields", ()))


def sink(frame: Any, path: Path, options: WriteOptions, record: str) -> None:
    """Write a frame; a lazy one is never collected."""
    write: Any = frame.sink_parquet if isinstance(frame, pl.LazyFrame) else frame.write_parquet
    try:
        _write(write, path, options, record)
    except pl.exceptions.PolarsError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def _write(write: Any, path: Path, options: WriteOptions, record: str) -> None:
    write(
        path,
        compression=_COMPRESSION.get(options.compression, options.compression),
        compression_level=options.compression_level,
        statistics=options.statistics,
        row_group_size=options.row_group_size,
        metadata={"research_jobs": record},
    )


def check_schema(frame: Any, path: Path, place: ErrorContext) -> None:
    """Refuse a file whose types would not be restored."""
    wanted = frame.collect_schema()
    found = pl.scan_parquet(path, hive_partitioning=False, glob=False).collect_schema()
    for name, dtype in wanted.items():
        if found.get(name) != dtype:
            raise place.at(f"column {name!r}").error(
                f"polars type {dtype}", f"cast it: Parquet returns {found.get(name)}"
            )
