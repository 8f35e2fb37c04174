"""Dagster's queue of runs, which takes up again what a killed daemon was about to launch.

The daemon first records that a run starts, then launches it. If it is killed in between, no process
ever works on the run: Dagster fails it after three minutes, and starts it again only if the code
server can be reached at that very moment. Here the next daemon puts it back into the queue.

That a run is never worked on twice is the worker's to see to (`claim_run`). It can on this machine
alone, so a run that another launcher starts (`K8sRunLauncher`) is left to that one.

``dagster.yaml`` names this class; where it does not, Dagster's own is in its place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultRunLauncher,
    QueuedRunCoordinator,
    RunsFilter,
)

from research_jobs.orchestration.model.workers import is_begun

__all__ = ["NotebookRunQueue", "take_up"]

# A launch waits for the host no longer than this (`resident.client.ANSWER_S`), and then says on
# the run that it asks the code server.
LAUNCH_S = 30.0
INTERVAL_S = 10.0


class NotebookRunQueue(QueuedRunCoordinator):
    """Dagster's own; the daemon looks every ten seconds for runs that nobody launches."""

    _look_at = 0.0

    @property
    def dequeue_use_threads(self) -> bool:
        """Bool: as configured. The daemon asks at each look at the queue, and nobody else does."""
        now = time.monotonic()
        if self.has_instance and now >= self._look_at:
            self._look_at = now + INTERVAL_S
            take_up(self._instance)
        return super().dequeue_use_threads


def take_up(instance: DagsterInstance) -> list[str]:
    """Put runs back into the queue that were about to be launched, and were not.

    Parameters
    ----------
    instance : DagsterInstance

    Returns
    -------
    list of str
        Their ids.
    """
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return []
    taken = list(_forgotten(instance))
    for run in taken:
        instance.report_engine_event(
            "The daemon was gone before it had launched this run. It is queued again.", run
        )
        instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)
    return [run.run_id for run in taken]


def _forgotten(instance: DagsterInstance) -> Iterator[DagsterRun]:
    starting = RunsFilter(statuses=[DagsterRunStatus.STARTING])
    for record in instance.get_run_records(starting):
        run = record.dagster_run
        stats: Any = instance.get_run_stats(run.run_id)
        since = stats.launch_time
        if since is not None and time.time() - since >= LAUNCH_S and not is_begun(run):
            yield run
