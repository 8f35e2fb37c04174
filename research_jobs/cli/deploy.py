"""``research-jobs deploy``: put new code into service on a server."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain, print_json
from research_jobs.project import UI_PORT, find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.deploy import Deployment

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--pull",
        action="store_true",
        help="fetch, check the upstream branch, and fast-forward to it (default: deploy the "
        "working tree as it is)",
    )
    parser.add_argument(
        "--anyway", action="store_true", help="deploy even if notebooks that ran before cannot run"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check and report, but change nothing"
    )
    parser.add_argument(
        "--url",
        default=f"http://127.0.0.1:{UI_PORT}",
        help="where Dagster's webserver listens, without a login before it (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 if it is refused, 2 if a step fails."


def run(arguments: argparse.Namespace) -> int:
    """Deploy, and print what changed."""
    from research_jobs.orchestration.operations.deploy import deploy

    done = deploy(
        find_project(arguments.project),
        arguments.url,
        pull=arguments.pull,
        anyway=arguments.anyway,
        dry_run=arguments.dry_run,
        say=complain,
    )
    if arguments.json:
        print_json(asdict(done))
    else:
        _print(done)
    return 1 if done.result == "refused" else 0


def _print(done: Deployment) -> None:
    refused = done.result == "refused"
    for refusal in done.refusals:
        print(f"{'refused' if refused else 'accepted'}: {refusal.name}: {refusal.reason}")
    if refused:
        print("Nothing was deployed. Mend these, or add --anyway.")
        return
    commit = f" {done.after[:10]}" if done.after else ""
    was = f" (was {done.before[:10]})" if done.before and done.before != done.after else ""
    print(f"{done.result.capitalize()}:{commit}{was}" if commit else done.result.capitalize())
    for label, names in (
        ("added", done.changes.added),
        ("removed", done.changes.removed),
        ("changed", done.changes.changed),
    ):
        for name in names:
            print(f"  {label:9} {name}")
    for name, (before, after) in done.changes.schedules.items():
        print(f"  schedule  {name}: {before or 'none'} -> {after or 'none'}")
    for note in done.notes:
        print(f"  note      {note}")
