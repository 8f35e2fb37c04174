"""Every name of Dagster that the executor needs and Dagster does not promise to keep.

Dagster has no public way to run steps in threads, so the executor is built of the same parts as
Dagster's own. They are imported here and nowhere else, and
``tests/orchestration/test_dagster_contract_executor.py`` says which one changed and what of
the executor that breaks.
"""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from dagster._core.definitions.metadata import MetadataValue
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterSubprocessError
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.step_dependency_config import (
    StepDependencyConfig,
    get_step_dependency_config_field,
)
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._core.executor.base import Executor
from dagster._core.log_manager import DagsterLogManager
from dagster._core.storage.cloud_storage_compute_log_manager import CloudStorageComputeLogManager
from dagster._core.storage.compute_log_manager import (
    CapturedLogContext,
    ComputeIOType,
    ComputeLogManager,
)
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster_shared.error import SerializableErrorInfo

from research_jobs.orchestration.compat.errors import error_info

__all__ = [
    "ActiveExecution",
    "BatchedPoolClaims",
    "CapturedLogContext",
    "CloudStorageComputeLogManager",
    "ComputeIOType",
    "ComputeLogManager",
    "DagsterEvent",
    "DagsterExecutionInterruptedError",
    "DagsterSubprocessError",
    "EngineEventData",
    "ErrorSource",
    "ExecuteRunWithPlanIterable",
    "ExecutionPlan",
    "ExecutionStep",
    "Executor",
    "InstanceConcurrencyContext",
    "KnownExecutionState",
    "LocalComputeLogManager",
    "MetadataValue",
    "PlanExecutionContext",
    "PlanExecutionContextManager",
    "PlanOrchestrationContext",
    "RetryMode",
    "SerializableErrorInfo",
    "StepDependencyConfig",
    "StepExecutionContext",
    "StepFailureData",
    "confine_python_logs",
    "create_compute_log_file_key",
    "dagster_event_sequence_for_step",
    "error_info",
    "failure_or_retry",
    "get_retries_config",
    "get_step_dependency_config_field",
    "get_tag_concurrency_limits_config",
    "pin_console_loggers",
    "trigger_hooks",
    "use_event_loop",
]


def failure_or_retry(
    executor: Executor,
    context: Any,
    error: SerializableErrorInfo,
    known_state: KnownExecutionState,
) -> DagsterEvent:
    """Fail a step, or have it tried again, after an error that its own generator did not see.

    Dagster renamed the method in 1.13.
    """
    names = ("log_failure_or_retry_event_after_error", "get_failure_or_retry_event_after_error")
    method: Any = next(getattr(executor, name) for name in names if hasattr(executor, name))
    return method(context, error, known_state)


def trigger_hooks(
    context: StepExecutionContext, events: Sequence[DagsterEvent]
) -> Iterator[DagsterEvent]:
    """Run the step's hooks (the user's code) over the events of an attempt."""
    return _trigger_hook(context, list(events))


def use_event_loop(context: StepExecutionContext, loop: Any) -> None:
    """Give a step an event loop of its own, of which Dagster calls ``run_until_complete`` alone.

    Dagster makes one a run; two ``async`` steps in two threads cannot both run on it.
    """
    context._event_loop = loop


def confine_python_logs(context: StepExecutionContext, is_foreign: Callable[[], bool]) -> None:
    """Keep a step from catching the Python logs of another that runs beside it.

    While a step runs, Dagster hangs the step's handler onto process-wide loggers
    (``python_logs.managed_python_loggers``). The handler of whichever step came first would take
    the records of all.
    """
    handler = context.log._dagster_handler
    accepts = handler.filter

    def belongs(record: logging.LogRecord) -> bool:
        return not is_foreign() and accepts(record)

    handler.filter = belongs


def pin_console_loggers(log: DagsterLogManager, stream: Any) -> None:
    """Have Dagster's console loggers write to `stream`, whatever ``sys.stderr`` is at the time.

    They look ``sys.stderr`` up for every line, and so would write each event of a step into the
    step's own stderr, between the lines of the notebook.
    """
    for logger in log._dagster_handler._loggers:
        for handler in list(logger.handlers):
            if type(handler).__name__ != "StandardErrorHandler":
                continue
            pinned = logging.StreamHandler(stream)
            pinned.setLevel(handler.level)
            pinned.setFormatter(handler.formatter)
            for record_filter in handler.filters:
                pinned.addFilter(record_filter)
            logger.removeHandler(handler)
            logger.addHandler(pinned)


class BatchedPoolClaims(InstanceConcurrencyContext):
    """Claims of pool slots that keep the database quiet and lose little time.

    Dagster's own queues a claim for *every* step that could run, however few can run at once, and
    asks again for each after an interval that grows to 15 s, even when the slot that it waits for
    was freed by the run itself. Here only as many claims of a pool wait as the run could use. One
    query at a steady interval, and one whenever a step of the run frees a slot, says which of
    them have come to their turn; those alone are asked for. Dagster's own interval stays below
    it as a net.

    To give a slot back and to claim it takes 14 statements in 8 transactions. A slot that a step
    leaves while the next step of the run wants one, and nobody else does, changes hands instead:
    two statements. So `free_step` only says that a slot is free; `settle` gives back those that
    no step has taken.

    Parameters
    ----------
    instance, dagster_run
        As for Dagster's own.
    width : int
        How many steps the run can run at once.
    interval_s : float
        Seconds between two looks at the pools that steps wait for.
    tell : callable
        Tells runs, given their ids, that a slot is theirs: they need not wait for their next look.
    """

    def __init__(
        self,
        instance: Any,
        dagster_run: Any,
        *,
        width: int,
        interval_s: float,
        tell: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        super().__init__(instance, dagster_run)
        self._width = width
        self._interval_s = interval_s
        self._tell = tell
        self._held: dict[str, str] = {}  # step to pool, like the next two
        self._left: dict[str, str] = {}  # free, and not given back yet
        self._waiting: dict[str, str] = {}
        self._turns: set[str] = set()  # steps that wait, and need not
        self._look_at = 0.0  # Unix time

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Claim a slot of pool `concurrency_key` for a step; False when it has to wait."""
        if step_key in self._waiting:
            self._look()
            if step_key in self._turns:
                self._turns.discard(step_key)
                self._pending_timeouts[step_key] = 0.0
        elif sum(pool == concurrency_key for pool in self._waiting.values()) >= self._width:
            return False
        elif self._take_over(concurrency_key, step_key, step_priority):
            self._held[step_key] = concurrency_key
            return True
        if super().claim(concurrency_key, step_key, step_priority):
            self._waiting.pop(step_key, None)
            self._held[step_key] = concurrency_key
            return True
        if not self._waiting:
            self._look_at = time.time() + self._interval_s
        self._waiting[step_key] = concurrency_key
        return False

    def free_step(self, step_key: str) -> None:
        """Leave the slot of a step to the next of the run, or to `settle`."""
        pool = self._held.pop(step_key, None)
        if pool is None or step_key not in self._claims:
            return  # of no pool, or of one without a limit
        self._left[step_key] = pool
        if pool in self._waiting.values():
            self.settle()

    def settle(self) -> None:
        """Give back the slots that no step has taken over, and look at the pools at once."""
        from research_jobs.orchestration.compat.storage import runs_in_turn

        freed = set(self._left.values())
        while self._left:
            super().free_step(self._left.popitem()[0])
            self._look_at = 0.0
        for pool in freed:
            self._tell(runs_in_turn(self._instance.event_log_storage, pool))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave nothing behind of the steps that wait or have left a slot."""
        self.settle()
        super().__exit__(kind, error, traceback)

    @property
    def waits(self) -> bool:
        """bool: whether a step waits for a slot."""
        return bool(self._waiting)

    def look_now(self) -> None:
        """Look at the pools when next asked: a slot may have come."""
        self._look_at = 0.0

    def next_look(self) -> float:
        """When to ask for steps again for the sake of those that wait, Unix time."""
        if not self._waiting:
            return math.inf
        return min(self._look_at, *(self._pending_timeouts[key] for key in self._waiting))

    def _take_over(self, pool: str, step_key: str, step_priority: int) -> bool:
        """Take the slot that a step of the run has left; others that wait for one come first."""
        leaver = next((key for key, left in self._left.items() if left == pool), None)
        if leaver is None:
            return False
        from research_jobs.orchestration.compat.storage import hand_over_slot

        priority = self._run_priority + step_priority
        storage = self._instance.event_log_storage
        if not hand_over_slot(storage, pool, self._run_id, leaver, step_key, priority):
            self.settle()
            return False
        del self._left[leaver]
        self._claims.discard(leaver)
        self._claims.add(step_key)
        return True

    def _look(self) -> None:
        now = time.time()
        if now < self._look_at:
            return
        self._look_at = now + self._interval_s
        storage = self._instance.event_log_storage
        for pool in set(self._waiting.values()):
            self._turns.update(
                step.step_key
                for step in storage.get_concurrency_info(pool).pending_steps
                if step.run_id == self._run_id and step.assigned_timestamp is not None
            )
