"""numpy arrays and Parquet: one column in C order, or one for each field of a structured array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from research_jobs.store.codec.base import Encoded, ErrorContext
from research_jobs.store.codec.columns import decode_objects, encode_objects
from research_jobs.store.codec.registry import Codec
from research_jobs.store.codec.source import Source, read_table

__all__ = ["CODEC"]

KIND = "numpy.ndarray"


def _encode(value: Any, place: ErrorContext) -> Encoded | None:
    """An array; None for any other type of numpy (scalars are `plain`'s).

    Raises
    ------
    OutputNotParquetError
    """
    if type(value) is not np.ndarray:
        if isinstance(value, np.ndarray):
            raise place.error(f"type numpy.{type(value).__name__}", "convert it with np.array(...)")
        return None
    flat = np.ascontiguousarray(value).reshape(-1)
    detail: dict[str, Any] = {"shape": list(value.shape), "dtype": _describe(value.dtype)}
    fields = value.dtype.names
    if fields is None:
        array, how = _encode_flat(flat, place)
        return Encoded(KIND, detail | {"how": how}, pa.table({"value": array}))
    arrays: list[Any] = []
    hows: list[Any] = []
    for name in fields:
        array, how = _encode_flat(flat[name], place.at(f"field {name!r}"))
        arrays.append(array)
        hows.append(how)
    if not fields:
        arrays, fields = [pa.nulls(len(flat), pa.string())], ("value",)
    table = pa.Table.from_arrays(arrays, names=list(fields))
    return Encoded(KIND, detail | {"fields": hows}, table)


def _describe(dtype: Any) -> Any:
    """A dtype as JSON: its text, or the parts of a structured one."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    parts = [
        [name, _describe(field), offset, *title]
        for name, (field, offset, *title) in ((name, dtype.fields[name]) for name in dtype.names)
    ]
    return {"fields": parts, "size": dtype.itemsize, "aligned": bool(dtype.isalignedstruct)}


def _dtype(value: Any) -> Any:
    if isinstance(value, str):
        return np.dtype(value)
    if "base" in value:
        return np.dtype((_dtype(value["base"]), tuple(value["shape"])))
    names, dtypes, offsets = ([part[place] for part in value["fields"]] for place in range(3))
    return np.dtype(
        {
            "names": names,
            "formats": [_dtype(item) for item in dtypes],
            "offsets": offsets,
            "itemsize": value["size"],
            "titles": [part[3] if len(part) > 3 else None for part in value["fields"]],
        },
        align=value["aligned"],
    )


def _encode_flat(flat: Any, place: ErrorContext) -> tuple[Any, Any]:
    """One column and how to read it: ``plain``, ``raw`` bytes, or objects."""
    dtype = flat.dtype
    if flat.ndim > 1 or dtype.names is not None:
        return _encode_raw(flat, place)
    kind = dtype.kind
    if kind == "O":
        array, recipe = encode_objects(flat, place)
        return array, {"objects": recipe}
    if kind in "iufb" and dtype.itemsize <= 8:
        return pa.array(flat.astype(dtype.newbyteorder("="), copy=False)), "plain"
    if kind in "mM" and np.datetime_data(dtype) in ((u, 1) for u in ("s", "ms", "us", "ns")):
        native = flat.astype(dtype.newbyteorder("="), copy=False)
        array = pa.array(native)
        # Parquet has no seconds: they become milliseconds, for which some are out of range.
        return (array, "plain") if _fits(native) else _encode_raw(flat, place)
    if kind == "U":
        try:
            return pa.array(flat.tolist(), pa.string()), "plain"
        except UnicodeError:
            return _encode_raw(flat, place)
    if kind == "S":
        return pa.array(flat.tolist(), pa.binary()), "plain"
    return _encode_raw(flat, place)


def _fits(native: Any) -> bool:
    unit, _ = np.datetime_data(native.dtype)
    if unit != "s" or not len(native):
        return True
    numbers = native.view("int64")[~np.isnat(native)]
    return not len(numbers) or int(max(abs(int(numbers.min())), abs(int(numbers.max())))) < 2**53


def _encode_raw(flat: Any, place: ErrorContext) -> tuple[Any, Any]:
    """The bytes of each item, for types that Arrow lacks (complex, long double, units...)."""
    if flat.dtype.hasobject:
        advice = "make separate outputs of the fields with objects"
        if flat.dtype.names is None and flat.dtype.subdtype is None:
            advice = "convert it with .astype(object)"
        raise place.error(f"dtype {flat.dtype}", advice)
    rows = len(flat)
    data = np.ascontiguousarray(flat).tobytes()
    width = len(data) // rows if rows else flat.dtype.itemsize
    if width == 0:
        return pa.nulls(rows, pa.string()), "empty"
    used = np.tile(_used_bytes(flat.dtype), width // flat.dtype.itemsize)
    if not used.all():
        # What is between the values is whatever memory held before: another run's, or a secret.
        data = np.where(used, np.frombuffer(data, "u1").reshape(rows, width), 0).astype("u1")
    items = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(data)])
    return items, "raw"


def _used_bytes(dtype: Any) -> Any:
    """Which bytes of an item belong to its value; the others only fill it up."""
    if dtype.subdtype is not None:
        base = _used_bytes(dtype.subdtype[0])
        return np.tile(base, dtype.itemsize // len(base))
    used = np.full(dtype.itemsize, dtype.names is None)
    for field, offset, *_ in (dtype.fields or {}).values():
        used[offset : offset + field.itemsize] |= _used_bytes(field)
    if dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        # x86's extended precision has ten bytes, in 12 or 16.
        parts = used.reshape(-1, np.dtype("g").itemsize)
        parts[:, 10:] = False
        return (parts if dtype.isnative else parts[:, ::-1]).ravel()
    return used


def _decode(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    table, detail = read_table(source, columns, filters), source.header.detail
    dtype = _dtype(detail["dtype"])
    shape = tuple(detail["shape"])
    if "fields" not in detail:
        return _decode_flat(table.column(0), detail["how"], dtype).reshape(shape)
    flat = np.zeros(table.num_rows, dtype=dtype)
    for place, (name, how) in enumerate(zip(dtype.names, detail["fields"], strict=True)):
        flat[name] = _decode_flat(table.column(place), how, dtype[name])
    return flat.reshape(shape)


def _decode_flat(column: Any, how: Any, dtype: Any) -> Any:
    rows = len(column)
    if how == "empty":
        return np.zeros(rows, dtype=dtype)
    if how == "raw":
        merged = column.combine_chunks()
        base, shape = dtype.subdtype or (dtype, ())
        width = merged.type.byte_width
        data = merged.buffers()[1]
        start = merged.offset * width
        raw = bytearray(memoryview(data)[start : start + rows * width]) if rows else bytearray()
        return np.frombuffer(raw, dtype=base).reshape((rows, *shape))
    if how == "plain":
        if dtype.kind in "US":
            return np.array(column.to_pylist(), dtype=dtype)
        if dtype.kind in "mM":
            column = column.cast(pa.from_numpy_dtype(dtype.newbyteorder("=")))
        values = column.to_numpy()
        return values.astype(dtype) if values.dtype.str != dtype.str else _writable(values)
    items = decode_objects(column, how["objects"])
    flat = np.empty(rows, dtype=object)
    for place, item in enumerate(items):
        flat[place] = item
    return flat


def _writable(values: Any) -> Any:
    return values if values.flags.writeable else values.copy()


CODEC = Codec(frozenset((KIND,)), _encode, _decode, tables=False)
