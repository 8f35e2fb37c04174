"""What killed processes leave behind in the state folder, once nobody needs it any more."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg

from research_jobs.filesystem import folder_bytes
from research_jobs.project import Project
from research_jobs.provenance.shelf import unnamed
from research_jobs.remote.detached import removable
from research_jobs.supervisor.kept import KEPT, KeptProcess

__all__ = ["KEPT_TRIAL", "prune_state", "remove_run_folders"]

# A report may be made for so long after its run is over, seconds.
NEEDED_S = 300.0
# The beginning of the name of a trial that was asked to stay.
KEPT_TRIAL = "kept-"
# What nothing refers to may belong to something that begins just now for so long, seconds.
ABANDONED_S = 86_400.0
# The log of `research-jobs ui`, which goes on as long as that does: bytes from which on it is cut,
# and bytes that stay.
LONGEST_LOG, LOG_TAIL = 16 * 2**20, 2**20


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
    removed = _run_folders(project, instance, now, unknown=False)
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def _run_folders(
    project: Project, instance: dg.DagsterInstance, now: float, *, unknown: bool
) -> list[Path]:
    """The folders of runs that are over and, if so, of those that nobody knows."""
    old = dict(_old_folders(project.state / "runs", now))
    if not old:
        return []
    ids = sorted(set(old.values()))
    records = instance.get_run_records(dg.RunsFilter(run_ids=ids))
    known = {record.dagster_run.run_id: record for record in records}
    return [
        folder
        for folder, run_id in old.items()
        if (
            record.dagster_run.is_finished and now - (record.end_time or now) > NEEDED_S
            if (record := known.get(run_id)) is not None
            else unknown and now - folder.stat().st_mtime > ABANDONED_S
        )
    ]


def _old_folders(runs: Path, now: float) -> Iterator[tuple[Path, str]]:
    """Folders that nothing was added to lately, and the run that each belongs to."""
    for folder in runs.iterdir() if runs.is_dir() else ():
        run_id = folder.name[:36]
        with suppress(ValueError, OSError):
            uuid.UUID(run_id)
            if now - folder.stat().st_mtime > NEEDED_S:
                yield folder, run_id


def prune_state(
    project: Project, instance: dg.DagsterInstance, now: float, *, dry_run: bool = False
) -> list[tuple[Path, int]]:
    """Remove what killed runs, proofs and trials left, and sources that no record names.

    So goes what ran for another machine, a week later. A long log of the UI is cut.

    Parameters
    ----------
    project : Project
    instance : DagsterInstance
    now : float
        Unix time, seconds.
    dry_run : bool
        Only say what.

    Returns
    -------
    list of (Path, int)
        What goes, and how many bytes that are.
    """
    found = [
        (folder, folder_bytes(folder))
        for folder in _run_folders(project, instance, now, unknown=True)
    ]
    found += [
        (folder, folder_bytes(folder))
        for place in ("proof", "trials", KEPT)
        for folder in (project.state / place).glob("*")
        if folder.is_dir()
        and not folder.name.startswith(KEPT_TRIAL)
        and not ((kept := KeptProcess.read(folder)) is not None and kept.alive)
        and now - folder.stat().st_mtime > ABANDONED_S
    ]
    found += [(folder, folder_bytes(folder)) for folder in removable(project, now)]
    for folder, _ in found if not dry_run else ():
        shutil.rmtree(folder, ignore_errors=True)
    for path in unnamed(project.reports, before=now - ABANDONED_S):
        found.append((path, path.stat().st_size))
        if not dry_run:
            path.unlink()
    log = project.state / "ui.log"
    with suppress(FileNotFoundError):
        size = log.stat().st_size
        if size > LONGEST_LOG:
            found.append((log, size - LOG_TAIL))
            if not dry_run:
                _cut(log, size)
    return found


def _cut(log: Path, size: int) -> None:
    """Leave the end of a file that others append to."""
    with log.open("rb") as file:
        file.seek(size - LOG_TAIL)
        end = file.read().partition(b"\n")[2]
    with log.open("r+b") as file:
        file.truncate(0)
    with log.open("ab") as file:
        file.write(end)
