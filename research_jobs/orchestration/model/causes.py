"""Why something failed, in one line: the innermost cause, whatever wrapped it.

Dagster wraps what a step raises ("Error occurred while handling output ..."), database libraries
wrap what their drivers raise, and tasks that run side by side raise groups. Everything that shows
a person why a notebook did not succeed gets its line here.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

__all__ = [
    "Reason",
    "error_line",
    "failure_reason",
    "first_line",
    "is_interruption",
    "run_failure_line",
    "single_errors",
]


class ErrorInfo(Protocol):
    """An exception as Dagster stores it."""

    @property
    def message(self) -> str:
        """Class and message, as the last lines of a traceback say them."""
        ...

    @property
    def cause(self) -> Any:
        """What it was raised from."""
        ...

    @property
    def context(self) -> Any:
        """What was being handled when it was raised, unless that was suppressed."""
        ...


@dataclass(frozen=True)
class Reason:
    """Why a step failed.

    Parameters
    ----------
    line : str
    rest : str
        Further lines of what the step itself said.
    """

    line: str
    rest: str = ""


# Ours, and the one with which a step says itself why it fails: the message alone is meant to be
# read, without the class.
_OWN = re.compile(r"research_jobs\.[\w.]+: ")
_SAID = re.compile(r"dagster[\w.]*\.Failure: ")
_WRAPPER = re.compile(r"dagster[\w.]*\.\w+(:|$)")


def error_line(error: ErrorInfo | None) -> str:
    """The line that says why, of an exception as Dagster stores it.

    Parameters
    ----------
    error : ErrorInfo or None

    Returns
    -------
    str
        The message of the innermost cause with its class. An error of our own tree explains its
        cause already, so the walk ends there. An exception that was raised while another was
        handled, and not from it, is shown with that one behind it.
    """
    if error is None:
        return ""
    while True:
        if _OWN.match(error.message) or _SAID.match(error.message):
            break
        inner: ErrorInfo | None = error.cause
        if inner is None and _WRAPPER.match(error.message):
            inner = error.context
        if inner is None:
            break
        error = inner
    line = first_line(error.message)
    handled = error_line(error.context) if error.cause is None else ""
    own = _OWN.match(line) or _SAID.match(line)
    if own:
        return line[own.end() :]
    return f"{line} (while handling {handled})" if handled else line


def failure_reason(data: Any) -> Reason:
    """Why a step failed, from the data of Dagster's event.

    Parameters
    ----------
    data : StepFailureData or StepRetryData
    """
    said = getattr(data, "user_failure_data", None)
    if said is not None and said.description:
        line, _, rest = said.description.strip().partition("\n")
        return Reason(line.strip(), rest)
    return Reason(error_line(data.error) or "failed")


def is_interruption(data: Any) -> bool:
    """Whether a step failed because somebody stopped its run."""
    error = data.error
    while error is not None:
        if error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
            return True
        error = error.cause
    return False


def run_failure_line(event: dg.DagsterEvent) -> str | None:
    """Why a run failed, from its last event; None where its steps say so."""
    data: Any = event.event_specific_data
    if data is None:
        return event.message  # somebody else reported it: a launcher, or run monitoring
    return error_line(data.error) or None


def first_line(text: str) -> str:
    """The line of an exception's message that says most.

    That is the first, or the last where the first ones quote source code (syntax errors).
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    if lines[0].startswith('File "'):
        return lines[-1]
    if lines[0].endswith(":") and len(lines) > 1:
        return f"{lines[0]} {lines[1]}"
    return lines[0]


@contextmanager
def single_errors() -> Generator[None]:
    """Within this context, an exception group is raised as its first exception.

    Of a group, Dagster stores the number of exceptions but none of them.
    """
    try:
        yield
    except BaseExceptionGroup as group:  # noqa: F821 - ruff's target is the oldest notebook's
        first: BaseException = group
        count = 0
        while isinstance(first, BaseExceptionGroup):  # noqa: F821
            count = max(count, len(first.exceptions))
            first = first.exceptions[0]
        if count > 1:
            first.add_note(f"{count - 1} more in the same group: {group!r}")
        raise first from None
