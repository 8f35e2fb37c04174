"""Runs that a killed daemon was about to launch, under Dagster's real daemon and our host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from hosted import LIMIT_S, Hosted, wait_until

from research_jobs.orchestration.compat.instance import open_instance
from research_jobs.orchestration.compat.run_worker import instance_text
from research_jobs.orchestration.execution.run_queue import take_up
from research_jobs.orchestration.model.workers import claim_run

DAEMON = Path(__file__).parents[1] / "support" / "daemon_to_kill.py"
COUNTS = """
# %%
from pathlib import Path

with Path({times!r}).open("a") as file:
    file.write("x")
done = 1
"""


def times(hosted: Hosted) -> Path:
    """A file that has one letter for each time that the notebook ran."""
    return hosted.root / "home" / "times"


@pytest.fixture
def queued(own: Hosted) -> Hosted:
    """A project whose runs are queued, with a notebook that counts how often it runs."""
    own.configure(
        run_coordinator={
            "module": "research_jobs.orchestration.execution.run_queue",
            "class": "NotebookRunQueue",
            "config": {"dequeue_interval_seconds": 1},
        },
        run_monitoring={"enabled": True},
    )
    own.manifest("notebooks: {counts: {outputs: [done]}}\n")
    own.write("counts", COUNTS.format(times=str(times(own))))
    return own


@contextmanager
def daemon(hosted: Hosted, failpoint: str = "none") -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon, gone afterwards with its code server."""
    with (hosted.root / "home" / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, DAEMON, failpoint, "workspace.yaml"],
            cwd=hosted.root,
            env=hosted.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def statuses(hosted: Hosted, run: dg.DagsterRun) -> list[dg.DagsterEventType | None]:
    """What was recorded of the run, of what the queue and the launch record."""
    asked = {
        dg.DagsterEventType.PIPELINE_ENQUEUED,
        dg.DagsterEventType.PIPELINE_STARTING,
        dg.DagsterEventType.PIPELINE_START,
        dg.DagsterEventType.PIPELINE_SUCCESS,
    }
    with open_instance(hosted.root / "home") as instance:
        entries = instance.all_logs(run.run_id, of_type=asked)
        return [entry.dagster_event_type for entry in entries]


@pytest.mark.parametrize(
    ("failpoint", "host", "launches"),
    [("launch.begin", True, 2), ("launch.begin", False, 2), ("launch.begun", True, 1)],
    ids=["before", "before, no host", "after"],
)
def test_a_daemon_killed_while_it_launches(
    failpoint: str, host: bool, launches: int, queued: Hosted
) -> None:
    """The run is launched by the next daemon if no process works on it, and it runs once."""
    if host:
        queued.start()
    run = queued.launch()
    with daemon(queued, failpoint) as killed:
        assert killed.wait(LIMIT_S) == -signal.SIGKILL
    with daemon(queued):
        done = queued.ended(run)
    assert done.status is dg.DagsterRunStatus.SUCCESS, queued.events(run)
    assert times(queued).read_text() == "x"
    event = dg.DagsterEventType
    assert statuses(queued, run) == [
        *[event.PIPELINE_ENQUEUED, event.PIPELINE_STARTING] * launches,
        event.PIPELINE_START,
        event.PIPELINE_SUCCESS,
    ]
    again = [line for line in queued.events(run) if "queued again" in line]
    assert len(again) == launches - 1


@pytest.mark.parametrize("state", ["claimed", "queued again"])
def test_a_launch_that_comes_late(state: str, queued: Hosted) -> None:
    """A process whose run another works on, or that is to be launched again, leaves it alone."""
    queued.start()
    run = queued.launch()
    home = queued.root / "home"
    with open_instance(home) as instance:
        claim = claim_run(run.run_id) if state == "claimed" else None
        if claim is not None:
            starting = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name)
            instance.report_dagster_event(starting, run_id=run.run_id)
        before = len(instance.all_logs(run.run_id))
        code = (
            "import sys; from research_jobs.project import find_project\n"
            "from research_jobs.resident.client import start_run\n"
            f"start_run(find_project(), {run.run_id!r}, {instance_text(instance)!r})\n"
        )
        asked = queued.python(code)
        assert asked.returncode == 0, asked.stderr
        wait_until(lambda: not queued.status()["runs"])
        assert len(instance.all_logs(run.run_id)) == before
        assert take_up(instance) == []
        if claim is not None:
            claim.close()
    assert not times(queued).exists()
