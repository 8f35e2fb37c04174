"""``research-jobs report``: a notebook's last report, or the page of all of them."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import complain, duration, print_json, print_table
from research_jobs.errors import ParameterError, ResearchJobsError
from research_jobs.outcome import labelled, to_json
from research_jobs.project import Project, find_project

if TYPE_CHECKING:
    from research_jobs.report.stored import StoredReport

__all__ = ["add_arguments", "add_choice", "find_report", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "notebook",
        nargs="?",
        metavar="NOTEBOOK",
        help="default: write the page of all notebooks anew",
    )
    add_choice(parser)
    parser.add_argument(
        "--changes",
        action="store_true",
        help="the page of what changed since the success before; it is made if need be",
    )
    parser.add_argument("--list", action="store_true", help="list all stored reports")
    parser.add_argument("--open", action="store_true", help="open the report in a browser")
    parser.add_argument(
        "--standalone",
        metavar="FILE",
        type=Path,
        help="write the report as a single file, for example to email it; - is stdout",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Find it, then print where it is, open it or make one file of it."""
    project = find_project(arguments.project)
    if arguments.notebook is None:
        if arguments.standalone is not None:
            raise ParameterError("--standalone: name the notebook whose report it is")
        return _morning_page(project, arguments)

    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.operations.entries import find_entries

    entry = find_entries(load_catalog(project), [arguments.notebook])[0]
    if arguments.list:
        return _list(project, _chosen(project, entry.name, arguments), as_json=arguments.json)
    report = find_report(project, entry.name, arguments)
    if arguments.standalone is not None:
        from research_jobs.report.build import standalone

        target: Path = arguments.standalone
        page = standalone(report.html)
        if str(target) == "-":
            sys.stdout.buffer.write(page.encode())  # in the page's encoding, not the terminal's
            return 0
        target.write_text(page, encoding="utf-8")
        print(f"Wrote {target}")
        return 0
    page = _changes(project, report) if arguments.changes else report.html
    if arguments.json:
        print_json(_as_json(report) | ({"changes": str(page)} if arguments.changes else {}))
    else:
        print(page)
    if arguments.open:
        open_page(page)
    return 0


def _changes(project: Project, report: StoredReport) -> Path:
    """The page of what changed since the success before, made if it is not there yet."""
    from research_jobs.report.layout import CHANGES
    from research_jobs.report.making import make_changes
    from research_jobs.report.pending import read_pending

    page = report.html.with_name(CHANGES)
    if not page.is_file():
        name = labelled(report.outcome.notebook, report.outcome.partition)
        raise ResearchJobsError(f"{name} has no run before this one that succeeded")
    if read_pending(page) is not None:
        make_changes(project, page.parent)
    return page


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose one of a notebook's reports."""
    parser.add_argument("--partition", metavar="KEY", help="the last report of this partition")
    parser.add_argument(
        "--run", metavar="ID", help="the report of this run, by its ID or a prefix of it"
    )


def find_report(project: Project, notebook: str, arguments: argparse.Namespace) -> StoredReport:
    """The newest report that the arguments choose.

    Raises
    ------
    ResearchJobsError
        When there is none.
    """
    return _chosen(project, notebook, arguments)[0]


def _chosen(project: Project, notebook: str, arguments: argparse.Namespace) -> list[StoredReport]:
    from research_jobs.report.stored import stored_reports

    reports = [
        report
        for report in stored_reports(project.reports, notebook)
        if arguments.partition in (None, report.outcome.partition)
        and report.outcome.run_id.startswith(arguments.run or "")
    ]
    if not reports:
        what = f" for {arguments.partition}" if arguments.partition else ""
        raise ResearchJobsError(
            f"'{notebook}' has no report{what} yet", hint=f"research-jobs run {notebook}"
        )
    return reports


def _morning_page(project: Project, arguments: argparse.Namespace) -> int:
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import enter_project, open_instance
    from research_jobs.orchestration.operations.morning import look_and_write

    enter_project(project)
    index = project.reports / "index.html"
    try:
        with open_instance(project) as instance:
            look_and_write(instance, load_catalog(project))
    except OSError as error:
        if not index.is_file():
            raise
        complain(f"The page is not written anew: {error}")
    if arguments.json:
        print_json({"gallery": str(index)})
    else:
        print(index)
    if arguments.open:
        open_page(index)
    return 0


def _list(project: Project, reports: list[StoredReport], *, as_json: bool) -> int:
    if as_json:
        print_json([_as_json(report) for report in reports])
        return 0
    rows = [
        [
            _when(report.outcome.started_at),
            report.outcome.state,
            duration(report.outcome.duration_s),
            report.outcome.partition or "",
            project.display(report.html),
        ]
        for report in reports
    ]
    print_table(["when", "ending", "took", "partition", "report"], rows, right=["took"])
    return 0


def _as_json(report: StoredReport) -> dict[str, Any]:
    return {
        "html": str(report.html),
        "ipynb": str(report.ipynb),
        **to_json(report.outcome),
    }


def _when(started: float) -> str:
    return f"{datetime.fromtimestamp(started).astimezone():%Y-%m-%d %H:%M}"


def open_page(path: Path) -> None:
    import webbrowser

    webbrowser.open(path.resolve().as_uri())
