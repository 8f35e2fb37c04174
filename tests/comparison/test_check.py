"""The check `changed`: an output against its previous version."""

# ruff: noqa: E501 - a case is one line
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research_jobs.comparison.check import changed
from research_jobs.outcome import CheckOutcome
from research_jobs.store.checks import evaluate_checks
from research_jobs.store.codec import write_output

PRICES = pd.DataFrame(
    {"day": pd.date_range("2018-11-01", periods=10), "close": np.arange(10) + 1.0, "name": "a"}
)
FALLEN = PRICES.assign(close=[1.0, 1.0, *PRICES.close[2:]])


def evaluate(folder: Path, before: Any, after: Any, limits: dict[str, Any]) -> CheckOutcome:
    previous = None
    if before is not None:
        previous = Path(write_output("x", before, folder / "old.pq", options={}, metadata={}).path)
    staged = write_output("x", after, folder / "new.pq", options={}, metadata={})
    (outcome,) = evaluate_checks(
        staged, {"changed": limits}, previous=previous, value=after, others={"changed": changed}
    )
    return outcome


@pytest.mark.parametrize(
    ("before", "after", "limits", "passed", "said"),
    [
        (None, PRICES, {"max_share": 0.0}, True, "there is no previous version yet"),
        (PRICES, PRICES, {"max_share": 0.0}, True, "0 of 10 rows changed or gone"),
        (PRICES, FALLEN, {"max_share": 0.1}, True, "1 of 10 rows changed or gone (0.1 of them); close: 1 values, largest -1 (50 %) at 2018-11-02: 2 -> 1"),
        (PRICES, FALLEN, {"max_share": 0.05}, False, "1 of 10 rows changed or gone (0.1 of them), at most 0.05 allowed"),
        (PRICES, PRICES[:8], {"max_share": 0.1}, False, "2 of 10 rows changed or gone"),
        (PRICES[:8], PRICES, {"max_share": 0.0}, True, "0 of 8 rows"),
        (PRICES[:0], PRICES, {"max_share": 0.0}, True, "0 of 0 rows"),
        (PRICES, FALLEN, {"max_change": {"close": {"relative": 0.4}}}, False, "close: -1 (50 %) at 2018-11-02: 2 -> 1, at most 40 % allowed"),
        (PRICES, FALLEN, {"max_change": {"close": {"relative": 0.5}}}, True, "1 of 10 rows"),
        (PRICES, FALLEN, {"max_change": {"close": {"absolute": 0.9}}}, False, "at most 0.9 allowed"),
        (PRICES, FALLEN, {"max_change": {"close": {"absolute": 1.0}}}, True, "1 of 10 rows"),
        (PRICES, FALLEN, {"max_share": 0.0, "tolerance": 0.6}, True, "0 of 10 rows"),
        (PRICES, FALLEN, {"max_change": {"clos": {"absolute": 1.0}}}, False, "no column 'clos'. Did you mean 'close'?"),
        (PRICES, PRICES, {"max_change": {"clos": {"absolute": 1.0}}}, False, "no column 'clos'"),
        (PRICES, PRICES.assign(name="b"), {"max_change": {"name": {"relative": 1.0}}}, False, "'name' has no numbers"),
        (PRICES, PRICES.drop(columns="close"), {"max_change": {"close": {"relative": 9.0}}}, False, "close: gone"),
        (PRICES, {"a": 1}, {"max_share": 1.0}, False, "pandas.DataFrame became dict"),
        ({"a": {"b": 1.0}}, {"a": {"b": 2.0}}, {"max_change": {"a.b": {"relative": 0.5}}}, False, "a.b: 1 -> 2, at most 50 % allowed"),
        ({"a": {"b": 1.0}}, {"a": {"b": 2.0}}, {"max_change": {"a.b": {"relative": 1.0}}}, True, "1 of 1 values changed or gone (1 of them); a.b: 1 -> 2"),
        (0.0, 1.0, {"max_change": {"": {"relative": 9.0}}}, False, "0 -> 1"),
    ],
)  # fmt: skip
def test_limits(
    tmp_path: Path, before: Any, after: Any, limits: dict[str, Any], passed: bool, said: str
) -> None:
    """Each limit holds exactly, and the message says what moved."""
    outcome = evaluate(tmp_path, before, after, limits)
    assert said in outcome.description
    assert outcome.passed is passed
    assert len(outcome.description.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []


@pytest.mark.parametrize(
    ("damage", "said"), [(0, "the previous version is gone"), (1, "is not compared: ")]
)
def test_a_previous_version_that_cannot_be_read(tmp_path: Path, damage: int, said: str) -> None:
    """If it was pruned meanwhile, or is damaged, the check passes and says so."""
    if damage:
        path = Path(write_output("x", PRICES, tmp_path / "pruned.pq", options={}, metadata={}).path)
        path.write_bytes(b"PAR1" + b"\0" * 400 + path.read_bytes()[404:])
    staged = write_output("x", PRICES, tmp_path / "new.pq", options={}, metadata={})
    (outcome,) = evaluate_checks(
        staged,
        {"changed": {"max_share": 0.0}},
        previous=tmp_path / "pruned.pq",
        value=None,
        others={"changed": changed},
    )
    assert outcome.passed
    assert said in outcome.description
