"""Every number, duration and size of the manifest at its edges: refused in its place, or meant."""

from __future__ import annotations

# ruff: noqa: ISC004 - a message is one line to a person and two here
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from research_jobs.manifest import Manifest, NotebookSpec, ReportsSpec, ScheduleSpec
from research_jobs.manifest.models import Defaults
from research_jobs.manifest.retention import RetentionSpec

ROOTS: list[tuple[tuple[str, ...], type[BaseModel]]] = [
    (("defaults",), Defaults),
    (("notebooks", "market_data"), NotebookSpec),
    (("schedules", "daily"), ScheduleSpec),
    (("reports",), ReportsSpec),
    (("retention",), RetentionSpec),
]
# What the entry of each field must have besides for the rest of it to be right.
BESIDE: dict[str, dict[str, Any]] = {
    "schedules.daily": {"cron": "0 6 * * *", "notebooks": ["market_data"]},
    "partitions": {"by": "day", "start": "2018-01-02"},
    "freshness": {"within": "3h"},
    "compression_level": {"compression": "brotli"},
    "tolerance": {"max_share": 1},
}
# The edges that have a meaning, by the end of the field's path.
ZERO = (
    "offset",
    "shift",
    "retries",
    "max",
    "delay",
    "min_rows",
    "max_rows",
    "catch_up",
    "outputs.x.keep",
    "max_share",
    "tolerance",
)
NEGATIVE = ("offset",)
HOSTILE = (
    "0",
    "-1",
    "'0'",
    "'-1'",
    "0s",
    "-5m",
    "'-5m'",
    ".nan",
    ".inf",
    "-.inf",
    "1e400",
    "-0.5",
    "true",
    "010",
    "0x",
    "1:30",
    "no",
    "'no'",
    "''",
    "10 %",
    "[]",
    "{}",
    "[1]",
    "2018-01-02",
    "1000000000000000000000000000000",
    "99999999999999999999w",
    "'\u0663'",
    "1m 010s",
)


def _parts(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def numbers(path: tuple[str, ...], model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The path of every field that takes a number, a duration or a size."""
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        for part in _parts(field.annotation):
            if part in (int, float):
                yield here
            elif isinstance(part, type) and issubclass(part, BaseModel):
                yield here if name in ("retries", "freshness", "fresh_within") else (*here, "")
                yield from numbers(here, part)
            elif get_origin(part) is not None and name == "outputs":
                yield from numbers((*here, "x"), get_args(part)[1])


FIELDS = sorted({path for root, model in ROOTS for path in numbers(root, model) if path[-1]})


def write(path: tuple[str, ...], value: str) -> str:
    """A manifest in which one field has a value, written as it stands."""
    marker = "VALUE"
    inner: Any = marker
    for depth in range(len(path), 0, -1):
        beside = dict(BESIDE.get(path[depth - 1], {})) if depth == len(path) else {}
        beside |= next(
            (v for k, v in BESIDE.items() if ".".join(path[: depth - 1]).endswith(k)), {}
        )
        inner = {**beside, path[depth - 1]: inner}
    return yaml.safe_dump(inner, sort_keys=False, width=10**6).replace(marker, value)


def look(manifest: Manifest) -> list[str]:
    """The problems, each with its place."""
    return [problem.error.headline for problem in manifest.problems]


def meant(path: tuple[str, ...], value: str) -> bool:
    """Whether an edge has a documented meaning."""
    written = ".".join(path)
    if value == "{}":
        return path[-1] == "retries"
    if value in ("0", "'0'", "0s"):
        text = value != "0"
        takes_text = path[-1] in ("shift", "delay")
        return written.endswith(ZERO) and (not text or takes_text)
    return value == "-1" and written.endswith(NEGATIVE)


def test_the_fields_are_those_of_the_models():
    """What the table below goes over has the fields that a person sets numbers in."""
    names = {".".join(path) for path in FIELDS}
    assert {
        "defaults.timeout",
        "defaults.memory",
        "defaults.concurrency",
        "defaults.retries.delay",
        "notebooks.market_data.outputs.x.min_rows",
        "notebooks.market_data.outputs.x.fresh_within.within",
        "notebooks.market_data.partitions.offset",
        "notebooks.market_data.freshness.warn_within",
        "schedules.daily.catch_up",
        "reports.keep",
    } <= names
    assert len(FIELDS) >= 25


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_an_edge_is_refused_in_its_place_or_has_a_meaning(load, path):
    """Zero, less, not a number, without end, a bool, an octal, a clock: never a silent surprise."""
    for value in HOSTILE:
        text = write(path, value)
        problems = look(load(text))
        if meant(path, value):
            assert problems == [], (value, problems)
            continue
        assert problems, f"{'.'.join(path)}: {value} is taken"
        line = next(n for n, row in enumerate(text.splitlines(), 1) if row.endswith(value))
        lines = {int(problem.split(":")[1]) for problem in problems}
        assert lines <= {line, line - 1, line - 2}, (value, problems)
        assert all(not problem.endswith("None") for problem in problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "defaults: {timeout: 0}",
            "1:21: defaults, timeout: a duration of 0 ends at once."
            " Write 30s or 10m; for no limit, leave the key out.",
        ),
        (
            "defaults: {memory: 512}",
            "1:20: defaults, memory: no notebook starts with 512 bytes of memory."
            " Write 512MB or 2GiB.",
        ),
        (
            "defaults: {retries: {max: 1001}}",
            "1:27: defaults, retries.max: 1001 is too large. Write 1000 or less.",
        ),
        (
            "defaults: {retries: {max: 010}}",
            "1:27: defaults, retries.max: '010' is not a whole number."
            " Write it without quotes and leading zeros.",
        ),
        (
            "defaults: {retries: {delay: 11y}}",
            "1:29: defaults, retries.delay: '11y' is not a duration: unknown unit 'y'."
            " Write 90 (seconds), 30s, 10m, 1h30m or 2d.",
        ),
        (
            "notebooks: {market_data: {outputs: {x: {min_rows: 3, max_rows: 2}}}}",
            "1:40: notebook market_data, outputs.x: min_rows 3 is more than max_rows 2. Swap them.",
        ),
        (
            "notebooks: {market_data: {outputs: {x: {compression: gzip, compression_level: 10}}}}",
            "1:40: notebook market_data, outputs.x: compression gzip has no level 10."
            " Write one from 1 to 9.",
        ),
        (
            "notebooks: {market_data: {outputs: {x: {range: {c: [0, .inf]}}}}}",
            "1:49: notebook market_data, outputs.x.range: the range of 'c' has a bound that is not"
            " a number, text or date. Write [0, 1], or null for no bound.",
        ),
        (
            "notebooks: {market_data: {partitions: {by: day, start: 2018-01-02, end: 2018-01-02}}}",
            "1:39: notebook market_data, partitions: the end (2018-01-02 00:00:00) is not"
            " after the start (2018-01-02 00:00:00). Write a later end: it is exclusive.",
        ),
        (
            "notebooks: {market_data: {partitions:\n"
            " {by: hour, start: 1000-01-01, end: 2000-01-01}}}",
            "2:2: notebook market_data, partitions: 8,765,808 partitions by hour since"
            " 1000-01-01; the limit is 1,000,000. Start later, or make them longer.",
        ),
        (
            "schedules: {a: {cron: '@daily', notebooks: [market_data], enabled: no}}",
            "1:68: schedule a, enabled: 'no' is not true or false. Write true or false.",
        ),
    ],
)
def test_an_edge_says_what_to_write(load, text, message):
    """The lines for the likeliest slips are exactly these."""
    assert look(load(text)) == [f"notebooks/manifest.yaml:{message}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("timeout: 1ms", 0.001),
        ("timeout: 3650d", 3650 * 86400.0),
        ("memory: 16MiB", 16 * 1024**2),
        ("memory: 16777216", 16 * 1024**2),
        ("retries: {max: 1000}", 1000),
        ("concurrency: 1", 1),
    ],
)
def test_the_last_value_within_an_edge_is_taken(load, text, value):
    """Each limit is where the message says, and not one further in."""
    manifest = load(f"defaults: {{{text}}}")
    assert look(manifest) == []
    found = getattr(manifest.defaults, text.split(":")[0])
    assert (found.max if hasattr(found, "max") else found) == value


@pytest.mark.parametrize("text", ["timeout: 0.0009", "timeout: 3651d", "memory: 16777215"])
def test_the_first_value_beyond_an_edge_is_refused(load, text):
    """And what is one further out is refused."""
    assert len(look(load(f"defaults: {{{text}}}"))) == 1


def test_scalars_become_texts_as_they_were_written(load):
    """A tag and a variable of the environment say `true`, as the file does, and never `True`."""
    notebook = load(
        "notebooks: {market_data: {tags: {a: true, b: , c: 7}, environment: {A: true, B: 7}}}"
    ).notebooks["market_data"]
    assert dict(notebook.tags) == {"a": "true", "b": "", "c": "7"}
    assert dict(notebook.environment) == {"A": "true", "B": "7"}
