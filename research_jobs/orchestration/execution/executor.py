"""The executor of our code location: steps run in threads of the run worker.

A notebook runs in a process of its own, whoever supervises it, so the step that waits for it
needs no process too: a thread that sleeps on a socket costs nothing, where a process costs an
interpreter, an ``import dagster`` and a rebuilt code location.

One rule holds it together: only the thread that drives the run touches the plan's state
(`ActiveExecution`). A step's thread runs the step, stores its events (the instance's storage is
thread-safe) and hands them over through a queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from dagster import DagsterInstance, Field, Float, InitExecutorContext, Int, Noneable, executor

from research_jobs.errors import ProjectError
from research_jobs.orchestration.compat import execution as private
from research_jobs.orchestration.execution.attempts import (
    Attempt,
    running,
    running_attempt,
    step_cancel_token,
    step_log_streams,
)
from research_jobs.orchestration.execution.logs import RunLogs
from research_jobs.orchestration.execution.step_log import LogStreams, route_output
from research_jobs.orchestration.model.names import NOTEBOOKS_POOL, AssetNames
from research_jobs.orchestration.model.ownership import claim_names
from research_jobs.orchestration.model.workers import PROCESS_TAG, process_tag
from research_jobs.process import usable_cores
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.compat.execution import (
        ActiveExecution,
        DagsterEvent,
        ExecutionPlan,
        ExecutionStep,
        KnownExecutionState,
        PlanExecutionContext,
        PlanOrchestrationContext,
        RetryMode,
        SerializableErrorInfo,
        StepDependencyConfig,
    )

__all__ = [
    "MAX_CONCURRENT_VARIABLE",
    "LogStreams",
    "NotebookExecutor",
    "notebook_executor",
    "step_cancel_token",
    "step_log_streams",
]

T = TypeVar("T")

MAX_CONCURRENT_VARIABLE = "RESEARCH_JOBS_MAX_CONCURRENT"

# A signal sets a flag of Dagster's and wakes no queue, so the flag is looked at this often.
SIGNAL_INTERVAL_S = 0.25
# How often a step that waits for a slot of a pool looks whether another run has left one.
CLAIM_INTERVAL_S = 1.0
CANCEL_GRACE_S = 30.0
# How many steps may conclude (publish, store events) beside those that run, for each that may run.
MAX_FINALIZING_PER_SLOT = 3


class NotebookExecutor(private.Executor):
    """Run steps concurrently in threads of the run worker.

    Parameters
    ----------
    retries : RetryMode
    max_concurrent : int
        How many steps run at once.
    tag_concurrency_limits : list of dict, optional
        As for Dagster's multiprocess executor.
    step_dependency_config : StepDependencyConfig, optional
        As for Dagster's multiprocess executor.
    cancel_grace_s : float
        How long a run that is to stop waits for steps that nothing can stop, seconds.
    notebook_slots : int
        Slots of the pool of all notebooks that name none, set on the instance when a run with
        steps of it begins.
    prefix : str, optional
        The project's, before the pool's name.
    project : str, optional
        The project's root; the pool is left alone where it is another project's.
    """

    def __init__(
        self,
        retries: RetryMode,
        max_concurrent: int,
        notebook_slots: int,
        prefix: str | None = None,
        project: str | None = None,
        tag_concurrency_limits: list[dict[str, Any]] | None = None,
        step_dependency_config: StepDependencyConfig | None = None,
        cancel_grace_s: float = CANCEL_GRACE_S,
    ) -> None:
        self._retries = retries
        self.notebook_slots = notebook_slots
        self.prefix = prefix
        self.project = project
        self.max_concurrent = max_concurrent
        self.tag_concurrency_limits = tag_concurrency_limits or []
        self._step_dependency_config = (
            step_dependency_config or private.StepDependencyConfig.default()
        )
        self.cancel_grace_s = cancel_grace_s

    @property
    def retries(self) -> RetryMode:
        """RetryMode: whether steps are tried again."""
        return self._retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """StepDependencyConfig: what a step waits for."""
        return self._step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Run the plan, and yield the events of the run."""
        # Imports SQLAlchemy: not for those who only load the definitions.
        from research_jobs.orchestration.compat.outages import ride_out_outages

        # Not only for the steps: the run's last event is stored after them.
        ride_out_outages(plan_context.instance)
        tag_run_with_process(plan_context)
        step_keys = execution_plan.step_keys_to_execute
        yield private.DagsterEvent.engine_event(
            plan_context,
            f"Executing steps in threads of the run worker (pid: {os.getpid()}), "
            f"at most {self.max_concurrent} at once",
            event_specific_data=private.EngineEventData.in_process(os.getpid(), step_keys),
        )
        started = time.monotonic()
        yield from private.ExecuteRunWithPlanIterable(
            execution_plan=execution_plan,
            iterator=partial(self._run_plan, plan_context),
            execution_context_manager=private.PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                # A step that fails fails itself alone, as where steps are processes.
                raise_on_error=False,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )
        yield private.DagsterEvent.engine_event(
            plan_context,
            f"Finished steps in threads of the run worker (pid: {os.getpid()}) "
            f"after {time.monotonic() - started:.2f}s",
            event_specific_data=private.EngineEventData.in_process(os.getpid(), step_keys),
        )

    def _run_plan(
        self,
        plan_context: PlanOrchestrationContext,
        *,
        execution_plan: ExecutionPlan,
        job_context: PlanExecutionContext,
    ) -> Iterator[DagsterEvent]:
        # Imports SQLAlchemy: not for those who only load the definitions.
        from research_jobs.orchestration.compat.storage import held_connections

        with ExitStack() as stack:
            private.pin_console_loggers(job_context.log, sys.stderr)
            stack.enter_context(route_output())
            stack.enter_context(held_connections(job_context.instance))
            pool = AssetNames(self.prefix).pool()
            used = any(step.pool == pool for step in execution_plan.steps)
            if used and self._owns_pool(job_context.instance):
                _set_slots(job_context.instance, pool, self.notebook_slots)
            logs = stack.enter_context(
                closing(
                    RunLogs(
                        job_context.instance.compute_log_manager,
                        job_context.run_id,
                        partial(_report_log_error, job_context),
                    )
                )
            )
            claims = stack.enter_context(
                private.BatchedPoolClaims(
                    job_context.instance,
                    job_context.dagster_run,
                    width=self.max_concurrent,
                    interval_s=CLAIM_INTERVAL_S,
                )
            )
            active = stack.enter_context(
                private.ActiveExecution(
                    execution_plan,
                    retry_mode=self.retries,
                    max_concurrent=None,  # `_Run._free` counts
                    tag_concurrency_limits=self.tag_concurrency_limits,
                    instance_concurrency_context=claims,
                    step_dependency_config=self.step_dependency_config,
                )
            )
            yield from _Run(self, plan_context, job_context, active, claims, logs).events()

    def _owns_pool(self, instance: DagsterInstance) -> bool:
        """Whether no other project has the name; if one has, each step fails and says so."""
        if self.project is None:
            return True
        try:
            claim_names(instance, find_project(self.project), self.prefix)
        except ProjectError:
            return False
        return True


def tag_run_with_process(plan_context: PlanOrchestrationContext) -> None:
    """Say on the run which process works on it: who wants to end it has to know."""
    run = plan_context.dagster_run
    tag = process_tag(run.run_id)
    if run.tags.get(PROCESS_TAG) != tag:
        plan_context.instance.add_run_tags(run.run_id, {PROCESS_TAG: tag})


def _set_slots(instance: DagsterInstance, pool: str, slots: int) -> None:
    """Have the pool of all notebooks be as wide as the manifest says, for every run."""
    from research_jobs.orchestration.model.instance import end_dead_runs

    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    # Where no daemon runs, nobody else gives back what a killed process held.
    end_dead_runs(instance)
    known = {each.name: each.limit for each in storage.get_pool_limits() if not each.from_default}
    if known.get(pool) != slots:
        storage.set_concurrency_slots(pool, slots)


def _report_log_error(job_context: PlanExecutionContext, what: str, error: BaseException) -> None:
    private.DagsterEvent.engine_event(
        job_context, what, private.EngineEventData.engine_error(private.error_info(error))
    )


@dataclass(frozen=True)
class _Happened:
    """An event of a step, stored already."""

    step_key: str
    event: DagsterEvent


@dataclass(frozen=True)
class _Released:
    """A step's process has ended; the step itself has still to say what came of it."""

    step_key: str


@dataclass(frozen=True)
class _Ended:
    """A step's thread is done; `error` is what came out of it that became no event."""

    step_key: str
    error: SerializableErrorInfo | None


_Message = _Happened | _Released | _Ended


class _Run:
    """The loop that drives a run; all but `_run_attempt` happens in one thread."""

    def __init__(
        self,
        executor: NotebookExecutor,
        plan_context: PlanOrchestrationContext,
        job_context: PlanExecutionContext,
        active: ActiveExecution,
        claims: private.BatchedPoolClaims,
        logs: RunLogs,
    ) -> None:
        self._executor = executor
        self._plan_context = plan_context
        self._job_context = job_context
        self._active = active
        self._claims = claims
        self._logs = logs
        self._queue: SimpleQueue[_Message] = SimpleQueue()
        self._running: dict[str, Attempt] = {}
        self._unsettled: set[str] = set()  # running, and neither succeeded nor failed yet
        self._released: set[str] = set()  # running, and only concluding
        self._to_retry: dict[str, DagsterEvent] = {}  # attempts that asked for another
        self._retry_at: dict[str, float] = {}  # Unix time
        self._errors: list[SerializableErrorInfo] = []
        self._stop_at: float | None = None  # set once the run is to stop
        self._plan_changed = True  # since it was last asked what can run,
        self._looked_at = 0.0  # which was then (Unix time)
        self._waits_for_success = executor.step_dependency_config.require_upstream_step_success

    def events(self) -> Iterator[DagsterEvent]:
        """Run all steps of the plan."""
        try:
            while self._running or (self._stop_at is None and not self._active.is_complete):
                if self._active.check_for_interrupts() and self._stop_at is None:
                    yield from self._stop()
                if self._stop_at is not None and time.monotonic() > self._stop_at:
                    yield from self._abandon()
                    break
                if self._plan_changed and self._stop_at is None:
                    self._plan_changed = False
                    yield from self._start_steps()
                    yield from self._settle_steps_not_run()
                    continue
                for message in self._wait():
                    yield from self._handle(message)
        except Exception as error:
            yield from self._fail(error)
            raise
        finally:
            # Also where the generator is closed from outside: nothing may go on unsupervised.
            self._cancel_attempts()
        if self._stop_at is not None:
            yield private.DagsterEvent.engine_event(
                self._job_context, "Stopped all running steps", private.EngineEventData()
            )
            raise private.DagsterExecutionInterruptedError
        if self._errors:
            listed = "\n".join(error.to_string() for error in self._errors)
            raise private.DagsterSubprocessError(
                f"Errors came out of steps that had ended:\n{listed}",
                subprocess_error_infos=self._errors,
            )

    def _free(self) -> int:
        """How many steps may begin; those that only conclude count once there are too many."""
        width = self._executor.max_concurrent
        concluding = min(len(self._released), MAX_FINALIZING_PER_SLOT * width)
        return width + concluding - len(self._running)

    def _start_steps(self) -> Iterator[DagsterEvent]:
        free = self._free()
        if free < 1:
            self._claims.settle()
            return  # when a step ends the plan is looked at again
        self._looked_at = time.time()
        steps = self._active.get_steps_to_execute(limit=free)
        self._claims.settle()
        yield from self._active.concurrency_event_iterator(self._job_context)
        for step in steps:
            self._start(step)

    def _start(self, step: ExecutionStep) -> None:
        known = self._active.get_known_state()
        # The live state holds a set that the main thread goes on adding to.
        known = known._replace(ready_outputs=set(known.ready_outputs))
        number = known.get_retry_state().get_attempt_count(step.key) + 1
        attempt = Attempt(
            self._job_context.run_id,
            step.key,
            number,
            self._logs.open(step.key),
            partial(self._queue.put, _Released(step.key)),
        )
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._run_attempt, attempt, step, known),
            name=f"step {step.key}",
            daemon=True,  # a step that nothing can stop does not keep a stopped run worker alive
        ).start()
        self._running[step.key] = attempt
        self._unsettled.add(step.key)

    def _settle_steps_not_run(self) -> Iterator[DagsterEvent]:
        """Skip or abandon what cannot run any more; others may wait for just that."""
        for event in self._active.plan_events_iterator(self._job_context):
            self._plan_changed = True
            yield event

    def _wait(self) -> list[_Message]:
        """Sleep until a step has something to say, or there is something else to look at."""
        due = math.inf
        if self._stop_at is None and self._free() > 0:
            # A waiting step that a tag's limit holds back too is not asked about: it stays overdue.
            claim_due = max(self._claims.next_look(), self._looked_at + SIGNAL_INTERVAL_S)
            due = min([claim_due, *self._retry_at.values()])
        messages: list[_Message] = []
        try:
            timeout = min(SIGNAL_INTERVAL_S, max(0.0, due - time.time()))
            messages.append(self._queue.get(timeout=timeout))
            while True:
                messages.append(self._queue.get_nowait())
        except Empty:
            pass
        now = time.time()
        if now >= due:
            self._plan_changed = True
            self._retry_at = {key: at for key, at in self._retry_at.items() if at > now}
        return messages

    def _handle(self, message: _Message) -> Iterator[DagsterEvent]:
        if isinstance(message, _Ended):
            yield from self._handle_end(message)
            return
        if isinstance(message, _Released):
            if message.step_key in self._running:
                self._released.add(message.step_key)
                self._claims.free_step(message.step_key)
                self._plan_changed = True
            return
        event = message.event
        yield event
        if event.step_key is None or message.step_key not in self._running:
            return
        if event.is_step_up_for_retry:
            # Not before this attempt's thread is done: the next one takes its place and its log.
            self._to_retry[message.step_key] = event
            return
        self._active.handle_event(event)
        if event.is_step_success or event.is_step_failure:
            self._unsettled.discard(message.step_key)
            self._plan_changed = True
        elif event.is_successful_output and not self._waits_for_success:
            self._plan_changed = True

    def _handle_end(self, message: _Ended) -> Iterator[DagsterEvent]:
        key, error = message.step_key, message.error
        if key not in self._running:
            return  # given up already
        if error is not None:
            yield private.DagsterEvent.engine_event(
                self._plan_context.for_step(self._active.get_step_by_key(key)),
                f"The framework failed around step {key}",
                private.EngineEventData.engine_error(error),
            )
            if key in self._unsettled and key not in self._to_retry:
                # as where a step's process crashed: the step fails, or is tried again
                event = private.failure_or_retry(
                    self._executor,
                    self._plan_context.for_step(self._active.get_step_by_key(key)),
                    error,
                    self._active.get_known_state(),
                )
                yield from self._handle(_Happened(key, event))
            else:
                self._errors.append(error)
        retry = self._to_retry.pop(key, None)
        if retry is not None:
            self._active.handle_event(retry)
            self._retry_at[key] = time.time() + (retry.step_retry_data.seconds_to_wait or 0)
        del self._running[key]
        self._unsettled.discard(key)
        self._released.discard(key)
        self._active.verify_complete(self._job_context, key)
        if self._stop_at is not None:
            self._claims.settle()  # nothing begins any more that could take a slot over
        self._plan_changed = True

    def _stop(self) -> Iterator[DagsterEvent]:
        """The run is to stop: start nothing more and cancel what runs."""
        self._stop_at = time.monotonic() + self._executor.cancel_grace_s
        self._active.mark_interrupted()
        self._cancel_attempts()
        yield private.DagsterEvent.engine_event(
            self._job_context,
            "Received a termination signal: stopping the steps that run",
            private.EngineEventData.interrupted(list(self._running)),
        )

    def _abandon(self) -> Iterator[DagsterEvent]:
        """The grace is over: go without the steps that still run."""
        for key in list(self._running):
            if key in self._unsettled:
                event = private.DagsterEvent.step_failure_event(
                    self._plan_context.for_step(self._active.get_step_by_key(key)),
                    private.StepFailureData(
                        error=private.SerializableErrorInfo(
                            f"Step {key} did not stop within {self._executor.cancel_grace_s:g} s "
                            "of the cancellation. It ends with the run worker's process.\n",
                            [],
                            private.DagsterExecutionInterruptedError.__name__,
                        ),
                        user_failure_data=None,
                        error_source=private.ErrorSource.INTERRUPT,
                    ),
                )
                yield from self._handle(_Happened(key, event))
            del self._running[key]

    def _fail(self, error: Exception) -> Iterator[DagsterEvent]:
        """The loop itself failed: leave no step running behind the failure."""
        if not self._running:
            return
        self._cancel_attempts()
        yield private.DagsterEvent.engine_event(
            self._job_context,
            "Unexpected exception while steps were in progress: stopping them",
            private.EngineEventData.engine_error(private.error_info(error)),
        )
        give_up_at = time.monotonic() + self._executor.cancel_grace_s
        while self._running and time.monotonic() < give_up_at:
            for message in self._wait():
                if isinstance(message, _Ended):
                    self._running.pop(message.step_key, None)

    def _cancel_attempts(self) -> None:
        for attempt in self._running.values():
            attempt.cancel()

    # From here on: in the step's own thread.

    def _run_attempt(
        self, attempt: Attempt, step: ExecutionStep, known: KnownExecutionState
    ) -> None:
        error = None
        retries = False
        try:
            with running(attempt):
                attempt.log.begin_attempt(attempt.number)
                for event in self._attempt_events(attempt, step, known):
                    retries = retries or event.is_step_up_for_retry
                    self._queue.put(_Happened(step.key, event))
        except (private.DagsterExecutionInterruptedError, KeyboardInterrupt):
            pass  # the step's failure is recorded already
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is this step's alone
            error = private.error_info(raised)
        finally:
            try:
                if retries:
                    self._logs.end_attempt(step.key)
                else:
                    self._logs.finish(step.key)
            finally:
                self._queue.put(_Ended(step.key, error))

    def _attempt_events(
        self, attempt: Attempt, step: ExecutionStep, known: KnownExecutionState
    ) -> Iterator[DagsterEvent]:
        log = attempt.log
        if attempt.number == 1 or not log.reported:
            log.reported = True
            yield private.DagsterEvent.capture_logs(
                self._job_context, [step.key], log.key, private.CapturedLogContext(log.key)
            )
        context = self._job_context.for_step(step, known)
        private.confine_python_logs(context, lambda: running_attempt() not in (None, attempt))
        missing = [
            key for key in context.required_resource_keys if not hasattr(context.resources, key)
        ]
        if missing:
            raise ProjectError(f"step {step.key} needs resources that the run lacks: {missing}")
        events: list[DagsterEvent] = []
        with closing(_StepLoop()) as loop:
            private.use_event_loop(context, loop)
            for event in private.dagster_event_sequence_for_step(context):
                events.append(event)
                yield event
        yield from private.trigger_hooks(context, events)


class _StepLoop:
    """The event loop of an ``async`` step, made when there is something to await."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_until_complete(self, awaitable: Awaitable[T]) -> T:
        """Run it, as the event loop would."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(awaitable)

    def close(self) -> None:
        """End what the step has left unfinished."""
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def default_concurrency() -> int:
    text = os.environ.get(MAX_CONCURRENT_VARIABLE, "").strip()
    if not text:
        return usable_cores()
    if not text.isdigit() or int(text) < 1:
        raise ProjectError(
            f"{MAX_CONCURRENT_VARIABLE} is {text!r}", hint="It has to be a whole number from 1."
        )
    return int(text)


@executor(
    name="notebooks",
    config_schema=Field(
        {
            "max_concurrent": Field(
                Noneable(Int),
                default_value=None,
                description=(
                    "How many steps run at once. By default the value of "
                    f"{MAX_CONCURRENT_VARIABLE}, else the number of usable cores."
                ),
            ),
            "notebook_slots": Field(
                Noneable(Int),
                default_value=None,
                description=(
                    f"How many steps of the pool '{NOTEBOOKS_POOL}' run at once in all runs of "
                    "the instance: the manifest's defaults.concurrency, else as max_concurrent "
                    "by default. Set on the instance when a run begins."
                ),
            ),
            "prefix": Field(
                Noneable(str), default_value=None, description="The project's, before its pools."
            ),
            "project": Field(
                Noneable(str),
                default_value=None,
                description="The project's root: the pool is not set where it is another's.",
            ),
            "tag_concurrency_limits": private.get_tag_concurrency_limits_config(),
            "retries": private.get_retries_config(),
            "step_dependency_config": private.get_step_dependency_config_field(),
            "cancel_grace": Field(
                Float,
                default_value=CANCEL_GRACE_S,
                description=(
                    "Seconds that a cancelled run waits for steps that cannot be stopped "
                    "(ordinary assets; notebooks are killed)."
                ),
            ),
        },
        description="Run each step in a thread of the run worker, each notebook in a process.",
    ),
)
def notebook_executor(init_context: InitExecutorContext) -> NotebookExecutor:
    """Run steps concurrently in threads of the run worker, each notebook in a process of its own.

    The default executor of `research_jobs`' code location. It can be given to any
    ``Definitions(executor=...)``; see ``docs/executor.md`` for what it asks of ordinary assets.
    """
    config = init_context.executor_config
    limits: Any = config.get("tag_concurrency_limits")
    retries: Any = config["retries"]
    dependencies: Any = config.get("step_dependency_config")
    max_concurrent: Any = config.get("max_concurrent")
    grace: Any = config["cancel_grace"]
    slots: Any = config.get("notebook_slots")
    prefix: Any = config.get("prefix")
    project: Any = config.get("project")
    return NotebookExecutor(
        retries=private.RetryMode.from_config(retries) or private.RetryMode.ENABLED,
        max_concurrent=max_concurrent or default_concurrency(),
        tag_concurrency_limits=limits,
        step_dependency_config=private.StepDependencyConfig.from_config(dependencies),
        cancel_grace_s=grace,
        notebook_slots=slots or default_concurrency(),
        prefix=prefix,
        project=project,
    )
