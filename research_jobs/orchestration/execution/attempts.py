"""The attempts that this process is running, and what a running step may ask for.

`step_log_streams` and `step_cancel_token` are for whoever starts a process in a step. They work
under every executor; under ours the step runs in a thread, and finds here what its thread was
given.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from research_jobs.orchestration.compat.steps import StepContext, step_identity
from research_jobs.orchestration.execution.step_log import (
    WORKER_STREAMS,
    LogStreams,
    StepLog,
    writing_to,
)

if TYPE_CHECKING:
    from research_jobs.supervisor.run import CancelToken

__all__ = [
    "Attempt",
    "execution_slot",
    "running",
    "running_attempt",
    "step_cancel_token",
    "step_log_streams",
]


class Attempt:
    """One attempt of one step, in a thread of its own.

    Parameters
    ----------
    run_id, step_key : str
    number : int
        1 for the first.
    log : StepLog
        The step's, shared by its attempts.
    release : callable
        Says that the step holds nothing any more that others wait for.
    """

    def __init__(
        self,
        run_id: str,
        step_key: str,
        number: int,
        log: StepLog,
        release: Callable[[], object],
    ) -> None:
        self.run_id = run_id
        self.step_key = step_key
        self.number = number
        self.log = log
        self.release = release
        self._lock = threading.Lock()
        self._cancelled = False
        self._token: CancelToken | None = None

    def token(self) -> CancelToken:
        """The token of whatever the step waits for, made when first asked for."""
        from research_jobs.supervisor.run import CancelToken

        with self._lock:
            if self._token is None:
                self._token = CancelToken()
                if self._cancelled:
                    self._token.cancel()
            return self._token

    def cancel(self) -> None:
        """Ask the step to stop, which only one that holds a token can be asked."""
        with self._lock:
            self._cancelled = True
            if self._token is not None:
                self._token.cancel()


_attempts: dict[tuple[str, str], Attempt] = {}
_current: ContextVar[Attempt | None] = ContextVar("research_jobs_attempt", default=None)


def running_attempt() -> Attempt | None:
    """The attempt that this thread runs, if it runs one."""
    return _current.get()


@contextmanager
def running(attempt: Attempt) -> Generator[None]:
    """Within this context the thread runs `attempt`, and writes to its log."""
    identity = attempt.run_id, attempt.step_key
    _attempts[identity] = attempt
    token = _current.set(attempt)
    try:
        with writing_to(attempt.log):
            yield
    finally:
        _current.reset(token)
        _attempts.pop(identity, None)


def step_log_streams(context: StepContext) -> LogStreams:
    """Where a process that the step starts is to write its stdout and stderr.

    Parameters
    ----------
    context : AssetExecutionContext, AssetCheckExecutionContext or OpExecutionContext

    Returns
    -------
    LogStreams
        ``(stdout, stderr)``: open descriptors in append mode, which belong to the executor and
        stay open until the step ends. Under Dagster's own executors they are the process's own,
        1 and 2, which Dagster captures there.
    """
    attempt = _attempts.get(step_identity(context))
    # What was printed before belongs before what the process is going to write.
    if attempt is not None and attempt.log.is_captured:
        attempt.log.flush()
        return attempt.log.streams
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return WORKER_STREAMS


@contextmanager
def execution_slot(context: StepContext) -> Generator[None]:
    """The step's place among those that run at once, given back at the end of this context.

    What a step does after that (publishing, its report) keeps no other from running. Under
    Dagster's own executors a step keeps its place until it ends.

    Parameters
    ----------
    context : AssetExecutionContext, AssetCheckExecutionContext or OpExecutionContext
    """
    try:
        yield
    finally:
        attempt = _attempts.get(step_identity(context))
        if attempt is not None:
            attempt.release()


def step_cancel_token(context: StepContext) -> CancelToken:
    """The token that is cancelled when the run is to stop.

    Parameters
    ----------
    context : AssetExecutionContext, AssetCheckExecutionContext or OpExecutionContext

    Returns
    -------
    CancelToken
        One for the attempt, however often it is asked for. Under Dagster's own executors it is a
        new one that nobody cancels: there the step runs in the main thread, where an interrupt
        is raised as an exception out of whatever the step waits for.
    """
    attempt = _attempts.get(step_identity(context))
    if attempt is not None:
        return attempt.token()
    from research_jobs.supervisor.run import CancelToken

    return CancelToken()
