"""A year of daily partitions, whole command, and the status of a notebook with 5,000 of them.

Ours runs all 365. The peers run a part, as a person would loop over it, and their time is scaled:
``dagster asset materialize --partition`` ten times, one after another (an ordinary asset that
holds the notebook's code), papermill twenty times, two at a time, with the date as parameter.

``python -m benchmarks backfill``
"""

from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import (
    BIN,
    PYTHON,
    Goal,
    Options,
    clean_environment,
    dagster_home,
    ipynb,
    ratio,
    scratch,
    seconds,
    timed,
)
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

DAYS = 365
FIRST = dt.date(2021, 1, 1)
FEW = 5
DAGSTER_TAKES = 10
PAPERMILL_TAKES = 20
MANY = 5_000

NOTEBOOK = """\
# %% tags=["parameters"]
run_date: str = "2021-01-01"

# %%
import numpy as np
import pandas as pd

# %%
days = pd.date_range(end=run_date, periods=1000, freq="D")
frame = pd.DataFrame({"price": np.linspace(1.0, 2.0, 1000), "volume": range(1000)}, index=days)
"""

MANIFEST = """\
notebooks:
  daily:
    outputs: [frame]
    partitions: {{by: day, start: 2021-01-01, end: {end}, parameter: run_date}}
"""

PLAIN_ASSET = """\
import dagster as dg


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2021-01-01", end_date="2022-01-01"))
def daily(context):
    import numpy as np
    import pandas as pd

    days = pd.date_range(end=context.partition_key, periods=1000, freq="D")
    frame = pd.DataFrame({"price": np.linspace(1.0, 2.0, 1000), "volume": range(1000)}, index=days)
    return frame
"""

# 5,000 partitions of which one in a hundred is missing, as a backfill records them.
RECORD = """\
import sys
import dagster as dg
from research_jobs.orchestration.compat.storage import held_connections
from research_jobs.orchestration.model.instance import enter_project, open_instance
from research_jobs.project import find_project

project = find_project(sys.argv[1])
enter_project(project)
keys = dg.DailyPartitionsDefinition("2010-01-01", end_date=sys.argv[2]).get_partition_keys()
assert len(keys) == 5000
with open_instance(project) as instance, held_connections(instance):
    for number, key in enumerate(keys):
        if number % 100:
            instance.report_runless_asset_event(
                dg.AssetMaterialization("daily", partition=key, metadata={"rows": 1000})
            )
"""


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    with scratch() as folder:
        found = _year(folder, options)
        states = _status(folder / "many", options)
    ours, few = found["ours"], found[f"ours, {FEW} partitions"]
    loop = Figure(tuple(take * DAYS / DAGSTER_TAKES for take in found["dagster"].takes))
    papermill = Figure(tuple(take * DAYS / PAPERMILL_TAKES for take in found["papermill"].takes))
    each = (ours.median - few.median) / (DAYS - FEW)
    table = Table(f"{DAYS} daily partitions, whole command", ["how", "time", "measured"])
    table.add("research-jobs backfill", seconds(ours), f"all {DAYS}")
    table.add(f"research-jobs backfill, {FEW} partitions", seconds(few), f"all {FEW}")
    table.add(
        "dagster asset materialize --partition, in a loop",
        f"{loop.median:.0f} s",
        f"{DAGSTER_TAKES} in {seconds(found['dagster'])}, scaled",
    )
    table.add(
        "papermill, two at a time",
        f"{papermill.median:.0f} s",
        f"{PAPERMILL_TAKES} in {seconds(found['papermill'])}, scaled",
    )
    table.notes.append(
        f"One more partition, its own work and its publishing included: {each * 1000:.0f} ms of "
        f"wall time at two at a time (T{DAYS} - T{FEW}, over {DAYS - FEW})."
    )
    status = Table(f"Status of a notebook with {MANY:,} partitions", ["command", "time"])
    for name, figure in states.items():
        status.add(f"`research-jobs {name}`", seconds(figure))
    goals = [
        Goal.at_least(
            f"{DAYS} partitions, times faster than dagster asset materialize",
            100,
            ratio(loop, ours),
        ),
        Goal.at_most(f"{DAYS} partitions, of papermill", 1 / 15, ratio(ours, papermill)),
        Goal.at_most("one more partition, own work included", 50, each * 1000, " ms"),
        *(
            Goal.at_most(f"{MANY:,} partitions: {name}", 3, figure, " s")
            for name, figure in states.items()
        ),
    ]
    return [table, status], goals


def _year(folder: Path, options: Options) -> dict[str, Figure]:
    project = _project(folder / "ours", FIRST + dt.timedelta(days=DAYS))
    peer = folder / "peer"
    home = dagster_home(peer / "home")
    (peer / "defs.py").write_text(PLAIN_ASSET)
    ipynb(peer / "daily.ipynb", NOTEBOOK, tags={0: ["parameters"]})
    keys = [f"{FIRST + dt.timedelta(days=number)}" for number in range(DAYS)]

    def ours(*which: str) -> float:
        command = [BIN / "research-jobs", "backfill", "daily", "--project", project, *which]
        return timed(command, folder)

    def dagster(count: int = DAGSTER_TAKES) -> float:
        one = f"{BIN}/dagster asset materialize -f defs.py --select daily --partition"
        loop = f"set -e; for key in {' '.join(keys[:count])}; do {one} $key; done"
        return timed(
            loop,
            peer,
            env={"DAGSTER_HOME": str(home)},
            check=lambda said: said.count("RUN_SUCCESS") == count,
        )

    def papermill() -> float:
        one = f"{PYTHON} -m papermill daily.ipynb out-{{}}.ipynb -p run_date {{}}"
        few = "\\n".join(keys[:PAPERMILL_TAKES])
        return timed(f"printf '{few}\\n' | xargs -P2 -I{{}} {one}", peer)

    ours("--to", keys[FEW - 1])
    dagster(1)
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: ours("--all"),
        f"ours, {FEW} partitions": lambda: ours("--to", keys[FEW - 1]),
    }
    return in_turns(options.runs, sides | {"dagster": dagster, "papermill": papermill})


def _status(folder: Path, options: Options) -> dict[str, Figure]:
    first = dt.date(2010, 1, 1)
    end = first + dt.timedelta(days=MANY)
    project = _project(folder, end, start=first)
    subprocess.run([PYTHON, "-c", RECORD, project, str(end)], env=clean_environment(), check=True)
    place = ["--project", project]
    return in_turns(
        options.runs,
        {
            "list": lambda: timed([BIN / "research-jobs", "list", *place], folder),
            "backfill daily --missing --dry-run": lambda: timed(
                [BIN / "research-jobs", "backfill", "daily", "--missing", "--dry-run", *place],
                folder,
                check=lambda said: "50" in said,
            ),
        },
    )


def _project(folder: Path, end: dt.date, *, start: dt.date = FIRST) -> Path:
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    (notebooks / "daily.py").write_text(NOTEBOOK)
    manifest = MANIFEST.format(end=end).replace("2021-01-01", str(start), 1)
    (notebooks / "manifest.yaml").write_text(manifest)
    return folder
