"""Dagster's run launcher, with the host in front of it and an eye on all processes of runs.

The project's host forks a process for a run in milliseconds. The process that launches asks it
directly. Where no host answers, the code server starts an interpreter, as in any Dagster.

A run that a command or the host works on was not launched by the code server, so Dagster can
neither end it from the UI nor notice that it is dead. And the code server itself may be dead as
well. All runs on our executor name their process, and that is enough for all of them on this
machine. For one elsewhere, its code server vouches, or the process itself (`vouching`).

``dagster.yaml`` names this class; where it does not, Dagster's own is in its place.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dagster import DagsterRun, DefaultRunLauncher

from research_jobs.errors import ProjectError
from research_jobs.failpoints import failpoint
from research_jobs.orchestration.compat.fallback import lacking
from research_jobs.orchestration.compat.instance import worker_health
from research_jobs.orchestration.compat.remembering import remember
from research_jobs.orchestration.compat.run_worker import instance_text, pointer_of, server_knows
from research_jobs.orchestration.execution.vouching import Listener
from research_jobs.orchestration.model.workers import SERVER_TAG, machine_of, worker_of
from research_jobs.project import PROJECT_VARIABLE, Project, find_project, find_project_above
from research_jobs.resident.client import NoHostError, start_run

__all__ = ["WorkerRunLauncher"]


class WorkerRunLauncher(DefaultRunLauncher):
    """Launches runs by the host, else as Dagster does; ends and watches them by their process."""

    _said: str | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.listener = Listener()

    def launch_run(self, context: Any) -> None:
        """Have the host start a process for a run, or else the code server.

        Parameters
        ----------
        context : LaunchRunContext
        """
        remember(self._instance)  # the daemon, which launches, asks it all the time
        run: DagsterRun = context.dagster_run
        failpoint("launch.begin")
        try:
            start_run(_project_of(run), run.run_id, instance_text(self._instance))
        except ImportError as error:
            lacking(error, "runs are launched by the code server")
        except NoHostError as error:
            # Once: whoever runs no host does not want to read this in each run.
            if self._said != error.headline:
                self._said = error.headline
                self._instance.report_engine_event(
                    f"Launched by the code server: {error.headline}.", run
                )
        else:
            failpoint("launch.begun")
            return
        super().launch_run(context)

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
        if run is not None and worker is None and not run.is_finished:
            where = machine_of(run)
            if where is not None and SERVER_TAG not in run.tags:
                # Not "canceling", which Dagster would call canceled while it goes on.
                self._instance.report_engine_event(
                    f"Its process is on {where} and can only be ended there.", run
                )
                return False
        if run is None or worker is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        if worker.alive:
            # What Ctrl-C sends, to this process alone: it ends what it has started, in order.
            with suppress(ProcessLookupError):
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
        if worker is not None:
            gone = f"process {worker.pid}, which worked on it, is gone"
            return worker_health(alive=worker.alive, message=None if worker.alive else gone)
        # A proxy that has loaded anew no longer answers for its earlier runs: only a yes counts.
        if server_knows(self, run.run_id) or not self.listener.silent(run):
            return worker_health(alive=True)
        where = machine_of(run)
        return worker_health(
            alive=False,
            message=(
                f"its process on {where or 'an unknown machine'} has said nothing for "
                f"{self.listener.patience / 60:.0f} minutes, and no code server knows of it"
            ),
        )


def _programs(executable: str) -> Path:
    return Path(executable).parent.resolve()


def _project_of(run: DagsterRun) -> Project:
    """The project whose code location a run belongs to.

    Raises
    ------
    NoHostError
        When that is another code location, or of another interpreter.
    """
    executable, module, folder = pointer_of(run)
    if module != "research_jobs.definitions":
        raise NoHostError("a host serves the code location research_jobs.definitions alone")
    # Through a link or not: the folder of programs is the same.
    if executable is None or _programs(executable) != _programs(sys.executable):
        raise NoHostError("its code location has another interpreter")
    try:
        named = find_project() if os.environ.get(PROJECT_VARIABLE) else None
        served = find_project_above(Path(folder or Path.cwd()))
    except ProjectError as error:
        raise NoHostError(error.headline) from error
    project = named or served
    if project is None or (served is not None and served.root != project.root):
        raise NoHostError("it is not certain which project its code location serves")
    return project
