"""Dagster's daemon, which kills itself at a failpoint: ``daemon_to_kill.py FAILPOINT WORKSPACE``.

It waits a second for a launch, not half a minute, before it takes a run up again.
"""

from __future__ import annotations

import os
import signal
import sys

from dagster._daemon.cli import cli

from research_jobs.failpoints import install
from research_jobs.orchestration.execution import run_queue

place, workspace = sys.argv[1:]


def kill(name: str) -> None:
    if name == place:
        os.kill(os.getpid(), signal.SIGKILL)


install(kill)
run_queue.LAUNCH_S = run_queue.INTERVAL_S = 1.0
cli(["run", "-w", workspace])
