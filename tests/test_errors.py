"""The error tree: one clear line first, and no loss when an error crosses a process."""

from __future__ import annotations

import copy
import pickle

import pytest

from research_jobs import errors
from research_jobs.errors import (
    ManifestError,
    ResearchJobsError,
    RunError,
    SourceLocation,
    did_you_mean,
)

EVERY = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, ResearchJobsError)
]


def test_the_first_line_says_where_what_and_what_to_do() -> None:
    """The headline is `file:line:column: what. hint`."""
    error = ManifestError(
        "unknown key 'output'",
        where=SourceLocation("notebooks/manifest.yaml", 3, 5),
        hint="Did you mean 'outputs'?",
        details="more\nlines",
    )
    first, *rest = str(error).split("\n")
    assert first == "notebooks/manifest.yaml:3:5: unknown key 'output'. Did you mean 'outputs'?"
    assert rest == ["more", "lines"]


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (SourceLocation("a.py"), "a.py"),
        (SourceLocation("a.py", 4), "a.py:4"),
        (SourceLocation("a.py", 4, 2), "a.py:4:2"),
        (SourceLocation("a.py", None, 2), "a.py"),
    ],
)
def test_a_location_shows_what_is_known(location: SourceLocation, text: str) -> None:
    """A location leaves out what it does not know."""
    assert str(location) == text


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickle_and_copy(kind: type[ResearchJobsError]) -> None:
    """An error that crossed a process says the same and keeps its attributes."""
    error = kind("what", where=SourceLocation("a.py", 1), hint="do", details="trace")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_a_run_error_keeps_its_ending_across_processes() -> None:
    """The ending is an attribute, and it round-trips."""
    error = pickle.loads(pickle.dumps(RunError("gone", ending="crashed", details="line 1")))
    assert (error.ending, str(error)) == ("crashed", "gone\nline 1")


def test_every_error_is_in_the_tree_that_is_drawn_at_the_top() -> None:
    """The drawing in the module's docstring names every class, and `__all__` exports it."""
    assert errors.__doc__ is not None
    for kind in EVERY:
        assert kind.__name__ in errors.__doc__
        assert kind.__name__ in errors.__all__


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("perf_dff", ["perf_df", "summary"], "Did you mean 'perf_df'?"),
        ("Prices", ["prices"], "Did you mean 'prices'?"),
        ("clse", ["close", "volume"], "Did you mean 'close'?"),
        ("zzz", ["returns", "prices"], "Known: prices, returns."),
        ("zzz", [f"n{i}" for i in range(8)], "n6, n7."),
        ("zzz", [], ""),
        ("zzz", [f"n{i}" for i in range(11)], "and 3 more."),
    ],
)
def test_a_suggestion_names_what_is_close(name: str, options: list[str], says: str) -> None:
    """A misspelt name gets the close ones, or else what there is."""
    assert did_you_mean(name, options).endswith(says)
