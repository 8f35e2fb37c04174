"""Every state that a person may see, and what each command calls it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._utils.error import SerializableErrorInfo

from research_jobs.orchestration.model.instance import open_instance
from research_jobs.orchestration.model.metadata import outcome_metadata
from research_jobs.outcome import Failure, Outcome, State, to_json
from research_jobs.project import find_project

# Found by the manifest alone, not by the run of a notebook.
BY_SCHEDULE = {State.LATE, State.MISSING}
JOB = "__ASSET_JOB"
UNDER_WAY = {State.RUNNING: DagsterRunStatus.STARTED, State.WAITING: DagsterRunStatus.NOT_STARTED}


def _record(instance: dg.DagsterInstance, state: State) -> Outcome:
    """A run in which the notebook of a state's name came to that state, as our runs record it."""
    name = state.value
    why = None if state.ok else Failure(f"notebooks/{name}.py:1, cell 1: {state.words}")
    outcome = Outcome(state, why, notebook=name, started_at=time.time(), duration_s=1.0)
    key = dg.AssetKey(name)
    ended = DagsterRunStatus.SUCCESS if state.ok else DagsterRunStatus.FAILURE
    status = UNDER_WAY.get(state, ended)
    run = dg.DagsterRun(JOB, asset_selection=frozenset([key]), status=status)
    instance.add_run(run)
    metadata = outcome_metadata(outcome)
    made = StepMaterializationData(dg.AssetMaterialization(key, metadata=metadata))
    error = SerializableErrorInfo("failed", [], "Failure")
    data = StepFailureData(error, UserFailureData(name, metadata=metadata))
    planned = AssetMaterializationPlannedData(key)
    kinds = [(DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned)]
    if state.ok:
        kinds += [(DagsterEventType.ASSET_MATERIALIZATION, made)]
    elif state not in UNDER_WAY:
        kinds += [(DagsterEventType.STEP_START, None), (DagsterEventType.STEP_FAILURE, data)]
    for kind, said in kinds:
        event = DagsterEvent(kind.value, JOB, step_key=name, event_specific_data=said)
        instance.report_dagster_event(event, run.run_id)
    return outcome


def test_all_commands_call_a_state_the_same(say: Callable[..., object], project: Path) -> None:
    """Of each state, `status`, `list` and `run` as JSON say the same word: the state's own."""
    states = [state for state in State if state not in BY_SCHEDULE]
    for state in states:
        (project / "notebooks" / f"{state.value}.py").write_text("# %%\nx = 1\n")
    with open_instance(find_project(project)) as instance:
        runs = [to_json(_record(instance, s)) for s in states if s is not State.NEVER_RUN]
    listed = {line["notebook"]: line for line in say("list", "--json").json}
    attention = {line["notebook"]: line for line in say("status", "--json").json}
    for state in states:
        assert listed[state.value]["state"] == state.value
        assert listed[state.value]["last"]["ending"] == state.value
    for run in runs:
        assert run["ending"] == run["notebook"]
    expected = {s.value for s in states if s.ended or s is State.BLOCKED} - {"succeeded", "skipped"}
    assert {name: attention[name]["state"] for name in expected} == {n: n for n in expected}
    assert not {"succeeded", "skipped", "running", "waiting", "never_run"} & attention.keys()
    keys = {"notebook", "partition", "state", "since", "reason", "rerun"}
    assert all(keys <= line.keys() for line in attention.values())
