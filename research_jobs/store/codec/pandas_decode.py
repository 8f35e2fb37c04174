"""Tables of a file as pandas objects: what `pandas_codec` wrote, restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from research_jobs.store.codec.base import ErrorContext
from research_jobs.store.codec.columns import decode_objects
from research_jobs.store.codec.dtypes import (
    decode_dtype,
    decode_freq,
    decode_labels,
    encode_dtype,
    encode_labels,
)
from research_jobs.store.codec.source import cast
from research_jobs.store.codec.typed_json import loads

__all__ = ["cut_detail", "decode_pandas", "field_names"]

FEW_COLUMNS = 50  # pandas warns of frames with more than 100 blocks


def field_names(detail: Any, names: Sequence[str]) -> tuple[dict[Any, str], list[str]]:
    """A file's columns by their labels in pandas, and those that are levels of the index."""
    labels = decode_labels(detail["columns"])
    width = len(labels)
    return dict(zip(labels, names[:width], strict=True)), list(names[width:])


def decode_pandas(
    table: Any, kind: str, detail: Any, names: Sequence[str], *, filtered: bool
) -> Any:
    """The pandas object of a table.

    Parameters
    ----------
    table : pyarrow.Table
        The requested columns, including index levels.
    kind : str
    detail : mapping
    names : sequence of str
        All columns of the file, in order.
    filtered : bool
        Whether rows may be missing: then a running index restarts and a frequency is dropped.
    """
    labels = decode_labels(detail["columns"])
    width = len(labels)
    recipes = _lengthen(detail["recipes"], width)
    places = {name: number for number, name in enumerate(names[:width])}
    chosen = [(places[name], name) for name in table.schema.names if name in places]
    index = _decode_index(table, detail["index"], names[width:], filtered=filtered)
    everything = [place for place, _ in chosen] == list(range(width))
    found = labels if everything else labels.take([place for place, _ in chosen])
    frame = _assemble(table, [(name, recipes[place]) for place, name in chosen])
    frame.index = index
    frame.columns = found
    if "attrs" in detail:
        frame.attrs.update(loads(detail["attrs"]))
    if detail.get("unique"):
        frame.flags.allows_duplicate_labels = False
    if kind == "pandas.Index":
        return frame.index
    if kind == "pandas.Series":
        series = frame.iloc[:, 0]
        series.name = loads(detail["name"])
        series.attrs.update(frame.attrs)
        return series
    return frame


def _lengthen(runs: list[list[Any]], width: int) -> list[Any]:
    if sum(count for count, _ in runs) != width:
        raise ValueError(f"{width} columns, and recipes for another number of them")
    return [recipe for count, recipe in runs for _ in range(count)]


def _assemble(table: Any, chosen: Sequence[tuple[str, Any]]) -> Any:
    """The columns as a frame with running labels.

    pyarrow converts numbers and times, in blocks and on all cores; the other columns are inserted
    between them.
    """
    plain = {place for place, (name, recipe) in enumerate(chosen) if _is_plain(table, name, recipe)}
    left = sorted(plain)
    frame = table.select([chosen[place][0] for place in left]).replace_schema_metadata(None)
    frame = frame.to_pandas() if left else pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    frame.columns = left
    others = {
        place: _as_series(_decode_column(table.column(name), recipe))
        for place, (name, recipe) in enumerate(chosen)
        if place not in plain
    }
    if not others:
        return frame
    if len(others) > FEW_COLUMNS:
        parts = [frame, pd.DataFrame(others)]
        return pd.concat(parts, axis=1)[list(range(len(chosen)))]
    for place in sorted(others):
        frame.insert(place, place, others[place])
    return frame


def _is_plain(table: Any, name: str, recipe: Any) -> bool:
    """Whether pyarrow's own array equals the one that was written."""
    code = recipe["dtype"].get("numpy", "")
    if code[1:2] not in tuple("iufbMm") or "objects" in recipe:
        return False
    column = table.column(name)
    dtype = np.dtype(code)
    if dtype.kind in "iub" and column.null_count:
        return False
    if dtype.kind in "mM":
        return not column.type.equals(pa.null()) and column.type.unit == np.datetime_data(dtype)[0]
    return dtype.isnative and column.type.equals(pa.from_numpy_dtype(dtype))


def _as_series(column: Any) -> Any:
    # The dtype is explicit, or pandas 3 would inspect the objects and infer text.
    dtype = object if _is_object(column) else None
    return pd.Series(_writable(column), dtype=dtype, copy=False)


def _writable(column: Any) -> Any:
    """Copy: Arrow's memory is read-only, but a frame must be writable."""
    if isinstance(column, np.ndarray) and not column.flags.writeable:
        return column.copy()
    return column


def _is_object(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind == "O"


def _level(column: Any) -> Any:
    dtype = object if _is_object(column) else None
    return pd.Index(column, dtype=dtype, tupleize_cols=False)


def _decode_index(table: Any, recipe: Any, names: Sequence[str], *, filtered: bool) -> Any:
    labels = [loads(name) for name in recipe["names"]]
    if "range" in recipe:
        whole = pd.RangeIndex(*recipe["range"], name=labels[0])
        if not filtered:
            return whole
        return pd.RangeIndex(table.num_rows, name=labels[0])
    levels = [
        _level(_decode_column(table.column(name), level))
        for name, level in zip(names, recipe["levels"], strict=True)
    ]
    if recipe.get("multi"):
        return pd.MultiIndex.from_arrays(levels, names=labels)
    index = levels[0].rename(labels[0])
    if "freq" in recipe and not filtered:
        index.freq = decode_freq(recipe["freq"])
    return index


def _decode_column(column: Any, recipe: Any) -> Any:
    """A column of the file as a pandas array."""
    dtype = decode_dtype(recipe["dtype"])
    if "objects" in recipe:
        return _object_array(decode_objects(column, recipe["objects"]))
    if isinstance(dtype, pd.CategoricalDtype):
        return _decode_categories(column, recipe["coding"], dtype)
    if isinstance(dtype, np.dtype):
        return _decode_numpy(column, dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        values = _decode_numpy(column.cast(pa.timestamp(dtype.unit)), np.dtype(f"M8[{dtype.unit}]"))
        return pd.DatetimeIndex(values, tz="UTC").tz_convert(dtype.tz).array
    if isinstance(column.type, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        column = pa.chunked_array(chunks, type=column.type.storage_type)
    if isinstance(dtype, pd.ArrowDtype):
        return pd.arrays.ArrowExtensionArray(cast(column, dtype.pyarrow_dtype))
    if isinstance(dtype, pd.IntervalDtype):
        return _decode_intervals(column, dtype)
    if isinstance(dtype, pd.PeriodDtype):
        return _decode_periods(column, dtype)
    return dtype.__from_arrow__(column)


def _object_array(items: list[Any]) -> Any:
    array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def _decode_numpy(column: Any, dtype: Any) -> Any:
    if dtype.kind == "c":
        merged = column.combine_chunks()
        parts = [merged.field(name).to_numpy(zero_copy_only=False) for name in ("real", "imag")]
        values = np.empty(len(merged), dtype=dtype)
        values.real, values.imag = parts
        return values
    if dtype.kind == "f" and column.null_count:
        values = column.to_numpy(zero_copy_only=False)  # null becomes NaN
    elif dtype.kind in "mM":
        values = column.cast(pa.from_numpy_dtype(dtype.newbyteorder("="))).to_numpy(
            zero_copy_only=False
        )
    else:
        values = column.to_numpy(zero_copy_only=False)
    return (
        values if values.dtype == dtype and values.dtype.str == dtype.str else values.astype(dtype)
    )


def _decode_categories(column: Any, coding: str, dtype: Any) -> Any:
    categories = dtype.categories
    if coding == "codes":
        return pd.Categorical.from_codes(column.to_numpy(), dtype=dtype)
    if coding == "values":
        codes = categories.get_indexer(_decode_values(column, categories.dtype))
        codes = np.where(column.is_null().to_numpy(), -1, codes) if column.null_count else codes
        return pd.Categorical.from_codes(codes, dtype=dtype)
    texts = pd.Index([str(category) for category in categories], dtype=object)
    found: list[Any] = []
    for chunk in column.chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        own = np.append(texts.get_indexer(pd.Index(coded.dictionary.to_pylist(), dtype=object)), -1)
        found.append(own[coded.indices.fill_null(len(own) - 1).to_numpy(zero_copy_only=False)])
    codes = np.concatenate(found) if found else np.empty(0, dtype=int)
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _decode_values(column: Any, dtype: Any) -> Any:
    filled = column.fill_null(False if dtype.kind == "b" else 0) if column.null_count else column
    return filled.to_numpy(zero_copy_only=False).astype(dtype)


def _decode_intervals(column: Any, dtype: Any) -> Any:
    merged = column.combine_chunks()
    valid = merged.is_valid().to_numpy(zero_copy_only=False)
    sides: list[Any] = []
    for name in ("left", "right"):
        side = pa.chunked_array([merged.field(name)])
        recipe = {"dtype": encode_dtype(dtype.subtype, ErrorContext(""))}
        sides.append(pd.Series(_decode_column(side, recipe)))
    left, right = (side if valid.all() else side.where(valid) for side in sides)
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=dtype.closed, dtype=dtype)


def _decode_periods(column: Any, dtype: Any) -> Any:
    null = column.is_null().to_numpy()
    ordinals = column.fill_null(0).to_numpy().copy()
    ordinals[null] = np.iinfo("int64").min
    return pd.arrays.PeriodArray(ordinals.astype("int64"), dtype=dtype)


def cut_detail(detail: Any, names: Sequence[str], kept: Sequence[str], rows: int) -> dict[str, Any]:
    """The record of a file that has fewer columns and rows.

    Parameters
    ----------
    detail : mapping
        Of the whole file.
    names, kept : sequence of str
        Its columns, in order, and those that are kept, all levels of the index among them.
    rows : int
        How many are kept. As where `load()` filters, a running index restarts and a frequency is
        dropped.
    """
    labels = decode_labels(detail["columns"])
    recipes = _lengthen(detail["recipes"], len(labels))
    inside = set(kept)
    places = [place for place, name in enumerate(names[: len(labels)]) if name in inside]
    index = {key: item for key, item in detail["index"].items() if key != "freq"}
    if "range" in index:
        index["range"] = [0, rows, 1]
    cut = dict(detail) | {"recipes": [[1, recipes[place]] for place in places], "index": index}
    if len(places) < len(labels):
        cut["columns"] = encode_labels(labels.take(places), ErrorContext("columns"))
    return cut
