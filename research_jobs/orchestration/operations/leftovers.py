"""What a killed run worker leaves behind, once nobody needs it any more."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg

from research_jobs.project import Project

__all__ = ["remove_run_folders"]

# A report may be made for so long after its run is over, seconds.
NEEDED_S = 300.0


def remove_run_folders(project: Project, instance: dg.DagsterInstance, now: float) -> list[Path]:
    """Remove the folders of runs that are over and whose process did not remove them.

    Parameters
    ----------
    project : Project
    instance : DagsterInstance
    now : float
        Unix time, seconds.

    Returns
    -------
    list of Path
        Those that were removed.
    """
    old = dict(_old_folders(project.state / "runs", now))
    if not old:
        return []
    ids = sorted(set(old.values()))
    records = instance.get_run_records(dg.RunsFilter(run_ids=ids))
    over = {
        record.dagster_run.run_id
        for record in records
        if record.dagster_run.is_finished and now - (record.end_time or now) > NEEDED_S
    }
    removed = [folder for folder, run_id in old.items() if run_id in over]
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def _old_folders(runs: Path, now: float) -> Iterator[tuple[Path, str]]:
    """Folders that nothing was added to lately, and the run that each belongs to."""
    for folder in runs.iterdir() if runs.is_dir() else ():
        run_id = folder.name[:36]
        with suppress(ValueError, OSError):
            uuid.UUID(run_id)
            if now - folder.stat().st_mtime > NEEDED_S:
                yield folder, run_id
