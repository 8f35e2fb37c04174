"""``research-jobs backfill``: run notebooks over many partitions, in one run."""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="momentum_signals")
    which = parser.add_argument_group("which partitions")
    which.add_argument(
        "--from", dest="first", metavar="KEY", help="the first: a key, a day, a month, a year"
    )
    which.add_argument("--to", dest="last", metavar="KEY", help="the last, inclusive")
    which.add_argument(
        "--partitions", nargs="+", metavar="KEY", help="keys, or patterns of them: '2018-11-*'"
    )
    which.add_argument("--all", action="store_true", help="all there are by now")
    among = parser.add_argument_group("and of these only").add_mutually_exclusive_group()
    among.add_argument("--missing", action="store_true", help="those without data")
    among.add_argument("--failed", action="store_true", help="those whose last try failed")
    among.add_argument(
        "--stale", action="store_true", help="those whose code or inputs changed since"
    )
    parser.add_argument("--concurrency", type=int, metavar="N", help="how many at once")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, and run nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    from research_jobs.cli.run import add_parameters

    add_parameters(parser)
    parser.epilog = (
        "Ctrl-C loses nothing that is finished: the same command with --missing goes on.\n"
        "Exit code: 0 when every partition succeeded or was skipped, 1 when one did not, "
        "2 on a wrong call."
    )
