"""``research-jobs diff``: what differs between two runs of a notebook."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import complain, duration, print_json
from research_jobs.cli.report import StoredReport, stored_reports
from research_jobs.cli.show import newest_partition
from research_jobs.errors import OutputNotFoundError, ResearchJobsError
from research_jobs.outcome import State, labelled
from research_jobs.project import Project, find_project
from research_jobs.store.records import Version
from research_jobs.units import readable_size

if TYPE_CHECKING:
    from research_jobs.comparison.changes import Comparison
    from research_jobs.comparison.shown import ShownChange
    from research_jobs.orchestration.model.catalog import Entry
    from research_jobs.protocol import PartitionKey
    from research_jobs.provenance.causes import Cause

__all__ = ["Success", "add_arguments", "causes", "run"]

LISTED = 6


@dataclass(frozen=True)
class Success:
    """A run that succeeded, as far as anything of it is kept.

    Parameters
    ----------
    run_id : str
    at : datetime
        When it ended, in the local time zone.
    version : Version or None
        Its outputs; None if they are no longer stored, or if there are none.
    report : StoredReport or None
    """

    run_id: str
    at: datetime
    version: Version | None
    report: StoredReport | None

    @property
    def label(self) -> str:
        """Str: how a line names it."""
        return f"{self.at:%Y-%m-%d %H:%M:%S} (run {self.run_id[:8]})"


def causes(
    project: Project, notebook: str, before: Success, after: Success, shown: ShownChange | None
) -> tuple[Cause, ...]:
    """Why the outputs of two runs differ."""
    from research_jobs.provenance.following import Two, explain

    partition = after.report.outcome.partition if after.report is not None else None
    cell = shown.cells[0] if shown is not None and shown.cells else None
    title = f' "{cell.title}"' if cell is not None and cell.title else ""
    return explain(
        Two(notebook, before.run_id, after.run_id, partition),
        reports=project.reports,
        store=project.store,
        folder=_work_folder(project),
        first_cell=f"cell {cell.cell}{title}" if cell is not None else None,
    )


def _work_folder(project: Project) -> Path | None:
    return project.state if os.access(project.state, os.W_OK) else None


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

    project = find_project(arguments.project)
    entry = find_entries(load_catalog(project), [arguments.notebook])[0]
    wanted = arguments.partition or newest_partition(project, entry)
    partition = partition_key_of(entry.spec, wanted) if wanted is not None else None
    successes = _successes(project, entry, partition)
    before, after = _chosen(entry, successes, arguments.runs)
    compared = _compare_stored(project, entry, partition, before, after, arguments.tolerance)
    executed = _executed(before, after)
    shown = _compare_reports(executed)
    if compared is None and entry.spec.outputs:
        _lost(entry, [one for one in (before, after) if one.version is None])
    equal = compared.equal if compared is not None else shown is not None and shown.equal
    known = () if equal else causes(project, entry.name, before, after, shown)
    name = labelled(entry.name, wanted)
    title = f"{name}: {before.label} -> {after.label}"
    lines = list(_lines(before, after, compared, shown, known))
    if arguments.json:
        print_json(_as_json(entry, wanted, before, after, compared, shown, known, equal))
    else:
        print("\n".join([title, *lines]))
    if arguments.html is not None:
        from research_jobs.comparison.page import comparison_page

        old, new = executed or (None, None)
        page = comparison_page(title, lines, shown, old, new)
        arguments.html.write_text(page, encoding="utf-8")
    if compared is None and (entry.spec.outputs or shown is None):
        return 2
    return 0 if equal else 1


# -- which two --------------------------------------------------------------------------------


def _successes(project: Project, entry: Entry, partition: PartitionKey | None) -> list[Success]:
    """The successful runs of which outputs or a report are kept, newest first."""
    from research_jobs.store.stored import stored_versions

    key = partition.key if partition is not None else None
    reports = {
        report.outcome.run_id: report
        for report in reversed(list(stored_reports(project, entry.name)))
        if report.outcome.state is State.SUCCEEDED and report.outcome.partition == key
    }
    found: list[Success] = []
    for version in stored_versions(project.store, entry.name, partition):
        at = datetime.fromisoformat(version.published_at).astimezone()
        found.append(Success(version.run_id, at, version, reports.pop(version.run_id, None)))
    for run_id, report in reports.items():
        at = datetime.fromtimestamp(report.outcome.ended_at or 0).astimezone()
        found.append(Success(run_id, at, None, report))
    return sorted(found, key=lambda success: success.at, reverse=True)


def _chosen(
    entry: Entry, successes: Sequence[Success], wanted: Sequence[str]
) -> tuple[Success, Success]:
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


def _choose(entry: Entry, successes: Sequence[Success], wanted: str) -> Success:
    """The run that a person means.

    Raises
    ------
    OutputNotFoundError
    """
    found: list[Success] = []
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


# -- comparing --------------------------------------------------------------------------------


def _compare_stored(
    project: Project,
    entry: Entry,
    partition: PartitionKey | None,
    before: Success,
    after: Success,
    tolerance: float,
) -> Comparison | None:
    """What differs in the outputs; None if those of one of the runs are not stored."""
    if before.version is None or after.version is None:
        return None
    from research_jobs.comparison.outputs import compare_outputs
    from research_jobs.store.backends import backend_of

    backend = backend_of(project.store)
    unit = backend.unit(entry.name, partition)
    folder = _work_folder(project)
    with ExitStack() as stack:
        held = [backend.hold(unit, one.id) for one in (before.version, after.version)]
        for one in held:
            stack.callback(one.release)
        files = [{name: one.version.file(name) for name in one.version.outputs} for one in held]
        return compare_outputs(
            *files,
            unique={name: output.unique for name, output in entry.spec.outputs.items()},
            tolerance=tolerance,
            folder=folder,
        )


def _executed(before: Success, after: Success) -> list[Mapping[str, Any]]:
    """The executed notebooks of both runs; empty if they are not both kept."""
    from research_jobs.comparison.shown import read_executed

    if before.report is None or after.report is None:
        return []
    paths = [one.html.with_name("notebook.ipynb") for one in (before.report, after.report)]
    try:
        return [read_executed(path) for path in paths]
    except ResearchJobsError as error:  # it was removed meanwhile, or is damaged
        complain(error.headline)
        return []


def _compare_reports(executed: Sequence[Mapping[str, Any]]) -> ShownChange | None:
    from research_jobs.comparison.shown import compare_shown

    return compare_shown(*executed) if executed else None


def _lost(entry: Entry, successes: Sequence[Success]) -> None:
    for success in successes:
        complain(
            f"The outputs of {entry.name} at {success.label} are no longer stored: `keep` in the "
            "manifest says how many older versions are."
        )


# -- saying it --------------------------------------------------------------------------------


def _as_json(
    entry: Entry,
    partition: str | None,
    before: Success,
    after: Success,
    compared: Comparison | None,
    shown: ShownChange | None,
    known: Sequence[Cause],
    equal: bool,
) -> dict[str, Any]:
    from research_jobs.comparison.changes import to_json

    return {
        "notebook": entry.name,
        "partition": partition,
        "equal": equal,
        "causes": [cause.to_json() for cause in known],
        "before": _run_json(before),
        "after": _run_json(after),
        "outputs": to_json(compared)["outputs"] if compared is not None else {},
        "shown": to_json(shown) | {"equal": shown.equal} if shown is not None else None,
    }


def _run_json(success: Success) -> dict[str, Any]:
    outcome = success.report.outcome if success.report is not None else None
    return {
        "run_id": success.run_id,
        "at": success.at.isoformat(),
        "version": success.version.id if success.version is not None else None,
        "report": str(success.report.html) if success.report is not None else None,
        "duration_s": outcome.duration_s if outcome is not None else None,
        "peak_memory_bytes": outcome.peak_memory_bytes if outcome is not None else None,
    }


def _lines(
    before: Success,
    after: Success,
    compared: Comparison | None,
    shown: ShownChange | None,
    known: Sequence[Cause],
) -> Iterator[str]:
    from research_jobs.comparison.text import describe_comparison, describe_shown

    sections: list[list[str]] = [[line for cause in known for line in cause.lines()]]
    if compared is not None:
        sections.append(list(describe_comparison(compared)))
    if shown is not None and shown.cells:
        sections.append(list(describe_shown(shown)))
    elif shown is not None:
        sections.append([f"cells show the same ({shown.compared:,} compared)"])
    sections.append(list(_costs(before, after)))
    for lines in sections:
        if lines:
            yield from ("", *lines)


def _costs(before: Success, after: Success) -> Iterator[str]:
    if before.report is None or after.report is None:
        return
    old, new = before.report.outcome, after.report.outcome
    yield (
        f"time {duration(old.duration_s)} -> {duration(new.duration_s)}, "
        f"memory {readable_size(old.peak_memory_bytes)} -> {readable_size(new.peak_memory_bytes)}"
    )
    yield f"reports {before.report.html} {after.report.html}"
