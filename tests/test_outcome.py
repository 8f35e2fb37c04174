"""The states that a person sees, and the record of what became of a notebook."""

from __future__ import annotations

import json
from typing import Any

import pytest

from research_jobs.outcome import (
    CheckOutcome,
    Failure,
    Outcome,
    StagedOutput,
    State,
    from_json,
    to_json,
)

OUTCOME = Outcome(
    State.FAILED,
    failure=Failure("a.py:1, cell 2: KeyError: 'x'\nmore", "the trace", cell=2, cell_source="x"),
    notebook="vol/garch",
    run_id="r1",
    partition="2024-01-02",
    blocked_by=("a", "b"),
    outputs=(StagedOutput("table", "/d/table.parquet", "", 3, 100),),
    checks=(CheckOutcome("table", "min_rows", passed=False),),
    parameters={"n": "1"},
    report="/r/report.html",
    started_at=1.5,
    duration_s=2.5,
    cpu_s=0.5,
    peak_memory_bytes=7,
    notes=("one",),
)


def test_a_record_comes_back_equal() -> None:
    """Through JSON text, nested records included."""
    assert from_json(json.loads(json.dumps(to_json(OUTCOME)))) == OUTCOME


def test_a_record_of_a_later_version_is_read() -> None:
    """Keys that this version does not know are left out, in nested records too."""
    value: dict[str, Any] = {**to_json(OUTCOME), "later": 1}
    value["failure"]["later"] = 1
    value["checks"][0]["later"] = 1
    assert from_json(value) == OUTCOME


@pytest.mark.parametrize(
    "value",
    [{}, [], None, "x", {"ending": "triumphed"}, {"ending": "failed", "duration_s": "long"}],
)
def test_what_is_no_record_is_none(value: Any) -> None:
    """Also one with a state that this version does not know."""
    assert from_json(value) is None


def test_the_reason_is_one_line() -> None:
    """What is behind it, the traceback and the cell are its details."""
    assert OUTCOME.reason == "a.py:1, cell 2: KeyError: 'x'"
    assert OUTCOME.details == "more\nthe trace\nx"
    assert Outcome(State.SKIPPED, skip_reason="closed").reason == "closed"
    assert Outcome(State.SUCCEEDED).reason is None


def test_names_of_earlier_versions_have_a_state() -> None:
    """Whatever an earlier version stored or printed is one of today's states."""
    earlier = {"not run": "blocked", "not started": "blocked", "broken": "blocked"}
    earlier |= {"queued": "waiting", "never": "never_run"}
    assert {name: State(name).value for name in earlier} == earlier


def test_states_are_in_order_and_say_what_a_command_returns() -> None:
    """The best first; only what did what it should gives 0, an interruption a code of its own."""
    assert max(State, key=lambda state: state.order) is State.CANCELLED
    assert min(State, key=lambda state: state.order) is State.SUCCEEDED
    assert {state for state in State if state.exit_code == 0} == {State.SUCCEEDED, State.SKIPPED}
    assert {state for state in State if state.exit_code == 130} == {State.CANCELLED}
    assert State.OUT_OF_MEMORY.words == "out of memory"
    assert State.TIMED_OUT.heading == "Timed out"
