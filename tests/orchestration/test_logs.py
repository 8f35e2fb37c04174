"""The log of each step: kinds of log managers, attempts, and who writes where."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from dagster._core.storage.cloud_storage_compute_log_manager import CloudStorageComputeLogManager
from dagster._core.storage.compute_log_manager import ComputeIOType, ComputeLogManager
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager

from research_jobs.orchestration.execution.logs import RunLogs
from research_jobs.orchestration.execution.step_log import (
    WORKER_STREAMS,
    RoutedStream,
    route_output,
    writing_to,
)

OUT, ERR = ComputeIOType.STDOUT, ComputeIOType.STDERR


class Bucket(CloudStorageComputeLogManager):
    """A cloud manager whose cloud is a dictionary."""

    def __init__(self, folder: Path, interval: int | None = None) -> None:
        self._local = LocalComputeLogManager(str(folder))
        self._interval = interval
        self.objects: dict[tuple[tuple[str, ...], ComputeIOType, bool], bytes] = {}
        self.uploaded = threading.Condition()
        self.broken = False

    @property
    def local_manager(self) -> LocalComputeLogManager:
        return self._local

    @property
    def upload_interval(self) -> int | None:
        return self._interval

    def delete_logs(self, log_key: Any = None, prefix: Any = None) -> None: ...

    def download_url_for_type(self, log_key: Any, io_type: Any) -> None: ...

    def display_path_for_type(self, log_key: Any, io_type: Any) -> str:
        return ""

    def cloud_storage_has_logs(self, log_key: Any, io_type: Any, partial: bool = False) -> bool:
        return (tuple(log_key), io_type, partial) in self.objects

    def upload_to_cloud_storage(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        if self.broken:
            raise OSError("the bucket is gone")
        suffix = {OUT: "out", ERR: "err"}[io_type]
        path = Path(self._local.get_captured_local_path(log_key, suffix))
        with self.uploaded:
            self.objects[tuple(log_key), io_type, partial] = path.read_bytes()
            self.uploaded.notify_all()

    def wait_for(self, log_key: Sequence[str], kind: ComputeIOType, text: bytes) -> None:
        def there() -> bool:
            return text in self.objects.get((tuple(log_key), kind, True), b"")

        with self.uploaded:
            assert self.uploaded.wait_for(there, timeout=30)


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def logs_of(errors: list[str]) -> Any:
    def logs_of(manager: ComputeLogManager) -> RunLogs:
        return RunLogs(manager, "run", lambda what, error: errors.append(f"{what}: {error}"))

    return logs_of


def read(manager: ComputeLogManager, key: Sequence[str], kind: ComputeIOType) -> bytes | None:
    return manager.get_log_data_for_type(key, kind, 0, None)[0]


# -- managers ------------------------------------------------------------------------------------


def test_local_log_is_live_and_then_complete(tmp_path: Path, logs_of: Any) -> None:
    """What is written can be read at once; the log is complete when the step is over."""
    manager = LocalComputeLogManager(str(tmp_path))
    logs = logs_of(manager)
    log = logs.open("step")
    os.write(log.streams.stdout, b"out\n")
    os.write(log.streams.stderr, b"err\n")
    assert read(manager, log.key, OUT) == b"out\n"
    assert read(manager, log.key, ERR) == b"err\n"
    assert not manager.is_capture_complete(log.key)
    logs.finish("step")
    assert manager.is_capture_complete(log.key)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(log.streams.stdout)


def test_attempts_share_one_log(tmp_path: Path, logs_of: Any) -> None:
    """A further attempt is appended, under a line that says which it is."""
    manager = LocalComputeLogManager(str(tmp_path))
    logs = logs_of(manager)
    first = logs.open("step")
    first.begin_attempt(1)
    os.write(first.streams.stdout, b"one\n")
    logs.end_attempt("step")
    again = logs.open("step")
    again.begin_attempt(2)
    os.write(again.streams.stdout, b"two\n")
    logs.finish("step")
    lines = read(manager, first.key, OUT).decode().splitlines()
    assert again is first
    assert lines[0] == "one"
    assert lines[1].startswith("--- attempt 2, ")
    assert lines[2] == "two"


def test_close_completes_what_is_open(tmp_path: Path, logs_of: Any) -> None:
    """A run that ends while a step waits for its next attempt leaves a complete log."""
    manager = LocalComputeLogManager(str(tmp_path))
    logs = logs_of(manager)
    log = logs.open("step")
    logs.end_attempt("step")
    logs.close()
    assert manager.is_capture_complete(log.key)
    logs.finish("step")  # and to finish it again is nothing


def test_cloud_log_is_uploaded_in_full(tmp_path: Path, logs_of: Any, errors: list[str]) -> None:
    """Both streams of all attempts are in the cloud, and the local copy is gone."""
    manager = Bucket(tmp_path)
    logs = logs_of(manager)
    log = logs.open("step")
    os.write(log.streams.stdout, b"out\n")
    os.write(log.streams.stderr, b"err\n")
    logs.end_attempt("step")
    manager.wait_for(log.key, OUT, b"out\n")
    logs.open("step").begin_attempt(2)
    os.write(log.streams.stdout, b"more\n")
    logs.finish("step")
    logs.close()
    key = tuple(log.key)
    assert manager.objects[key, OUT, False].startswith(b"out\n--- attempt 2, ")
    assert manager.objects[key, OUT, False].endswith(b"more\n")
    assert manager.objects[key, ERR, False].startswith(b"err\n")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert errors == []


def test_cloud_log_is_uploaded_meanwhile(tmp_path: Path, logs_of: Any) -> None:
    """A manager with an interval shows what a running step has written so far."""
    manager = Bucket(tmp_path, interval=1)
    logs = logs_of(manager)
    log = logs.open("step")
    os.write(log.streams.stdout, b"so far\n")
    manager.wait_for(log.key, OUT, b"so far\n")
    assert not manager.is_capture_complete(log.key)
    logs.close()
    assert manager.is_capture_complete(log.key)


def test_cloud_that_fails_is_reported_and_no_more(
    tmp_path: Path, logs_of: Any, errors: list[str]
) -> None:
    """An upload that fails ends neither the run nor the other logs, and the local copy stays."""
    manager = Bucket(tmp_path)
    logs = logs_of(manager)
    manager.broken = True
    log = logs.open("lost")
    os.write(log.streams.stdout, b"out\n")
    logs.finish("lost")
    logs.close()
    assert len(errors) == 1
    assert errors[0].startswith("The log run/compute_logs/")
    assert errors[0].endswith("cannot be uploaded: the bucket is gone")
    assert read(manager, log.key, OUT) == b"out\n"


def test_manager_without_logs(logs_of: Any, errors: list[str]) -> None:
    """Where no logs are kept, steps write to the run worker's own streams."""
    logs = logs_of(NoOpComputeLogManager())
    log = logs.open("step")
    log.begin_attempt(1)
    assert log.streams is WORKER_STREAMS
    logs.finish("step")
    os.fstat(1)
    assert errors == []


class Buffered(NoOpComputeLogManager):
    """A manager whose streams are no files."""

    @contextmanager
    def open_log_stream(self, log_key: Any, io_type: Any) -> Iterator[IO[bytes]]:
        yield io.BytesIO()


class Broken(NoOpComputeLogManager):
    """A manager that cannot open anything."""

    @contextmanager
    def open_log_stream(self, log_key: Any, io_type: Any) -> Iterator[IO[bytes]]:
        raise OSError("no space left")
        yield


def test_manager_without_descriptors(logs_of: Any, errors: list[str]) -> None:
    """A stream that no process could write into is not used."""
    logs = logs_of(Buffered())
    assert logs.open("step").streams is WORKER_STREAMS
    logs.close()
    assert errors == []


def test_manager_that_fails(logs_of: Any, errors: list[str]) -> None:
    """A log that cannot be opened is reported, and the step runs without it."""
    logs = logs_of(Broken())
    assert logs.open("step").streams is WORKER_STREAMS
    assert errors == ["The log of step step cannot be kept: no space left"]
    logs.close()


# -- who writes where ------------------------------------------------------------------------------


def test_each_context_writes_to_its_log(
    tmp_path: Path, logs_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Within a step's context `print` goes to its log; outside, and in its threads, to stdout."""
    manager = LocalComputeLogManager(str(tmp_path))
    logs = logs_of(manager)
    left, right = logs.open("left"), logs.open("right")
    with route_output():
        with writing_to(left):
            print("to the left")
            with writing_to(right):
                print("to the right", file=sys.stderr)
            thread = threading.Thread(target=print, args=("of a thread",))
            thread.start()
            thread.join()
        print("to the worker")
    logs.close()
    assert read(manager, left.key, OUT) == b"to the left\n"
    assert read(manager, right.key, ERR) == b"to the right\n"
    assert capfd.readouterr().out == "of a thread\nto the worker\n"


def test_routed_stream_is_a_text_stream(tmp_path: Path, logs_of: Any) -> None:
    """What programs ask of `sys.stdout` works: bytes below it, its descriptor, its encoding."""
    manager = LocalComputeLogManager(str(tmp_path))
    logs = logs_of(manager)
    log = logs.open("step")
    with route_output(), writing_to(log):
        stream = sys.stdout
        assert isinstance(stream, io.TextIOBase)
        assert stream.writable()
        assert not stream.isatty()
        assert stream.fileno() == log.streams.stdout
        assert stream.encoding == "utf-8"
        assert stream.errors == "backslashreplace"
        assert stream.line_buffering
        stream.write("text\n")
        stream.buffer.write("bytes: \N{SNOWMAN}\n".encode())
        stream.writelines(["a\n", "b: \ud800\n"])
        stream.close()  # the process's, not the step's to close
        print("still open", flush=True)
    logs.close()
    written = read(manager, log.key, OUT).decode()
    assert written == "text\nbytes: \N{SNOWMAN}\na\nb: \\ud800\nstill open\n"


def test_routing_ends_with_the_last_run() -> None:
    """Two runs of one process share the routing, and it goes when the second is over."""
    before = sys.stdout, sys.stderr
    with route_output():
        with route_output():
            assert isinstance(sys.stdout, RoutedStream)
        assert isinstance(sys.stdout, RoutedStream)
    assert (sys.stdout, sys.stderr) == before


def test_routing_leaves_others_streams_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that someone put in place meanwhile stays."""
    other = io.StringIO()
    with route_output():
        monkeypatch.setattr(sys, "stdout", other)
    assert sys.stdout is other
