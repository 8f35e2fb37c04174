"""Values that people write as text: durations, sizes, time zones, names.

Each function takes plain YAML data and returns the value, or raises `ValueError` with one line
that says what is wrong and what to write instead (``"...", "hint"``).
"""

from __future__ import annotations

import keyword
import re
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from research_jobs.errors import did_you_mean

__all__ = [
    "RefusedValueError",
    "check_identifier",
    "check_key",
    "check_memory",
    "check_timezone",
    "is_variable",
    "more_than_nothing",
    "parse_duration",
    "parse_size",
]


class RefusedValueError(ValueError):
    """An invalid value; pydantic passes it on as it is.

    Parameters
    ----------
    what : str
        What is wrong.
    hint : str, optional
        What to write instead.
    """

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
    "weeks": 604800.0,
}
# A number without a leading zero: 010 is 8 to some readers and 10 to others.
_NUMBER = r"(?:0|[1-9]\d*)(?:\.\d+)?"
_DURATION_PART = re.compile(rf"\s*({_NUMBER})\s*([a-z]+)", re.ASCII)
_DURATION_HINT = "Write 90 (seconds), 30s, 10m, 1h30m or 2d."
_LONGEST_TEXT = 100
# ten years: longer than any run, and short enough for every timer
_LONGEST = 10 * 365 * 86400.0

_SIZES = {"b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_SIZE = re.compile(rf"\s*({_NUMBER})\s*([a-z]*)\s*", re.ASCII)
_SIZE_HINT = "Write 512MB (1000s), 2GiB (1024s) or a number of bytes."
_LEAST_MEMORY = 16 * 1024 * 1024
# 1 EiB, what a kernel can count
_LARGEST = 2**60


def parse_duration(value: Any) -> float:
    """A duration in seconds: from ``90``, ``"30s"``, ``"10m"``, ``"1h30m"``, ``"2 days"``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise RefusedValueError(f"{_shown(value)} is not a duration", _DURATION_HINT)
    seconds = _seconds(value) if isinstance(value, str) else float(min(value, _LONGEST + 1))
    if not 0 <= seconds <= _LONGEST:  # also refuses nan
        raise RefusedValueError(f"{_shown(value)} is not between 0 and ten years", _DURATION_HINT)
    return seconds


def _seconds(written: str) -> float:
    text = written.strip().lower()
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return float(text)
    seconds, end = 0.0, 0
    while len(text) <= _LONGEST_TEXT and (part := _DURATION_PART.match(text, end)):
        unit = _UNITS.get(part[2])
        if unit is None:
            hint = did_you_mean(part[2], [u for u in _UNITS if len(u) > 1])
            raise RefusedValueError(
                f"'{written}' is not a duration: unknown unit '{part[2]}'",
                hint if hint.startswith("Did") else _DURATION_HINT,
            )
        seconds += float(part[1]) * unit
        end = part.end()
    if not text or end != len(text):
        raise RefusedValueError(f"{_shown(written)} is not a duration", _DURATION_HINT)
    return seconds


def more_than_nothing(seconds: float) -> float:
    """A duration that is not zero: a limit of zero would end the run before it begins."""
    if seconds < 0.001:
        raise RefusedValueError(
            "a duration of 0 ends at once", "Write 30s or 10m; for no limit, leave the key out."
        )
    return seconds


def parse_size(value: Any) -> int:
    """A size in bytes: from ``1048576``, ``"512MB"`` (powers of 1000), ``"2GiB"`` (of 1024)."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise RefusedValueError(f"{_shown(value)} is not a size", _SIZE_HINT)
    size: float = value if isinstance(value, int) else _bytes(value)
    if not 1 <= size <= _LARGEST:
        raise RefusedValueError(f"{_shown(value)} is not a usable size", _SIZE_HINT)
    return int(size)


def check_memory(size: int) -> int:
    """A memory limit that lets a Python process start: a smaller one has a forgotten unit."""
    if size < _LEAST_MEMORY:
        raise RefusedValueError(
            f"no notebook starts with {size} bytes of memory", "Write 512MB or 2GiB."
        )
    return size


def _bytes(written: str) -> float:
    match = _SIZE.fullmatch(written.lower()) if len(written) <= _LONGEST_TEXT else None
    if match is None:
        raise RefusedValueError(f"{_shown(written)} is not a size", _SIZE_HINT)
    number, unit = match[1], match[2] or "b"
    if unit in _SIZES:
        return float(number) * _SIZES[unit]
    hint = _SIZE_HINT
    if unit[0] in "kmgt" and unit in (unit[0], unit[0] + "i"):
        letter = unit[0].upper()
        hint = f"Write {number}{letter}iB (1024s) or {number}{letter}B (1000s)."
    raise RefusedValueError(f"'{written}' is not a size: unknown unit '{unit}'", hint)


def check_identifier(name: str, what: str) -> str:
    """A name that Python can assign to."""
    if name.isidentifier() and not keyword.iskeyword(name):
        return name
    better = re.sub(r"\W+", "_", name).strip("_")
    if not better or better[0].isdigit():
        better = f"_{better}" if better else ""
    if keyword.iskeyword(better):
        better = f"{better}_"
    hint = f"Did you mean '{better}'?" if better.isidentifier() else "Use a Python variable name."
    raise RefusedValueError(f"{what} '{name}' is not a Python variable name", f"{hint}")


def is_variable(name: Any) -> bool:
    """Whether it is an environment variable's name."""
    return isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name))


def check_key(key: str, what: str = "partition") -> str:
    """A partition key that Dagster, a path and a command line can carry."""
    if not key.strip():
        raise RefusedValueError(f"a {what} key is empty", "Give it a name.")
    if key != key.strip():
        raise RefusedValueError(f"the {what} key '{key}' begins or ends with a space", "Remove it.")
    bad = next((c for c in key if not c.isprintable()), None)
    if bad is not None:
        raise RefusedValueError(
            f"the {what} key {key!r} contains the character U+{ord(bad):04X}", "Remove it."
        )
    for part in ("...", "|"):
        if part in key:
            raise RefusedValueError(
                f"the {what} key '{key}' contains '{part}', which separates keys",
                "Use another character.",
            )
    if len(key) > 200:
        raise RefusedValueError(
            f"the {what} key '{key[:20]}...' has {len(key)} characters", "Use at most 200."
        )
    return key


# Entries of the database that are not zones: their meaning depends on the machine.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES


@lru_cache(maxsize=256)
def check_timezone(name: str) -> str:
    """A time zone of the IANA database."""
    try:
        if name and name not in _NO_ZONES:
            ZoneInfo(name)
            return name
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    zones = _timezones()
    # People write the city alone, or spaces for underscores.
    spelt = name.strip().replace(" ", "_")
    tails = {zone.rsplit("/", 1)[-1].casefold(): zone for zone in sorted(zones, reverse=True)}
    exact = tails.get(spelt.casefold())
    if exact:
        hint = f"Did you mean '{exact}'?"
    else:
        hint = did_you_mean(spelt, zones)
        if not hint.startswith("Did"):
            city = did_you_mean(spelt.rsplit("/", 1)[-1], tails)
            hint = "Write an IANA name such as Europe/Zagreb or UTC."
            if city.startswith("Did"):
                close = re.findall(r"'([^']+)'", city)
                hint = "Did you mean " + " or ".join(f"'{tails[c]}'" for c in close) + "?"
    raise RefusedValueError(f"unknown time zone '{name}'", f"{hint}")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
