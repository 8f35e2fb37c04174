"""pandas objects and Parquet.

The file is what ``df.to_parquet`` would write, so pandas, DuckDB and polars can read it directly.
What those columns do not tell (labels that are not text, index frequency, categories, storage of
strings, kinds of missing values...) is in the footer and restored on reading.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from research_jobs.errors import first_line
from research_jobs.store.codec.base import PANDAS_KINDS, Encoded, ErrorContext, json_error
from research_jobs.store.codec.columns import encode_objects
from research_jobs.store.codec.dtypes import encode_dtype, encode_freq, encode_labels
from research_jobs.store.codec.pandas_decode import decode_pandas
from research_jobs.store.codec.registry import Codec
from research_jobs.store.codec.source import Source, read_table
from research_jobs.store.codec.typed_json import NotEncodableError, dumps

__all__ = ["CODEC"]

PANDAS_KEY = b"pandas"
INDEX_FIELD = "__index_level_{}__"


def _encode(value: Any, place: ErrorContext) -> Encoded | None:
    """A DataFrame, Series or Index; None for any other type of pandas.

    Raises
    ------
    OutputNotParquetError
    """
    cls = type(value)
    if cls is pd.DataFrame:
        return _encode_frame(value, place)
    if cls is pd.Series:
        physical = value.name if type(value.name) is str and value.name else "value"
        frame = value.to_frame(physical)
        encoded = _encode_frame(frame, place)
        detail = dict(encoded.detail)
        detail["name"] = _json(value.name, place.at("name"))
        return Encoded("pandas.Series", detail, encoded.table)
    if isinstance(value, pd.Index):
        encoded = _encode_frame(pd.DataFrame(index=value), place)
        return Encoded("pandas.Index", encoded.detail, encoded.table)
    if isinstance(value, (pd.DataFrame, pd.Series)):
        base = "pd.DataFrame" if isinstance(value, pd.DataFrame) else "pd.Series"
        raise place.error(
            f"type {cls.__module__.split('.')[0]}.{cls.__qualname__}",
            f"convert it with {base}(...)",
        )
    return None


def _json(value: Any, place: ErrorContext) -> str:
    try:
        return dumps(value)
    except NotEncodableError as error:
        raise json_error(place, value, error) from None


def _encode_frame(frame: Any, place: ErrorContext) -> Encoded:
    labels = frame.columns
    if not labels.is_unique:
        twice = next(label for label in labels if (labels == label).sum() > 1)
        raise place.error(
            f"two columns named {twice!r}",
            "rename one of them, because readers could not distinguish them",
        )
    attrs = dict(frame.attrs)
    plain = frame.copy(deep=False)
    if not _pyarrow_knows(labels):
        plain.columns = pd.Index([str(label) for label in labels], dtype=object)
    plain.attrs = attrs if _is_json(attrs) else {}
    objects: list[int] = []
    recipes: list[Any] = []
    for number, label in enumerate(labels):
        here = place.at(f"column {label!r}")
        array, recipe = _encode_column(frame.iloc[:, number], here)
        recipes.append(recipe)
        if array is not None:
            plain.isetitem(number, _arrow_series(array, frame.index))
            objects.append(number)
    index, levels, level_objects = _encode_index(plain, place.at("index"))
    written = [_written(label) for label in plain.columns]
    _refuse_same_names(written, len(written), place)
    table = _to_table(plain, levels, place)
    width = len(labels)
    names = table.schema.names
    _refuse_same_names(names, width, place)
    objects += [place for place, dtype in enumerate(frame.dtypes) if _unknown_to_pandas(dtype)]
    table = _mark_objects(table, {names[number] for number in objects} | set(level_objects))
    detail = {
        "columns": encode_labels(labels, place.at("column names")),
        "recipes": _shorten(recipes),
        "index": index,
    }
    if attrs:
        detail["attrs"] = _json(attrs, place.at("attrs"))
    if not frame.flags.allows_duplicate_labels:
        detail["unique"] = True
    return Encoded("pandas.DataFrame", detail, table)


def _pyarrow_knows(labels: Any) -> bool:
    """Whether plain pandas can restore labels as pyarrow writes them."""
    levels = labels.levels if isinstance(labels, pd.MultiIndex) else [labels]
    return all(level.inferred_type in _KNOWN_LABELS for level in levels)


_KNOWN_LABELS = ("string", "integer", "floating", "empty")


def _written(label: Any) -> str:
    """A label as pyarrow writes it."""
    return str(tuple(map(str, label))) if isinstance(label, tuple) else str(label)


def _is_json(attrs: dict[Any, Any]) -> bool:
    try:
        json.dumps(attrs)
    except (TypeError, ValueError):
        return False
    return True


def _shorten(recipes: list[Any]) -> list[list[Any]]:
    """Runs of the same recipe as ``[count, recipe]``: wide frames mostly have one dtype."""
    return [[len(list(run)), recipe] for recipe, run in groupby(recipes)]


def _arrow_series(array: Any, index: Any) -> Any:
    """An Arrow array as a column that pyarrow takes unchanged."""
    return pd.Series(pd.arrays.ArrowExtensionArray(array), index=index)


def _encode_column(series: Any, place: ErrorContext) -> tuple[Any, dict[str, Any]]:
    """A column's recipe, and its Arrow array if pyarrow itself would not create the right one."""
    dtype = series.dtype
    recipe: dict[str, Any] = {"dtype": encode_dtype(dtype, place)}
    if isinstance(dtype, pd.CategoricalDtype):
        array, coding = _encode_categories(series, dtype)
        return array, recipe | {"coding": coding}
    side: Any = getattr(dtype, "subtype", None)
    if isinstance(dtype, pd.IntervalDtype) and isinstance(side, pd.DatetimeTZDtype):
        return _encode_zoned_intervals(series.array), recipe
    if not isinstance(dtype, np.dtype):
        return None, recipe
    if dtype.kind == "O":
        array, how = encode_objects(series.to_numpy(), place)
        return array, recipe | {"objects": how}
    if dtype.kind == "c":
        values = series.to_numpy()
        parts = [pa.array(values.real), pa.array(values.imag)]
        return pa.StructArray.from_arrays(parts, names=["real", "imag"]), recipe
    if dtype.kind in "iufbmM" and dtype.itemsize <= 8:
        if not dtype.isnative:
            return pa.array(
                series.to_numpy().astype(dtype.newbyteorder("=")), from_pandas=True
            ), recipe
        return None, recipe
    raise place.error(f"dtype {dtype}", "convert it with .astype()")


def _encode_zoned_intervals(intervals: Any) -> Any:
    """Intervals of times with a zone, which pandas 2 cannot pass to pyarrow."""
    missing = pa.array(intervals.isna())
    sides = [pa.Array.from_pandas(pd.Series(side)) for side in (intervals.left, intervals.right)]
    return pa.StructArray.from_arrays(sides, names=["left", "right"], mask=missing)


def _encode_categories(series: Any, dtype: Any) -> tuple[Any, str]:
    """Categories as text if they are text, as numbers if they are numbers, else by name."""
    categories = dtype.categories
    kinds = set(map(type, categories.astype(object)))
    if kinds <= {str}:
        return _dictionary(series, pa.array(list(categories), pa.string()), dtype), "text"
    if categories.dtype.kind in "iufb" and isinstance(categories.dtype, np.dtype):
        codes = series.cat.codes.to_numpy()
        values = categories.to_numpy()[codes] if len(categories) else np.empty(len(codes))
        return pa.array(values, mask=codes < 0), "values"
    texts = [str(category) for category in categories]
    if len(set(texts)) == len(texts):
        return _dictionary(series, pa.array(texts, pa.string()), dtype), "text"
    return pa.array(series.cat.codes.to_numpy()), "codes"


def _dictionary(series: Any, texts: Any, dtype: Any) -> Any:
    codes = series.cat.codes.to_numpy()
    indices = pa.array(codes.astype("int32"), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, texts, ordered=bool(dtype.ordered))


def _encode_index(plain: Any, place: ErrorContext) -> tuple[Any, Any, list[str]]:
    """The index's recipe, its levels as a frame of columns, and which of those had objects.

    A running index is only in the recipe; then there is no frame.
    """
    index: Any = plain.index
    names = [_json(name, place.at("index name")) for name in index.names]
    if type(index) is pd.RangeIndex and plain.shape[1] > 0:
        return {"range": [index.start, index.stop, index.step], "names": names}, None, []
    physical = [_index_field(name, number, plain) for number, name in enumerate(index.names)]
    if len(set(physical)) < len(physical):
        physical = [INDEX_FIELD.format(number) for number in range(index.nlevels)]
    levels: list[Any] = []
    columns: dict[str, Any] = {}
    changed: list[str] = []
    for number, name in enumerate(physical):
        level = pd.Series(index.get_level_values(number), copy=False)
        array, recipe = _encode_column(level, place)
        levels.append(recipe)
        columns[name] = level if array is None else _arrow_series(array, level.index)
        if array is not None or _unknown_to_pandas(level.dtype):
            changed.append(name)
    found: dict[str, Any] = {"levels": levels, "names": names}
    if isinstance(index, pd.MultiIndex):
        found["multi"] = True
    elif isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and index.freq is not None:
        found["freq"] = encode_freq(index.freq, place)
    if type(index) is pd.RangeIndex:
        found["range"] = [index.start, index.stop, index.step]
    return found, pd.DataFrame(columns, copy=False), changed


def _index_field(name: Any, number: int, plain: Any) -> str:
    if type(name) is str and name and name not in plain.columns:
        return name
    return INDEX_FIELD.format(number)


def _to_table(plain: Any, levels: Any, place: ErrorContext) -> Any:
    """Columns and levels of the index as one table that plain pandas can read."""
    if levels is None:
        return _from_pandas(plain, place, keep=None)
    table = _from_pandas(plain, place, keep=False)
    index = _from_pandas(levels, place.at("index"), keep=False)
    names = index.schema.names
    metadata = dict(table.schema.metadata)
    record = json.loads(metadata[PANDAS_KEY])
    for column in json.loads(index.schema.metadata[PANDAS_KEY])["columns"]:
        generated = column["field_name"].startswith(INDEX_FIELD.split("{", maxsplit=1)[0])
        record["columns"].append(column | {"name": None if generated else column["field_name"]})
    record["index_columns"] = names
    metadata[PANDAS_KEY] = json.dumps(record).encode()
    arrays = [*table.columns, *index.columns]
    return pa.Table.from_arrays(arrays, names=[*table.schema.names, *names], metadata=metadata)


def _from_pandas(frame: Any, place: ErrorContext, *, keep: bool | None) -> Any:
    """Convert a frame with pyarrow; its errors become ours."""
    # pyarrow starts threads for any frame with more than a hundred rows per column.
    threads = 1 if frame.size < _WORTH_THREADS else None
    try:
        return pa.Table.from_pandas(frame, preserve_index=keep, nthreads=threads)
    except _REFUSALS as error:
        _blame_column(frame, place)
        raise place.error(f"type pandas.DataFrame ({first_line(error)})") from error


# From this number of values on, threads save more time than starting them takes.
_WORTH_THREADS = 1_000_000

_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError, UnicodeError)


def _blame_column(plain: Any, place: ErrorContext) -> None:
    """Raise for the column that pyarrow refuses, if it is a single one."""
    for number in range(plain.shape[1]):
        here = place.at(f"column {plain.columns[number]!r}")
        try:
            pa.Array.from_pandas(plain.iloc[:, number])
        except _REFUSALS as error:
            dtype = plain.dtypes.iloc[number]
            raise here.error(f"dtype {dtype} ({first_line(error)})") from error


def _unknown_to_pandas(dtype: Any) -> bool:
    """Whether pandas fails on the name of a dtype in its own metadata."""
    if not isinstance(dtype, pd.ArrowDtype):
        return False
    try:
        pd.api.types.pandas_dtype(str(dtype))
    except (TypeError, NotImplementedError):
        return True
    return False


def _refuse_same_names(names: Sequence[str], width: int, place: ErrorContext) -> None:
    if len(set(names)) == len(names):
        return
    twice = next(name for name in names if names.count(name) > 1)
    what = "two columns" if names[:width].count(twice) > 1 else "an index level and a column"
    raise place.error(f"{what} written {twice!r}", "rename one of them: names in a file are text")


def _mark_objects(table: Any, names: set[str]) -> Any:
    """Mark these columns as objects in pandas' metadata (pyarrow got Arrow arrays from us)."""
    if not names:
        return table
    metadata = dict(table.schema.metadata or {})
    record = json.loads(metadata[PANDAS_KEY])
    for column in record["columns"]:
        if column["field_name"] in names:
            column["numpy_type"] = "object"
            column["metadata"] = None
    metadata[PANDAS_KEY] = json.dumps(record).encode()
    return table.replace_schema_metadata(metadata)


def _decode(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    return decode_pandas(
        read_table(source, columns, filters),
        source.kind,
        source.header.detail,
        source.schema.names,
        filtered=filters is not None,
    )


CODEC = Codec(PANDAS_KINDS, _encode, _decode)
