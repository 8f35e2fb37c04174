"""Real runs of `notebook_executor`: each property that Dagster's multiprocess executor has."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus, ReexecutionOptions
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import execute_run_iterator

from research_jobs.orchestration.execution import executor as module
from research_jobs.orchestration.execution.run_loop import RunLoop

JOBS = Path(__file__).with_name("executor_jobs.py")


def without_process(events: Sequence[Any]) -> dict[str, list[str]]:
    """What happened to each step, without what belongs to the way steps are started."""
    happened: dict[str, list[str]] = {}
    for event in events:
        kind = event.event_type_value
        starts = ("STEP_WORKER", "RESOURCE", "ENGINE_EVENT", "LOGS_CAPTURED", "ASSET_FAILED")
        if event.step_key and not kind.startswith(starts):
            happened.setdefault(event.step_key, []).append(kind)
    # A step's hooks are a set, run in no order.
    return {key: sorted(kinds, key=hook_last) for key, kinds in happened.items()}


def hook_last(kind: str) -> str:
    return kind if kind.startswith("HOOK") else ""


# -- side by side --------------------------------------------------------------------------------


def test_runs_as_many_steps_at_once_as_it_may(run_job: Any, instance: DagsterInstance) -> None:
    """Two steps that wait for each other pass, and never do more than two run."""
    ran = run_job("crowd", instance, max_concurrent=2)
    assert ran.status is DagsterRunStatus.SUCCESS
    assert ran.most_at_once() == 2


def test_limits_steps_by_tag(run_job: Any, instance: DagsterInstance) -> None:
    """At most one step of a limited tag runs while others run beside it."""
    limits = [{"key": "kind", "value": "database", "limit": 1}]
    ran = run_job("crowd", instance, max_concurrent=4, tag_concurrency_limits=limits)
    assert ran.status is DagsterRunStatus.SUCCESS
    assert ran.most_at_once(lambda name: name in ("step_1", "step_3", "step_5")) == 1
    assert ran.most_at_once() > 1


def test_respects_pools_and_gives_slots_back(run_job: Any, any_instance: DagsterInstance) -> None:
    """Steps of a pool of one run one by one, also past one that fails, and leave no slot behind."""
    any_instance.event_log_storage.set_concurrency_slots("narrow", 1)
    ran = run_job("pooled", any_instance, max_concurrent=3)
    assert ran.most_at_once(lambda name: name.startswith("pooled")) == 1
    assert len(ran.steps("STEP_SUCCESS")) == 5
    assert ran.steps("STEP_FAILURE") == ["pooled_2"]
    info = any_instance.event_log_storage.get_concurrency_info("narrow")
    assert (info.active_slot_count, info.pending_step_count) == (0, 0)


def test_waits_for_a_slot_that_another_run_holds(
    run_job: Any, instance: DagsterInstance, marks_folder: Path
) -> None:
    """A full pool blocks its steps alone, and they run once the other run gives its slot back."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots("narrow", 1)
    assert storage.claim_concurrency_slot("narrow", "another-run", "step").is_claimed
    over = threading.Event()
    in_line = []

    def release() -> None:
        marks = marks_folder / "marks"
        while not over.wait(0.02):
            if marks.exists() and '"free"' in marks.read_text():
                in_line.append(storage.get_concurrency_info("narrow").pending_step_count)
                storage.free_concurrency_slots_for_run("another-run")
                return

    releaser = threading.Thread(target=release)
    releaser.start()
    try:
        ran = run_job("pooled", instance, max_concurrent=3)
    finally:
        over.set()
        releaser.join()
    assert len(ran.steps("STEP_SUCCESS")) == 5
    names = [mark["name"] for mark in ran.marks]
    assert names.index("free") < min(names.index(f"pooled_{n}") for n in (0, 1, 3, 4))
    # as many as could run have stood in line, not all five
    assert in_line == [3]
    assert any("blocked" in (e.message or "") for e in ran.events)


def test_starts_by_priority(run_job: Any, instance: DagsterInstance) -> None:
    """Of the steps that could run, the one of the highest priority runs first."""
    ran = run_job("priorities", instance, max_concurrent=1)
    assert [mark["name"] for mark in ran.marks] == ["priority_3", "priority_2", "priority_1"]


def test_shares_resources(run_job: Any, instance: DagsterInstance) -> None:
    """A resource is made once before all steps and torn down once after them."""
    ran = run_job("shared", instance, max_concurrent=3)
    assert [mark["name"] for mark in ran.marks] == ["opened", *["used"] * 4, "closed"]


def test_async_steps_run_side_by_side(run_job: Any, instance: DagsterInstance) -> None:
    """Each `async` step has an event loop of its own."""
    ran = run_job("awaiting", instance, max_concurrent=2)
    assert ran.status is DagsterRunStatus.SUCCESS


def test_steps_keep_their_contexts_apart(run_job: Any, instance: DagsterInstance) -> None:
    """Dagster's ambient context is that of the step whose thread asks."""
    ran = run_job("contexts", instance, max_concurrent=2)
    assert ran.status is DagsterRunStatus.SUCCESS
    assert {m["name"]: (m["first"], m["second"]) for m in ran.marks} == {
        "left": ("left", "left"),
        "right": ("right", "right"),
    }


# -- as Dagster's own ----------------------------------------------------------------------------


def test_same_events_as_multiprocess(
    run_job: Any, new_instance: Any, instance: DagsterInstance
) -> None:
    """Success, failure, retries, skips, dynamic outputs and hooks leave the same events."""
    ours = run_job("various", instance, max_concurrent=2)
    theirs = run_job("various", new_instance(), executor="forkserver")
    assert "STEP_WORKER_STARTED" in {e.event_type_value for e in theirs.events}
    assert without_process(ours.events) == without_process(theirs.events)
    assert ours.status is theirs.status is DagsterRunStatus.FAILURE
    failures = [[e.message for e in ran.events if e.is_job_failure] for ran in (ours, theirs)]
    assert failures[0] == failures[1]


def test_calls_hooks(run_job: Any, instance: DagsterInstance) -> None:
    """Hooks of success and failure are called for the steps that they are about, with the error."""
    ran = run_job("various", instance, max_concurrent=2)
    succeeded = sorted(mark["step"] for mark in ran.named("success_hook"))
    assert succeeded == ["branch", "each", "each", "second_time_lucky", "several", "together"]
    failed = {mark["step"]: mark["error"] for mark in ran.named("failure_hook")}
    assert failed.keys() == {"fails", "says_why"}
    assert failed["fails"] == "on purpose"
    assert [e.step_key for e in ran.events if e.event_type_value == "HOOK_ERRORED"] == [
        "second_time_lucky"
    ]


def test_retries_asked_for_end(run_job: Any, instance: DagsterInstance) -> None:
    """A retry that a step asks for is given as often as it says; what is no output is a failure."""
    ran = run_job("mistakes", instance)
    kinds = ran.kinds("asks_for_retries")
    assert [kind for kind in kinds if kind.startswith("STEP")] == [
        "STEP_START",
        "STEP_UP_FOR_RETRY",
        "STEP_RESTARTED",
        "STEP_FAILURE",
    ]
    assert sorted(ran.steps("STEP_FAILURE")) == ["asks_for_retries", "not_an_output"]


def test_assets_and_checks(run_job: Any, any_instance: DagsterInstance) -> None:
    """Assets load each other, a failed blocking check stops what is downstream, checks count."""
    ran = run_job("assets", any_instance, max_concurrent=3)
    made = {e.asset_key.to_user_string() for e in ran.events if e.is_step_materialization}
    assert made == {"source", "doubtful", "left", "total"}
    checks = {
        (e.asset_check_evaluation_data.check_name, e.asset_check_evaluation_data.passed)
        for e in ran.events
        if e.event_type_value == "ASSET_CHECK_EVALUATION"
    }
    assert checks == {("enough", True), ("sane", False), ("six", True)}
    assert ran.steps("STEP_FAILURE") == ["doubtful"]
    assert "after_doubtful" not in ran.steps("STEP_START")


def test_repeats_after_a_delay(run_job: Any, instance: DagsterInstance) -> None:
    """A retry waits for its delay, and counts."""
    ran = run_job("delayed", instance)
    assert [mark["number"] for mark in ran.marks] == [1, 2, 3]
    times = [mark["time"] for mark in ran.marks]
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(times))
    assert ran.kinds("step").count("STEP_UP_FOR_RETRY") == 2
    assert ran.kinds("step")[-1] == "STEP_SUCCESS"


def test_retries_can_be_off(run_job: Any, instance: DagsterInstance) -> None:
    """Without retries the first failure is the step's."""
    ran = run_job("delayed", instance, retries={"disabled": {}})
    assert len(ran.marks) == 1
    assert ran.steps("STEP_FAILURE") == ["step"]


def test_starts_on_outputs_where_asked(run_job: Any, instance: DagsterInstance) -> None:
    """With `require_upstream_step_success: false` a step begins when its inputs are there."""
    ran = run_job(
        "ready_outputs",
        instance,
        max_concurrent=2,
        step_dependency_config={"require_upstream_step_success": False},
    )
    assert ran.status is DagsterRunStatus.SUCCESS
    assert [mark["value"] for mark in ran.named("late")] == [2]


def test_reexecution_from_failure(
    run_job: Any, any_instance: DagsterInstance, marks_folder: Path
) -> None:
    """Only what failed and what follows runs again, on the outputs of the run before."""
    first = run_job("second_run_lucky", any_instance)
    assert first.status is DagsterRunStatus.FAILURE
    (marks_folder / "repaired").touch()
    options = ReexecutionOptions.from_failure(first.run_id, any_instance)
    again = run_job("second_run_lucky", any_instance, reexecute=options)
    assert again.status is DagsterRunStatus.SUCCESS
    assert [mark["name"] for mark in again.marks] == ["first", "middle", "middle", "last"]
    assert again.marks[-1]["value"] == 2


@pytest.mark.filterwarnings("ignore:StepLauncher is superseded")
def test_framework_error_fails_its_step_alone(run_job: Any, instance: DagsterInstance) -> None:
    """What Dagster cannot begin is that step's failure: the others run, what is behind does not."""
    ran = run_job("framework_failure", instance, max_concurrent=2)
    assert ran.steps("STEP_FAILURE") == ["impossible"]
    assert ran.steps("STEP_SUCCESS") == ["possible"]
    failure = next(e for e in ran.events if e.is_step_failure)
    assert "StepLauncher" in failure.step_failure_data.error.message
    assert ran.status is DagsterRunStatus.FAILURE


def test_error_after_success_fails_the_run(run_job: Any, instance: DagsterInstance) -> None:
    """An error of the framework past a step's success is not swallowed."""
    ran = run_job("bad_hook", instance)
    assert ran.steps("STEP_SUCCESS") == ["step"]
    assert ran.status is DagsterRunStatus.FAILURE
    assert any("failed around step step" in (e.message or "") for e in ran.events)


def test_failing_loop_leaves_no_step_behind(run_job: Any, instance: DagsterInstance) -> None:
    """When the loop itself fails, the steps that run are stopped before the run is failed."""
    ran = run_job("upset", instance, max_concurrent=2)
    assert ran.status is DagsterRunStatus.FAILURE
    assert [mark["name"] for mark in ran.marks] == ["stopped"]
    assert any((e.message or "").startswith("Unexpected exception") for e in ran.events)
    assert not [t for t in threading.enumerate() if t.name == "step patient"]


def test_closed_run_cancels_its_steps(
    instance: DagsterInstance, marks_folder: Path, read_marks: Any
) -> None:
    """Whoever stops asking for a run's events has its steps cancelled."""
    job = ReconstructableJob.for_file(str(JOBS), "polite")
    run = instance.create_run_for_job(
        job.get_definition(), run_config={"execution": {"config": {"max_concurrent": 2}}}
    )
    events = execute_run_iterator(job, run, instance)
    for event in events:
        if event.is_step_success:  # of `quick`; `listener` waits, or is about to
            break
    events.close()
    for thread in threading.enumerate():
        if thread.name == "step listener":
            thread.join(60)
            assert not thread.is_alive()
    assert {"quick", "listener"} <= {mark["name"] for mark in read_marks(marks_folder)}


def test_leaves_no_threads_and_streams(run_job: Any, instance: DagsterInstance) -> None:
    """After a run no thread of a step is left and stdout is what it was."""
    streams = sys.stdout, sys.stderr
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    run_job("crowd", instance, max_concurrent=4)
    assert (sys.stdout, sys.stderr) == streams
    assert not [t for t in threading.enumerate() if t.name.startswith("step ")]
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 2


# -- settings --------------------------------------------------------------------------------------


def test_steps_of_dynamic_outputs_when_all_is_heard_at_once(
    run_job: Any, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped steps run also where a step's success and its end arrive together, as the last."""
    wait = RunLoop._wait

    def late(loop: RunLoop) -> Any:
        time.sleep(0.3)
        return wait(loop)

    monkeypatch.setattr(RunLoop, "_wait", late)
    ran = run_job("mapped", instance, max_concurrent=10)
    assert sorted(ran.steps("STEP_SUCCESS")) == ["each[n0]", "each[n1]", "several", "together"]


def test_as_many_as_cores_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting, as many steps as there are usable cores; else what the variable says."""
    monkeypatch.delenv(module.MAX_CONCURRENT_VARIABLE, raising=False)
    assert module.default_concurrency() == len(os.sched_getaffinity(0))
    monkeypatch.setenv(module.MAX_CONCURRENT_VARIABLE, "7")
    assert module.default_concurrency() == 7


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_unusable_setting(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A value that is no number of steps is refused, and named."""
    monkeypatch.setenv(module.MAX_CONCURRENT_VARIABLE, value)
    with pytest.raises(module.ProjectError, match=f"is '{value}'"):
        module.default_concurrency()
