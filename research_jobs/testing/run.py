"""Run a notebook for a test: with inputs of its own, and nothing published."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from research_jobs.errors import RunError
from research_jobs.outcome import Outcome
from research_jobs.project import Project
from research_jobs.protocol import OutputRequest, RunRequest
from research_jobs.store.view import View
from research_jobs.supervisor.run import Call, prepare_call, run_error
from research_jobs.testing.inputs import Input, store_inputs
from research_jobs.testing.measuring import coverage_variables
from research_jobs.testing.result import NotebookResult

__all__ = ["run_for_test"]


def run_for_test(
    notebook: str,
    *,
    project: str | os.PathLike[str] | Project | None = None,
    inputs: Sequence[Input] = (),
    parameters: Mapping[str, Any] | None = None,
    partition: str | None = None,
    strict: bool = False,
    checks: bool = True,
    variables: Iterable[str] | None = None,
    timeout: float | None = None,
) -> NotebookResult:
    """Run a notebook in a fresh process, as batch does, and publish nothing.

    Parameters
    ----------
    notebook : str
    project : path or Project, optional
    inputs : sequence of Input
        What it reads instead of published outputs. A notebook that one of them is of has no other
        outputs.
    parameters : mapping, optional
    partition : str, optional
    strict : bool
        Whether it can read nothing but `inputs`.
    checks : bool
        Whether a failed check is an error.
    variables : iterable of str, optional
        Variables that can be read besides its outputs; all that it assigns by default.
    timeout : float, optional
        Seconds.

    Returns
    -------
    NotebookResult

    Raises
    ------
    ResearchJobsError
        Before anything runs.
    RunError
        When the notebook did not succeed: the location first, then its own traceback.
    """
    call = prepare_call(notebook, project, parameters, partition, timeout)
    folder = Path(tempfile.mkdtemp(prefix="research_jobs-test-")).resolve()
    try:
        store = str(folder / "store")
        store_inputs(inputs, store, call)
        capture = folder / "capture.jsonl"
        request = _request(call, folder, store if strict else None, capture, variables)
        outcome, stdout, stderr = _run(call, request, folder)
        outcome = replace(outcome, notebook=call.notebook.name, partition=partition)
        sys.stdout.write(stdout)
        sys.stderr.write(stderr)
        _require_success(outcome, checks)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return NotebookResult(outcome, folder, capture, stdout, stderr)


def _request(
    call: Call, folder: Path, only: str | None, capture: Path, variables: Iterable[str] | None
) -> RunRequest:
    view, staging = folder / "view", folder / "outputs"
    for each in (view, staging):
        each.mkdir()
    View(view, only or call.project.store, None if only else str(folder / "store")).write()
    request = call.request(staging=staging, capture_path=str(capture), view=str(view), trying=True)
    declared = {output.name for output in request.outputs}
    named = call.notebook.assigned if variables is None else variables
    extra = (OutputRequest(name, optional=True) for name in named if name not in declared)
    return replace(
        request,
        store=only or request.store,
        outputs=(*map(_without_past, request.outputs), *extra),
        environment={**request.environment, **coverage_variables()},
    )


def _without_past(output: OutputRequest) -> OutputRequest:
    """An output without the check that compares it with what is published."""
    return replace(
        output, checks={name: of for name, of in output.checks.items() if name != "changed"}
    )


def _run(call: Call, request: RunRequest, folder: Path) -> tuple[Outcome, str, str]:
    """What became of it, and what it printed."""
    logs = folder / "stdout", folder / "stderr"
    with logs[0].open("wb") as stdout, logs[1].open("wb") as stderr:
        outcome = call.run(request, stdout=stdout.fileno(), stderr=stderr.fileno())
    said = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    return outcome, said[0], said[1]


def _require_success(outcome: Outcome, checks: bool) -> None:
    if not outcome.state.ok:
        raise run_error(outcome)
    if checks and outcome.refused:
        others = (f"{it.output}, {it.check}: {it.description}" for it in outcome.refused[1:])
        raise RunError(outcome.refusal, ending="refused", details="\n".join(others) or None)
