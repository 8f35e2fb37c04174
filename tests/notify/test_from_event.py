"""Each kind of alert, from what really happens to the message that arrives."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster._core.scheduler.instigation import TickStatus
from dagster._utils.error import SerializableErrorInfo
from scheduler import Scheduler

from research_jobs.decisions.definitions import Definition
from research_jobs.orchestration.model.instance import open_instance
from research_jobs.orchestration.operations import doctor
from research_jobs.orchestration.operations.diagnosis import Site
from research_jobs.orchestration.operations.watch import TOLD_S, Watch
from research_jobs.project import Project, find_project
from research_jobs.upkeep.proof import BackupBook

pytestmark = pytest.mark.timeout(300)

BIN = Path(sys.executable).parent
HOURLY = """
notebooks: {a: {outputs: [x]}}
schedules: {hourly: {cron: '0 * * * *', notebooks: [a]}}
"""


class World:
    """A project whose alerts go to one endpoint, with a watch and its clock."""

    def __init__(self, project: Project, hook: Any) -> None:
        self.project = project
        self.hook = hook
        self.now = time.time()
        self.watch = Watch(project, say=lambda _: None)

    def write(self, manifest: str = "", **notebooks: str) -> None:
        for name, text in notebooks.items():
            (self.project.notebooks / f"{name}.py").write_text(f"# %%\n{text}\n")
        alerts = f"alerts: {{ops: {{url: '{self.hook.url}'}}}}\n"
        self.project.manifest.write_text(alerts + manifest)

    def run(self, *words: str) -> None:
        subprocess.run(
            [BIN / "research-jobs", "run", *words, "--no-host"],
            cwd=self.project.root,
            check=False,
            capture_output=True,
            timeout=100,
        )
        self.now = max(self.now, time.time())

    def told(self, title: str, *, after: float = 11.0) -> dict[str, Any]:
        """The message with that in its title, once the watch has looked often enough."""
        for _ in range(6):
            self.watch.look(self.now)
            self.watch._notifier.wait(90)
            self.now += after
            found = [one for one in self.hook.got if title in one["title"]]
            if found:
                return found[0]
        pytest.fail(f"{title!r} is not among {[one['title'] for one in self.hook.got]}")


@pytest.fixture
def world(
    tmp_path: Path, hooks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A world of its own."""
    (tmp_path / "research" / "notebooks").mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "RESEARCH_JOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path / "research")
    world = World(find_project(tmp_path / "research"), hooks())
    world.write()
    yield world
    world.watch.close()


def test_failed_and_recovered(world: World) -> None:
    """A notebook that fails, and runs again: two messages, with line, report and command."""
    world.write("notebooks: {prices: {outputs: [x]}}\n", prices="1 / 0\nx = 1")
    world.run("prices")
    said = world.told(
        "prices failed: notebooks/prices.py:2, cell 1: ZeroDivisionError: division by zero"
    )
    assert "research-jobs run prices" in said["message"]
    assert "report.html" in said["message"]
    world.write("notebooks: {prices: {outputs: [x]}}\n", prices="x = 1")
    world.run("prices")
    world.told("prices runs again")


def test_two_notebooks_of_one_cause(world: World) -> None:
    """Runs that fail for the same reason are one message that counts them."""
    world.write(a="raise KeyError('Close')", b="raise KeyError('Close')")
    world.run("a", "b")
    said = world.told("2 notebooks failed: KeyError: 'Close'")
    assert "research-jobs run a\n" in said["message"]
    assert len(world.hook.got) == 1


def test_refused(world: World) -> None:
    """Outputs that a check refuses are not published, and that is said."""
    world.write(
        "notebooks: {prices: {outputs: {x: {min_rows: 1}}}}\n",
        prices="import pandas as pd\nx = pd.DataFrame({'a': []})",
    )
    world.run("prices")
    world.told("prices was refused")


def test_blocked(world: World) -> None:
    """What depends on a failure is blocked."""
    world.write(
        "notebooks: {a: {outputs: [x]}, b: {outputs: [y]}}\n",
        a="raise ValueError('no')\nx = 1",
        b="from research_jobs import load\ny = load('a')",
    )
    world.run("a", "b")
    world.told("b is blocked")


def test_missing_partitions(world: World) -> None:
    """A hole between partitions that exist; without the store nobody can say that it is filled."""
    world.write(
        "notebooks: {d: {outputs: [x], partitions: {by: day, start: 2026-03-01, end: 2026-03-04,"
        " parameter: run_date}}}\n",
        d="run_date: str = '2026-03-01'\nx = run_date",
    )
    path = world.project.notebooks / "d.py"
    path.write_text(path.read_text().replace("# %%", '# %% tags=["parameters"]', 1))
    world.run("d", "--partition", "2026-03-01")
    world.run("d", "--partition", "2026-03-03")
    said = world.told("d [2026-03-02] misses partitions")
    assert "research-jobs backfill d --missing" in said["message"]
    shutil.move(world.project.store, world.project.root / "aside")
    world.now += 61.0  # from when on the whole is read again
    said = world.told("the store is not there")
    assert "has nothing of what was published to it" in said["message"] + said["title"]
    (world.project.state / "store.json").unlink()
    answer = doctor.CHECKS["store"](Site(world.project))
    assert answer.ok is False
    assert "has nothing of what the history knows: d [2026-03-01]" in answer.detail
    shutil.move(world.project.root / "aside", world.project.store)
    world.told("the store is there again")
    assert [one for one in world.hook.got if "has all its partitions" in one["title"]] == []


def test_slow(world: World) -> None:
    """A run that takes much longer than those before it."""
    world.write(
        "notebooks: {s: {outputs: [x]}}\n",
        s="import pathlib, time\ntime.sleep(6 if pathlib.Path('slow').exists() else 0)\nx = 1",
    )
    for _ in range(6):
        world.run("s")
    Path("slow").touch()
    Path(world.project.notebooks / "slow").touch()
    world.run("s")
    world.told("s is slower than usual")


def test_missed_tick(world: World) -> None:
    """A tick that was owed, and nothing came of it, while no daemon ran."""
    world.write(
        HOURLY,
        a="x = 1",
    )
    began = world.now - 3 * 3600
    definition = Definition("hourly", began, ("0 * * * *",), "UTC", notebooks=("a",))
    log = world.project.make_state_folder() / "definitions.jsonl"
    log.write_text(definition.line + "\n")
    said = world.told("hourly missed a tick")
    assert "nothing was evaluated" in said["message"]


def test_disk(world: World) -> None:
    """A store whose file system is nearly full, as long as it is."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system")
    data = world.project.root / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", data], check=True)
    try:
        (data / "filler").write_bytes(b"x" * 1_020_000)
        world.told("is nearly full")
        (data / "filler").unlink()
        world.told("has space again")
    finally:
        subprocess.run(["umount", data], check=True)


def test_service(world: World) -> None:
    """A service that was there and is not there any more."""
    code = (
        "from research_jobs.project import find_project\n"
        "from research_jobs.resident.services import register\n"
        "register(find_project(), 'daemon')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    world.told("the service daemon does not answer: the daemon is not running", after=TOLD_S)


def test_code(world: World) -> None:
    """A code server that runs and cannot load the definitions."""
    (world.project.root / "broken").mkdir()
    (world.project.root / "broken" / "research_jobs_definitions.py").write_text("1 / 0\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagster", "code-server", "start", "--port", str(port)]
    command += ["-f", str(world.project.root / "broken" / "research_jobs_definitions.py")]
    (world.project.root / "home").mkdir()
    environment = {**os.environ, "DAGSTER_HOME": str(world.project.root / "home")}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        register = (
            "import json, sys, time\n"
            "from research_jobs.project import find_project\n"
            "from research_jobs.runtime.processes import start_of\n"
            "folder = find_project().make_state_folder('services')\n"
            "(folder / 'code-server.json').write_text(json.dumps({'name': 'code server', 'pid':"
            f" {server.pid}, 'started': start_of({server.pid}), 'since': time.time(),"
            f" 'address': '127.0.0.1:{port}'}}))\n"
        )
        subprocess.run([sys.executable, "-c", register], check=True, timeout=60)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            said = world.told("does not load", after=TOLD_S)
        finally:
            server.terminate()
    assert "ZeroDivisionError" in said["message"] + said["title"]


def test_a_schedule_that_fails(world: World) -> None:
    """A schedule whose last tick ended with an error."""
    world.write(
        HOURLY,
        a="x = 1",
    )
    error = SerializableErrorInfo("KeyError: 'x'\n", [], "KeyError")
    with open_instance(world.project) as instance:
        scheduler = Scheduler(SimpleNamespace(instance=instance), "hourly", world.now)
        scheduler.tick(world.now, TickStatus.FAILURE, error=error)
    said = world.told("hourly fails")
    assert "KeyError: 'x'" in said["message"] + said["title"]


def test_backup(world: World) -> None:
    """A backup that fails, and one that was not proven for too long."""
    world.write("backup: {to: /mnt/backup, verify: 3d}\n")
    made = BackupBook(made=world.now, proven=world.now - 2 * 86_400)
    BackupBook.change(world.project, lambda _: made.ended("making", world.now, "no route to host"))
    said = world.told("the backup is not proven")
    assert "its making fails: no route to host" in said["message"] + said["title"]
    BackupBook.change(world.project, lambda _: made)
    world.told("the backup is proven again")
    BackupBook.change(world.project, lambda _: replace(made, proven=world.now - 4 * 86_400))
    world.now += 3600.0  # what comes back is told again after an hour
    world.hook.got.clear()
    said = world.told("the backup is not proven")
    assert "the last proven one is older than 3 days" in said["message"] + said["title"]


def test_clock(world: World) -> None:
    """A clock that was set while the watch looked."""
    world.watch.look(world.now)
    world.watch._clock -= 3600.0
    said = world.told("the clock is wrong")
    assert "it was set forward by 3,600 seconds" in said["message"] + said["title"]


def test_channel(world: World, hooks: Callable[..., Any]) -> None:
    """A channel that does not deliver, by the others."""
    bad = hooks(500)
    world.write(prices="1 / 0")
    text = world.project.manifest.read_text()
    world.project.manifest.write_text(text.replace("}}", f"}}, chat: {{url: '{bad.url}'}}}}", 1))
    world.run("prices")
    world.told("chat does not deliver", after=31.0)


def test_manifest(world: World) -> None:
    """A manifest that is broken is told through the channels of the last good one."""
    world.watch.look(world.now)
    world.project.manifest.write_text("alerts: {ops: {url: '']\n")
    world.told("the manifest has a mistake")


def test_history(world: World) -> None:
    """A history that cannot be read."""
    world.write(a="x = 1")
    world.run("a")
    world.watch.look(world.now)
    world.watch.close()
    home = world.project.state / "dagster"
    shutil.move(home, home.with_name("elsewhere"))
    home.write_text("no folder")
    world.watch = Watch(world.project, say=lambda _: None)
    world.told("the history does not answer")
