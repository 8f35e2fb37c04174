"""The executor of our code location: steps run in threads of the run worker.

A notebook runs in a process of its own, whoever supervises it, so the step that waits for it
needs no process too: a thread that sleeps on a socket costs nothing, where a process costs an
interpreter, an ``import dagster`` and a rebuilt code location.

One rule holds it together: only the thread that drives the run touches the plan's state
(`ActiveExecution`). A step's thread runs the step, stores its events (the instance's storage is
thread-safe) and hands them over through a queue.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dagster import DagsterInstance, Field, Float, InitExecutorContext, Int, Noneable, executor

from research_jobs.errors import ProjectError
from research_jobs.orchestration.compat import execution as private
from research_jobs.orchestration.execution.attempts import (
    step_cancel_token,
    step_log_streams,
)
from research_jobs.orchestration.execution.logs import RunLogs
from research_jobs.orchestration.execution.run_loop import RunLoop
from research_jobs.orchestration.execution.step_log import LogStreams, route_output
from research_jobs.orchestration.execution.turns import Turns
from research_jobs.orchestration.execution.vouching import vouching
from research_jobs.orchestration.model.names import NOTEBOOKS_POOL, AssetNames
from research_jobs.orchestration.model.ownership import claim_names
from research_jobs.orchestration.model.workers import PROCESS_TAG, process_tag
from research_jobs.process import usable_cores
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.orchestration.compat.execution import (
        DagsterEvent,
        ExecutionPlan,
        PlanExecutionContext,
        PlanOrchestrationContext,
        RetryMode,
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

# How often a step that waits for a slot of a pool looks whether another run has left one, should
# nobody tell it (`Turns`).
CLAIM_INTERVAL_S = 1.0
CANCEL_GRACE_S = 30.0


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
        events = private.ExecuteRunWithPlanIterable(
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
        with vouching(plan_context.instance, plan_context.run_id):
            yield from events
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
            turns = stack.enter_context(Turns(job_context.run_id))
            claims = stack.enter_context(
                private.BatchedPoolClaims(
                    job_context.instance,
                    job_context.dagster_run,
                    width=self.max_concurrent,
                    interval_s=CLAIM_INTERVAL_S,
                    tell=turns.tell,
                )
            )
            active = stack.enter_context(
                private.ActiveExecution(
                    execution_plan,
                    retry_mode=self.retries,
                    max_concurrent=None,  # `RunLoop._free` counts
                    tag_concurrency_limits=self.tag_concurrency_limits,
                    instance_concurrency_context=claims,
                    step_dependency_config=self.step_dependency_config,
                )
            )
            yield from RunLoop(
                self, plan_context, job_context, active, claims, logs, turns
            ).events()

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

    def is_set() -> bool:
        limits = storage.get_pool_limits()
        return any(
            (one.name, one.limit) == (pool, slots) and not one.from_default for one in limits
        )

    if not is_set():
        try:
            storage.set_concurrency_slots(pool, slots)
        except Exception:
            # Of runs that begin in the same moment on a new instance, only one can insert it.
            if not is_set():
                raise


def _report_log_error(job_context: PlanExecutionContext, what: str, error: BaseException) -> None:
    private.DagsterEvent.engine_event(
        job_context, what, private.EngineEventData.engine_error(private.error_info(error))
    )


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
