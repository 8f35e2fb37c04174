"""``research-jobs lookahead``: whether notebooks used what was not known yet."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import datetime, time
from typing import TYPE_CHECKING

from research_jobs.cli.output import print_json
from research_jobs.errors import ParameterError
from research_jobs.outcome import labelled
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.model.catalog import Catalog, Entry
    from research_jobs.orchestration.operations.cutting import Bench
    from research_jobs.orchestration.operations.lookahead import Finding

__all__ = ["add_arguments", "run"]

SAMPLE = 5
PROMISE = "This is detection on a sample, not a proof that there is no leak."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    parser.add_argument(
        "--partitions",
        nargs="+",
        metavar="SAMPLE",
        default=[str(SAMPLE)],
        help=f"how many, or which; of a notebook without, dates to cut at (default: {SAMPLE})",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 0 where no leak was found, 1 where one was, 2 for a wrong call."


def run(arguments: argparse.Namespace) -> int:
    """Look; 1 where a notebook knew the future."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.operations.cutting import Bench
    from research_jobs.orchestration.operations.entries import find_entries

    catalog = load_catalog(find_project(arguments.project))
    entries = find_entries(catalog, arguments.notebooks)
    for entry in entries:
        if entry.error is not None:
            raise entry.error
    found: list[Finding] = []
    said: set[str] = set()
    for entry in entries:
        with Bench(catalog) as bench:
            for finding in _look(bench, catalog, entry, arguments.partitions):
                found.append(finding)
                if not arguments.json:
                    print("\n".join(_lines(finding, said)), flush=True)
    if arguments.json:
        print_json([finding.to_json() for finding in found])
    else:
        print(f"\n{_summary(found)} {PROMISE}")
    return 1 if any(finding.leak for finding in found) else 0


def _look(bench: Bench, catalog: Catalog, entry: Entry, wanted: Sequence[str]) -> Iterator[Finding]:
    from research_jobs.orchestration.operations.lookahead import look_ahead, look_ahead_at
    from research_jobs.orchestration.operations.sampling import sample_partitions

    count = int(wanted[0]) if len(wanted) == 1 and len(wanted[0]) < 4 and wanted[0].isdigit() else 0
    if wanted == ["0"]:
        raise ParameterError("--partitions 0 tries nothing", hint="Give a number from 1 on.")
    if not entry.partitioned:
        if count:
            yield from look_ahead(bench, entry.name, None, count)
        else:
            yield from look_ahead_at(bench, entry.name, [_moment(entry, w) for w in wanted])
        return
    keys = sample_partitions(catalog, entry, count) if count else wanted
    if not keys:
        raise ParameterError(f"{entry.name} has no partitions to try")
    for key in keys:
        yield from look_ahead(bench, entry.name, key, max(1, count // len(keys)))


def _moment(entry: Entry, text: str) -> datetime:
    from research_jobs.orchestration.operations.cutting import zone_of

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(
            f"'{text}' is not a date to cut at", hint="Write it as 2018-11-01."
        ) from None
    return (
        moment
        if moment.tzinfo
        else datetime.combine(moment.date(), moment.time() or time(), zone_of(entry))
    )


def _lines(finding: Finding, said: set[str]) -> Iterator[str]:
    """One line for what was found, and one for each thing that it leaves out, unless it is said."""
    name = labelled(finding.notebook, finding.partition)
    if finding.partition is None and finding.cut is not None:
        name = f"{name} as of {finding.cut:%Y-%m-%d %H:%M}"
    difference = finding.difference
    if finding.leak:
        yield f"{name}: LEAK from {', '.join(finding.inputs) or 'an input that is not known'}"
    elif finding.cut is None:
        yield f"{name}: not covered"
    else:
        yield f"{name}: no leak"
    if finding.error is not None:
        yield f"  on what was known by then, it {finding.error}"
    if difference is not None:
        place = [f"output {difference.output}"]
        place += [f"row {difference.row}"] if difference.row else []
        place += [f"column {difference.column}"] if difference.column else []
        gone = "nothing"
        shown = [gone if side is None else side for side in (difference.before, difference.after)]
        yield f"  first at {', '.join(place)}: {shown[0]} -> {shown[1]} on what was known by then"
    left = [f"left out, for it differs between equal runs: {what}" for what in finding.chance]
    left += [f"not covered: {what}" for what in finding.not_covered]
    yield from (f"  {line}" for line in left if line not in said)
    said.update(left)


def _summary(found: Sequence[Finding]) -> str:
    leaks, cuts = sum(each.leak for each in found), sum(each.cut is not None for each in found)
    missed = f" {len(found) - cuts} could not be tried." if cuts < len(found) else ""
    return f"{leaks} of {cuts} {'cut' if cuts == 1 else 'cuts'} found a leak.{missed}"
