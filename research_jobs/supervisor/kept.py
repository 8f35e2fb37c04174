"""Processes of failed runs that stay to be looked at: find, enter and end them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import RunError
from research_jobs.outcome import labelled
from research_jobs.process import host_pid
from research_jobs.project import Project
from research_jobs.protocol import Keep, ProtocolError
from research_jobs.runtime import processes
from research_jobs.runtime.channel import address_in, receive_message, send_message
from research_jobs.runtime.keeping import DESCRIPTION
from research_jobs.runtime.kept import SOCKET
from research_jobs.supervisor.interpreter import wait_readable

__all__ = ["KEPT", "KeptProcess", "Visit", "keep_process", "kept_processes", "was_kept"]

KEPT = "kept"  # the folder below the project's state
_ENTERED = "entered"
# How long a process may take to answer, and to end: seconds.
_PATIENCE = 20.0


@dataclass(frozen=True)
class KeptProcess:
    """A process that stays after its run.

    Parameters
    ----------
    folder : Path
    notebook : str
    partition : str or None
    run_id : str
    guardian : int
        Pid of the process that ends it, and that ends with it.
    began : str
        When that started.
    pid : int
    until : float
        When it is ended, Unix time.
    state, headline, traceback : str
        How the run ended.
    cell : str or None
        Source of the cell that failed.
    remaining : tuple of (int, str or None)
        Numbers and titles of the cells after it.
    """

    folder: Path
    notebook: str
    partition: str | None
    run_id: str
    guardian: int
    began: str
    pid: int
    until: float
    state: str
    headline: str
    traceback: str = ""
    cell: str | None = None
    remaining: tuple[tuple[int, str | None], ...] = field(default=())

    @classmethod
    def read(cls, folder: Path) -> KeptProcess | None:
        """The process of a folder; None where none has been kept."""
        try:
            said: dict[str, Any] = json.loads((folder / DESCRIPTION).read_bytes())
            said["remaining"] = tuple((int(n), title) for n, title in said["remaining"])
            return cls(folder, **said)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @property
    def alive(self) -> bool:
        """Bool: whether it is still there."""
        return processes.start_of(self.guardian) == self.began

    @property
    def label(self) -> str:
        """Str: the notebook and its partition."""
        return labelled(self.notebook, self.partition)

    def end(self) -> None:
        """End it, and wait until nothing of it is left."""
        descriptor = processes.open_process(self.guardian)
        if self.alive:
            processes.signal_all([self.guardian], signal.SIGTERM)
            _wait_for_end(self, descriptor)
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def entered(self, kind: str, descriptors: Sequence[int] = ()) -> Generator[Visit]:
        """Enter it; it is left at the end.

        Parameters
        ----------
        kind : {"Terminal", "Kernel"}
        descriptors : sequence of int
            The terminal's stdin, stdout and stderr.

        Raises
        ------
        RunError
            When it has ended, somebody else is in it, or it cannot do that.
        """
        with contextlib.ExitStack() as stack:
            try:
                lock = os.open(self.folder / _ENTERED, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._error("somebody is in it already") from None
            except OSError:
                raise self._error("it has ended") from None
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                connection.settimeout(_PATIENCE)
                with address_in(self.folder, SOCKET) as address:
                    connection.connect(address)
                names = ("TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR")
                environment = {name: os.environ[name] for name in names if name in os.environ}
                send_message(connection, kind, fds=descriptors, environment=environment)
                answer = receive_message(connection)
            except TimeoutError:
                raise self._error("it does not answer: it is busy") from None
            except (OSError, ProtocolError):
                answer = None
            if answer is None:
                raise self._error("it has ended")
            if answer.get("record") != "Entered":
                error = self._error(str(answer.get("text")))
                error.details = answer.get("details")
                raise error
            connection.settimeout(None)
            yield Visit(self, connection, str(answer.get("file", "")))

    def _error(self, why: str) -> RunError:
        return RunError(f"the process of {self.label} cannot be entered: {why}", ending="")


@dataclass(frozen=True)
class Visit:
    """A connection to a process that was entered.

    Parameters
    ----------
    process : KeptProcess
    connection : socket
        Ends with the visit, from either side.
    file : str
        A kernel's connection file.
    """

    process: KeptProcess
    connection: socket.socket
    file: str = ""

    def wait(self) -> str | None:
        """Wait until the other side ends it; what it says, if something went wrong there."""
        while True:
            try:
                said = receive_message(self.connection)
            except (OSError, ProtocolError):
                return None
            if said is None:
                return None
            if said.get("record") == "Refused":
                return str(said.get("details") or said.get("text"))

    def pass_on(self, number: int, _frame: object = None) -> None:
        """Pass a signal of the terminal on, as a handler: Ctrl-C to all that the notebook runs."""
        if number == signal.SIGINT:
            processes.signal_group(self.process.pid, signal.SIGINT)
        else:
            processes.signal_all([self.process.pid], signal.Signals(number))


def keep_process(
    project: Project, notebook: str, partition: str | None, *, seconds: float, source: str
) -> Keep:
    """Prepare to keep the process of a run; one that was kept of an earlier run is ended.

    Parameters
    ----------
    project : Project
    notebook : str
    partition : str or None
    seconds : float
    source : str
        The notebook's file.
    """
    for earlier in kept_processes(project):
        if (earlier.notebook, earlier.partition) == (notebook, partition):
            earlier.end()
    folder = project.make_state_folder(KEPT, secrets.token_hex(6))
    return Keep(str(folder), seconds, host_pid(), source=source)


def was_kept(keep: Keep) -> bool:
    """Whether a run's process stays; if not, its folder is removed."""
    folder = Path(keep.folder)
    if (folder / DESCRIPTION).exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def kept_processes(project: Project) -> list[KeptProcess]:
    """The processes that are kept of a project's runs, the newest first.

    What was killed from outside is cleared away.

    Parameters
    ----------
    project : Project
    """
    found: list[KeptProcess] = []
    with contextlib.suppress(OSError):
        for folder in (project.state / KEPT).iterdir():
            kept = KeptProcess.read(folder)
            if kept is not None and kept.alive:
                found.append(kept)
            elif kept is not None:
                shutil.rmtree(folder, ignore_errors=True)
    return sorted(found, key=lambda kept: kept.until, reverse=True)


def _wait_for_end(kept: KeptProcess, descriptor: int | None) -> None:
    end = time.monotonic() + _PATIENCE
    if descriptor is not None and not wait_readable(descriptor, _PATIENCE):
        processes.signal_all([*processes.descendants(kept.guardian), kept.guardian], signal.SIGKILL)
    while kept.alive and time.monotonic() < end:
        time.sleep(0.05)
