"""One run from the guardian's side: from the request to the result.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from research_jobs.outcome import Outcome, State
from research_jobs.protocol import ProtocolError, RunRequest, as_record, encode, parse_message
from research_jobs.runtime import processes
from research_jobs.runtime.channel import FrameReader, send_message
from research_jobs.runtime.ending import Facts, mask_result, tell_ending, user_stack
from research_jobs.runtime.keeping import tell_kept
from research_jobs.runtime.masking import Masker
from research_jobs.runtime.memory import MemoryWatch
from research_jobs.runtime.notebook_process import NotebookProcess
from research_jobs.runtime.pump import BoundedLog, Pump

__all__ = ["GivenRun", "GuardedRun", "Surroundings", "end_tree", "freeze"]

# How long processes that the notebook left running may take to exit by themselves: seconds.
_QUIET = 1.0
# The time between TERM and KILL for orphans, and for the notebook after its supervisor died: s.
_ORPHAN_GRACE = 0.5
# How long the last steps may take before the guardian gives up: seconds.
_LAST_STEPS = 5.0
_POLL_SUPERVISOR = 0.5
# Kilobytes, but bytes on macOS.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class GivenRun:
    """A run as the guardian receives it.

    Parameters
    ----------
    control : int
        Descriptor of the socket to the supervisor.
    stdout, stderr : int
        Descriptors of the two logs.
    supervisor : int
        Pid of the process that asked for the run: the run does not outlive it.
    supervisor_descriptor : int or None
        Becomes readable when that process ends.
    """

    control: int
    stdout: int
    stderr: int
    supervisor: int
    supervisor_descriptor: int | None


@dataclass(frozen=True)
class Surroundings:
    """What the guardian gets from the process that starts it.

    Parameters
    ----------
    next_run : callable
        Waits for a run and returns it, or None if no run comes. Its argument is readable when a
        child has ended.
    path : tuple of str
        The interpreter's own ``sys.path``.
    isolation : str
    """

    next_run: Callable[[int], GivenRun | None]
    path: tuple[str, ...]
    isolation: str


class GuardedRun:
    """The run, once it is known.

    Parameters
    ----------
    surroundings : Surroundings
    given : GivenRun
    control : socket
        To the supervisor.
    request : RunRequest
    child : NotebookProcess
    """

    def __init__(
        self,
        surroundings: Surroundings,
        given: GivenRun,
        control: socket.socket,
        request: RunRequest,
        child: NotebookProcess,
    ) -> None:
        self.around = surroundings
        self.supervisor = given.supervisor
        self.supervisor_descriptor = given.supervisor_descriptor
        self.control = control
        self.request = request
        self.process = child
        self.child = child.pid
        self.records = FrameReader(child.channel)
        self.masker = Masker(tuple(request.secrets.values()))
        self.status: int | None = None
        #: whether the child has its orders; from then on the notebook may have run
        self.begun = False
        self.cell: dict[str, Any] | None = None
        self.staging = False
        self.record: Outcome | None = None
        #: what the notebook's process says of itself when it offers to stay
        self.offered: dict[str, Any] | None = None
        #: whether it stays when its run is over
        self.kept = False
        self.pumps: tuple[Pump, ...] = ()
        self.broken: str | None = None
        self.notes: list[str] = []
        #: why the run is being ended by us
        self.reason: State | None = None
        #: whether this process received a TERM
        self.terminated = False
        #: whether a worker of the notebook tried to import it
        self.refused = False
        self.supervisor_gone = False
        self.largest_process = 0
        #: what comes next, and when (monotonic seconds)
        self.escalation: deque[tuple[float, signal.Signals]] = deque()
        self.deadline: float | None = None
        self.leave_deadline: float | None = None
        self.started_at = time.time()
        self.started = time.monotonic()
        self.usage_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.oom_kills = processes.oom_kills()
        self.watch = MemoryWatch(request.memory_bytes, request.run_id)

    # -- the run --------------------------------------------------------------------------

    def run(self, wake: int, stdout: int, stderr: int) -> bool:
        """Watch the notebook's process until nothing of it is left, and send the result.

        Returns whether the result was sent and no thread or process of the run is left. If the
        process is `kept`, it is left.
        """
        signal.signal(signal.SIGTERM, self._take_signal)
        pumps = self.pumps = self._start_pumps(stdout, stderr)
        if self.request.timeout_s is not None:
            self.deadline = self.started + self.request.timeout_s
        try:
            self._wait(wake)
        finally:
            left = [] if self.kept else self.clear_tree(wake)
        if self.kept:
            tell_kept(self, pumps, (stdout, stderr))
            return False
        self._read_record()
        self._read_refusals()
        self._drain(pumps)
        self.watch.close()
        if not (self.begun or self.record or self.broken or self.reason):
            return False  # killed before it took its orders: the supervisor may ask again
        result = self.result(left)
        if self.supervisor_gone:
            return False
        with contextlib.suppress(OSError):
            self.control.sendall(encode(mask_result(result, self.masker)))
        return not any(pump.is_alive() for pump in pumps) and not processes.descendants(os.getpid())

    def _start_pumps(self, stdout: int, stderr: int) -> tuple[Pump, Pump]:
        secrets = tuple(self.request.secrets.values())
        limit = self.request.log_limit_bytes
        pumps = (
            Pump(self.process.stdout, BoundedLog(stdout, limit=limit, secrets=secrets)),
            Pump(self.process.stderr, BoundedLog(stderr, limit=limit, secrets=secrets)),
        )
        for pump in pumps:
            pump.start()
        return pumps

    # -- waiting ----------------------------------------------------------------------------

    def _wait(self, wake: int) -> None:
        """Wait until the notebook's process has ended; blocks without a timer if none is needed."""
        poller = select.poll()
        control, records = self.control.fileno(), self.process.channel.fileno()
        refusals = self.process.refusals
        watched = {wake, control, records, refusals}
        if self.supervisor_descriptor is not None:
            watched.add(self.supervisor_descriptor)
        for descriptor in watched:
            poller.register(descriptor, select.POLLIN)
        while self.status is None and not self.kept:
            ready = {descriptor for descriptor, _events in poller.poll(self._patience())}
            if wake in ready:
                self.reap(wake)
            if records in ready:
                self._read_record()
                if self.records.closed or self.broken:
                    poller.unregister(records)
            if refusals in ready:
                poller.unregister(refusals)
                self._read_refusals()
            if control in ready and not self._read_control():
                poller.unregister(control)
            if self.supervisor_descriptor in ready:
                poller.unregister(self.supervisor_descriptor)
                self._lose_supervisor()
            self._tick()

    def _patience(self) -> float | None:
        """Milliseconds until the next check, None for never."""
        moments = [self.deadline, self.leave_deadline, self.watch.due]
        if self.escalation:
            moments.append(self.escalation[0][0])
        if self.supervisor_descriptor is None:
            moments.append(time.monotonic() + _POLL_SUPERVISOR)
        known = [moment for moment in moments if moment is not None]
        return max(0.0, (min(known) - time.monotonic()) * 1000 + 1) if known else None

    def _tick(self) -> None:
        now = time.monotonic()
        if self.terminated:
            self.terminated = False
            self._end(State.CANCELLED)
        if self.supervisor_descriptor is None and not self.supervisor_gone:
            self._poll_supervisor()
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self._end(State.TIMED_OUT)
        if self.leave_deadline is not None and now >= self.leave_deadline:
            self.leave_deadline = None
            self.notes.append("the process did not exit after its result and was killed")
            self._escalate(now, (signal.SIGTERM, signal.SIGKILL), _ORPHAN_GRACE)
        while self.escalation and now >= self.escalation[0][0]:
            self._signal_tree(self.escalation.popleft()[1])
        if self.watch.due is not None and now >= self.watch.due:
            over = self.watch.sample(processes.descendants(os.getpid()))
            if over and self.record is None:
                self._end(State.OUT_OF_MEMORY)

    def _read_control(self) -> bool:
        """Whether the supervisor is still connected; anything that it sends means cancel."""
        try:
            data = self.control.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._lose_supervisor()
            return False
        self._end(State.CANCELLED)
        return True

    def _read_record(self) -> None:
        if self.broken:
            return
        try:
            for payload in self.records.read():
                self._take(payload)
        except ProtocolError as error:
            self.broken = str(error)
            if self.status is None:
                # The rest may be garbage: this run has no result.
                self._escalate(time.monotonic(), (signal.SIGTERM, signal.SIGKILL), _ORPHAN_GRACE)

    def _read_refusals(self) -> None:
        """End the run when one of its workers tried to import the notebook."""
        if select.select([self.process.refusals], [], [], 0)[0] and os.read(
            self.process.refusals, 64
        ):
            self.refused = True
            self._end(State.FAILED)

    def _take(self, payload: bytes) -> None:
        value = parse_message(payload)
        kind = value.get("record")
        if kind == "Begun":
            self.begun = True
            send_message(self.control, "Started", pid=self.child)
        elif kind == "Keep":
            self.offered = value
        elif kind in ("Cell", "Stage"):
            if kind == "Cell" and not _is_cell(value):
                raise ProtocolError("a cell has not the shape it should have")
            # The ending reports the point at which we began to end it.
            if self.reason is None:
                self.staging = kind == "Stage"
                self.cell = self.cell if self.staging else value
        else:
            record = as_record(value)
            if not isinstance(record, Outcome):
                raise ProtocolError(f"expected a result, not a {kind}")
            self.record = record
            self.deadline = None
            self.leave_deadline = time.monotonic() + self.request.grace_s
            if self.offered is not None:
                # A process that we are ending cannot stay.
                self.kept = self.reason is None and not self.refused and self.status is None
                with contextlib.suppress(OSError):
                    send_message(self.process.channel, "Stay" if self.kept else "Leave")

    # -- ending -----------------------------------------------------------------------------

    def _end(self, reason: State) -> None:
        """Begin to end the run; the first reason counts."""
        # What the notebook has sent by now says where it is.
        self._read_record()
        if self.reason is not None or self.status is not None:
            return
        if reason is State.TIMED_OUT and self.record is not None:
            return
        self.reason = reason
        now = time.monotonic()
        if reason is State.OUT_OF_MEMORY:
            # Another second would take more memory from others.
            self._escalate(now, (signal.SIGKILL,), 0)
        else:
            order = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
            self._escalate(now, order, self.request.grace_s)

    def _take_signal(self, *_: object) -> None:
        self.terminated = True

    def _lose_supervisor(self) -> None:
        if self.supervisor_gone:
            return
        self.supervisor_gone = True
        self.reason = self.reason or State.CANCELLED
        self._escalate(time.monotonic(), (signal.SIGINT, signal.SIGKILL), _ORPHAN_GRACE)

    def _poll_supervisor(self) -> None:
        if not processes.alive(self.supervisor):
            self._lose_supervisor()

    def _escalate(self, now: float, order: tuple[signal.Signals, ...], grace: float) -> None:
        self.escalation = deque((now + step * grace, number) for step, number in enumerate(order))

    def _signal_tree(self, number: signal.Signals) -> None:
        """Send INT to the notebook's group, as a terminal does; TERM and KILL to the whole tree."""
        if number is signal.SIGINT and self.refused:
            # Its workers are not interrupted: each would print its own traceback.
            processes.signal_all([self.child], number)
        else:
            processes.signal_group(self.child, number)
        if number is not signal.SIGINT:
            processes.signal_all(processes.descendants(os.getpid()), number)
        if number is not signal.SIGKILL:
            # A stopped process handles no signal but KILL until it continues.
            processes.signal_group(self.child, signal.SIGCONT)
        else:
            self.watch.kill()

    def reap(self, wake: int) -> None:
        """Reap what has ended, when `wake` is readable."""
        processes.empty(wake)
        self._reap()

    def _reap(self) -> None:
        """Reap everything that has ended: the notebook's process and orphans of its tree."""
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

    def clear_tree(self, wake: int) -> list[str]:
        """End what is left of the tree, and return what it was."""
        at_once = self.supervisor_gone or self.status is None or self.reason is State.OUT_OF_MEMORY
        if not at_once:
            # Helpers of multiprocessing exit by themselves, and clean up as they do.
            self._wait_until_empty(wake, _QUIET)
        self._reap()
        remaining = processes.descendants(os.getpid())
        named = [command for pid in remaining if (command := processes.command_of(pid))]
        if not processes.LINUX:
            processes.signal_group(self.child, signal.SIGTERM)
            processes.signal_group(self.child, signal.SIGKILL)
        if remaining and not at_once:
            processes.signal_all(remaining, signal.SIGTERM)
            processes.signal_all(remaining, signal.SIGCONT)
            self._wait_until_empty(wake, _ORPHAN_GRACE)
        count = end_tree(
            os.getpid(), time.monotonic() + _LAST_STEPS, lambda: self._after_kill(wake)
        )
        if count:
            self.notes.append(f"{count} processes could not be ended")
        self._reap()
        return named

    def _after_kill(self, wake: int) -> None:
        self.watch.kill()
        self._wait_until_empty(wake, 0.05)

    def _wait_until_empty(self, wake: int, patience: float) -> None:
        """Reap until no descendant is left, at most for so many seconds."""
        end = time.monotonic() + patience
        while True:
            self._reap()
            remaining = end - time.monotonic()
            if remaining <= 0 or not processes.descendants(os.getpid()):
                return
            if select.select([wake], [], [], remaining)[0]:
                processes.empty(wake)

    def _drain(self, pumps: tuple[Pump, Pump]) -> None:
        """Write the last output to the logs, but do not wait for a process that holds a pipe."""
        end = time.monotonic() + _LAST_STEPS
        for name, pump in zip(("stdout", "stderr"), pumps, strict=True):
            pump.join(max(0.0, end - time.monotonic()))
            if pump.is_alive():
                self.notes.append(f"{name} was still open; its end may be missing")
            if pump.log.error is not None:
                self.notes.append(f"{name} could not be logged: {pump.log.error.strerror}")
            if pump.log.dropped:
                self.notes.append(f"{name}: {pump.log.dropped} bytes in its middle were left out")

    # -- telling ----------------------------------------------------------------------------

    def result(self, left: list[str]) -> Outcome:
        usage, before = resource.getrusage(resource.RUSAGE_CHILDREN), self.usage_before
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            self.notes.append(f"ended what was left running: {', '.join(left[:3])}{more}")
        if self.watch.note:
            self.notes.append(self.watch.note)
        result = tell_ending(self._facts())
        return replace(
            result,
            started_at=self.started_at,
            duration_s=time.monotonic() - self.started,
            cpu_s=usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
            peak_memory_bytes=max(self.watch.peak, self.largest_process),
            pid=self.child,
            isolation=self.around.isolation,
            notes=(*result.notes, *self.notes),
        )

    def _facts(self) -> Facts:
        before, now = self.oom_kills, processes.oom_kills()
        killed = before is not None and now is not None and now > before
        return Facts(
            request=self.request,
            record=self.record,
            broken=self.broken,
            reason=self.reason or (State.FAILED if self.refused else None),
            status=self.status,
            cell=self.cell,
            staging=self.staging,
            stack=user_stack(self.process.fault_text()),
            memory_used=self.watch.held_peak or self.largest_process,
            killed_for_memory=killed or self.watch.was_killed,
        )


def freeze(root: int, until: float) -> set[int]:
    """Stop every descendant until there is no new one: only that catches a fork bomb.

    The kernel stops a process group at once, so none of its members can fork meanwhile.

    Parameters
    ----------
    root : int
    until : float
        When to give up, on the monotonic clock.
    """
    stopped: set[int] = set()
    while (new := set(processes.descendants(root)) - stopped) and time.monotonic() < until:
        for group in processes.groups_of(new) - {os.getpgid(root)}:
            processes.signal_group(group, signal.SIGSTOP)
        processes.signal_all(new, signal.SIGSTOP)
        stopped |= new
    return stopped


def end_tree(root: int, until: float, reap: Callable[[], None]) -> int:
    """Kill every descendant, after stopping all of them.

    Parameters
    ----------
    root, until
        As for `freeze`.
    reap : callable
        Called after each round.

    Returns
    -------
    int
        How many are left when the time is up.
    """
    while remaining := freeze(root, until):
        processes.signal_all(remaining, signal.SIGKILL)
        reap()
        if time.monotonic() > until:
            break
    return len(processes.descendants(root))


def _is_cell(message: Mapping[str, Any]) -> bool:
    """Whether a message is one that `Facts.cell` can be."""
    texts = (message.get("title"), message.get("source"))
    return isinstance(message.get("number"), int) and all(
        text is None or isinstance(text, str) for text in texts
    )
