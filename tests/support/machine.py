"""One machine of several that share a store, in a process of its own: it publishes, or it reads.

``machine.py publish FOLDER TIMES`` makes a project there and has Dagster materialise the same
partition of its notebook again and again. ``machine.py read FILE`` loads both outputs until the
file exists. Each prints its count, and the reader fails at the first mixture.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DAY = "2024-01-01"
NOTEBOOK = """\
# %% tags=["parameters"]
day = "2024-01-01"

# %%
import os, uuid
x = y = f"{os.getuid()} {uuid.uuid4()}"
"""
MANIFEST = """\
notebooks:
  shared:
    outputs: {x: {keep: 1000}, y: {keep: 1000}}
    partitions: {by: day, start: 2024-01-01, end: 2024-01-02, parameter: day}
reports: {keep: 2}
"""


def publish(folder: Path, times: int) -> int:
    """Publish so many times, each by a run of its own."""
    import dagster as dg

    from research_jobs import build_defs

    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "shared.py").write_text(NOTEBOOK)
    (folder / "notebooks" / "manifest.yaml").write_text(MANIFEST)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job = build_defs(folder).resolve_implicit_global_asset_job_def()
    for _ in range(times):
        with dg.DagsterInstance.ephemeral() as instance:
            done = job.execute_in_process(
                quiet, partition_key=DAY, instance=instance, raise_on_error=False
            )
            failed = [each for each in done.all_events if each.is_step_failure]
            assert done.success, [each.step_failure_data.error for each in failed]
    return times


def read(ended: Path) -> int:
    """Load both outputs all the time."""
    from research_jobs.errors import OutputNotFoundError
    from research_jobs.store.load import Outputs

    count = 0
    while not ended.exists():
        try:
            with Outputs(os.environ["RESEARCH_JOBS_STORE"], "shared", DAY) as outputs:
                x, y = outputs["x"], outputs["y"]
        except OutputNotFoundError:
            assert count == 0
            continue
        assert x == y, f"a mixture of versions: {x}, {y}"
        count += 1
    return count


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    print(publish(where, int(sys.argv[3])) if what == "publish" else read(where))
