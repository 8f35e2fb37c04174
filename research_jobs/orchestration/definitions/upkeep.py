"""The nightly job that removes what nobody reads any more, and its schedule."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from research_jobs.orchestration.execution.prune import Pruned, prune
from research_jobs.orchestration.execution.prune_history import LOCATION_TAG
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.instance import LOCATION
from research_jobs.orchestration.model.names import PRUNE_JOB, PRUNE_SCHEDULE
from research_jobs.units import readable_size

__all__ = ["prune_job", "prune_schedule"]


def prune_job(catalog: Catalog) -> dg.JobDefinition:
    """The job. It has one step, of no pool.

    Parameters
    ----------
    catalog : Catalog
    """

    # Dagster looks at the annotation of a `context`, which is a text here.
    def step(op: dg.OpExecutionContext, _inputs: object) -> Iterator[dg.Output[None]]:
        failed: list[str] = []

        def say(one: Pruned) -> None:
            if one.error is not None:
                failed.append(f"{one.kind}: {one.error}")
                op.log.error(failed[-1])
                return
            line = f"{one.kind}: {one.count:,} removed, {readable_size(one.bytes)}"
            op.log.info(f"{line}; {one.note}" if one.note else line)

        location = op.run.tags.get(LOCATION_TAG, LOCATION)
        done = prune(op.instance, catalog, location=location, say=say)
        if failed:
            raise dg.Failure("; ".join(failed))
        counts = {one.kind: one.count for one in done}
        kept = {why: count for one in done for why, count in one.kept.items()}
        total = sum(one.bytes for one in done)
        yield dg.Output(None, metadata={"bytes": total, **counts, "kept": kept})

    description = "Removes old runs, logs, reports and versions: `retention` in the manifest."
    only = dg.OpDefinition(
        step, "prune", ins={}, outs={"result": dg.Out()}, description=description
    )
    return dg.GraphDefinition(PRUNE_JOB, node_defs=[only]).to_job(
        description=description, executor_def=dg.in_process_executor
    )


def prune_schedule(catalog: Catalog, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """The schedule of the job, on unless the manifest says that it is not.

    Parameters
    ----------
    catalog : Catalog
    job : JobDefinition
    """
    spec = catalog.manifest.retention
    on = spec.enabled
    return dg.ScheduleDefinition(
        name=PRUNE_SCHEDULE,
        job=job,
        cron_schedule=spec.cron,
        execution_timezone=catalog.manifest.defaults.timezone or "UTC",
        description=job.description,
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED
        ),
    )
