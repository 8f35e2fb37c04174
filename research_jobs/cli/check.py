"""``research-jobs check``: what is wrong, and what differs from the editor."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain, print_json
from research_jobs.errors import (
    OutputNotAssignedError,
    PartitionError,
    ResearchJobsError,
    SourceLocation,
    StoreError,
    did_you_mean,
)
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.model.catalog import Catalog, Entry

__all__ = ["Finding", "add_arguments", "findings", "run"]


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Parameters
    ----------
    level : {"error", "warning"}
    notebook : str or None
        Which notebook (or schedule) it is about.
    text : str
        Where, what, what to do.
    """

    level: str
    notebook: str | None
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 if there is an error, 0 if there are only warnings."


def run(arguments: argparse.Namespace) -> int:
    """Read everything, run nothing, report what is wrong."""
    problems, notebooks, beside = findings(arguments.project)
    errors = sum(finding.level == "error" for finding in problems)
    if arguments.json:
        print_json([asdict(finding) for finding in problems])
        return 1 if errors else 0
    for finding in problems:
        print(f"{finding.level}: {finding.text}")
    if beside:
        complain(beside)
    warnings = len(problems) - errors
    print(
        f"{notebooks} notebook{'s' * (notebooks != 1)}, "
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    )
    return 1 if errors else 0


def findings(where: str | None) -> tuple[list[Finding], int, str | None]:
    """All findings of a project, how many notebooks it has, and what lies beside them."""
    from research_jobs.notebook.discovery import files_beside
    from research_jobs.orchestration.definitions.factory import definition_problems
    from research_jobs.orchestration.model.catalog import load_catalog

    project = find_project(where)
    catalog = load_catalog(project)
    problems = [
        Finding("error", problem.name, problem.error.headline)
        for problem in catalog.manifest.problems
    ]
    problems += [
        Finding("error", name, error.headline) for name, error in definition_problems(catalog)
    ]
    problems += [Finding("error", None, error.headline) for error in catalog.scan.problems]
    for entry in catalog:
        if entry.error is not None:
            problems.append(Finding("error", entry.name, entry.error.headline))
        problems += [Finding("warning", entry.name, warning) for warning in entry.warnings]
        problems += _unassigned_outputs(catalog, entry)
        problems += _unread_dimensions(catalog, entry)
        problems += _in_the_way(catalog, entry)
    problems += _differences(catalog)
    # One mistake is reported once, whatever it is about.
    unique = {finding.text: finding for finding in reversed(problems)}
    ordered = [finding for finding in problems if unique.pop(finding.text, None) is not None]
    return ordered, len(catalog.entries), files_beside(catalog.scan, project.notebooks)


def _differences(catalog: Catalog) -> Iterator[Finding]:
    """What behaves differently in the editor and in batch, and loads that no one sees."""
    from research_jobs.notebook.cells import read_notebook_text
    from research_jobs.notebook.parity import check_parity
    from research_jobs.notebook.parity_rules import silenced
    from research_jobs.notebook.undefined import UndefinedName, undefined_names

    entries = [entry for entry in catalog if entry.notebook.error is None]
    texts = [read_notebook_text(entry.notebook.path) for entry in entries]
    undefined: list[tuple[UndefinedName, ...]] = [()] * len(texts)
    try:
        undefined = undefined_names(text.text for text in texts)
    except ResearchJobsError as error:
        yield Finding("warning", None, error.headline)
    for entry, text, names in zip(entries, texts, undefined, strict=True):
        shown = catalog.project.display(text.path)
        for one in check_parity(
            text, notebook=entry.name, notebooks=catalog.entries, undefined=names
        ):
            place = SourceLocation(shown, one.line, one.column)
            yield Finding(one.level, entry.name, f"{place}: {one.message} [{one.code}]")
        lines = text.text.split("\n")
        for load in entry.notebook.hidden_loads:
            if load.path == shown and silenced(lines[load.line - 1], "hidden-load"):
                continue
            place = SourceLocation(load.path, load.line, load.column)
            yield Finding("warning", entry.name, f"{place}: {load.message} [hidden-load]")


def _unread_dimensions(catalog: Catalog, entry: Entry) -> Iterator[Finding]:
    """Dimensions of partitions that set no parameter of the notebook."""
    declared = {parameter.name for parameter in entry.notebook.parameters}
    partitions = entry.spec.partitions
    if entry.error is not None or partitions is None or partitions.dimensions is None:
        return
    for name, dimension in partitions.dimensions.items():
        if dimension.parameter is not None or name in declared:
            continue
        where = catalog.manifest.locate(
            "notebooks", entry.name, "partitions", "dimensions", name, key=True
        )
        error = PartitionError(
            f"the dimension '{name}' sets no parameter of {entry.name}",
            where=where,
            hint=f"{did_you_mean(name, declared, label='Parameters')} "
            "'parameter' names one; research_jobs.context() knows the partition too.".lstrip(),
        )
        yield Finding("warning", entry.name, error.headline)


def _in_the_way(catalog: Catalog, entry: Entry) -> Iterator[Finding]:
    """Files in the store that are not ours, where a run would refuse to publish."""
    from research_jobs.store.commit import refuse_any_foreign

    if entry.error is not None or entry.spec.io_manager is not None:
        return
    for name in entry.spec.outputs:
        try:
            refuse_any_foreign(
                catalog.project.store, entry.name, [name], partitioned=entry.partitioned
            )
        except StoreError as error:  # noqa: PERF203 - each output has its own finding
            yield Finding("error", entry.name, error.headline)


def _unassigned_outputs(catalog: Catalog, entry: Entry) -> Iterator[Finding]:
    """Declared outputs that the notebook assigns nowhere, so that no run can succeed."""
    from research_jobs.notebook.assigned import may_assign_any_name

    if entry.error is not None:
        return
    missing = [name for name in entry.spec.outputs if name not in entry.notebook.assigned]
    if not missing or may_assign_any_name(entry.notebook.path):
        return
    for name in missing:
        where = catalog.manifest.locate("notebooks", entry.name, "outputs", name, key=True)
        hint = did_you_mean(name, entry.notebook.assigned, label="It assigns")
        error = OutputNotAssignedError(
            f"{entry.name} never assigns its output '{name}'", where=where, hint=hint or None
        )
        yield Finding("error", entry.name, error.headline)
