"""What the template does beforehand leaves a process that a fresh one could be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from research_jobs.supervisor.supervise import Supervisor

PROGRAM = """
import json, os, pickle, random, sys
import numpy, pandas, matplotlib.pyplot, pyarrow.parquet
import research_jobs.runtime.child, research_jobs.store.codec.pandas_codec
from research_jobs.runtime import processes
from research_jobs.runtime.rehearsal import rehearse

def state():
    descriptors = [name for name in os.listdir("/proc/self/fd")]
    return {
        "random": [pickle.dumps(numpy.random.get_state()).hex(), str(random.getstate())],
        "threads": sorted(processes.thread_names()),
        "descriptors": len(descriptors),
        "figures": matplotlib.pyplot.get_fignums(),
        "settings": str(matplotlib.rcParams),
        "options": pandas.get_option("display.max_rows"),
        "environment": dict(os.environ),
        "path": [sys.path, os.getcwd()],
        "temporary": os.listdir(os.environ["TMPDIR"]),
    }

before = state()
rehearse()
after = state()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "written": "research_jobs.store.codec.parquet" in sys.modules,
}))
"""


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """No thread, descriptor, figure, setting, random number or file comes of a rehearsal."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert json.loads(done.stdout) == {"changed": [], "written": True}


def test_templates_take_it(tmp_path: Path) -> None:
    """A template with the usual libraries rehearses, and finds nothing that it must not have."""
    with Supervisor(preload=("numpy", "pandas", "matplotlib.pyplot")) as supervisor:
        assert supervisor.warm(str(tmp_path)).left_out == {}
