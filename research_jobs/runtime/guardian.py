"""The small process that stands between the supervisor and one notebook's process.

It starts the notebook's process, carries its output to the logs, watches time and memory, and
sees to it that nothing outlives the run: it adopts every orphan of the tree, and it notices the
death of the supervisor however that dies. At the end it says what became of the run, once.

Its ways out::

    supervisor ──request, cancel──▶ guardian ──fork──▶ notebook
               ◀──── RunResult ────          ◀─cells, record─
                                   ◀─stdout, stderr (pipes)──

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from research_jobs.protocol import (
    Ending,
    Failure,
    ProtocolError,
    RunRequest,
    RunResult,
    decode,
    encode,
)
from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    FrameReader,
    as_text_mapping,
    parse_message,
    receive_frame,
    receive_message,
    send_message,
)
from research_jobs.runtime.fresh import FreshState, become_fresh
from research_jobs.runtime.masking import Masker
from research_jobs.runtime.memory import MemoryWatch
from research_jobs.runtime.pump import BoundedLog, Pump
from research_jobs.store.files import crash_point

__all__ = ["Surroundings", "run_guardian", "shown_path", "start_guardian"]

# How long orphans get between TERM and KILL, and the notebook after its supervisor died: seconds.
_ORPHAN_GRACE = 0.5
# How long the last steps may take before they are given up: seconds.
_LAST_STEPS = 5.0
_POLL_PARENT = 0.5


@dataclass(frozen=True)
class Surroundings:
    """What the guardian's process was given by its maker.

    Parameters
    ----------
    control : int
        Descriptor of the socket to the supervisor.
    stdout, stderr : int
        Descriptors of the run's logs.
    parent : int
        Pid of the supervisor.
    parent_descriptor : int or None
        Becomes readable when the supervisor ends.
    path : tuple of str
        The interpreter's own ``sys.path``.
    isolation : str
    """

    control: int
    stdout: int
    stderr: int
    parent: int
    parent_descriptor: int | None
    path: tuple[str, ...]
    isolation: str


def start_guardian(control: int, parent: int, stdout: int, stderr: int) -> NoReturn:
    """Guard one run in this process, which was started cold, and leave."""
    descriptor = processes.open_process(parent)
    if os.getppid() != parent:
        os._exit(1)
    run_guardian(
        Surroundings(
            control=control,
            stdout=stdout,
            stderr=stderr,
            parent=parent,
            parent_descriptor=descriptor,
            path=tuple(sys.path),
            isolation="spawn",
        )
    )


def run_guardian(surroundings: Surroundings) -> NoReturn:
    """Guard one run in this process, and leave."""
    status = 1
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        processes.adopt_orphans()
        processes.name_process("rj-guardian")
        # What goes wrong here should be found in the run's log.
        os.dup2(surroundings.stderr, 2)
        control = socket.socket(fileno=surroundings.control)
        start = receive_message(control)
        payload = receive_frame(control) if start is not None else None
        if start is not None and payload is not None:
            request = decode(payload)
            assert isinstance(request, RunRequest)
            _Guardian(surroundings, control, start, request).run()
            status = 0
    except BaseException:  # noqa: BLE001 - nothing is left that could handle it
        with contextlib.suppress(Exception):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class _Guardian:
    def __init__(
        self,
        surroundings: Surroundings,
        control: socket.socket,
        start: Mapping[str, Any],
        request: RunRequest,
    ) -> None:
        self.around = surroundings
        self.control = control
        self.request = request
        self.environment = _environment(start, request)
        self.umask = int(start.get("umask", 0o022))
        self.masker = Masker(tuple(request.secrets.values()))
        self.child = 0
        self.status: int | None = None
        self.cell: dict[str, Any] | None = None
        self.staging = False
        self.record: RunResult | None = None
        self.broken: str | None = None
        self.notes: list[str] = []
        #: why the run is being ended by us
        self.reason: Ending | None = None
        self.supervisor_gone = False
        self.peak_memory = 0
        self.largest_process = 0
        #: what comes next, and when (monotonic seconds)
        self.escalation: deque[tuple[float, signal.Signals]] = deque()
        self.deadline: float | None = None
        self.leave_deadline: float | None = None
        self.started_at = time.time()
        self.started = time.monotonic()
        self.oom_kills = processes.oom_kills()
        self.watch = MemoryWatch(request.memory_bytes, request.run_id)

    # -- the run --------------------------------------------------------------------------

    def run(self) -> None:
        wake = self._signals()
        self._start_child()
        send_message(self.control, "Started", guardian=os.getpid(), pid=self.child)
        if self.request.timeout_s is not None:
            self.deadline = self.started + self.request.timeout_s
        try:
            self._wait(wake)
        finally:
            left = self._clear_tree(wake)
        self._read_record()
        self._drain()
        result = self._result(left)
        self.watch.close()
        if self.supervisor_gone:
            return
        try:
            frame = _frame(result, self.masker)
        except ProtocolError as error:
            failure = self._failure(f"its result cannot be sent: {error}")
            frame = encode(RunResult(Ending.EXITED, failure=failure, pid=self.child))
        crash_point("guardian-before-result")
        with contextlib.suppress(OSError):
            self.control.sendall(frame)

    def _signals(self) -> int:
        """Wake up for children that end, and take TERM as a wish to cancel."""
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end(Ending.CANCELLED))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return reader

    def _start_child(self) -> None:
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        ours, theirs = socket.socketpair()
        self.faults = _memory_file()
        guardian = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.child = os.fork()
        if self.child == 0:
            self._become_child(guardian, out_writer, err_writer, theirs.fileno())
        for descriptor in (out_writer, err_writer):
            os.close(descriptor)
        theirs.close()
        self.records = FrameReader(ours)
        self.records_socket = ours
        limit = self.request.log_limit_bytes
        secrets = tuple(self.request.secrets.values())
        self.pumps = [
            Pump(source, BoundedLog(target, limit=limit, secrets=secrets))
            for source, target in (
                (out_reader, self.around.stdout),
                (err_reader, self.around.stderr),
            )
        ]
        for pump in self.pumps:
            pump.start()

    def _become_child(self, guardian: int, stdout: int, stderr: int, channel: int) -> NoReturn:
        status = 1
        try:
            processes.die_with_parent(guardian)
            os.setsid()
            processes.name_process(self.request.module.rpartition(".")[2] or "notebook")
            processes.prefer_for_oom()
            self.watch.enter()
            become_fresh(
                FreshState(
                    environment=self.environment,
                    working_directory=self.request.working_directory,
                    argv=(self.request.path,),
                    sys_path=_sys_path(self.request, self.around.path),
                    umask=self.umask,
                ),
                stdout=stdout,
                stderr=stderr,
                keep=(channel, self.faults),
                faults=self.faults,
            )
            from research_jobs.runtime.child import run_child

            run_child(self.request, channel)
        except BaseException as error:  # noqa: BLE001 - nothing is left that could handle it
            with contextlib.suppress(Exception):
                os.write(2, traceback.format_exc().encode())
                os.write(channel, encode(self._not_set_up(error)))
        finally:
            os._exit(status)

    def _not_set_up(self, error: BaseException) -> RunResult:
        told = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is not None:
            told = f"{error.strerror}: {error.filename}"
        place = shown_path(self.request)
        headline = f"{place}: its process could not be set up: {told}"
        return RunResult(Ending.FAILED, failure=Failure(headline=headline))

    # -- waiting ----------------------------------------------------------------------------

    def _wait(self, wake: int) -> None:
        """Until the notebook's process has ended; blocks without a clock where nothing asks."""
        poller = select.poll()
        control, records = self.control.fileno(), self.records_socket.fileno()
        watched = {wake, control, records}
        if self.around.parent_descriptor is not None:
            watched.add(self.around.parent_descriptor)
        for descriptor in watched:
            poller.register(descriptor, select.POLLIN)
        while self.status is None:
            ready = {descriptor for descriptor, _events in poller.poll(self._patience())}
            if wake in ready:
                _empty(wake)
                self._reap()
            if records in ready:
                self._read_record()
                if self.records.closed or self.broken:
                    poller.unregister(records)
            if control in ready and not self._read_control():
                poller.unregister(control)
            if self.around.parent_descriptor in ready:
                poller.unregister(self.around.parent_descriptor)
                self._lose_supervisor()
            self._tick()

    def _patience(self) -> float | None:
        """Milliseconds until something has to be looked at, None for ever."""
        moments = [self.deadline, self.leave_deadline, self.watch.due]
        if self.escalation:
            moments.append(self.escalation[0][0])
        if self.around.parent_descriptor is None:
            moments.append(time.monotonic() + _POLL_PARENT)
        known = [moment for moment in moments if moment is not None]
        return max(0.0, (min(known) - time.monotonic()) * 1000 + 1) if known else None

    def _tick(self) -> None:
        now = time.monotonic()
        if self.around.parent_descriptor is None and not self.supervisor_gone:
            self._poll_parent()
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self._end(Ending.TIMED_OUT)
        if self.leave_deadline is not None and now >= self.leave_deadline:
            self.leave_deadline = None
            self.notes.append("the process did not leave after its result, and was ended")
            self._escalate(now, (signal.SIGTERM, signal.SIGKILL), _ORPHAN_GRACE)
        while self.escalation and now >= self.escalation[0][0]:
            self._signal_tree(self.escalation.popleft()[1])
        if self.watch.due is not None and now >= self.watch.due:
            over = self.watch.sample(processes.descendants(os.getpid()))
            if over and self.record is None:
                self._end(Ending.OUT_OF_MEMORY)

    def _read_control(self) -> bool:
        """Whether the supervisor is still there; anything that it sends means cancel."""
        try:
            data = self.control.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._lose_supervisor()
            return False
        self._end(Ending.CANCELLED)
        return True

    def _read_record(self) -> None:
        if self.broken:
            return
        try:
            for payload in self.records.read():
                self._take(payload)
        except (ProtocolError, KeyError, TypeError, ValueError) as error:
            self.broken = str(error)
            if self.status is None:
                # What follows cannot be told apart from noise: this run has no result.
                self._escalate(time.monotonic(), (signal.SIGTERM, signal.SIGKILL), _ORPHAN_GRACE)

    def _take(self, payload: bytes) -> None:
        value = parse_message(payload)
        kind = value.get("record")
        if kind in ("Cell", "Stage"):
            # Where it was when we began to end it is what the ending tells.
            if self.reason is None:
                self.staging = kind == "Stage"
                self.cell = self.cell if self.staging else value
        else:
            record = decode(payload)
            if not isinstance(record, RunResult):
                raise ProtocolError(f"a {kind} is no result")
            self.record = record
            self.deadline = None
            self.leave_deadline = time.monotonic() + self.request.grace_s

    # -- ending -----------------------------------------------------------------------------

    def _end(self, reason: Ending) -> None:
        """Begin to end the run, for this reason unless there is one already."""
        if self.reason is not None or self.status is not None:
            return
        self.reason = reason
        now = time.monotonic()
        if reason is Ending.OUT_OF_MEMORY:
            # Every second would take more of what others need.
            self._escalate(now, (signal.SIGKILL,), 0)
        else:
            order = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
            self._escalate(now, order, self.request.grace_s)

    def _lose_supervisor(self) -> None:
        if self.supervisor_gone:
            return
        self.supervisor_gone = True
        self.reason = self.reason or Ending.CANCELLED
        self._escalate(time.monotonic(), (signal.SIGINT, signal.SIGKILL), _ORPHAN_GRACE)

    def _poll_parent(self) -> None:
        if not processes.alive(self.around.parent):
            self._lose_supervisor()

    def _escalate(self, now: float, order: tuple[signal.Signals, ...], grace: float) -> None:
        self.escalation = deque((now + step * grace, number) for step, number in enumerate(order))

    def _signal_tree(self, number: signal.Signals) -> None:
        """INT goes to the notebook's group, as from a terminal; TERM and KILL to the whole tree."""
        processes.signal_group(self.child, number)
        if number is not signal.SIGINT:
            processes.signal_all(processes.descendants(os.getpid()), number)
        if number is not signal.SIGKILL:
            # A stopped process takes no signal but KILL until it goes on.
            processes.signal_group(self.child, signal.SIGCONT)
        else:
            self.watch.kill()

    def _reap(self) -> None:
        """Collect everything that has ended: the notebook's process, and orphans of its tree."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.largest_process = max(self.largest_process, usage.ru_maxrss * _MAXRSS_UNIT)
            if pid == self.child:
                self.status = status

    def _clear_tree(self, wake: int) -> list[str]:
        """End what is left of the tree, and say what that was."""
        self._reap()
        remaining = processes.descendants(os.getpid())
        named = [command for pid in remaining if (command := processes.command_of(pid))]
        if not processes.LINUX:
            processes.signal_group(self.child, signal.SIGTERM)
            processes.signal_group(self.child, signal.SIGKILL)
        at_once = self.supervisor_gone or self.status is None or self.reason is Ending.OUT_OF_MEMORY
        if remaining and not at_once:
            processes.signal_all(remaining, signal.SIGTERM)
            processes.signal_all(remaining, signal.SIGCONT)
            self._wait_until_empty(wake, _ORPHAN_GRACE)
        give_up = time.monotonic() + _LAST_STEPS
        while remaining := processes.descendants(os.getpid()):
            processes.signal_all(remaining, signal.SIGKILL)
            self.watch.kill()
            self._wait_until_empty(wake, 0.05)
            if time.monotonic() > give_up:
                self.notes.append(f"{len(remaining)} processes could not be ended")
                break
        self._reap()
        return named

    def _wait_until_empty(self, wake: int, patience: float) -> None:
        """Reap until no descendant is left, or for so many seconds."""
        end = time.monotonic() + patience
        while True:
            self._reap()
            remaining = end - time.monotonic()
            if remaining <= 0 or not processes.descendants(os.getpid()):
                return
            if select.select([wake], [], [], remaining)[0]:
                _empty(wake)

    def _drain(self) -> None:
        """Let the logs get the last of the output; who still holds a pipe does not hold the run."""
        end = time.monotonic() + _LAST_STEPS
        for name, pump in zip(("stdout", "stderr"), self.pumps, strict=True):
            pump.join(max(0.0, end - time.monotonic()))
            if pump.is_alive():
                self.notes.append(f"{name} was still held open, its end may be missing")
            if pump.log.error is not None:
                self.notes.append(f"{name} could not be logged: {pump.log.error.strerror}")
            if pump.log.dropped:
                self.notes.append(f"{name}: {pump.log.dropped} bytes in its middle were left out")

    # -- telling ----------------------------------------------------------------------------

    def _result(self, left: list[str]) -> RunResult:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.peak_memory = max(self.watch.peak, self.largest_process)
        if left:
            shown = ", ".join(left[:3]) + ("..." if len(left) > 3 else "")
            self.notes.append(f"ended {len(left)} processes that were left running: {shown}")
        result = self._merge()
        return replace(
            result,
            started_at=self.started_at,
            duration_s=time.monotonic() - self.started,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_memory_bytes=self.peak_memory,
            pid=self.child,
            isolation=self.around.isolation,
            notes=(*result.notes, *self.notes),
        )

    def _merge(self) -> RunResult:
        """One ending out of what the process said, how it ended, and why we ended it."""
        record, status = self.record, self.status
        if self.reason is not None:
            return self._ended_by_us(self.reason, record)
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        if record is not None and self.broken is None:
            if number is not None and self.leave_deadline is not None:
                self.notes.append(f"{_signal_name(number)} ended the process after its result")
            return record
        if self.broken is not None:
            told = f"left a record that is not one: {self.broken}"
            return RunResult(Ending.EXITED, failure=self._failure(told))
        if number is not None:
            return self._killed(number)
        code = os.WEXITSTATUS(status) if status is not None else None
        told = f"exited without result (code {code}), as os._exit() does"
        return RunResult(Ending.EXITED, failure=self._failure(told))

    def _ended_by_us(self, reason: Ending, record: RunResult | None) -> RunResult:
        told = {
            Ending.TIMED_OUT: f"timed out after {_seconds(self.request.timeout_s or 0)}",
            Ending.CANCELLED: "cancelled",
            Ending.OUT_OF_MEMORY: self._memory_told(),
        }[reason]
        failure = self._failure(told)
        if record is not None and record.failure is not None:
            # Where the interrupt met the notebook is where it hung.
            met = record.failure
            failure = replace(failure, traceback=met.traceback, line=met.line)
            if met.line is not None and met.cell == failure.cell:
                failure = replace(failure, headline=f"{self._place(met.line)}: {told}")
        sha = record.source_sha256 if record else None
        return RunResult(reason, failure=failure, source_sha256=sha)

    def _killed(self, number: int) -> RunResult:
        name = _signal_name(number)
        stack = _fault_text(self.faults)
        if number == signal.SIGKILL:
            before, now = self.oom_kills, processes.oom_kills()
            if self.watch.was_killed() or (before is not None and now is not None and now > before):
                told = f"{self._memory_told()}; the kernel's out-of-memory killer ended it"
                return RunResult(
                    Ending.OUT_OF_MEMORY, failure=replace(self._failure(told), signal=name)
                )
            told = (
                "killed by SIGKILL from outside (not by its supervisor; "
                "perhaps by the kernel's out-of-memory killer)"
            )
        else:
            told = f"crashed with {name} ({signal.strsignal(number)})"
        line = _line_in(stack, self.request.path)
        failure = replace(self._failure(told, line), signal=name, traceback=stack, line=line)
        return RunResult(Ending.CRASHED, failure=failure)

    def _memory_told(self) -> str:
        peak = max(self.watch.held_peak, self.largest_process if not self.watch.held_peak else 0)
        limit = self.request.memory_bytes
        told = f"out of memory: {_size(peak)} used"
        return f"{told}, the limit is {_size(limit)}" if limit is not None else told

    def _failure(self, told: str, line: int | None = None) -> Failure:
        cell = self.cell
        return Failure(
            headline=f"{self._place(line)}: {told}",
            cell=cell["number"] if cell else None,
            cell_title=cell.get("title") if cell else None,
            cell_source=cell.get("source") if cell else None,
        )

    def _place(self, line: int | None) -> str:
        place = shown_path(self.request) + (f":{line}" if line is not None else "")
        if self.staging:
            return f"{place}, while its outputs were staged"
        if self.cell is None:
            return f"{place}, before its first cell"
        title = self.cell.get("title")
        return f"{place}, cell {self.cell['number']}" + (f' "{title}"' if title else "")


def shown_path(request: RunRequest) -> str:
    """The notebook's file as a person should see it: relative to the project."""
    path = Path(request.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(request.project_root)
    return path.as_posix()


_MAXRSS_UNIT = 1024 if sys.platform != "darwin" else 1


def _environment(start: Mapping[str, Any], request: RunRequest) -> dict[str, str]:
    environment = as_text_mapping(start.get("environment", {}))
    environment["RESEARCH_JOBS_PROJECT"] = request.project_root
    environment["RESEARCH_JOBS_STORE"] = request.store
    environment.update(request.environment)
    return environment


def _sys_path(request: RunRequest, own: tuple[str, ...]) -> tuple[str, ...]:
    first = tuple(dict.fromkeys(request.sys_path))
    return (*first, *(entry for entry in own if entry not in first))


def _frame(result: RunResult, masker: Masker) -> bytes:
    """The result as a frame without secrets; places of files are left as they are."""
    if masker:
        value = masker.value
        failure = result.failure
        result = replace(
            result,
            failure=failure
            and replace(
                failure,
                **{
                    name: masker.text(text)
                    for name in ("headline", "traceback", "cell_title", "cell_source")
                    if (text := getattr(failure, name)) is not None
                },
            ),
            skip_reason=result.skip_reason and masker.text(result.skip_reason),
            outputs=tuple(
                replace(item, preview=value(item.preview), statistics=value(item.statistics))
                for item in result.outputs
            ),
            checks=tuple(
                replace(
                    item,
                    description=masker.text(item.description),
                    metadata=value(item.metadata),
                )
                for item in result.checks
            ),
            parameters=value(result.parameters),
            notes=tuple(map(masker.text, result.notes)),
        )
    return encode(result)


def _memory_file() -> int:
    """A private file without a name, for Python's stack at a fault."""
    create = getattr(os, "memfd_create", None)
    if create is not None:
        return int(create("research_jobs_faults"))
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _fault_text(descriptor: int) -> str:
    """Python's stack at a fault, innermost first, without our own frames and lists of modules."""
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, 256 * 1024, 0).decode("utf-8", "replace")
        own = f'File "{Path(__file__).resolve().parents[1]}{os.sep}'
        noise = (own, "<frozen importlib", "Extension modules:", "/importlib/__init__.py")
        lines = [line for line in text.splitlines() if not any(part in line for part in noise)]
        return "\n".join(lines).strip()
    return ""


def _line_in(stack: str, path: str) -> int | None:
    """The innermost line of a file in a stack as `faulthandler` writes it."""
    found = re.search(rf'^  File "{re.escape(path)}", line (\d+) ', stack, re.MULTILINE)
    return int(found[1]) if found else None


def _empty(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"
