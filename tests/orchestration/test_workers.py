"""The process that works on a run is distinguished from every other one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRun

from research_jobs.orchestration.execution import run_queue, vouching
from research_jobs.orchestration.execution.run_launcher import WorkerRunLauncher
from research_jobs.orchestration.model import workers
from research_jobs.orchestration.model.workers import (
    PROCESS_TAG,
    SEEN_TAG,
    SERVER_TAG,
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


@pytest.mark.parametrize("part", [0, 2])
def test_what_names_no_process_of_its_run(part: int) -> None:
    """A tag of another run, or without a pid, names no process."""
    parts = process_tag(RUN_ID).split(":")
    parts[part] = "other"
    assert worker(":".join(parts)) is None


def tag_with(**changes: str) -> str:
    """The tag of this very process, with parts of its machine's identity exchanged."""
    head, machine, *tail = process_tag(RUN_ID).split(":")
    names = ("host", "namespace", "boot", "install")
    parts = dict(zip(names, machine.split("/"), strict=True))
    return ":".join([head, "/".join({**parts, **changes}.values()), *tail])


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        pytest.param({"boot": "b", "install": "i"}, None, id="of the same name, with this pid"),
        pytest.param({"boot": "b", "install": "", "host": "h"}, None, id="container elsewhere"),
        pytest.param({"namespace": "7"}, None, id="container of this machine"),
        pytest.param({"host": "h"}, True, id="renamed since"),
        pytest.param({"boot": "b"}, False, id="rebooted since"),
    ],
)
def test_which_machine_a_process_is_on(
    changes: dict[str, str], alive: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pids are compared on one boot of one machine only, whatever its name."""
    here = workers._Machine("this", "4026531836", "boot", "install")
    monkeypatch.setattr(workers._Machine, "here", classmethod(lambda cls: here))
    found = worker(tag_with(**changes))
    assert (found and found.alive) == alive


def test_a_tag_of_an_earlier_version() -> None:
    """Runs that go on over an upgrade are still found: by host name and namespace."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    head, _, *tail = process_tag(RUN_ID).split(":")
    mine = worker(":".join([head, f"{socket.gethostname()}/{namespace}", *tail]))
    assert mine is not None
    assert mine.alive
    assert worker(":".join([head, f"other/{namespace}", *tail])) is None


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory with our launcher."""
    launcher = {
        "run_launcher": {
            "module": "research_jobs.orchestration.execution.run_launcher",
            "class": "WorkerRunLauncher",
        }
    }
    with dg.instance_for_test(overrides=launcher) as instance:
        yield instance


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> DagsterRun:
    """A run that has started, with these tags."""
    return instance.add_run(DagsterRun("job", tags=tags, status=dg.DagsterRunStatus.STARTED))


def elsewhere(run_id: str) -> dict[str, str]:
    """The tag of a process of another machine, with a pid that is alive on this one."""
    return {PROCESS_TAG: f"{run_id[:8]}:laptop/4026531836/b/i:{os.getpid()}:1"}


def health(launcher: WorkerRunLauncher, run: DagsterRun) -> tuple[str, str | None]:
    """What run monitoring learns."""
    found: Any = launcher.check_run_worker_health(run)
    return found.status.value, found.msg


def test_nobody_vouches_for_a_process_elsewhere(instance: dg.DagsterInstance) -> None:
    """It counts as gone once it has said nothing for as long as the patience, not before."""
    launcher = instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    run = started(instance, {})
    instance.add_run_tags(run.run_id, elsewhere(run.run_id))

    def now() -> DagsterRun:
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    launcher.listener = vouching.Listener()
    assert health(launcher, now()) == ("RUNNING", None)
    launcher.listener.patience = -1.0
    status, said = health(launcher, now())
    assert status == "NOT_FOUND"
    assert said is not None
    assert "laptop" in said
    assert not launcher.terminate(run.run_id)
    assert now().status is dg.DagsterRunStatus.STARTED, "nobody here can cancel it"


def test_a_process_elsewhere_vouches_for_itself(instance: dg.DagsterInstance) -> None:
    """What it says again and again is new each time, and nothing is left when the run is over."""
    run = started(instance, {})
    before = threading.active_count()
    said = set[str]()
    with vouching.vouching(instance, run.run_id, every=0.01):
        while len(said) < 3:
            found = instance.get_run_by_id(run.run_id)
            assert found is not None
            said |= {found.tags[SEEN_TAG]} if SEEN_TAG in found.tags else set()
    assert threading.active_count() == before


def test_what_is_new_is_judged_by_the_listeners_clock() -> None:
    """A new word begins the silence anew; which time it names does not matter."""
    listener = vouching.Listener(patience=5.0)
    listener._heard = {"r": ("1999", vouching.time.monotonic() - 6.0)}
    assert listener.silent(DagsterRun("job", "r", tags={SEEN_TAG: "1999"}))
    assert not listener.silent(DagsterRun("job", "r", tags={SEEN_TAG: "1998"}))
    assert not listener.silent(DagsterRun("job", "r", tags={SEEN_TAG: "1998"}))


def test_a_code_server_that_does_not_answer_vouches_for_nothing(
    instance: dg.DagsterInstance,
) -> None:
    """Then the run has the patience that one has for which there is no code server."""
    launcher = instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    info = f'{{"host": "127.0.0.1", "port": {port}}}'
    run = started(instance, {SERVER_TAG: info})
    launcher.listener = vouching.Listener()
    assert health(launcher, run)[0] == "RUNNING"
    launcher.listener.patience = -1.0
    assert health(launcher, run)[0] == "NOT_FOUND"


def test_another_launchers_runs_are_left_to_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waits for its container is not queued again, one of a killed daemon of ours is."""
    monkeypatch.setattr(run_queue, "LAUNCH_S", -1.0)

    def starting(instance: dg.DagsterInstance) -> DagsterRun:
        run = instance.add_run(DagsterRun("job", status=dg.DagsterRunStatus.NOT_STARTED))
        event = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, "job")
        instance.report_dagster_event(event, run_id=run.run_id)
        assert [one.run_id for one in run_queue._forgotten(instance)] == [run.run_id]
        return run

    starting(instance)
    with pytest.raises(Exception, match="external_pipeline_origin"):
        run_queue.take_up(instance)  # it tries: only a run without a code location cannot be queued
    with dg.DagsterInstance.ephemeral() as other:
        starting(other)
        assert run_queue.take_up(other) == []
