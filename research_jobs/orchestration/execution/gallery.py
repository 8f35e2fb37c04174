"""What the page of a notebook says of it, who may read the pages, and other machines' reports."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.errors import ResearchJobsError, StoreError, innermost_line
from research_jobs.orchestration.model.addresses import asset_page
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.provenance.shelf import KEPT
from research_jobs.report.assets import ASSETS
from research_jobs.report.gallery import NotebookCard
from research_jobs.store.sharing import Sharing

if TYPE_CHECKING:
    from research_jobs.report.mirror import Mirror

__all__ = ["exchange_reports", "mirror_of", "notebook_card", "send_report", "share_pages"]

logger = logging.getLogger("research_jobs")


def notebook_card(catalog: Catalog, entry: Entry) -> NotebookCard:
    """A notebook as its page describes it.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    """
    schedules = [
        name
        for name, schedule in catalog.manifest.schedules.items()
        if entry.name in schedule.notebooks
    ]
    return NotebookCard(
        name=entry.name,
        description=entry.spec.description or entry.notebook.description,
        schedule=", ".join(schedules) or None,
        url=asset_page(catalog, entry.name),
    )


def share_pages(catalog: Catalog, report: Path | None = None) -> str | None:
    """Let the manifest's group read a report and the pages that lead to it; why it cannot, if so.

    Parameters
    ----------
    catalog : Catalog
    report : Path, optional
        A report's folder; without one only the gallery's own pages are shared.
    """
    group, reports = catalog.manifest.project.group, catalog.project.reports
    if group is None:
        return None
    sharing = Sharing(group)
    try:
        sharing.share_files(reports, report.parent if report is not None else reports)
        for folder in (reports / ASSETS, reports / KEPT, report):
            if folder is not None and folder.exists():
                sharing.share_tree(folder)
    except StoreError as error:
        return error.headline
    except OSError as error:
        return f"{reports} cannot be shared with the group '{group}': {error.strerror or error}"
    return None


def send_report(catalog: Catalog, report: Path) -> None:
    """Give a report to the project's other machines, if they exchange reports.

    Raises
    ------
    ResearchJobsError, OSError
    """
    mirror = mirror_of(catalog)
    if mirror is not None:
        mirror.send(report)


def exchange_reports(catalog: Catalog) -> None:
    """Fetch the reports of the project's other machines, if they exchange reports.

    What goes wrong is logged: the reports that are here are there to read.
    """
    try:
        mirror = mirror_of(catalog)
        for report in mirror.sync(logger.warning) if mirror is not None else ():
            refused = share_pages(catalog, report)
            if refused is not None:
                logger.warning("%s", refused)
    except (ResearchJobsError, OSError) as error:
        why = error.headline if isinstance(error, ResearchJobsError) else innermost_line(error)
        logger.warning("Reports of other machines may be missing: %s", why)


def mirror_of(catalog: Catalog, now: float | None = None) -> Mirror | None:
    """Where the project's machines exchange reports; None if they do not.

    Raises
    ------
    ResearchJobsError
    """
    url = catalog.project.shared_reports
    if url is None:
        return None
    from research_jobs.report.mirror import Mirror

    spec = catalog.manifest
    before = (time.time() if now is None else now) - spec.retention.reports
    return Mirror(catalog.project.reports, url, spec.reports.keep, before)
