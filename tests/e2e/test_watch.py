"""Services that hang: processes that are there, listen, and do nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from research_jobs.orchestration.operations.served import NotServedError, ask
from research_jobs.project import find_project
from research_jobs.resident.services import Service, registered
from research_jobs.runtime.processes import alive, children_of, descendants

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="it looks for children in /proc"),
]

MANIFEST = """
notebooks: {one: {outputs: [x]}}
schedules: {each_minute: {cron: "* * * * *", notebooks: [one]}}
"""
PING = "{ version }"


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, e2e: Any) -> Iterator[Any]:
    """A UI with all services, and the watch over them."""
    folder = tmp_path_factory.mktemp("watch")
    project = e2e.write_project(folder / "project", {"one.py": "# %%\nx = 1\n"}, MANIFEST)
    with e2e.running_ui(project, folder) as running:
        e2e.wait_until("all services", lambda: len(registered(find_project(project))) == 5)
        yield running


def service(ui: Any, name: str) -> Service:
    return registered(find_project(ui.project))[name]


def said(ui: Any, **wanted: str) -> list[dict[str, Any]]:
    """The lines of the watch's log that say something."""
    path = ui.project / ".research_jobs" / "watch.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if wanted.items() <= line.items()]


def holder(ui: Any) -> int:
    """The process that holds the definitions."""
    for pid in children_of(service(ui, "code server").pid) or []:
        if b"grpc" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return 0


def answers(ui: Any) -> bool:
    try:
        return bool(ask(ui.url, PING, timeout_s=5))
    except NotServedError:
        return False


def test_a_service_that_hangs_is_replaced(ui: Any, e2e: Any) -> None:
    """A frozen process is ended, and Dagster started again, by a UI that goes on; the log says so.

    What the process holds answers no more, while the server before it answers health checks. The
    other services are frozen in ``test_soak.py``.
    """
    frozen = e2e.wait_until("the process", lambda: holder(ui))
    os.kill(frozen, signal.SIGSTOP)
    e2e.wait_until("another process", lambda: holder(ui) not in (0, frozen), timeout=240)
    e2e.wait_until("its end", lambda: not alive(frozen))
    e2e.wait_until("the UI", lambda: answers(ui), timeout=120)
    e2e.wait_until("the log", lambda: said(ui, down="code server"), timeout=120)
    assert "does not answer" in said(ui, ended="code server")[0]["why"]
    assert ui.process.poll() is None


def test_the_watch_ends_with_the_ui(ui: Any, e2e: Any) -> None:
    """Nothing that the UI has started outlives it, the watch included."""
    below = descendants(ui.process.pid)
    assert service(ui, "watch").pid in below
    ui.process.send_signal(signal.SIGTERM)
    ui.process.wait(60)
    e2e.wait_until("the end of all", lambda: not any(map(alive, below)), timeout=60)
