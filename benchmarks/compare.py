"""Comparing two versions of 10 million rows by 8 columns, beside a full join of polars.

Keys are shuffled, 1 % of the rows changed, some came and some are gone. Each contender is a
process of its own that reads both Parquet files and says the same: rows added, removed and
changed, and for each column how many values changed, the largest change and the median. It
reports its CPU seconds (of all threads) and its largest resident size.

``python -m benchmarks compare``
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import PYTHON, Goal, Options, clean_environment, scratch
from benchmarks.table import Figure, Table

__all__ = ["run"]

ROWS = 10_000_000
ROOT = Path(__file__).resolve().parents[1]

MAKE = """
import numpy as np, pandas as pd
from pathlib import Path
from benchmarks.store import frame
from research_jobs.store.codec import write_output
random = np.random.default_rng(1)
before = frame({rows})
few = {rows} // 1000
after = before.drop(index=random.choice({rows}, few, replace=False))
new = frame(few).assign(date=pd.Timestamp("2200-01-01") + pd.to_timedelta(np.arange(few), "D"))
after.loc[random.random(len(after)) < 0.01, "close"] *= 1.01
changed = after.assign(**{{name: after[name] * 1.001 for name in ("open", "high", "low")}})
sides = {{"before": before, "after": pd.concat([after, new]), "all_changed": changed}}
for seed, (name, side) in enumerate(sides.items()):
    side = side.sample(frac=1, random_state=seed).reset_index(drop=True)
    write_output(name, side, Path(f"{{name}}.parquet"), options={{}}, metadata={{}})
"""

OURS = """
from pathlib import Path
from research_jobs.comparison.tables import compare_tables
found = compare_tables(
    Path("before.parquet"), Path("{after}.parquet"), unique={key}, folder=Path.cwd()
)
said = [found.rows_added, found.rows_removed, found.rows_changed]
"""

POLARS = """
import polars as pl
before, after = (pl.scan_parquet(f"{{name}}.parquet") for name in ("before", "{after}"))
key = ["date", "ticker"]
names = [name for name in before.collect_schema() if name not in key]
joined = before.with_columns(_old=True).join(
    after.with_columns(_new=True), on=key, how="full", suffix="_after", coalesce=True
)
gone, come = pl.col("_new").is_null(), pl.col("_old").is_null()
differs = {{n: ~gone & ~come & pl.col(n).ne_missing(pl.col(n + "_after")) for n in names}}
size = {{n: (pl.col(n + "_after").cast(float) - pl.col(n).cast(float)).abs() for n in names}}
found = joined.select(
    come.sum().alias("come"),
    gone.sum().alias("gone"),
    pl.any_horizontal(*differs.values()).sum().alias("changed"),
    *(differs[n].sum().alias(n) for n in names),
    *(size[n].filter(differs[n]).max().alias(n + "_max") for n in names),
    *(size[n].filter(differs[n]).median().alias(n + "_median") for n in names),
).collect(engine="{engine}")
said = list(found.row(0)[:3])
"""

REPORT = """
import json, resource, time
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"said": said, "cpu": used.ru_utime + used.ru_stime, "MiB": peak / 1024,
                  "clock": time.perf_counter() - started}))
"""

KEY = ["date", "ticker"]
CONTENDERS = {
    "ours": OURS.format(after="after", key=KEY),
    "ours, which finds the key": OURS.format(after="after", key=[]),
    "polars": POLARS.format(after="after", engine="auto"),
    "polars, in memory": POLARS.format(after="after", engine="in-memory"),
}
ALL_CHANGED = {
    "ours": OURS.format(after="all_changed", key=KEY),
    "polars": POLARS.format(after="all_changed", engine="auto"),
}


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    with scratch() as folder:
        _python(MAKE.format(rows=ROWS), folder)
        few = _measured(CONTENDERS, options.runs, folder)
        every = _measured(ALL_CHANGED, options.slow_runs, folder)
    tables = [
        _table(f"{ROWS:,} rows by 8 columns, shuffled, 1 % changed", few),
        _table("The same, all rows changed", every),
    ]
    cpu, memory = (few["ours"][what].median / few["polars"][what].median for what in ("cpu", "MiB"))
    return tables, [
        Goal.at_most("comparing 10 million rows, of a polars join", 1.5, cpu),
        Goal.at_most("of its peak memory", 0.25, memory),
    ]


def _measured(
    contenders: Mapping[str, str], rounds: int, folder: Path
) -> dict[str, dict[str, Figure]]:
    takes: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    answers: set[str] = set()
    for _ in range(rounds):
        for name, program in contenders.items():
            text = _python(f"import time\nstarted = time.perf_counter()\n{program}{REPORT}", folder)
            take = json.loads(text.splitlines()[-1])
            answers.add(str(take.pop("said")))
            takes[name].append(take)
    if len(answers) != 1:
        raise RuntimeError(f"the contenders disagree: {answers}")
    return {
        name: {what: Figure(tuple(take[what] for take in found)) for what in found[0]}
        for name, found in takes.items()
    }


def _table(title: str, found: Mapping[str, Mapping[str, Figure]]) -> Table:
    table = Table(title, ["how", "CPU, s", "of polars", "clock, s", "peak, MiB", "of polars"])
    reference = found["polars"]
    for name, figures in found.items():
        cpu, memory = (figures[what].median / reference[what].median for what in ("cpu", "MiB"))
        table.add(
            name, figures["cpu"], f"{cpu:.2f}", figures["clock"], figures["MiB"], f"{memory:.2f}"
        )
    return table


def _python(program: str, folder: Path) -> str:
    done = subprocess.run(
        [PYTHON, "-c", program],
        cwd=folder,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
