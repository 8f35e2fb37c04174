"""The process that works on a run is distinguished from every other one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from dagster import DagsterRun

from research_jobs.orchestration.model.workers import (
    PROCESS_TAG,
    command_tags,
    process_tag,
    worker_of,
)

RUN_ID = "0123456789abcdef"


def worker(tag: str, run_id: str = RUN_ID):
    """What a run with this tag says of its process."""
    return worker_of(DagsterRun("job", run_id, tags={PROCESS_TAG: tag}))


def test_this_process_is_alive() -> None:
    """A tag of the living process names it."""
    found = worker(process_tag(RUN_ID))
    assert found is not None
    assert (found.pid, found.alive) == (os.getpid(), True)


def test_a_commands_run_is_not_tried_again() -> None:
    """Dagster learns so, and which process works on it."""
    assert command_tags(RUN_ID) == {
        PROCESS_TAG: process_tag(RUN_ID),
        "dagster/max_retries": "0",
    }


@pytest.mark.parametrize("change", ["1", "-7", ""])
def test_a_pid_that_is_used_again_is_another_process(change: str) -> None:
    """A living process with another start is not the one that worked on the run."""
    head, _, started = process_tag(RUN_ID).rpartition(":")
    found = worker(f"{head}:{started}{change}" if change else f"{head}:")
    assert found is not None
    assert not found.alive


def test_an_ended_process_is_gone() -> None:
    """Also while it is a zombie, which has a pid and a start."""
    code = (
        "import sys; from research_jobs.orchestration.model.workers import process_tag;"
        f"print(process_tag('{RUN_ID}'), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        tag = process.stdout.readline().strip()
        alive = worker(tag)
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # leaves it a zombie
        dead = worker(tag)
    assert alive is not None
    assert alive.alive
    assert dead is not None
    assert not dead.alive


@pytest.mark.parametrize("part", range(3))
def test_what_cannot_be_judged_from_here(part: int) -> None:
    """A tag of another run or machine, or without a pid, names no process of ours."""
    parts = process_tag(RUN_ID).split(":")
    parts[part] = "other"
    assert worker(":".join(parts)) is None
