"""Memory of the run worker while a notebook makes and publishes a frame of 2 GB.

The command ``research-jobs run`` is the run worker. Its largest resident size (``VmHWM``, of that
process alone) with the large frame is set beside the one with a frame of one row.

``python -m benchmarks memory``
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.harness import BIN, Goal, Options, clean_environment, scratch
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

MIB = 2**20
ROWS = 33_554_432  # of eight columns of eight bytes: 2 GiB

NOTEBOOK = """\
# %%
import numpy as np
import pandas as pd

# %%
frame = pd.DataFrame({{f"c{{n}}": np.arange({rows}, dtype="float64") * n for n in range(8)}})
"""


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    with scratch() as folder:
        notebooks = folder / "notebooks"
        notebooks.mkdir()
        (notebooks / "small.py").write_text(NOTEBOOK.format(rows=1))
        (notebooks / "large.py").write_text(NOTEBOOK.format(rows=ROWS))
        (notebooks / "manifest.yaml").write_text(
            "notebooks:\n  small: {outputs: [frame]}\n  large: {outputs: [frame], memory: 16GiB}\n"
        )
        _peak(folder, "small")  # the instance is made
        found = in_turns(
            options.runs,
            {name: lambda name=name: _peak(folder, name) / MIB for name in ("small", "large")},
        )
    pairs = zip(found["large"].takes, found["small"].takes, strict=True)
    grown = Figure(tuple(large - small for large, small in pairs))
    table = Table(
        "Largest resident size of the run worker, MiB", ["frame", "MiB, median (min to max)"]
    )
    table.add("one row", found["small"])
    table.add("2 GiB", found["large"])
    table.add("difference", grown)
    return [table], [Goal.at_most("run worker beside a 2 GB frame grows by", 50, grown, " MiB")]


def _peak(folder: Path, notebook: str) -> int:
    """The worker's largest resident size in bytes."""
    process = subprocess.Popen(
        [BIN / "research-jobs", "run", notebook, "--project", folder],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    status = Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"research-jobs run {notebook} ended with {process.returncode}")
    return peak
