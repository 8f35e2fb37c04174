"""Cron expressions: Dagster validates them; trying each field locates the mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from pydantic import ValidationInfo

from research_jobs.errors import did_you_mean
from research_jobs.manifest.values import RefusedValueError

__all__ = ["CronCheck", "check_cron"]

CronCheck: TypeAlias = Callable[[str], Literal["valid", "invalid", "never fires"]]
"""Dagster's verdict on an expression. The caller passes it in; nothing here imports Dagster."""

_LONGEST = 500
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_RANGES = ("0-59", "0-23", "1-31", "1-12", "0-7")
_NAMES = (
    *("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    *("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
)
_WORDS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


def check_cron(expression: str, info: ValidationInfo) -> str:
    """A cron expression that Dagster accepts and that fires at some time.

    Without a `CronCheck` in the validation context only its length is checked: a caller that has
    none does not schedule either.
    """
    if len(expression) > _LONGEST:
        raise RefusedValueError(
            f"the cron expression '{expression[:20]}...' has {len(expression)} characters",
            f"Use at most {_LONGEST}.",
        )
    check: CronCheck | None = (info.context or {}).get("cron")
    verdict = check(expression) if check is not None else "valid"
    if verdict == "never fires":
        raise RefusedValueError(
            f"the cron expression '{expression}' never fires: that month has no such day",
            "Write L for a month's last day.",
        )
    if check is not None and verdict == "invalid":
        raise _refusal(expression, check)
    return expression


def _refusal(expression: str, check: CronCheck) -> RefusedValueError:
    fields = expression.split()
    if fields and fields[0].startswith("@"):
        hint = did_you_mean(fields[0], _WORDS)
        return RefusedValueError(f"unknown cron word '{expression.strip()}'", hint)
    if len(fields) != len(_FIELDS):
        return RefusedValueError(
            f"the cron expression '{expression}' has {len(fields)} fields, not 5",
            'Write minute, hour, day of month, month, day of week: "0 6 * * 1-5".',
        )
    for position, (field, label) in enumerate(zip(fields, _FIELDS, strict=True)):
        alone = " ".join(field if n == position else "*" for n in range(len(fields)))
        if check(alone) == "invalid":
            names = [word for word in re.findall(r"[a-z]+", field.lower()) if word not in _NAMES]
            close = did_you_mean(names[0][:3], _NAMES) if names and position > 2 else ""
            return RefusedValueError(
                f"bad cron expression '{expression}', {label}: '{field}' is not usable",
                close
                if close.startswith("Did")
                else f"Write numbers from {_RANGES[position]} (5, 1-5, 1,15), * or */2.",
            )
    return RefusedValueError(f"Dagster does not accept the cron expression '{expression}'", None)
