"""Types shared by the models of the manifest, and their base class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictStr,
    WithJsonSchema,
)

from research_jobs.manifest.cron import check_cron
from research_jobs.manifest.values import (
    RefusedValueError,
    check_memory,
    check_timezone,
    more_than_nothing,
    parse_duration,
    parse_size,
)
from research_jobs.project import notebook_name

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}],
            "description": "A duration: 90 (seconds), 30s, 10m, 1h30m, 2d.",
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}],
            "description": "A size: 512MB, 2GiB, or a number of bytes.",
        }
    ),
]
# A time or memory limit: zero would end the run before it begins.
Limit = Annotated[Duration, AfterValidator(more_than_nothing)]
Memory = Annotated[Size, AfterValidator(check_memory)]
Timezone = Annotated[StrictStr, BeforeValidator(lambda v: check_timezone(v) if _text(v) else v)]
Cron = Annotated[StrictStr, AfterValidator(check_cron)]
# What Dagster's pages and Parquet's counters hold.
_MOST = 2**31 - 1
Whole = Annotated[int, Strict(), Field(ge=0, le=_MOST)]
Positive = Annotated[int, Strict(), Field(ge=1, le=_MOST)]
Flag = Annotated[bool, Strict()]
NotebookName = Annotated[
    StrictStr, BeforeValidator(lambda v: notebook_name(v) if isinstance(v, str) else v)
]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def listed(value: Any) -> Any:
    """One value where a list is allowed: ``cron: "0 6 * * *"`` for ``cron: ["0 6 * * *"]``."""
    return (
        [value] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value
    )


def one_or_many(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item}]})


STRING = {"type": "string"}
Texts = Annotated[tuple[StrictStr, ...], BeforeValidator(listed), one_or_many(STRING)]
NotebookNames = Annotated[tuple[NotebookName, ...], BeforeValidator(listed), one_or_many(STRING)]

# Dagster's own rules, repeated here so that a mistake is reported with its line.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_POOL = re.compile(r"[A-Za-z0-9_\-/]+\Z")
_TAG_PART = r"[A-Za-z0-9_.-]{1,63}"
_TAG_KEY = re.compile(rf"({_TAG_PART}/)?{_TAG_PART}\Z")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
KIND = re.compile(r"[A-Za-z0-9_.-]{1,50}\Z")


def json_value(value: Any) -> Any:
    """Plain data as JSON: dates become ISO 8601 text."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value


def read_within(value: Any) -> Any:
    """``24h`` is short for ``{within: 24h}``."""
    return {"within": value} if isinstance(value, (str, int, float)) else value


def plain_text(value: Any) -> str:
    """A scalar as written in YAML: ``true``, not ``True``."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(json_value(value))


def _json_mapping(value: Any) -> Any:
    return json_value(value) if isinstance(value, dict) else value


Json = Annotated[Mapping[str, Any], BeforeValidator(_json_mapping)]


def _tags(value: Any) -> Any:
    """``[nightly, eu]`` and ``{nightly: "", region: eu}`` are both tags."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        value = {item if isinstance(item, str) else str(item): "" for item in value}
    if not isinstance(value, dict):
        return value
    tags: dict[str, str] = {}
    for key, item in value.items():
        text = plain_text(item)
        if not _TAG_KEY.match(str(key)):
            raise RefusedValueError(
                f"'{key}' is not a tag name", "Use letters, digits, _ . - and at most one /."
            )
        if not _TAG_VALUE.match(text):
            raise RefusedValueError(
                f"'{text}' is not a tag value", "Use up to 63 letters, digits and _ . - only."
            )
        tags[str(key)] = text
    return tags


Tags = Annotated[
    Mapping[str, str],
    BeforeValidator(_tags, json_schema_input_type=list[str] | dict[str, str | float | None]),
]


class Spec(BaseModel):
    """Base of all models: frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    # What people write instead of the key's real name.
    synonyms: ClassVar[Mapping[str, str]] = {}


def check_owners(owners: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for owner in owners or ():
        team = owner.removeprefix("team:")
        if not _EMAIL.match(owner) and not (owner.startswith("team:") and team):
            raise RefusedValueError(
                f"'{owner}' is not an owner",
                f"Write an email address, or 'team:{re.sub(r'[^A-Za-z0-9_-]+', '-', owner)}'.",
            )
    return owners


def check_group(group: str | None) -> str | None:
    if group is not None and not _PLAIN_NAME.match(group):
        better = re.sub(r"\W+", "_", group)
        raise RefusedValueError(
            f"the group '{group}' has characters other than letters, digits and _",
            f"Did you mean '{better}'?",
        )
    return group


def check_pool(pool: str | None) -> str | None:
    if pool is not None and not _POOL.match(pool):
        raise RefusedValueError(
            f"the pool '{pool}' has characters other than letters, digits, _ - and /",
            f"Did you mean '{re.sub(r'[^A-Za-z0-9_/-]+', '_', pool)}'?",
        )
    return pool


class RetrySpec(Spec):
    """How often a failed notebook is retried within its run."""

    max: Annotated[int, Strict()] = Field(
        default=0, ge=0, le=1000, description="Retries after the first try."
    )
    delay: Duration = Field(default=0.0, description="Wait before each retry.")
    backoff: Literal["linear", "exponential"] | None = Field(
        default=None, description="How the delay grows with each retry."
    )
    jitter: Literal["full", "plus_minus"] | None = Field(
        default=None, description="How the delay is randomized."
    )


def _retries(value: Any) -> Any:
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


Retries = Annotated[
    RetrySpec,
    BeforeValidator(_retries, json_schema_input_type=RetrySpec | int),
]
