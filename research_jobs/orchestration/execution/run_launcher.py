"""Dagster's run launcher, which also knows the processes that it has not launched itself.

A run that a command works on was launched by nobody, so Dagster can neither end it from the UI nor
notice that it is dead. And whoever launched the others (the code server) may be dead as well. All
runs on our executor name their process, and that is enough for both.

``dagster.yaml`` names this class; where it does not, Dagster's own is in its place.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from dagster import DagsterRun, DefaultRunLauncher

from research_jobs.orchestration.compat.instance import worker_health
from research_jobs.orchestration.model.workers import worker_of

__all__ = ["WorkerRunLauncher"]


class WorkerRunLauncher(DefaultRunLauncher):
    """Launches runs as Dagster does; ends and watches them by the process that works on them."""

    def terminate(self, run_id: str) -> bool:
        """Have a run cancelled.

        Parameters
        ----------
        run_id : str

        Returns
        -------
        bool
            Whether the run was cancelled, or asked to end.
        """
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        worker = worker_of(run) if run is not None and not run.is_finished else None
        if run is None or worker is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        if worker.alive:
            # What Ctrl-C sends, to this process alone: it ends what it has started, in order.
            os.kill(worker.pid, signal.SIGINT)
        else:
            self._instance.report_run_canceled(run, "The process that worked on it was gone.")
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Bool: whether run monitoring may ask after the processes of runs."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> Any:
        """Whether the process of a run is there, as run monitoring asks.

        Parameters
        ----------
        run : DagsterRun
        """
        worker = worker_of(run)
        if worker is None or worker.alive:
            return worker_health(alive=True)
        return worker_health(
            alive=False, message=f"process {worker.pid}, which worked on it, is gone"
        )
