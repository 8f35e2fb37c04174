"""The reference of the manifest's keys, from the models that read it.

Examples come from docs/manifest-example.yaml, which tests/test_docs.py loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from research_jobs.manifest.schema import manifest_schema

__all__ = ["EXAMPLE", "keys", "page"]

EXAMPLE = "docs/manifest-example.yaml"
INTRODUCTION = """\
# Manifest keys

Every key of `notebooks/manifest.yaml`, from the models that read it.
[The manifest](../manifest.md) explains them.
"""
UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
Schema = Mapping[str, Any]


def page(root: Path) -> str:
    """The page's Markdown."""
    schema = manifest_schema()
    text = (root / EXAMPLE).read_text(encoding="utf-8")
    examples = dict(keys(schema, yaml.safe_load(text)))
    models = schema["$defs"]
    parts = [INTRODUCTION, "## The file", _table("", schema, examples, models)]
    for name in dict.fromkeys(_models(schema, models)):
        parts += [f"## {_title(name)}", _prose(models[name]["description"])]
        parts += [_table(name, models[name], examples, models)]
    parts += ["## All of it", f"```yaml\n{text.partition(chr(10) * 2)[2] or text}```"]
    return "\n\n".join(parts) + "\n"


def keys(schema: Schema, data: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    """Each key that a manifest uses, as model and name, with its value; the first use last."""
    found = list(_walk("", schema, data, schema["$defs"]))
    yield from reversed(found)


def _walk(
    name: str, schema: Schema, data: Any, models: Schema
) -> Iterator[tuple[tuple[str, str], Any]]:
    """Follow a value down the branches of its schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from _walk(name, models[name], data, models)
    for branch in schema.get("anyOf", ()):
        yield from _walk(name, branch, data, models)
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if key in schema.get("properties", {}):
            if schema.get("title") == name or not name:
                yield (name, key), value
            yield from _walk(name, schema["properties"][key], value, models)
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from _walk(name, schema["additionalProperties"], value, models)


def _models(schema: Any, models: Schema) -> Iterator[str]:
    """The models that a schema leads to, those of the file's sections first."""
    if isinstance(schema, dict):
        schema = [schema[key] for key in schema if key not in ("$defs", "$ref")] + [
            schema["$ref"] for key in schema if key == "$ref"
        ]
    if isinstance(schema, str) and schema.startswith("#/$defs/"):
        name = schema.rpartition("/")[2]
        yield name
        yield from _models(models[name], models)
    elif isinstance(schema, list):
        for item in schema:
            yield from _models(item, models)


def _table(
    name: str, model: Schema, examples: Mapping[tuple[str, str], Any], models: Schema
) -> str:
    same = {key: value for (_, key), value in examples.items()}  # models share some keys
    lines = ["| key | type | default | what | example |", "|---|---|---|---|---|"]
    for key, schema in model["properties"].items():
        cells = (
            f"`{key}`" + ("" if key not in model.get("required", ()) else " (required)"),
            _type(schema),
            _default(schema),
            _prose(_description(schema, models)),
            _example(key, examples.get((name, key), same.get(key))),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _prose(text: str) -> str:
    return re.sub(r"\{[^}]*\}|\$\{\w+\}", lambda found: f"`{found[0]}`", text.replace("``", "`"))


def _description(schema: Schema, models: Schema) -> str:
    branches = (schema, *schema.get("anyOf", ()), schema.get("additionalProperties"))
    for place in filter(lambda place: isinstance(place, dict), branches):
        if place.get("description"):
            return place["description"]
    reference = re.search(r"#/\$defs/(\w+)", json.dumps(schema))
    return models[reference[1]]["description"] if reference else ""


def _title(name: str) -> str:
    return name.removesuffix("Spec")


def _type(schema: Schema) -> str:
    kinds = list(dict.fromkeys(_types(schema)))
    for kind in kinds.copy():
        if f"list of {kind}" in kinds:
            kinds.remove(f"list of {kind}")
            kinds[kinds.index(kind)] = f"{kind}, one or a list"
    return " or ".join(kinds)


def _types(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield f"[{_title(name)}](#{_title(name).lower()})"
    elif "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"])
    elif "const" in schema:
        yield f"`{schema['const']}`"
    elif "anyOf" in schema:
        for branch in schema["anyOf"]:
            if branch.get("type") != "null":
                yield from _types(branch)
    elif schema.get("type") == "array":
        yield "list of " + (" or ".join(_types(schema.get("items", {}))) or "values")
    elif schema.get("type") == "object":
        values = schema.get("additionalProperties")
        kinds = " or ".join(dict.fromkeys(_types(values))) if isinstance(values, dict) else ""
        yield f"mapping of {kinds}" if kinds else "mapping"
    else:
        kinds = schema.get("type", [])
        yield from [kinds] if isinstance(kinds, str) else kinds


def _default(schema: Schema) -> str:
    value = schema.get("default")
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, float):  # a duration, in seconds
        for size, unit in UNITS:
            if value and value % size == 0:
                return f"`{value / size:.0f}{unit}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _example(key: str, value: Any) -> str:
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"`{key}: {text}`" if len(text) <= 60 else ""
