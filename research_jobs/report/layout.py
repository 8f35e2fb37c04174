"""Where the files of a run's report are."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from research_jobs.provenance.record import RUNS
from research_jobs.report.header import ReportHeader, local_time
from research_jobs.report.mail_order import Mailed

__all__ = ["CHANGES", "RUNS", "Report", "report_folder"]

CHANGES = "changes.html"  # in a report's folder: what changed since the success before


@dataclass(frozen=True)
class Report:
    """The files of one run's report.

    Parameters
    ----------
    folder : Path
    thumbnail : Path or None
        The first chart: a picture (``.png``, ``.jpg``, ``.svg``), or ``.js`` for a figure that
        the gallery draws itself.
    anchor : str or None
        The failing cell: ``report.html#cell-7`` opens at it.
    mail : Mailed or None
        What became of the mail that was asked for with it.
    changes : bool
        Whether it leads to a page of what changed since the success before.
    """

    folder: Path
    thumbnail: Path | None = None
    anchor: str | None = None
    mail: Mailed | None = None
    changes: bool = False

    @property
    def html(self) -> Path:
        """Path: the page."""
        return self.folder / "report.html"

    @property
    def ipynb(self) -> Path:
        """Path: the executed notebook."""
        return self.folder / "notebook.ipynb"


def report_folder(reports: Path, header: ReportHeader) -> Path:
    """The folder of one run's report: sorted by time, distinct for every attempt.

    Parameters
    ----------
    reports : Path
        The folder of all reports.
    header : ReportHeader

    Returns
    -------
    Path
        ``<reports>/<notebook>/_runs/<time>-<run>``; not made yet.
    """
    outcome = header.outcome
    moment = local_time(outcome.started_at, "UTC")
    seed = f"{outcome.run_id}\0{outcome.partition}\0{outcome.started_at!r}"
    tail = hashlib.sha256(seed.encode()).hexdigest()[:8]
    run = re.sub(r"[^0-9A-Za-z]", "", outcome.run_id)[:8]
    name = "-".join(part for part in (f"{moment:%Y%m%dT%H%M%S}", run, tail) if part)
    return reports / outcome.notebook / RUNS / name
