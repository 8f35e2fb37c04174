"""``research-jobs watch``: restarts services that are dead, and has somebody told what is wrong."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from types import FrameType

from research_jobs.project import find_project

__all__ = ["add_arguments", "run"]

# Seconds between two looks at whether another watch has ended.
_POLL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--with-stdin", action="store_true", help="end when stdin is closed")


def run(arguments: argparse.Namespace) -> int:
    """Look until a signal comes."""
    from research_jobs.notify.courier import open_watch_lock, take
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
    with open_watch_lock(project) as lock:
        if take(lock):
            _say(f"watches {project.root}")
        else:
            _say(f"another one watches {project.root}; this one waits for its end")
            while not take(lock):
                manager.tell("WATCHDOG=1")
                if stop.wait(_POLL_S):
                    return 0
            _say(f"watches {project.root} now")
        register(project, "watch")
        Watch(project, say=_say).run(stop, lambda: manager.tell("WATCHDOG=1"))
    sys.stdout.flush()
    # A look that hangs does not keep the process.
    os._exit(0)


def _say(line: str) -> None:
    print(f"research-jobs watch: {line}", flush=True)


def _end_with_stdin(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()
