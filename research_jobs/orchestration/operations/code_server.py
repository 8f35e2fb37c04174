"""Dagster's code server, which ends when the process that holds the definitions has ended.

::

    python -m research_jobs.orchestration.operations.code_server --port 4266 ...

It takes the arguments of ``dagster code-server start``. That program passes requests on to a
child. If the child is killed, it answers every request with an error until somebody presses
"Reload". Whoever starts this one again when it has ended, as systemd does, needs nobody.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.project import find_project
from research_jobs.resident.services import register
from research_jobs.runtime.processes import alive, descendants

__all__ = ["main"]

DEFINITIONS = "research_jobs.definitions"

# Seconds from the start of the child to the first look, and from the end of one to the next look.
_START = 3.0
_PAUSE = 1.0
# How long the server may take to end, seconds.
_PATIENCE = 10.0


def main(arguments: Sequence[str]) -> None:
    """Run ``dagster code-server start`` with some arguments, and end with its children.

    Parameters
    ----------
    arguments : sequence of str
    """
    if sys.platform == "linux":
        started = threading.Event()

        def notice(event: str, details: tuple[Any, ...]) -> None:
            # Libraries start and end other programs while they are imported.
            if event == "subprocess.Popen" and "grpc" in details[1]:
                started.set()

        sys.addaudithook(notice)
        threading.Thread(
            target=_end_with_children, args=(started,), name="children", daemon=True
        ).start()
    _register(arguments)
    sys.argv[:] = ["dagster", "code-server", "start", *arguments]
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


def _register(arguments: Sequence[str]) -> None:
    """Say where the project's own definitions are served."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--host", "-h", default="localhost")
    parser.add_argument("--port", "-p")
    parser.add_argument("--socket", "-s")
    parser.add_argument("--module-name", "-m")
    known, _ = parser.parse_known_args(arguments)
    if known.module_name != DEFINITIONS:
        return
    with suppress(ResearchJobsError):
        address = f"unix:{known.socket}" if known.socket else f"{known.host}:{known.port}"
        register(find_project(), "code server", address)


def _end_with_children(started: threading.Event) -> None:
    started.wait()
    time.sleep(_START)
    while any(map(alive, descendants(os.getpid()))):
        with suppress(ChildProcessError):
            # Returns when one has ended, and leaves its status to the server. A reload starts the
            # next one before it ends the last.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        time.sleep(_PAUSE)
    sys.stderr.write("The process that held the definitions has ended, so the code server ends.\n")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
