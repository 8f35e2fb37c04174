"""Parquet files with our record in the footer: writing, opening, and reading the footer."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from research_jobs.errors import CorruptOutputError, ResearchJobsError, StoreError
from research_jobs.store.codec.base import FOREIGN, PANDAS_KINDS, Encoded, WriteOptions

__all__ = [
    "FORMAT",
    "KEY",
    "ColumnFacts",
    "Header",
    "WriteOptions",
    "as_json",
    "column_facts",
    "decoding",
    "is_number",
    "open_parquet",
    "preview",
    "read_header",
    "statistics",
    "write_encoded",
]

FORMAT = 1
KEY = b"research_jobs"

PREVIEW_ROWS = 10
PREVIEW_COLUMNS = 20
PREVIEW_CELL = 40
STATISTICS_BYTES = 24_000
STATISTICS_COLUMNS = 400


@dataclass(frozen=True)
class Header:
    """Our record in a file's footer.

    Parameters
    ----------
    kind : str
        Name of the value's type; ``"table"`` for a file that another program wrote.
    detail : mapping
        Data for the codec of that kind.
    metadata : mapping of str to str
        Notebook, run id, partition, code version...
    """

    kind: str = FOREIGN
    detail: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def dump(self) -> str:
        """The record as JSON."""
        return json.dumps(
            {"format": FORMAT} | dict(self.metadata) | {"kind": self.kind, "detail": self.detail}
        )


def write_encoded(
    encoded: Encoded, path: Path, options: WriteOptions, metadata: Mapping[str, str]
) -> None:
    """Write a value to a new file; nothing is synced here."""
    record = Header(encoded.kind, encoded.detail, metadata).dump()
    if encoded.sink is not None:
        encoded.sink(path, options, record)
        return
    schema = encoded.schema if encoded.table is None else encoded.table.schema
    schema = schema.with_metadata({**(schema.metadata or {}), KEY: record.encode()})
    with pq.ParquetWriter(
        str(path),
        schema,
        compression=options.compression,
        compression_level=options.compression_level,
        write_statistics=options.statistics,
        use_dictionary=options.dictionary,
    ) as writer:
        if encoded.table is not None:
            table = encoded.table.replace_schema_metadata(schema.metadata)
            writer.write_table(table, row_group_size=options.row_group_size)
        for batch in encoded.batches or ():
            writer.write_batch(
                batch.replace_schema_metadata(schema.metadata),
                row_group_size=options.row_group_size,
            )


def open_parquet(path: Path, footer: Any = None) -> Any:
    """Open a file.

    Parameters
    ----------
    path : Path
    footer : pyarrow.parquet.FileMetaData, optional
        Of the same file, if it has been read before.

    Returns
    -------
    pyarrow.parquet.ParquetFile

    Raises
    ------
    CorruptOutputError
        When it is not a complete Parquet file.
    FileNotFoundError
    """
    with decoding(path, "is not a whole Parquet file"):
        return pq.ParquetFile(str(path), metadata=footer)


@contextmanager
def decoding(path: Path, what: str = "cannot be read") -> Generator[None]:
    """Turn any error of a decoder on a forged or damaged file into one of ours.

    Parameters
    ----------
    path : Path
    what : str
        What is wrong with the file.

    Raises
    ------
    CorruptOutputError
        For all errors except ours and those that do not concern the file's content.
    StoreError
        When this user may not read it.
    """
    try:
        yield
    except (ResearchJobsError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise StoreError(
            f"{path} cannot be read: permission denied",
            hint="Give this user permission to read it.",
        ) from error
    except MemoryError as error:
        raise StoreError(f"{path} cannot be read: there is not enough memory for it") from error
    except BaseException as error:
        # A panic of polars is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptOutputError(
            f"{path} {what}: {_first_line(error)}",
            hint="Another process changed it; run the notebook again.",
        ) from error


def _first_line(error: BaseException) -> str:
    name, text = type(error).__name__, (str(error).splitlines() or [""])[0].rstrip(".")
    if isinstance(error, (pa.ArrowException, OSError)):
        return text[:200] or name
    return f"{name}: {text[:200]}" if text else name


def read_header(path: Path, metadata: Any) -> Header:
    """Our record of an open file.

    Parameters
    ----------
    path : Path
        For errors.
    metadata : pyarrow.parquet.FileMetaData

    Raises
    ------
    StoreError
        When a newer research_jobs wrote it.
    CorruptOutputError
        When the record is not ours.
    """
    found = (metadata.metadata or {}).get(KEY)
    if found is None:
        return Header()
    with decoding(path, "has an invalid research_jobs record in its footer"):
        record = json.loads(found)
        written = record.pop("format")
        if not isinstance(written, int):
            raise TypeError(f"its format is {written!r:.40}")
        if written > FORMAT:
            raise StoreError(
                f"{path} was written in format {written}; this research_jobs reads formats "
                f"up to {FORMAT}",
                hint="Upgrade research_jobs.",
            )
        kind, detail = record.pop("kind"), record.pop("detail")
        if not isinstance(kind, str) or not isinstance(detail, dict):
            raise TypeError("its kind is not a name, or its detail is not a mapping")
        return Header(kind, detail, {key: str(value) for key, value in record.items()})


def preview(file: Any, header: Header) -> dict[str, Any]:
    """The first rows as short text: ``{"columns": [...], "rows": [[...], ...]}``."""
    names = _shown_columns(file.schema_arrow.names, header)
    chosen = names[:PREVIEW_COLUMNS]
    rows: list[list[str]] = []
    if chosen:
        places = [file.schema_arrow.get_field_index(name) for name in chosen]
        batches = file.iter_batches(batch_size=PREVIEW_ROWS, columns=chosen, use_threads=False)
        batch = next(iter(batches), None)
        if batch is not None:
            by_name = {name: batch.column(name) for name in batch.schema.names}
            columns = [by_name[file.schema_arrow.names[place]] for place in places]
            rows = [[_cell(column, row) for column in columns] for row in range(batch.num_rows)]
    shown = [_short("" if name.startswith("__index_level_") else name) for name in chosen]
    if header.kind in ("dict", "dataclass") and "row" in header.detail and rows:
        turned = [[name, cell] for name, cell in zip(shown, rows[0], strict=True)]
        found: dict[str, Any] = {"columns": ["key", "value"], "rows": turned}
    else:
        found = {"columns": shown, "rows": rows}
    if len(names) > len(chosen):
        found["more_columns"] = len(names) - len(chosen)
    return found


def _shown_columns(names: list[str], header: Header) -> list[str]:
    """The index first, as pandas shows it."""
    if header.kind not in PANDAS_KINDS:
        return list(names)
    levels = len(header.detail["index"].get("levels", ()))
    return names[len(names) - levels :] + names[: len(names) - levels]


def _cell(column: Any, row: int) -> str:
    value = column[row]
    if not value.is_valid:
        return ""
    try:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return _short(repr(value.as_py()[:PREVIEW_CELL]))
        if pa.types.is_floating(column.type):
            return f"{value.as_py():.6g}"
        return _short(str(value.as_py()))
    except (ValueError, OverflowError, pa.ArrowException):
        return _short(_as_text(value))  # a time outside Python's years


def _as_text(value: Any) -> str:
    try:
        return str(value.cast(pa.string()))
    except (ValueError, OverflowError, pa.ArrowException):
        return "?"


def _short(text: str) -> str:
    text = " ".join(text[: 4 * PREVIEW_CELL].split())
    return text if len(text) <= PREVIEW_CELL else text[: PREVIEW_CELL - 1] + "…"


def statistics(metadata: Any, schema: Any) -> dict[str, dict[str, Any]]:
    """Nulls of all columns, and the range of numbers and times, from the footer alone.

    Parameters
    ----------
    metadata : pyarrow.parquet.FileMetaData
    schema : pyarrow.Schema
    """
    found: dict[str, dict[str, Any]] = {}
    size = 0
    for number in range(min(metadata.num_columns, STATISTICS_COLUMNS)):
        path = metadata.schema.column(number).path
        place = schema.get_field_index(path)
        if place < 0:
            continue  # a part of a nested column
        entry = column_statistics(metadata, number, schema.field(place).type)
        size += len(path) + len(json.dumps(entry)) + 6
        if size > STATISTICS_BYTES:
            break
        found[path] = entry
    return found


@dataclass(frozen=True)
class ColumnFacts:
    """A column's statistics in the footer.

    Parameters
    ----------
    nulls : int or None
        None if unknown.
    low, high : object
        Smallest and largest value; both None if unknown, or if all values are null.
    bounded : bool
        Whether `low` and `high` cover all row groups.
    """

    nulls: int | None
    low: Any = None
    high: Any = None
    bounded: bool = False


def column_facts(metadata: Any, number: int) -> ColumnFacts:
    """A column's statistics over all row groups."""
    nulls: int | None = 0
    bounds: list[tuple[Any, Any]] = []
    bounded = True
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(number)
        stats = column.statistics
        if stats is None or not stats.has_null_count:
            nulls = None
        elif nulls is not None:
            nulls += stats.null_count
        pair = _bounds(stats)
        if pair is not None:
            bounds.append(pair)
        elif stats is None or stats.null_count != column.num_values:
            # Some versions of pyarrow count nulls as values: with zero values it is certain.
            bounded = bounded and (column.num_values == 0 or _all_null(stats, metadata, group))
    if not bounded:
        return ColumnFacts(nulls)
    low = min((pair[0] for pair in bounds), default=None)
    high = max((pair[1] for pair in bounds), default=None)
    return ColumnFacts(nulls, low, high, bounded=True)


def _bounds(stats: Any) -> tuple[Any, Any] | None:
    if stats is None or not stats.has_min_max:
        return None
    try:
        return stats.min, stats.max
    except (ValueError, OverflowError, pa.ArrowException):
        return None  # a time outside Python's years


def _all_null(stats: Any, metadata: Any, group: int) -> bool:
    return stats is not None and stats.null_count == metadata.row_group(group).num_rows


def column_statistics(metadata: Any, number: int, kind: Any) -> dict[str, Any]:
    """One column's ``{"nulls", "min", "max"}``; a key is missing if it is unknown."""
    facts = column_facts(metadata, number)
    entry: dict[str, Any] = {} if facts.nulls is None else {"nulls": facts.nulls}
    if facts.low is not None and (pa.types.is_temporal(kind) or is_number(kind)):
        entry["min"], entry["max"] = as_json(facts.low), as_json(facts.high)
    return entry


def is_number(kind: Any) -> bool:
    """Whether an Arrow type is numeric."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def as_json(value: Any) -> Any:
    """A number or time as JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (int, str)):
        return value
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat is not None else str(value)
