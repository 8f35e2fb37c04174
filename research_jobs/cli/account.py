"""``research-jobs account``: every tick that schedules owed, and what became of it."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from research_jobs.cli.output import duration, print_json, print_table
from research_jobs.cli.status import parse_since
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.decisions.account import Account, AccountedTick

__all__ = ["account_line", "add_arguments", "run"]

# A tick that ran later than this is shown although it ran: seconds.
LATE_S = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    for option, default, help_ in (
        ("--from", "yesterday", "the first moment: yesterday, today, 2026-11-20, 12h or 3d"),
        ("--to", "0h", "the last moment, likewise (default: now)"),
    ):
        parser.add_argument(
            option,
            dest=option[2:] + "_",
            default=default,
            metavar="WHEN",
            help=help_ + (" (%(default)s)" if option == "--from" else ""),
        )
    parser.add_argument("--all", action="store_true", help="list the ticks that are well too")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    parser.epilog = (
        "Exit code: 0 when every tick ran, had nothing to do or was made up for; 1 when one was "
        "missed, failed or is unaccounted for."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.definition_log import record_switches
    from research_jobs.orchestration.model.instance import enter_project, open_instance
    from research_jobs.orchestration.operations.account import read_account
    from research_jobs.orchestration.operations.overview import local_now, zone_name

    project = find_project(arguments.project)
    enter_project(project)
    catalog = load_catalog(project)
    now = local_now(catalog)
    start, end = (parse_since(text, now) for text in (arguments.from_, arguments.to_))
    with open_instance(project) as instance:
        record_switches(project, instance)
        account = read_account(instance, catalog, start.timestamp(), end.timestamp())
    if arguments.json:
        print_json(account.as_dict())
    else:
        _show(account, now.tzinfo, zone=zone_name(now), every=arguments.all)
    return 0 if account.good else 1


def account_line(account: Account) -> str:
    """The sum in one line: ``34 ticks owed: 30 ran, 3 nothing to do, 1 healed``."""
    counts = [
        f"{count:,} {became.value.replace('_', ' ')}"
        for became, count in account.counts.items()
        if count
    ]
    owed = "1 tick" if account.owed == 1 else f"{account.owed:,} ticks"
    return f"{owed} owed" + (f": {', '.join(counts)}" if counts else "")


def _show(account: Account, zone_info: tzinfo | None, *, zone: str, every: bool) -> None:
    by_schedule: dict[str, Counter[str]] = {}
    for tick in account.ticks:
        by_schedule.setdefault(tick.schedule, Counter())[tick.became.value] += 1
    if by_schedule:
        kinds = [became.value for became, count in account.counts.items() if count]
        columns = ["schedule", "owed", *(kind.replace("_", " ") for kind in kinds)]
        rows = [
            [name, str(counts.total()), *(str(counts[kind] or "") for kind in kinds)]
            for name, counts in sorted(by_schedule.items())
        ]
        print_table(columns, rows, right=columns[1:])
    shown = [tick for tick in account.ticks if every or not _well(tick)]
    if shown:
        print()
        print_table(
            ["tick", "schedule", "became", "late", "why"],
            [
                [
                    f"{tick.at.astimezone(zone_info):%a %d %b %H:%M}",
                    tick.schedule,
                    tick.became.value.replace("_", " "),
                    duration(tick.late_s),
                    tick.reason or "",
                ]
                for tick in shown
            ],
            right=["late"],
        )
    if account.ticks:
        print()
    start, end = (datetime.fromtimestamp(at, zone_info) for at in (account.start, account.end))
    print(f"{account_line(account)}.")
    print(f"From {start:%a %d %b %H:%M} to {end:%a %d %b %H:%M}. Times are of {zone}.")


def _well(tick: AccountedTick) -> bool:
    """Whether nobody needs to look at it."""
    in_time = tick.became.value == "ran" and (tick.late_s or 0) <= LATE_S
    return in_time or tick.became.value == "nothing_to_do"
