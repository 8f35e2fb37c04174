"""Files to values, in the form of some library."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError, StoreError, did_you_mean
from research_jobs.store.codec.base import FOREIGN, PANDAS_KINDS
from research_jobs.store.codec.parquet import decoding
from research_jobs.store.codec.plain import decode_plain
from research_jobs.store.codec.polars_codec import read_lazy
from research_jobs.store.codec.pyarrow_codec import restore_schema
from research_jobs.store.codec.registry import codec_of_kind, is_table
from research_jobs.store.codec.source import Source, open_source, read_table

__all__ = ["read_file"]


def read_file(path: Path, *, columns: Sequence[Any] | None, filters: Any, as_: str) -> Any:
    """See `research_jobs.store.codec.read_output`."""
    if as_ == "path":
        return path
    reader = _READERS.get(as_)
    if reader is None:
        raise StoreError(
            f"as_={as_!r} is not a form of an output",
            hint=did_you_mean(as_, ["path", *_READERS], label="There are"),
        )
    if isinstance(columns, str):
        columns = [columns]
    while True:
        # A published path is a link, and a file is opened more than once (its footer, then its
        # pages): all reads must see the same version, even if another is published meanwhile.
        file = Path(os.path.realpath(path))  # a cycle of links raises it too
        try:
            return _read(open_source(file), reader, columns, filters)
        except FileNotFoundError:
            if Path(os.path.realpath(path)) == file:
                raise
            # That version was pruned, which happens only after a newer one has replaced it.


def _read(source: Source, reader: _Reader, columns: Sequence[Any] | None, filters: Any) -> Any:
    try:
        with decoding(source.path):
            return _decode(source, reader, columns, filters)
    except CorruptOutputError as error:
        if columns is None and filters is None:
            raise
        with decoding(source.path):
            _decode(source, reader, None, None)  # is it the file, or the request?
        raise StoreError(
            f"{source.path} cannot be read with these columns and filters: {error.what}",
            hint="A filter is (column, operator, value), with a value of the column's type.",
        ) from error


def _decode(source: Source, reader: _Reader, columns: Sequence[Any] | None, filters: Any) -> Any:
    chosen = columns is not None or filters is not None
    if reader is _native and chosen and not is_table(source.kind):
        raise StoreError(
            f"{source.path} contains a {source.kind}, which has no columns or rows to select",
            hint='Ask for a table: as_="pandas".',
        )
    return reader(source, columns, filters)


def _native(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    codec = codec_of_kind(source.kind)
    if codec is not None:
        return codec.decode(source, columns, filters)
    table = read_table(source, columns, filters)
    if source.kind == FOREIGN:
        return table.to_pandas()
    return decode_plain(table, source.kind, source.header.detail)


def _pandas(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    if source.kind in PANDAS_KINDS:
        return _native(source, columns, filters)
    return read_table(source, columns, filters).to_pandas()


def _arrow(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    table = read_table(source, columns, filters)
    if "schema" in source.header.detail:
        return restore_schema(table, source.header.detail)
    return table


def _polars(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    return read_lazy(source, columns, filters).collect()


_Reader = Callable[[Source, Sequence[Any] | None, Any], Any]

_READERS: dict[str, _Reader] = {
    "native": _native,
    "pandas": _pandas,
    "arrow": _arrow,
    "polars": _polars,
    "lazy": read_lazy,
}
