"""Python values as JSON with types, and back: exact, and without pickle.

It is plain JSON if JSON has the type: ``null``, booleans, text, integers, finite floats, lists, and
dicts whose keys are text. Everything else is an object with one key that begins with ``$``::

    {"$tuple": [1, 2]}   {"$float": "nan"}   {"$date": "2018-11-01"}   {"$dict": [[1, "a"]]}

Only the types in this module exist: a file cannot ask for a class by name.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any

__all__ = ["NotEncodableError", "decode", "dumps", "encode", "fields_of", "loads", "type_name"]

SAFE_INT = (
    2**63
)  # larger ones are written in hexadecimal: JSON readers and Python limit the number of digits
DEPTH = 200


class NotEncodableError(Exception):
    """A value inside has a type without an encoding.

    Parameters
    ----------
    value : object
        The innermost offending value.
    advice : str
        A way out.
    """

    def __init__(self, value: Any, advice: str = "") -> None:
        super().__init__(type_name(value))
        self.value_type = type_name(value)
        self.advice = advice


def type_name(value: Any) -> str:
    """A type's familiar name: ``int``, ``pandas.DataFrame``, ``helpers.Trade``."""
    cls: type[Any] = type(value)
    module = cls.__module__.split(".")[0] if _is_known(cls) else cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def _is_known(cls: type[Any]) -> bool:
    return cls.__module__.split(".")[0] in ("pandas", "polars", "pyarrow", "numpy")


def dumps(value: Any) -> str:
    """A value as one line of typed JSON."""
    return json.dumps(encode(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """The value of a text from `dumps`."""
    return decode(json.loads(text))


def encode(value: Any, depth: int = 0) -> Any:
    """A value in a form for `json.dumps`.

    Raises
    ------
    NotEncodableError
        For any other type, including subclasses: they would not be restored.
    """
    if depth > DEPTH:
        raise NotEncodableError(value, f"it is nested more than {DEPTH} deep, or contains itself")
    cls = type(value)
    if value is None or cls is bool or cls is str:
        return value
    if cls is int:
        return value if -SAFE_INT <= value < SAFE_INT else {"$int": hex(value)}
    if cls is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if cls is list:
        return [encode(item, depth + 1) for item in value]
    if cls is dict:
        return _encode_dict(value, depth)
    encoder = _ENCODERS.get(cls)
    if encoder is not None:
        return encoder(value, depth)
    if isinstance(value, Enum):
        raise NotEncodableError(value, "keep its .name or its .value")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode_dict(fields_of(value), depth)
    return _encode_foreign(value)


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass's instance that are set."""
    names = (item.name for item in dataclasses.fields(value))
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _encode_dict(value: dict[Any, Any], depth: int) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: encode(item, depth + 1) for key, item in value.items()}
    pairs = [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]
    return {"$dict": pairs}


def _many(tag: str) -> Callable[[Any, int], Any]:
    return lambda value, depth: {tag: [encode(item, depth + 1) for item in value]}


def _encode_datetime(value: datetime, _depth: int) -> Any:
    text = value.replace(tzinfo=None, fold=0).isoformat()
    zone = encode_zone(value.tzinfo)
    if zone is not None and "pytz" in zone:
        zone["dst"] = bool(value.dst())  # pytz ignores the fold
    body = [text, zone, value.fold]
    if _decode_datetime(body).utcoffset() != value.utcoffset():
        raise NotEncodableError(value, "its zone of pytz was not set with .localize()")
    return {"$datetime": body}


def _encode_time(value: time, _depth: int) -> Any:
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return {"$time": [text, encode_zone(value.tzinfo), value.fold]}


def _complex_parts(value: complex, _depth: int) -> Any:
    return {"$complex": [encode(value.real), encode(value.imag)]}


_ENCODERS: dict[type[Any], Callable[[Any, int], Any]] = {
    tuple: _many("$tuple"),
    set: _many("$set"),
    frozenset: _many("$frozenset"),
    bytes: lambda value, _: {"$bytes": base64.b64encode(value).decode()},
    bytearray: lambda value, _: {"$bytearray": base64.b64encode(value).decode()},
    complex: _complex_parts,
    Decimal: lambda value, _: {"$decimal": str(value)},
    date: lambda value, _: {"$date": value.isoformat()},
    time: _encode_time,
    datetime: _encode_datetime,
    timedelta: lambda value, _: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    range: lambda value, _: {"$range": [value.start, value.stop, value.step]},
    slice: lambda value, depth: {
        "$slice": [encode(part, depth + 1) for part in (value.start, value.stop, value.step)]
    },
}


def encode_zone(zone: tzinfo | None) -> Any:
    """A time zone by name or offset; a zone with neither is refused."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        named = zone.tzname(None)
        plain = named == timezone(offset).tzname(None)
        parts = [offset.days, offset.seconds, offset.microseconds]
        return {"offset": parts} if plain else {"offset": parts, "name": named}
    module = type(zone).__module__.split(".")[0]
    key = getattr(zone, "key", None)
    if module == "zoneinfo" and isinstance(key, str):
        return {"zoneinfo": key}
    key = getattr(zone, "zone", None)
    if module == "pytz" and isinstance(key, str):
        return {"pytz": key}
    raise NotEncodableError(zone, "use a zone of zoneinfo")


def decode_zone(value: Any) -> tzinfo | None:
    """The zone of `encode_zone`; a pytz zone is its base, to be applied by ``localize``."""
    if value is None:
        return None
    if "zoneinfo" in value:
        from zoneinfo import ZoneInfo

        return ZoneInfo(value["zoneinfo"])
    if "pytz" in value:
        import importlib

        return importlib.import_module("pytz").timezone(value["pytz"])
    days, seconds, microseconds = value["offset"]
    offset = timedelta(days, seconds, microseconds)
    if "name" in value:
        return timezone(offset, value["name"])
    return timezone(offset) if offset else timezone.utc


def _encode_foreign(value: Any) -> Any:
    """Scalars and arrays of numpy and pandas, which exist only if they were imported."""
    module = type(value).__module__.split(".")[0]
    if module == "numpy":
        return _encode_numpy(value)
    if module == "pandas":
        return _encode_pandas(value)
    advice = ""
    for base in (dict, list, tuple, set, str, int, float):
        if isinstance(value, base):
            advice = f"convert it with {base.__name__}(...)"
            break
    raise NotEncodableError(value, advice)


def _encode_numpy(value: Any) -> Any:
    import numpy as np

    if type(value) is np.ndarray and not value.dtype.hasobject and value.dtype.names is None:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"$ndarray": [value.dtype.str, list(value.shape), data]}
    if type(value) is np.ndarray and value.dtype.kind == "O":
        return {"$objects": [list(value.shape), [encode(item) for item in value.ravel().tolist()]]}
    if isinstance(value, np.generic) and value.dtype.names is None and value.dtype.kind != "O":
        return {"$numpy": [value.dtype.str, base64.b64encode(value.tobytes()).decode()]}
    raise NotEncodableError(value, "make it a separate output")


def _encode_pandas(value: Any) -> Any:
    import pandas as pd

    if value is pd.NaT:
        return {"$nat": 0}
    if value is pd.NA:
        return {"$na": 0}
    if type(value) is pd.Timestamp:
        number = int(value.value) if value.unit == "ns" else int(value.asm8.astype("int64"))
        return {"$timestamp": [number, value.unit, encode_zone(value.tz), value.fold]}
    if type(value) is pd.Timedelta:
        return {"$pandas_timedelta": [int(value.asm8.astype("int64")), value.unit]}
    if type(value) is pd.Period:
        return {"$period": [value.ordinal, value.freqstr]}
    if type(value) is pd.Interval:
        return {"$interval": [encode(value.left), encode(value.right), value.closed]}
    raise NotEncodableError(value, "make it a separate output")


def decode(value: Any) -> Any:
    """Decode the result of `encode`.

    Raises
    ------
    ValueError
        When it is not a result of `encode`.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, body),) = value.items()
        if tag.startswith("$"):
            decoder = _DECODERS.get(tag)
            if decoder is None:
                raise ValueError(f"unknown type tag {tag!r}")
            return decoder(body)
    return {key: decode(item) for key, item in value.items()}


def _decode_datetime(body: Any) -> datetime:
    text, zone, fold = body
    value, found = datetime.fromisoformat(text), decode_zone(zone)
    if zone is not None and "pytz" in zone:
        value = found.localize(value, is_dst=zone.get("dst", not fold))  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess, reportUnknownVariableType]
    else:
        value = value.replace(tzinfo=found)
    return value.replace(fold=fold)  # pyright: ignore[reportUnknownVariableType]


def _decode_time(body: Any) -> time:
    text, zone, fold = body
    return time.fromisoformat(text).replace(tzinfo=decode_zone(zone), fold=fold)


def _decode_array(body: Any) -> Any:
    import numpy as np

    dtype, shape, data = body
    raw = bytearray(base64.b64decode(data))  # a bytearray, so that the array can be written to
    return np.ndarray(tuple(shape), np.dtype(dtype), raw)


def _decode_objects(body: Any) -> Any:
    import numpy as np

    shape, items = body
    flat = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        flat[place] = decode(item)
    return flat.reshape(shape)


def _decode_numpy(body: Any) -> Any:
    import numpy as np

    dtype, data = body
    return np.ndarray((), np.dtype(dtype), base64.b64decode(data))[()]


def _decode_timestamp(body: Any) -> Any:
    import pandas as pd

    number, unit, zone, fold = body
    stamp = pd.Timestamp(number, unit=unit).as_unit(unit)
    tz = decode_zone(zone)
    if tz is None:
        return stamp.replace(fold=fold) if fold else stamp
    return stamp.tz_localize("UTC").tz_convert(tz)


def _decode_timedelta(body: Any) -> Any:
    import pandas as pd

    number, unit = body
    return pd.Timedelta(number, unit=unit).as_unit(unit)


def _decode_period(body: Any) -> Any:
    import pandas as pd

    ordinal, freq = body
    return pd.Period(ordinal=ordinal, freq=freq)


def _decode_interval(body: Any) -> Any:
    import pandas as pd

    left, right, closed = body
    return pd.Interval(decode(left), decode(right), closed=closed)


def _pandas_constant(name: str) -> Callable[[Any], Any]:
    def get(_body: Any) -> Any:
        import pandas as pd

        return getattr(pd, name)

    return get


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda body: int(body, 16),
    "$float": float,
    "$dict": lambda body: {decode(key): decode(item) for key, item in body},
    "$tuple": lambda body: tuple(decode(item) for item in body),
    "$set": lambda body: {decode(item) for item in body},
    "$frozenset": lambda body: frozenset(decode(item) for item in body),
    "$bytes": base64.b64decode,
    "$bytearray": lambda body: bytearray(base64.b64decode(body)),
    "$complex": lambda body: complex(decode(body[0]), decode(body[1])),
    "$decimal": Decimal,
    "$date": date.fromisoformat,
    "$time": _decode_time,
    "$datetime": _decode_datetime,
    "$timedelta": lambda body: timedelta(*body),
    "$range": lambda body: range(*body),
    "$slice": lambda body: slice(*(decode(part) for part in body)),
    "$numpy": _decode_numpy,
    "$ndarray": _decode_array,
    "$objects": _decode_objects,
    "$nat": _pandas_constant("NaT"),
    "$na": _pandas_constant("NA"),
    "$timestamp": _decode_timestamp,
    "$pandas_timedelta": _decode_timedelta,
    "$period": _decode_period,
    "$interval": _decode_interval,
}
