"""The reports that are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from research_jobs.outcome import Outcome, from_json
from research_jobs.report.layout import RUNS

__all__ = ["StoredReport", "read_report", "stored_reports"]


@dataclass(frozen=True)
class StoredReport:
    """A report in the reports' folder.

    Parameters
    ----------
    html : Path
    outcome : Outcome
        As its executed notebook keeps it.
    """

    html: Path
    outcome: Outcome

    @property
    def ipynb(self) -> Path:
        """Path: the executed notebook."""
        return self.html.with_name("notebook.ipynb")


def read_report(folder: Path) -> StoredReport | None:
    """The report in a folder; None where there is none, or a damaged one."""
    try:
        text = (folder / "notebook.ipynb").read_text(encoding="utf-8")
        outcome = from_json(json.loads(text)["metadata"]["research_jobs"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # being written, being removed, or damaged
    return StoredReport(folder / "report.html", outcome) if outcome is not None else None


def stored_reports(reports: Path, notebook: str) -> Iterator[StoredReport]:
    """The reports of a notebook that are kept, newest first."""
    folder = reports / notebook / RUNS
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), reverse=True):
        report = read_report(path)
        if report is not None:
            yield report
