"""What a step is told when its run is to stop."""

from __future__ import annotations

from typing import Any, cast

from research_jobs.orchestration.execution.attempts import Attempt


def attempt() -> Attempt:
    """An attempt that nobody runs."""
    return Attempt("run", "step", 1, cast("Any", None), lambda: None)


def test_a_token_from_before_the_cancel_is_cancelled() -> None:
    """What a step waits for hears of the cancel."""
    running = attempt()
    token = running.token()
    assert not token.is_cancelled
    running.cancel()
    assert token.is_cancelled


def test_a_token_made_after_the_cancel_is_cancelled() -> None:
    """A step that asks for its token only once it was cancelled starts nothing."""
    running = attempt()
    running.cancel()
    assert running.token().is_cancelled


def test_there_is_one_token() -> None:
    """Whoever asks in the step gets the same."""
    running = attempt()
    assert running.token() is running.token()
