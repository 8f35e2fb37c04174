"""The manifest's checks as Dagster's asset checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.model.checks import CheckTally, check_specs
from research_jobs.outcome import CheckOutcome

TWO = "# %%\nimport pandas as pd\nprices = pd.DataFrame({'a': [1, 2]})\n"
NONE = "# %%\nimport pandas as pd\nprices = pd.DataFrame({'a': []})\n"


def test_checks_that_pass(lab: Any) -> None:
    """Each is evaluated once and stands in Dagster under output and check."""
    lab.write(
        {"market": TWO},
        "notebooks: {market: {outputs: {prices: {min_rows: 1, not_null: [a], unique: [a]}}}}\n",
    )
    run = lab.materialize("market")
    assert run.success, run.errors
    checks = run.checks()
    assert sorted(checks) == ["prices_min_rows", "prices_not_null", "prices_unique"]
    assert all(check.passed for check in checks.values())


def test_an_error_keeps_the_previous_output(lab: Any) -> None:
    """The new one is kept aside and its path reported; nothing downstream runs."""
    lab.write(
        {
            "market": TWO,
            "report": "# %%\nfrom research_jobs import load\nx = len(load('market', 'prices'))\n",
        },
        "notebooks: {market: {outputs: {prices: {min_rows: 1}}}, report: {outputs: [x]}}\n",
    )
    assert lab.materialize("market", "report").success
    path = lab.root / "data/market/prices.parquet"
    before = path.read_bytes()
    lab.write({"market": NONE})
    run = lab.materialize("market", "report")
    assert run.steps("STEP_FAILURE") == ["market"]
    assert run.steps("STEP_START") == ["market"]
    assert path.read_bytes() == before
    failure = run.failure("market")
    assert "output 'prices' failed the check min_rows" in failure.description
    aside = Path(failure.metadata["kept_aside"].value)
    assert aside.is_dir()
    assert str(aside) in failure.description
    (check,) = run.checks().values()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR


def test_a_warning_is_published(lab: Any) -> None:
    """The check fails as a warning; the step and what is downstream go on."""
    lab.write(
        {"market": NONE},
        "notebooks: {market: {outputs: {prices: {min_rows: 1, severity: warn}}}}\n",
    )
    run = lab.materialize("market")
    assert run.success, run.errors
    (check,) = run.checks().values()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert len(run.materializations("market")) == 1


def test_an_error_blocks_and_a_warning_does_not() -> None:
    """Dagster holds back what is downstream of a failed error alone."""
    declared = {"min_rows": 1, "not_null": ["a"], "severity": {"min_rows": "warn"}}
    spec = NotebookSpec.model_validate({"outputs": {"prices": declared}})
    found = check_specs(dg.AssetKey("market"), spec.outputs)
    assert {check.name: check.blocking for check in found} == {
        "prices_min_rows": False,
        "prices_not_null": True,
    }


def test_many_partitions_are_one_result() -> None:
    """It passes when all did; else it says which partitions did not."""
    tally = CheckTally(dg.AssetKey("s"), ["rows_min_rows"])
    for number in range(30):
        passed = number % 2 == 0
        tally.add(
            f"p{number}", [CheckOutcome("rows", "min_rows", passed, description=f"{number} rows")]
        )
    tally.add("p0", [CheckOutcome("rows", "unique", passed=False)])  # not selected
    (result,) = tally.results({"kept_aside": dg.MetadataValue.path("/x")})
    assert not result.passed
    assert result.description == "15 of 30 partitions: p1: 1 rows"
    assert result.metadata["partitions"].value[:2] == ["p1", "p3"]
    assert result.metadata["kept_aside"].value == "/x"
