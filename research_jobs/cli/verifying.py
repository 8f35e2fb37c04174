"""``research-jobs convert --verify``: each script runs, and must show what its notebook showed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from research_jobs.cli.output import complain, print_table, print_wrapped
from research_jobs.comparison.cells import CellDifference, compare_cells, stored_cells
from research_jobs.errors import ResearchJobsError
from research_jobs.moving.reading import read_jupyter
from research_jobs.project import Project

__all__ = ["verify"]


@dataclass
class _Verified:
    """One notebook, run and compared."""

    name: str
    ended: str = ""
    compared: int = 0
    differences: list[CellDifference] = field(default_factory=list[CellDifference])
    figures: tuple[int, int] = (0, 0)

    @property
    def same(self) -> bool:
        return self.ended == "succeeded" and not self.differences


def verify(pairs: Sequence[tuple[Path, Path]], project: Project, *, timeout: float) -> int:
    """Run each script and compare it with the notebook that it was made of.

    Parameters
    ----------
    pairs : sequence of (Path, Path)
        Each ``.ipynb`` and its script.
    project : Project
    timeout : float
        Seconds for each.

    Returns
    -------
    int
        The exit code: 1 if anything differs.
    """
    verified: list[_Verified] = []
    for source, target in pairs:
        name = target.resolve().relative_to(project.notebooks.resolve()).with_suffix("").as_posix()
        one = _Verified(name)
        try:
            _run(one, source, project, timeout)
        except ResearchJobsError as error:
            one.ended = "not run"
            complain(f"error: {error.headline}")
        verified.append(one)
    _report(verified)
    return 0 if all(one.same for one in verified) else 1


def _run(one: _Verified, source: Path, project: Project, timeout: float) -> None:
    from research_jobs.report.ipynb import cell_json
    from research_jobs.report.record import read_capture
    from research_jobs.supervisor.run import record_notebook

    before = stored_cells(read_jupyter(source))
    with tempfile.TemporaryDirectory(prefix="research-jobs-verify-") as folder:
        capture = Path(folder, "cells.jsonl")
        outcome = record_notebook(one.name, capture, project=project, timeout=timeout)
        cells = read_capture(capture).cells
    # What the editor's kernel calls __main__ has the notebook's own name here.
    ours = re.compile(rf"(?<![\w.]){re.escape(one.name.replace('/', '.'))}\.")
    after = [
        shown and replace(shown, text=ours.sub("__main__.", shown.text))
        for shown in stored_cells({"cells": [cell_json(cell) for cell in cells]})
    ]
    one.ended = str(outcome.state)
    if not outcome.state.ok and outcome.failure is not None:
        one.ended += f" ({outcome.failure.headline})"
    if len(after) != len(before):
        raise ResearchJobsError(
            f"{one.name} has {len(after)} cells and {source} has {len(before)}: "
            "one of them was edited since it was converted"
        )
    one.compared, one.differences = compare_cells(before, after)
    one.figures = (
        sum(shown.figures for shown in before if shown),
        sum(shown.figures for old, shown in zip(before, after, strict=True) if old and shown),
    )


def _report(verified: Sequence[_Verified]) -> None:
    rows = [
        (
            one.name,
            one.ended.partition(" (")[0],
            str(one.compared),
            str(one.compared - len(one.differences)),
            str(len(one.differences)),
            f"{one.figures[1]} of {one.figures[0]}",
        )
        for one in verified
    ]
    numbers = ("compared", "same", "different", "figures")
    print()
    print_table(("notebook", "run", *numbers), rows, right=numbers)
    for one in verified:
        if "(" in one.ended:
            print_wrapped(f"{one.name}: {one.ended}", hang="  ")
        for difference in one.differences:
            before, after = (_short(text) for text in (difference.before, difference.after))
            print_wrapped(
                f"{one.name}: cell {difference.cell}: {difference.what}: {before} -> {after}",
                hang="  ",
            )


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:76]} ..."
