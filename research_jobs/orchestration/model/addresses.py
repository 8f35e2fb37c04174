"""Where people see runs and reports: what links in metadata, reports and the gallery lead to.

First that applies: the environment, the manifest (``reports: {url, dagster}``), and a
``research-jobs ui`` that is running, which keeps its addresses in ``.research_jobs/ui.json`` and a
lock on that file: a command in another terminal finds it, and a file that nobody locks is of one
that is gone. Runs of the command line, after which a person starts the UI to see them, link where
it was last, or where it will be.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from research_jobs.filesystem import open_private, temporary_path
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.project import (
    REPORTS_PORT,
    REPORTS_VARIABLE,
    UI_PORT,
    UI_VARIABLE,
    Project,
)

__all__ = ["announced", "asset_page", "expect_ui", "reports_address", "run_page"]

ANNOUNCEMENT = "ui.json"

_expected: dict[str, str] = {}


def reports_address(catalog: Catalog) -> str | None:
    """The address of the reports' folder, None where nobody serves it."""
    return _address(catalog, REPORTS_VARIABLE, catalog.manifest.reports.url, "reports")


def run_page(catalog: Catalog, run_id: str, step_key: str) -> str | None:
    """A run's page in Dagster with one step's events, None where no address of the UI is known."""
    base = _ui_address(catalog)
    if base is None:
        return None
    return f"{base}/runs/{quote(run_id, safe='')}?logs={quote(f'step:{step_key}', safe='')}"


def asset_page(catalog: Catalog, name: str) -> str | None:
    """A notebook's page in Dagster, None where no address of the UI is known."""
    base = _ui_address(catalog)
    return f"{base}/assets/{quote(name)}" if base else None


@contextmanager
def expect_ui() -> Generator[None]:
    """Let this process's runs link where ``research-jobs ui`` is to be found, up or not."""
    _expected.update(ui=f"http://127.0.0.1:{UI_PORT}", reports=f"http://127.0.0.1:{REPORTS_PORT}")
    try:
        yield
    finally:
        _expected.clear()


@contextmanager
def announced(project: Project, *, ui: str, reports: str) -> Generator[None]:
    """Let this machine's other processes know where the UI and the reports are served.

    Parameters
    ----------
    project : Project
    ui, reports : str
        Addresses.
    """
    path = project.make_state_folder() / ANNOUNCEMENT
    temporary = temporary_path(path)
    with open_private(temporary, "xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"ui": ui, "reports": reports}).encode())
        file.flush()
        # Another `ui` of the same project keeps its own file: the last one started is found.
        temporary.replace(path)
        yield


def _ui_address(catalog: Catalog) -> str | None:
    return _address(catalog, UI_VARIABLE, catalog.manifest.reports.dagster, "ui")


def _address(catalog: Catalog, variable: str, said: str | None, name: str) -> str | None:
    found = os.environ.get(variable) or said or _announcement(catalog.project).get(name)
    return found.rstrip("/") if isinstance(found, str) and found else None


def _announcement(project: Project) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError), (project.state / ANNOUNCEMENT).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its owner is there
            current = True
        else:
            current = bool(_expected)
        found = json.load(file) if current else None
        if isinstance(found, dict):
            return found
    return _expected
