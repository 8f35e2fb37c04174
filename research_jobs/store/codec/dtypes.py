"""pandas dtypes and indexes as JSON, to be restored unchanged under any pandas."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from research_jobs.errors import OutputNotParquetError
from research_jobs.store.codec.base import ErrorContext, json_error
from research_jobs.store.codec.typed_json import (
    NotEncodableError,
    decode,
    decode_zone,
    encode,
    encode_zone,
)

__all__ = [
    "decode_dtype",
    "decode_freq",
    "decode_labels",
    "encode_dtype",
    "encode_freq",
    "encode_labels",
]

_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
MASKED = frozenset((*_INTEGERS, "Float32", "Float64", "boolean"))
COMPRESSED_FROM = 200  # labels: more than these are kept as compressed Arrow data


def encode_dtype(dtype: Any, place: ErrorContext) -> Any:
    """A dtype as JSON.

    Raises
    ------
    OutputNotParquetError
        For a dtype of another package, and for sparse ones.
    """
    if isinstance(dtype, np.dtype):
        return {"numpy": dtype.str}
    if isinstance(dtype, pd.DatetimeTZDtype):
        return {"zoned": [dtype.unit, _zone(dtype.tz, place)]}
    if isinstance(dtype, pd.CategoricalDtype):
        labels = encode_labels(dtype.categories, place)
        return {"categories": labels, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.PeriodDtype):
        return {"period": str(dtype)[len("period[") : -1]}
    if isinstance(dtype, pd.IntervalDtype):
        return {"interval": [encode_dtype(dtype.subtype, place), dtype.closed]}
    if isinstance(dtype, pd.StringDtype):
        missing = "nan" if dtype.na_value is not pd.NA else "na"
        return {"string": [dtype.storage, missing]}
    if isinstance(dtype, pd.ArrowDtype):
        schema = pa.schema([pa.field("", dtype.pyarrow_dtype)])
        return {"arrow": base64.b64encode(schema.serialize()).decode()}
    if str(dtype) in MASKED:
        return {"masked": str(dtype)}
    raise _refuse(dtype, place)


def _refuse(dtype: Any, place: ErrorContext) -> OutputNotParquetError:
    if isinstance(dtype, pd.SparseDtype):
        return place.error(f"dtype {dtype}", "make it dense with .sparse.to_dense()")
    return place.error(
        f"dtype {dtype} ({type(dtype).__module__})",
        "convert it with .astype() to a dtype of pandas",
    )


def _zone(zone: Any, place: ErrorContext) -> Any:
    try:
        return encode_zone(zone)
    except NotEncodableError as error:
        raise json_error(place, zone, error) from None


def decode_dtype(value: Any) -> Any:
    """The dtype of `encode_dtype`."""
    ((kind, body),) = [item for item in value.items() if item[0] != "ordered"]
    if kind == "numpy":
        return np.dtype(body)
    if kind == "zoned":
        return pd.DatetimeTZDtype(body[0], decode_zone(body[1]))
    if kind == "categories":
        return pd.CategoricalDtype(decode_labels(body), ordered=value["ordered"])
    if kind == "period":
        return pd.PeriodDtype(body)
    if kind == "interval":
        return pd.IntervalDtype(decode_dtype(body[0]), closed=body[1])
    if kind == "string":
        return _string_dtype(*body)
    if kind == "arrow":
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body)))
        return pd.ArrowDtype(schema.field(0).type)
    if kind == "masked":
        return pd.api.types.pandas_dtype(body)
    raise ValueError(f"unknown dtype {kind!r}")


def _string_dtype(storage: str, missing: str) -> Any:
    if missing == "na":
        return pd.StringDtype(storage)
    try:
        return pd.StringDtype(storage, na_value=np.nan)
    except TypeError:  # before 2.3, pandas has no string dtype whose missing value is NaN
        return np.dtype(object)


def encode_freq(freq: Any, place: ErrorContext) -> Any:
    """The frequency of an index as JSON.

    Raises
    ------
    OutputNotParquetError
        For one that its name does not determine.
    """
    if freq is None:
        return None
    if type(freq) is pd.offsets.CustomBusinessDay and not freq.kwds.get("offset"):
        return {
            "n": freq.n,
            "normalize": freq.normalize,
            "mask": freq.kwds["weekmask"],
            "off": [str(day) for day in freq.kwds.get("holidays", ())],
        }
    try:
        if pd.tseries.frequencies.to_offset(freq.freqstr) == freq:
            return freq.freqstr
    except (ValueError, AttributeError):
        pass
    raise place.error(f"the frequency {freq!r}", "set index.freq = None before the end")


def decode_freq(value: Any) -> Any:
    """The frequency of `encode_freq`."""
    if not isinstance(value, dict):
        return value
    return pd.offsets.CustomBusinessDay(
        n=value["n"],
        normalize=value["normalize"],
        weekmask=value["mask"],
        holidays=[np.datetime64(day) for day in value["off"]],
    )


def encode_labels(index: Any, place: ErrorContext) -> Any:
    """An index of labels (column names, categories) as JSON, including its values."""
    try:
        names = [encode(name) for name in index.names]
    except NotEncodableError as error:
        raise json_error(place, list(index.names), error) from None
    if isinstance(index, pd.MultiIndex):
        levels = [
            encode_labels(index.get_level_values(number).rename(None), place)
            for number in range(index.nlevels)
        ]
        return {"levels": levels, "names": names}
    found: dict[str, Any] = {"names": names} if index.name is not None else {}
    if type(index) is pd.RangeIndex:
        return found | {"range": [index.start, index.stop, index.step]}
    freq = getattr(index, "freq", None)
    if freq is not None and not isinstance(index, pd.PeriodIndex):
        found["freq"] = encode_freq(freq, place)
    found["dtype"] = encode_dtype(index.dtype, place)
    packed = _pack(index) if len(index) > COMPRESSED_FROM else None
    if packed is not None:
        return found | {"packed": packed}
    values = index.astype(object).tolist() if index.dtype.kind not in "mM" else list(index)
    try:
        return found | {"values": [encode(value) for value in values]}
    except NotEncodableError as error:
        raise json_error(place, values, error) from None


def _pack(index: Any) -> str | None:
    """Many labels of a plain type, compressed; None for other types."""
    if index.dtype.kind not in "iufb" and not _all_text(index):
        return None
    try:
        array = pa.array(index.to_numpy(), from_pandas=False)
    except (pa.ArrowException, UnicodeError):
        return None
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([array], names=[""])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode()


def _all_text(index: Any) -> bool:
    return set(map(type, index.astype(object))) == {str}


def decode_labels(value: Any) -> Any:
    """The index of `encode_labels`."""
    names = [decode(name) for name in value.get("names", [None])]
    if "levels" in value:
        levels = [decode_labels(level) for level in value["levels"]]
        return pd.MultiIndex.from_arrays(levels, names=names)
    if "range" in value:
        return pd.RangeIndex(*value["range"], name=names[0])
    dtype = decode_dtype(value["dtype"])
    if "packed" in value:
        reader = pa.ipc.open_stream(base64.b64decode(value["packed"]))
        values: Any = reader.read_all().column(0).to_numpy()
    else:
        values = [decode(item) for item in value["values"]]
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        # One by one: a list of tuples must not become two dimensions or a MultiIndex.
        flat = np.empty(len(values), dtype=object)
        for place, item in enumerate(values):
            flat[place] = item
        values = flat
    index: Any = pd.Index(values, dtype=dtype, name=names[0], tupleize_cols=False)
    if "freq" in value:
        index.freq = decode_freq(value["freq"])
    return index
