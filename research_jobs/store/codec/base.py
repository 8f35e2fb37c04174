"""The interface of all codecs: an encoded value, and the context of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import OutputNotParquetError
from research_jobs.store.codec.typed_json import NotEncodableError, type_name

__all__ = ["FOREIGN", "PANDAS_KINDS", "Encoded", "ErrorContext", "WriteOptions", "json_error"]

# Their index is stored behind the columns.
PANDAS_KINDS = frozenset(("pandas.DataFrame", "pandas.Series", "pandas.Index"))
FOREIGN = "table"  # the kind of a file that another program wrote
# Rows: small enough for a filter on a sorted date column to skip most groups.
ROW_GROUP = 256 * 1024


@dataclass(frozen=True)
class WriteOptions:
    """How a file is written.

    Parameters
    ----------
    compression : str
        ``"zstd"``, ``"snappy"``, ``"gzip"``, ``"lz4"``, ``"brotli"`` or ``"none"``.
    compression_level : int or None
    row_group_size : int
        Rows.
    statistics : bool
        Smallest and largest value of each column of each row group, for readers that filter.
    dictionary : bool
    """

    compression: str = "zstd"
    compression_level: int | None = None
    row_group_size: int = ROW_GROUP
    statistics: bool = True
    dictionary: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> WriteOptions:
        """The options from the manifest; others are ignored."""
        known = {name: options[name] for name in cls.__dataclass_fields__ if name in options}
        if known.get("compression", "") is None:
            known["compression"] = "none"
        return cls(**known)


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
    sink : callable, optional
        Writes the value to a path itself, with our record for the footer.
    check : callable, optional
        Raises an error for a written file that would not be read back unchanged.
    """

    kind: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    table: Any = None
    batches: Iterator[Any] | None = None
    schema: Any = None
    sink: Callable[[Path, WriteOptions, str], None] | None = None
    check: Callable[[Path], None] | None = None


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
