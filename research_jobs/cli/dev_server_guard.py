"""Runs ``dagster dev`` as long as the parent process lives.

``python -m research_jobs.cli.dev_server_guard SECONDS COMMAND...``

It starts the command, and ends it with everything that it has started when its own stdin closes.
So the parent need not do anything: the pipe closes when it dies, even by SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

from research_jobs.runtime import processes

__all__ = ["main"]

# Seconds between two polls, if the end of a process cannot be waited for.
_POLL_S = 0.5


def main(words: Sequence[str]) -> int:
    """Start the command, wait, end it.

    Parameters
    ----------
    words : sequence of str
        The seconds that the command gets to stop by itself, and the command, which must accept
        Dagster's ``--shutdown-pipe``.

    Returns
    -------
    int
        The command's exit code.
    """
    patience, command = float(words[0]), words[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not ignored: the child would inherit that, and Dagster would then not stop on request.
        signal.signal(number, lambda *_: None)
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [*command, "--shutdown-pipe", str(read_end)],
        stdin=subprocess.DEVNULL,
        pass_fds=[read_end],
        start_new_session=True,
    )
    os.close(read_end)
    _wait(process)
    if process.poll() is None:
        # Dagster's own way: it closes its webserver, daemon and code servers in order.
        with contextlib.suppress(OSError):
            os.write(write_end, b"SHUTDOWN\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    # Processes in their own session (notebooks) end with their worker.
    processes.signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait until stdin closes or the process ends."""
    ended = processes.open_process(process.pid)
    watched = [descriptor for descriptor in (0, ended) if descriptor is not None]
    while process.poll() is None:
        if 0 in select.select(watched, [], [], None if ended is not None else _POLL_S)[0]:
            return


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
