"""Only the process that was started acts for the run; a forked copy of it does not.

A notebook may fork (``os.fork``, ``pty.fork``, pools), and its copies then run our code as well as
its own. Code that acts for the run checks `owns_run`, and `as_owner` ends a copy that returns from
the notebook's code in any way. A copy may print and run exit handlers that it registered itself;
outputs, results, the record, the report and handlers registered before the fork belong to the
owner.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from research_jobs.run_context import NotebookSkipped

__all__ = ["as_owner", "claim_run", "leave", "owns_run"]

_Value = TypeVar("_Value")

_owner: int | None = None
# The process that may run its exit handlers: the owner, or a copy that dropped the owner's.
_handlers_of: int | None = None


def claim_run() -> None:
    """Make this process act for the run."""
    global _owner, _handlers_of
    _owner = _handlers_of = os.getpid()
    os.register_at_fork(after_in_child=_let_go)


def owns_run() -> bool:
    """Whether this process acts for the run."""
    return os.getpid() == _owner


def as_owner(
    step: Callable[[], _Value], describe: Callable[[BaseException], str] | None = None
) -> _Value:
    """Call a step that runs notebook code; a forked copy does not return from it.

    Parameters
    ----------
    step : callable
    describe : callable, optional
        The traceback that a copy prints for the exception that ends it.
    """
    try:
        value = step()
    except BaseException as error:
        if not owns_run():
            _leave_copy(error, describe)
        raise
    if not owns_run():
        _leave_copy(None, describe)
    return value


def leave(status: int) -> NoReturn:
    """Run the exit handlers of this process, flush, and exit at once.

    Tearing down a large interpreter takes longer than many notebooks, and nothing is left to do.
    """
    if _handlers_of == os.getpid():
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no public way
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def _let_go() -> None:
    """After a fork, in the copy: drop everything that would act for the owner at exit."""
    global _handlers_of
    atexit._clear()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no public way
    _handlers_of = os.getpid()
    if faulthandler.is_enabled():
        # A copy's stack must not be reported as the owner's crash.
        faulthandler.enable(2)


def _leave_copy(
    error: BaseException | None, describe: Callable[[BaseException], str] | None
) -> NoReturn:
    """End a forked copy as an interpreter would end."""
    status, text = 0, ""
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            status = error.code & 0xFF
        elif error.code is not None:
            status, text = 1, str(error.code)
    elif error is not None and not isinstance(error, NotebookSkipped):
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        text = describe(error) if describe is not None else f"{type(error).__name__}: {error}"
    with contextlib.suppress(BaseException):
        if text:
            sys.stderr.write(f"In process {os.getpid()}, a forked copy of the notebook:\n{text}\n")
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    leave(status)
