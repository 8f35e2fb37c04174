"""``research-jobs prune``: remove what nobody reads any more, as the nightly job does."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from research_jobs.cli.output import print_json, print_table
from research_jobs.project import find_project
from research_jobs.units import readable_size

if TYPE_CHECKING:
    from research_jobs.orchestration.execution.prune import Pruned

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--dry-run", action="store_true", help="remove nothing; print what would be removed"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 if a part of it could not be done, else 0."


def run(arguments: argparse.Namespace) -> int:
    """Prune, and print what was removed."""
    from research_jobs.orchestration.execution.prune import prune
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import LOCATION, enter_project, open_instance

    project = find_project(arguments.project)
    enter_project(project)
    with open_instance(project) as instance:
        done = prune(instance, load_catalog(project), location=LOCATION, dry_run=arguments.dry_run)
    if arguments.json:
        print_json([asdict(one) for one in done])
    else:
        _show(done, dry_run=arguments.dry_run)
    return 1 if any(one.error for one in done) else 0


def _show(done: list[Pruned], *, dry_run: bool) -> None:
    rows = [
        [one.kind, f"{one.count:,}", readable_size(one.bytes), one.error or one.note]
        for one in done
    ]
    print_table(["", "would go" if dry_run else "removed", "size", ""], rows)
    kept = {why: count for one in done for why, count in one.kept.items()}
    if kept:
        print("\nRuns that stay:")
        rows = [[f"{count:,}", why] for why, count in sorted(kept.items(), key=lambda i: -i[1])]
        print_table(["", ""], rows)
