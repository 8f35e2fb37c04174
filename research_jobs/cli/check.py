"""``research-jobs check``: what is wrong, and what will differ from the editor."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from research_jobs.cli.output import print_json
from research_jobs.errors import SourceLocation
from research_jobs.project import find_project

__all__ = ["Finding", "add_arguments", "findings", "run"]


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Parameters
    ----------
    level : {"error", "warning"}
    notebook : str or None
        Which notebook (or schedule) it is about.
    text : str
        Where, what, what to do.
    """

    level: str
    notebook: str | None
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 when there is an error; warnings alone give 0."


def run(arguments: argparse.Namespace) -> int:
    """Read everything, run nothing, tell what was found."""
    found, notebooks = findings(arguments.project)
    errors = sum(finding.level == "error" for finding in found)
    if arguments.json:
        print_json([asdict(finding) for finding in found])
        return 1 if errors else 0
    for finding in found:
        print(f"{finding.level}: {finding.text}")
    warnings = len(found) - errors
    print(
        f"{notebooks} notebook{'s' * (notebooks != 1)}, "
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    )
    return 1 if errors else 0


def findings(where: str | None) -> tuple[list[Finding], int]:
    """All findings of a project, and how many notebooks it has."""
    from research_jobs.notebook.cells import read_notebook_text
    from research_jobs.notebook.parity import check_parity
    from research_jobs.orchestration.definitions.factory import definition_problems
    from research_jobs.orchestration.model.catalog import load_catalog

    project = find_project(where)
    catalog = load_catalog(project)
    found: dict[Finding, None] = {}  # in order, each once
    for problem in catalog.manifest.problems:
        found[Finding("error", problem.name, problem.error.headline)] = None
    for name, error in definition_problems(catalog):
        found[Finding("error", name, error.headline)] = None
    for error in catalog.scan.problems:
        found[Finding("error", None, error.headline)] = None
    for entry in catalog:
        if entry.error is not None:
            found[Finding("error", entry.name, entry.error.headline)] = None
        for warning in entry.warnings:
            found[Finding("warning", entry.name, warning)] = None
        if entry.notebook.error is None:
            text = read_notebook_text(entry.notebook.path)
            for difference in check_parity(text, notebook=entry.name, notebooks=catalog.entries):
                place = SourceLocation(
                    project.display(entry.notebook.path), difference.line, difference.column
                )
                line = f"{place}: {difference.message} [{difference.code}]"
                found[Finding("warning", entry.name, line)] = None
    # One mistake is told once, whatever it is about.
    told: set[str] = set()
    unique = [f for f in found if f.text not in told and not told.add(f.text)]
    return unique, len(catalog.entries)
