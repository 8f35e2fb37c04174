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
    """A process that has gone neither is an error nor keeps a signal from those behind it."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    living = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2)]
    processes.signal_all([gone.pid, living[0].pid], signal.SIGTERM)
    for group in (gone.pid, living[1].pid):
        processes.signal_group(group, signal.SIGUSR1)
    assert [process.wait(60) for process in living] == [-signal.SIGTERM, -signal.SIGUSR1]


def test_signal_to_a_group_reaches_all_of_it() -> None:
    """What the leader of a group has started gets the group's signal too."""
    leader = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True)
    (child,) = wait_until(lambda: processes.descendants(leader.pid))
    processes.signal_group(leader.pid, signal.SIGKILL)
    assert leader.wait(60) == -signal.SIGKILL
    wait_until(lambda: not processes.alive(child))


NAMES = """
import os, sys
from research_jobs.runtime.processes import command_of, name_process
for name, command in (("a name", "a command"), ("n" * 40, "c" * 4000), ("", "")):
    name_process(name, command)
    print(open("/proc/self/comm").read().strip(), command_of(os.getpid()), sep="|")
assert sys.orig_argv[-1] == "the last of the arguments", sys.orig_argv
"""


def test_names_of_threads_that_are_cut() -> None:
    """A thread's name that the kernel cut within a character is a name all the same."""
    code = (
        "import ctypes, threading, research_jobs.runtime.processes as processes\n"
        "ended = threading.Event()\n"
        "def work():\n"
        "    ctypes.CDLL(None).prctl(15, 'xxxxxxxxxxxxxx\\xe9'.encode(), 0, 0, 0)\n"
        "    begun.set()\n"
        "    ended.wait()\n"
        "begun = threading.Event()\n"
        "threading.Thread(target=work).start()\n"
        "begun.wait()\n"
        "print(ascii(processes.thread_names()))\n"
        "ended.set()\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "['xxxxxxxxxxxxxx\\ufffd']\n"


def test_names() -> None:
    """A process shows the name and the command that it was given, cut to the room there is."""
    arguments = [sys.executable, "-c", NAMES, "the last of the arguments"]
    lines = subprocess.run(
        arguments, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert lines[0] == "a name|a command"
    assert lines[1] == f"{'n' * 15}|{'c' * 77}..."
    assert lines[2] == "|"
