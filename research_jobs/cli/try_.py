"""``research-jobs try``: run notebooks as they stand, and compare with what is published."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import complain, print_json
from research_jobs.cli.run import add_parameters, read_parameters
from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import Outcome, labelled
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.model.catalog import Catalog
    from research_jobs.orchestration.operations.trial import Trial, Tried
    from research_jobs.orchestration.operations.trying import Verdict

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="with all that read them (default: those whose code is not that of what is published)",
    )
    parser.add_argument(
        "--partition", metavar="KEY", help="the partition (default: the newest with data, of each)"
    )
    add_parameters(parser)
    parser.add_argument(
        "--only", action="store_true", help="without the notebooks that read those that are named"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="publish what was tried, if all succeed and nothing it depends on changes meanwhile",
    )
    parser.add_argument("--keep", action="store_true", help="keep the reports and outputs")
    parser.add_argument(
        "--reports", type=Path, metavar="DIR", help="write each report there, as a single file"
    )
    parser.add_argument(
        "--prints", action="store_true", help="show what notebooks print (with --json on stderr)"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = (
        "Exit code: 0 where nothing differs, 1 where something does or fails, 2 if not tried. With "
        "--publish: 0 if all is published, 1 if not."
    )


def run(arguments: argparse.Namespace) -> int:
    """Try them; 0 where nothing would change."""
    from research_jobs.supervisor.shared import warm_up

    project = find_project(arguments.project)
    reports: Path | None = arguments.reports and arguments.reports.absolute()
    warm_up(project)

    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.operations.entries import find_entries, given_parameters
    from research_jobs.orchestration.operations.trial import open_trial
    from research_jobs.orchestration.operations.trying import (
        changed_entries,
        in_order,
        try_entries,
    )

    real = load_catalog(project)
    real.remember_preload()
    named = arguments.notebooks
    chosen = find_entries(real, named) if named else changed_entries(real)
    if not chosen:
        if arguments.json:
            print_json([])
        else:
            print("Nothing to try: the code is that of what is published.")
        return 0
    entries = in_order(real, chosen, downstream=not arguments.only)
    names = [entry.name for entry in entries]
    parameters = given_parameters(real, names, read_parameters(arguments.parameter))
    prints = (2 if arguments.json else 1) if arguments.prints else None
    verdicts: list[Verdict] = []
    with open_trial(real, keep=arguments.keep, captures=arguments.publish, prints=prints) as trial:
        for verdict in try_entries(
            trial, real, entries, partition=arguments.partition, parameters=parameters
        ):
            verdicts.append(verdict)
            if reports is not None and verdict.tried.outcome.report is not None:
                _write_page(verdict.tried, reports)
            if not arguments.json:
                _print(verdict)
        published = _publish(real, trial, verdicts, arguments) if arguments.publish else {}
        if arguments.json:
            print_json([_as_json(verdict, arguments, published) for verdict in verdicts])
        elif arguments.keep:
            print(f"\nReports: {trial.catalog.project.reports / 'index.html'}")
    if arguments.publish:
        return 0 if published and all(outcome.state.ok for outcome in published.values()) else 1
    return 0 if all(verdict.equal for verdict in verdicts) else 1


def _write_page(tried: Tried, folder: Path) -> None:
    from research_jobs.report.build import standalone

    name = labelled(tried.entry.name, tried.partition).replace("/", ".").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    page = standalone(Path(str(tried.outcome.report)))
    (folder / f"{name}.html").write_text(page, encoding="utf-8")


def _publish(
    real: Catalog, trial: Trial, verdicts: Sequence[Verdict], arguments: argparse.Namespace
) -> dict[str, Outcome]:
    """Publish what was tried; by label, what became of it. Empty where nothing is published."""
    from research_jobs.cli.progress import Progress
    from research_jobs.cli.run import show_outcomes
    from research_jobs.orchestration.operations.publishing import publish_tried

    outcomes: list[Outcome] = []
    if not arguments.json:
        print()
    try:
        with Progress(quiet=arguments.json) as progress:
            for seen in publish_tried(real.project, trial, verdicts):
                progress.expect(len(verdicts))
                progress.show(seen)
                if isinstance(seen, Outcome):
                    outcomes.append(seen)
    except ResearchJobsError as error:
        complain(f"research-jobs try: {error}")
    if outcomes and not arguments.json:
        show_outcomes(real, outcomes)
    return {outcome.label: outcome for outcome in outcomes}


def _as_json(
    verdict: Verdict, arguments: argparse.Namespace, published: Mapping[str, Outcome]
) -> dict[str, Any]:
    said = verdict.to_json()
    if arguments.publish:
        label = labelled(verdict.tried.entry.name, verdict.tried.partition)
        outcome = published.get(label)
        done = outcome is not None and outcome.state.ok
        said["run_id"] = outcome.run_id if outcome is not None and done else None
    return said


def _print(verdict: Verdict) -> None:
    from research_jobs.comparison.text import describe_comparison

    tried = verdict.tried
    outcome = tried.outcome
    name = labelled(tried.entry.name, tried.partition)
    if not outcome.state.ok:
        print(f"{name}: {outcome.state.words}: {outcome.reason or ''}")
        if outcome.details:
            complain(outcome.details)
    elif verdict.unreadable is not None:
        print(f"{name}: {outcome.state.words}; what is published of it: {verdict.unreadable}")
    elif verdict.comparison is None:
        print(f"{name}: {outcome.state.words}; nothing of it is published yet")
    elif verdict.equal:
        print(f"{name}: equal to what is published")
    else:
        print(f"{name}: differs from what is published")
        for cause in verdict.causes:
            print("\n".join(cause.lines("  ")))
        for line in describe_comparison(verdict.comparison):
            print(f"  {line}")
    for path in tried.written:
        complain(f"{name} writes {path}, which is not an output: that is as it would be in a run.")
