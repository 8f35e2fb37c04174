"""What a step learns when its run is to stop."""

from __future__ import annotations

import gc
import os
import weakref
from typing import Any, cast

from research_jobs.orchestration.execution.attempts import Attempt, running
from research_jobs.orchestration.execution.step_log import WORKER_STREAMS, LogStreams, StepLog


def attempt() -> Attempt:
    """An attempt that nobody runs."""
    return Attempt("run", "step", 1, cast("Any", None), lambda: None)


def test_a_token_from_before_the_cancel_is_cancelled() -> None:
    """What a step waits for hears of the cancel."""
    one = attempt()
    token = one.token()
    assert not token.is_cancelled
    one.cancel()
    assert token.is_cancelled


def test_a_token_made_after_the_cancel_is_cancelled() -> None:
    """A step that asks for its token only once it was cancelled starts nothing."""
    one = attempt()
    one.cancel()
    assert one.token().is_cancelled


def test_there_is_one_token() -> None:
    """Whoever asks in the step gets the same."""
    one = attempt()
    assert one.token() is one.token()


def test_a_full_disk_of_logs_fails_no_step() -> None:
    """What the run worker writes into a log by itself, and what it holds back, may be lost."""
    full = os.open("/dev/full", os.O_WRONLY)
    log = StepLog(["key"], LogStreams(full, full))
    with running(Attempt("run", "step", 2, log, lambda: None)):
        log.begin_attempt(2)
        log.text(1).write("a line that does not end")
    log.close()
    os.close(full)


def test_nothing_is_kept_of_an_attempt_that_ended() -> None:
    """A run worker with thousands of steps does not grow."""
    ended = Attempt("run", "step", 1, StepLog(["key"], WORKER_STREAMS), lambda: None)
    with running(ended):
        pass
    left = weakref.ref(ended)
    del ended
    gc.collect()
    assert left() is None
