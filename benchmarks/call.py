"""One notebook called from a warm Python program: ours beside papermill.

The notebook times its own work, imports included, and hands that over; what the call took beyond
it is the tool's. Both programs make one call beforehand that is not counted.

``python -m benchmarks call``
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.harness import PYTHON, Goal, Options, clean_environment, ipynb, scratch
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

NOTEBOOK = """\
# %%
import time

began = time.perf_counter()

# %%
import numpy as np
import pandas as pd

days = pd.date_range("2020-01-01", periods=1000, freq="D")
frame = pd.DataFrame({"price": np.linspace(1.0, 2.0, 1000), "volume": range(1000)}, index=days)

# %%
own_work = time.perf_counter() - began
print("own_work", own_work)
"""

OURS = """\
import json, statistics, sys, time
from research_jobs import run_notebook

beyond, own = [], []
for number in range(int(sys.argv[1]) + 1):
    began = time.perf_counter()
    frame, own_work = run_notebook("nb", ["frame", "own_work"], project=sys.argv[2])
    taken = time.perf_counter() - began
    assert len(frame) == 1000
    if number:
        beyond.append(taken - own_work)
        own.append(own_work)
print(json.dumps([statistics.median(beyond), statistics.median(own)]))
"""

PAPERMILL = """\
import json, statistics, sys, time
from papermill import execute_notebook

beyond, own = [], []
for number in range(int(sys.argv[1]) + 1):
    began = time.perf_counter()
    made = execute_notebook(sys.argv[2], sys.argv[3], progress_bar=False)
    taken = time.perf_counter() - began
    own_work = float(made.cells[-1].outputs[0].text.split()[1])
    if number:
        beyond.append(taken - own_work)
        own.append(own_work)
print(json.dumps([statistics.median(beyond), statistics.median(own)]))
"""

CALLS = {"ours": 20, "papermill": 3}


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    own: dict[str, list[float]] = {name: [] for name in CALLS}
    with scratch() as folder:
        (folder / "notebooks").mkdir()
        (folder / "notebooks" / "nb.py").write_text(NOTEBOOK)
        book = ipynb(folder / "nb.ipynb", NOTEBOOK)

        def side(name: str, program: str, *arguments: Path) -> float:
            words = [PYTHON, "-c", program, str(CALLS[name]), *map(str, arguments)]
            beyond, work = json.loads(_output(words, folder).splitlines()[-1])
            own[name].append(work)
            return beyond

        found = in_turns(
            options.runs,
            {
                "ours": lambda: side("ours", OURS, folder),
                "papermill": lambda: side("papermill", PAPERMILL, book, folder / "out.ipynb"),
            },
        )
    table = Table(
        "One notebook from a warm program, beyond the notebook's own work",
        ["how", "beyond", "smallest to largest", "the notebook's own work", "calls a round"],
    )
    for name, figure in found.items():
        low, high = min(figure.takes), max(figure.takes)
        table.add(
            name,
            f"{figure.median * 1000:.1f} ms",
            f"{low * 1000:.1f} to {high * 1000:.1f} ms",
            f"{Figure(tuple(own[name])).median * 1000:.1f} ms",
            CALLS[name],
        )
    goal = Goal.at_most(
        "run_notebook() beyond the notebook's own work", 30, found["ours"].median * 1000, " ms"
    )
    return [table], [goal]


def _output(words: list[str], folder: Path) -> str:
    return subprocess.run(
        words,
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout
