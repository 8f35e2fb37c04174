"""``research-jobs list``: all notebooks at a glance."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import ago, complain, coverage, duration, iso, print_json, print_table
from research_jobs.outcome import Outcome, to_json
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.model.status import PartitionStatus

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--preload",
        action="store_true",
        help="start the templates and list what they import once for all runs, how long each "
        "import takes, and what they leave out and why",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    project = find_project(arguments.project)
    if arguments.preload:
        from research_jobs.cli.preload import show_preload

        return show_preload(project, as_json=arguments.json)

    from research_jobs.notebook.discovery import files_beside
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import enter_project, open_instance
    from research_jobs.orchestration.operations.history import (
        next_ticks,
        read_statuses,
        schedules_of,
        state_of,
    )

    enter_project(project)
    catalog = load_catalog(project)
    with open_instance(project) as instance:
        statuses = read_statuses(instance, catalog, catalog)
        ticks = next_ticks(instance, catalog)
    schedules = schedules_of(catalog)
    if arguments.json:
        print_json(
            [
                {
                    "notebook": entry.name,
                    "path": str(entry.notebook.path),
                    "description": entry.notebook.description,
                    "outputs": list(entry.spec.outputs),
                    "schedules": schedules.get(entry.name, []),
                    "next_tick": ticks[entry.name].isoformat() if entry.name in ticks else None,
                    "state": state_of(entry, statuses[entry.name].last),
                    "last": _last(statuses[entry.name].last),
                    "partitions": _partitions(statuses[entry.name].partitions),
                    "problem": entry.error.headline if entry.error else None,
                }
                for entry in catalog
            ]
        )
        return 0
    beside = files_beside(catalog.scan, project.notebooks)
    if beside:
        complain(beside)
    if not catalog.entries:
        return 0
    now = time.time()
    rows: list[list[str]] = []
    for entry in catalog:
        status, last = statuses[entry.name], statuses[entry.name].last
        tick = ticks.get(entry.name)
        rows.append(
            [
                entry.name,
                state_of(entry, last),
                ago(now - last.ended_at) if last.ended_at else "",
                duration(last.duration_s or None),
                coverage(status.partitions),
                f"{tick:%a %d %b %H:%M}" if tick else "",
                ", ".join(schedules.get(entry.name, [])),
                ", ".join(entry.spec.outputs),
            ]
        )
    columns = ["notebook", "ending", "when", "took", "partitions", "next", "schedule", "outputs"]
    print_table(
        columns,
        rows,
        right=["took", "partitions"],
        optional=["outputs", "schedule", "took", "next", "partitions"],
    )
    broken = [entry for entry in catalog if entry.error]
    for entry in broken:
        complain(f"{entry.name}: {entry.error.headline if entry.error else ''}")
    return 0


def _last(outcome: Outcome) -> dict[str, Any]:
    return to_json(outcome) | {"at": iso(outcome.ended_at)}


def _partitions(partitions: PartitionStatus | None) -> dict[str, int] | None:
    if partitions is None:
        return None
    return {"materialized": len(partitions.with_data), "total": len(partitions.keys)}
