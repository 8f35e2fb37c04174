"""A run in a process that was forked for it, as Dagster's code server works on one in its own."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from typing import Any

import dagster as dg

from research_jobs.orchestration.compat.assets import interruptions_cancel
from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["instance_from_text", "instance_text", "pointer_of", "server_knows", "work_on_run"]

logger = logging.getLogger("research_jobs")

# How long a code server may take to say whether it works on a run, seconds.
ANSWER_S = 10

# What the process of a run imports: whoever launches it makes sure that it is there.
_NEEDED = (
    ("dagster._core.events", "EngineEventData"),
    ("dagster._core.instance.ref", "InstanceRef"),
    ("dagster._grpc.impl", "core_execute_run"),
    ("dagster._serdes", "deserialize_value"),
    ("dagster._utils.hosted_user_process", "recon_job_from_origin"),
    ("dagster._utils.interrupts", "capture_interrupts"),
)


def instance_text(instance: dg.DagsterInstance) -> str:
    """Where an instance's state is, for `instance_from_text` in another process.

    Raises
    ------
    ImportError
        When this version of Dagster lacks what `work_on_run` and `instance_from_text` need.
    """
    from dagster._serdes import serialize_value

    for module, name in _NEEDED:
        if not hasattr(importlib.import_module(module), name):
            raise ImportError(f"{module} has no {name}")
    return serialize_value(instance.get_ref())


def instance_from_text(text: str) -> dg.DagsterInstance:
    """The instance that `instance_text` describes, a context manager."""
    from dagster._core.instance.ref import InstanceRef
    from dagster._serdes import deserialize_value

    return dg.DagsterInstance.from_ref(deserialize_value(text, InstanceRef))


def pointer_of(run: dg.DagsterRun) -> tuple[str | None, str | None, str | None]:
    """Interpreter, module and working directory of the code location that a run belongs to.

    A part that is not known is None.
    """
    origin = run.job_code_origin
    if origin is None:
        return None, None, None
    repository = origin.repository_origin
    pointer = repository.code_pointer
    return (
        repository.executable_path,
        getattr(pointer, "module", None),
        getattr(pointer, "working_directory", None),
    )


def server_knows(launcher: dg.DefaultRunLauncher, run_id: str) -> bool:
    """Whether the code server that was asked for a run answers that it works on it."""
    private: Any = launcher
    try:
        from dagster._core.errors import DagsterUserCodeUnreachableError
        from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
        from dagster._serdes import deserialize_value

        client = private._get_grpc_client_for_termination(run_id)  # noqa: SLF001 - nothing public says where it is
        if client is None:
            return False
        try:
            answer = client.can_cancel_execution(
                CanCancelExecutionRequest(run_id=run_id), timeout=ANSWER_S
            )
        except DagsterUserCodeUnreachableError:
            return False
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel
    except (ImportError, AttributeError) as error:
        lacking(error, "a code server on another machine does not vouch for its runs")
        return False


def work_on_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, before: Callable[[], None]
) -> None:
    """Execute a run in this process, with the events that Dagster's own run workers add.

    Parameters
    ----------
    instance : DagsterInstance
    run : DagsterRun
    before : callable
        Called once the run's process is on record.
    """
    from dagster._core.events import EngineEventData
    from dagster._grpc.impl import core_execute_run
    from dagster._utils.hosted_user_process import recon_job_from_origin
    from dagster._utils.interrupts import capture_interrupts

    pid = os.getpid()
    with capture_interrupts():
        instance.report_engine_event(
            f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
        )
        before()
        try:
            origin: Any = run.job_code_origin
            job = recon_job_from_origin(origin)
            events = core_execute_run(job, run, instance, inject_env_vars=False)
            for _ in interruptions_cancel(events, run, instance):
                pass
        except BaseException as error:  # noqa: BLE001 - core_execute_run has stored it as an event
            logger.warning("run %s: %s", run.run_id, error)
        finally:
            instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)
