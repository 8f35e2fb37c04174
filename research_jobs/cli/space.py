"""``research-jobs space``: how much room each notebook's outputs and reports take."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from research_jobs.cli.output import print_json, print_table
from research_jobs.filesystem import folder_bytes
from research_jobs.project import find_project
from research_jobs.provenance.shelf import KEPT
from research_jobs.provenance.space import Space, spaces
from research_jobs.units import readable_size

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print as JSON, sizes in bytes")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print it."""
    project = find_project(arguments.project)
    found = spaces(project.store, project.reports)
    sources = folder_bytes(project.reports / KEPT)
    environments = folder_bytes(project.environments)
    total = sum(space.total for space in found) + sources + environments
    if arguments.json:
        rows = [asdict(space) | {"total": space.total} for space in found]
        print_json(
            {
                "notebooks": rows,
                "kept_sources": sources,
                "environments": environments,
                "total": total,
            }
        )
        return 0
    columns = ["notebook", "current", "older", "versions", "rejected", "reports", "total"]
    print_table(columns, [_row(space) for space in found], right=columns[1:])
    print(f"\nsources that records name: {readable_size(sources)} in {project.reports / KEPT}")
    if environments:
        where = project.environments
        print(f"environments of notebooks: {readable_size(environments)} in {where}")
    print(f"total: {readable_size(total)}")
    return 0


def _row(space: Space) -> list[str]:
    named = f" ({space.named:,} named)" if space.named else ""
    return [
        space.notebook,
        _size(space.current),
        _size(space.older),
        f"{space.versions:,}{named}",
        _size(space.rejected),
        _size(space.reports),
        _size(space.total),
    ]


def _size(size: int) -> str:
    return readable_size(size) if size else ""
