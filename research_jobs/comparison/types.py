"""The type in which two columns are compared, and columns converted to it."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow as pa

pc: Any = importlib.import_module("pyarrow.compute")  # its functions are created at run time
t: Any = pa.types

__all__ = ["common_type", "convert", "is_numeric", "plain_text", "type_text"]

_UNITS = ("s", "ms", "us", "ns")
_INT_DIGITS = 20  # of a 64-bit integer, signed or not


def common_type(left: Any, right: Any) -> Any:
    """The type in which values of both types are compared; None if they cannot be.

    Nested columns are compared as canonical text (`plain_text`).
    """
    left, right = _inner(left), _inner(right)
    if t.is_null(left) or t.is_null(right):
        return _widest(right if t.is_null(left) else left)
    if t.is_nested(left) or t.is_nested(right):
        same = t.is_nested(left) and t.is_nested(right) and t.is_struct(left) == t.is_struct(right)
        return pa.large_string() if same else None
    for family in (_numbers, _texts, _moments):
        found = family(left, right)
        if found is not None:
            return found
    return left if left == right else None


def _inner(kind: Any) -> Any:
    """A type without dictionary encoding and without its extension."""
    while True:
        if t.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def _widest(kind: Any) -> Any:
    return kind if t.is_null(kind) else common_type(kind, kind)


def _numbers(left: Any, right: Any) -> Any:
    both = (left, right)
    if t.is_boolean(left) and t.is_boolean(right):
        return pa.bool_()
    if not all(t.is_boolean(kind) or is_numeric(kind) for kind in both):
        return None
    if any(map(t.is_floating, both)):
        return pa.float64()
    if any(map(t.is_decimal, both)):
        scale = max(kind.scale if t.is_decimal(kind) else 0 for kind in both)
        digits = max(
            kind.precision - kind.scale if t.is_decimal(kind) else _INT_DIGITS for kind in both
        )
        if digits + scale <= 38:
            return pa.decimal128(digits + scale, scale)
        return pa.decimal256(min(digits + scale, 76), scale)
    if pa.uint64() not in both:
        return pa.int64()
    unsigned = all(map(t.is_unsigned_integer, both))
    return pa.uint64() if unsigned else pa.decimal128(_INT_DIGITS)


def _texts(left: Any, right: Any) -> Any:
    both = (left, right)
    if all(t.is_string(k) or t.is_large_string(k) or t.is_string_view(k) for k in both):
        return pa.large_string()
    if all(
        t.is_binary(k) or t.is_large_binary(k) or t.is_fixed_size_binary(k) or t.is_binary_view(k)
        for k in both
    ):
        return pa.large_binary()
    return None


def _moments(left: Any, right: Any) -> Any:
    both = (left, right)
    if all(map(t.is_date, both)):
        return left if left == right else pa.timestamp("ms")
    if all(t.is_date(kind) or t.is_timestamp(kind) for kind in both):
        zones = [kind.tz for kind in both if t.is_timestamp(kind)]
        if len(zones) < 2 and zones[0] is not None:
            return None  # a day is no moment
        if len(zones) == 2 and (zones[0] is None) != (zones[1] is None):
            return None
        return pa.timestamp(_finest(both), "UTC" if zones[0] is not None else None)
    if all(map(t.is_duration, both)):
        return pa.duration(_finest(both))
    if all(map(t.is_time, both)):
        unit = _finest(both)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finest(kinds: Any) -> str:
    units = [getattr(kind, "unit", "ms" if t.is_date64(kind) else "s") for kind in kinds]
    return max(units, key=_UNITS.index)


def is_numeric(kind: Any) -> bool:
    """Whether a type has numbers, so that a change has a size."""
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind))


def convert(column: Any, kind: Any) -> Any:
    """An array in the type that `common_type` chose.

    Raises
    ------
    pyarrow.ArrowException
        When a value does not fit, such as a time of the year 9999 in nanoseconds.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    while isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if t.is_dictionary(column.type):
        # Each distinct value is converted once.
        values = convert(column.dictionary, kind)
        if t.is_null(values.type):
            return pa.nulls(len(column), kind)
        return pa.DictionaryArray.from_arrays(column.indices, values, safe=False)
    if column.type == kind:
        return column
    if t.is_nested(column.type):
        texts = [None if item is None else plain_text(item) for item in column.to_pylist()]
        return pa.array(texts, pa.large_string())
    if t.is_float16(column.type):
        column = column.cast(pa.float32())
    if t.is_boolean(column.type) and t.is_decimal(kind):
        column = column.cast(pa.int64())
    if t.is_timestamp(column.type) and t.is_timestamp(kind):
        column = column.cast(pa.timestamp(column.type.unit, kind.tz))
    # Integers beyond 2**53 lose digits as floats, and the other side is of floats anyway.
    return column.cast(kind, safe=not (t.is_integer(column.type) and t.is_floating(kind)))


def plain_text(value: Any) -> str:
    """A nested value as text that is the same for equal values."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {plain_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(plain_text, value))}]"
    if isinstance(value, float):
        return repr(value + 0.0)  # -0.0 is 0.0
    return repr(value)


def type_text(kind: Any) -> str:
    """An Arrow type's familiar name: ``float64`` rather than ``double``."""
    if isinstance(kind, pa.BaseExtensionType):
        return str(getattr(kind, "extension_name", kind))
    if t.is_dictionary(kind):
        return f"categories of {type_text(kind.value_type)}"
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return names.get(str(kind), str(kind).replace("large_", ""))
