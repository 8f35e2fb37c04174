"""Lists, dicts, scalars and numpy arrays as columns that other tools can read.

=====================================  =====================================================
value                                  columns
=====================================  =====================================================
scalar                                 ``value``, one row
list, tuple, set, frozenset            ``value``, a row for each item; a list of records with
                                       the same text keys: one column a key
dict with up to 100 text keys          one row, one column a key
any other dict                         ``key`` and ``value``, a row for each item
numpy array                            ``value`` in C order; a structured one: a column a field
=====================================  =====================================================

Values without an exact Arrow type are stored as typed JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from research_jobs.store.codec.base import Encoded, ErrorContext, json_error
from research_jobs.store.codec.columns import decode_objects, encode_objects
from research_jobs.store.codec.typed_json import (
    NotEncodableError,
    dumps,
    fields_of,
    loads,
    type_name,
)

__all__ = ["decode_plain", "encode_plain"]

ROW_KEYS = 100  # a dict with more keys than this becomes rows, not columns
_SEQUENCES: dict[str, type[Any]] = {cls.__name__: cls for cls in (list, tuple, set, frozenset)}


def encode_plain(value: Any, place: ErrorContext) -> Encoded:
    """Any value of Python itself.

    Raises
    ------
    OutputNotParquetError
    """
    cls = type(value)
    if cls in _SEQUENCES.values():
        return _encode_items(list(value), cls.__name__, place)
    if cls is dict:
        return _encode_dict(value, "dict", {}, place)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode_dict(fields_of(value), "dataclass", {"class": type_name(value)}, place)
    try:
        text = dumps(value)
    except NotEncodableError as error:
        raise json_error(place, value, error) from None
    # The footer has the exact value; the column is for other tools.
    return Encoded(type_name(value), {"json": text}, pa.table({"value": _readable(value, text)}))


def _readable(value: Any, text: str) -> Any:
    try:
        if value is None:
            return pa.nulls(1, pa.string())
        return pa.array([value.item() if type(value).__module__ == "numpy" else value])
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeError):
        return pa.array([text], pa.string())


def _encode_items(items: list[Any], kind: str, place: ErrorContext) -> Encoded:
    records = _records(items, place) if kind in ("list", "tuple") else None
    if records is not None:
        table, recipes = records
        return Encoded(kind, {"records": recipes}, table)
    array, recipe = _encode_all(items, place, "item")
    return Encoded(kind, {"items": recipe}, pa.table({"value": array}))


def _encode_all(items: Sequence[Any], place: ErrorContext, what: str) -> tuple[Any, dict[str, Any]]:
    """Like `encode_objects`, with the refused item's number in the error."""
    part = f"{place.part}, {what}" if place.part else what
    for number, item in enumerate(items):
        if type(item) in _SIMPLE:
            continue
        try:
            dumps(item)
        except NotEncodableError as error:
            raise json_error(place.at(f"{part} {number}"), item, error) from None
    return encode_objects(items, place.at(part))


_SIMPLE = frozenset((type(None), bool, int, float, str, bytes))


def _records(items: list[Any], place: ErrorContext) -> tuple[Any, list[Any]] | None:
    """A list of dicts with the same keys as a table; None for anything else."""
    if not items or set(map(type, items)) != {dict}:
        return None
    keys = list(items[0])
    if not _can_be_columns(keys) or any(list(item) != keys for item in items):
        return None
    arrays: list[Any] = []
    recipes: list[Any] = []
    for key in keys:
        array, recipe = _encode_all([item[key] for item in items], place.at(f"key {key!r}"), "item")
        arrays.append(array)
        recipes.append(recipe)
    return pa.Table.from_arrays(arrays, names=keys), recipes


def _can_be_columns(keys: Sequence[Any]) -> bool:
    if not 0 < len(keys) <= ROW_KEYS or any(type(key) is not str or not key for key in keys):
        return False
    try:
        return all(len(key.encode()) <= 1000 for key in keys)
    except UnicodeEncodeError:
        return False


def _encode_dict(
    value: Mapping[Any, Any], kind: str, detail: dict[str, Any], place: ErrorContext
) -> Encoded:
    keys = list(value)
    if _can_be_columns(keys):
        arrays: list[Any] = []
        recipes: list[Any] = []
        for key in keys:
            array, recipe = encode_objects([value[key]], place.at(f"key {key!r}"))
            arrays.append(array)
            recipes.append(recipe)
        return Encoded(kind, detail | {"row": recipes}, pa.Table.from_arrays(arrays, names=keys))
    key_array, key_recipe = _encode_all(keys, place, "key")
    array, recipe = _encode_all(list(value.values()), place, "value of key")
    table = pa.table({"key": key_array, "value": array})
    return Encoded(kind, detail | {"key": key_recipe, "value": recipe}, table)


def decode_plain(table: Any, kind: str, detail: Mapping[str, Any]) -> Any:
    """The value of `encode_plain`."""
    if "json" in detail:
        return loads(detail["json"])
    if "records" in detail:
        names = table.schema.names
        columns = [
            decode_objects(table.column(place), recipe)
            for place, recipe in enumerate(detail["records"])
        ]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return rows if kind == "list" else tuple(rows)
    if "row" in detail:
        return {
            name: decode_objects(table.column(place), recipe)[0]
            for place, (name, recipe) in enumerate(
                zip(table.schema.names, detail["row"], strict=True)
            )
        }
    if "key" in detail:
        keys = decode_objects(table.column("key"), detail["key"])
        values = decode_objects(table.column("value"), detail["value"])
        return dict(zip(keys, values, strict=True))
    return _SEQUENCES[kind](decode_objects(table.column("value"), detail["items"]))
