"""Checks of a staged output, evaluated in the notebook's process.

The footer's statistics are used if they suffice; otherwise the columns concerned are read in
batches. Only ``unique`` keeps anything in memory, namely the distinct keys.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from research_jobs.errors import StoreError, did_you_mean, first_line
from research_jobs.outcome import CheckOutcome, StagedOutput
from research_jobs.run_context import context
from research_jobs.store.codec import read_output
from research_jobs.store.codec.base import PANDAS_KINDS
from research_jobs.store.codec.parquet import as_json, column_facts
from research_jobs.store.codec.source import Source, open_source, typed_value

pc: Any = importlib.import_module("pyarrow.compute")  # its functions are created at run time

__all__ = ["CHECKS", "Check", "Finding", "Subject", "evaluate_checks"]

EXAMPLES = 5
# Missing values in a column of typed JSON.
JSON_MISSING = ("null", '{"$float":"nan"}', '{"$na":0}', '{"$nat":0}')


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, and what it found, in one line and as metadata."""

    passed: bool
    description: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A staged output, opened once for all of its checks."""

    staged: StagedOutput
    source: Source
    footer: Any
    previous: Path | None
    value: Any

    def column(self, name: str) -> str:
        """A column's name in the file, from its name in the manifest.

        Raises
        ------
        StoreError
            When there is no such column.
        """
        if name in self._fields:
            return self._fields[name]
        hint = did_you_mean(name, self._fields) or None
        raise StoreError(f"there is no column '{name}'", hint=hint)

    # Once for all: a wide frame may have each of its columns checked.
    @cached_property
    def _fields(self) -> dict[str, str]:
        return {str(label): field for label, field in self.source.labels.items()}

    @cached_property
    def _positions(self) -> dict[str, int]:
        schema = self.footer.schema
        return {schema.column(place).path: place for place in range(self.footer.num_columns)}

    @cached_property
    def _recipes(self) -> dict[str, Any]:
        detail = self.source.header.detail
        recipes = [each for count, each in detail["recipes"] for _ in range(count)]
        recipes += detail["index"].get("levels", [])
        return dict(zip(self.source.schema.names, recipes, strict=True))

    def type_of(self, field: str) -> Any:
        """The Arrow type of a column of the file."""
        return self.source.schema.field(field).type

    def position(self, field: str) -> int | None:
        """The column's number in the footer; None for a nested one."""
        return self._positions.get(field)

    def recipe(self, field: str) -> Mapping[str, Any]:
        """How a pandas column is stored in the file; empty for values of other libraries."""
        return self._recipes[field] if self.source.kind in PANDAS_KINDS else {}

    def batches(self, fields: Sequence[str]) -> Any:
        """The columns in batches."""
        data = ds.dataset(self.staged.path, format="parquet", partitioning=None)
        return data.to_batches(columns=list(fields))


Check = Callable[[Subject, Any], Finding]


def evaluate_checks(
    staged: StagedOutput,
    checks: Mapping[str, Any],
    *,
    previous: Path | None,
    value: Any | None,
    others: Mapping[str, Check] | None = None,
) -> tuple[CheckOutcome, ...]:
    """Evaluate an output's checks.

    Parameters
    ----------
    staged : StagedOutput
    checks : mapping
        As declared in the manifest: ``min_rows``, ``max_rows`` (rows), ``columns`` (name to type or
        None), ``not_null``, ``unique`` (names), ``range`` (column to ``[low, high]``),
        ``fresh_within`` (``{"column", "seconds"}``), ``schema`` (``"module:Name"``), and
        ``severity`` (one for all, or by check).
    previous : Path or None
        The output as it was last published.
    value : object or None
        The value itself, for ``schema``; read from the file if None.
    others : mapping of str to callable, optional
        Checks of other packages, by name.

    Returns
    -------
    tuple of CheckOutcome
        One for each check, in order. A check that cannot be evaluated fails and says why.
    """
    severity = checks.get("severity", "error")
    path = Path(staged.path)
    subject = Subject(staged, open_source(path), pq.read_metadata(path), previous, value)
    outcomes: list[CheckOutcome] = []
    for name, argument in checks.items():
        if name == "severity":
            continue
        finding = _evaluate(subject, name, argument, {**CHECKS, **(others or {})})
        outcomes.append(
            CheckOutcome(
                output=staged.name,
                check=name,
                passed=finding.passed,
                severity=severity if isinstance(severity, str) else severity.get(name, "error"),
                description=finding.description,
                metadata=finding.metadata,
            )
        )
    return tuple(outcomes)


def _evaluate(subject: Subject, name: str, argument: Any, known: Mapping[str, Check]) -> Finding:
    check = known.get(name)
    if check is None:
        hint = did_you_mean(name, known, label="Checks")
        return Finding(passed=False, description=f"there is no check '{name}'. {hint}", metadata={})
    try:
        return check(subject, argument)
    except Exception as error:  # noqa: BLE001 - the check fails, and with it the run
        return Finding(passed=False, description=first_line(error), metadata={})


def _rows(subject: Subject) -> int:
    return subject.staged.rows if subject.staged.rows is not None else subject.footer.num_rows


def _rows_metadata(subject: Subject) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": _rows(subject)}
    if subject.previous is not None:
        # If it cannot be read, that is not this output's fault.
        with contextlib.suppress(OSError, pa.ArrowException):
            found["previous_rows"] = pq.read_metadata(subject.previous).num_rows
    return found


def _min_rows(subject: Subject, least: int) -> Finding:
    rows = _rows(subject)
    return Finding(
        rows >= least, f"{rows} rows; at least {least} required", _rows_metadata(subject)
    )


def _max_rows(subject: Subject, most: int) -> Finding:
    rows = _rows(subject)
    return Finding(rows <= most, f"{rows} rows; at most {most} allowed", _rows_metadata(subject))


def _columns(subject: Subject, wanted: Any) -> Finding:
    types: Mapping[str, str | None] = (
        wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    )
    wrong: list[str] = []
    for name, text in types.items():
        try:
            field = subject.column(name)
        except StoreError as error:
            wrong.append(error.headline)
            continue
        kind = subject.type_of(field)
        if text is not None and not _is_type(text, kind, subject.recipe(field)):
            wrong.append(f"'{name}' is {_type_text(kind)}, not {text}")
    if wrong:
        return Finding(passed=False, description="; ".join(wrong[:EXAMPLES]), metadata={})
    description = f"all {len(types)} columns exist"
    return Finding(passed=True, description=description, metadata={})


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


_FAMILIES: dict[str, Callable[[Any], bool]] = {
    "int": pa.types.is_integer,
    "integer": pa.types.is_integer,
    "float": pa.types.is_floating,
    "number": lambda kind: (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    ),
    "bool": pa.types.is_boolean,
    "boolean": pa.types.is_boolean,
    "str": _is_text,
    "string": _is_text,
    "text": _is_text,
    "object": _is_text,
    "bytes": lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    "date": pa.types.is_date,
    "time": pa.types.is_time,
    "datetime": pa.types.is_timestamp,
    "timestamp": pa.types.is_timestamp,
    "timedelta": pa.types.is_duration,
    "duration": pa.types.is_duration,
    "decimal": pa.types.is_decimal,
    "list": lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind),
    "struct": pa.types.is_struct,
    "category": pa.types.is_dictionary,
    "categorical": pa.types.is_dictionary,
}


def _is_type(text: str, kind: Any, recipe: Mapping[str, Any]) -> bool:
    """Whether a type matches its name in the manifest: a family, or Arrow's or pandas' own name."""
    name = text.strip()
    family = _FAMILIES.get(name.lower())
    if family is not None:
        if name.lower().startswith("categor") and "coding" in recipe:
            return True
        return family(kind)
    own = _type_text(kind)
    lowered = name.lower().replace("double", "float64").replace("datetime64", "timestamp")
    lowered = lowered.replace("timedelta64", "duration").replace(", tz=", ", ").replace(" ", "")
    return lowered == own.lower().replace(", tz=", ", ").replace(" ", "")


def _type_text(kind: Any) -> str:
    """An Arrow type's familiar name: ``float64`` rather than ``double``."""
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(
        str(kind), str(kind)
    )


def _not_null(subject: Subject, names: Sequence[str]) -> Finding:
    missing: dict[str, int] = {}
    for name in names:
        count = _missing(subject, subject.column(name))
        if count:
            missing[name] = count
    if missing:
        shown = ", ".join(f"{count} in '{name}'" for name, count in missing.items())
        return Finding(
            passed=False, description=f"missing values: {shown}", metadata={"missing": missing}
        )
    return Finding(passed=True, description="no missing values", metadata={})


def _missing(subject: Subject, field: str) -> int:
    """Missing values of a column: nulls, and NaN among numbers."""
    kind = subject.type_of(field)
    recipe = subject.recipe(field)
    as_json_text = recipe.get("objects", {}).get("as") == "json"
    # pandas' own float columns have nulls for NaN in the file; other floats may have both.
    nan_is_null = "numpy" in recipe.get("dtype", {}) and "objects" not in recipe
    may_be_nan = pa.types.is_floating(kind) and not nan_is_null
    position = subject.position(field)
    if position is not None and not as_json_text and not may_be_nan:
        nulls = column_facts(subject.footer, position).nulls
        if nulls is not None:
            return nulls
    count = 0
    for batch in subject.batches([field]):
        column = batch.column(0)
        count += column.null_count
        if may_be_nan:
            count += pc.sum(pc.is_nan(column)).as_py() or 0
        if as_json_text:
            count += pc.sum(pc.is_in(column, pa.array(JSON_MISSING))).as_py() or 0
    return count


def _unique(subject: Subject, names: Sequence[str]) -> Finding:
    if isinstance(names, str):
        names = [names]
    fields = [subject.column(name) for name in names]
    table = ds.dataset(subject.staged.path, format="parquet", partitioning=None).to_table(
        columns=fields
    )
    plain = pa.table(
        {
            field: column.cast(column.type.value_type)
            if pa.types.is_dictionary(column.type)
            else column
            for field, column in zip(fields, table.columns, strict=True)
        }
    )
    counts = plain.group_by(fields).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts.column("count_all"), 1))
    extra = plain.num_rows - counts.num_rows
    what = " + ".join(names)
    if not extra:
        return Finding(passed=True, description=f"{what} identifies each row", metadata={})
    examples = [
        ", ".join(str(row[field]) for field in fields)
        for row in repeated.slice(0, EXAMPLES).to_pylist()
    ]
    return Finding(
        passed=False,
        description=f"{extra} rows have a duplicate {what}, such as {examples[0]}",
        metadata={"repeated": extra, "examples": examples},
    )


def _range(subject: Subject, ranges: Mapping[str, Sequence[Any]]) -> Finding:
    wrong: list[str] = []
    metadata: dict[str, Any] = {}
    for name, (low, high) in ranges.items():
        field = subject.column(name)
        kind = subject.type_of(field)
        least, greatest = _extremes(subject, field)
        metadata[name] = {"min": as_json(least), "max": as_json(greatest)}
        if least is None:
            continue
        if low is not None and _comparable(least) < _comparable(typed_value(low, kind)):
            wrong.append(f"'{name}' goes down to {as_json(least)} (at least {low} required)")
        if high is not None and _comparable(greatest) > _comparable(typed_value(high, kind)):
            wrong.append(f"'{name}' goes up to {as_json(greatest)} (at most {high} allowed)")
    description = "; ".join(wrong[:EXAMPLES]) if wrong else "all values are in range"
    return Finding(passed=not wrong, description=description, metadata=metadata)


def _comparable(value: Any) -> Any:
    """Times with a zone as UTC, days as their start, everything else unchanged."""
    if isinstance(value, datetime):
        naive = value.tzinfo is None
        return value.replace(tzinfo=timezone.utc) if naive else value.astimezone(timezone.utc)
    if isinstance(value, date):
        return datetime.combine(value, time(), timezone.utc)
    return value


def _extremes(subject: Subject, field: str) -> tuple[Any, Any]:
    """Least and greatest value of a column, from the footer if it says; None for no value."""
    kind = subject.type_of(field)
    position = subject.position(field)
    if position is not None and not pa.types.is_dictionary(kind):
        facts = column_facts(subject.footer, position)
        if facts.bounded:
            return facts.low, facts.high
    lows: list[Any] = []
    highs: list[Any] = []
    for batch in subject.batches([field]):
        column = batch.column(0)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_floating(column.type):
            column = column.filter(pc.invert(pc.is_nan(column)))
        pair = pc.min_max(column).as_py()
        if pair["min"] is not None:
            lows.append(pair["min"])
            highs.append(pair["max"])
    return min(lows, default=None), max(highs, default=None)


def _fresh_within(subject: Subject, wanted: Mapping[str, Any]) -> Finding:
    name = wanted.get("column") or _time_column(subject)
    field = subject.column(name)
    kind = subject.type_of(field)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise StoreError(f"'{name}' is {_type_text(kind)}, not a time")
    _, newest = _extremes(subject, field)
    limit = timedelta(seconds=float(wanted["seconds"]))
    if newest is None:
        return Finding(passed=False, description=f"'{name}' has no value", metadata={})
    now = datetime.now(timezone.utc)
    end = context().end
    # A past partition is measured against its own end: it cannot be fresher.
    reference = min(now, end.astimezone(timezone.utc)) if end is not None else now
    age = reference - _comparable(newest)
    return Finding(
        passed=age <= limit,
        description=f"newest '{name}' is {as_json(newest)}, {_span(age)} old, "
        f"at most {_span(limit)} wanted",
        metadata={"newest": as_json(newest), "age_s": age.total_seconds()},
    )


def _time_column(subject: Subject) -> str:
    names = {field: str(label) for label, field in subject.source.labels.items()}
    # The index first: a time series has its times there.
    for field in [*subject.source.levels, *names]:
        kind = subject.type_of(field)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return names[field]
    raise StoreError("no column has times", hint="Name one: fresh_within: {column: ...}")


def _span(length: timedelta) -> str:
    seconds = length.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _schema(subject: Subject, where: str) -> Finding:
    module, _, name = where.partition(":")
    try:
        schema: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        return Finding(passed=False, description=f"{where}: {error}", metadata={})
    value = read_output(Path(subject.staged.path)) if subject.value is None else subject.value
    try:
        schema.validate(value, lazy=True)
    except Exception as error:  # noqa: BLE001 - pandera may not be installed, so its errors cannot be named
        return _refused(where, error)
    return Finding(passed=True, description=f"{where} holds", metadata={})


def _refused(where: str, error: Exception) -> Finding:
    """A schema's objections: its failure cases if it lists them, else its first line."""
    cases: Any = getattr(error, "failure_cases", None)
    lines: list[str] = []
    count = 0
    with contextlib.suppress(TypeError, AttributeError, ValueError):
        count = len(cases)
        lines = [
            f"{row.get('column')}: {row.get('check')} ({row.get('failure_case')})"
            for row in cases.head(EXAMPLES).to_dict("records")
        ]
    first = lines[0] if lines else first_line(error)
    return Finding(
        passed=False,
        description=f"{where}: {first[:300]}",
        metadata={"failures": count, "examples": lines} if lines else {},
    )


CHECKS: dict[str, Check] = {
    "min_rows": _min_rows,
    "max_rows": _max_rows,
    "columns": _columns,
    "not_null": _not_null,
    "unique": _unique,
    "range": _range,
    "fresh_within": _fresh_within,
    "schema": _schema,
}
