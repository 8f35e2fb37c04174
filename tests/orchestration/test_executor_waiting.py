"""A run that waits sleeps, whatever it waits for: counted, not timed."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from research_jobs.orchestration.model.names import NOTEBOOKS_POOL

WINDOW_S = 3.0
# How often a second the process of a run wakes while it waits: 4 to 15 times, because who waits for
# a slot asks the database each second. One that looks each 50 ms wakes 24 times. What waking costs
# depends on the machine; one that never sleeps takes all of a core.
WAKES_AT_MOST = 20
SPINNING = 0.3

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
    """Measures this process over a window that begins when the run waits."""

    def __init__(self, waits: Callable[[], Any], then: Callable[[], Any]) -> None:
        super().__init__()
        self.waits = waits
        self.then = then
        self.share: float | None = None
        self.wakes = 0.0  # a second
        self.over = threading.Event()

    def run(self) -> None:
        while not self.waits():
            if self.over.wait(0.05):
                return
        self.over.wait(0.5)  # what led to the waiting is done by then
        began, spent, woken = time.monotonic(), time.process_time(), wakes()
        self.over.wait(WINDOW_S)
        took = time.monotonic() - began
        self.share = (time.process_time() - spent) / took
        self.wakes = (wakes() - woken) / took
        self.then()


def wakes() -> int:
    """How often this process has gone to sleep, all threads together."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def sleeps(lab: Any, waits: Callable[[], Any], then: Callable[[], Any] = lambda: None) -> bool:
    """Whether a run of notebook `a`, which has to succeed, sleeps while it waits."""
    watch = Watch(waits, then)
    watch.start()
    try:
        assert lab.materialize("a").success
    finally:
        watch.over.set()
        watch.join()
    assert watch.share is not None, "the run was over before it had waited"
    print(f"a share of {watch.share:.3f} of a core, {watch.wakes:.1f} wakes a second")
    return watch.share < SPINNING and watch.wakes < WAKES_AT_MOST


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
    assert sleeps(any_lab, lambda: happened(any_lab, "STEP_UP_FOR_RETRY"))


def test_for_a_slot(any_lab: Any) -> None:
    """While another run holds the only slot of the pool."""
    storage = any_lab.instance.event_log_storage
    storage.set_concurrency_slots(NOTEBOOKS_POOL, 1)
    assert storage.claim_concurrency_slot(NOTEBOOKS_POOL, "another-run", "step").is_claimed
    any_lab.write({"a": "# %%\nx = 1\n"}, "defaults: {concurrency: 1}\n")
    assert sleeps(
        any_lab,
        lambda: storage.get_concurrency_info(NOTEBOOKS_POOL).pending_step_count,
        lambda: storage.free_concurrency_slot_for_step("another-run", "step"),
    )


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_for_a_long_notebook(lab: Any, isolation: str) -> None:
    """While a notebook runs."""
    lab.write({"a": LONG}, f"notebooks: {{a: {{isolation: {isolation}}}}}\n")
    notebooks = lab.root / "notebooks"
    assert sleeps(lab, (notebooks / "began").exists, (notebooks / "go").touch)
