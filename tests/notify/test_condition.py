"""What is wrong, as conditions: kinds, severities and causes."""

from __future__ import annotations

from research_jobs.notify.condition import Condition, Kind, Severity


def test_the_cause_of_a_condition_is_its_reason_without_its_place() -> None:
    """Two notebooks that fail alike have one cause, wherever they do."""
    a = Condition(Kind.FAILED, "a", "a.py:3, cell 2: KeyError: 'Close'", 1.0)
    b = Condition(Kind.FAILED, "b", "b.py:9:4, cell 1 \"Load\": KeyError: 'Close'", 2.0)
    assert a.cause == b.cause == "KeyError: 'Close'"


def test_each_kind_has_a_severity_and_words() -> None:
    """A kind is its value as text, and severities have an order."""
    assert str(Kind.MISSED_TICK) == "missed_tick"
    assert all(kind.words and kind.over for kind in Kind)
    assert Severity.INFO.order < Severity.WARNING.order < Severity.CRITICAL.order
