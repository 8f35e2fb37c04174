"""Memory limits of runs that a host forks, where the host's unit has a cgroup delegated to it.

Few machines delegate one to a person's shell: ``make test-cgroup`` boots a Linux of its own.
"""

from __future__ import annotations

import signal

import pytest
from hosted import Hosted, wait_until

from research_jobs.runtime.memory import delegated_cgroup

GRABS = """
# %% Take memory as fast as it goes
import time
from pathlib import Path

Path("began").write_text("")
while not Path("go").exists():
    time.sleep(0.02)
blocks = [b"x" * (8 << 20) for _ in range(256)]
"""


@pytest.mark.parametrize("host_lives", [True, False])
def test_row_3_limit_that_the_kernel_holds(own: Hosted, *, host_lives: bool) -> None:
    """The kernel holds the limit of a run that the host forked, also when the host is gone."""
    base = delegated_cgroup()
    if base is None:
        pytest.skip("no cgroup of version 2 is delegated to us: try `make test-cgroup`")
    own.write("grabs", GRABS)
    own.manifest("notebooks: {grabs: {memory: 300MiB}}")
    own.start()
    run = own.launch()
    began = own.root / "notebooks" / "began"
    wait_until(lambda: began.exists() or own.runs()[0].is_finished)
    assert began.exists(), (own.events(run), own.log.read_text())
    assert len(list(base.glob("research_jobs-*"))) == 1
    if not host_lives:
        assert own.process is not None
        own.process.send_signal(signal.SIGKILL)
        own.process.wait()
    (own.root / "notebooks" / "go").touch()
    assert own.ended(run).status.value == "FAILURE"
    killer = "the limit is 300 MiB; the kernel's out-of-memory killer ended it"
    assert killer in own.log.read_text()
    wait_until(lambda: not list(base.glob("research_jobs-*")))
