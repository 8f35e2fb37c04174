"""pyarrow's own values and Parquet: the schema is restored completely, metadata included."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from research_jobs.store.codec.base import Encoded, ErrorContext
from research_jobs.store.codec.registry import Codec
from research_jobs.store.codec.source import Source, cast, expression, read_table, selected_fields

__all__ = ["CODEC", "restore_schema"]


def _encode(value: Any, place: ErrorContext) -> Encoded | None:
    """A Table, RecordBatch, RecordBatchReader, Array or ChunkedArray; None for any other type.

    Raises
    ------
    OutputNotParquetError
    """
    if isinstance(value, pa.RecordBatchReader):
        detail = _schema_detail(value.schema, place)
        return Encoded(
            "pyarrow.RecordBatchReader", detail, batches=iter(value), schema=value.schema
        )
    if isinstance(value, pa.RecordBatch):
        table = pa.Table.from_batches([value])
        return Encoded("pyarrow.RecordBatch", _schema_detail(table.schema, place), table)
    if isinstance(value, pa.Table):
        return Encoded("pyarrow.Table", _schema_detail(value.schema, place), value)
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        kind = "pyarrow.Array" if isinstance(value, pa.Array) else "pyarrow.ChunkedArray"
        table = pa.table({"value": value})
        return Encoded(kind, _schema_detail(table.schema, place), table)
    return None


def _schema_detail(schema: Any, place: ErrorContext) -> dict[str, Any]:
    names = schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise place.error(
            f"two columns named {twice!r}",
            "rename one of them, because readers could not distinguish them",
        )
    return {"schema": base64.b64encode(schema.serialize()).decode()}


def restore_schema(table: Any, detail: Mapping[str, Any]) -> Any:
    """The file's table with its original types, nullability and metadata."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(detail["schema"])))
    whole = table.schema.names == schema.names
    fields = [schema.field(name) for name in table.schema.names]
    wanted = pa.schema(fields, metadata=schema.metadata) if whole else pa.schema(fields)
    columns = [
        column if column.type == kind.type else cast(column, kind.type)
        for column, kind in zip(table.columns, fields, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def _decode(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    kind = source.kind
    if kind == "pyarrow.RecordBatchReader":
        return _stream(source, columns, filters)
    restored = restore_schema(read_table(source, columns, filters), source.header.detail)
    if kind == "pyarrow.Table":
        return restored
    if kind == "pyarrow.RecordBatch":
        arrays = [column.combine_chunks() for column in restored.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=restored.schema)
    column = restored.column(0)
    return column if kind == "pyarrow.ChunkedArray" else column.combine_chunks()


def _stream(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    detail = source.header.detail
    data = ds.dataset(str(source.path), format="parquet", partitioning=None)
    condition = None if filters is None else expression(source, filters)
    scanner = data.scanner(columns=selected_fields(source, columns), filter=condition)
    empty = pa.Table.from_batches([], scanner.projected_schema)
    schema = restore_schema(empty, detail).schema

    def batches() -> Iterator[Any]:
        for batch in scanner.to_batches():
            table = restore_schema(pa.Table.from_batches([batch]), detail)
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


_KINDS = ("Array", "ChunkedArray", "RecordBatch", "RecordBatchReader", "Table")
CODEC = Codec(frozenset(f"pyarrow.{kind}" for kind in _KINDS), _encode, _decode)
