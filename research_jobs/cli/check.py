"""``research-jobs check``: what is wrong, what will fail, and what differs from the editor."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain, print_json
from research_jobs.errors import ProjectError, ResearchJobsError, did_you_mean
from research_jobs.project import Project, find_project

if TYPE_CHECKING:
    from research_jobs.cli.findings import Finding

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "files",
        metavar="FILE",
        type=Path,
        nargs="*",
        help="report only what is about these files (default: everything)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument(
        "--format",
        choices=("text", "github"),
        default="text",
        help="github: annotations for a workflow of GitHub Actions",
    )
    parser.add_argument("--explain", metavar="CODE", help="print what a finding's code means")
    parser.epilog = "Exit code: 1 if there is an error, 0 if there are only warnings."


def run(arguments: argparse.Namespace) -> int:
    """Read everything, run nothing, report what is wrong."""
    from research_jobs.cli.findings import find_all
    from research_jobs.notebook.discovery import files_beside
    from research_jobs.orchestration.model.catalog import load_catalog

    if arguments.explain:
        return _explain(arguments.explain)
    project = find_project(arguments.project)
    catalog = load_catalog(project)
    problems = find_all(catalog)
    files: list[Path] = arguments.files
    if files:
        problems = _about(problems, files, project)
    errors = sum(finding.level == "error" for finding in problems)
    if arguments.json:
        print_json([{**asdict(finding), "message": finding.message} for finding in problems])
    elif arguments.format == "github":
        for finding in problems:
            print(_annotation(finding, project))
    else:
        beside = None if files else files_beside(catalog.scan, project.notebooks)
        if beside and ".ipynb here" in beside:
            problems = [finding for finding in problems if finding.code != "unconverted"]
        _print(problems, len(files) or len(catalog.entries), beside)
    return 1 if errors else 0


def _explain(name: str) -> int:
    from research_jobs.cli.codes import codes, page

    known = codes()
    if name not in known:
        hint = did_you_mean(name, known, label="Codes")
        raise ResearchJobsError(f"no finding has the code '{name}'", hint=hint)
    print(page(known[name]), end="")
    return 0


def _about(problems: Sequence[Finding], files: Collection[Path], project: Project) -> list[Finding]:
    """The findings about some files."""
    missing = next((file for file in files if not file.exists()), None)
    if missing is not None:
        raise ProjectError(f"{missing} does not exist")
    wanted = {project.display(file.resolve()) for file in files} | {str(file) for file in files}
    root = Project(root=project.root.resolve(), store=project.store)
    wanted |= {root.display(file.resolve()) for file in files}
    return [finding for finding in problems if finding.path in wanted]


def _print(problems: Sequence[Finding], notebooks: int, beside: str | None) -> None:
    from research_jobs.notebook.environment import distribution_of

    for finding in problems:
        print(f"{finding.level}: {finding.text}")
    if beside:
        complain(beside)
    missing = sorted(
        {
            distribution_of(finding.message.split("'")[1])
            for finding in problems
            if finding.code == "missing-module" and "pip install" in finding.message
        }
    )
    if missing:
        print(f"To install: pip install {' '.join(missing)}")
    errors = sum(finding.level == "error" for finding in problems)
    warnings = len(problems) - errors
    print(
        f"{notebooks} notebook{'s' * (notebooks != 1)}, "
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    )


def _annotation(finding: Finding, project: Project) -> str:
    """A finding as GitHub Actions reads it from a log."""
    options = [f"title={finding.code}"]
    if finding.path:
        # GitHub wants paths from the repository's root, where workflows start.
        file = os.path.relpath(project.root / finding.path)
        options.insert(0, f"file={_escaped(file)}")
        if finding.line:
            options.insert(1, f"line={finding.line}")
            options.insert(2, f"col={finding.column or 1}")
    text = finding.message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{finding.level} {','.join(options)}::{text}"


def _escaped(value: str) -> str:
    for character, escape in (
        ("%", "%25"),
        ("\r", "%0D"),
        ("\n", "%0A"),
        (":", "%3A"),
        (",", "%2C"),
    ):
        value = value.replace(character, escape)
    return value
