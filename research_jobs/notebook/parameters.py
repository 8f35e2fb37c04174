"""A parameter's value: checked and converted before any process starts, restored inside it.

Between the two it is a JSON value: dates as ISO text, Enum members by name.

Standard library only: the fresh process imports this too. pandas is imported only where a value
is a Timestamp.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from research_jobs.errors import ParameterError, SourceLocation, did_you_mean
from research_jobs.notebook.interface import Parameter
from research_jobs.project import notebook_name

__all__ = ["convert_parameters", "missing_parameters", "restore_parameter"]


class _Unfit(ValueError):  # noqa: N818 - it never leaves this module
    """A value that is not of the type; the text is a hint, or empty."""


def convert_parameters(
    parameters: Sequence[Parameter],
    values: Mapping[str, Any],
    *,
    notebook: str,
    where: str | None = None,
) -> dict[str, Any]:
    """Check values and convert them to their parameters' types.

    Parameters
    ----------
    parameters : sequence of Parameter
        What the notebook declares.
    values : mapping
        By name: text (from a command line), YAML or JSON values, or Python objects
        (``dt.date``, Enum members, numpy scalars).
    notebook : str
        Its name, for messages.
    where : str, optional
        Where the values come from, put in front of the message:
        ``"notebooks/manifest.yaml:12:18"``.

    Returns
    -------
    dict
        JSON values of exactly the names given.

    Raises
    ------
    ParameterError
        For the first name that is not declared (with a suggestion) or value that does not
        convert (with what would).
    """
    declared = {parameter.name: parameter for parameter in parameters}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        parameter = declared.get(name)
        if parameter is None:
            raise _unknown(name, declared, notebook, where)
        try:
            converted[name] = _convert(parameter, value)
        except _Unfit as error:
            raise _unfit(parameter, value, notebook, where, str(error)) from None
    return converted


def missing_parameters(
    parameters: Sequence[Parameter], given: Mapping[str, Any]
) -> tuple[str, ...]:
    """Parameters without any default (``lookback: int``) that were given no value."""
    return tuple(p.name for p in parameters if not p.default_source and p.name not in given)


def _unknown(
    name: str, declared: Mapping[str, Parameter], notebook: str, where: str | None
) -> ParameterError:
    path = f"notebooks/{notebook_name(notebook)}.py"
    if not declared:
        return ParameterError(
            f"{notebook} has no parameters, so '{name}' cannot be set",
            where=_source(where) or SourceLocation(path),
            hint='Tag the cell that assigns it: # %% tags=["parameters"]',
        )
    return ParameterError(
        f"{notebook} has no parameter '{name}'",
        where=_source(where) or SourceLocation(path, min(p.line for p in declared.values())),
        hint=did_you_mean(name, declared, label="Parameters"),
    )


def _source(where: str | None) -> SourceLocation | None:
    return SourceLocation(where) if where else None


def _unfit(
    parameter: Parameter, value: Any, notebook: str, where: str | None, hint: str
) -> ParameterError:
    declared = SourceLocation(
        f"notebooks/{notebook_name(notebook)}.py", parameter.line, parameter.column
    )
    behind = f" (declared in {declared})" if where else ""
    return ParameterError(
        f"{notebook}: {parameter.name} = {_short(value)} is not {_expected(parameter)}{behind}",
        where=_source(where) or declared,
        hint=hint or _example(parameter),
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "date": "a date",
    "datetime": "a date and time",
    "timestamp": "a timestamp",
    "list": "a list",
    "dict": "a mapping",
    "any": "a value that JSON can hold",
}
_EXAMPLES = {
    "int": "60",
    "float": "0.5",
    "bool": "true",
    "date": "2018-11-01",
    "datetime": "2018-11-01T09:30:00",
    "timestamp": "2018-11-01 09:30",
    "list": "[1, 2]",
    "dict": '{"SPY": 0.5}',
}


def _expected(parameter: Parameter) -> str:
    kind = parameter.type
    if kind in ("literal", "enum"):
        shown = ", ".join(str(choice) for choice in parameter.choices[:12])
        text = f"one of {shown}" if shown else "a member of its Enum"
    elif kind.startswith("list["):
        element = _EXPECTED[kind[5:-1]].removeprefix("a ")
        text = f"a list of which each is {_EXPECTED[kind[5:-1]]}" if element else "a list"
    else:
        text = _EXPECTED.get(kind, _EXPECTED["any"])
    return f"{text} or null" if parameter.optional else text


def _example(parameter: Parameter) -> str | None:
    """What would do: the default as it is written, else an example of the type."""
    if parameter.has_default and parameter.default is not None:
        return f"The default is {parameter.default_source}."
    kind = parameter.type
    example = _EXAMPLES.get(kind)
    if kind.startswith("list["):
        example = f"[{_EXAMPLES.get(kind[5:-1], 'a, b')}]"
    return f"An example: {example}." if example else None


# --- to JSON -----------------------------------------------------------------------------------


def _convert(parameter: Parameter, value: Any) -> Any:
    value = _plain(value)
    if value is None or (
        parameter.optional
        and isinstance(value, str)
        and value.strip().lower() in ("none", "null", "~")
        and value not in parameter.choices
    ):
        if parameter.optional or parameter.type == "any":
            return None
        raise _Unfit(f"Give a value, or declare it as {_annotation(parameter)} | None.")
    if parameter.type in ("literal", "enum"):
        return _choice(parameter, value)
    if parameter.type.startswith("list"):
        return _list(parameter.type[5:-1] or "any", value)
    return _CONVERTERS.get(parameter.type, _any)(value)


def _annotation(parameter: Parameter) -> str:
    return {"timestamp": "pd.Timestamp", "literal": "Literal[...]", "enum": "its Enum"}.get(
        parameter.type, parameter.type
    )


def _plain(value: Any) -> Any:
    """A Python object as JSON would have it, where the two are one step apart."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    # numpy's and pandas' scalars, without importing either
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise _Unfit
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(
                value.strip(), 0 if re.match(r"\s*[+-]?0[xob]", value, re.IGNORECASE) else 10
            )
        except ValueError:
            pass
        try:
            number = decimal.Decimal(value.strip())
        except decimal.InvalidOperation:
            raise _Unfit from None
        # "60.0" and "1e3", but not a text that would need a gigabyte of digits
        if number.is_finite() and number == number.to_integral_value() and number.adjusted() < 300:
            return int(number)
    raise _Unfit


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise _Unfit
    if isinstance(value, (int, float, decimal.Decimal)):
        try:
            return float(value)
        except OverflowError:
            raise _Unfit from None
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text)
        except ValueError:
            pass
        if re.fullmatch(r"[+-]?\d+(?:\.\d+)?\s*%", text):
            raise _Unfit(f"Write it as {float(text.rstrip('% ')) / 100:g}.")
        if re.fullmatch(r"[+-]?\d+,\d+", text):
            raise _Unfit(f"Write it as {text.replace(',', '.')}.")
    raise _Unfit


_TRUE = {"true", "yes", "on", "1", "y", "t"}
_FALSE = {"false", "no", "off", "0", "n", "f"}


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
    raise _Unfit


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dt.date, dt.time)):
        # YAML reads 2018-01-02 as a date; its text is what was written
        return value.isoformat()
    if isinstance(value, (bool, int, float)):
        # not converted: YAML has read `no` as false and 007 as 7 already
        text = str(value).lower() if isinstance(value, bool) else str(value)
        raise _Unfit(f'Put it in quotes: "{text}".')
    raise _Unfit


_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def _date(value: Any) -> str:
    if isinstance(value, dt.datetime):
        if value.time() == dt.time():
            return value.date().isoformat()
        raise _Unfit("It has a time of day.")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # 20181101
    if isinstance(value, str):
        text = re.sub(r"[T ]00:00(?::00(?:\.0+)?)?$", "", value.strip())
        found = _DATE.fullmatch(text)
        if found:
            return _checked_date(found)
        if re.fullmatch(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\.?", text):
            raise _Unfit("Write it as year-month-day: 2018-11-01.")
    raise _Unfit


def _checked_date(found: re.Match[str]) -> str:
    year, month, day = (int(part) for part in found.groups())
    try:
        return dt.date(year, month, day).isoformat()
    except ValueError as error:
        reason = str(error)
        raise _Unfit(f"{reason[:1].upper()}{reason[1:]}.") from None


# Fractions to nanoseconds are kept as text: datetime has microseconds, a Timestamp has more.
_MOMENT = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})"
    r"(?:[T ](\d{2}):?(\d{2})(?::?(\d{2})(\.\d{1,9})?)?)?"
    r"\s*(Z|[+-]\d{2}(?::?\d{2}(?::\d{2})?)?)?",
    re.IGNORECASE,
)


def _datetime(value: Any) -> str:
    return _moment(value, digits=6)


def _timestamp(value: Any) -> str:
    return _moment(value, digits=9)


def _moment(value: Any, *, digits: int) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dt.date):
        return f"{value.isoformat()}T00:00:00"
    if isinstance(value, str):
        found = _MOMENT.fullmatch(value.strip())
        if found:
            year, month, day, hour, minute, second, fraction, zone = found.groups()
            text = f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}"
            try:
                dt.datetime.fromisoformat(text)
            except ValueError as error:
                reason = str(error)
                raise _Unfit(f"{reason[:1].upper()}{reason[1:]}.") from None
            if fraction:
                # fromisoformat wants three or six digits before Python 3.11
                text += f".{fraction[1 : digits + 1]:0<6}"
            return text + _zone(zone)
    raise _Unfit


def _zone(zone: str | None) -> str:
    if not zone:
        return ""
    if zone.upper() == "Z":
        return "+00:00"
    return f"{zone[:3]}:{zone[3:].removeprefix(':') or '00'}"


def _any(value: Any) -> Any:
    try:
        return _json(value)
    except RecursionError:
        raise _Unfit("It contains itself.") from None


def _json(value: Any) -> Any:
    value = _plain(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, item in cast("Mapping[Any, Any]", value).items():
            if not isinstance(key, str):
                raise _Unfit(f"Its keys must be text, and {_short(key)} is none.")
            found[key] = _json(item)
        return found
    if isinstance(value, (list, tuple, set, frozenset)):
        items = cast("Sequence[Any]", value)
        return [_json(item) for item in items]
    raise _Unfit(f"A {type(value).__name__} cannot be handed to another process as a parameter.")


def _dict(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise _Unfit from None
    if not isinstance(value, Mapping):
        raise _Unfit
    return cast("dict[str, Any]", _any(cast("Any", value)))


def _list(element: str, value: Any) -> list[Any]:
    items: Any = value
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                items = json.loads(text)
            except ValueError:
                if not text.endswith("]"):
                    raise _Unfit("It begins with [ and has no ] at its end.") from None
                # [SPY, QQQ], as a shell leaves it
                items = [
                    part.strip(" \t'\"") for part in text.strip("[]").split(",") if part.strip()
                ]
        else:
            items = [part.strip() for part in text.split(",") if part.strip()]
    elif isinstance(value, (set, frozenset)):
        items = sorted(cast("set[Any]", value), key=repr)
    elif not isinstance(value, (list, tuple)):
        tolist = getattr(value, "tolist", None)
        items = tolist() if callable(tolist) else None
    if not isinstance(items, (list, tuple)):
        raise _Unfit
    convert = _CONVERTERS.get(element, _any)
    converted: list[Any] = []
    for number, item in enumerate(cast("Sequence[Any]", items), start=1):
        try:
            converted.append(convert(_plain(item)))
        except _Unfit as error:  # noqa: PERF203 - the item's number is told
            hint = str(error) or f"It should be {_EXPECTED.get(element, _EXPECTED['any'])}."
            raise _Unfit(f"Item {number} is {_short(item)}. {hint}") from None
    return converted


def _choice(parameter: Parameter, value: Any) -> Any:
    choices = parameter.choices
    if not choices:  # an Enum of a helper module: checked where it is known
        return _any(value)
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    values = parameter.choice_values
    for choice, member in zip(choices, values, strict=False):
        if member is not None and value == member and type(value) is type(member):
            return choice
    # text from a command line: `-p window=20`, `-p mode=2`
    if isinstance(value, str):
        for choice, member in zip(choices, values or choices, strict=False):
            if value in (str(choice), str(member)):
                return choice
        # Mode.FAST, as the notebook writes it
        if values and value.rpartition(".")[2] in choices:
            return value.rpartition(".")[2]
        close = did_you_mean(value, [str(choice) for choice in choices])
        # What there is stands in the line already.
        raise _Unfit(close if close.startswith("Did") else "")
    raise _Unfit


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
    "date": _date,
    "datetime": _datetime,
    "timestamp": _timestamp,
    "dict": _dict,
    "any": _any,
}


# --- back --------------------------------------------------------------------------------------


def restore_parameter(value: Any, type: str, default: Any, annotation: Any = None) -> Any:  # noqa: A002 - the contract's name
    """A converted value as the type that the notebook works with.

    Parameters
    ----------
    value : JSON value
        From `convert_parameters`.
    type : str
        `Parameter.type`.
    default : object
        What the cell assigned. Its class decides where the text said nothing: a tuple, a set,
        a ``Path``, a ``Decimal``, a member of an imported ``Enum``.
    annotation : object, optional
        The evaluated annotation (``module.__annotations__``), for an ``Enum`` whose default is
        ``None``.

    Returns
    -------
    object

    Raises
    ------
    ParameterError
        When an imported ``Enum`` has no such member.
    """
    if value is None:
        return None
    if type.startswith("list"):
        element = type[5:-1] or "any"
        items: list[Any] = [_restore_one(item, element, None) for item in value]
        if isinstance(default, (tuple, set, frozenset)):
            kind = cast("Any", default).__class__
            # a named tuple takes its fields one by one
            return kind(*items) if hasattr(kind, "_fields") else kind(items)
        return items
    if type == "enum" and not isinstance(default, enum.Enum):
        found = _enum_class(annotation)
        return _member(found, value) if found is not None else value
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
    """Text as the class of the default, where that class is one of the usual ones."""
    if isinstance(default, os.PathLike):
        return cast("Any", default).__class__(text)
    if isinstance(default, decimal.Decimal):
        return decimal.Decimal(text)
    if isinstance(default, dt.datetime):
        if default.__class__.__name__ == "Timestamp":
            return cast("Any", default).__class__(text)
        return dt.datetime.fromisoformat(text)
    if isinstance(default, dt.date):
        return dt.date.fromisoformat(text)
    return text


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
        f"{_short(value)} is no member of {cls.__name__}",
        hint=did_you_mean(str(value), cls.__members__, label="Members"),
    )
