"""When notebooks are due: cron expressions, automation, freshness and catching up."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from research_jobs.manifest.cron import check_cron
from research_jobs.manifest.fields import Cron, Limit, Spec, Timezone
from research_jobs.manifest.values import RefusedValueError

__all__ = [
    "MOST_CAUGHT_UP",
    "AutomationSpec",
    "FreshnessSpec",
    "read_automation",
    "read_catch_up",
    "read_crons",
]


class AutomationSpec(Spec):
    """When Dagster itself requests a run of a notebook."""

    kind: Literal["eager", "on_cron", "on_missing"]
    cron: Cron | None = None
    timezone: Timezone | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "on_cron" and self.cron is None:
            raise RefusedValueError(
                "on_cron needs a cron expression", 'Write automation: {on_cron: "0 6 * * *"}.'
            )
        if self.kind != "on_cron" and self.cron is not None:
            raise RefusedValueError(f"{self.kind} takes no cron expression", "Remove it.")
        return self


def read_automation(value: Any) -> Any:
    """``eager``, ``{on_cron: "0 6 * * *"}`` or ``{on_cron: {cron: ..., timezone: ...}}``."""
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and "on_cron" in value:
        inner = value["on_cron"]
        rest = {key: item for key, item in value.items() if key != "on_cron"}
        inner = inner if isinstance(inner, dict) else {"cron": inner}
        return {"kind": "on_cron"} | inner | rest
    return value


class FreshnessSpec(Spec):
    """How old a notebook's last materialisation may be: Dagster's freshness policy."""

    within: Limit = Field(description="Older than this is a failure.")
    warn_within: Limit | None = Field(default=None, description="Older than this is a warning.")
    cron: Cron | None = Field(
        default=None, description="The deadlines; `within` is then how long before one counts."
    )
    timezone: Timezone | None = Field(default=None, description="In which cron is read.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warn_within is not None and self.warn_within >= self.within:
            raise RefusedValueError("warn_within is not shorter than within", "Swap them.")
        if self.warn_within is not None and self.cron is not None:
            raise RefusedValueError("warn_within and cron cannot be combined", "Keep one of them.")
        if self.within < 60 or (self.warn_within is not None and self.warn_within < 60):
            raise RefusedValueError("freshness is measured in minutes", "Write 1m or more.")
        return self


# Each tick checks all of them.
MOST_CAUGHT_UP = 10_000


def read_catch_up(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool)
    if value == "none" or (number and 0 <= value <= MOST_CAUGHT_UP):
        return value
    if number and value > 0:
        raise RefusedValueError(f"{value} is too large", f"Write {MOST_CAUGHT_UP} or less.")
    raise RefusedValueError(
        f"catch_up cannot be {value!r}", "Write none, or how many older partitions to look at."
    )


def read_crons(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, (list, tuple)):
        if not value:
            raise RefusedValueError("cron is empty", 'Write cron: "0 6 * * *".')
        for item in value:
            if not isinstance(item, str):
                raise RefusedValueError(f"{item!r} is not a cron expression", "Put it in quotes.")
        return tuple(check_cron(item, info) for item in value)
    if not isinstance(value, str):
        raise RefusedValueError(f"{value!r} is not a cron expression", "Put it in quotes.")
    return check_cron(value, info)
