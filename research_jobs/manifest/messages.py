"""Messages for invalid values of the manifest: what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from research_jobs.errors import did_you_mean
from research_jobs.manifest.fields import Spec

__all__ = [
    "SECTION_EXAMPLES",
    "as_written",
    "describe",
    "example_of",
    "is_plain_name",
    "keys_of",
    "model_at",
    "suggest_key",
    "unknown_key",
]


def _fields(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def keys_of(model: type[BaseModel]) -> str:
    """The first keys of a mapping, as a person writes them."""
    return ", ".join(_fields(model)[:8])


def suggest_key(key: str, options: Iterable[str], synonyms: Mapping[str, str]) -> str:
    """Suggest the key that was likely meant."""
    if key.casefold() in synonyms:
        return f"Did you mean '{synonyms[key.casefold()]}'?"
    return did_you_mean(key, options, label="Known keys")


def unknown_key(owner: type[BaseModel], key: str) -> tuple[str, str]:
    """What is wrong with an unknown key, and what to do."""
    elsewhere: Mapping[str, str] = getattr(owner, "elsewhere", {})
    if key in elsewhere:
        return f"'{key}' does not belong here", elsewhere[key]
    synonyms = owner.synonyms if issubclass(owner, Spec) else {}
    return f"unknown key '{key}'", suggest_key(key, _fields(owner), synonyms)


_EXAMPLES = {
    "cron": 'Write cron: "0 6 * * 1-5".',
    "notebooks": "Write notebooks: [market_data].",
    "within": "Write within: 24h.",
    "output": "Write output: tickers.",
    "notebook": "Write notebook: universe.",
    "to": "Write to: [ops@example.com].",
    "url": "Write url: https://... or ${HEARTBEAT_URL}.",
}


def example_of(key: str) -> str:
    """What to write where a key is missing."""
    return _EXAMPLES.get(key, f"Add {key}.")


SECTION_EXAMPLES = {
    "defaults": "timezone: Europe/Zagreb",
    "schedules": "every_morning: {cron: ..., notebooks: [...]}",
    "reports": "keep: 30",
    "secrets": "[DB_PASSWORD]",
    "alerts": "ops: {email: ops@example.com}",
    "remotes": "server: {ssh: user@host, project: /srv/research}",
}

_KINDS = {
    "string_type": ("text", "Put it in quotes if it is meant as text."),
    "int_type": ("a whole number", "Write it without quotes."),
    "int_from_float": ("a whole number", "Leave out the decimals."),
    "int_parsing_size": ("a whole number of a usable size", "Write a smaller one."),
    "bool_type": ("true or false", "Write true or false."),
    "tuple_type": ("a list", "Write [a, b], or one entry per line with dashes."),
    "list_type": ("a list", "Write [a, b], or one entry per line with dashes."),
    "mapping_type": ("a mapping", "Write key: value, one per line."),
    "dict_type": ("a mapping", "Write key: value, one per line."),
    "model_type": ("a mapping", "Write key: value, one per line."),
    "model_attributes_type": ("a mapping", "Write key: value, one per line."),
}


def describe(detail: ErrorDetails) -> tuple[str, str | None]:
    """A pydantic error as a message and a hint."""
    kind, value = detail["type"], detail.get("input")
    shown = _shown(value)
    if kind in _KINDS:
        wanted, hint = _KINDS[kind]
        if kind == "int_type" and isinstance(value, str) and value.isdigit():
            hint = "Write it without quotes and leading zeros."
        return f"{shown} is not {wanted}", hint
    context = detail.get("ctx", {})
    if kind == "literal_error":
        options = list(str(context.get("expected", "")).replace(" or ", ", ").split(", "))
        names = [o.strip("'") for o in options]
        hint = did_you_mean(str(value), names, label="Choose from")
        return f"{shown} is not one of {', '.join(names)}", hint
    if kind == "greater_than_equal":
        return f"{shown} is too small", f"Write {context.get('ge')} or more."
    if kind == "less_than_equal":
        return f"{shown} is too large", f"Write {context.get('le')} or less."
    return f"{shown}: {detail['msg'][:1].lower()}{detail['msg'][1:]}", None


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return text if len(text) <= 60 else f"{text[:57]}..."


def model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that validates the value at `loc`, if any."""
    current: Any = model
    for part in loc:
        current = _unwrap(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = current.model_fields
            info = fields.get(str(part)) or next(
                (f for f in fields.values() if f.alias == part), None
            )
            if info is None:
                continue
            current = info.annotation
        elif get_origin(current) is not None:
            current = get_args(current)[-1]
    current = _unwrap(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _unwrap(annotation: Any) -> Any:
    """An annotation without ``Annotated`` and ``| None``."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, UnionType):
            rest = [a for a in get_args(annotation) if a is not type(None)]
            models = [a for a in rest if isinstance(a, type) and issubclass(a, BaseModel)]
            annotation = (models or rest)[0]
        else:
            return annotation


def as_written(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The path of a value in the file: `automation` has its settings under ``on_cron``."""
    if len(loc) > 1 and loc[0] == "automation":
        return ("automation", "on_cron", *loc[1:])
    return loc


def is_plain_name(name: str) -> bool:
    """Whether it is a valid schedule name: Dagster takes letters, digits and ``_``."""
    return bool(name) and name.isascii() and name.replace("_", "a").isalnum()
