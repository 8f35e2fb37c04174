"""``research-jobs rerun``: run a past run again, and say whether it makes the same."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import complain, print_json
from research_jobs.errors import OutputNotFoundError
from research_jobs.outcome import labelled
from research_jobs.project import find_project, notebook_name

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.rerunning import Rerun

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="the run's ID, or its beginning")
    parser.add_argument(
        "notebook", nargs="?", metavar="NOTEBOOK", help="which of the run's (default: all)"
    )
    parser.add_argument("--partition", metavar="KEY", help="which of the run's (default: all)")
    parser.add_argument("--keep", action="store_true", help="keep the report and outputs")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 0 if the outputs are equal, 1 if not, 2 if it cannot be run."


def run(arguments: argparse.Namespace) -> int:
    """Run it again; 0 if its outputs hold the same."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.operations.rerunning import find_runs, rerun
    from research_jobs.orchestration.operations.trial import open_trial

    project = find_project(arguments.project)
    found = find_runs(project, arguments.run)
    if arguments.notebook is not None:
        found = [one for one in found if one.notebook == notebook_name(arguments.notebook)]
    if arguments.partition is not None:
        found = [one for one in found if one.partition == arguments.partition]
    if not found:
        raise OutputNotFoundError(f"the run {arguments.run} has no such notebook or partition")
    real = load_catalog(project)
    made: list[Rerun] = []
    with open_trial(real, keep=arguments.keep) as trial:
        for record in found:
            made.append(rerun(real, trial, record))
            if not arguments.json:
                _print(made[-1])
        if arguments.keep and not arguments.json:
            print(f"Kept in {trial.folder}")
    equal = all(one.equal for one in made)
    if arguments.json:
        said = [one.to_json() for one in made]
        print_json(said[0] if len(said) == 1 else _together(said, equal=equal))
    return 0 if equal else 1


def _together(said: Sequence[dict[str, Any]], *, equal: bool) -> dict[str, Any]:
    """Several notebooks or partitions of one run as one object."""
    return {
        "run_id": said[0]["run_id"],
        "equal": equal,
        **{
            key: [
                f"{labelled(one['notebook'], one['partition'])}: {line}"
                for one in said
                for line in one[key]
            ]
            for key in ("differs", "not_restored")
        },
        "runs": list(said),
    }


def _print(made: Rerun) -> None:
    record = made.record
    label = f"{labelled(record.notebook, record.partition)}, run {record.run_id[:8]}"
    print(f"{label}: the same" if made.equal else f"{label}: not the same")
    for line in made.differs:
        print(f"  {line}")
    if made.comparison is not None and not made.equal:
        from research_jobs.comparison.text import describe_comparison

        for line in describe_comparison(made.comparison):
            print(f"  {line}")
    if not made.tried.outcome.state.ok and made.tried.outcome.details:
        complain(made.tried.outcome.details)
    if made.not_restored:
        print("Not as it was:")
        for line in made.not_restored:
            print(f"  {line}")
