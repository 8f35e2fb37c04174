"""Schedules under Dagster's real daemon: a tick, and an outage over three ticks. Fault 18."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from research_jobs.orchestration.definitions.schedules import TICK_TAG

LOCATION = Path(__file__).with_name("schedule_location.py")
FORMAT = "%Y-%m-%d-%H:%M"


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Deployment:
    """An instance of its own, and a daemon that can be stopped and started."""

    def __init__(
        self, folder: Path, storage: dict[str, Any], schedules: dict[str, Any], start: datetime
    ) -> None:
        self.folder = folder
        (folder / "dagster.yaml").write_text(
            yaml.safe_dump(
                {
                    "storage": storage,
                    "telemetry": {"enabled": False},
                    "run_queue": {"dequeue_interval_seconds": 1},
                }
            )
        )
        (folder / "workspace.yaml").write_text(
            yaml.safe_dump({"load_from": [{"python_file": {"relative_path": str(LOCATION)}}]})
        )
        self.environment = os.environ | {
            "DAGSTER_HOME": str(folder),
            "TEST_SCHEDULES": json.dumps(schedules),
            "TEST_START": start.strftime("%Y-%m-%d %H:%M"),
        }
        self.instance = dg.DagsterInstance.from_config(str(folder))

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """A running daemon, with its code server and workers gone afterwards."""
        with (self.folder / "daemon.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # a test session in a shell's background ignores it, and so would the daemon
                preexec_fn=_hear_interrupts,  # noqa: PLW1509 - this process has no threads
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def until(self, condition: Callable[[], bool], seconds: float = 200) -> None:
        """Wait for something to become true; the daemon's log tells why it did not."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                tail = (self.folder / "daemon.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"not within {seconds} s; the daemon said:\n{tail}")
            time.sleep(0.25)

    def ticks(self) -> list[Any]:
        """All ticks of all schedules, the newest first."""
        return [
            tick
            for state in self.instance.all_instigator_state()
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ]

    def runs(self) -> list[dg.DagsterRun]:
        """All runs that ended well, the oldest first."""
        filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
        return list(self.instance.get_runs(filters))[::-1]

    def last_look(self) -> float:
        """When the scheduler last wrote down how far it had come (once an hour), or 0."""
        states = self.instance.all_instigator_state()
        return max((s.instigator_data.last_iteration_timestamp or 0 for s in states), default=0)

    def stopped_for(self, span: timedelta) -> None:
        """Let the instance's memory of the daemon's last look be `span` older than it is.

        So nobody need wait for hours: what the daemon reads when it starts is what it would
        read after having been away for so long.
        """
        for state in self.instance.all_instigator_state():
            data = state.instigator_data
            assert data is not None
            aged = data._replace(
                start_timestamp=data.start_timestamp - span.total_seconds(),
                last_iteration_timestamp=(
                    data.last_iteration_timestamp - span.total_seconds()
                    if data.last_iteration_timestamp
                    else None
                ),
            )
            self.instance.update_instigator_state(state.with_data(aged))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where the instance keeps its events: as it is embedded, and as it is deployed."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres").storage()
    return {"sqlite": {"base_dir": str(tmp_path / "dagster")}}


@pytest.mark.timeout(500)
def test_three_missed_ticks_leave_no_hole(tmp_path, storage):
    """Stopped across three hourly ticks, the daemon's first look asks for all three, once each."""
    now = datetime.now(UTC)
    # a minute that has just passed, so that the last missed tick is fresh and the next is far
    minute = (now - timedelta(minutes=2)).minute
    hour = (now - timedelta(minutes=2)).replace(minute=0, second=0, microsecond=0)
    keys = [(hour - timedelta(hours=n)).strftime(FORMAT) for n in (6, 5, 4, 3, 2, 1)]
    deployment = Deployment(
        tmp_path,
        storage,
        {"hourly": {"cron": f"{minute} * * * *", "notebooks": ["plain", "hourly"], "catch_up": 3}},
        start=hour - timedelta(days=2),
    )
    with deployment.instance:
        with deployment.daemon():
            deployment.until(lambda: bool(deployment.instance.all_instigator_state()))
        assert deployment.runs() == []
        # It had done its work until then, and one older hole is none of its business.
        deployment.instance.report_runless_asset_event(
            dg.AssetMaterialization("hourly", partition=keys[0])
        )
        deployment.stopped_for(timedelta(hours=3))
        with deployment.daemon():
            deployment.until(lambda: len(deployment.runs()) == 4)
        runs = deployment.runs()
        asked = sorted(str(run.tags.get("dagster/partition")) for run in runs)
        assert asked == keys[2:]
        # one run for the unpartitioned notebook, though three ticks were missed
        plain = [run for run in runs if dg.AssetKey("plain") in (run.asset_selection or ())]
        assert len(plain) == 1
        made = deployment.instance.get_materialized_partitions(dg.AssetKey("hourly"))
        assert made == {keys[0], *keys[2:]}
        ticks = len(deployment.ticks())
        # once more, and there is nothing left to make up for
        deployment.stopped_for(timedelta(hours=2))
        started = time.time()
        with deployment.daemon():
            deployment.until(lambda: deployment.last_look() > started)
        assert len(deployment.runs()) == 4
        assert len(deployment.ticks()) == ticks == 1


@pytest.mark.timeout(500)
def test_a_real_tick_of_a_real_clock(tmp_path):
    """A schedule of every minute fires at the next full minute, and its notebooks run together."""
    start = datetime.now(UTC) - timedelta(hours=3)
    deployment = Deployment(
        tmp_path,
        {"sqlite": {"base_dir": str(tmp_path / "dagster")}},
        {"every_minute": {"cron": "* * * * *", "notebooks": ["plain", "hourly"]}},
        start=start.replace(minute=0, second=0, microsecond=0),
    )
    with deployment.instance:
        with deployment.daemon():
            deployment.until(lambda: bool(deployment.runs()))
        run = deployment.runs()[0]
        assert run.asset_selection == {dg.AssetKey("plain"), dg.AssetKey("hourly")}
        due = datetime.fromisoformat(run.tags[TICK_TAG])
        assert (due.second, due.microsecond) == (0, 0)
        expected = (due - timedelta(hours=1)).replace(minute=0).strftime(FORMAT)
        assert run.tags["dagster/partition"] == expected
        # every later minute of the hour asked for the unpartitioned one alone
        partitions = [r.tags.get("dagster/partition") for r in deployment.runs()]
        assert partitions.count(expected) == 1
