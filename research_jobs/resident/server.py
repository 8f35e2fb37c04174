"""The host's side: listen, fork a process for each request, reap, stay as fresh as a cold start.

It has one thread, no database connection and no gRPC; that is checked before each fork. What it
has in memory is compared with the files that it comes from before it answers a request. When one
has changed, it executes itself anew and answers then. Its children go on. Commands read notebooks
and manifest themselves, so they do not wait for that if only these have changed.

Requests::

    Run      run_id, instance, environment, umask   ─▶ Started pid ◀─ Go
    Command  words, environment, umask, folder,     ─▶ Started pid ◀─ Go, Signal number …
             encoding; with stdin, stdout, stderr   ─▶ Exited code
    Template interpreter                            ─▶ Template …, with a connection to it
    Renew                                           ─▶ Renewing
    Status                                          ─▶ Status pid, since, runs

Nothing runs before the client's Go: one that has given up waiting has started the run otherwise.

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from research_jobs.errors import ProjectError
from research_jobs.process import hand_down
from research_jobs.project import REPORTS_VARIABLE, STORE_VARIABLE, UI_VARIABLE, Project
from research_jobs.protocol import ProtocolError
from research_jobs.resident.address import (
    host_key,
    host_lock,
    identity,
    peer_user,
    socket_address,
    socket_folder,
)
from research_jobs.resident.children import run_command, work_on_run
from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    MESSAGE_LIMIT,
    as_text_mapping,
    receive_descriptors,
    send_message,
)
from research_jobs.runtime.fresh import default_signals, fresh_randomness

__all__ = ["Host", "Listening", "Work", "listen"]

_logger = logging.getLogger("research_jobs")

# How long a client may take to send its request, seconds.
REQUEST_S = 2.0
# The variables that definitions depend on; the others are a run's own.
SETTINGS = frozenset(
    {
        "RESEARCH_JOBS_MAX_CONCURRENT",
        REPORTS_VARIABLE,
        STORE_VARIABLE,
        UI_VARIABLE,
    }
)


@dataclass(frozen=True)
class Work:
    """What a host does, given by whoever knows about Dagster and commands.

    Parameters
    ----------
    run : callable
        Works on a run in this process, given the request; returns the exit code.
    conclude : callable
        Records that the process of a run has ended without ending it: run id, request's instance,
        and what became of the process.
    command : callable
        Runs a command in this process, given its words; returns the exit code.
    changed : callable
        Returns what no longer matches a cold start, or None.
    outdated : callable
        As `changed`, of imported code and settings alone: not of notebooks and manifest.
    lend : callable
        Returns what describes the template of an interpreter, and a connection to it, or None.
    """

    run: Callable[[Mapping[str, Any]], int]
    conclude: Callable[[str, str, str], int]
    command: Callable[[Sequence[str]], int]
    changed: Callable[[], str | None]
    outdated: Callable[[], str | None]
    lend: Callable[[str], tuple[Mapping[str, Any], int] | None]


@dataclass(frozen=True)
class _Run:
    """A run that a child works on."""

    run_id: str
    instance: str


@dataclass
class Listening:
    """What a host keeps when it executes itself anew.

    Parameters
    ----------
    listener, lock : int
        Descriptors.
    runs : dict of int to list of str
        Child to run id and instance.
    waiting : list of int
        Descriptors of a request that is not answered yet: its connection, a file with its message,
        and those that came with it.
    """

    listener: int
    lock: int
    runs: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    waiting: list[int] = field(default_factory=list[int])

    def to_json(self) -> str:
        """As one word of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Listening:
        """From `to_json`."""
        value = json.loads(text)
        runs = {int(pid): list(map(str, run)) for pid, run in value["runs"].items()}
        waiting = list(map(int, value["waiting"]))
        return cls(int(value["listener"]), int(value["lock"]), runs, waiting)


def listen(project: Project) -> Listening:
    """Become the host of a project, user and environment.

    A socket that a killed host left behind is replaced: the lock, which ends with its process,
    tells one from the other.

    Raises
    ------
    ProjectError
        When there is one already, or this is no Linux.
    """
    if sys.platform != "linux":
        raise ProjectError("a host needs Linux", hint="Runs are launched as Dagster does.")
    project.make_state_folder("host")
    folder, key = socket_folder(project), host_key(os.environ)
    lock = os.open(host_lock(folder, key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ProjectError(
            "a host of this project and environment runs already", hint="One is enough."
        ) from None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with socket_address(folder, key) as address:
            Path(address).unlink(missing_ok=True)
            listener.bind(address)
    finally:
        os.umask(mask)
    listener.listen(128)
    return Listening(listener.detach(), lock)


class Host:
    """Serves requests until it is asked to stop.

    Parameters
    ----------
    project : Project
    listening : Listening
    work : Work
    again : sequence of str
        The command that executes the host anew, to which `Listening.to_json` is added.
    environment : mapping of str to str
        The variables of a host that starts, before the project's ``.env``.
    patience_s : float
        How long a host that is asked to stop waits for its runs.
    with_stdin : bool
        Whether it stops, with its runs, when its standard input is closed.
    """

    def __init__(
        self,
        project: Project,
        listening: Listening,
        work: Work,
        *,
        again: Sequence[str],
        environment: Mapping[str, str],
        patience_s: float,
        with_stdin: bool = False,
    ) -> None:
        self.project = project
        self.work = work
        self.again = tuple(again)
        self.environment = dict(environment)
        self.patience_s = patience_s
        self.with_stdin = with_stdin
        self.lock = listening.lock
        self.listener = socket.socket(fileno=listening.listener)
        self.listener.setblocking(False)
        self.runs = {pid: _Run(*run) for pid, run in listening.runs.items()}
        self.commands: set[int] = set()
        self.since = time.time()
        self.stopping: float | None = None
        self.told: set[int] = set()
        self.waiting = listening.waiting

    # -- serving --------------------------------------------------------------------------

    def serve(self) -> int:
        """Serve until a signal says to stop; return the exit code."""
        wake = self._take_signals()
        gc.collect()
        # A collection does not write to frozen objects, so their memory stays shared.
        gc.freeze()
        self.descriptors = processes.open_descriptors() - {*self.waiting}
        self._reap()
        self._take_up()
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self.listener, select.POLLIN)
        if self.with_stdin:
            poller.register(0, select.POLLHUP)
        while True:
            ready = {descriptor for descriptor, _events in poller.poll(self._patience_ms())}
            if wake in ready:
                processes.empty(wake)
                self._reap()
            if 0 in ready:
                poller.unregister(0)
                self.told.add(signal.SIGINT)
            if self.told:
                self._begin_to_stop(poller)
            if self.stopping is not None:
                if not (self.runs or self.commands) or time.monotonic() >= self.stopping:
                    return 0
            elif self.listener.fileno() in ready:
                self._take_requests()

    def _take_signals(self) -> int:
        self.wake = processes.wake_for_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        return self.wake[0]

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.told.add(number)

    def _begin_to_stop(self, poller: select.poll) -> None:
        """Take no new request. INT ends the children too; after TERM they go on."""
        if self.stopping is None:
            self.stopping = time.monotonic() + self.patience_s
            poller.unregister(self.listener)
            # Nobody waits for an answer that does not come, and another host may begin.
            self._remove_socket()
            self.listener.close()
            os.close(self.lock)
        if signal.SIGINT in self.told:
            processes.signal_all([*self.runs, *self.commands], signal.SIGINT)
        self.told.clear()

    def _remove_socket(self) -> None:
        folder, key = socket_folder(self.project), host_key(self.environment)
        with contextlib.suppress(OSError), socket_address(folder, key) as address:
            Path(address).unlink()

    def _patience_ms(self) -> float | None:
        if self.stopping is None:
            return None
        return max(0.0, self.stopping - time.monotonic()) * 1000 + 1

    def _take_requests(self) -> None:
        while True:
            why = self.work.outdated()
            if why is not None:
                self.renew(f"{why} has changed")
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            with connection, _declining(connection):
                connection.settimeout(REQUEST_S)
                if peer_user(connection) == os.getuid():
                    self._answer(connection, *receive_descriptors(connection, 3))

    def _take_up(self) -> None:
        """Answer the request for which this host was executed anew."""
        if not self.waiting:
            return
        for descriptor in self.waiting:
            os.set_inheritable(descriptor, False)
        connected, text, *descriptors = self.waiting
        self.waiting = []
        message = os.pread(text, MESSAGE_LIMIT, 0)
        os.close(text)
        with socket.socket(fileno=connected) as connection, _declining(connection):
            connection.settimeout(REQUEST_S)
            self._answer(connection, json.loads(message), descriptors)

    def _answer(
        self,
        connection: socket.socket,
        message: Mapping[str, Any] | None,
        descriptors: Sequence[int],
    ) -> None:
        try:
            if message is None:
                return
            why = None if message.get("record") == "Command" else self.work.changed()
            if why is not None:
                text = os.memfd_create("request", 0)
                os.write(text, json.dumps(message).encode())
                self.renew(f"{why} has changed", (connection.fileno(), text, *descriptors))
            mine = identity()
            other = next((name for name in mine if message.get(name) != mine[name]), None)
            if other is not None:
                raise ValueError(f"its {other} is {mine[other]}")
            match message.get("record"):
                case "Run":
                    self._check_settings(as_text_mapping(message["environment"]))
                    pid = self._fork(
                        lambda: work_on_run(message, connection, self.project.root, self.work.run),
                        {connection.fileno()},
                    )
                    self.runs[pid] = _Run(str(message["run_id"]), str(message["instance"]))
                    send_message(connection, "Started", pid=pid)
                case "Command" if len(descriptors) == 3:
                    pid = self._fork(
                        lambda: run_command(message, connection, descriptors, self.work.command),
                        {connection.fileno(), *descriptors},
                    )
                    self.commands.add(pid)
                    send_message(connection, "Started", pid=pid)
                case "Template":
                    self._lend(connection, str(message["interpreter"]))
                case "Renew":
                    send_message(connection, "Renewing")
                    self.renew("it was asked to")
                case "Status":
                    send_message(
                        connection,
                        "Status",
                        pid=os.getpid(),
                        since=self.since,
                        runs=[run.run_id for run in self.runs.values()],
                    )
                case other:
                    raise ValueError(f"it knows no request {other}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _check_settings(self, environment: Mapping[str, str]) -> None:
        """Decline a launcher for whom the definitions would be others."""
        for name in sorted({*environment, *self.environment}):
            if name in SETTINGS and environment.get(name) != self.environment.get(name):
                raise ValueError(f"its {name} is another one")

    def _lend(self, connection: socket.socket, python: str) -> None:
        lent = self.work.lend(python)
        if lent is None:
            raise ValueError(f"it has no template of {python}")
        loan, descriptor = lent
        send_message(connection, "Template", fds=(descriptor,), **loan)

    # -- children -------------------------------------------------------------------------

    def _fork(self, work: Callable[[], int], passed: Collection[int] = ()) -> int:
        """Fork a process that does some work, with some descriptors, and ends.

        Raises
        ------
        ValueError
            When this process has something that does not survive a fork.
        """
        unfit = self._unfit(passed)
        if unfit is not None:
            raise ValueError(unfit)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            self._become_child()
            status = work()
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 - nothing could handle it any more
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status)

    def _unfit(self, passed: Collection[int]) -> str | None:
        """What this process has and a forked one must not."""
        threads = processes.thread_names()
        if threads:
            return f"it has a thread more ({threads[-1]})"
        more = processes.open_descriptors() - self.descriptors - set(passed)
        if more:
            return f"it has an open file or connection more ({_target(min(more))})"
        return "it has imported gRPC" if "grpc" in sys.modules else None

    def _become_child(self) -> None:
        hand_down(on=False)
        default_signals()
        for descriptor in self.wake:
            os.close(descriptor)
        if self.stopping is None:
            self.listener.close()
            os.close(self.lock)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.setsid()
        fresh_randomness()
        gc.enable()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.commands.clear()
                lost = list(self.runs)
                for pid in lost:
                    self._conclude(pid, "is gone")
                return
            if pid == 0:
                return
            self.commands.discard(pid)
            if pid in self.runs:
                code = os.waitstatus_to_exitcode(status)
                if code:
                    self._conclude(pid, _told(code))
                else:
                    del self.runs[pid]

    def _conclude(self, pid: int, told: str) -> None:
        """Have it recorded that a run's process ended before its run, in a process of its own."""
        run = self.runs.pop(pid)
        what = f"Its process {pid} {told}."

        def work() -> int:
            processes.name_process("rj-conclude")
            return self.work.conclude(run.run_id, run.instance, what)

        try:
            self.commands.add(self._fork(work))
        except (OSError, ValueError) as error:  # run monitoring notices it later
            _logger.warning("run %s: %s Not recorded: %s", run.run_id, what, error)

    # -- anew -----------------------------------------------------------------------------

    def renew(self, why: str, waiting: Sequence[int] = ()) -> NoReturn:
        """Execute this program anew; children, socket, lock and a request that waits stay."""
        _logger.warning("host: loads anew: %s", why)
        kept = Listening(
            self.listener.fileno(),
            self.lock,
            {pid: [run.run_id, run.instance] for pid, run in self.runs.items()},
            list(waiting),
        )
        for descriptor in (kept.listener, kept.lock, *waiting):
            os.set_inheritable(descriptor, True)
        default_signals()
        try:
            os.execve(sys.executable, [*self.again, kept.to_json()], self.environment)  # noqa: S606 - our own program
        except OSError as error:
            # It no longer hears of its children. Runs are launched without a host, or by the next.
            sys.exit(f"host: {sys.executable} cannot be executed anew: {error.strerror}")


@contextlib.contextmanager
def _declining(connection: socket.socket) -> Generator[None]:
    try:
        yield
    except (OSError, ProtocolError, ValueError, KeyError) as error:
        with contextlib.suppress(OSError):
            send_message(connection, "Declined", reason=str(error))


def _told(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _target(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - no path of a file system
    except OSError:
        return "?"
