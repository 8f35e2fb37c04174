"""How a guardian ends a tree: what forks meanwhile is caught."""

from __future__ import annotations

import subprocess
import sys

FORKER = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        break
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""
FREEZER = f"""
import os, signal, subprocess, sys, time
from research_jobs.runtime import processes
from research_jobs.runtime.guarded_run import freeze
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
processes.adopt_orphans()
subprocess.Popen([sys.executable, "-c", {FORKER!r}], start_new_session=True)
while len(processes.descendants(os.getpid())) < 6:
    time.sleep(0.01)
time.sleep(0.2)
freeze(os.getpid(), time.monotonic() + 30)
time.sleep(0.2)
left = processes.descendants(os.getpid())
states = [fields[0] for pid in left if (fields := processes._stat_fields(pid))]
processes.signal_all(left, signal.SIGKILL)
print(states.count(b"T"), sorted(set(states) - set((b"T", b"Z", b"X"))))
"""


def test_frozen_processes_stand_still() -> None:
    """Processes that replace themselves all the time are caught, and stay where they are."""
    done = subprocess.run(
        [sys.executable, "-c", FREEZER], check=True, capture_output=True, text=True, timeout=60
    )
    stopped, others = done.stdout.split(maxsplit=1)
    assert int(stopped) >= 6
    assert others == "[]\n"


ENDER = (
    FREEZER.partition("freeze(os.getpid()")[0]
    + """
from research_jobs.runtime.guarded_run import end_tree
sent, real = [], processes.signal_all
def signal_all(pids, number):
    sent.append((number, {*pids}))
    real(pids, number)
processes.signal_all = signal_all
left = end_tree(os.getpid(), time.monotonic() + 30, lambda: time.sleep(0.05))
stopped = set()
for number, pids in sent:
    if number == signal.SIGSTOP:
        stopped |= pids
    assert number == signal.SIGSTOP or (number == signal.SIGKILL and pids <= stopped), sent
assert any(number == signal.SIGKILL for number, _ in sent)
time.sleep(0.2)
print(left, len(processes.descendants(os.getpid())))
"""
)


def test_a_tree_is_stopped_before_it_is_killed() -> None:
    """No process is killed before all are stopped: those that still ran would fork away."""
    done = subprocess.run(
        [sys.executable, "-c", ENDER], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "0 0\n"


def test_time_is_up() -> None:
    """What cannot be ended in time is counted, and waited for no longer."""
    program = """
import os, subprocess, time
from research_jobs.runtime import processes
from research_jobs.runtime.guarded_run import end_tree
child = subprocess.Popen(["sleep", "600"])
processes.signal_all = lambda *_: None
print(end_tree(os.getpid(), time.monotonic() + 0.2, lambda: time.sleep(0.05)))
child.kill()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "1\n"
