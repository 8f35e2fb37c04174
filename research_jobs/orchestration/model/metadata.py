"""What a materialisation says about itself in Dagster's UI.

All of it comes from the run's record: nothing here reads a file of data. The whole stays below
`LIMIT` bytes, because Dagster keeps it in the event's row and, once more, in the asset's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import dagster as dg
from dagster_shared.serdes import serialize_value

from research_jobs.orchestration.model.causes import failure_reason, is_interruption
from research_jobs.outcome import Failure, Outcome, StagedOutput, State, from_json, to_json

__all__ = [
    "LIMIT",
    "OUTCOME",
    "ROWS",
    "code_block",
    "fit",
    "materialization_metadata",
    "outcome_metadata",
    "read_failure",
    "read_outcome",
    "record_of",
]

OUTCOME = "outcome"
"""The entry that holds the record of what became of a notebook."""

OUTCOME_LIMIT = 20_000

LIMIT = 100_000
SCHEMA_LIMIT = 40_000
# What JSON makes of one character at most: a pair of surrogates, ``\ud83d\ude00``.
_LONGEST_ESCAPE = 12
ROWS = "dagster/row_count"
PARTITION_ROWS = "dagster/partition_row_count"
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 12
CELL_WIDTH = 60
STATISTICS_COLUMNS = 40

# Dropped first when the whole is too large; what is not named stays to the last.
_EXPENDABLE = ("statistics", "preview", "parameters", "notes", "dagster/column_schema", "chart")

Metadata = dict[str, dg.MetadataValue[Any]]


def materialization_metadata(
    outcome: Outcome,
    *,
    code_version: str | None,
    previous_rows: Mapping[str, int],
    partitioned: bool,
    report: Mapping[str, dg.MetadataValue[Any]] | None = None,
) -> Metadata:
    """The metadata of one materialisation.

    The first declared output is the asset's principal one: its rows and columns have the names
    that Dagster's UI knows. Those of the others are prefixed with the output's name.

    Parameters
    ----------
    outcome : Outcome
        Of a run that succeeded. Outputs without a path that other tools read have no path entry.
    code_version : str or None
    previous_rows : mapping of str to int
        Rows of each output at the materialisation before, where there was one.
    partitioned : bool
        Whether this is one partition of several.
    report : mapping, optional
        Entries that lead to the run's report.

    Returns
    -------
    dict
        At most `LIMIT` bytes as Dagster stores it.
    """
    entries: Metadata = {**(report or {}), **record_of(outcome)}
    for position, staged in enumerate(outcome.outputs):
        prefix = "" if position == 0 else f"{staged.name}/"
        entries |= _output_metadata(
            staged,
            prefix=prefix,
            before=previous_rows.get(staged.name),
            partitioned=partitioned,
        )
    entries |= outcome_metadata(outcome)
    if code_version:
        entries["code_version"] = dg.MetadataValue.text(code_version)
    return fit(entries)


def outcome_metadata(outcome: Outcome) -> Metadata:
    """The record of an outcome, and what a person reads of it: time, memory, parameters, notes."""
    entries: Metadata = record_of(outcome)
    if outcome.state.ended:
        entries["duration_s"] = dg.MetadataValue.float(round(outcome.duration_s, 3))
        entries["cpu_s"] = dg.MetadataValue.float(round(outcome.cpu_s, 3))
        entries["peak_memory_bytes"] = dg.MetadataValue.int(outcome.peak_memory_bytes)
    if outcome.parameters:
        entries["parameters"] = dg.MetadataValue.json(dict(outcome.parameters))
    if outcome.notes:
        entries["notes"] = dg.MetadataValue.text("\n".join(outcome.notes)[:4000])
    return entries


def record_of(outcome: Outcome) -> Metadata:
    """The entry that holds the record."""
    # Parameters and notes are beside it, as entries of their own.
    record = to_json(replace(outcome, parameters={}, notes=()))
    for bulky in ("checks", "failure", "outputs"):
        if len(json.dumps(record)) > OUTCOME_LIMIT:
            del record[bulky]
    return {OUTCOME: dg.MetadataValue.json(record)}


def read_outcome(metadata: Mapping[str, Any], state: State, reason: str | None = None) -> Outcome:
    """The outcome that the metadata of an event holds.

    Parameters
    ----------
    metadata : mapping
        Of a materialisation, an observation or a step's failure.
    state, reason
        What the event itself says, for metadata without a record: that of earlier versions, and
        of steps that failed before there was one.

    Returns
    -------
    Outcome
    """
    values = {key: getattr(entry, "value", None) for key, entry in metadata.items()}
    record = values.get(OUTCOME)
    found = from_json(record) if isinstance(record, Mapping) else None
    if found is not None:
        return found
    earlier = from_json(
        {
            "ending": values.get("ending", state),
            "reason": reason,
            "duration_s": values.get("duration_s"),
            "report": values.get("report_file"),
        }
    ) or Outcome(state)
    return earlier if earlier.state.ok else replace(earlier, failure=Failure(reason or ""))


def read_failure(data: Any) -> Outcome:
    """The outcome of a step that failed, from the data of Dagster's event."""
    if is_interruption(data):
        return Outcome(State.CANCELLED, failure=Failure("interrupted"))
    said = data.user_failure_data
    reason = failure_reason(data)
    text = f"{reason.line}\n{reason.rest}"
    return read_outcome(said.metadata if said else {}, State.FAILED, text)


def _output_metadata(
    staged: StagedOutput, *, prefix: str, before: int | None, partitioned: bool
) -> Metadata:
    entries: Metadata = {}
    if staged.rows is not None:
        # Dagster plots whole-table rows and rows of a partition as two different series.
        entries[_rows_key(prefix, partitioned=partitioned)] = dg.MetadataValue.int(staged.rows)
        if before is not None:
            entries[f"{prefix}rows_change"] = dg.MetadataValue.int(staged.rows - before)
    if staged.path:
        entries[f"{prefix}path"] = dg.MetadataValue.path(staged.path)
    entries[f"{prefix}size_bytes"] = dg.MetadataValue.int(staged.bytes)
    entries[f"{prefix}kind"] = dg.MetadataValue.text(staged.kind)
    preview = _preview(staged.preview)
    if preview:
        entries[f"{prefix}preview"] = dg.MetadataValue.md(preview)
    statistics = _statistics(staged)
    if statistics:
        entries[f"{prefix}statistics"] = dg.MetadataValue.md(statistics)
        nulls = [values["nulls"] for values in staged.statistics.values() if _counted(values)]
        if nulls:
            entries[f"{prefix}nulls"] = dg.MetadataValue.int(sum(nulls))
    if staged.columns:
        key = f"{prefix}dagster/column_schema" if prefix == "" else f"{prefix}column_schema"
        entries[key] = dg.MetadataValue.table_schema(_schema(staged.columns))
    entries |= _time_span(staged, prefix)
    return entries


def _rows_key(prefix: str, *, partitioned: bool) -> str:
    if prefix:
        return f"{prefix}rows"
    return PARTITION_ROWS if partitioned else ROWS


def _schema(columns: Sequence[tuple[str, str]]) -> dg.TableSchema:
    shown: list[dg.TableColumn] = []
    size = 0
    for name, type_ in columns:
        # A column's record is about 180 bytes beside its name and type.
        size += 180 + len(name.encode()) + len(type_.encode())
        if size > SCHEMA_LIMIT:
            left = len(columns) - len(shown)
            shown.append(dg.TableColumn(f"… {left} more columns", "", description="Left out here."))
            break
        shown.append(dg.TableColumn(name or " ", type_))
    return dg.TableSchema(columns=shown)


def _preview(preview: Mapping[str, Any]) -> str:
    columns = list(preview.get("columns", ()))
    if not columns:
        return ""
    left = len(columns) - PREVIEW_COLUMNS
    shown = PREVIEW_COLUMNS - 1 if left > 0 else PREVIEW_COLUMNS
    names = [_cell(str(name)) for name in columns[:shown]]
    rows = [
        [_cell(value) for value in row[:shown]]
        for row in islice(preview.get("rows", ()), PREVIEW_ROWS)
    ]
    if left > 0:
        names.append(f"… {left + 1} more")
        rows = [[*row, "…"] for row in rows]
    return _table(names, rows)


def _statistics(staged: StagedOutput) -> str:
    types = dict(staged.columns)
    rows = [
        [
            _cell(column),
            _cell(types.get(column, "")),
            str(values["nulls"]) if _counted(values) else "",
            _cell(values.get("min", "")),
            _cell(values.get("max", "")),
        ]
        for column, values in islice(staged.statistics.items(), STATISTICS_COLUMNS)
    ]
    if not rows:
        return ""
    table = _table(["column", "type", "nulls", "min", "max"], rows)
    left = len(staged.statistics) - len(rows)
    return f"{table}\n\n… and {left} more columns" if left else table


def _counted(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("nulls"), int)


def _time_span(staged: StagedOutput, prefix: str) -> Metadata:
    """First and last moment of the first column of time, as text that sorts."""
    for column, type_ in staged.columns:
        values = staged.statistics.get(column, {})
        if type_.startswith(("timestamp", "date")) and values.get("min") is not None:
            return {
                f"{prefix}{column} from": dg.MetadataValue.text(str(values["min"])),
                f"{prefix}{column} to": dg.MetadataValue.text(str(values.get("max"))),
            }
    return {}


def _cell(value: Any) -> str:
    if isinstance(value, float) and not math.isnan(value):
        text = f"{value:.6g}"
    else:
        text = "" if value is None else str(value)
    text = " ".join(text.split())
    if len(text) > CELL_WIDTH:
        text = text[: CELL_WIDTH - 1] + "…"
    # What a cell holds must stay text: no table border, no HTML, no link, no emphasis.
    for mark in "\\|<>`*_[]!":
        text = text.replace(mark, f"\\{mark}")
    return text


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_line(columns), _line(["---"] * len(columns)), *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def code_block(text: str, language: str = "", limit: int = 20_000) -> str:
    """Text as a fenced block of Markdown that it cannot break out of."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n… {len(text) - limit} characters left out …\n{text[-half:]}"
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def fit(entries: Metadata, limit: int = LIMIT) -> Metadata:
    """Entries that together stay within the limit: the most expendable are dropped.

    Parameters
    ----------
    entries : dict
    limit : int
        Bytes, as Dagster stores them.
    """
    text = sum(len(str(value.value)) for value in entries.values())
    if text * _LONGEST_ESCAPE + len(entries) * 1_000 < limit:
        return entries  # as nearly always, without the millisecond that their exact sizes take
    sizes = {key: _size(key, value) for key, value in entries.items()}
    total = sum(sizes.values())
    if total <= limit:
        return entries
    dropped: list[str] = []
    for kind in _EXPENDABLE:
        for key in sorted(entries, key=lambda name: -sizes[name]):
            if total <= limit - 200:
                break
            if key not in dropped and key.rsplit("/", 1)[-1] == kind.rsplit("/", 1)[-1]:
                dropped.append(key)
                total -= sizes[key]
    # Hundreds of outputs, each small: keep the first ones.
    kept: Metadata = {}
    used = 200
    for key, value in entries.items():
        if key in dropped:
            continue
        if used + sizes[key] > limit:
            dropped.append(key)
            continue
        used += sizes[key]
        kept[key] = value
    kept["left_out"] = dg.MetadataValue.text(f"{len(dropped)} entries, too large to keep here")
    return kept


def _size(key: str, value: dg.MetadataValue[Any]) -> int:
    text = serialize_value(value)  # pyright: ignore[reportArgumentType] - every value is one
    return len(key) + 8 + len(text)
