"""``research-jobs host``: a process that is ready to run notebooks, until it is stopped."""

from __future__ import annotations

import argparse
import os
import sys

from research_jobs.project import find_project

__all__ = ["add_arguments", "run"]

PATIENCE_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="how long a host that is stopped by SIGTERM waits for its runs, which go on without "
        "it after that (default: %(default)g); SIGINT ends them",
    )
    parser.add_argument(
        "--with-stdin", action="store_true", help="end, with the runs, when stdin is closed"
    )
    # What it hands to itself when it loads itself anew.
    parser.add_argument("--kept", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Listen, load, serve."""
    from research_jobs.resident.server import Host, Listening, listen

    environment = dict(os.environ)
    project = find_project(arguments.project)
    kept = Listening.from_json(arguments.kept) if arguments.kept else listen(project)
    again = [
        *(sys.executable, "-m", "research_jobs.cli.main", "host", "--project", str(project.root)),
        *("--patience", str(arguments.patience)),
        *(["--with-stdin"] if arguments.with_stdin else []),
        "--kept",
    ]

    from research_jobs.cli.main import main
    from research_jobs.orchestration.operations.hosting import prepare
    from research_jobs.resident.manager import Manager
    from research_jobs.resident.services import register

    host = Host(
        project,
        kept,
        prepare(project, main),
        again=again,
        environment=environment,
        patience_s=arguments.patience,
        with_stdin=arguments.with_stdin,
    )
    register(project, "host")
    print(f"research-jobs host: ready ({project.root})", flush=True)
    Manager().tell("READY=1")
    return host.serve()
