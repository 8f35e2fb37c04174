"""A program that calls a notebook uses the template of the project's host, where there is one."""

from __future__ import annotations

import contextlib
import socket

from research_jobs.errors import ProjectError
from research_jobs.project import find_project
from research_jobs.resident.client import NoHostError, ask_for_template, connect
from research_jobs.supervisor.template import Template, borrowed_template

__all__ = ["borrow_template"]


def borrow_template(python: str, project: str) -> Template | None:
    """The host's template of an interpreter; None where there is no host, or it has none.

    Parameters
    ----------
    python : str
    project : str
        The project's root.
    """
    with contextlib.suppress(NoHostError, ProjectError), connect(find_project(project)) as asking:
        loan, descriptor = ask_for_template(asking, python)
        return borrowed_template(loan, socket.socket(fileno=descriptor))
    return None
