"""The executor of a code location that names none."""

from __future__ import annotations

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking
from research_jobs.project import Project

__all__ = ["default_executor"]


def default_executor(
    concurrency: int | None, project: Project, prefix: str | None
) -> dg.ExecutorDefinition:
    """Ours, which runs steps in threads; Dagster's where its parts are not those we build on.

    Parameters
    ----------
    concurrency : int, optional
        How many notebooks run at once, in a run and in all runs.
    project : Project
    prefix : str or None
        The manifest's.
    """
    try:
        from research_jobs.orchestration.execution.executor import notebook_executor
    except (ImportError, AttributeError) as error:
        lacking(error, "a run works on one notebook at a time")
        return dg.in_process_executor
    config: dict[str, object] = {"project": str(project.root), "prefix": prefix}
    if concurrency is not None:
        config |= {"max_concurrent": concurrency, "notebook_slots": concurrency}
    return notebook_executor.configured(config, name="notebooks")
