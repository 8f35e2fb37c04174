"""The executor of a code location that names none."""

from __future__ import annotations

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["default_executor"]


def default_executor(concurrency: int | None) -> dg.ExecutorDefinition:
    """Ours, which runs steps in threads; Dagster's where its parts are not those we build on.

    Parameters
    ----------
    concurrency : int, optional
        How many notebooks run at once, in a run and in all runs.
    """
    try:
        from research_jobs.orchestration.execution.executor import notebook_executor
    except (ImportError, AttributeError) as error:
        lacking(error, "a run works on one notebook at a time")
        return dg.in_process_executor
    if concurrency is None:
        return notebook_executor
    return notebook_executor.configured(
        {"max_concurrent": concurrency, "notebook_slots": concurrency}, name="notebooks"
    )
