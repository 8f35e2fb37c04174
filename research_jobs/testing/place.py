"""Which project pytest tests."""

from __future__ import annotations

import os

import pytest

from research_jobs.errors import ProjectError
from research_jobs.project import PROJECT_VARIABLE, Project, find_project, find_project_above

__all__ = ["project_of"]


def project_of(config: pytest.Config) -> Project:
    """The project of `RESEARCH_JOBS_PROJECT`, or the nearest of pytest's rootdir and above.

    Raises
    ------
    ProjectError
        When there is none.
    """
    if os.environ.get(PROJECT_VARIABLE):
        return find_project()
    found = find_project_above(config.rootpath)
    if found is None:
        raise ProjectError(
            f"no folder notebooks/ in pytest's rootdir {config.rootpath} or above it",
            hint=f"Set {PROJECT_VARIABLE}, or give `project=` to the fixture.",
        )
    return found
