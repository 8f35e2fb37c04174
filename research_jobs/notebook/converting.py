"""Values as JSON values: how `convert_parameters` treats each type.

Standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from research_jobs.errors import did_you_mean
from research_jobs.notebook.interface import Parameter

__all__ = [
    "CONVERTERS",
    "EXPECTED",
    "Unfit",
    "convert",
    "convert_list",
    "plain",
    "read_text",
    "short",
]


class Unfit(ValueError):  # noqa: N818 - it never leaves this package
    """A value that does not fit the type; the text is a hint, or empty."""


def short(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "date": "a date",
    "datetime": "a date and time",
    "timestamp": "a timestamp",
    "list": "a list",
    "dict": "a mapping",
    "any": "a value that fits JSON",
    "computed": "a value that fits JSON",
}


def convert(parameter: Parameter, value: Any, *, text: bool = False) -> Any:
    """Convert a value to the parameter's JSON value; `text` if it comes from a command line.

    Raises
    ------
    Unfit
    """
    value = plain(value)
    if text and parameter.type == "any" and isinstance(value, str):
        value = read_text(value)
    if value is None or (
        parameter.optional
        and isinstance(value, str)
        and value.strip().lower() in ("none", "null", "~")
        and value not in parameter.choices
    ):
        if parameter.optional or parameter.type == "any":
            return None
        if parameter.type == "computed":
            raise Unfit("Give a value, or declare a type: x: float | None = ...")
        raise Unfit(f"Give a value, or declare it as {_annotation(parameter)} | None.")
    if parameter.type in ("literal", "enum"):
        return _choice(parameter, value)
    if parameter.type.startswith("list"):
        return convert_list(value, parameter.type[5:-1] or "any")
    return CONVERTERS.get(parameter.type, _any)(value)


def _annotation(parameter: Parameter) -> str:
    return {"timestamp": "pd.Timestamp", "literal": "Literal[...]", "enum": "its Enum"}.get(
        parameter.type, parameter.type
    )


_TEXT_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "None", "~"), None),
}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9]\d*(?:_\d+)*)")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FRACTION = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")


def read_text(text: str) -> Any:
    """Parse text for a parameter of unknown type as YAML does.

    It is a number, a truth value, ``null``, a JSON list or mapping, or else text. Quoted values,
    words that only YAML 1.1 takes for truth values (``no``, ``on``) and numbers with leading zeros
    are text.

    Raises
    ------
    Unfit
        When a list or mapping is not closed, or a number is too large.
    """
    word = text.strip()
    if word in _TEXT_WORDS:
        return _TEXT_WORDS[word]
    if len(word) > 1 and word[0] == word[-1] == "'":
        return word[1:-1].replace("''", "'")
    if word[:1] == '"':
        try:
            return json.loads(word)
        except ValueError:
            return text
    if word[:1] == "[":
        return convert_list(word)
    if word[:1] == "{":
        return _dict(word)
    number = _read_number(word) if len(word) <= 300 else None
    return text if number is None else number


def _read_number(word: str) -> int | float | None:
    if _WHOLE.fullmatch(word):
        return int(word)
    if _HEXADECIMAL.fullmatch(word):
        return int(word, 16)
    if _FRACTION.fullmatch(word):
        number = float(word)
        if not math.isfinite(number):
            raise Unfit("It is too large for a number.")
        return number
    return None


def plain(value: Any) -> Any:
    """Convert a Python object to its obvious JSON value."""
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
        raise Unfit
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
            raise Unfit from None
        # "60.0" and "1e3", but not a text that would need a gigabyte of digits
        if number.is_finite() and number == number.to_integral_value() and number.adjusted() < 300:
            return int(number)
    raise Unfit


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise Unfit
    if isinstance(value, (int, float, decimal.Decimal)):
        try:
            return float(value)
        except OverflowError:
            raise Unfit from None
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text)
        except ValueError:
            pass
        if re.fullmatch(r"[+-]?\d+(?:\.\d+)?\s*%", text):
            raise Unfit(f"Write it as {float(text.rstrip('% ')) / 100:g}.")
        if re.fullmatch(r"[+-]?\d+,\d+", text):
            raise Unfit(f"Write it as {text.replace(',', '.')}.")
    raise Unfit


_TRUE = {"true", "yes", "on", "1", "y", "t"}
_FALSE = {"false", "no", "off", "0", "n", "f"}


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
    raise Unfit


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dt.date, dt.time)):
        # YAML reads 2018-01-02 as a date; its text is what was written
        return value.isoformat()
    if isinstance(value, (bool, int, float)):
        # not converted: YAML has already read `no` as false and 007 as 7
        text = str(value).lower() if isinstance(value, bool) else str(value)
        raise Unfit(f'Put it in quotes: "{text}".')
    raise Unfit


_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def _date(value: Any) -> str:
    if isinstance(value, dt.datetime):
        if value.time() == dt.time():
            return value.date().isoformat()
        raise Unfit("It includes a time of day.")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # 20181101
    if isinstance(value, str):
        text = re.sub(r"[T ]00:00(?::00(?:\.0+)?)?$", "", value.strip())
        match = _DATE.fullmatch(text)
        if match:
            return _checked_date(match)
        if re.fullmatch(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\.?", text):
            raise Unfit("Write it as year-month-day: 2018-11-01.")
    raise Unfit


def _checked_date(match: re.Match[str]) -> str:
    year, month, day = (int(part) for part in match.groups())
    try:
        return dt.date(year, month, day).isoformat()
    except ValueError as error:
        reason = str(error)
        raise Unfit(f"{reason[:1].upper()}{reason[1:]}.") from None


# Nanoseconds are kept as text: datetime only has microseconds, a Timestamp has more.
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
        match = _MOMENT.fullmatch(value.strip())
        if match:
            year, month, day, hour, minute, second, fraction, zone = match.groups()
            text = f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}"
            try:
                dt.datetime.fromisoformat(text)
            except ValueError as error:
                reason = str(error)
                raise Unfit(f"{reason[:1].upper()}{reason[1:]}.") from None
            if fraction:
                # fromisoformat requires three or six digits before Python 3.11
                text += f".{fraction[1 : digits + 1]:0<6}"
            return text + _zone(zone)
    raise Unfit


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
        raise Unfit("It contains itself.") from None


def _json(value: Any) -> Any:
    value = plain(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, Mapping):
        mapping: dict[str, Any] = {}
        for key, item in cast("Mapping[Any, Any]", value).items():
            if not isinstance(key, str):
                raise Unfit(f"Its keys must be text, and {short(key)} is not.")
            mapping[key] = _json(item)
        return mapping
    if isinstance(value, (list, tuple, set, frozenset)):
        items = cast("Sequence[Any]", value)
        return [_json(item) for item in items]
    raise Unfit(f"A {type(value).__name__} cannot be passed to another process as a parameter.")


def _dict(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unfit from None
    if not isinstance(value, Mapping):
        raise Unfit
    return cast("dict[str, Any]", _any(cast("Any", value)))


def convert_list(value: Any, element: str = "any") -> list[Any]:
    """A list, each item converted to a type."""
    items: Any = value
    if isinstance(value, str):
        items = _items(element, value.strip())
    elif isinstance(value, (set, frozenset)):
        items = sorted(cast("set[Any]", value), key=repr)
    elif not isinstance(value, (list, tuple)):
        tolist = getattr(value, "tolist", None)
        items = tolist() if callable(tolist) else None
    if not isinstance(items, (list, tuple)):
        raise Unfit
    convert = CONVERTERS.get(element, _any)
    converted: list[Any] = []
    for number, item in enumerate(cast("Sequence[Any]", items), start=1):
        try:
            converted.append(convert(plain(item)))
        except Unfit as error:  # noqa: PERF203 - the message names the item
            hint = str(error) or f"Expected: {EXPECTED.get(element, EXPECTED['any'])}."
            raise Unfit(f"Item {number} is {short(item)}. {hint}") from None
    return converted


def _items(element: str, text: str) -> Sequence[Any]:
    """The items of a list typed as JSON, as ``[SPY, QQQ]`` (from a shell) or as ``1,2``."""
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if not text.endswith("]"):
                raise Unfit("It begins with [ but does not end with ].") from None
        text = text[1:-1]
        if "[" in text or "{" in text:
            raise Unfit("Write a list in a list as JSON.")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if element == "any":
        return [read_text(part) for part in parts]
    return [part.strip(" \t'\"") for part in parts]


def _choice(parameter: Parameter, value: Any) -> Any:
    choices = parameter.choices
    if not choices:  # an Enum of a helper module: checked in the fresh process
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
        # The message already lists the choices.
        raise Unfit(close if close.startswith("Did") else "")
    raise Unfit


CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
    "date": _date,
    "datetime": _datetime,
    "timestamp": _timestamp,
    "dict": _dict,
    "any": _any,
    "computed": _any,
}
