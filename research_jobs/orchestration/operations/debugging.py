"""Run a notebook as its last failed run did, and keep its process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import OutputNotFoundError, PartitionError
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.partitions import newest_stored
from research_jobs.orchestration.operations.entries import find_entries
from research_jobs.orchestration.operations.rerunning import find_runs, restore_run
from research_jobs.orchestration.operations.trial import Trial
from research_jobs.outcome import Outcome, State
from research_jobs.project import Project
from research_jobs.protocol import Keep
from research_jobs.provenance.record import Record, records
from research_jobs.supervisor.kept import KEPT, KeptProcess

__all__ = ["Debugged", "failed_run", "run_and_keep"]

# As long as the command lives, which is less.
_SECONDS = 365 * 86_400.0


@dataclass(frozen=True)
class Debugged:
    """A notebook that was run to be looked at.

    Parameters
    ----------
    outcome : Outcome
    process : KeptProcess or None
        None where there is none to enter.
    not_restored : tuple of str
        What could not be as it was.
    """

    outcome: Outcome
    process: KeptProcess | None = None
    not_restored: tuple[str, ...] = ()


def failed_run(
    project: Project, notebook: str, run: str | None, partition: str | None
) -> Record | None:
    """The run to look at: the one that is named, or else the last that failed.

    Parameters
    ----------
    project : Project
    notebook : str
    run : str or None
        The run's id, or at least four characters of its beginning.
    partition : str or None
        Only of this one.

    Returns
    -------
    Record or None
        None where no run is named and none failed.

    Raises
    ------
    OutputNotFoundError
        When the named run is not known.
    """
    if run is not None:
        of_run = [one for one in find_runs(project, run) if one.notebook == notebook]
        of_run = [one for one in of_run if partition in (None, one.partition)]
        if not of_run:
            raise OutputNotFoundError(f"the run {run} has no such notebook or partition")
        return next((one for one in of_run if _failed(one)), of_run[0])
    for _, record in records(project.reports, notebook):
        if partition in (None, record.partition) and _failed(record):
            return record
    return None


def _failed(record: Record) -> bool:
    try:
        state = State(record.ending)
    except ValueError:  # of a later version
        return False
    return not state.ok and state is not State.CANCELLED


def run_and_keep(
    real: Catalog, trial: Trial, notebook: str, record: Record | None, partition: str | None
) -> Debugged:
    """Run a notebook up to where it fails; its process stays until this one ends.

    Parameters
    ----------
    real : Catalog
    trial : Trial
        Where it runs.
    notebook : str
    record : Record or None
        The run that it repeats; None to run it as it stands.
    partition : str or None
        Where there is no record.

    Raises
    ------
    ResearchJobsError
        When it cannot be started.
    """
    entry = find_entries(real, [notebook])[0]
    folder = trial.catalog.project.make_state_folder(KEPT)
    keep = Keep(str(folder), _SECONDS, os.getpid(), always=True, source=str(entry.notebook.path))
    if record is None:
        key = None
        if entry.partitioned:
            key = partition or newest_stored(real.project.store, entry.name, entry.spec)
            if key is None:
                raise PartitionError(f"{entry.name} has no partition with data: name one")
        elif partition is not None:
            raise PartitionError(f"{entry.name} has no partitions")
        outcome = trial.hold(trial.catalog.entries[entry.name], key, keep)
        return Debugged(outcome, KeptProcess.read(folder))
    same = record.code_version == entry.notebook.code_version
    restored = restore_run(real, trial, record, in_place=same)
    outcome = restored.inside.hold(
        restored.entry,
        record.partition,
        keep,
        parameters=restored.parameters,
        pins=restored.pins,
    )
    missing = restored.missing
    if not same:
        shown = real.project.display(Path(entry.notebook.path))
        missing = (f"{shown} has changed since: it ran as it was then", *missing)
    return Debugged(outcome, KeptProcess.read(folder), missing)
