"""A converted value as the notebook's own object, in the fresh process.

Standard library only. pandas and numpy are used only if the notebook has imported them, or if a
value is a Timestamp.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import os
import sys
from collections.abc import Mapping
from typing import Any, cast

from research_jobs.errors import ParameterError, did_you_mean
from research_jobs.notebook.converting import (
    CONVERTERS,
    EXPECTED,
    Unfit,
    convert_list,
    read_text,
    short,
)

__all__ = ["restore_parameter"]


def restore_parameter(
    value: Any,
    type: str,  # noqa: A002 - the contract's name
    default: Any,
    annotation: Any = None,
    *,
    name: str = "parameter",
) -> Any:
    """Convert a JSON value to the notebook's own type.

    Parameters
    ----------
    value : JSON value
        From `convert_parameters`.
    type : str
        `Parameter.type`.
    default : object
        What the cell assigned. Its class decides if the text gives no type: a tuple, a set, a
        ``Path``, a ``Decimal``, a member of an imported ``Enum``.
    annotation : object, optional
        The evaluated annotation (``module.__annotations__``), for an ``Enum`` whose default is
        ``None``.
    name : str
        The parameter's, for messages.

    Returns
    -------
    object

    Raises
    ------
    ParameterError
        When an imported ``Enum`` has no such member, or the value of a ``computed`` parameter is
        not of its default's class.
    """
    if value is None:
        return None
    if type == "computed":
        try:
            return _fitted(value, default)
        except Unfit as unfit:
            raise _misfit(name, value, default, str(unfit)) from None
    if type.startswith("list"):
        element = type[5:-1] or "any"
        items: list[Any] = [_restore_one(item, element, None) for item in value]
        if isinstance(default, (tuple, set, frozenset)):
            kind = cast("Any", default).__class__
            # a named tuple takes its fields one by one
            return kind(*items) if hasattr(kind, "_fields") else kind(items)
        return items
    if type == "enum" and not isinstance(default, enum.Enum):
        enum_class = _enum_class(annotation)
        return _member(enum_class, value) if enum_class is not None else value
    return _restore_one(value, type, default)


def _restore_one(value: Any, type: str, default: Any) -> Any:  # noqa: A002 - one return a type
    if type == "date" and isinstance(value, str):
        return dt.date.fromisoformat(value)
    if type == "datetime" and isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    if type == "timestamp":
        import pandas as pd

        return pd.Timestamp(value)
    if isinstance(default, enum.Enum):
        return _member(default.__class__, value)
    if type == "float" and isinstance(value, int):
        return float(value)
    if isinstance(value, str):
        return _like(value, default)
    if isinstance(default, decimal.Decimal) and isinstance(value, (int, float)):
        return decimal.Decimal(str(value))
    if isinstance(default, (tuple, set, frozenset)) and isinstance(value, list):
        kind = cast("Any", default).__class__
        return kind(value)
    return value


def _like(text: str, default: Any) -> Any:
    """Convert text to the class of the default, if that is a common one.

    Text that does not convert stays text: the annotation (``date | str``) may allow it.
    """
    try:
        if isinstance(default, (os.PathLike, decimal.Decimal, dt.date)):
            return _fitted(text, default)
    except Unfit:
        pass
    return text


def _fitted(value: Any, default: Any) -> Any:  # noqa: C901 - one branch a class
    """Convert a value to the class of a computed default.

    Raises
    ------
    Unfit
        When it cannot be.
    """
    cls = default.__class__
    if default is None:
        return read_text(value) if isinstance(value, str) else value
    if isinstance(default, enum.Enum):
        return _member(cls, value)
    sample = default
    if cls.__module__ == "numpy" and getattr(default, "shape", None) == ():
        sample = default.item()  # a scalar: np.float64, np.int64, np.bool_
    for plain in (bool, int, float, str):
        if isinstance(sample, plain):
            converted = CONVERTERS[plain.__name__](value)
            return converted if cls is plain else _made(cls, converted)
    if isinstance(default, (dt.date, dt.time, dt.timedelta)):
        return _temporal(value, default)
    if isinstance(default, decimal.Decimal):
        number = str(value) if isinstance(value, (int, float)) else value
        return _made(cls, None if isinstance(value, bool) else number)
    if isinstance(default, os.PathLike):
        return _made(cls, value if isinstance(value, str) else None)
    if isinstance(default, Mapping):
        return CONVERTERS["dict"](value)
    if isinstance(default, (list, tuple, set, frozenset, range)):
        return _items(value, cls)
    if "numpy" in sys.modules and isinstance(default, sys.modules["numpy"].ndarray):
        try:
            return sys.modules["numpy"].asarray(convert_list(value), dtype=default.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise Unfit(f"{error}.") from None
    raise Unfit("Build it below the parameters cell, from a parameter of a plain type.")


def _temporal(value: Any, default: Any) -> Any:
    cls = default.__class__
    if isinstance(default, dt.datetime):
        text = CONVERTERS["datetime" if cls is dt.datetime else "timestamp"](value)
        return dt.datetime.fromisoformat(text) if cls is dt.datetime else _made(cls, text)
    if isinstance(default, dt.date):
        return dt.date.fromisoformat(CONVERTERS["date"](value))
    if isinstance(default, dt.time):
        try:
            return dt.time.fromisoformat(value)
        except (TypeError, ValueError):
            raise Unfit("Example: 09:30.") from None
    if cls is dt.timedelta or not isinstance(value, str) or value.strip().isdigit():
        # 5 of what? pandas' own class takes text with a unit
        raise Unfit("Build it below the parameters cell, from a parameter that is a number.")
    return _made(cls, value)


def _items(value: Any, cls: Any) -> Any:
    items = convert_list(value)
    if hasattr(cls, "_fields"):  # a named tuple takes its fields one by one
        try:
            return cls(*items)
        except TypeError:
            raise Unfit(f"Its fields are {', '.join(cls._fields)}.") from None
    return items if cls in (list, range) else _made(cls, items)


def _made(cls: Any, value: Any) -> Any:
    """Call a class with a value; if it raises anything, the value is unfit."""
    if value is None:
        raise Unfit
    try:
        return cls(value)
    except Exception:  # noqa: BLE001 - any class of any package
        raise Unfit from None


def _misfit(name: str, value: Any, default: Any, hint: str) -> ParameterError:
    cls = default.__class__
    expected = EXPECTED.get(cls.__name__)
    if expected is None:
        article = "an" if cls.__name__[:1] in "AEIOUaeiou" else "a"
        expected = f"{article} {cls.__qualname__}, as the notebook's default is"
    else:
        expected = f"{expected}, as the notebook's default {short(default)} is"
    return ParameterError(
        f"{name} = {short(value)} is not {expected}",
        hint=hint or f"Declare its type if another is meant: {name}: ... = ...",
    )


def _enum_class(annotation: Any) -> type[enum.Enum] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, enum.Enum):
            return candidate
    return None


def _member(cls: type[enum.Enum], value: Any) -> enum.Enum:
    name = value.rpartition(".")[2] if isinstance(value, str) else ""
    if name in cls.__members__:
        return cls.__members__[name]
    for member in cls:
        if member.value == value or str(member.value) == value:
            return member
    raise ParameterError(
        f"{short(value)} is not a member of {cls.__name__}",
        hint=did_you_mean(str(value), cls.__members__, label="Members"),
    )
