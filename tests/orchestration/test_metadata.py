"""The metadata of a materialisation: what is there, and that it is never too much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
from dagster_shared.serdes import serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.orchestration.model.metadata import (
    LIMIT,
    code_block,
    materialization_metadata,
    read_outcome,
)
from research_jobs.outcome import Outcome, StagedOutput, State


def staged(name: str = "prices", columns: int = 2, text: str = "x", rows: int = 3) -> StagedOutput:
    names = [f"column_{number}" for number in range(columns)]
    return StagedOutput(
        name=name,
        path="/tmp/x",
        kind="pandas.DataFrame",
        rows=rows,
        bytes=100,
        columns=tuple((item, "string") for item in names),
        preview={"columns": names, "rows": [[text] * columns] * rows},
        statistics={item: {"min": text, "max": text, "nulls": 1} for item in names},
    )


def metadata_of(*outputs: StagedOutput, **options: Any) -> dict[str, Any]:
    paths = options.pop("paths", {})
    outputs = tuple(replace(output, path=paths.get(output.name, "")) for output in outputs)
    result = Outcome(State.SUCCEEDED, outputs=outputs, duration_s=1.0)
    defaults: dict[str, Any] = {
        "code_version": "abc",
        "previous_rows": {},
        "partitioned": False,
    }
    return materialization_metadata(result, **defaults | options)


def record(metadata: dict[str, Any]) -> Outcome:
    return read_outcome(metadata, State.FAILED)


def size(metadata: dict[str, Any]) -> int:
    return sum(len(key) + len(serialize_value(value)) for key, value in metadata.items())


def test_the_principal_output_has_dagsters_own_names() -> None:
    """Row count and columns stand where the UI looks; other outputs carry their name."""
    found = metadata_of(
        staged("prices"),
        staged("summary", rows=7),
        paths={"prices": "/d/prices.parquet"},
        previous_rows={"prices": 1, "summary": 7},
    )
    assert found["dagster/row_count"].value == 3
    assert found["rows_change"].value == 2
    assert found["summary/rows"].value == 7
    assert found["summary/rows_change"].value == 0
    assert found["path"].value == "/d/prices.parquet"
    assert found["nulls"].value == 2
    schema = found["dagster/column_schema"].value
    assert [(c.name, c.type) for c in schema.columns] == [
        ("column_0", "string"),
        ("column_1", "string"),
    ]
    assert isinstance(found["dagster/row_count"], dg.IntMetadataValue)
    assert {it.name: it.rows for it in record(found).outputs} == {"prices": 3, "summary": 7}


def test_rows_of_a_partition_are_not_the_tables() -> None:
    """Dagster plots the two as different series."""
    found = metadata_of(staged(), partitioned=True)
    assert "dagster/row_count" not in found
    assert found["dagster/partition_row_count"].value == 3
    assert record(found).outputs[0].rows == 3


def test_a_time_column_says_from_when_to_when() -> None:
    """First and last moment of the first column of time."""
    output = StagedOutput(
        "prices",
        "/x",
        "pandas.DataFrame",
        2,
        10,
        columns=(("close", "double"), ("date", "timestamp[ns]")),
        statistics={"date": {"min": "2024-01-01", "max": "2024-01-02", "nulls": 0}},
    )
    found = metadata_of(output)
    assert found["date from"].value == "2024-01-01"
    assert found["date to"].value == "2024-01-02"


def test_preview_cells_stay_in_their_cells() -> None:
    """Borders, tags, links and line breaks in a value are text."""
    found = metadata_of(staged(text="a|b\n<script>[x](javascript:y)"))
    lines = found["preview"].value.split("\n")
    assert len(lines) == 5
    assert "\\<script\\>" in lines[2]
    assert "a\\|b" in lines[2]


@settings(max_examples=10, deadline=None)
@given(
    columns=st.sampled_from([1, 40, 2000]),
    outputs=st.sampled_from([1, 5, 300]),
    text=st.sampled_from(["x", "é" * 500, '"' * 500]),
)
def test_never_more_than_the_limit(columns: int, outputs: int, text: str) -> None:
    """Wide tables, many outputs, long values: the whole stays within 100 kB."""
    made = [staged(f"output_{n}", columns if n < 3 else 3, text) for n in range(outputs)]
    found = metadata_of(*made, paths={item.name: "/p" * 50 for item in made})
    assert size(found) <= LIMIT
    assert found["dagster/row_count"].value == 3
    assert record(found).state is State.SUCCEEDED


def test_code_cannot_leave_its_block() -> None:
    """A fence in the text makes the block's own longer; very long text loses its middle."""
    assert code_block("a\n```\nb").startswith("````\n")
    assert "left out" in code_block("x" * 50_000)
    assert len(code_block("x" * 50_000)) < 21_000
