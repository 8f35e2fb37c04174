"""Where links in metadata, reports and the gallery lead.

Ports change, and where one project is served today another may be tomorrow. So nothing that is
stored names a port. A link between Dagster and the reports is a path, and the server that shows it
knows the other one (`operations.webserver` for the UI, `report.server` for the reports). Only
public addresses, which a person wrote down (in the environment, else in the manifest as
``reports: {url, dagster}``), are stored whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from research_jobs.manifest.load import load_manifest
from research_jobs.manifest.models import ReportsSpec
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.project import REPORTS_VARIABLE, UI_VARIABLE, Project

__all__ = [
    "REPORT_LINKS",
    "asset_page",
    "public_addresses",
    "report_address",
    "report_link",
    "run_page",
]

REPORT_LINKS = "/research-jobs/reports/"
"""Below this path our webserver leads to the reports."""


def public_addresses(project: Project | None) -> tuple[str | None, str | None]:
    """The public addresses of Dagster's UI and of the reports; None where nobody named one.

    Parameters
    ----------
    project : Project or None
        None where a webserver runs without a project: then the environment alone counts.
    """
    return _public(load_manifest(project, ()).reports if project is not None else ReportsSpec())


def report_link(catalog: Catalog, path: Path, anchor: str | None = None) -> str:
    """The link to a file of the reports that the UI shows.

    Parameters
    ----------
    catalog : Catalog
    path : Path
        Below the reports' folder.
    anchor : str, optional
    """
    place = quote(path.relative_to(catalog.project.reports).as_posix())
    link = report_address(catalog, path) or REPORT_LINKS + place
    return f"{link}#{anchor}" if anchor else link


def report_address(catalog: Catalog, path: Path) -> str | None:
    """The public address of a file of the reports; None where nobody named one."""
    _, reports = _public(catalog.manifest.reports)
    place = quote(path.relative_to(catalog.project.reports).as_posix())
    return f"{reports}/{place}" if reports else None


def run_page(catalog: Catalog, run_id: str, step_key: str) -> str:
    """A run's page in Dagster with one step's events: its address, or its path in the UI."""
    page = f"/runs/{quote(run_id, safe='')}?logs={quote(f'step:{step_key}', safe='')}"
    return _ui(catalog) + page


def asset_page(catalog: Catalog, name: str) -> str:
    """A notebook's page in Dagster: its address, or its path in the UI."""
    return f"{_ui(catalog)}/assets/{quote(name)}"


def _ui(catalog: Catalog) -> str:
    return _public(catalog.manifest.reports)[0] or ""


def _public(spec: ReportsSpec) -> tuple[str | None, str | None]:
    ui = os.environ.get(UI_VARIABLE) or spec.dagster
    reports = os.environ.get(REPORTS_VARIABLE) or spec.url
    return ui.rstrip("/") if ui else None, reports.rstrip("/") if reports else None
