"""Process trees: who belongs to one, and what it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from lab import wait_until

from research_jobs.runtime import processes

TREE = """
import os, sys, threading, time
# a child of the main thread, a child of another thread, and a grandchild
os.fork() or time.sleep(600)
def other():
    if os.fork() == 0:
        os.fork() or time.sleep(600)
        time.sleep(600)
thread = threading.Thread(target=other)
thread.start()
time.sleep(600)
"""


@pytest.fixture
def tree() -> object:
    """A process with three descendants."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", TREE], start_new_session=True)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_descendants(tree: subprocess.Popen[bytes]) -> None:
    """Children of every thread, and their children, are found; both ways of looking agree."""
    found = wait_until(lambda: len(pids := processes.descendants(tree.pid)) == 3 and sorted(pids))
    assert found == sorted(processes._descendants_by_scan(tree.pid))
    assert sorted([tree.pid, *found]) == sorted(processes.session_members(tree.pid))


def test_memory(tree: subprocess.Popen[bytes]) -> None:
    """Memory of a tree is that of its processes; shared pages count once where it matters."""
    wait_until(lambda: len(processes.descendants(tree.pid)) == 3)
    pids = [tree.pid, *processes.descendants(tree.pid)]
    seen = processes.tree_memory(pids)
    assert seen.resident >= seen.held > 0
    assert 0 < processes.shared_memory(pids) <= seen.held
    assert processes.tree_memory([2**22 + 1]).resident == 0


def test_end_of_a_process() -> None:
    """A descriptor tells the end of a process; a zombie is not alive."""
    process = subprocess.Popen(["sleep", "600"])
    descriptor = processes.open_process(process.pid)
    assert descriptor is not None
    assert processes.alive(process.pid)
    wait_until(lambda: processes.command_of(process.pid) == "sleep 600")
    process.kill()
    import select

    assert select.select([descriptor], [], [], 10)[0]
    wait_until(lambda: not processes.alive(process.pid))
    process.wait()
    assert processes.open_process(process.pid) is None
    assert not processes.alive(process.pid)
    assert processes.command_of(process.pid) == ""
    os.close(descriptor)


def test_signals_to_nobody() -> None:
    """Signalling what has gone is no error."""
    process = subprocess.Popen(["true"])
    process.wait()
    processes.signal_all([process.pid], signal.SIGTERM)
    processes.signal_group(process.pid, signal.SIGTERM)
