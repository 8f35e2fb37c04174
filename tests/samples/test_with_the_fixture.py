"""A sample notebook tested as a researcher would, and what a mistake in it does to the test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from research_jobs.testing.plugin import RunNotebook

pytest_plugins = ["research_jobs.testing.plugin"]

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = pd.DataFrame(
    {"sp500": [100.0, 110, 99], "nasdaq": [50.0, 55, 60], "wti": [60.0, 60, 61]},
    index=pd.date_range("2018-11-01", periods=3, name="date"),
)


def performance_report(notebook: RunNotebook, project: Path) -> Any:
    """The report over three days."""
    inputs = {("market_data", "prices"): SAMPLE}
    parameters = {"window": 2}
    return notebook(
        "performance_report", inputs=inputs, parameters=parameters, strict=True, project=project
    )


def check_drawdown(report: Any) -> None:
    """The index fell by a tenth, and its chart is there."""
    assert report["perf_df"].loc["sp500", "max_drawdown"] == pytest.approx(-0.1)
    assert report["drawdowns"]["nasdaq"].tolist() == [0, 0, 0]
    drawdowns, *_, months = report.figures
    assert drawdowns.title == "Drawdowns"
    assert drawdowns.png.startswith(b"\x89PNG")
    assert months.plotly["data"][0]["type"] == "heatmap"
    assert report.stdout.startswith("Best by Sharpe ratio: ")


def test_the_drawdown_is_from_the_highest_close(notebook: RunNotebook) -> None:
    """Three prices with a known drawdown give that drawdown."""
    check_drawdown(performance_report(notebook, ROOT))


def test_a_mistake_in_the_notebook_fails_the_test(notebook: RunNotebook, tmp_path: Path) -> None:
    """The same test fails on a notebook whose drawdown is from the lowest close."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    helper = tmp_path / "notebooks" / "frames.py"
    text = helper.read_text(encoding="utf-8")
    helper.write_text(text.replace("prices.cummax()", "prices.cummin()"), encoding="utf-8")
    report = performance_report(notebook, tmp_path)
    with pytest.raises(AssertionError):
        check_drawdown(report)


def test_the_samples_are_tested_by_the_manifest() -> None:
    """Each sample with inputs names a file that is there."""
    from research_jobs.manifest import load_manifest
    from research_jobs.project import find_project

    names = ["market_data", "performance_report", "volatility/garch", "momentum_signals"]
    manifest = load_manifest(find_project(ROOT), names)
    assert manifest.problems == ()
    tested = {name: spec.test for name, spec in manifest.notebooks.items() if spec.test}
    assert sorted(tested) == sorted(names[1:])
    for sample in tested.values():
        assert all((ROOT / file).is_file() for *_, file in sample.files())
