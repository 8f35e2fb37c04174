"""``research-jobs doctor``: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict

from research_jobs.cli.output import print_json, print_wrapped
from research_jobs.errors import ResearchJobsError
from research_jobs.project import find_project

__all__ = ["add_arguments", "run"]

_MARKS = {True: "ok", False: "WRONG", None: "?"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 if a check finds something wrong, else 0."


def run(arguments: argparse.Namespace) -> int:
    """Make every check, print the answers, and keep them for the morning page."""
    from research_jobs.notify.notifier import masker_of
    from research_jobs.orchestration.model.instance import enter_project
    from research_jobs.orchestration.operations.diagnosis import Site
    from research_jobs.orchestration.operations.doctor import examine
    from research_jobs.orchestration.operations.rounds import DoctorBook

    project = find_project(arguments.project)
    enter_project(project)
    site = Site(project)
    checks = examine(site)
    # A full disk or another user's project: the answers are printed all the same.
    with suppress(OSError, ResearchJobsError):
        manifest = site.catalog.manifest
        DoctorBook.write(project, checks, masker_of(manifest, manifest.alerts).text)
    if arguments.json:
        print_json([asdict(one) for one in checks])
    else:
        for one in checks:
            start = f"{_MARKS[one.ok]:6} {one.check:12} "
            print_wrapped(f"{start}{one.detail}", hang=" " * len(start))
            if one.fix:
                print(f"{'':{len(start)}}{one.fix}")
    return 1 if any(one.ok is False for one in checks) else 0
