"""Files to values: a selection of columns and rows, in the form of some library."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from research_jobs.errors import CorruptOutputError, StoreError, did_you_mean
from research_jobs.store.codec.base import PANDAS_KINDS, TABLE_KINDS
from research_jobs.store.codec.parquet import KEY, Header, decoding, open_parquet, read_header

__all__ = ["Source", "open_source", "read_file", "read_table", "typed_filters", "typed_value"]

OPERATORS = ("=", "==", "!=", "<", "<=", ">", ">=", "in", "not in")


@dataclass(frozen=True)
class Source:
    """A file, opened once, and its description.

    Parameters
    ----------
    path : Path
    header : Header
    schema : pyarrow.Schema
    footer : pyarrow.parquet.FileMetaData
    """

    path: Path
    header: Header
    schema: Any
    footer: Any

    @property
    def kind(self) -> str:
        """str: the value's type."""
        return self.header.kind

    @property
    def labels(self) -> Mapping[Any, str]:
        """mapping: a column's label to its name in the file."""
        names: list[str] = self.schema.names
        if self.kind not in PANDAS_KINDS:
            return {name: name for name in names}
        from research_jobs.store.codec import pandas_codec

        columns, levels = pandas_codec.field_names(self.header.detail, names)
        return {level: level for level in levels} | dict(columns)

    @property
    def levels(self) -> list[str]:
        """List of str: the file's columns that are levels of a pandas index."""
        if self.kind not in PANDAS_KINDS:
            return []
        from research_jobs.store.codec import pandas_codec

        return pandas_codec.field_names(self.header.detail, self.schema.names)[1]

    def field(self, label: Any) -> str:
        """The file's name of a column.

        Raises
        ------
        StoreError
            When there is no such column; similar names are suggested.
        """
        labels = self.labels
        try:
            if label in labels:
                return labels[label]
        except TypeError:
            pass  # a label that cannot be hashed is unknown
        known = [str(name) for name in labels]
        raise StoreError(
            f"{self.path} has no column {label!r}", hint=did_you_mean(str(label), known) or None
        )


def open_source(path: Path) -> Source:
    """Open a file and read its footer.

    Raises
    ------
    CorruptOutputError, StoreError, FileNotFoundError
    """
    with open_parquet(path) as file:
        return Source(path, read_header(path, file.metadata), file.schema_arrow, file.metadata)


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
    if reader is _native and chosen and source.kind not in TABLE_KINDS:
        raise StoreError(
            f"{source.path} contains a {source.kind}, which has no columns or rows to select",
            hint='Ask for a table: as_="pandas".',
        )
    return reader(source, columns, filters)


def _native(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    kind = source.kind
    family = kind.split(".")[0] if kind in TABLE_KINDS else ""
    if kind == "table" or family == "pandas":
        return _pandas(source, columns, filters)
    if family == "polars":
        frame = _lazy(source, columns, filters)
        if kind == "polars.LazyFrame":
            return frame
        found = frame.collect()
        if kind == "polars.Series":
            return found.to_series().alias(source.header.detail["name"])
        return found
    if family == "pyarrow":
        if kind == "pyarrow.RecordBatchReader":
            return _stream(source, columns, filters)
        from research_jobs.store.codec import arrow_codec

        return arrow_codec.decode_arrow(
            read_table(source, columns, filters), kind, source.header.detail
        )
    table = read_table(source, None, None)
    if kind == "numpy.ndarray":
        from research_jobs.store.codec import numpy_codec

        return numpy_codec.decode_numpy(table, source.header.detail)
    from research_jobs.store.codec import plain

    return plain.decode_plain(table, kind, source.header.detail)


def _pandas(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    table = read_table(source, columns, filters)
    if source.kind not in PANDAS_KINDS:
        return table.to_pandas()
    from research_jobs.store.codec import pandas_codec

    return pandas_codec.decode_pandas(
        table,
        source.kind,
        source.header.detail,
        source.schema.names,
        filtered=filters is not None,
    )


def _arrow(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    table = read_table(source, columns, filters)
    if "schema" in source.header.detail:
        from research_jobs.store.codec import arrow_codec

        return arrow_codec.restore_schema(table, source.header.detail)
    return table


def _polars(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    return _lazy(source, columns, filters).collect()


def _lazy(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
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
        _check_polars(source, lazy)
        condition = _polars_condition(typed_filters(source, filters))
        if condition is not None:
            lazy = lazy.filter(condition)
    if columns is None:
        return lazy
    return lazy.select([source.field(label) for label in columns])


def _check_polars(source: Source, lazy: Any) -> None:
    """Raise an error of ours if polars would panic over an unsupported type."""
    import polars as pl

    try:
        lazy.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(
            f"{source.path} cannot be read with polars: {reason}",
            hint='Ask for another form: as_="arrow".',
        ) from error


def _polars_condition(filters: list[list[tuple[str, str, Any]]] | None) -> Any:
    import polars as pl

    if filters is None:
        return None
    tests: dict[str, Callable[[Any, Any], Any]] = {
        "=": lambda a, b: a == b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "in": lambda a, b: a.is_in(list(b)),
        "not in": lambda a, b: ~a.is_in(list(b)),
    }
    every = [
        pl.all_horizontal(
            *(tests[operator](pl.col(name), value) for name, operator, value in group)
        )
        for group in filters
    ]
    return pl.any_horizontal(*every)


def read_table(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    """The requested columns and rows as Arrow, always with the levels of a pandas index.

    Raises
    ------
    CorruptOutputError, StoreError
    """
    fields = _fields(source, columns)
    try:
        if filters is None:
            with open_parquet(source.path, source.footer) as file:
                table = file.read(columns=fields, use_threads=True)
        else:
            data = ds.dataset(str(source.path), format="parquet", partitioning=None)
            table = data.to_table(columns=fields, filter=_expression(source, filters))
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, TypeError) as error:
        if filters is None:
            raise _corrupt(source, error) from error
        raise StoreError(
            f"{source.path} cannot be filtered by {filters}: {str(error).splitlines()[0]}",
            hint="A filter is (column, operator, value), with a value of the column's type.",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(source, error) from error
    if fields is not None:
        table = table.select([name for name in fields if name in table.schema.names])
    metadata = {key: item for key, item in (table.schema.metadata or {}).items() if key != KEY}
    return table.replace_schema_metadata(metadata or None)


def _corrupt(source: Source, error: BaseException) -> CorruptOutputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CorruptOutputError(
        f"{source.path} cannot be read: {reason}",
        hint="Another process changed it; run the notebook again.",
    )


def _fields(source: Source, columns: Sequence[Any] | None) -> list[str] | None:
    if columns is None:
        return None
    levels = source.levels
    chosen = [source.field(label) for label in columns]
    return [*dict.fromkeys(name for name in chosen if name not in levels), *levels]


def _stream(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    from research_jobs.store.codec import arrow_codec

    detail = source.header.detail
    data = ds.dataset(str(source.path), format="parquet", partitioning=None)
    condition = None if filters is None else _expression(source, filters)
    scanner = data.scanner(columns=_fields(source, columns), filter=condition)
    empty = pa.Table.from_batches([], scanner.projected_schema)
    schema = arrow_codec.restore_schema(empty, detail).schema

    def batches() -> Iterator[Any]:
        for batch in scanner.to_batches():
            table = arrow_codec.restore_schema(pa.Table.from_batches([batch]), detail)
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def typed_filters(source: Source, filters: Any) -> list[list[tuple[str, str, Any]]] | None:
    """Filters with the file's column names, and with dates as text converted to the column's type.

    Raises
    ------
    StoreError
        For an unknown column or operator, or a malformed filter.
    """
    if filters is None:
        return None
    found: list[list[tuple[str, str, Any]]] = []
    for group in normal_form(filters):
        terms: list[tuple[str, str, Any]] = []
        for label, operator, value in group:
            name = source.field(label)
            kind = source.schema.field(name).type
            terms.append((name, operator, _typed_operand(operator, value, kind)))
        found.append(terms)
    return found


def _typed_operand(operator: str, value: Any, kind: Any) -> Any:
    if operator in ("in", "not in"):
        return [typed_value(item, kind) for item in value]
    return typed_value(value, kind)


def normal_form(filters: Any) -> list[list[tuple[Any, str, Any]]]:
    """Filters as a list (or) of lists (and) of terms."""
    groups = list(filters)
    if groups and all(_is_term(item) for item in groups):
        groups = [groups]
    for group in groups:
        for term in group if isinstance(group, (list, tuple)) else [group]:
            if not _is_term(term):
                raise StoreError(
                    f"{term!r} is not a filter",
                    hint=f"A filter is (column, operator, value); operators: {' '.join(OPERATORS)}",
                )
    return [list(group) for group in groups]


def _is_term(term: Any) -> bool:
    return isinstance(term, (list, tuple)) and len(term) == 3 and term[1] in OPERATORS


def typed_value(value: Any, kind: Any) -> Any:
    """Text and dates in the column's type: ``"2018-11-01"`` for a column of times."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_timestamp(kind) and isinstance(value, (str, date)):
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        if kind.tz is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=_zone(kind.tz))
        return moment
    if pa.types.is_date(kind) and isinstance(value, str):
        return date.fromisoformat(value)
    return value


def _zone(name: str) -> Any:
    from zoneinfo import ZoneInfo

    if name[:1] in "+-":
        return datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo
    return ZoneInfo(name)


def _expression(source: Source, filters: Any) -> Any:
    if isinstance(filters, ds.Expression):
        return filters
    return pq.filters_to_expression(typed_filters(source, filters))


_Reader = Callable[[Source, Sequence[Any] | None, Any], Any]

_READERS: dict[str, _Reader] = {
    "native": _native,
    "pandas": _pandas,
    "arrow": _arrow,
    "polars": _polars,
    "lazy": _lazy,
}
