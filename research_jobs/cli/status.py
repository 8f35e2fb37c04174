"""``research-jobs status``: what needs attention, what is unusual, and then all notebooks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from research_jobs.cli.attention import show_group
from research_jobs.cli.output import (
    ago,
    coverage,
    duration,
    iso,
    print_json,
    print_table,
    print_wrapped,
)
from research_jobs.errors import ParameterError
from research_jobs.outcome import totals
from research_jobs.project import Project, find_project
from research_jobs.supervisor.kept import kept_processes

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.overview import Attention, NotebookLine, Overview

__all__ = ["add_arguments", "parse_since", "run"]

_MARKS = {"good": "●", "idle": "○", "busy": "…", "held": "◐", "bad": "✗", "none": "·"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--since",
        default="yesterday",
        metavar="WHEN",
        help="count runs from then on: yesterday, today, 2026-11-20, 12h or 3d (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print what needs attention as JSON")
    parser.epilog = "Exit code: 0 when nothing needs attention, 1 when something does."


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import enter_project, open_instance
    from research_jobs.orchestration.operations.account import read_account
    from research_jobs.orchestration.operations.overview import local_now, read_overview
    from research_jobs.orchestration.operations.rounds import DoctorBook

    project = find_project(arguments.project)
    enter_project(project)
    catalog = load_catalog(project)
    now = local_now(catalog)
    since = parse_since(arguments.since, now)
    with open_instance(project) as instance:
        overview = read_overview(instance, catalog, now, since)
        account = None
        if not arguments.json:
            account = read_account(instance, catalog, since.timestamp(), now.timestamp())
    if arguments.json:
        print_json([_json(one) for one in overview.attention])
    else:
        _show(project, overview)
        if account is not None and account.owed:
            from research_jobs.cli.account import account_line

            print_wrapped(f"{account_line(account)} (research-jobs account).")
        if catalog.manifest.backup is not None:
            from research_jobs.upkeep.proof import BackupBook

            print_wrapped(BackupBook.read(project).describe(now.timestamp()))
        from research_jobs.remote.samples import sample_lines

        for line in sample_lines(project):
            print_wrapped(line)
        if wrong := DoctorBook.read(project).wrong:
            names = ", ".join(one.check for one in wrong)
            print_wrapped(f"Wrong with the installation: {names} (research-jobs doctor).")
    return 1 if overview.attention else 0


def parse_since(text: str, now: datetime) -> datetime:
    """A moment as a person names it.

    Raises
    ------
    ParameterError
        When it is none of ``yesterday``, ``today``, a date, or a number of hours or days.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return midnight - timedelta(days=text == "yesterday")
    if span := re.fullmatch(r"(\d{1,5})([hd])", text):
        return now - timedelta(**{"hours" if span[2] == "h" else "days": int(span[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(
            f"--since '{text}' is not a moment",
            hint="Write yesterday, today, 2026-11-20, 12h or 3d.",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


def _json(one: Attention) -> dict[str, str | int | None]:
    return {
        "notebook": one.notebook,
        "partition": one.partition,
        "state": one.state.value,
        "since": iso(one.since),
        "reason": one.reason,
        "rerun": one.rerun,
        "report": one.report,
        "times": one.times,
    }


def _show(project: Project, overview: Overview) -> None:
    from research_jobs.orchestration.operations.overview import same_cause, zone_name

    for group in same_cause(overview.attention):
        show_group(project, group, overview.now.tzinfo)
    if not overview.attention:
        print("Nothing needs attention.")
    print()
    unusual = [line for line in overview.notebooks if line.unusual]
    for line in unusual:
        print_wrapped(f"{line.notebook} {'; '.join(line.unusual)}", hang="  ")
    if unusual:
        print()
    _show_notebooks(overview.notebooks, overview.now)
    for kept in kept_processes(project):
        until = datetime.fromtimestamp(kept.until, overview.now.tzinfo)
        print(f"\nKept until {until:%a %H:%M}: the process of {kept.label}, run {kept.run_id[:8]}.")
        print(f"    research-jobs debug {kept.notebook}")
    ended = totals(overview.ended) or "no runs"
    zone = zone_name(overview.now)
    print()
    print_wrapped(f"Since {overview.since:%a %d %b %H:%M}: {ended}. Times are of {zone}.")


def _show_notebooks(lines: Sequence[NotebookLine], now: datetime) -> None:
    rows: list[list[str]] = []
    for line in lines:
        last = line.last
        rows.append(
            [
                line.notebook,
                line.state,
                "".join(_MARKS[outcome.state.tone] for outcome in line.strip),
                duration(last.duration_s or None),
                coverage(line.partitions),
                ago(now.timestamp() - last.ended_at) if last.ended_at else "",
                f"{line.next_tick.astimezone(now.tzinfo):%a %H:%M}" if line.next_tick else "",
                str(line.used_by or ""),
            ]
        )
    columns = ["notebook", "state", "last runs", "took", "partitions", "when", "next", "used by"]
    right = ["took", "partitions", "used by"]
    print_table(
        columns, rows, right=right, optional=["used by", "took", "next", "partitions", "when"]
    )
