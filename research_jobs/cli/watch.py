"""``research-jobs watch``: restarts services that are dead, and has somebody told what is wrong."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import threading
from types import FrameType
from typing import IO, Any

from research_jobs.filesystem import open_private
from research_jobs.project import find_project

__all__ = ["add_arguments", "run"]

# Seconds between two looks at whether another watch has ended.
_POLL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--with-stdin", action="store_true", help="end when stdin is closed")


def run(arguments: argparse.Namespace) -> int:
    """Look until a signal comes."""
    from research_jobs.orchestration.model.instance import enter_project
    from research_jobs.orchestration.operations.watch import Watch
    from research_jobs.resident.manager import Manager
    from research_jobs.resident.services import register

    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    manager = Manager()
    project = find_project(arguments.project)
    enter_project(project)
    if arguments.with_stdin:
        threading.Thread(target=_end_with_stdin, args=(stop,), daemon=True).start()
    manager.tell("READY=1")
    with open_private(project.make_state_folder() / "watch.lock", "ab") as lock:
        if _take(lock):
            _say(f"watches {project.root}")
        else:
            _say(f"another one watches {project.root}; this one waits for its end")
            while not _take(lock):
                manager.tell("WATCHDOG=1")
                if stop.wait(_POLL_S):
                    return 0
            _say(f"watches {project.root} now")
        register(project, "watch")
        Watch(project, say=_say).run(stop, lambda: manager.tell("WATCHDOG=1"))
    sys.stdout.flush()
    # A look that hangs does not keep the process.
    os._exit(0)


def _take(lock: IO[Any]) -> bool:
    """Become the one watch of the project: two would say everything twice."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(line: str) -> None:
    print(f"research-jobs watch: {line}", flush=True)


def _end_with_stdin(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()
