"""The interface of all codecs: an encoded value, and the context of errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from research_jobs.errors import OutputNotParquetError
from research_jobs.store.codec.typed_json import NotEncodableError, type_name

__all__ = ["PANDAS_KINDS", "TABLE_KINDS", "Encoded", "ErrorContext", "json_error"]

PANDAS_KINDS = frozenset(("pandas.DataFrame", "pandas.Series", "pandas.Index"))
# Kinds with columns and rows to select; "table" is a file that another program wrote.
TABLE_KINDS = PANDAS_KINDS | {
    "polars.DataFrame",
    "polars.LazyFrame",
    "polars.Series",
    "pyarrow.Array",
    "pyarrow.ChunkedArray",
    "pyarrow.RecordBatch",
    "pyarrow.RecordBatchReader",
    "pyarrow.Table",
    "table",
}


@dataclass(frozen=True)
class Encoded:
    """A value to be written to a file.

    Parameters
    ----------
    kind : str
        Name of the value's type.
    detail : mapping
        JSON: what the file's columns do not tell.
    table : pyarrow.Table, optional
        The value as columns, if it is in memory.
    batches : iterator of pyarrow.RecordBatch, optional
        The value as a stream, with its `schema`.
    schema : pyarrow.Schema, optional
    frame : polars.LazyFrame, optional
        A value that polars writes itself.
    """

    kind: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    table: Any = None
    batches: Iterator[Any] | None = None
    schema: Any = None
    frame: Any = None


@dataclass(frozen=True)
class ErrorContext:
    """The location of a value in an output, for errors.

    Parameters
    ----------
    output : str
    part : str
        ``column 'x'``, ``attrs``, ``index``; empty for the value as a whole.
    """

    output: str
    part: str = ""

    def at(self, part: str) -> ErrorContext:
        """The same output, at one of its parts."""
        return ErrorContext(self.output, part)

    def error(self, what: str, advice: str = "") -> OutputNotParquetError:
        """The error for a value here that cannot be kept."""
        where = f"output '{self.output}', {self.part}" if self.part else f"output '{self.output}'"
        hint = f"{advice[:1].upper()}{advice[1:]}." if advice else None
        return OutputNotParquetError(f"{where}: {what} cannot be kept as Parquet", hint=hint)


def json_error(place: ErrorContext, value: Any, error: NotEncodableError) -> OutputNotParquetError:
    """The error for a value that typed JSON does not support."""
    inner, outer = error.value_type, type_name(value)
    what = f"type {inner}" if inner == outer else f"type {inner} inside a {outer}"
    return place.error(what, error.advice or "convert it to builtin types, or leave it out")
