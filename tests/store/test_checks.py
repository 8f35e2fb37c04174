"""Checks of a staged output: each one passing, failing, and not evaluable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_jobs.outcome import CheckOutcome, StagedOutput
from research_jobs.run_context import RunContext, set_context
from research_jobs.store import checks
from research_jobs.store.checks import CHECKS, Finding, Subject, evaluate_checks

FRAME = pd.DataFrame(
    {
        "n": [1, 2, 3],
        "f": [1.5, np.nan, -2],
        "s": ["a", "b", "b"],
        "o": np.array([1, "x", None], dtype=object),
        "c": pd.Categorical([1, 2, 2]),
        "l": [[1], None, [2]],
    },
    index=pd.date_range("2018-11-01", periods=3, tz="Europe/Zagreb", name="date").as_unit("us"),
)

CASES: list[tuple[Any, dict[str, Any], bool, str]] = [
    (FRAME, {"min_rows": 3}, True, "3 rows; at least 3"),
    (FRAME, {"min_rows": 4}, False, "3 rows; at least 4"),
    (FRAME, {"max_rows": 2}, False, "at most 2"),
    (FRAME, {"max_rows": 3}, True, "3 rows; at most 3"),
    ({"a": 1, "b": 2}, {"min_rows": 2}, True, "2 rows"),
    (FRAME, {"columns": ["n", "date"]}, True, "all 2 columns"),
    (FRAME, {"columns": {"n": "int", "f": "float64", "s": "str", "c": "category"}}, True, "all 4"),
    (FRAME, {"columns": {"date": "datetime64[us, Europe/Zagreb]", "l": "list"}}, True, "all 2"),
    (FRAME, {"columns": {"date": "timestamp[us, tz=Europe/Zagreb]"}}, True, "all 1"),
    (FRAME, {"columns": {"n": "float"}}, False, "'n' is int64, not float"),
    (FRAME, {"columns": ["N"]}, False, "no column 'N'. Did you mean 'n'?"),
    (FRAME, {"not_null": ["n", "s", "date"]}, True, "no missing"),
    (FRAME, {"not_null": ["f", "o", "l"]}, False, "1 in 'f', 1 in 'o', 1 in 'l'"),
    (
        pd.DataFrame({"x": pd.Series([np.nan], dtype=object)}),
        {"not_null": ["x"]},
        False,
        "1 in 'x'",
    ),
    (pl.DataFrame({"f": [1.0, float("nan"), None]}), {"not_null": ["f"]}, False, "2 in 'f'"),
    (FRAME, {"unique": ["n"]}, True, "n identifies each row"),
    (FRAME, {"unique": ["s", "n"]}, True, "s + n"),
    (FRAME, {"unique": ["s"]}, False, "1 rows have a duplicate s, such as b"),
    (FRAME, {"unique": ["s", "c"]}, False, "such as b, 2"),
    (pl.DataFrame({"k": [None, None, "a"]}), {"unique": ["k"]}, False, "1 rows have a duplicate"),
    (pl.DataFrame({"k": ["a", "a", "a"]}), {"unique": ["k"]}, False, "2 rows have a duplicate"),
    (
        pd.DataFrame({"x": pd.Series([pd.NaT, pd.NA, np.nan, None, 1, "x"], dtype=object)}),
        {"not_null": ["x"]},
        False,
        "4 in 'x'",
    ),
    (FRAME, {"range": {"n": [1, 3], "f": [-2, None]}}, True, "in range"),
    (
        FRAME,
        {"range": {"f": [0, 1]}},
        False,
        "'f' goes down to -2.0 (at least 0 required); 'f' goes",
    ),
    (FRAME, {"range": {"date": ["2018-11-01", "2018-11-03"]}}, True, "in range"),
    (FRAME, {"range": {"date": ["2018-11-02", None]}}, False, "at least 2018-11-02"),
    (FRAME, {"range": {"c": [1, 2]}}, True, "in range"),
    ([1.5, float("nan")], {"range": {"value": [0, 2]}}, True, "in range"),
    (pd.DataFrame({"n": np.array([], "f8")}), {"range": {"n": [0, 1]}}, True, "in range"),
    (FRAME, {"range": {"q": [0, 1]}}, False, "no column 'q'"),
    (FRAME, {"fresh_within": {"column": "n", "seconds": 1}}, False, "'n' is int64, not a time"),
    (FRAME, {"fresh_within": {"column": None, "seconds": 1}}, False, "newest 'date' is 2018-11-02"),
    ([1], {"fresh_within": {"column": None, "seconds": 1}}, False, "no column has times"),
    (FRAME, {"min_row": 3}, False, "no check 'min_row'. Did you mean 'min_rows'"),
    (FRAME, {"schema": "missing_module:Name"}, False, "No module named"),
]


def one(staged: StagedOutput, declared: dict[str, Any], value: Any = None) -> CheckOutcome:
    (outcome,) = evaluate_checks(staged, declared, previous=None, value=value)
    return outcome


@pytest.mark.parametrize(
    ("value", "declared", "passed", "text"),
    CASES,
    ids=[f"{next(iter(case[1].items()))} {number}" for number, case in enumerate(CASES)],
)
def test_a_check(
    stage: Callable[..., StagedOutput],
    value: Any,
    declared: dict[str, Any],
    passed: bool,
    text: str,
) -> None:
    """Each check passes or fails as it should and says in one line what it found."""
    outcome = one(stage(value), declared)
    assert (outcome.passed, outcome.output) == (passed, "value")
    assert text in outcome.description
    assert len(outcome.description.splitlines()) == 1


def test_statistics_suffice_where_they_can(
    stage: Callable[..., StagedOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nulls, ranges and freshness of pandas columns are answered without reading any data."""
    monkeypatch.setattr(checks.Subject, "batches", lambda *_: pytest.fail("data was read"))
    declared = {
        "min_rows": 1,
        "columns": ["n"],
        "not_null": ["n", "f"],
        "range": {"n": [0, 9], "f": [-9, 9]},
        "fresh_within": {"column": "date", "seconds": 1e12},
    }
    found = evaluate_checks(stage(FRAME), declared, previous=None, value=FRAME)
    assert [outcome.passed for outcome in found] == [True, True, False, True, True]


def test_without_statistics_the_data_is_read(stage: Callable[..., StagedOutput]) -> None:
    """A file written without statistics gives the same answers."""
    declared = {"not_null": ["f"], "range": {"n": [0, 2]}}
    found = evaluate_checks(stage(FRAME, statistics=False), declared, previous=None, value=None)
    assert [outcome.description for outcome in found] == [
        "missing values: 1 in 'f'",
        "'n' goes up to 3 (at most 2 allowed)",
    ]


def test_fresh_rows_are_fresh(stage: Callable[..., StagedOutput]) -> None:
    """Rows of an hour ago are within two hours, and not within a minute."""
    now = datetime.now(timezone.utc) - timedelta(hours=1)
    staged = stage(pd.DataFrame({"at": [pd.Timestamp(now)]}))
    assert one(staged, {"fresh_within": {"column": "at", "seconds": 7200}}).passed
    assert not one(staged, {"fresh_within": {"column": "at", "seconds": 60}}).passed


def test_a_partition_of_the_past_is_measured_at_its_end(
    stage: Callable[..., StagedOutput],
) -> None:
    """A backfill of an old day is fresh when its rows reach the end of that day."""
    end = datetime(2018, 11, 4, tzinfo=timezone.utc)
    set_context(RunContext(end=end, in_batch=True))
    try:
        assert one(stage(FRAME), {"fresh_within": {"column": None, "seconds": 2 * 86400}}).passed
    finally:
        set_context(RunContext())


def test_a_partition_that_has_not_ended_is_measured_now(
    stage: Callable[..., StagedOutput],
) -> None:
    """Rows of today are fresh on the first day of a month, not as old as its end is far."""
    now = datetime.now(timezone.utc)
    set_context(RunContext(end=now + timedelta(days=30), in_batch=True))
    try:
        staged = stage(pd.DataFrame({"at": [pd.Timestamp(now - timedelta(hours=1))]}))
        assert one(staged, {"fresh_within": {"column": "at", "seconds": 7200}}).passed
    finally:
        set_context(RunContext())


def test_freshness_is_that_of_the_index(stage: Callable[..., StagedOutput]) -> None:
    """Where no column is named, a time series' index counts before its columns of times."""
    now = pd.Timestamp(datetime.now(timezone.utc))
    frame = pd.DataFrame({"issued": [pd.Timestamp("2001-01-01", tz="UTC")]}, index=[now])
    assert one(stage(frame), {"fresh_within": {"column": None, "seconds": 3600}}).passed


def test_severity_is_given_by_check(stage: Callable[..., StagedOutput]) -> None:
    """One severity for all, one by check, and error where nothing is said."""
    staged = stage([1])
    declared: dict[str, Any] = {"min_rows": 1, "max_rows": 1}
    for severity, wanted in (
        ("warn", ["warn", "warn"]),
        ({"min_rows": "warn"}, ["warn", "error"]),
        (None, ["error", "error"]),
    ):
        extra = {} if severity is None else {"severity": severity}
        found = evaluate_checks(staged, declared | extra, previous=None, value=None)
        assert [outcome.severity for outcome in found] == wanted


def test_rows_are_compared_with_the_previous_output(
    stage: Callable[..., StagedOutput],
) -> None:
    """The rows there were before stand beside the rows there are; a damaged file is no matter."""
    previous = Path(stage([1, 2], "old").path)
    staged = stage([1, 2, 3])
    (outcome,) = evaluate_checks(staged, {"min_rows": 1}, previous=previous, value=None)
    assert outcome.metadata == {"rows": 3, "previous_rows": 2}
    previous.write_bytes(b"")
    (outcome,) = evaluate_checks(staged, {"min_rows": 1}, previous=previous, value=None)
    assert outcome.metadata == {"rows": 3}


def test_a_pandera_schema(
    stage: Callable[..., StagedOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema class or object of a module of the project is applied to the value."""
    (tmp_path / "store_test_schemas.py").write_text(
        "import pandera.pandas as pa\n"
        "class Prices(pa.DataFrameModel):\n    n: int = pa.Field(ge=2)\n"
        "OBJECT = pa.DataFrameSchema({'n': pa.Column(int)})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    staged = stage(FRAME)
    bad = one(staged, {"schema": "store_test_schemas:Prices"}, FRAME)
    assert not bad.passed
    assert "n: greater_than_or_equal_to(2) (1)" in bad.description
    assert bad.metadata["failures"] == 1
    assert one(staged, {"schema": "store_test_schemas:OBJECT"}).passed
    missing = one(staged, {"schema": "store_test_schemas:Nothing"}, FRAME)
    assert "no attribute 'Nothing'" in missing.description


def test_a_check_that_arrow_cannot_do_fails_with_a_reason(
    stage: Callable[..., StagedOutput],
) -> None:
    """Lists cannot be grouped: the check fails, the run does not."""
    outcome = one(stage(pa.table({"l": [[1], [1]]})), {"unique": ["l"]})
    assert not outcome.passed
    assert outcome.description


@pytest.mark.parametrize("error", [ValueError(""), KeyError("field")])
def test_a_check_that_breaks_fails_with_a_reason(
    error: Exception, stage: Callable[..., StagedOutput]
) -> None:
    """Whatever a check of another package raises, even without a word, is its failure."""

    def broken(_: Subject, __: Any) -> Finding:
        raise error

    (outcome,) = evaluate_checks(
        stage(FRAME), {"own": 1}, previous=None, value=None, others={"own": broken}
    )
    assert not outcome.passed
    assert outcome.description in ("ValueError", "'field'")


def test_every_check_of_the_manifest_is_known() -> None:
    """The manifest's checks and these are the same."""
    manifest = pytest.importorskip("research_jobs.manifest", exc_type=ImportError)
    declared = manifest.OutputSpec.model_validate(
        {
            "min_rows": 1,
            "max_rows": 1,
            "columns": ["a"],
            "not_null": ["a"],
            "unique": ["a"],
            "range": {"a": [0, 1]},
            "fresh_within": "1d",
            "schema": "module:Name",
            "changed": {"max_share": 1},
        }
    )
    assert set(CHECKS) | {"changed"} == set(declared.checks()) - {"severity"}
