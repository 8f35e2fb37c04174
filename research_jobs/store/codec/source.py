"""A stored file, opened once: its columns by label, and a selection of its columns and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from research_jobs.errors import CorruptOutputError, StoreError, did_you_mean, first_line
from research_jobs.store.codec.base import PANDAS_KINDS
from research_jobs.store.codec.parquet import KEY, Header, open_parquet, read_header

__all__ = [
    "Source",
    "cast",
    "expression",
    "normal_form",
    "open_source",
    "read_table",
    "selected_fields",
    "typed_filters",
    "typed_value",
]

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

    @cached_property
    def labels(self) -> Mapping[Any, str]:
        """mapping: a column's label to its name in the file."""
        return {level: level for level in self.levels} | self._names[0]

    @property
    def levels(self) -> list[str]:
        """List of str: the file's columns that are levels of a pandas index."""
        return self._names[1]

    @cached_property
    def _names(self) -> tuple[dict[Any, str], list[str]]:
        if self.kind not in PANDAS_KINDS:
            return {name: name for name in self.schema.names}, []
        from research_jobs.store.codec.pandas_decode import field_names

        return field_names(self.header.detail, self.schema.names)

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


def read_table(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    """The requested columns and rows as Arrow, always with the levels of a pandas index.

    Raises
    ------
    CorruptOutputError, StoreError
    """
    fields = selected_fields(source, columns)
    try:
        if filters is None:
            with open_parquet(source.path, source.footer) as file:
                table = file.read(columns=fields, use_threads=True)
        else:
            data = ds.dataset(str(source.path), format="parquet", partitioning=None)
            table = data.to_table(columns=fields, filter=expression(source, filters))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, TypeError) as error:
        reason = first_line(error)
        if filters is not None and isinstance(error, _BAD_FILTER):
            raise StoreError(
                f"{source.path} cannot be filtered by {filters}: {reason}",
                hint="A filter is (column, operator, value), with a value of the column's type.",
            ) from error
        raise CorruptOutputError(
            f"{source.path} cannot be read: {reason}",
            hint="Another process changed it; run the notebook again.",
        ) from error
    if fields is not None:
        there = set(table.schema.names)
        table = table.select([name for name in fields if name in there])
    metadata = {key: item for key, item in (table.schema.metadata or {}).items() if key != KEY}
    return table.replace_schema_metadata(metadata or None)


_BAD_FILTER = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, TypeError)


def selected_fields(source: Source, columns: Sequence[Any] | None) -> list[str] | None:
    if columns is None:
        return None
    levels = source.levels
    chosen = [source.field(label) for label in columns]
    return [*dict.fromkeys(name for name in chosen if name not in levels), *levels]


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
        if kind.tz is None:
            return moment
        zone = _zone(kind.tz)  # polars compares no times of other zones
        return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)
    if pa.types.is_date(kind) and isinstance(value, str):
        return date.fromisoformat(value)
    return value


def _zone(name: str) -> Any:
    from zoneinfo import ZoneInfo

    if name[:1] in "+-":
        return datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo
    return ZoneInfo(name)


def cast(column: Any, kind: Any) -> Any:
    """A column as another Arrow type, a dictionary of any values included."""
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        column = column.cast(kind.value_type).dictionary_encode()
    return column.cast(kind)


def expression(source: Source, filters: Any) -> Any:
    if isinstance(filters, ds.Expression):
        return filters
    return pq.filters_to_expression(typed_filters(source, filters))
