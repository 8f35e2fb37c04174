"""``research-jobs ui``: Dagster's UI and daemon, and the reports, until Ctrl-C.

The same as ``dagster dev`` in the project's root, with a guard before the UI
(`research_jobs.orchestration.operations.guard`) and the server of the reports beside it. What
Dagster says goes to ``.research_jobs/ui.log``, so that the two addresses stay in sight.
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
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, NoReturn, Self

from research_jobs.cli.output import complain
from research_jobs.errors import ProjectError
from research_jobs.filesystem import open_private
from research_jobs.hosts import address, is_everywhere
from research_jobs.process import gc_resume
from research_jobs.project import (
    PROJECT_VARIABLE,
    REPORTS_PORT,
    UI_PORT,
    Project,
    find_project,
)
from research_jobs.runtime.processes import signal_group

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.reloading import CodeWatch
    from research_jobs.report.server import ReportServer

__all__ = ["add_arguments", "choose_port", "run"]

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
PAUSE_S = 5.0
# A Dagster that ends sooner than this, seconds, so often in a row, would only end again.
SHORT_S = 30.0
MOST_SHORT = 3
LAST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=_port, help=f"port of the UI (default: {UI_PORT}, or the next free one)"
    )
    parser.add_argument(
        "--reports-port",
        type=_port,
        help=f"port of the reports (default: {REPORTS_PORT}, or the next free one)",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print Dagster's output instead of writing it to a log file",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LAST_PORT):
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (1 to {LAST_PORT})")
    return int(text)


class _StopError(Exception):
    """Somebody asked us to stop."""


def run(arguments: argparse.Namespace) -> int:
    """Start both, print where they are, wait, stop both."""
    project = find_project(arguments.project)
    host: str = arguments.host
    port = choose_port(host, arguments.port, UI_PORT)
    reports_port = choose_port(host, arguments.reports_port, REPORTS_PORT, taken=port)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_stop)
    log = project.state / "ui.log"
    with contextlib.ExitStack() as stack:
        try:
            project.make_state_folder()
            sink = None if arguments.verbose else stack.enter_context(open_private(log, "ab"))
            if sink is not None:
                sink.truncate(0)  # appended to, so that the nightly job can cut it meanwhile
            print("Starting…", flush=True)
            stack.enter_context(_serve_reports(project, host, reports_port, port))
            environment = _environment(project, reports_port)
            command = _Command(project, environment, sink)
            stack.enter_context(_Kept(command, "host", "--patience", str(STOP_TIMEOUT_S)))
            code_watch = _code_watch(project, address(_reachable(host), port))
            dagster = stack.enter_context(_Dagster(command, host, port))
            dagster.wait_until_up()
            print(f"Dagster's UI   {address(host, port)}")
            print(f"Reports        {address(host, reports_port)}")
            if sink is not None:
                print(f"Log            {project.display(log)}")
            print("Ctrl-C stops both.", flush=True)
            gc_resume()
            stack.enter_context(code_watch)
            stack.enter_context(_Kept(command, "watch"))
            dagster.keep()
        except (KeyboardInterrupt, _StopError):
            print("Stopping…", flush=True)
            return 0
        except _DiedError as died:
            complain(f"research-jobs ui: {died}")
            if not arguments.verbose:
                complain(_tail(log))
            return 1
        except OSError as error:
            raise ProjectError(_headline(project, error)) from error


def _headline(project: Project, error: OSError) -> str:
    if error.filename is None:
        return str(error)
    return f"{project.display(os.fsdecode(error.filename))} cannot be written: {error.strerror}"


def _environment(project: Project, reports_port: int) -> dict[str, str]:
    """The variables of Dagster's processes and of the host."""
    from research_jobs.orchestration.model.instance import service_home
    from research_jobs.orchestration.operations import webserver

    home = service_home(project)
    return {
        **os.environ,
        PROJECT_VARIABLE: str(project.root),
        webserver.REPORTS_PORT_VARIABLE: str(reports_port),
        **({"DAGSTER_HOME": home} if home else {}),
    }


@dataclass(frozen=True)
class _Command:
    """How the processes below this one are started; each ends when its stdin closes."""

    project: Project
    environment: Mapping[str, str]
    sink: IO[bytes] | None

    def start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=self.project.root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=self.sink,
            stderr=self.sink,
            # Ctrl-C goes to this process, which passes it on.
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


class _Kept:
    """One of our long-lived commands, while the context lasts; started again if it ends.

    It ends when our end of its standard input closes, as it does when we die. There are none on a
    system without hosts. A host ends at once where another one runs for this project.
    """

    def __init__(self, command: _Command, *words: str) -> None:
        self._command = command
        self._words = words
        self._stopping = threading.Event()
        # With this held, either no process is there to be stopped, or one that is known.
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            threading.Thread(target=self._keep, name=self._words[0], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._starting:
            process = self._process
        if process is not None:
            _end(process)

    def _keep(self) -> None:
        """Start it, and again some seconds after each end."""
        root = str(self._command.project.root)
        name, *options = self._words
        words = (name, "--with-stdin", "--project", root, *options)
        while True:
            with self._starting:
                if self._stopping.is_set():
                    return
                process = self._command.start("research_jobs.cli.main", *words)
                self._process = process
            process.wait()
            self._stopping.wait(PAUSE_S)


class _Dagster:
    """``dagster dev`` on the project's instance and workspace, while the context lasts.

    It ends when our end of its standard input closes, as it does when we die.
    """

    def __init__(self, command: _Command, host: str, port: int) -> None:
        self._command = command
        self._host = host
        self._port = port

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    def _start(self) -> None:
        from research_jobs.orchestration.model.instance import workspace_file
        from research_jobs.orchestration.operations import webserver

        self._started = time.monotonic()
        self._process = self._command.start(
            webserver.__name__,
            *("dev", "--workspace", str(workspace_file(self._command.project))),
            *("--host", self._host, "--port", str(self._port), "--log-level", "warning"),
        )

    def keep(self) -> NoReturn:
        """Wait; start it again when it ends, as when one of its parts was killed.

        Raises
        ------
        _DiedError
            When it does not last.
        """
        short = 0
        while True:
            self._process.wait()
            signal_group(self._process.pid, signal.SIGKILL)
            # Killed while it starts, it may still be well; what ends each time is not.
            short = short + 1 if time.monotonic() - self._started < SHORT_S else 0
            if short == MOST_SHORT:
                raise self._died()
            print(f"{self._died()}; it is started again", flush=True)
            self._start()

    def wait_until_up(self) -> None:
        """Wait until the webserver answers.

        Raises
        ------
        _DiedError
            When it ends instead, or does not answer in time, or is not guarded.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._died()
            connection = http.client.HTTPConnection(_reachable(self._host), self._port, timeout=5)
            try:
                connection.request("GET", "/server_info")
                guarded = connection.getresponse().headers["X-Frame-Options"] is not None
            except OSError:
                time.sleep(0.2)
            else:
                if guarded:
                    return
                raise _DiedError(
                    "this version of Dagster cannot be guarded; run `dagster dev` without the guard"
                )
            finally:
                connection.close()
        raise _DiedError(
            f"nothing answers on port {self._port} after {START_TIMEOUT_S:.0f} seconds"
        )

    def _died(self) -> _DiedError:
        return _DiedError(f"Dagster ended with exit code {self._process.returncode}")


def _serve_reports(project: Project, host: str, port: int, ui_port: int) -> ReportServer:
    """Serve the reports from a thread of this process: they are files with few readers."""
    from research_jobs.orchestration.model.addresses import public_addresses
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import open_instance
    from research_jobs.orchestration.operations.morning import look_and_write
    from research_jobs.report.making import make_changes
    from research_jobs.report.server import ReportServer

    with open_instance(project) as instance:
        look_and_write(instance, load_catalog(project))
    ui, reports = public_addresses(project)
    public = (reports,) if reports else ()
    return ReportServer(
        project.reports,
        host,
        port,
        public=public,
        ui=ui or ui_port,
        make_changes=lambda folder: make_changes(project, folder),
    )


def _code_watch(project: Project, url: str) -> CodeWatch:
    """Has the UI show what changes in the project's files."""
    from research_jobs.orchestration.operations.reloading import CodeWatch

    return CodeWatch(project, url, lambda line: print(line, flush=True))


class _DiedError(Exception):
    """Dagster ended, or is not what we started."""


def _raise_stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _StopError


def choose_port(host: str, wanted: int | None, default: int, *, taken: int | None = None) -> int:
    """The port asked for, or the first free one from the default on.

    Raises
    ------
    ProjectError
        When the port asked for cannot be had, or none is free.
    """
    if wanted is not None:
        if wanted == taken:
            raise ProjectError(
                f"port {wanted} is used twice", hint="The UI and the reports need separate ports."
            )
        why = _try(host, wanted)
        if why is not None:
            raise ProjectError(
                f"port {wanted} of '{host}': {why}", hint="Name another port, or none."
            )
        return wanted
    why = None
    for port in range(default, default + 100):
        if port != taken and (why := _try(host, port)) is None:
            return port
    raise ProjectError(f"no port of '{host}' is free from {default} on: {why}")


def _try(host: str, port: int) -> str | None:
    """Why a server cannot listen there; None where it can."""
    if not host:
        return "The host has no name"  # to a socket, every address of this machine
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _reachable(host: str) -> str:
    """A name under which this machine reaches a server that listens there."""
    return "localhost" if is_everywhere(host) else host


def _tail(path: Path, lines: int = 15) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])
