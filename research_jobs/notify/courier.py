"""Delivers what waits where no watch runs: ``python -m research_jobs.notify.courier ROOT``.

A run starts it when it has left a report. Whoever holds the watch's lock delivers, so there is one
at a time; what a courier could not deliver within a minute waits for the next one, or for a watch.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from typing import IO, Any

from research_jobs.filesystem import open_private
from research_jobs.manifest.load import load_manifest
from research_jobs.notify.notifier import Notifier
from research_jobs.notify.reports import ready_reports
from research_jobs.project import Project, find_project

__all__ = ["open_watch_lock", "start_courier", "take"]

LONGEST_S = 60.0


def open_watch_lock(project: Project) -> IO[Any]:
    """The file whose lock makes a process the one that delivers for a project."""
    return open_private(project.make_state_folder() / "watch.lock", "ab")


def take(lock: IO[Any]) -> bool:
    """Become the one that delivers: two would say everything twice."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def start_courier(project: Project) -> bool:
    """Start a process that delivers what waits, unless one runs.

    Returns
    -------
    bool
        Whether it was started.
    """
    with open_watch_lock(project) as lock:
        if not take(lock):
            return False
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "research_jobs.notify.courier", str(project.root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=project.root,
        start_new_session=True,
    )
    process.returncode = 0  # nobody waits for it
    return True


def deliver(project: Project) -> None:
    """Deliver what waits until nothing is left to try soon, or another process does."""
    while True:
        with open_watch_lock(project) as lock:
            if not take(lock):
                return  # it looks at what was left when it is through
            before = ready_reports(project)
            _deliver(project)
        if all(report in before for report in ready_reports(project)):
            return  # what stays, as on a full disk, is for the next one


def _deliver(project: Project) -> None:
    manifest = load_manifest(project, ())
    notifier = Notifier(project)
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end and notifier.deliver(manifest, time.time()):
        notifier.wait(1.0)
        time.sleep(0.2)
    notifier.close()


if __name__ == "__main__":
    deliver(find_project(sys.argv[1]))
