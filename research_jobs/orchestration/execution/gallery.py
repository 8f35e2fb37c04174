"""What the page of a notebook says of it, and who may read the pages."""

from __future__ import annotations

from pathlib import Path

from research_jobs.errors import StoreError
from research_jobs.orchestration.model.addresses import asset_page
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.provenance.shelf import KEPT
from research_jobs.report.assets import ASSETS
from research_jobs.report.gallery import NotebookCard
from research_jobs.store.sharing import Sharing

__all__ = ["notebook_card", "share_pages"]


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
