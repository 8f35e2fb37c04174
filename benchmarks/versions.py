"""What a month of daily versions takes: whole files in the store, chunks in a restic repository.

A table of 10 MB is published 20 times, as a notebook does, and after each time the store is
backed up. Three ways to change it: 1 % more rows, 1 % of the rows in one piece, 1 % scattered.

``python -m benchmarks versions`` (needs restic)
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.harness import BIN, Goal, Options, clean_environment, scratch
from benchmarks.table import Table
from research_jobs.filesystem import folder_bytes

__all__ = ["run"]

DAYS = 20
NOTEBOOK = """\
# %% tags=["parameters"]
kind = "appended"
day = 0

# %%
import numpy as np
import pandas as pd

ROWS, PART = 460_000, 4_600
chance = np.random.default_rng(1)
total = ROWS + (PART * day if kind == "appended" else 0)
values = chance.normal(size=(ROWS + PART * 30, 2))[:total]
for past in range(day if kind != "appended" else 0):
    rows = chance.choice(ROWS, PART, replace=False)
    if kind == "in one piece":
        rows = slice(rows[0] % (ROWS - PART), rows[0] % (ROWS - PART) + PART)
    values[rows, 0] = chance.normal(size=PART)

# %%
prices = pd.DataFrame(values, columns=["close", "volume"])
prices.insert(0, "at", pd.date_range("2000-01-01", periods=total, freq="min"))
"""
MANIFEST = f"notebooks: {{prices: {{outputs: {{prices: {{keep: {DAYS}}}}}}}}}\n"


def _measure(root: Path, kind: str) -> tuple[float, float, float]:
    """Bytes of one version, of the store and of the repository, after all days."""
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "prices.py").write_text(NOTEBOOK)
    (root / "notebooks" / "manifest.yaml").write_text(MANIFEST)
    environment = clean_environment(RESTIC_PASSWORD="benchmark", RESTIC_REPOSITORY=str(root / "r"))

    def said(*words: str | Path) -> None:
        subprocess.run(words, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)

    said("restic", "--quiet", "init")
    one = 0
    for day in range(DAYS):
        said(BIN / "research-jobs", "run", "prices", "-p", f"kind={kind}", "-p", f"day={day}")
        said("restic", "--quiet", "backup", "data")
        one = one or folder_bytes(root / "data")
    return one, folder_bytes(root / "data"), folder_bytes(root / "r")


def run(_options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    table = Table(
        f"{DAYS} daily versions of a table, in copies of the first one",
        ["1 % of its rows are", "one copy", "in the store", "in a restic repository"],
    )
    for kind in ("appended", "in one piece", "scattered"):
        with scratch() as folder:
            one, store, repository = _measure(folder / "project", kind)
        table.add(kind, f"{one / 1e6:.1f} MB", f"{store / one:.1f}", f"{repository / one:.1f}")
    table.notes.append("A repository of restic's default format, after as many backups.")
    return [table], []
