"""The log of each step, while many steps run in one process.

Dagster's own capture replaces the descriptors 1 and 2 of the whole process, so it cannot tell
steps in threads apart. Here each step has two streams of its own, opened from the instance's
compute log manager:

- a notebook's process writes straight into their descriptors (`step_log_streams`);
- what an ordinary asset prints in the run worker is routed to them by context (`RoutedStream`).

All attempts of a step share one log: the UI shows the first capture that names a step, so a
capture for each attempt would hide every attempt but the first.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

from research_jobs.orchestration.compat.execution import (
    CapturedLogContext,
    CloudStorageComputeLogManager,
    ComputeIOType,
    ComputeLogManager,
    LocalComputeLogManager,
    create_compute_log_file_key,
)

__all__ = ["LogStreams", "RoutedStream", "RunLogs", "StepLog", "route_output", "writing_to"]

WORKER_STDOUT, WORKER_STDERR = 1, 2


class LogStreams(NamedTuple):
    """Two open descriptors. Whoever gets them writes to them and does not close them."""

    stdout: int
    stderr: int


WORKER_STREAMS = LogStreams(WORKER_STDOUT, WORKER_STDERR)


class StepLog:
    """The log of one step, for all of its attempts.

    Parameters
    ----------
    key : sequence of str
        The compute log manager's key of it.
    streams : LogStreams
        Where a process started by the step writes.
    """

    def __init__(self, key: Sequence[str], streams: LogStreams) -> None:
        self.key = key
        self.streams = streams
        self.context = CapturedLogContext(key)
        self.reported = False
        self._texts: dict[int, TextIO] = {}
        self._lock = threading.Lock()

    @property
    def is_captured(self) -> bool:
        """bool: False where the step writes to the run worker's own streams."""
        return self.streams is not WORKER_STREAMS

    def text(self, descriptor: int) -> TextIO:
        """A text stream onto one of the two descriptors (1 or 2), made when first asked for."""
        with self._lock:
            text = self._texts.get(descriptor)
            if text is None:
                text = self._texts[descriptor] = open(  # noqa: SIM115 - closed in `close`
                    self.streams[descriptor - 1],
                    "w",
                    buffering=1,
                    encoding="utf-8",
                    errors="backslashreplace",
                    closefd=False,
                )
            return text

    def begin_attempt(self, number: int) -> None:
        """Say in both streams that a further attempt of the step begins."""
        if number == 1:
            return
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        line = f"--- attempt {number}, {now} ---\n".encode()
        self.flush()
        for descriptor in self.streams:
            os.write(descriptor, line)

    def flush(self) -> None:
        """Write out what the run worker's side still holds."""
        with self._lock:
            for text in self._texts.values():
                text.flush()

    def close(self) -> None:
        """Flush, and drop the text streams (not the descriptors)."""
        with self._lock:
            for text in self._texts.values():
                text.close()
            self._texts.clear()


class RunLogs:
    """The logs of a run's steps, opened from the instance's compute log manager.

    Parameters
    ----------
    manager : ComputeLogManager
        Local ones are written in place. Of those that keep logs in the cloud, the local copy is
        written and uploaded: in part every ``upload_interval`` seconds and when an attempt ends,
        in full when the step is over. Others get a stream if they give one with a descriptor;
        steps of managers that cannot stream write to the run worker's own streams.
    run_id : str
    on_error : callable
        Told of what goes wrong with a log, which must not fail a step.
    """

    def __init__(
        self,
        manager: ComputeLogManager[Any],
        run_id: str,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._manager = manager
        self._run_id = run_id
        self._on_error = on_error
        self._lock = threading.Lock()
        self._open: dict[str, tuple[StepLog, ExitStack]] = {}
        self._uploads: _Uploads | None = None
        if isinstance(manager, CloudStorageComputeLogManager):
            self._uploads = _Uploads(manager, on_error)

    def open(self, step_key: str) -> StepLog:
        """The log of a step; the same one for all of its attempts."""
        with self._lock:
            if step_key in self._open:
                return self._open[step_key][0]
        key = self._manager.build_log_key_for_run(self._run_id, create_compute_log_file_key())
        stack = ExitStack()
        try:
            log = StepLog(key, self._open_streams(key, stack))
        except Exception as error:  # noqa: BLE001 - a log that cannot be kept fails no step
            self._on_error(f"The log of step {step_key} cannot be kept", error)
            stack = ExitStack()
            log = StepLog(key, WORKER_STREAMS)
        stack.callback(log.close)
        with self._lock:
            self._open[step_key] = log, stack
        return log

    def end_attempt(self, step_key: str) -> None:
        """An attempt ended and another will follow: show what there is meanwhile."""
        with self._lock:
            log, _ = self._open[step_key]
        log.flush()
        if self._uploads:
            self._uploads.progress(log.key)

    def finish(self, step_key: str) -> None:
        """The step is over: its log is complete."""
        with self._lock:
            entry = self._open.pop(step_key, None)
        if entry is None:
            return
        log, stack = entry
        try:
            stack.close()
            if not log.is_captured:
                return
            if self._uploads:
                self._uploads.complete(log.key)
            elif isinstance(self._manager, LocalComputeLogManager):
                Path(self._manager.complete_artifact_path(log.key)).touch()
        except Exception as error:  # noqa: BLE001 - as above
            self._on_error(f"The log of step {step_key} cannot be completed", error)

    def close(self) -> None:
        """Complete what is still open and wait for what is still to be uploaded."""
        with self._lock:
            remaining = list(self._open)
        for step_key in remaining:
            self.finish(step_key)
        if self._uploads:
            self._uploads.close()

    def _open_streams(self, key: Sequence[str], stack: ExitStack) -> LogStreams:
        source = self._manager
        if isinstance(source, CloudStorageComputeLogManager):
            # Its own stream uploads and removes *both* local files when one of them is closed.
            source = source.local_manager
        descriptors: list[int] = []
        for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR):
            opened: AbstractContextManager[IO[Any] | None] = source.open_log_stream(key, kind)
            stream = stack.enter_context(opened)
            descriptor = None
            if stream is not None:
                with suppress(OSError, AttributeError, io.UnsupportedOperation):
                    descriptor = stream.fileno()
            if descriptor is None:
                return WORKER_STREAMS
            descriptors.append(descriptor)
        if self._uploads:
            self._uploads.begin(key)
        return LogStreams(*descriptors)


class _Uploads:
    """One thread that uploads a run's logs, so that no step waits for the network."""

    def __init__(
        self,
        manager: CloudStorageComputeLogManager[Any],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._manager = manager
        self._on_error = on_error
        self._changed = threading.Condition()
        self._live: list[Sequence[str]] = []
        self._asked: list[Sequence[str]] = []
        self._finished: list[Sequence[str]] = []
        self._closing = False
        self._thread: threading.Thread | None = None

    def begin(self, key: Sequence[str]) -> None:
        with self._changed:
            self._live.append(key)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="research_jobs log uploads", daemon=True
                )
                self._thread.start()

    def progress(self, key: Sequence[str]) -> None:
        with self._changed:
            self._asked.append(key)
            self._changed.notify()

    def complete(self, key: Sequence[str]) -> None:
        with self._changed:
            if key in self._live:
                self._live.remove(key)
            self._finished.append(key)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._finished or self._asked or self._closing):
                    # None where the manager uploads only what is complete: wait to be woken
                    self._changed.wait(self._manager.upload_interval)
                finished, self._finished = self._finished, []
                asked, self._asked = self._asked, []
                live = list(self._live)
                closing = self._closing
            for key in finished:
                self._upload(key, self._upload_complete)
            for key in asked or ([] if finished else live):
                self._upload(key, self._manager.on_progress)
            if closing and not finished:
                return

    def _upload(self, key: Sequence[str], how: Callable[[Sequence[str]], None]) -> None:
        try:
            how(key)
        except Exception as error:  # noqa: BLE001 - the next one may do better
            self._on_error(f"The log {'/'.join(key)} cannot be uploaded", error)

    def _upload_complete(self, key: Sequence[str]) -> None:
        for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR):
            self._manager.upload_to_cloud_storage(key, kind)
        self._manager.local_manager.delete_logs(log_key=key)


_writing_to: ContextVar[StepLog | None] = ContextVar("research_jobs_step_log", default=None)


@contextmanager
def writing_to(log: StepLog) -> Generator[None]:
    """Within this context, ``print`` and everything else by ``sys.stdout`` goes to `log`."""
    token = _writing_to.set(log)
    try:
        yield
    finally:
        _writing_to.reset(token)
        log.flush()


class RoutedStream(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``: each step writes to its own log.

    Who writes is told by a context variable, which a thread that a step starts does not inherit:
    such a thread writes to the run worker's own stream, as does a process that inherits
    the descriptors 1 and 2.

    Parameters
    ----------
    original : text stream
        Where what no step wrote goes.
    descriptor : int
        1 or 2.
    """

    def __init__(self, original: TextIO, descriptor: int) -> None:
        super().__init__()
        self.original = original
        self._descriptor = descriptor

    def _target(self) -> TextIO:
        log = _writing_to.get()
        return self.original if log is None or not log.is_captured else log.text(self._descriptor)

    def write(self, text: str, /) -> int:
        return self._target().write(text)

    def writelines(self, lines: Any, /) -> None:
        self._target().writelines(lines)

    def flush(self) -> None:
        self._target().flush()

    def fileno(self) -> int:
        return self._target().fileno()

    def isatty(self) -> bool:
        return self._target().isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: the stream is the process's, not the caller's."""

    @property
    def buffer(self) -> Any:
        return self._target().buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target().encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._target().errors

    def __getattr__(self, name: str) -> Any:
        # what only some streams have: `reconfigure`, `mode`, `name`, `line_buffering`
        return getattr(self._target(), name)


_routing = threading.Lock()
_routed = 0


@contextmanager
def route_output() -> Generator[None]:
    """Have ``sys.stdout`` and ``sys.stderr`` tell steps apart, for as long as a run lasts."""
    global _routed
    with _routing:
        _routed += 1
        for name, descriptor in (("stdout", WORKER_STDOUT), ("stderr", WORKER_STDERR)):
            stream = getattr(sys, name)
            if not isinstance(stream, RoutedStream):
                setattr(sys, name, RoutedStream(stream, descriptor))
    try:
        yield
    finally:
        with _routing:
            _routed -= 1
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                # not where someone else replaced it meanwhile
                if _routed == 0 and isinstance(stream, RoutedStream):
                    setattr(sys, name, stream.original)
