"""Start interpreters: for a template, and for each run that is started cold."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError

__all__ = [
    "READ_AT_START",
    "StartError",
    "fork_is_possible",
    "start_cold",
    "start_interpreter",
    "startup_environment",
    "wait_readable",
]

_BOOTSTRAP = str(Path(__file__).resolve().parents[1] / "runtime" / "bootstrap.py")

# Variables that interpreters and libraries read once, when they start or load.
READ_AT_START = (
    "ARROW_",
    "BLIS_",
    "GOTO_",
    "LANG",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "MPLCONFIGDIR",
    "NUMBA_",
    "NUMEXPR_",
    "NPY_",
    "OMP_",
    "OPENBLAS_",
    "POLARS_",
    "PYTHON",
    "VECLIB_",
)


class StartError(ResearchJobsError):
    """An interpreter could not be started for a run."""


def startup_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are read only once, when an interpreter or library starts."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def start_cold(
    python: str, stdout: int, stderr: int
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start an interpreter as the guardian of one run.

    Returns
    -------
    (socket, Popen)
        The connection to it, and its process, which the caller reaps after the run.

    Raises
    ------
    StartError
        When the interpreter does not exist or cannot be executed.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = start_interpreter(
                python,
                ("guardian", theirs.fileno(), os.getpid(), stdout, stderr),
                pass_fds=(theirs.fileno(), stdout, stderr),
                stderr=stderr,
            )
        except BaseException:
            ours.close()
            raise
    return ours, process


def start_interpreter(
    python: str, arguments: Sequence[Any], *, pass_fds: Sequence[int], stderr: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [python, _BOOTSTRAP, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=pass_fds,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(
            f"interpreter {python} cannot be started: {error.strerror or error}",
            hint="Check `python:` in the manifest.",
        ) from error


def wait_readable(sock: socket.socket, seconds: float | None) -> bool:
    """Whether something arrives within so many seconds."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if poller.poll(None if left is None else left * 1000 + 1):
            return True
        if end is not None and time.monotonic() >= end:
            return False


def fork_is_possible() -> bool:
    """Whether templates work here."""
    return sys.platform == "linux"
