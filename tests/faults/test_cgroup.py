"""Row 3 where the kernel holds the limit: in a cgroup of version 2 that is delegated to us.

Few machines delegate one to a person's shell, so these are skipped there. ``make test-cgroup``
boots a Linux of its own for them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab import Lab

from research_jobs.outcome import State
from research_jobs.runtime.memory import delegated_cgroup

LIMIT = 300 << 20
BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])

GRABS = """
# %% Take memory as fast as it goes
import os
for _ in range(int(os.environ["PROCESSES"]) - 1):
    if os.fork() == 0:
        break
blocks = []
while True:
    blocks.append(b"x" * (8 << 20))
"""
DAEMON_GRABS = """
# %% Let a daemon take memory
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    blocks = []
    while True:
        blocks.append(b"x" * (8 << 20))
time.sleep(600)
"""
MODEST = """
# %% Stay below the limit while a neighbour does not
import os, time
block = b"x" * (64 << 20)
while not os.path.exists(os.environ["LAB_ROOT"] + "/go"):
    time.sleep(0.05)
total = len(block)
"""


@pytest.fixture(autouse=True)
def base() -> Iterator[Path]:
    """The delegated cgroup; asserts that a run's own is gone with it."""
    found = delegated_cgroup()
    if found is None:
        pytest.skip("no cgroup of version 2 is delegated to us: try `make test-cgroup`")
    yield found
    assert [folder.name for folder in found.glob("research_jobs-*")] == []


@BOTH
@pytest.mark.parametrize("processes", [1, 3])
def test_row_3_limit_that_the_kernel_holds(lab: Lab, processes: int, isolation: str) -> None:
    """However fast a tree takes memory, it gets no more than its limit, and learns why."""
    lab.write("grabs", GRABS)
    outcome = lab.run(
        "grabs",
        memory_bytes=LIMIT,
        environment={"PROCESSES": str(processes)},
        isolation=isolation,
    )
    assert outcome.result.state is State.OUT_OF_MEMORY, outcome.headline
    assert outcome.headline == (
        'notebooks/grabs.py, cell 1 "Take memory as fast as it goes": out of memory: 300 MiB used, '
        "the limit is 300 MiB; the kernel's out-of-memory killer ended it"
    )
    assert outcome.result.peak_memory_bytes >= LIMIT


def test_row_3_a_daemon_counts(lab: Lab) -> None:
    """What a process of another session takes counts too, and the whole run ends for it."""
    lab.write("daemon_grabs", DAEMON_GRABS)
    outcome = lab.run("daemon_grabs", memory_bytes=LIMIT)
    assert outcome.result.state is State.OUT_OF_MEMORY, outcome.headline


def test_row_3_neighbours_are_unaffected(lab: Lab) -> None:
    """A run that is over its limit costs the run beside it nothing."""
    lab.write("grabs", GRABS)
    lab.write("modest", MODEST)
    with ThreadPoolExecutor() as pool:
        modest = pool.submit(lab.run, "modest", memory_bytes=LIMIT)
        grabs = lab.run("grabs", memory_bytes=LIMIT, environment={"PROCESSES": "1"})
        (lab.root / "go").touch()
        assert modest.result().result.state is State.SUCCEEDED
    assert grabs.result.state is State.OUT_OF_MEMORY


def test_row_3_limit_and_timeout(lab: Lab) -> None:
    """A tree that forks all the time is ended at its timeout, with its cgroup."""
    outcome = lab.run("forks_all_the_time", memory_bytes=LIMIT, timeout_s=3.0)
    assert outcome.result.state is State.TIMED_OUT, outcome.headline


def test_no_limit_no_cgroup(lab: Lab, base: Path) -> None:
    """A run without a limit stays in the cgroup of its worker."""
    lab.write(
        "tells",
        textwrap.dedent(
            """
            # %% Where am I?
            print(open("/proc/self/cgroup").read())
            """
        ),
    )
    own = Path("/proc/self/cgroup").read_text()
    assert lab.run("tells").stdout.decode().strip() == own.strip()
    limited = lab.run("tells", memory_bytes=LIMIT).stdout.decode()
    assert f"/{base.name}/research_jobs-" in limited
