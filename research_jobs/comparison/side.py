"""One of the two tables: a stored file, its columns by the names that a person knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from research_jobs.comparison.types import convert, type_text
from research_jobs.store.codec.base import PANDAS_KINDS
from research_jobs.store.codec.parquet import decoding
from research_jobs.store.codec.source import Source, open_source

__all__ = ["IncomparableError", "Side", "open_side"]

BATCH = 128 * 1024  # rows: what is computed of them fits into a processor's cache
BUFFER = 1 << 20  # bytes read ahead of each column
_GENERATED = "__index_level_"
_DENSE = 4  # bytes a value: columns stored in less have few distinct values


class IncomparableError(Exception):
    """A column's values do not fit into the type in which they would be compared.

    Parameters
    ----------
    column : str
    """

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True)
class Side:
    """A table in a file.

    Parameters
    ----------
    source : Source
    places : mapping of str to int
        Column to its number in the file. Columns of the same name are numbered.
    levels : tuple of str
        The columns that are an index of pandas.
    dtypes : mapping of str to str
        The pandas dtype of its columns; empty for values of other libraries.
    """

    source: Source
    places: Mapping[str, int]
    levels: tuple[str, ...]
    dtypes: Mapping[str, str]

    @property
    def rows(self) -> int:
        """int: the number of rows."""
        return int(self.source.footer.num_rows)

    def arrow_type(self, name: str) -> Any:
        """A column's type in the file."""
        return self.source.schema.field(self.places[name]).type

    def type_texts(self, name: str, other: Side) -> tuple[str, str]:
        """A column's types here and there, as far as they differ."""
        texts = type_text(self.arrow_type(name)), type_text(other.arrow_type(name))
        if texts[0] == texts[1] and name in self.dtypes and name in other.dtypes:
            return self.dtypes[name], other.dtypes[name]
        return texts

    def batches(
        self, names: Sequence[str], kinds: Mapping[str, Any], wanted: Any = None
    ) -> Iterator[tuple[int, int, list[Any]]]:
        """Columns in batches, converted.

        Parameters
        ----------
        names : sequence of str
        kinds : mapping of str to pyarrow.DataType
            The type of each column.
        wanted : numpy.ndarray of bool, optional
            The rows to read. Row groups without any are not opened.

        Yields
        ------
        tuple
            The number of the first row, the number of rows, and an array for each column.

        Raises
        ------
        IncomparableError
        CorruptOutputError
        """
        if not names:
            for start in range(0, self.rows, BATCH):
                yield start, min(BATCH, self.rows - start), []
            return
        fields = self.source.schema.names
        physical = [fields[self.places[name]] for name in names]
        doubled = len(set(fields)) < len(fields)
        start = 0
        with self._open(names) as file:
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if wanted is not None and not wanted[start : start + rows].any():
                    start += rows
                    continue
                for arrays in self._group(file, group, names, None if doubled else physical):
                    yield (
                        start,
                        len(arrays[0]),
                        [
                            _converted(name, array, kinds[name])
                            for name, array in zip(names, arrays, strict=True)
                        ],
                    )
                    start += len(arrays[0])

    def _group(
        self, file: Any, group: int, names: Sequence[str], physical: Sequence[str] | None
    ) -> Iterator[list[Any]]:
        """The columns of one row group in batches, as they are stored."""
        with decoding(self.source.path):
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=physical):
                found = batch.schema.names
                yield [
                    batch.column(self.places[name] if physical is None else found.index(field))
                    for name, field in zip(names, physical or names, strict=True)
                ]

    def _open(self, names: Sequence[str]) -> Any:
        footer = self.source.footer
        fields = self.source.schema.names
        dense = [fields[self.places[name]] for name in names if self._is_dense(name)]
        with decoding(self.source.path):
            return pq.ParquetFile(
                str(self.source.path),
                metadata=footer,
                read_dictionary=dense,
                pre_buffer=False,
                buffer_size=BUFFER,
            )

    def _is_dense(self, name: str) -> bool:
        """Whether a column of text is faster to read as its distinct values and numbers of them."""
        kind, footer = self.arrow_type(name), self.source.footer
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return False
        field = self.source.schema.names[self.places[name]]
        chunk = next(
            number
            for number in range(footer.num_columns)
            if footer.schema.column(number).path == field
        )
        size = sum(
            footer.row_group(group).column(chunk).total_uncompressed_size
            for group in range(footer.num_row_groups)
        )
        return size < _DENSE * footer.num_rows


def _converted(name: str, array: Any, kind: Any) -> Any:
    try:
        return convert(array, kind)
    except pa.ArrowException as error:
        raise IncomparableError(name) from error


def open_side(path: Path) -> Side:
    """Open a stored table.

    Raises
    ------
    CorruptOutputError, StoreError, FileNotFoundError
    """
    source = open_source(path)
    levels = set(source.levels)
    places: dict[str, int] = {}
    shown: list[str] = []
    generated = sum(name.startswith(_GENERATED) for name in levels)
    for place, field in enumerate(source.schema.names):
        name = field
        if field in levels and field.startswith(_GENERATED):
            name = "index" if generated == 1 else f"index {field[len(_GENERATED) : -2]}"
        elif place == 0 and source.kind.endswith(".Series"):
            name = "value"  # its name is not that of a column
        base, count = name, 1
        while name in places:
            count += 1
            name = f"{base} ({count})"
        places[name] = place
        if field in levels:
            shown.append(name)
    return Side(source, places, tuple(shown), _dtypes(source, places))


def _dtypes(source: Source, places: Mapping[str, int]) -> dict[str, str]:
    if source.kind not in PANDAS_KINDS:
        return {}
    detail = source.header.detail
    recipes = [recipe for count, recipe in detail["recipes"] for _ in range(count)]
    recipes += detail["index"].get("levels", [])
    return {name: _dtype_text(recipes[place]["dtype"]) for name, place in places.items()}


def _dtype_text(dtype: Mapping[str, Any]) -> str:
    """A dtype's name from the codec's JSON; of categories only that they are."""
    (kind, value), *_ = dtype.items()
    if kind == "numpy":
        import numpy as np

        return str(np.dtype(value))
    if kind == "categories":
        return "ordered category" if dtype.get("ordered") else "category"
    if kind == "masked":
        return str(value)
    if kind == "string":
        return f"string of {value[0]}"
    return f"{kind} {value}" if len(str(value)) < 40 else kind
