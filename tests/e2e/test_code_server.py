"""The code server of deploy/, and the process below it that holds the definitions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dagster._grpc.client import DagsterGrpcClient

from research_jobs.runtime.processes import children_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks for children in /proc")


@dataclass
class CodeServer:
    """A running one."""

    process: subprocess.Popen[bytes]
    client: DagsterGrpcClient
    log: Path

    def holder(self) -> int:
        """The process that holds the definitions; 0 while there is none."""
        return next(filter(_is_holder, children_of(self.process.pid) or []), 0)

    def answers(self) -> bool:
        try:
            return bool(self.client.list_repositories())
        except Exception:  # noqa: BLE001 - whatever it is, it is no answer
            return False


def _is_holder(pid: int) -> bool:
    with suppress(OSError):
        return b"grpc" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


@pytest.fixture
def code_server(tmp_path: Path, e2e: Any) -> Iterator[CodeServer]:
    """A code server over a small project, which has just been started."""
    project = e2e.write_project(tmp_path / "project", {"one.py": "# %%\nx = 1\n"})
    (tmp_path / "home").mkdir()
    port, log = e2e.free_port(), tmp_path / "log"
    command = [
        *(sys.executable, "-m", "research_jobs.orchestration.operations.code_server"),
        *("--module-name", "research_jobs.definitions", "--location-name", "research_jobs"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = e2e.environment(
        DAGSTER_HOME=str(tmp_path / "home"), RESEARCH_JOBS_PROJECT=str(project)
    )
    with e2e.service(command, cwd=project, env=environment, log=log) as process:
        yield CodeServer(process, DagsterGrpcClient(port=port, host="127.0.0.1"), log)


def test_it_ends_with_the_process_that_holds_the_definitions(
    code_server: CodeServer, e2e: Any
) -> None:
    """When that is killed, the code server ends, to be started again. A reload does not end it."""
    e2e.wait_until("the definitions", code_server.answers)
    first = code_server.holder()
    code_server.client.reload_code(timeout=60)
    second = e2e.wait_until(
        "the next", lambda: code_server.holder() not in (0, first) and code_server.holder()
    )
    e2e.wait_until("the definitions", code_server.answers)
    assert code_server.process.poll() is None
    os.kill(second, signal.SIGKILL)
    code_server.process.wait(60)
    assert "has ended, so the code server ends" in code_server.log.read_text()


def test_it_ends_also_when_that_never_served(code_server: CodeServer, e2e: Any) -> None:
    """A child that is killed at its first moment is noticed too."""
    os.kill(e2e.wait_until("the child", code_server.holder, interval=0.001), signal.SIGKILL)
    code_server.process.wait(60)
    assert "has ended, so the code server ends" in code_server.log.read_text()
