"""Templates that a command starts before it knows all that it will need."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_jobs.project import Project, find_project
from research_jobs.supervisor import shared
from research_jobs.supervisor.shared import (
    close_supervisors,
    remember_preload,
    shared_supervisor,
    warm_up,
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "notebooks").mkdir()
    close_supervisors()
    yield find_project(tmp_path)
    close_supervisors()


def wait_for_template(modules: tuple[str, ...]) -> tuple[int, ...]:
    supervisor = shared_supervisor(modules)
    deadline = time.monotonic() + 60
    while not supervisor.template_pids and time.monotonic() < deadline:
        time.sleep(0.02)
    return supervisor.template_pids


def test_what_was_remembered_is_warmed_up(project: Project) -> None:
    """The next command starts the interpreter that the last one needed, and the run finds it."""
    outside = [str(project.root.parent / "elsewhere")]
    remember_preload(project, ["json", "decimal"], outside)
    warm_up(project)
    started = wait_for_template(("json", "decimal"))
    assert len(started) == 1
    shared_supervisor(("json", "decimal")).warm(project.root, sys_path=outside)
    assert shared_supervisor(("json", "decimal")).template_pids == started


def test_nothing_remembered_starts_nothing(project: Project) -> None:
    """A project's first command waits until it knows."""
    warm_up(project)
    assert not shared._supervisors


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": 1}', '["json", 1]', "null", '{"modules": ["json", 1], "sys_path": []}']
)
def test_damaged_memory_is_no_memory(project: Project, text: str) -> None:
    """Whatever the file holds, the command goes on without it."""
    path = project.state / "cache" / shared.PRELOAD_FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    warm_up(project)
    assert not shared._supervisors
    remember_preload(project, ["json"])
    assert shared._remembered(project) == (("json",), ())


def test_an_interpreter_that_cannot_be_a_template(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with it is for the run to say: the command's terminal shows no traceback."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    remember_preload(project, ["json"])
    warm_up(project)
    for thread in threading.enumerate():
        if thread.name == "warm up":
            thread.join(60)
    assert (raised, shared_supervisor(["json"]).template_pids) == ([], ())


def test_wrong_guess_is_ended(project: Project) -> None:
    """Where notebooks import other modules by now, the interpreter that was warmed up ends."""
    remember_preload(project, ["json"])
    warm_up(project)
    wrong = shared_supervisor(["json"])
    assert wait_for_template(("json",))
    remember_preload(project, ["decimal"])
    assert wrong.template_pids == ()
    assert shared._remembered(project) == (("decimal",), ())
    assert set(shared._supervisors) <= {("decimal",)}
