"""What the executor needs of Dagster and Dagster does not promise.

Each row says what of ours stops working when that name moves or changes, so a new version of
Dagster fails here, with the reason, before it fails in a run.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import logging
import time
from contextlib import ExitStack
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun

from research_jobs.orchestration.compat import execution as private

NAMES = [
    (
        "dagster._core.execution.api:ExecuteRunWithPlanIterable",
        {"execution_plan", "iterator", "execution_context_manager"},
        "no run: resources are set up and torn down around the steps by it",
    ),
    (
        "dagster._core.execution.context_creation_job:PlanExecutionContextManager",
        {
            "job",
            "retry_mode",
            "execution_plan",
            "run_config",
            "dagster_run",
            "instance",
            "raise_on_error",
            "output_capture",
            "step_dependency_config",
        },
        "no run: makes the context that steps run in",
    ),
    (
        "dagster._core.execution.plan.active:ActiveExecution",
        {
            "execution_plan",
            "retry_mode",
            "max_concurrent",
            "tag_concurrency_limits",
            "instance_concurrency_context",
            "step_dependency_config",
        },
        "no run: says which step is next, skipped or abandoned",
    ),
    *(
        (f"dagster._core.execution.plan.active:ActiveExecution.{name}", parameters, what)
        for name, parameters, what in [
            ("get_steps_to_execute", {"limit"}, "no step is started"),
            ("plan_events_iterator", {"job_context"}, "nothing is skipped or abandoned"),
            ("concurrency_event_iterator", {"plan_context"}, "nobody hears of a full pool"),
            ("handle_event", {"dagster_event"}, "no step is ever over; pools stay claimed"),
            ("verify_complete", {"job_context", "step_key"}, "a lost step goes unnoticed"),
            ("check_for_interrupts", set(), "a run cannot be cancelled"),
            ("mark_interrupted", set(), "a cancelled run counts as broken"),
            ("get_known_state", set(), "retries are not counted, dynamic steps know no inputs"),
            ("get_step_by_key", {"step_key"}, "failures outside a step cannot be attributed"),
        ]
    ),
    (
        "dagster._core.execution.plan.execute_plan:dagster_event_sequence_for_step",
        {"step_context"},
        "no step runs",
    ),
    (
        "dagster._core.execution.plan.execute_plan:_trigger_hook",
        {"step_context", "step_event_list"},
        "hooks are not called",
    ),
    (
        "dagster._core.execution.context.system:PlanExecutionContext.for_step",
        {"step", "known_state"},
        "no step runs: makes its context",
    ),
    (
        "dagster._core.events:DagsterEvent.capture_logs",
        {"job_context", "step_keys", "log_key", "log_context"},
        "the UI finds no log of a step",
    ),
    (
        "dagster._core.events:DagsterEvent.engine_event",
        {"plan_context", "message", "event_specific_data"},
        "the run says nothing of itself",
    ),
    (
        "dagster._core.events:DagsterEvent.step_failure_event",
        {"step_context", "step_failure_data"},
        "a step that was given up has no failure",
    ),
    (
        "dagster._core.execution.plan.objects:StepFailureData",
        {"error", "user_failure_data", "error_source"},
        "a step that was given up has no failure",
    ),
    (
        (
            "dagster._core.executor.base:Executor.log_failure_or_retry_event_after_error"
            "|get_failure_or_retry_event_after_error"
        ),
        {"step_context", "err_info", "known_state"},
        "an error of the framework around a step takes down the run",
    ),
    (
        "dagster._core.execution.plan.instance_concurrency_context:InstanceConcurrencyContext",
        {"instance", "dagster_run"},
        "pools are not respected",
    ),
    (
        "dagster._core.execution.plan.instance_concurrency_context:InstanceConcurrencyContext.claim",
        {"concurrency_key", "step_key", "step_priority"},
        "pools are not respected",
    ),
    (
        "dagster._core.storage.event_log.base:EventLogStorage.get_concurrency_info",
        {"concurrency_key"},
        "a step that waits for a slot waits for ever longer",
    ),
    (
        "dagster:DefaultRunLauncher.terminate",
        {"run_id"},
        "the UI cannot end a run that a command works on",
    ),
    (
        "dagster._core.launcher.base:RunLauncher.check_run_worker_health",
        {"run"},
        "run monitoring does not notice a worker that was killed",
    ),
    (
        "dagster._core.launcher.base:CheckRunHealthResult",
        {"status", "msg"},
        "run monitoring does not notice a worker that was killed",
    ),
    (
        "dagster._core.execution.compute_logs:create_compute_log_file_key",
        set(),
        "no log has a name",
    ),
    (
        "dagster._core.storage.compute_log_manager:ComputeLogManager.open_log_stream",
        {"log_key", "io_type"},
        "steps have no logs",
    ),
    (
        "dagster._core.storage.compute_log_manager:ComputeLogManager.build_log_key_for_run",
        {"run_id", "step_key"},
        "steps have no logs",
    ),
    (
        "dagster._core.storage.local_compute_log_manager:LocalComputeLogManager.complete_artifact_path",
        {"log_key"},
        "logs never count as complete",
    ),
    (
        "dagster._core.storage.cloud_storage_compute_log_manager:CloudStorageComputeLogManager.on_progress",
        {"log_key"},
        "logs in the cloud appear only when a step is over",
    ),
    (
        "dagster._core.storage.cloud_storage_compute_log_manager:CloudStorageComputeLogManager.upload_to_cloud_storage",
        {"log_key", "io_type"},
        "logs are not uploaded",
    ),
    (
        "dagster._core.storage.sql:create_engine",
        set(),
        "each event opens SQLite anew (slow, not wrong)",
    ),
    (
        "dagster._core.storage.event_log.sqlite.sqlite_event_log:SqliteEventLogStorage._connect",
        {"shard"},
        "each event opens SQLite anew (slow, not wrong)",
    ),
]


@pytest.mark.parametrize(("name", "parameters", "breaks"), NAMES, ids=[row[0] for row in NAMES])
def test_name_is_there(name: str, parameters: set[str], breaks: str) -> None:
    """A name that the executor uses exists and takes what the executor gives it.

    Behind a ``|`` is its name in versions before.
    """
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = next(
            (getattr(found, name) for name in part.split("|") if hasattr(found, name)), None
        )
        assert found is not None, f"{name} is gone: {breaks}"
    missing = parameters - set(inspect.signature(found).parameters)
    assert not missing, f"{name} takes no {missing} any more: {breaks}"


@pytest.mark.parametrize(
    "name",
    ["is_step_success", "is_step_failure", "is_step_up_for_retry", "is_successful_output"],
)
def test_events_say_what_they_are(name: str) -> None:
    """Events have the properties by which the loop knows that a step is over."""
    assert isinstance(getattr(private.DagsterEvent, name, None), property)


def test_step_uses_the_loop_it_is_given() -> None:
    """A step's event loop can be replaced; else `async` steps fail side by side."""
    context = object.__new__(private.StepExecutionContext)
    loop = asyncio.new_event_loop()
    try:
        private.use_event_loop(context, loop)
        assert context.event_loop is loop
    finally:
        loop.close()


@pytest.fixture
def log_manager() -> Any:
    from dagster._core.execution.context_creation_job import initialize_console_manager

    return initialize_console_manager(None)


def test_console_loggers_can_be_pinned(log_manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster's console lines go where they went before; else they are in each step's stderr."""
    worker, step = io.StringIO(), io.StringIO()
    private.pin_console_loggers(log_manager, worker)
    monkeypatch.setattr("sys.stderr", step)
    log_manager.info("an event")
    assert "an event" in worker.getvalue()
    assert step.getvalue() == ""


def test_python_logs_can_be_confined(log_manager: Any) -> None:
    """A step's handler takes no records of another step; else logs are under the wrong step."""

    class Context:
        log = log_manager

    foreign = True
    caught: list[str] = []
    handler = log_manager._dagster_handler
    handler.emit = lambda record: caught.append(record.getMessage())
    private.confine_python_logs(Context, lambda: foreign)  # type: ignore[arg-type]
    somewhere = logging.getLogger("somewhere.else")
    log_manager._managed_loggers = [somewhere]
    log_manager.begin_python_log_capture()
    try:
        somewhere.error("of another step")
        foreign = False
        somewhere.error("of this step")
    finally:
        log_manager.end_python_log_capture()
    assert caught == ["of this step"]


# -- pools -----------------------------------------------------------------------------------------


@pytest.fixture
def pool(instance: DagsterInstance) -> DagsterInstance:
    instance.event_log_storage.set_concurrency_slots("narrow", 1)
    return instance


def claims_of(instance: DagsterInstance, run_id: str, width: int = 2) -> private.BatchedPoolClaims:
    run = DagsterRun(job_name="job", run_id=run_id)
    return private.BatchedPoolClaims(instance, run, width=width, interval_s=1.0)


def test_only_as_many_claims_wait_as_can_run(pool: DagsterInstance) -> None:
    """Of ten steps that want a slot two stand in line, and look again when one is freed."""
    with claims_of(pool, "ours") as claims:
        assert claims.next_look() == float("inf")
        assert claims.claim("narrow", "step_0")
        assert not any(claims.claim("narrow", f"step_{n}") for n in range(1, 10))
        assert sorted(claims.pending_claim_steps()) == ["step_1", "step_2"]
        assert claims.next_look() > 0
        claims.free_step("step_0")
        assert claims.next_look() == 0.0
        # Which of two comes first is the database's choice.
        assert sorted(claims.claim("narrow", f"step_{n}") for n in (1, 2)) == [False, True]
        assert not claims.claim("narrow", "step_3")
        assert len(claims.pending_claim_steps()) == 2
    assert pool.event_log_storage.get_concurrency_info("narrow").pending_step_count == 0


def test_claims_see_slots_of_other_runs(pool: DagsterInstance) -> None:
    """A slot that another run freed is taken at the next look, not after Dagster's 15 s."""
    with claims_of(pool, "theirs") as theirs, claims_of(pool, "ours") as ours:
        assert theirs.claim("narrow", "step")
        assert not ours.claim("narrow", "step")
        ours._pending_timeouts["step"] = time.time() + 15.0
        theirs.free_step("step")
        theirs.settle()
        ours._look_at = time.time() + 1.0  # however slow this machine is
        assert not ours.claim("narrow", "step")  # nobody has looked yet
        assert ours.next_look() <= time.time() + 1.0
        ours._look_at = 0.0
        assert ours.claim("narrow", "step")


def test_who_frees_a_slot_tells_the_next_in_line(any_instance: DagsterInstance) -> None:
    """The run that comes next is told, not the one after it, and nobody who holds a slot.

    On SQLite and on Postgres.
    """
    any_instance.event_log_storage.set_concurrency_slots("narrow", 2)
    told: list[str] = []
    with ExitStack() as stack:
        first, other, second, third = (
            stack.enter_context(
                private.BatchedPoolClaims(
                    any_instance,
                    DagsterRun(job_name="job", run_id=name),
                    width=2,
                    interval_s=60.0,
                    tell=told.extend,
                )
            )
            for name in ("first", "other", "second", "third")
        )
        assert first.claim("narrow", "step")
        assert other.claim("narrow", "step")
        assert not second.claim("narrow", "step", 1)
        assert not third.claim("narrow", "step")
        assert second.waits
        second._pending_timeouts["step"] = time.time() + 60.0  # however slow this machine is
        first.free_step("step")
        first.settle()
        assert told == ["second"]
        assert not second.claim("narrow", "step")
        second.look_now()
        assert second.claim("narrow", "step")
        assert not second.waits


def holders(instance: DagsterInstance) -> tuple[int, list[str], list[str]]:
    """A pool's slots, the steps that hold one, and the steps that have asked for one."""
    info = instance.event_log_storage.get_concurrency_info("narrow")
    held = sorted(slot.step_key for slot in info.claimed_slots)
    return info.slot_count, held, sorted(step.step_key for step in info.pending_steps)


@pytest.fixture
def any_pool(any_instance: DagsterInstance) -> DagsterInstance:
    any_instance.event_log_storage.set_concurrency_slots("narrow", 1)
    return any_instance


def test_a_slot_that_a_step_leaves_is_the_next_ones(any_pool: DagsterInstance) -> None:
    """It changes hands as the pool's tables and the UI are to show it; unwanted, it is given back.

    On SQLite and on Postgres.
    """
    with claims_of(any_pool, "ours") as claims:
        assert claims.claim("narrow", "step_0")
        before = any_pool.event_log_storage.get_concurrency_info("narrow")
        claims.free_step("step_0")
        assert claims.claim("narrow", "step_1")
        claims.settle()
        after = any_pool.event_log_storage.get_concurrency_info("narrow")
        assert holders(any_pool) == (1, ["step_1"], ["step_1"])
        # The same row: nothing was given back in between.
        assert [step.enqueued_timestamp for step in after.pending_steps] == [
            step.enqueued_timestamp for step in before.pending_steps
        ]
        claims.free_step("step_1")
        assert holders(any_pool) == (1, ["step_1"], ["step_1"])
        claims.settle()
        assert holders(any_pool) == (1, [], [])


def test_who_waits_comes_before_the_next_of_a_run(any_pool: DagsterInstance) -> None:
    """While a step of another run waits for a slot, none changes hands past it."""
    with claims_of(any_pool, "theirs") as theirs, claims_of(any_pool, "ours") as ours:
        assert ours.claim("narrow", "step_0")
        assert not theirs.claim("narrow", "theirs")
        ours.free_step("step_0")
        assert not ours.claim("narrow", "step_1")
        ours.settle()
        theirs._look_at = 0.0
        assert theirs.claim("narrow", "theirs")
        assert not ours.claim("narrow", "step_1")


def test_a_slot_of_a_pool_made_smaller_goes_with_it(any_pool: DagsterInstance) -> None:
    """A limit that was lowered while a step ran holds from the next step on."""
    storage = any_pool.event_log_storage
    storage.set_concurrency_slots("narrow", 2)
    with claims_of(any_pool, "ours") as claims:
        assert claims.claim("narrow", "step_0")
        assert claims.claim("narrow", "step_1")
        storage.set_concurrency_slots("narrow", 1)
        claims.free_step("step_0")
        claims.free_step("step_1")
        assert sorted(claims.claim("narrow", f"step_{n}") for n in (2, 3)) == [False, True]
        claims.settle()
        assert holders(any_pool)[0] == 1


def test_slots_left_behind_are_given_back_with_the_run(any_pool: DagsterInstance) -> None:
    """A run that ends between two steps keeps no slot."""
    with claims_of(any_pool, "ours") as claims:
        assert claims.claim("narrow", "step_0")
        claims.free_step("step_0")
    assert holders(any_pool) == (1, [], [])


def test_claims_survive_a_pool_that_is_no_more(pool: DagsterInstance) -> None:
    """Steps that wait for a pool whose limit is taken away run, if a little later."""
    # Dagster stumbles over the last limit that is deleted while a slot is held.
    pool.event_log_storage.set_concurrency_slots("other", 1)
    with claims_of(pool, "theirs") as theirs, claims_of(pool, "ours") as ours:
        assert theirs.claim("narrow", "step")
        assert not ours.claim("narrow", "step")
        pool.event_log_storage.delete_concurrency_limit("narrow")
        ours._pending_timeouts["step"] = 0.0
        assert ours.claim("narrow", "step")
        assert ours.next_look() == float("inf")


def test_pools_do_not_hold_each_other_up(pool: DagsterInstance) -> None:
    """A pool whose line is full does not keep steps of another from standing in theirs."""
    pool.event_log_storage.set_concurrency_slots("other", 1)
    with claims_of(pool, "ours", width=1) as claims:
        assert claims.claim("narrow", "step_0")
        assert not claims.claim("narrow", "step_1")
        assert claims.claim("other", "step_2")
