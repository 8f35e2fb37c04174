"""The logs of a run's steps, while many steps run in one process.

Dagster's own capture replaces the descriptors 1 and 2 of the whole process, so it cannot tell
steps in threads apart. Here each step has two streams of its own (`step_log`), opened from the
instance's compute log manager.

All attempts of a step share one log: the UI shows the first capture that names a step, so a
capture for each attempt would hide every attempt but the first.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from research_jobs.orchestration.compat.execution import (
    CloudStorageComputeLogManager,
    ComputeIOType,
    ComputeLogManager,
    LocalComputeLogManager,
    create_compute_log_file_key,
)
from research_jobs.orchestration.execution.step_log import WORKER_STREAMS, LogStreams, StepLog

__all__ = ["RunLogs"]


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
        Receives what goes wrong with a log, which must not fail a step.
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
