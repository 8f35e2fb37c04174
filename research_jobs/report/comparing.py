"""Two runs of a notebook: what is kept of them, what differs, and why."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from research_jobs.comparison.changes import Comparison
from research_jobs.comparison.shown import ShownChange, compare_shown, read_executed
from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import State, labelled
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.provenance.causes import Cause
from research_jobs.provenance.following import Two, explain
from research_jobs.report.stored import StoredReport, stored_reports
from research_jobs.store.records import Version
from research_jobs.store.stored import stored_versions

__all__ = ["Compared", "KeptRun", "compare_runs", "kept_successes"]


@dataclass(frozen=True)
class KeptRun:
    """A run, as far as anything of it is kept.

    Parameters
    ----------
    run_id : str
    at : datetime
        When it ended, in the local time zone.
    version : Version or None
        Its outputs; None if they are no longer stored, or if there are none.
    report : StoredReport or None
    """

    run_id: str
    at: datetime
    version: Version | None
    report: StoredReport | None

    @classmethod
    def of(cls, report: StoredReport, version: Version | None) -> KeptRun:
        """A run whose report is kept."""
        at = datetime.fromtimestamp(report.outcome.ended_at or 0).astimezone()
        return cls(report.outcome.run_id, at, version, report)

    @classmethod
    def of_version(cls, version: Version, report: StoredReport | None) -> KeptRun:
        """A run whose outputs are stored."""
        at = datetime.fromisoformat(version.published_at).astimezone()
        return cls(version.run_id, at, version, report)

    @property
    def label(self) -> str:
        """str: how a line names it."""
        return f"{self.at:%Y-%m-%d %H:%M:%S} (run {self.run_id[:8]})"

    @property
    def succeeded(self) -> bool:
        """bool: whether it published what it made."""
        return self.report is None or self.report.outcome.state is State.SUCCEEDED


@dataclass(frozen=True)
class Compared:
    """Two runs of a notebook and what differs between them.

    Parameters
    ----------
    notebook : str
    partition : str or None
    before, after : KeptRun
    outputs : Comparison or None
        None where those of one of the runs are not stored.
    shown : ShownChange or None
        None where the reports are not both kept.
    executed : tuple of mapping
        The executed notebooks of both, where they are kept.
    causes : tuple of Cause
    notes : tuple of str
        What could not be compared, one line each.
    """

    notebook: str
    partition: str | None
    before: KeptRun
    after: KeptRun
    outputs: Comparison | None
    shown: ShownChange | None
    executed: tuple[Mapping[str, Any], ...]
    causes: tuple[Cause, ...]
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """bool: whether the outputs are equal; of a notebook without any, what cells show."""
        return _equal(self.after, self.outputs, self.shown)

    @property
    def title(self) -> str:
        """str: the notebook, its partition and the runs."""
        name = labelled(self.notebook, self.partition)
        return f"{name}: {self.before.label} -> {self.after.label}"


def _equal(after: KeptRun, outputs: Comparison | None, shown: ShownChange | None) -> bool:
    if not after.succeeded:
        return False
    return outputs.equal if outputs is not None else shown is not None and shown.equal


def kept_successes(
    project: Project, notebook: str, partition: PartitionKey | None
) -> list[KeptRun]:
    """The successful runs of which outputs or a report are kept, newest first."""
    key = partition.key if partition is not None else None
    reports = {
        report.outcome.run_id: report
        for report in reversed(list(stored_reports(project.reports, notebook)))
        if report.outcome.state is State.SUCCEEDED and report.outcome.partition == key
    }
    found = [
        KeptRun.of_version(version, reports.pop(version.run_id, None))
        for version in stored_versions(project.store, notebook, partition)
    ]
    found += [KeptRun.of(report, None) for report in reports.values()]
    return sorted(found, key=lambda run: run.at, reverse=True)


def compare_runs(
    project: Project,
    notebook: str,
    partition: PartitionKey | None,
    runs: tuple[KeptRun, KeptRun],
    *,
    unique: Mapping[str, Sequence[str]],
    tolerance: float = 0.0,
) -> Compared:
    """Compare what is kept of two runs.

    Parameters
    ----------
    project : Project
    notebook : str
    partition : PartitionKey or None
    runs : tuple of KeptRun
        The earlier one first.
    unique : mapping of str to sequence of str
        Output to the columns that the manifest declares ``unique``.
    tolerance : float
        As in `compare_tables`.
    """
    before, after = runs
    folder = project.state if os.access(project.state, os.W_OK) else None
    outputs = _stored(project, notebook, partition, runs, unique, tolerance, folder)
    notes = [
        f"The outputs of {notebook} at {run.label} are no longer stored: `keep` in the "
        "manifest says how many older versions are."
        for run in runs
        if outputs is None and unique and run.version is None and run.succeeded
    ]
    executed: tuple[Mapping[str, Any], ...] = ()
    shown: ShownChange | None = None
    if before.report is not None and after.report is not None:
        try:
            executed = (read_executed(before.report.ipynb), read_executed(after.report.ipynb))
            shown = compare_shown(*executed)
        except ResearchJobsError as error:  # it was removed meanwhile, or is damaged
            notes.append(error.headline)
    key = partition.key if partition is not None else None
    causes: tuple[Cause, ...] = ()
    if not _equal(after, outputs, shown):
        causes = explain(
            Two(notebook, before.run_id, after.run_id, key),
            reports=project.reports,
            store=project.store,
            folder=folder,
            first_cell=_first_cell(shown),
        )
    return Compared(notebook, key, before, after, outputs, shown, executed, causes, tuple(notes))


def _stored(
    project: Project,
    notebook: str,
    partition: PartitionKey | None,
    runs: tuple[KeptRun, KeptRun],
    unique: Mapping[str, Sequence[str]],
    tolerance: float,
    folder: Path | None,
) -> Comparison | None:
    """What differs in the outputs; None if those of one of the runs are not stored."""
    from research_jobs.comparison.outputs import compare_outputs
    from research_jobs.store.backends import backend_of

    versions = [run.version for run in runs]
    if versions[0] is None or versions[1] is None:
        return None
    backend = backend_of(project.store)
    unit = backend.unit(notebook, partition)
    with ExitStack() as stack:
        held = [backend.hold(unit, version.id) for version in versions if version is not None]
        for one in held:
            stack.callback(one.release)
        files = [{name: one.version.file(name) for name in one.version.outputs} for one in held]
        return compare_outputs(*files, unique=unique, tolerance=tolerance, folder=folder)


def _first_cell(shown: ShownChange | None) -> str | None:
    if shown is None or not shown.cells:
        return None
    cell = shown.cells[0]
    return f"cell {cell.cell}" + (f' "{cell.title}"' if cell.title else "")
