"""Columns of Python objects, as an Arrow type that other tools read if that is exact.

A recipe (JSON) says how to restore the objects::

    {"as": "int", "missing": "none"}     all int, and None
    {"as": "arrow"}                      what pyarrow's own `to_pylist` gives back
    {"as": "json"}                       typed JSON, one text a value
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from research_jobs.store.codec.base import ErrorContext, json_error
from research_jobs.store.codec.typed_json import (
    NotEncodableError,
    decode_zone,
    dumps,
    encode_zone,
    loads,
)

__all__ = ["decode_objects", "encode_objects", "exactly_equal"]

# Types whose Arrow form is always exact; others are tried and compared.
_EXACT: dict[type[Any], pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
}
_TRIED = (Decimal, date, datetime, time, timedelta, list, dict)
_RESTORED = frozenset((*_EXACT, *_TRIED, type(None)))  # what `to_pylist` gives back
NESTED = 20  # levels: readers of Parquet refuse deep types, and pyarrow follows a cycle for ever


def encode_objects(items: Sequence[Any], place: ErrorContext) -> tuple[Any, dict[str, Any]]:
    """Python objects as an Arrow array, and the recipe to restore them.

    Parameters
    ----------
    items : sequence
        A list or an object array.
    place : ErrorContext
        For errors.

    Returns
    -------
    array : pyarrow.Array or pyarrow.ChunkedArray
    recipe : dict

    Raises
    ------
    OutputNotParquetError
        For an object of a type that has no encoding.
    """
    types: set[type[Any]] = set(map(type, items))
    missing = _missing_kind(items, types)
    base = types - {_missing_type(missing)}
    if len(base) == 0:
        # Most columns without values would contain text: other tools join partitions by type.
        if missing is not None or not types:
            return pa.nulls(len(items), pa.string()), {"as": "str", "missing": missing}
    elif len(base) == 1:
        found = _encode_uniform(items, next(iter(base)), missing)
        if found is not None:
            return found
    return _encode_json(items, place)


def _missing_type(missing: str | None) -> type[Any] | None:
    if missing == "none":
        return type(None)
    return None if missing is None else type(_missing_constant(missing))


def _missing_kind(items: Sequence[Any], types: set[type[Any]]) -> str | None:
    """The only kind of missing value; None if there is none, or several."""
    names = {
        cls.__name__: cls for cls in types if cls.__name__ in ("NoneType", "NAType", "NaTType")
    }
    has_nan = float in types and len(types - set(names.values())) <= 2 and _all_nan(items)
    if len(names) + has_nan != 1:
        return None
    if has_nan:
        return "nan"
    return {"NoneType": "none", "NAType": "na", "NaTType": "nat"}[next(iter(names))]


def _all_nan(items: Sequence[Any]) -> bool:
    """Whether floats among other objects only mean 'missing'."""
    others = False
    for item in items:
        if type(item) is float:
            if not math.isnan(item):
                return False
        else:
            others = True
    return others  # a column of only NaN is one of floats


def _encode_uniform(
    items: Sequence[Any], cls: type[Any], missing: str | None
) -> tuple[Any, dict[str, Any]] | None:
    """Objects of one type, some of them missing; None if Arrow has no exact form."""
    try:
        if cls in _EXACT:
            # NaN stays NaN among floats; elsewhere it and pandas' own constants become null.
            foreign = missing in ("nan", "na", "nat")
            if cls is float and foreign:
                items, foreign = [item if type(item) is float else None for item in items], False
            array = pa.array(items, type=_EXACT[cls], from_pandas=foreign)
            return array, {"as": cls.__name__, "missing": missing}
        if missing is None and cls.__module__.split(".")[0] in ("numpy", "pandas"):
            return _encode_scalars(items, cls)
        if cls in _TRIED and missing in (None, "none", "nan"):
            if not all(map(_is_restored, items)):
                return None
            array = pa.array(items, from_pandas=missing == "nan")
            if "struct<>" in str(array.type):
                return None  # Parquet has no records without fields
            back = array.to_pylist()
            wanted = [None if _is_nan(item) else item for item in items] if missing else items
            if all(exactly_equal(a, b) for a, b in zip(back, wanted, strict=True)):
                return array, {"as": "arrow", "missing": missing}
    except (pa.ArrowException, OverflowError, ValueError, TypeError, NotEncodableError):
        pass
    return None


def _is_restored(value: Any, depth: int = NESTED) -> bool:
    """Whether a value has only types that Arrow gives back, and few levels."""
    if isinstance(value, (list, dict)):
        inner: Any = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_restored(item, depth - 1) for item in inner)
    return type(value) in _RESTORED


def _encode_scalars(items: Sequence[Any], cls: type[Any]) -> tuple[Any, dict[str, Any]] | None:
    """Numbers of numpy and times of pandas; None for their other scalars."""
    import numpy as np

    if issubclass(cls, np.generic):
        dtypes = {item.dtype.str for item in items}
        if len(dtypes) != 1 or items[0].dtype.kind not in "iufb" or items[0].dtype.itemsize > 8:
            return None
        dtype = items[0].dtype
        return pa.array(np.array(list(items), dtype=dtype)), {"as": "numpy", "dtype": dtype.str}
    import pandas as pd

    if cls is pd.Timestamp and not any(item.fold for item in items):
        units = {(item.unit, dumps_zone(item.tz)) for item in items}
        if len(units) != 1:
            return None
        unit, zone = next(iter(units))
        numbers = np.array([item.asm8.astype("int64") for item in items], dtype="int64")
        kind = pa.timestamp("ms" if unit == "s" else unit, "UTC" if zone != "null" else None)
        if unit == "s":
            return None
        return pa.array(numbers).cast(kind), {"as": "timestamp", "unit": unit, "zone": zone}
    return None


def dumps_zone(zone: Any) -> str:
    """A time zone as JSON text."""
    return json.dumps(encode_zone(zone))


def _decode_scalars(column: Any, recipe: dict[str, Any]) -> list[Any]:
    import numpy as np

    if recipe["as"] == "numpy":
        return list(column.to_numpy().astype(np.dtype(recipe["dtype"])))
    import pandas as pd

    zone = decode_zone(json.loads(recipe["zone"]))
    index = pd.DatetimeIndex(column.cast(pa.timestamp(recipe["unit"])).to_numpy())
    return list(index if zone is None else index.tz_localize("UTC").tz_convert(zone))


def _is_nan(value: Any) -> bool:
    return type(value) is float and math.isnan(value)


def _encode_json(items: Sequence[Any], place: ErrorContext) -> tuple[Any, dict[str, Any]]:
    texts = [_json_text(item, place) for item in items]
    return pa.array(texts, type=pa.string()), {"as": "json"}


def _json_text(item: Any, place: ErrorContext) -> str:
    try:
        return dumps(item)
    except NotEncodableError as error:
        raise json_error(place, item, error) from None


def exactly_equal(left: Any, right: Any) -> bool:
    """Whether two objects have the same value and the same types, recursively."""
    cls = type(left)
    if cls is not type(right):
        return False
    if cls in (list, tuple):
        return len(left) == len(right) and all(
            exactly_equal(a, b) for a, b in zip(left, right, strict=True)
        )
    if cls is dict:
        return list(left) == list(right) and all(
            exactly_equal(left[key], right[key]) for key in left
        )
    if cls is float:
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or (
            math.isnan(left) and math.isnan(right)
        )
    if cls is Decimal:
        return left.as_tuple() == right.as_tuple()
    if cls in (datetime, time):
        return (
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.fold == right.fold
            and type(left.tzinfo) is type(right.tzinfo)
            and str(left.tzinfo) == str(right.tzinfo)
        )
    if cls.__module__.split(".")[0] in ("pandas", "numpy"):
        return False  # their equality ignores units
    return bool(left == right)


def decode_objects(column: Any, recipe: dict[str, Any]) -> list[Any]:
    """The objects of `encode_objects`.

    Parameters
    ----------
    column : pyarrow.Array or pyarrow.ChunkedArray
    recipe : dict

    Returns
    -------
    list
    """
    if recipe["as"] == "json":
        return [loads(text) for text in column.to_pylist()]
    if recipe["as"] in ("numpy", "timestamp"):
        return _decode_scalars(column, recipe)
    values: list[Any] = column.to_pylist()
    missing = recipe.get("missing")
    if missing is None or missing == "none":
        return values
    constant = _missing_constant(missing)
    return [constant if value is None else value for value in values]


def _missing_constant(missing: str) -> Any:
    if missing == "nan":
        return float("nan")
    import pandas as pd

    return pd.NA if missing == "na" else pd.NaT
