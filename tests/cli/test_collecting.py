"""Start-up without garbage collection, and work with it."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import pytest

from research_jobs.orchestration.operations import launch
from research_jobs.process import gc_paused


@pytest.mark.parametrize("before", [True, False])
def test_it_is_as_before_whatever_happens(before: bool) -> None:
    """Inside nothing is collected; outside it is as it was, after an error too."""
    try:
        (gc.enable if before else gc.disable)()
        with gc_paused():
            assert not gc.isenabled()
        with suppress(KeyError), gc_paused():
            raise KeyError
        assert gc.isenabled() is before
    finally:
        gc.enable()


def test_notebooks_run_with_it(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that has come to its work collects garbage again, however long that takes."""
    collected: list[bool] = []
    execute_run = launch.execute_run

    def watched(*words: Any) -> Any:
        for event in execute_run(*words):
            collected.append(gc.isenabled())
            yield event

    monkeypatch.setattr(launch, "execute_run", watched)
    assert say("run", "numbers_table").code == 0
    assert collected
    assert all(collected)
    assert gc.isenabled()
