"""What a process that the host has forked does with a run, and what is recorded if it dies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import DagsterRunStatus

from research_jobs.orchestration.compat import run_worker as private
from research_jobs.orchestration.compat.engines import trust_connections
from research_jobs.orchestration.compat.outages import ride_out_outages
from research_jobs.orchestration.model.workers import PROCESS_TAG, claim_run, process_tag

__all__ = ["conclude_run", "work_on_run"]

_NOT_THIS_LAUNCH = (DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED)


def work_on_run(message: Mapping[str, Any]) -> int:
    """Work on a run until it has ended.

    Parameters
    ----------
    message : mapping
        ``run_id`` and ``instance``, see `research_jobs.resident.server`.

    Returns
    -------
    int
        0 when the run's ending is on record.
    """
    run_id = str(message["run_id"])
    claim = claim_run(run_id)
    if claim is None:
        return 0  # it was launched a second time; the first goes on
    with claim, private.instance_from_text(str(message["instance"])) as instance:
        run = instance.get_run_by_id(run_id)
        ride_out_outages(instance)
        trust_connections()
        # This launch came late: the run has ended, goes on elsewhere, or is to be launched again.
        if run is None or run.is_finished or run.status in _NOT_THIS_LAUNCH:
            return 0
        tag = {PROCESS_TAG: process_tag(run.run_id)}
        private.work_on_run(instance, run, lambda: instance.add_run_tags(run.run_id, tag))
        ended = instance.get_run_by_id(run.run_id)
        return 0 if ended is None or ended.is_finished else 1


def conclude_run(run_id: str, instance_text: str, what: str) -> int:
    """Fail a run whose process has ended before the run did.

    Parameters
    ----------
    run_id, instance_text : str
    what : str
        What became of the process, a sentence.

    Returns
    -------
    int
        The exit code.
    """
    with private.instance_from_text(instance_text) as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, what)
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return 0
