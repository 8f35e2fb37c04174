"""A run that waits costs nothing, whatever it waits for: CPU time of its process, not wall time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from research_jobs.orchestration.model.names import NOTEBOOKS_POOL

WINDOW_S = 3.0
# Of one core. The goal is 0.01 on a machine with nothing else to do; one that tests everything at
# once is two to three times slower. What looks again and again takes 0.1 and more.
AT_MOST = 0.04

FAILS_ONCE = """
# %% Fail, and be tried again in five seconds
import pathlib
tried = pathlib.Path(__file__).with_name("tried")
if not tried.exists():
    tried.touch()
    raise OSError("not yet")
"""
LONG = """
# %% Wait
import pathlib, time
pathlib.Path(__file__).with_name("began").touch()
while not pathlib.Path(__file__).with_name("go").exists():
    time.sleep(0.05)
"""


class Watch(threading.Thread):
    """Takes the CPU time of this process over a window that begins when the run waits."""

    def __init__(self, waits: Callable[[], Any], then: Callable[[], Any]) -> None:
        super().__init__()
        self.waits = waits
        self.then = then
        self.share: float | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while not self.waits():
            if self.over.wait(0.05):
                return
        self.over.wait(0.5)  # what led to the waiting is done by then
        began, spent = time.monotonic(), time.process_time()
        self.over.wait(WINDOW_S)
        self.share = (time.process_time() - spent) / (time.monotonic() - began)
        self.then()


def watched(lab: Any, waits: Callable[[], Any], then: Callable[[], Any] = lambda: None) -> float:
    """The share of a core that a run of notebook `a` takes while it waits; it has to succeed."""
    watch = Watch(waits, then)
    watch.start()
    try:
        assert lab.materialize("a").success
    finally:
        watch.over.set()
        watch.join()
    assert watch.share is not None, "the run was over before it had waited"
    return watch.share


def happened(lab: Any, kind: str) -> bool:
    """Whether a run has an event of a kind."""
    return any(
        entry.dagster_event is not None and entry.dagster_event.event_type_value == kind
        for run in lab.instance.get_runs()
        for entry in lab.instance.all_logs(run.run_id)
    )


def test_for_a_retry(any_lab: Any) -> None:
    """Between two attempts."""
    retries = "notebooks: {a: {retries: {max: 1, delay: 5s}}}\n"
    any_lab.write({"a": FAILS_ONCE}, retries)
    assert watched(any_lab, lambda: happened(any_lab, "STEP_UP_FOR_RETRY")) < AT_MOST


def test_for_a_slot(any_lab: Any) -> None:
    """While another run holds the only slot of the pool."""
    storage = any_lab.instance.event_log_storage
    storage.set_concurrency_slots(NOTEBOOKS_POOL, 1)
    assert storage.claim_concurrency_slot(NOTEBOOKS_POOL, "another-run", "step").is_claimed
    any_lab.write({"a": "# %%\nx = 1\n"}, "defaults: {concurrency: 1}\n")
    share = watched(
        any_lab,
        lambda: storage.get_concurrency_info(NOTEBOOKS_POOL).pending_step_count,
        lambda: storage.free_concurrency_slot_for_step("another-run", "step"),
    )
    assert share < AT_MOST


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_for_a_long_notebook(lab: Any, isolation: str) -> None:
    """While a notebook runs."""
    lab.write({"a": LONG}, f"notebooks: {{a: {{isolation: {isolation}}}}}\n")
    notebooks = lab.root / "notebooks"
    share = watched(lab, (notebooks / "began").exists, (notebooks / "go").touch)
    assert share < AT_MOST
