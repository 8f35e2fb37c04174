"""One line says why something failed, whatever wrapped it on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.errors import DagsterExecutionHandleOutputError
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError

from research_jobs.errors import StoreError
from research_jobs.orchestration.compat import execution as private
from research_jobs.orchestration.model.causes import (
    error_line,
    failure_reason,
    is_interruption,
    single_errors,
)
from research_jobs.orchestration.model.metadata import fit


def error_info(error: Exception) -> private.SerializableErrorInfo:
    """An exception that was raised, as Dagster stores it."""
    try:
        raise error  # noqa: TRY301
    except Exception as raised:  # noqa: BLE001 - it is ours
        return private.error_info(raised)


def wrapped_by_cause(error: Exception) -> Exception:
    """As a library translates its driver's errors."""
    wrapper = OperationalError("SELECT 1", {}, error)
    wrapper.__cause__ = error
    return wrapper


def wrapped_by_dagster(error: Exception) -> Exception:
    """As Dagster wraps what an IO manager raises."""
    wrapper = DagsterPostgresException("too many retries for DB connection")
    wrapper.__cause__ = error
    return wrapper


def wrapped_in_passing(error: Exception) -> Exception:
    """As Dagster raises while it handles an error."""
    wrapper = DagsterPostgresException("cannot report it")
    wrapper.__context__ = error
    return wrapper


WRAPPERS: list[Callable[[Exception], Exception]] = [
    wrapped_by_cause,
    wrapped_by_dagster,
    wrapped_in_passing,
]


@pytest.mark.parametrize(
    "chain", [c for n in range(4) for c in itertools.product(WRAPPERS, repeat=n)]
)
def test_the_innermost_cause_is_found_through_every_chain(chain) -> None:
    """However often and by whom it was wrapped, the line is that of the cause, with its class."""
    error: Exception = PermissionError(13, "Permission denied", "/data/prices")
    for wrap in chain:
        error = wrap(error)
    assert error_line(error_info(error)) == (
        "PermissionError: [Errno 13] Permission denied: '/data/prices'"
    )


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_our_own_errors_speak_for_themselves(wrap) -> None:
    """An error of ours is shown as it is, and not what it was raised from."""
    error = StoreError("'prices' cannot be written: the disk is full", hint="Make room.")
    error.__cause__ = OSError(28, "No space left on device")
    assert error_line(error_info(wrap(error))).startswith(
        "'prices' cannot be written: the disk is full"
    )


def test_an_error_while_another_is_handled_names_both() -> None:
    """Where nobody said which one is the cause, neither is lost."""

    def fail(*, hide: bool) -> None:
        try:
            raise OSError("disk gone")  # noqa: TRY301
        except OSError:
            if hide:
                raise ValueError("no column 'x'") from None
            raise ValueError("no column 'x'")  # noqa: B904 - that is the point

    with pytest.raises(ValueError, match="no column") as raised:
        fail(hide=False)
    assert error_line(error_info(raised.value)) == (
        "ValueError: no column 'x' (while handling OSError: disk gone)"
    )
    with pytest.raises(ValueError, match="no column") as raised:
        fail(hide=True)
    assert error_line(error_info(raised.value)) == "ValueError: no column 'x'"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError(), "KeyError"),
        (RuntimeError("\n  first\n  second"), "RuntimeError: first"),
        (dg.Failure("no prices\nsince Monday"), "no prices"),
        (SyntaxError("bad", ("a.py", 3, 1, "x = (", 3, 2)), "SyntaxError: bad"),
    ],
)
def test_the_line_that_says_most(error: Exception, line: str) -> None:
    """Messages of several lines and of none give one line."""
    assert error_line(error_info(error)) == line


def test_a_group_is_shown_by_its_first_exception() -> None:
    """Of tasks that failed together, the first error is named, and how many more there were."""
    inner = ExceptionGroup(  # noqa: F821 - ruff's target is the oldest notebook's
        "inner", [OSError("connection reset"), OSError("second")]
    )
    with pytest.raises(OSError, match="connection reset") as raised, single_errors():
        raise ExceptionGroup("outer", [inner])  # noqa: F821
    assert error_line(error_info(raised.value)) == "OSError: connection reset"
    assert "1 more" in raised.value.__notes__[0]


class Refusing(dg.IOManager):
    """Fails as another program's file in the store makes it fail."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Fail."""
        raise FileExistsError(17, "File exists", "data/prices")

    def load_input(self, context: dg.InputContext) -> object:
        """Is not asked."""
        raise NotImplementedError


def test_what_dagster_stores_of_a_failed_output(instance: DagsterInstance) -> None:
    """A step whose output cannot be written says why, not that an error occurred."""

    @dg.asset
    def prices() -> int:
        return 1

    result = dg.materialize(
        [prices],
        instance=instance,
        resources={"io_manager": Refusing()},
        raise_on_error=False,
    )
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data
    assert data.error.cls_name == DagsterExecutionHandleOutputError.__name__
    assert failure_reason(data).line == "FileExistsError: [Errno 17] File exists: 'data/prices'"
    assert not is_interruption(data)


def test_what_a_step_says_itself_comes_first(instance: DagsterInstance) -> None:
    """A Failure's description is its first line and the rest."""

    @dg.asset
    def prices() -> None:
        raise dg.Failure("no prices\nsince Monday", metadata=fit({}))

    result = dg.materialize([prices], instance=instance, raise_on_error=False)
    (event,) = [e for e in result.all_events if e.is_step_failure]
    reason = failure_reason(event.step_failure_data)
    assert (reason.line, reason.rest) == ("no prices", "since Monday")


def test_an_interruption_is_seen_through_wrappers() -> None:
    """A step that was stopped did not fail, whatever the interruption came out of."""

    class Data:
        error = error_info(wrapped_by_dagster(dg.DagsterExecutionInterruptedError()))

    assert is_interruption(Data)
    Data.error = error_info(wrapped_by_dagster(OSError()))
    assert not is_interruption(Data)
