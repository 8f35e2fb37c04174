"""The sample notebooks: plain Python, honest numbers, and what the README says of them."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research_jobs.cli.main import main
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.project import Project

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ["market_data", "performance_report", "volatility/garch", "momentum_signals"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The samples in a project of their own, run once."""
    root = tmp_path_factory.mktemp("samples")
    (root / "notebooks").symlink_to(NOTEBOOKS)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_"))
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("research-jobs"), "run", "--all", "--project", root],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Project(root=root, store=str(root / "data"))


def stored(project: Project, notebook: str, output: str) -> Any:
    """An output of the run."""
    from research_jobs.store.load import load

    return load(notebook, output, project=project)


def test_all_samples_are_there_and_sound() -> None:
    """Four notebooks, nothing wrong with any, and the helper modules are no notebooks."""
    catalog = load_catalog(Project(root=ROOT, store=str(ROOT / "data")))
    assert sorted(catalog.entries) == sorted(NAMES)
    assert [entry.error for entry in catalog] == [None] * 4
    assert [entry.warnings for entry in catalog] == [()] * 4
    assert catalog.manifest.problems == ()
    helpers = sorted(path.name for path in catalog.scan.helpers)
    assert helpers == ["charts.py", "frames.py", "research_data.py"]
    assert all(entry.notebook.description for entry in catalog)


def test_check_has_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    """The samples behave in batch as in the editor."""
    assert main(["check", "--project", str(ROOT)]) == 0
    assert capsys.readouterr().out == "4 notebooks, 0 errors, 0 warnings\n"


def test_only_load_is_imported_of_us() -> None:
    """No sample imports anything of research_jobs but `load`."""
    lines = {
        line
        for path in NOTEBOOKS.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "research_jobs" in line
    }
    assert lines == {"from research_jobs import load"}


@pytest.mark.parametrize("name", NAMES)
def test_plain_python_runs_it(project: Project, name: str) -> None:
    """`python notebook.py` works too, with the outputs of the others at hand."""
    environment = os.environ | {
        "PYTHONPATH": str(NOTEBOOKS),
        "MPLBACKEND": "agg",
        "RESEARCH_JOBS_PROJECT": str(project.root),
    }
    done = subprocess.run(
        # plt.show() tells that nobody looks: the one warning that is meant here
        [sys.executable, "-W", "error", "-W", "ignore::UserWarning", NOTEBOOKS / f"{name}.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_market_data_is_clean(project: Project) -> None:
    """Prices are positive, in order, complete, and the coverage counts them."""
    prices = stored(project, "market_data", "prices")
    assert list(prices.columns) == ["sp500", "nasdaq", "wti"]
    assert prices.index.is_monotonic_increasing
    assert (prices > 0).all().all()
    coverage = stored(project, "market_data", "coverage")
    assert coverage["sessions"].tolist() == [len(prices)] * 3
    assert coverage["missing"].tolist() == [0, 0, 0]


def test_performance_is_what_the_prices_say(project: Project) -> None:
    """The measures agree with the textbook's, computed another way."""
    prices = stored(project, "market_data", "prices")
    perf = stored(project, "performance_report", "perf_df")
    returns = prices.pct_change().dropna()
    growth = prices.iloc[-1] / prices.iloc[0]
    expected = growth ** (252 / len(returns)) - 1
    pd.testing.assert_series_equal(perf["annual_return"], expected, check_names=False)
    assert perf.loc["sp500", "beta"] == pytest.approx(1)
    assert perf["max_drawdown"].between(-1, 0).all()
    summary = stored(project, "performance_report", "summary")
    assert summary["as_of"] == prices.index[-1].date()
    assert summary["best_sharpe"] == perf["sharpe"].idxmax()


def test_the_forecast_tends_to_the_long_run(project: Project) -> None:
    """A GARCH(1,1) below one in persistence: each step comes nearer to the long run."""
    forecast = stored(project, "volatility/garch", "forecast")
    fit = stored(project, "volatility/garch", "fit")
    assert 0.8 < fit["persistence"] < 1
    distance = (forecast["volatility"] ** 2 - fit["long_run_volatility"] ** 2).abs()
    assert distance.is_monotonic_decreasing
    np.testing.assert_allclose(
        distance.iloc[1:].to_numpy() / distance.iloc[:-1].to_numpy(), fit["persistence"], rtol=1e-6
    )


def test_signals_know_nothing_of_the_future(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signals of a day do not change when later prices are taken away."""
    signals = stored_partition(project)
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    monkeypatch.setenv("MPLBACKEND", "agg")
    prices = stored(project, "market_data", "prices")
    momentum = prices.iloc[-1 - 21] / prices.iloc[-1 - 252] - 1
    found = signals.set_index("market")["momentum"]
    pd.testing.assert_series_equal(found, momentum, check_names=False)
    assert (np.sign(signals["weight"]) == np.sign(signals["momentum"])).all()


def stored_partition(project: Project) -> pd.DataFrame:
    """The newest signals, read as any other tool would."""
    path = project.root / "data" / "momentum_signals" / "signals"
    return pd.read_parquet(path / "run_date=2018-12-31" / "part-0.parquet")


def test_the_helpers_are_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns, drawdown and beta on numbers small enough to check by hand."""
    frames = runpy.run_path(str(NOTEBOOKS / "frames.py"))
    prices = pd.Series([100.0, 110.0, 99.0, 121.0])
    assert frames["simple_returns"](prices).round(6).tolist() == [0.1, -0.1, 0.222222]
    assert frames["drawdown"](prices).round(6).tolist() == [0, 0, -0.1, 0]
    market = pd.Series([0.01, -0.02, 0.03, 0.01])
    returns = pd.DataFrame({"m": market, "double": 2 * market})
    assert frames["rolling_beta"](returns, "m", 3)["double"].round(9).tolist() == [2.0, 2.0]
