"""``research-jobs diff``: what differs between two runs of a notebook."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import complain, duration, print_json
from research_jobs.cli.show import newest_partition
from research_jobs.errors import OutputNotFoundError, ResearchJobsError
from research_jobs.project import find_project
from research_jobs.units import readable_size

if TYPE_CHECKING:
    from research_jobs.orchestration.model.catalog import Entry
    from research_jobs.report.comparing import Compared, KeptRun

__all__ = ["add_arguments", "run"]

LISTED = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebook", metavar="NOTEBOOK")
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="the older and the newer run (default: the last two that succeeded; with one, that "
        "one and the last): -1 (the one before the last), a run's ID or a version's, or the "
        "beginning of one, or a date (the last run until then)",
    )
    parser.add_argument("--partition", metavar="KEY", help="the partition (default: the newest)")
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        default=0.0,
        metavar="PART",
        help="floats are the same whose difference is at most this part of the larger one, or of 1 "
        "(default: only equal ones)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="write it as a page too, with the pictures that differ side by side",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _tolerance(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (value := float(text)) < 1:
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is not a part from 0 to 1, such as 1e-9")


def run(arguments: argparse.Namespace) -> int:
    """Compare them; 0 if they are equal, 1 if they differ, 2 if they cannot be compared."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.partitions import partition_key_of
    from research_jobs.orchestration.operations.entries import find_entries
    from research_jobs.report.comparing import compare_runs, kept_successes

    project = find_project(arguments.project)
    entry = find_entries(load_catalog(project), [arguments.notebook])[0]
    wanted = arguments.partition or newest_partition(project, entry)
    partition = partition_key_of(entry.spec, wanted) if wanted is not None else None
    successes = kept_successes(project, entry.name, partition)
    found = compare_runs(
        project,
        entry.name,
        partition,
        _chosen(entry, successes, arguments.runs),
        unique={name: output.unique for name, output in entry.spec.outputs.items()},
        tolerance=arguments.tolerance,
    )
    for note in found.notes:
        complain(note)
    if arguments.json:
        print_json(_as_json(found))
    else:
        print("\n".join([found.title, *_lines(found)]))
    if arguments.html is not None:
        from research_jobs.report.changes import render_changes

        arguments.html.write_text(render_changes(found), encoding="utf-8", errors="replace")
    if found.outputs is None and (entry.spec.outputs or found.shown is None):
        return 2
    return 0 if found.equal else 1


# -- which two --------------------------------------------------------------------------------


def _chosen(
    entry: Entry, successes: Sequence[KeptRun], wanted: Sequence[str]
) -> tuple[KeptRun, KeptRun]:
    if len(wanted) > 2:
        raise ResearchJobsError(f"diff compares two runs, not {len(wanted)}")
    if len(successes) < 2 and not wanted:
        count = "only one run" if successes else "no run"
        raise OutputNotFoundError(
            f"'{entry.name}' has {count} of which anything is kept",
            hint=f"Run it again: research-jobs run {entry.name}",
        )
    before, after = [*(wanted or ["-1"]), "0"][:2]
    return _choose(entry, successes, before), _choose(entry, successes, after)


def _choose(entry: Entry, successes: Sequence[KeptRun], wanted: str) -> KeptRun:
    """The run that a person means.

    Raises
    ------
    OutputNotFoundError
    """
    found: list[KeptRun] = []
    if re.fullmatch(r"0|-\d{1,4}", wanted):
        found = list(successes[-int(wanted) :][:1])
    elif (moment := _moment(wanted)) is not None:
        found = [success for success in successes if success.at <= moment][:1]
    elif len(wanted) >= 4:
        found = [
            success
            for success in successes
            if success.run_id.startswith(wanted)
            or (success.version is not None and success.version.id.startswith(wanted))
        ]
    if len(found) == 1:
        return found[0]
    what = "several runs" if found else "no run"
    known = "; ".join(success.label for success in successes[:LISTED])
    raise OutputNotFoundError(
        f"'{entry.name}' has {what} '{wanted}' of which anything is kept",
        hint=f"There are: {known}" if known else f"Run it: research-jobs run {entry.name}",
    )


def _moment(text: str) -> datetime | None:
    """The end of a day, or a time."""
    try:
        day = date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
        moment = datetime.fromisoformat(text) if day is None and "T" in text else None
    except ValueError:
        return None
    if day is not None:
        moment = datetime.combine(day, time.max)
    return None if moment is None else moment.astimezone()


# -- saying it --------------------------------------------------------------------------------


def _as_json(found: Compared) -> dict[str, Any]:
    from research_jobs.comparison.changes import to_json

    shown = found.shown
    return {
        "notebook": found.notebook,
        "partition": found.partition,
        "equal": found.equal,
        "causes": [cause.to_json() for cause in found.causes],
        "before": _run_json(found.before),
        "after": _run_json(found.after),
        "outputs": to_json(found.outputs)["outputs"] if found.outputs is not None else {},
        "shown": to_json(shown) | {"equal": shown.equal} if shown is not None else None,
    }


def _run_json(run: KeptRun) -> dict[str, Any]:
    outcome = run.report.outcome if run.report is not None else None
    return {
        "run_id": run.run_id,
        "at": run.at.isoformat(),
        "version": run.version.id if run.version is not None else None,
        "report": str(run.report.html) if run.report is not None else None,
        "duration_s": outcome.duration_s if outcome is not None else None,
        "peak_memory_bytes": outcome.peak_memory_bytes if outcome is not None else None,
    }


def _lines(found: Compared) -> Iterator[str]:
    from research_jobs.comparison.text import describe_comparison, describe_shown

    shown = found.shown
    sections: list[list[str]] = [[line for cause in found.causes for line in cause.lines()]]
    if found.outputs is not None:
        sections.append(list(describe_comparison(found.outputs)))
    if shown is not None and shown.cells:
        sections.append(list(describe_shown(shown)))
    elif shown is not None:
        sections.append([f"cells show the same ({shown.compared:,} compared)"])
    sections.append(list(_costs(found.before, found.after)))
    for lines in sections:
        if lines:
            yield from ("", *lines)


def _costs(before: KeptRun, after: KeptRun) -> Iterator[str]:
    if before.report is None or after.report is None:
        return
    old, new = before.report.outcome, after.report.outcome
    yield (
        f"time {duration(old.duration_s)} -> {duration(new.duration_s)}, "
        f"memory {readable_size(old.peak_memory_bytes)} -> {readable_size(new.peak_memory_bytes)}"
    )
    yield f"reports {before.report.html} {after.report.html}"
