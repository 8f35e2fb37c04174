"""The programs that the watch ends, so that they are started again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_jobs.project import Project
from research_jobs.resident.services import Service, register, registered
from research_jobs.runtime import processes


@pytest.fixture
def pair() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two programs that do nothing."""
    both = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield both
    for one in both:
        one.kill()
        one.wait()


@pytest.mark.parametrize("reused", [False, True])
def test_an_owner_is_ended_only_while_it_is_that_very_process(
    pair: list[subprocess.Popen[bytes]], *, reused: bool
) -> None:
    """A pid that another process has by now is left alone, and the service itself is ended."""
    service, owner = pair
    began = "of an earlier process" if reused else processes.start_of(owner.pid)
    started = processes.start_of(service.pid) or ""
    Service("webserver", service.pid, started, time.time(), None, owner.pid, began).end(10.0)
    ended, left = (service, owner) if reused else (owner, service)
    assert ended.wait(10) < 0
    assert left.poll() is None


def test_a_service_that_cannot_be_registered_starts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, or a damaged folder of state, costs its entry and a line in the log."""
    project = Project(tmp_path, "")
    project.make_state_folder()
    (project.state / "services").write_text("")
    register(project, "watch")
    assert registered(project) == {}
    assert "The watch cannot be registered" in caplog.text
