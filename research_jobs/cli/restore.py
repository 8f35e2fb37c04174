"""``research-jobs restore``: build a working project from a backup, in an empty folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.cli.backup import checked_line
from research_jobs.cli.output import print_json
from research_jobs.errors import ProjectError

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.restore import Restored

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="TARGET",
        help="the restic repository, as for `research-jobs backup --to`",
    )
    parser.add_argument("--snapshot", metavar="ID", help="a certain one (default: the latest)")
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="the repository's password (default: RESTIC_PASSWORD)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = (
        "--project names the folder, which must be empty or not exist.\n"
        "Exit code: 1 if an output is damaged or missing, 2 if nothing could be restored."
    )


def run(arguments: argparse.Namespace) -> int:
    """Restore, and print what is not in it."""
    from research_jobs.orchestration.operations.restore import restore
    from research_jobs.upkeep.restic import Repository

    if arguments.project is None:
        raise ProjectError("no folder is named", hint="Add --project DIR, an empty one.")
    password = arguments.password_file.expanduser().resolve() if arguments.password_file else None
    repository = Repository(arguments.source, password)
    restored = restore(arguments.project, repository, arguments.snapshot)
    if arguments.json:
        print_json(asdict(restored))
    else:
        _show(restored)
    damaged = restored.checked is not None and restored.checked.damaged
    return 1 if damaged or restored.lost else 0


def _show(restored: Restored) -> None:
    point = restored.point
    at = datetime.fromtimestamp(point.at).astimezone()
    print(
        f"Restored {restored.root} from snapshot {restored.snapshot.id} of "
        f"{restored.snapshot.host}, as it was on {at:%a %d %b %Y at %H:%M:%S}."
    )
    print(checked_line(restored.checked))
    damaged = restored.checked.damaged if restored.checked is not None else ()
    _list("Damaged:", damaged)
    _list("In the history, and not in the store; run them again:", restored.lost)
    _list("In the store, and not in the history; they are current:", restored.unknown)
    _list("Going on at that moment, failed now:", restored.interrupted)
    ticks = [f"{name}: {count}" for name, count in sorted(restored.since.items())]
    _list("Ticks that were due since; what they made is not in it:", ticks)
    _list("Not in the backup, as it could not be read:", point.left_out)
    if point.root != restored.root:
        print(f"It was in {point.root}: reports of earlier runs are in reports/, without links.")


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(title)
        for line in lines:
            print(f"  {line}")
