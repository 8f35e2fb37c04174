"""``research-jobs run``: run notebooks now, and say what became of them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from research_jobs.cli.attention import show_group
from research_jobs.cli.output import complain, duration, print_json, print_table
from research_jobs.cli.progress import Progress
from research_jobs.errors import ParameterError
from research_jobs.outcome import Outcome, to_json, totals
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.model.catalog import Catalog
    from research_jobs.orchestration.operations.call import RunCommand

__all__ = ["add_arguments", "add_parameters", "read_parameters", "run", "show_outcomes"]

UP_TO_DATE = "Nothing to run: everything is up to date."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="as in: volatility/garch")
    parser.add_argument("--all", action="store_true", help="every notebook")
    parser.add_argument(
        "--select",
        metavar="SELECTION",
        help="a Dagster asset selection: 'group:models', 'market_data+', 'tag:desk=equities'",
    )
    parser.add_argument(
        "--stale",
        action="store_true",
        help="only notebooks whose code or inputs changed since their last run",
    )
    parser.add_argument(
        "--partition", metavar="KEY", help="the partition to run (default: the newest)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and run nothing"
    )
    add_parameters(parser)
    parser.add_argument(
        "--keep-on-failure",
        metavar="TIME",
        help="keep the process of a notebook that fails for so long (2h): "
        "research-jobs debug NOTEBOOK enters it",
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    there = parser.add_argument_group(
        "with --on",
        "the working tree as it is runs there as `try` runs it here: nothing is published",
    )
    there.add_argument("--open", action="store_true", help="open the reports in a browser")
    there.add_argument(
        "--publish",
        action="store_true",
        help="an ordinary run there, which publishes; the server must have this commit",
    )
    parser.epilog = (
        "Exit code: 0 when every notebook succeeded or was skipped, 1 when one did not, "
        "2 for a usage error."
    )


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Declare ``-p name=value``."""
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the notebooks that have it; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Select, run, show."""
    if arguments.open or arguments.publish:
        complain("research-jobs run: --open and --publish go with --on.")
        return 2
    if not (arguments.notebooks or arguments.all or arguments.select or arguments.stale):
        complain(
            "research-jobs run: say which notebooks, or --all. See `research-jobs run --help`."
        )
        return 2
    if arguments.notebooks and (arguments.all or arguments.select):
        complain("research-jobs run: give names, --all or --select, not several of them.")
        return 2
    project = find_project(arguments.project)

    if not arguments.dry_run:
        from research_jobs.supervisor.shared import warm_up

        warm_up(project)

    from research_jobs.notebook.discovery import files_beside
    from research_jobs.orchestration.operations.call import RunCommand
    from research_jobs.orchestration.operations.session import open_session

    with open_session(project) as session:
        if not session.catalog.entries:
            beside = files_beside(session.catalog.scan, project.notebooks)
            complain(f"Nothing to run. {beside}")
            return 1
        session.catalog.remember_preload()
        keys = session.select(
            arguments.notebooks, selection=arguments.select, stale=arguments.stale
        )
        outcomes: list[Outcome] = []
        call = RunCommand(
            session,
            keys,
            partition=arguments.partition,
            values=read_parameters(arguments.parameter),
            named=bool(arguments.notebooks),
            keep=arguments.keep_on_failure,
        )
        if arguments.dry_run:
            return _foretell(call, as_json=arguments.json)
        with Progress(quiet=arguments.json) as progress:
            for seen in call.run():
                progress.expect(call.expected)
                progress.show(seen)
                if isinstance(seen, Outcome):
                    outcomes.append(seen)
    if arguments.json:
        print_json([to_json(outcome) for outcome in outcomes])
    else:
        show_outcomes(session.catalog, outcomes, everything=arguments.all)
    return max((outcome.state.exit_code for outcome in outcomes), default=0)


def _foretell(call: RunCommand, *, as_json: bool) -> int:
    from research_jobs.cli.backfill import show_plan, summary_json

    summary = call.plan()
    if as_json:
        print_json(summary_json(summary))
    elif summary.plan:
        show_plan("run", summary)
    else:
        print(UP_TO_DATE)
    return 0 if summary.ok else 1


def read_parameters(words: Sequence[str]) -> dict[str, str]:
    """``["lookback=60"]`` as a mapping.

    Raises
    ------
    ParameterError
        When a word is not ``name=value``.
    """
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ParameterError(f"-p '{word}' is not name=value", hint="For example -p days=60")
        values[name.strip()] = value
    return values


def show_outcomes(
    catalog: Catalog, outcomes: Sequence[Outcome], *, everything: bool = False
) -> None:
    """A table of what became of notebooks, and why those that failed did.

    Parameters
    ----------
    catalog : Catalog
    outcomes : sequence of Outcome
    everything : bool
        Whether all notebooks ran: then where to see them.
    """
    project = catalog.project
    if not outcomes:
        print(UP_TO_DATE)
        return
    for outcome in outcomes:
        if outcome.details:
            complain(f"\n{outcome.label}: {outcome.reason}\n{outcome.details}")
    print()
    rows: list[list[str]] = []
    for outcome in outcomes:
        lines = [
            [output.name, _count(output.rows), project.display(output.path)]
            for output in outcome.outputs
        ] or [["", "", ""]]
        for index, line in enumerate(lines):
            head = [outcome.label, outcome.state, duration(outcome.duration_s)]
            rows.append([*(head if index == 0 else ["", "", ""]), *line])
    print_table(
        ["notebook", "ending", "time", "output", "rows", "path"], rows, right=["time", "rows"]
    )
    _show_what_failed(catalog, outcomes)
    if everything:
        print()
        command = "make ui" if (project.root / "Makefile").is_file() else "research-jobs ui"
        print(f"See them, their history and their reports:  {command}")


def _show_what_failed(catalog: Catalog, outcomes: Sequence[Outcome]) -> None:
    """How many ended how; then each failure in one line, its report, and how to run it again."""
    if len(outcomes) == 1 and outcomes[0].state.ok:
        return
    print(f"\n{totals(Counter(outcome.state for outcome in outcomes))}")
    if all(outcome.state.ok for outcome in outcomes):
        return
    from research_jobs.orchestration.operations.overview import (
        attention_of,
        local_now,
        same_cause,
    )

    zone = local_now(catalog).tzinfo

    for group in same_cause(attention_of(outcomes)):
        print()
        show_group(catalog.project, group, zone)


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"
