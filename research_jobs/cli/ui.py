"""``research-jobs ui``: Dagster's UI and daemon, and the reports, until Ctrl-C.

The same as ``dagster dev`` in the project's root, and the server of the reports beside it. What
Dagster has to say goes to ``.research_jobs/ui.log``, so that the two addresses stay in sight.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from research_jobs.cli.output import complain
from research_jobs.errors import ProjectError
from research_jobs.filesystem import open_private
from research_jobs.process import collect_again
from research_jobs.project import (
    PROJECT_VARIABLE,
    REPORTS_PORT,
    UI_PORT,
    Project,
    find_project,
)

if TYPE_CHECKING:
    from research_jobs.report.server import ReportServer

__all__ = ["add_arguments", "address", "free_port", "run"]

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, help=f"port of the UI (default: {UI_PORT}, or the next free one)"
    )
    parser.add_argument(
        "--reports-port",
        type=int,
        help=f"port of the reports (default: {REPORTS_PORT}, or the next free one)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what Dagster says instead of keeping it"
    )


class _StopError(Exception):
    """Somebody asked us to stop."""


def run(arguments: argparse.Namespace) -> int:
    """Start both, print where they are, wait, stop both."""
    from research_jobs.orchestration.model.addresses import announced

    project = find_project(arguments.project)
    host: str = arguments.host
    port = free_port(host, arguments.port, UI_PORT)
    reports_port = free_port(host, arguments.reports_port, REPORTS_PORT, not_this=port)
    ui_address, reports_address = address(host, port), address(host, reports_port)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_stop)
    log = project.make_state_folder() / "ui.log"
    with contextlib.ExitStack() as stack:
        sink = None if arguments.verbose else stack.enter_context(open_private(log))
        environment = dict(os.environ)
        environment[PROJECT_VARIABLE] = str(project.root)
        try:
            print("Starting…", flush=True)
            stack.enter_context(announced(project, ui=ui_address, reports=reports_address))
            stack.enter_context(_serve_reports(project, host, reports_port))
            dagster = stack.enter_context(_dagster(project, host, port, environment, sink))
            _wait_until_up(host, port, dagster)
            print(f"Dagster's UI   {ui_address}")
            print(f"Reports        {reports_address}")
            if sink is not None:
                print(f"Log            {project.display(log)}")
            print("Ctrl-C stops both.", flush=True)
            collect_again()
            while True:
                _check(dagster)
                time.sleep(0.5)
        except (KeyboardInterrupt, _StopError):
            print("Stopping…", flush=True)
            return 0
        except _DiedError as died:
            complain(f"research-jobs ui: {died}")
            if sink is not None:
                complain(_tail(log))
            return 1


@contextlib.contextmanager
def _dagster(
    project: Project, host: str, port: int, environment: dict[str, str], sink: IO[bytes] | None
) -> Generator[subprocess.Popen[bytes]]:
    """``dagster dev`` on the project's instance and workspace, while the context lasts.

    Its keeper ends it when our end of the pipe is closed, which it is when we die, too.
    """
    from research_jobs.orchestration.model.instance import service_home, workspace_file

    home = service_home(project)
    keeper = subprocess.Popen(
        [
            *(sys.executable, "-m", "research_jobs.cli.keeper", str(STOP_TIMEOUT_S)),
            *(sys.executable, "-m", "dagster", "dev"),
            *("--workspace", str(workspace_file(project))),
            *("--host", host, "--port", str(port), "--log-level", "warning"),
        ],
        cwd=project.root,
        env=environment | ({"DAGSTER_HOME": home} if home else {}),
        stdin=subprocess.PIPE,
        stdout=sink,
        stderr=sink,
        # Ctrl-C is for us, and we pass it on.
        start_new_session=True,
    )
    try:
        yield keeper
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait()


def _serve_reports(project: Project, host: str, port: int) -> ReportServer:
    """The reports, from a thread of this process: they are files, and few ask for them."""
    from research_jobs.orchestration.execution.gallery import list_catalog
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.report.server import ReportServer

    list_catalog(load_catalog(project))
    try:
        return ReportServer(project.reports, host, port)
    except OSError as error:
        raise ProjectError(f"the reports cannot be served on port {port}: {error}") from error


class _DiedError(Exception):
    """Dagster ended, and should not have."""


def _check(dagster: subprocess.Popen[bytes]) -> None:
    if dagster.poll() is not None:
        raise _DiedError(f"Dagster ended with exit code {dagster.returncode}")


def _raise_stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _StopError


def free_port(host: str, wanted: int | None, default: int, *, not_this: int | None = None) -> int:
    """The port asked for, or the first free one from the default on.

    Raises
    ------
    ProjectError
        When the port asked for is taken, or none is free.
    """
    if wanted:
        if not _is_free(host, wanted):
            raise ProjectError(f"port {wanted} is taken", hint="Name another, or none.")
        return wanted
    for port in range(default, default + 100):
        if port != not_this and _is_free(host, port):
            return port
    raise ProjectError(f"no free port from {default} on", hint="Name one with --port.")


def address(host: str, port: int) -> str:
    """What links say for a server that listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound: every address of this machine
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _wait_until_up(host: str, port: int, dagster: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        _check(dagster)
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", "/server_info")
            connection.getresponse()
        except OSError:
            time.sleep(0.2)
        else:
            return
        finally:
            connection.close()
    raise _DiedError(f"nothing answers on port {port} after {START_TIMEOUT_S:.0f} seconds")


def _tail(path: Path, lines: int = 15) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])
