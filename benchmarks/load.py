"""Loading the code location: what the daemon, the webserver's code server and each run worker pay.

Timed inside a fresh process from the end of ``import dagster`` until the repository stands, our
own imports included: with no cache of the scan, and with the one that the load before has left.
The notebooks have some forty lines, differ from one another, load one another and have parameters;
the manifest names them all, and there are ten schedules.

``python -m benchmarks load``
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks.harness import PYTHON, Goal, Options, clean_environment, names, scratch
from benchmarks.table import Figure, Table

__all__ = ["run"]

COUNTS = (100, 1_000, 5_000)

PROGRAM = """\
import json, sys, time
began = time.perf_counter()
import dagster
imported = time.perf_counter()
from research_jobs.definitions import defs
repository = defs.get_repository_def()
loaded = time.perf_counter()
assert len(repository.asset_graph.get_all_asset_keys()) == int(sys.argv[1])
print(json.dumps([imported - began, loaded - imported]))
"""

NOTEBOOK = '''\
"""Study {number}: returns and risk of a synthetic portfolio."""

# %% tags=["parameters"]
window: int = {window}  # days of the moving average
ticker: str = "T{number:04d}"
threshold = 0.5

# %% [markdown]
# # Returns
# What the portfolio of study {number} earned, and how it moved.

# %%
import numpy as np
import pandas as pd

from research_jobs import load

# %% Load prices
{load}
rng = np.random.default_rng({number})
days = pd.bdate_range("2015-01-01", periods=1000)
prices = pd.DataFrame({{"price": 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 1000)))}}, index=days)

# %% Returns
returns = prices["price"].pct_change().dropna()
smooth = returns.rolling(window).mean()
volatility = returns.rolling(window).std() * np.sqrt(252)


def drawdown(series):
    """The fall from the last high."""
    return series / series.cummax() - 1


# %% Summary
summary = {{
    "ticker": ticker,
    "mean": float(returns.mean()),
    "volatility": float(volatility.iloc[-1]),
    "drawdown": float(drawdown(prices["price"]).min()),
    "days above": int((smooth > threshold).sum()),
}}
frame = pd.DataFrame({{"returns": returns, "volatility": volatility}})

# %%
frame.tail()
'''


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    imports: list[float] = []
    cold: dict[int, list[float]] = {count: [] for count in COUNTS}
    warm: dict[int, list[float]] = {count: [] for count in COUNTS}
    with scratch() as folder:
        projects = {count: _project(folder / str(count), count) for count in COUNTS}
        for number in range(options.runs):
            for count, project in projects.items():
                shutil.rmtree(project / ".research_jobs", ignore_errors=True)
                for kind in (cold, warm):
                    imported, loaded = _load(project, count)
                    imports.append(imported)
                    kind[count].append(loaded)
                print(
                    f"  round {number + 1}, {count}: cold {cold[count][-1]:.3g}, "
                    f"warm {warm[count][-1]:.3g}, import dagster {imports[-1]:.3g}",
                    flush=True,
                )
    table = Table(
        "Load of the code location, beyond `import dagster`",
        ["notebooks", "cold, s", "with a warm cache, s"],
    )
    for count in COUNTS:
        table.add(f"{count:,}", Figure(tuple(cold[count])), Figure(tuple(warm[count])))
    table.notes.append(f"`import dagster` itself: {Figure(tuple(imports))} s.")
    return [table], _goals(cold, warm)


def _goals(cold: dict[int, list[float]], warm: dict[int, list[float]]) -> list[Goal]:
    def growth(kind: dict[int, list[float]]) -> Figure:
        pairs = zip(kind[5_000], kind[1_000], strict=True)
        return Figure(tuple(many / few for many, few in pairs))

    return [
        Goal.at_most("load of 1,000 notebooks, cold", 1.5, Figure(tuple(cold[1_000])), " s"),
        Goal.at_most("load of 1,000 notebooks, warm", 1.0, Figure(tuple(warm[1_000])), " s"),
        Goal.at_most("load of 5,000 beside 1,000, cold", 5.0, growth(cold), " times"),
        Goal.at_most("load of 5,000 beside 1,000, warm", 5.0, growth(warm), " times"),
    ]


def _project(folder: Path, count: int) -> Path:
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    every = names(count)
    for number, name in enumerate(every):
        before = every[number - 1]
        (notebooks / f"{name}.py").write_text(
            NOTEBOOK.format(
                number=number,
                window=5 + number % 60,
                load=f'other = load("{before}", "frame")' if number % 10 else "other = None",
            )
        )
    lines = ["notebooks:\n"]
    lines += [
        f"  {name}:\n    outputs: {{frame: {{min_rows: 1}}, summary: }}\n"
        f"    owners: [research@example.com]\n"
        for name in names(count)
    ]
    lines.append("schedules:\n")
    for number in range(10):
        some = ", ".join(every[number::10])
        lines.append(f'  morning_{number}:\n    cron: "{number} 6 * * 1-5"\n')
        lines.append(f"    notebooks: [{some}]\n")
    (notebooks / "manifest.yaml").write_text("".join(lines))
    return folder


def _load(project: Path, count: int) -> tuple[float, float]:
    found = subprocess.run(
        [PYTHON, "-c", PROGRAM, str(count)],
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise RuntimeError(found.stderr[-4000:])
    imported, loaded = json.loads(found.stdout.splitlines()[-1])
    return imported, loaded
