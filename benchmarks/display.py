"""What it costs to run a notebook cell by cell and keep what it shows.

Run it as ``python -m benchmarks display``. Every take is a process of its own, in which the time of
the import alone is taken: as Python imports the file, and as a run imports it with everything it
shows being recorded. "Warm" is a process that has imported the libraries before, as the processes
are that a run's template forks; "cold" is one that imports them within the time taken. The sides
take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.harness import PYTHON, Goal, Options
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

QUIET = """\
# %% [markdown]
# # A notebook that shows nothing
# %%
import json
values = {str(n): n for n in range(1000)}
# %%
text = json.dumps(values)
# %%
def double(x):
    return 2 * x
# %%
doubled = [double(n) for n in range(10_000)]
"""

CHART = """\
# %%
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
# %%
days = pd.date_range("2020-01-01", periods=1000, freq="D")
frame = pd.DataFrame(dict(price=np.linspace(1, 2, 1000), volume=range(1000)), index=days)
# %%
{table}
# %%
figure, axes = plt.subplots(figsize=(8, 4))
axes.plot(frame.index, frame["price"])
axes.set_title("Price")
{end}
"""

TAKE = """\
import sys, time
folder, way, warm, capture = sys.argv[1:]
sys.path.insert(0, folder)
from pathlib import Path
import importlib
from research_jobs.notebook.cells import read_notebook_text
from research_jobs.runtime.recording import open_recorder
from research_jobs.runtime.display import display_environment, display_modules
from research_jobs.runtime.importer import import_notebook
import os
if way != "run":
    os.environ["MPLBACKEND"] = "agg"
elif warm == "chart":
    os.environ.update(display_environment())
if warm == "chart":
    import numpy, pandas, pandas.io.formats.html, matplotlib.dates
    for name in display_modules(["matplotlib"]):
        importlib.import_module(name)
elif warm == "quiet":
    import json
begun = time.perf_counter()
if way != "run":
    importlib.import_module("nb")
else:
    text = read_notebook_text(Path(folder) / "nb.py")
    recorder = open_recorder(capture)
    import_notebook(text, "nb", recorder=recorder)
    recorder.end("succeeded")
print(time.perf_counter() - begun)
"""

NOTE = (
    "The plain side of the chart writes the same table as HTML and calls `fig.savefig`. The run's "
    "figure is cut to its content, as the editor's is, which takes a second pass over it: the "
    "column beside the plain import has `savefig` do the same."
)

REPORT = """\
import json, sys, time
from pathlib import Path
from research_jobs.report.build import build_report
from research_jobs.report.layout import report_folder
from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery
from research_jobs.outcome import Outcome, State
from research_jobs.report.header import ReportHeader
capture, reports = Path(sys.argv[1]), Path(sys.argv[2])
takes = []
for number in range(30):
    ran = {"run_id": f"run{number}", "started_at": 1.7e9 + number}
    header = ReportHeader(Outcome(State.SUCCEEDED, notebook="nb", **ran))
    begun = time.perf_counter()
    report = build_report(capture, header, report_folder(reports, header), reports=reports)
    update_gallery(reports, GalleryEntry(NotebookCard("nb"), header, report))
    takes.append(time.perf_counter() - begun)
print(json.dumps(takes))
"""


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure, and compare with what was set."""
    rounds = max(11, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        quiet = _sides(root, rounds, "quiet", {"plain": QUIET, "run": QUIET})
        shown = CHART.format(table="frame", end="plt.show()")
        saving = f'figure.savefig(r"{root / "figure.png"}"'
        sources = {
            "plain": CHART.format(table="frame.to_html()", end=f"{saving})"),
            "tight": CHART.format(table="frame.to_html()", end=f'{saving}, bbox_inches="tight")'),
            "run": shown,
        }
        warm = _sides(root, rounds, "chart", sources)
        cold = _sides(root, rounds, "cold", sources)
        reports = {
            name: _report(root / name / "capture.jsonl", root / f"reports-{name}")
            for name in ("quiet", "chart")
        }
    table = Table(
        "A run's import beside a plain import, milliseconds",
        ["notebook", "plain import", "cut to its content", "run, recorded", "more", ""],
        notes=[NOTE],
    )
    for name, sides in (
        ("shows nothing", quiet),
        ("a table and a chart, warm", warm),
        ("a table and a chart, cold", cold),
    ):
        more = _difference(sides)
        share = more.median / (sides["plain"].median * 1000)
        cut = _ms(sides["tight"]) if "tight" in sides else ""
        table.add(name, _ms(sides["plain"]), cut, _ms(sides["run"]), f"{more} ms", f"{share:+.0%}")
    building = Table("A run's report and its place in the gallery", ["notebook", "milliseconds"])
    for name, figure in reports.items():
        building.add("shows nothing" if name == "quiet" else "a table and a chart", _ms(figure))
    quiet_more = _difference(quiet).median
    cold_more = _difference(cold).median / (cold["plain"].median * 1000)
    goals = [
        Goal(
            "showing nothing, over a plain import",
            "under 5 ms",
            f"{quiet_more:.1f} ms",
            met=quiet_more < 5,
        ),
        Goal(
            "a table and a chart, over savefig",
            "under 10 %",
            f"{cold_more:.0%}",
            met=cold_more < 0.1,
        ),
    ]
    return [table, building], goals


def _sides(root: Path, rounds: int, warm: str, sources: dict[str, str]) -> dict[str, Figure]:
    folder = root / warm
    for way, source in sources.items():
        (folder / way).mkdir(parents=True)
        (folder / way / "nb.py").write_text(source)
    capture = folder / "capture.jsonl"

    def take(way: str) -> float:
        arguments = [str(folder / way), way, warm, str(capture)]
        environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
        done = subprocess.run(
            [PYTHON, "-c", TAKE, *arguments],
            stdout=subprocess.PIPE,
            env=environment,
            check=True,
        )
        return float(done.stdout.split()[-1])

    for way in sources:
        take(way)  # bytecode of the libraries, fonts
    return in_turns(rounds, {way: partial(take, way) for way in sources})


def _report(capture: Path, reports: Path) -> Figure:
    done = subprocess.run(
        [PYTHON, "-c", REPORT, str(capture), str(reports)], stdout=subprocess.PIPE, check=True
    )
    return Figure(tuple(json.loads(done.stdout)))


def _difference(sides: dict[str, Figure]) -> Figure:
    """Milliseconds more, taken within each round."""
    pairs = zip(sides["run"].takes, sides["plain"].takes, strict=True)
    return Figure(tuple((ours - plain) * 1000 for ours, plain in pairs))


def _ms(figure: Figure) -> str:
    takes = [take * 1000 for take in figure.takes]
    return f"{statistics.median(takes):.1f} ({min(takes):.1f} to {max(takes):.1f})"
