"""The account of a real daemon: its code server writes the log, its ticks are accounted for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import dagster as dg
import pytest
import yaml

from research_jobs.decisions.account import Became
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.model.definition_log import read_definitions
from research_jobs.orchestration.operations.account import read_account
from research_jobs.project import PROJECT_VARIABLE, find_project

MANIFEST = """
notebooks:
  good: {outputs: [x]}
schedules:
  every_minute: {cron: "* * * * *", notebooks: [good]}
  seldom: {cron: "0 0 29 2 *", notebooks: [good]}
"""


@pytest.mark.timeout(300)
def test_a_tick_of_a_real_daemon_is_accounted_for(tmp_path) -> None:
    """The code server logs both schedules as it loads them, and the first tick ran, in time."""
    home, root = tmp_path / "home", tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    home.mkdir()
    (root / "notebooks" / "good.py").write_text("# %%\nx = 1\n")
    (root / "notebooks" / "manifest.yaml").write_text(MANIFEST)
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}}))
    dg.DagsterInstance.from_config(
        str(home)
    ).dispose()  # two that begin at once make its tables twice
    began = time.time()
    with (home / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-m", "research_jobs.definitions"],
            cwd=root,
            env=os.environ | {"DAGSTER_HOME": str(home), PROJECT_VARIABLE: str(root)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
            deadline = began + 200
            while not instance.get_runs(ended):
                assert time.time() < deadline, (home / "daemon.log").read_text()[-3000:]
                time.sleep(0.5)
            project = find_project(root)
            logged = {one.schedule: one for one in read_definitions(project)}
            assert set(logged) == {"every_minute", "seldom"}
            assert began <= logged["every_minute"].at <= time.time()
            account = read_account(instance, load_catalog(project), began, time.time())
    finally:
        daemon.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
    assert account.good, account.as_dict()
    ran = [tick for tick in account.ticks if tick.became is Became.RAN]
    assert ran
    assert ran[0].schedule == "every_minute"
    assert len(ran[0].runs) == 1
