"""Keeps ``dagster dev`` while somebody wants it.

``python -m research_jobs.cli.keeper SECONDS COMMAND...``

It starts the command and ends it, with everything that it has started, when its own stdin is at
its end. Whoever holds the other end of that pipe need not say so: dying is enough, even by SIGKILL.
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

# Seconds between two looks, where the end of a process wakes nobody.
_LOOK = 0.5


def main(words: Sequence[str]) -> int:
    """Start the command, wait, end it.

    Parameters
    ----------
    words : sequence of str
        The seconds that it gets to stop by itself, and the command, which has to understand
        Dagster's ``--shutdown-pipe``.

    Returns
    -------
    int
        The command's exit code.
    """
    patience, command = float(words[0]), words[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not ignored: that would be inherited, and Dagster would then not stop when told to.
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
    # What has a session of its own there (notebooks) ends with its worker.
    processes.signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until nobody wants it any more, or it has ended by itself."""
    ended = processes.open_process(process.pid)
    watched = [descriptor for descriptor in (0, ended) if descriptor is not None]
    while process.poll() is None:
        if 0 in select.select(watched, [], [], None if ended is not None else _LOOK)[0]:
            return


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
