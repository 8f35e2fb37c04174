"""The loop that drives a run: steps start in threads, their events arrive through a queue.

Only the thread of the loop touches the plan's state (`ActiveExecution`). A step's thread runs the
step, stores its events (the instance's storage is thread-safe) and hands them over.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from research_jobs.errors import ProjectError
from research_jobs.orchestration.compat import execution as private
from research_jobs.orchestration.execution.attempts import Attempt, running, running_attempt
from research_jobs.orchestration.execution.logs import RunLogs
from research_jobs.orchestration.execution.turns import Turns

if TYPE_CHECKING:
    from research_jobs.orchestration.compat.execution import (
        ActiveExecution,
        DagsterEvent,
        ExecutionStep,
        KnownExecutionState,
        PlanExecutionContext,
        PlanOrchestrationContext,
        SerializableErrorInfo,
    )
    from research_jobs.orchestration.execution.executor import NotebookExecutor

__all__ = ["RunLoop"]

T = TypeVar("T")

# A signal sets a flag of Dagster's and wakes no queue, so the flag is read this often.
SIGNAL_INTERVAL_S = 0.25
# How many steps may conclude (publish, store events) beside those that run, for each that may run.
MAX_FINALIZING_PER_SLOT = 3


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


@dataclass(frozen=True)
class _Turn:
    """Another run says that it has left a slot to this one."""


_Message = _Happened | _Released | _Ended | _Turn


class RunLoop:
    """The loop that drives a run; all but `_run_attempt` happens in one thread."""

    def __init__(
        self,
        executor: NotebookExecutor,
        plan_context: PlanOrchestrationContext,
        job_context: PlanExecutionContext,
        active: ActiveExecution,
        claims: private.BatchedPoolClaims,
        logs: RunLogs,
        turns: Turns,
    ) -> None:
        self._executor = executor
        self._plan_context = plan_context
        self._job_context = job_context
        self._active = active
        self._claims = claims
        self._logs = logs
        self._turns = turns
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
            while self._running or (self._stop_at is None and self._more_to_run()):
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

    def _more_to_run(self) -> bool:
        # A plan that changed may have steps from dynamic outputs that it does not count yet.
        return self._plan_changed or not self._active.is_complete

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
        if self._claims.waits:
            self._turns.listen(partial(self._queue.put, _Turn()))
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
        if isinstance(message, _Turn):
            self._claims.look_now()
            self._plan_changed = True
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
