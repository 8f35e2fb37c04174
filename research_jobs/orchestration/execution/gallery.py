"""What the gallery says of each notebook, from the manifest: prose, group, owners, next ticks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from research_jobs.errors import StoreError
from research_jobs.orchestration.compat.instance import cron_ticks
from research_jobs.orchestration.model.addresses import asset_page
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.report.assets import ASSETS
from research_jobs.report.gallery import NotebookCard, list_notebooks
from research_jobs.store.sharing import Sharing

__all__ = ["list_catalog", "next_ticks", "notebook_card", "share_pages"]

logger = logging.getLogger("research_jobs")

TICKS = 50
HOUR = 3600


def notebook_card(catalog: Catalog, entry: Entry) -> NotebookCard:
    """A notebook as the gallery lists it.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    """
    schedules = {
        name: schedule
        for name, schedule in catalog.manifest.schedules.items()
        if entry.name in schedule.notebooks
    }
    ticks: set[float] = set()
    for schedule in schedules.values():
        if schedule.enabled:
            crons = (schedule.cron,) if isinstance(schedule.cron, str) else tuple(schedule.cron)
            # By the hour, so that a backfill's thousands of runs work it out once.
            ticks.update(next_ticks(crons, schedule.timezone or "UTC", int(time.time() // HOUR)))
    return NotebookCard(
        name=entry.name,
        description=entry.spec.description or entry.notebook.description,
        group=entry.spec.group,
        tags=dict(entry.spec.tags),
        owners=tuple(entry.spec.owners),
        next_ticks=tuple(sorted(ticks)[:TICKS]),
        schedule=", ".join(schedules) or None,
        url=asset_page(catalog, entry.name),
    )


@lru_cache(maxsize=256)
def next_ticks(crons: Sequence[str], timezone: str, hour: int) -> tuple[float, ...]:
    """The next ticks of a schedule, Unix times.

    Parameters
    ----------
    crons : tuple of str
    timezone : str
    hour : int
        Hours since 1970 began: ticks from there on.
    """
    ticks = cron_ticks(crons, timezone, hour * HOUR)
    return tuple(moment.timestamp() for moment in islice(ticks, TICKS))


def list_catalog(catalog: Catalog) -> Path:
    """Let the gallery list all notebooks, those that never ran included; its page."""
    cards = [notebook_card(catalog, entry) for entry in catalog]
    page = list_notebooks(catalog.project.reports, cards)
    refused = share_pages(catalog)
    if refused is not None:
        logger.warning("%s", refused)
    return page


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
        for folder in (reports / ASSETS, report):
            if folder is not None:
                sharing.share_tree(folder)
    except StoreError as error:
        return error.headline
    except OSError as error:
        return f"{reports} cannot be shared with the group '{group}': {error.strerror or error}"
    return None
