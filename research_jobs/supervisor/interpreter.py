"""Start interpreters: for a template, and for each run that is started cold."""

from __future__ import annotations

import errno
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
        When the interpreter does not exist or cannot be executed, or the kernel refuses.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise _start_error(python, error) from error
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
        raise _start_error(python, error) from error


def _start_error(python: str, error: OSError) -> StartError:
    refused = error.errno in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return StartError(
        f"interpreter {python} cannot be started: {error.strerror or error}",
        hint="Run fewer notebooks at once, or raise the limit (ulimit -a)."
        if refused
        else "Check `python:` in the manifest.",
    )


def wait_readable(source: socket.socket | int, seconds: float) -> bool:
    """Whether something arrives on a socket or descriptor within so many seconds."""
    poller = select.poll()
    poller.register(source, select.POLLIN)
    end = time.monotonic() + seconds
    while True:
        left = max(0.0, end - time.monotonic())
        if poller.poll(left * 1000 + 1):
            return True
        if time.monotonic() >= end:
            return False


def fork_is_possible() -> bool:
    """Whether templates work here."""
    return sys.platform == "linux"
