"""What the watch says is wrong, from real runs, files and file systems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from dagster._utils.error import SerializableErrorInfo

from research_jobs.manifest.kinds import Kind
from research_jobs.notify.condition import Condition
from research_jobs.orchestration.compat.daemon import LastTick
from research_jobs.orchestration.execution.leftovers import NEEDED_S
from research_jobs.orchestration.model.instance import open_instance
from research_jobs.orchestration.operations import conditions
from research_jobs.orchestration.operations import watch as module
from research_jobs.orchestration.operations.watch import TOLD_S, Seen, Watch
from research_jobs.project import Project, find_project
from research_jobs.resident.services import register, registered

pytestmark = pytest.mark.timeout(300)

BIN = Path(sys.executable).parent
NOTEBOOKS = {"bad": "# %%\n1 / 0\nx = 1\n", "good": "# %%\nx = 1\n"}
MANIFEST = """
notebooks:
  bad: {outputs: [x], group: risk, tags: {desk: rates}, owners: [ann@example.com]}
  good: {outputs: [x]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project after a run of two notebooks, one of which fails."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    for name, text in NOTEBOOKS.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "manifest.yaml").write_text(MANIFEST)
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "RESEARCH_JOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder.parent)
    command = [BIN / "research-jobs", "run", "bad", "good", "--no-host"]
    subprocess.run(command, check=False, capture_output=True, timeout=100)
    return find_project(folder.parent)


@pytest.fixture
def look(project: Project) -> Iterator[Callable[[float], tuple[Condition, ...]]]:
    """Looks of one watch."""
    watch = Watch(project, say=lambda _: None)
    yield watch.look
    watch.close()


def test_conditions_of_a_project(look: Callable[[float], tuple[Condition, ...]]) -> None:
    """A failure comes with all that an alert says and chooses by."""
    found = look(time.time())
    (failed,) = [one for one in found if one.kind is Kind.FAILED]
    assert (failed.subject, failed.notebook, failed.group) == ("bad", "bad", "risk")
    assert failed.reason == "notebooks/bad.py:2, cell 1: ZeroDivisionError: division by zero"
    assert failed.rerun == "research-jobs run bad"
    assert failed.tags["desk"] == "rates"
    assert failed.owners == ("ann@example.com",)
    assert failed.report is not None
    assert failed.report.endswith("report.html")


def test_a_look_remembers(project: Project, look: Callable[[float], tuple[Condition, ...]]) -> None:
    """What is wrong is so since the same moment at each look, and is over when it is mended."""
    now = time.time()
    first = {(one.kind, one.subject): one.since for one in look(now)}
    second = {(one.kind, one.subject): one.since for one in look(now + 10)}
    assert first == second
    (project.notebooks / "bad.py").write_text("# %%\nx = 1\n")
    command = [BIN / "research-jobs", "run", "bad", "--no-host"]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    assert not [one for one in look(now + 20) if one.kind is Kind.FAILED]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which nothing has run."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "good.py").write_text("# %%\nx = 1\n")
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "RESEARCH_JOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return find_project(tmp_path)


def test_nothing_on_disk_stops_the_watch(bare: Project) -> None:
    """What cannot be read or written is told or passed over, and the rest is looked at."""
    state = bare.make_state_folder()
    (state / "watch.json").write_text("[]")
    (bare.root / "reports").write_text("no folder can be here")
    register(bare, "webserver", "http://127.0.0.1:notaport")
    now = time.time()  # it has just started, so it is not ended, which would be this process
    watch = Watch(bare, say=lambda _: None)
    watch.begin()
    (state / "watch.json").unlink()
    (state / "watch.json").mkdir()
    (state / "watch.jsonl").mkdir()
    (bare.notebooks / "good.py").write_text("# %%\nx = (\n")
    watch.look(now)
    found = {one.subject: one.reason for one in watch.look(now + TOLD_S)}
    assert "notaport" in found["webserver"]
    assert "reports" in found["the morning page"]
    assert "good.py" in found["good"]
    damaged = asdict(registered(bare)["webserver"]) | {"since": "y"}
    (state / "services" / "webserver.json").write_text(json.dumps(damaged))
    found = {one.subject: one.reason for one in watch.look(now + TOLD_S + 10)}
    assert found["the watch"].startswith("it cannot look at everything: ")
    assert "good" in found
    watch.close()


def test_a_clock_that_was_set_back_hides_nothing(bare: Project) -> None:
    """What goes wrong afterwards is seen at once, not when the clock is as late again."""
    watch = Watch(bare, say=lambda _: None)
    now = time.time()
    watch.look(now)
    (bare.notebooks / "good.py").write_text("# %%\nx = (\n")
    assert [one.subject for one in watch.look(now - 86_400)] == ["good"]
    watch.close()


def test_a_look_that_computes_does_not_hang(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long look is said to hang once it waits, not while it works, whatever the clock says."""
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "HANGS_S", 0.5)
    monkeypatch.setattr(module, "WORKS_S", 0.001)
    watch = Watch(bare, say=lambda _: None)
    working, over = threading.Event(), threading.Event()
    working.set()

    def read(now: float) -> Seen:
        while working.is_set():
            pass
        over.wait(60)
        return Seen()

    monkeypatch.setattr(watch._history, "_look", read)
    begun = time.monotonic()
    while time.monotonic() < begun + 2.0:
        assert not watch._look_at_history(time.time() + 3600).conditions
    working.clear()
    while not (found := watch._look_at_history(1.0).conditions):
        assert time.monotonic() < begun + 60
    assert found[0].reason == "it does not answer"
    over.set()
    watch._pending[0].result(60)
    watch.close()


def test_a_history_that_cannot_be_read(
    project: Project, look: Callable[[float], tuple[Condition, ...]]
) -> None:
    """It is said, what was known before is kept, and it is over when it can be read again."""
    look(time.time())
    home = project.state / "dagster"
    hidden = home.with_name("hidden")
    watch = Watch(project, say=lambda _: None)
    home.rename(hidden)
    home.write_text("no folder")
    (lost,) = [one for one in watch.look(time.time()) if one.subject == "the history"]
    assert lost.kind is Kind.SERVICE
    home.unlink()
    hidden.rename(home)
    found = watch.look(time.time())
    watch.close()
    assert {one.kind for one in found} == {Kind.FAILED}


def test_a_history_that_comes_back(project: Project) -> None:
    """Once it can be read again, the next look no longer says that it cannot."""
    now = time.time()
    watch = Watch(project, say=lambda _: None)
    before = {one.subject for one in watch.look(now)}
    home = project.state / "dagster"
    watch._history.close()
    hidden = home.rename(home.with_name("hidden"))
    home.write_text("no folder")
    assert {one.subject for one in watch.look(now + 1)} == {*before, "the history"}
    home.unlink()
    hidden.rename(home)
    assert {one.subject for one in watch.look(now + 2)} == before
    watch.close()


def test_a_service_that_is_gone(
    project: Project, look: Callable[[float], tuple[Condition, ...]]
) -> None:
    """A service whose process has ended is said to be gone, but not while it is started again."""
    code = (
        "from research_jobs.project import find_project\n"
        "from research_jobs.resident.services import register\n"
        "register(find_project(), 'webserver', 'http://127.0.0.1:1')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project.root, timeout=60)
    assert not registered(project)["webserver"].alive
    now = time.time()
    assert not [one for one in look(now) if one.kind is Kind.SERVICE]
    (gone,) = [one for one in look(now + TOLD_S) if one.kind is Kind.SERVICE]
    assert (gone.subject, gone.reason) == ("webserver", "the webserver is not running")
    assert gone.since == now


def test_time_without_a_watch_is_written_down(bare: Project) -> None:
    """A watch that starts says from when to when nobody watched."""
    (bare.make_state_folder() / "watch.json").write_text(json.dumps({"at": 1000.0}))
    watch = Watch(bare, say=lambda _: None)
    watch.begin()
    watch.close()
    (line,) = (bare.state / "watch.jsonl").read_text().splitlines()
    said = json.loads(line)
    assert (said["down"], said["since"]) == ("watch", 1000.0)
    assert said["until"] == pytest.approx(time.time(), abs=60)


def test_a_registered_service_is_never_confused_with_another_process(bare: Project) -> None:
    """A pid that is used again by another process is not the service's, so it is never ended."""
    register(bare, "daemon")
    path = bare.state / "services" / "daemon.json"
    assert registered(bare)["daemon"].alive
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "started": "another"}))
    service = registered(bare)["daemon"]
    assert not service.alive
    service.end(0.1)  # this very process would be ended


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"name": 1}', "\x00\xff"])
def test_a_damaged_registration_is_passed_over(bare: Project, damage: str) -> None:
    """A file that says nothing does not keep the others from being read."""
    register(bare, "host")
    (bare.state / "services" / "daemon.json").write_text(damage)
    assert list(registered(bare)) == ["host"]


def test_folders_of_killed_workers_are_removed(
    project: Project, look: Callable[[float], tuple[Condition, ...]]
) -> None:
    """A folder goes when its run has been over for a while; others stay, whatever they are."""
    with open_instance(project) as instance:
        over = instance.get_runs(limit=1)[0].run_id
    runs = project.make_state_folder("runs")
    names = (f"{over}-good", f"{uuid.uuid4()}-good", "notes")
    for name in names:
        (runs / name).mkdir()
        (runs / name / "capture.jsonl").touch()
        os.utime(runs / name, (1, 1))
    look(time.time())
    assert sorted(path.name for path in runs.iterdir()) == sorted(names)
    look(time.time() + NEEDED_S + 1)
    assert sorted(path.name for path in runs.iterdir()) == sorted(names[1:])


def test_ticks_that_fail() -> None:
    """A schedule or sensor whose last tick failed is a condition since that tick."""
    ticks = [
        LastTick("daily", 5.0, SerializableErrorInfo("KeyError: 'x'\n", [], "KeyError")),
        LastTick("hourly", 6.0),
    ]
    (found,) = conditions.of_ticks(ticks)
    assert (found.kind, found.subject, found.since) == (Kind.TICK_FAILED, "daily", 5.0)
    assert found.reason == "KeyError: 'x'"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize(
    ("options", "files", "size", "reason"),
    [
        ("size=1m", 1, 1_020_000, "less than 51.2 KiB of 1 MiB is free"),
        ("size=1m,nr_inodes=60", 57, 0, "less than 5% of its 60 inodes are free"),
    ],
)
def test_a_disk_that_fills(
    tmp_path: Path, options: str, files: int, size: int, reason: str
) -> None:
    """A file system is nearly full of bytes or of inodes, and says the same while it fills."""
    (tmp_path / "notebooks").mkdir()
    project = Project(tmp_path, str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", tmp_path / "data"], check=True)
    try:
        assert not [c for c in conditions.of_disks(project, 1.0) if "data" in c.subject]
        for number in range(files):
            (tmp_path / "data" / str(number)).write_bytes(b"x" * size)
        (found,) = [c for c in conditions.of_disks(project, 1.0) if "data" in c.subject]
    finally:
        subprocess.run(["umount", tmp_path / "data"], check=True)
    assert (found.kind, found.reason) == (Kind.DISK, reason)
