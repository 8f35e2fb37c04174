"""Dagster's webserver behind our guard, and ``dagster dev`` with our programs.

::

    python -m research_jobs.orchestration.operations.webserver --workspace workspace.yaml
    python -m research_jobs.orchestration.operations.webserver dev --workspace workspace.yaml

Both take the arguments of Dagster's own programs. The second, with all that it starts, ends when
its stdin closes, as it does when the process at the other end dies.
"""

from __future__ import annotations

import argparse
import atexit
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse

from research_jobs.errors import ResearchJobsError
from research_jobs.hosts import Authority, KnownHosts, address, is_everywhere
from research_jobs.orchestration.compat.webserver import (
    CODE_SERVER,
    DAEMON,
    WEBSERVER,
    replace_programs,
    wrap_applications,
)
from research_jobs.orchestration.model.addresses import REPORT_LINKS, public_addresses
from research_jobs.orchestration.operations import code_server, daemon
from research_jobs.orchestration.operations.guard import Application, Guard, Receive, Scope, Send
from research_jobs.project import UI_PORT, Project, find_project
from research_jobs.resident.services import OWNER_VARIABLE, register

__all__ = ["REPORTS_PORT_VARIABLE", "ReportLinks", "main"]

REPORTS_PORT_VARIABLE = "RESEARCH_JOBS_UI_REPORTS_PORT"
"""Set by ``research-jobs ui`` for its webserver: where it serves the reports."""

# Seconds that Dagster gets to end its programs in order.
STOP_S = 20.0


class ReportLinks:
    """Leads links to reports to where they are served now.

    Runs store their report's path only. Which server shows it is known when somebody follows the
    link: ports change, and another project may be served tomorrow where this one is today.

    Parameters
    ----------
    app : callable
        What answers everything else.
    base : str or None
        Where a proxy shows the reports.
    port : int or None
        Else: the port of this machine that serves them.
    """

    def __init__(self, app: Application, base: str | None, port: int | None) -> None:
        self._app = app
        self._base = base
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a link to a report, or pass the request on."""
        path: str = scope["path"] if scope["type"] == "http" else ""
        if not path.startswith(REPORT_LINKS):
            await self._app(scope, receive, send)
            return
        rest = quote(path.removeprefix(REPORT_LINKS))
        base = self._base
        host = Authority.parse(Headers(scope=scope).get("host", ""))
        if base is None and self._port is not None and host is not None:
            # By the name that the reader used, which is one that reaches this machine.
            base = address(host.name, self._port)
        if base is not None:
            await RedirectResponse(f"{base.rstrip('/')}/{rest}", 302)(scope, receive, send)
            return
        place = PurePosixPath("reports", unquote(rest))
        text = f"Nobody serves the reports here. This one is {place}, below the project's folder.\n"
        await PlainTextResponse(text, 404)(scope, receive, send)


def _project() -> Project | None:
    try:
        return find_project()
    except ResearchJobsError:
        return None


def _address(words: Sequence[str]) -> str:
    """Where the webserver listens, as its arguments say."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--host", "-h", default="127.0.0.1")
    parser.add_argument("--port", "-p", type=int, default=UI_PORT)
    known, _ = parser.parse_known_args(words)
    return address("localhost" if is_everywhere(known.host) else known.host, known.port)


def _end_with_stdin() -> None:
    """End this program, and its process group, when stdin closes."""
    stdin = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # A shell starts what is in its background with the signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait() -> None:
        while os.read(stdin, 4096):
            pass
        atexit.register(os.killpg, 0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(STOP_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="stdin", daemon=True).start()


def main(words: Sequence[str]) -> None:
    """Run Dagster's program with these arguments, guarded.

    Parameters
    ----------
    words : sequence of str
        ``dev`` first for ``dagster dev``.
    """
    if words[:1] == ["dev"]:
        os.environ[OWNER_VARIABLE] = str(os.getpid())
        _end_with_stdin()
        replace_programs(
            {WEBSERVER: __spec__.name, DAEMON: daemon.__name__, CODE_SERVER: code_server.__name__}
        )
        sys.argv = ["dagster", *words]
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
        return
    project = _project()
    if project is not None:
        register(project, "webserver", _address(words))
    ui, reports = public_addresses(project)
    port = os.environ.pop(REPORTS_PORT_VARIABLE, None)

    def wrap(app: Application, host: str) -> Guard:
        links = ReportLinks(app, reports, int(port) if port else None)
        return Guard(links, KnownHosts.of(host, [ui]))

    wrap_applications(wrap)
    sys.argv = ["dagster-webserver", *words]
    runpy.run_module("dagster_webserver", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
