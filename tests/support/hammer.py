"""The same work in many threads of several processes at once."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable


def hammer(work: Callable[[int], None], *, processes: int = 4, threads: int = 8) -> list[str]:
    """Call `work` with a number of its own in every thread, and return what failed.

    Parameters
    ----------
    work : callable
        Raises when something is wrong.
    processes, threads : int
        Threads are those of each process; processes are forks of this one.

    Returns
    -------
    list of str
        One traceback for each call that failed.
    """
    readers = [_fork(work, number * threads, threads) for number in range(processes)]
    found: list[str] = []
    for pid, reader in readers:
        with os.fdopen(reader, "rb") as stream:
            text = stream.read()
        os.waitpid(pid, 0)
        found += json.loads(text) if text else ["a process ended without an answer"]
    return found


def _fork(work: Callable[[int], None], first: int, threads: int) -> tuple[int, int]:
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        failures = _in_threads(work, first, threads)
        with os.fdopen(writer, "wb") as stream:
            stream.write(json.dumps(failures).encode())
    finally:
        os._exit(0)


def _in_threads(work: Callable[[int], None], first: int, threads: int) -> list[str]:
    sys.setswitchinterval(1e-4)
    failures: list[str] = []
    begin = threading.Barrier(threads)

    def call(number: int) -> None:
        begin.wait()
        try:
            work(number)
        except BaseException:  # noqa: BLE001 - handed to the test
            failures.append(traceback.format_exc())

    started = [threading.Thread(target=call, args=(first + n,)) for n in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return failures
