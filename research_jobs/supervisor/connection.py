"""One run from the supervisor's side: a socket to the guardian, on which it waits."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator

from research_jobs.outcome import Failure, Outcome, State
from research_jobs.protocol import ProtocolError, RunRequest, as_record, parse_message
from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    message,
    receive_frame,
    send_message,
    send_record,
)
from research_jobs.runtime.ending import shown_path
from research_jobs.supervisor.interpreter import StartError, wait_readable

__all__ = ["GUARDIAN_SLACK", "CancelToken", "Connection", "NotStartedError"]

# How long a guardian may take, beyond timeout and grace, before it counts as lost: seconds.
GUARDIAN_SLACK = 30.0
# How long it may take to say that it is there: seconds.
START_LIMIT = 60.0


class CancelToken:
    """Cancels the runs that were given this token, from any thread."""

    def __init__(self) -> None:
        # A signal handler may call cancel() while this thread holds the lock.
        self._lock = threading.RLock()
        self._cancelled = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        """bool: whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the runs with INT, then TERM, then KILL; returns at once."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Generator[None]:
        """Call a function when `cancel` is called, or at once if it was."""
        with self._lock:
            self._listeners.append(listener)
            cancelled = self._cancelled
        try:
            if cancelled:
                listener()
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)


class NotStartedError(Exception):
    """The guardian ended, or did not answer, before it started the notebook's process."""


class Connection:
    """One run, from the supervisor's side of its socket."""

    def __init__(self, request: RunRequest, connection: socket.socket, isolation: str) -> None:
        self.request = request
        self.connection = connection
        self.isolation = isolation
        self.guardian: int | None = None
        self.pid: int | None = None
        self.lock = threading.RLock()
        self.done = False
        self.lost: threading.Timer | None = None

    def wait(self, cancel: CancelToken | None) -> Outcome:
        started_at, started = time.time(), time.monotonic()
        try:
            self._send_request()
            with cancel.listening(self._cancel) if cancel is not None else contextlib.nullcontext():
                result = self._receive()
        except (OSError, ProtocolError, EOFError) as error:
            if self.pid is None and not isinstance(error, ProtocolError):
                raise NotStartedError from error
            self._end_what_is_left()
            result = Outcome(
                State.CRASHED,
                failure=Failure(
                    headline=f"{shown_path(self.request)}: the process that guards the run ended "
                    f"without a result ({str(error) or 'killed from outside'})"
                ),
                started_at=started_at,
                duration_s=time.monotonic() - started,
                pid=self.pid,
                isolation=self.isolation,
            )
        finally:
            with self.lock:
                self.done = True
                if self.lost is not None:
                    self.lost.cancel()
                # On an exception (Ctrl-C), closing the socket tells the guardian to end the tree.
                self.connection.close()
        return result

    def _send_request(self) -> None:
        send_message(
            self.connection, "Start", environment=dict(os.environ), umask=processes.current_umask()
        )
        send_record(self.connection, self.request)

    def _receive(self) -> Outcome:
        # One that begins after that ends at once: nobody is there for it to tell.
        if not wait_readable(self.connection, START_LIMIT):
            raise TimeoutError
        limit = None
        if self.request.timeout_s is not None:
            limit = self.request.timeout_s + 3 * self.request.grace_s + GUARDIAN_SLACK
        while True:
            if limit is not None and not wait_readable(self.connection, limit):
                raise ProtocolError(f"it has not answered for {limit:g} s")
            payload = receive_frame(self.connection)
            if payload is None:
                raise EOFError
            value = parse_message(payload)
            kind = value.get("record")
            if kind == "Guarded":
                self.guardian = int(value["guardian"])
            elif kind == "Started":
                self.pid = int(value["pid"])
            elif kind == "StartFailed":
                raise StartError(str(value.get("message")))
            else:
                record = as_record(value)
                if isinstance(record, Outcome):
                    return record
                raise ProtocolError(f"expected a result, not a {kind}")

    def _cancel(self) -> None:
        with self.lock:
            if self.done:
                return
            with contextlib.suppress(OSError):
                self.connection.sendall(message("Cancel"))
            patience = 3 * self.request.grace_s + GUARDIAN_SLACK
            self.lost = threading.Timer(patience, self._end_what_is_left)
            self.lost.daemon = True
            self.lost.start()

    def _end_what_is_left(self) -> None:
        """End a guardian that does not answer, and what is left of the notebook's session."""
        if self.guardian is not None:
            processes.signal_all([self.guardian], signal.SIGKILL)
        if self.pid is not None:
            processes.signal_all(processes.session_members(self.pid), signal.SIGKILL)
