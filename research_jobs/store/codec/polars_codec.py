"""polars' values and Parquet: polars itself writes and reads them, a LazyFrame as a stream."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

from research_jobs.errors import StoreError, first_line
from research_jobs.store.codec.base import Encoded, ErrorContext, WriteOptions
from research_jobs.store.codec.parquet import KEY
from research_jobs.store.codec.registry import Codec
from research_jobs.store.codec.source import Source, read_table, typed_filters

__all__ = ["CODEC", "read_lazy"]

_COMPRESSION = {"none": "uncompressed"}


def _encode(value: Any, place: ErrorContext) -> Encoded | None:
    """A DataFrame, LazyFrame or Series; None for any other type of polars.

    Raises
    ------
    OutputNotParquetError
    """
    import polars as pl

    if type(value) not in (pl.DataFrame, pl.LazyFrame, pl.Series):
        return None
    series = isinstance(value, pl.Series)
    frame = value.to_frame(value.name or "value") if series else value
    try:
        schema = frame.collect_schema()
    except pl.exceptions.PolarsError as error:  # the notebook's own query fails
        raise place.error(f"this polars.LazyFrame ({first_line(error)})") from error
    _refuse_types(schema, place)
    return Encoded(
        f"polars.{type(value).__name__}",
        {"name": value.name} if series else {},
        sink=partial(_sink, frame),
        check=partial(_check_schema, frame, place),
    )


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


def _sink(frame: Any, path: Path, options: WriteOptions, record: str) -> None:
    """Write a frame; a lazy one is never collected."""
    import polars as pl

    write: Any = frame.sink_parquet if isinstance(frame, pl.LazyFrame) else frame.write_parquet
    try:
        write(
            path,
            compression=_COMPRESSION.get(options.compression, options.compression),
            compression_level=options.compression_level,
            statistics=options.statistics,
            row_group_size=options.row_group_size,
            metadata={KEY.decode(): record},
        )
    except pl.exceptions.PolarsError as error:
        code = _OS_ERROR.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def _check_schema(frame: Any, place: ErrorContext, path: Path) -> None:
    """Refuse a file whose types would not be restored."""
    import polars as pl

    wanted = frame.collect_schema()
    schema = pl.scan_parquet(path, hive_partitioning=False, glob=False).collect_schema()
    for name, dtype in wanted.items():
        if schema.get(name) != dtype:
            raise place.at(f"column {name!r}").error(
                f"polars type {dtype}", f"cast it: Parquet returns {schema.get(name)}"
            )


def _decode(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    frame = read_lazy(source, columns, filters)
    if source.kind == "polars.LazyFrame":
        return frame
    collected = frame.collect()
    if source.kind == "polars.Series":
        return collected.to_series().alias(source.header.detail["name"])
    return collected


def read_lazy(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    """A file of any kind as a LazyFrame.

    Raises
    ------
    StoreError
        When polars is not installed, or lacks one of the file's types.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise StoreError(
            f"{source.path} cannot be read with polars: it is not installed",
            hint="pip install polars, or ask for another form: as_=...",
        ) from error
    if filters is not None and not isinstance(filters, (list, tuple)):
        frame = pl.from_arrow(read_table(source, None, filters))
        assert isinstance(frame, pl.DataFrame)
        lazy = frame.lazy()
    else:
        lazy = pl.scan_parquet(source.path, hive_partitioning=False, glob=False)
        try:
            lazy.collect_schema()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            # polars would panic over a type that it does not support.
            raise StoreError(
                f"{source.path} cannot be read with polars: {first_line(error)}",
                hint='Ask for another form: as_="arrow".',
            ) from error
        terms = typed_filters(source, filters)
        if terms is not None:
            lazy = lazy.filter(_condition(terms, source.schema))
    if columns is None:
        return lazy
    return lazy.select([source.field(label) for label in columns])


_COMPARISONS = {"=": eq, "==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def _condition(filters: list[list[tuple[str, str, Any]]], schema: Any) -> Any:
    """A condition that holds for the rows for which pyarrow's would."""
    import polars as pl
    from pyarrow.types import is_floating

    def test(name: str, operator: str, value: Any) -> Any:
        column = pl.col(name)
        if operator in _COMPARISONS:
            compared = _COMPARISONS[operator](column, value)
            larger = ">" in operator and is_floating(schema.field(name).type)
            return compared & column.is_not_nan() if larger else compared  # NaN is the largest
        # A null is in a list that has one, and not in any other.
        known = [item for item in value if item is not None]
        listed = column.is_in(known).fill_null(len(known) < len(value))
        return listed if operator == "in" else ~listed

    return pl.any_horizontal(
        *(pl.all_horizontal(*(test(*term) for term in group)) for group in filters)
    )


CODEC = Codec(
    frozenset(("polars.DataFrame", "polars.LazyFrame", "polars.Series")), _encode, _decode
)
