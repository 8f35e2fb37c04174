"""Start processes: the template of an interpreter, and a guardian for each run.

On Linux guardians are forked from a template; ``spawn`` starts an interpreter for each. Either
way the supervisor gets one connected socket for the run.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.protocol import ProtocolError
from research_jobs.runtime import processes
from research_jobs.runtime.channel import receive_message, send_message
from research_jobs.runtime.fresh import in_project
from research_jobs.supervisor.sources import Sources
from research_jobs.supervisor.verdicts import Verdicts

__all__ = [
    "PreloadReport",
    "StartError",
    "Template",
    "TemplateGoneError",
    "TemplateUnfitError",
    "start_cold",
    "startup_environment",
]

_BOOTSTRAP = str(Path(__file__).resolve().parents[1] / "runtime" / "bootstrap.py")

# How long one module may take to import before it counts as hanging: seconds.
IMPORT_LIMIT = 60.0
_START_LIMIT = 60.0

# Variables that interpreters and libraries read once, when they start or load.
_READ_AT_START = (
    "ARROW_",
    "BLIS_",
    "GOTO_",
    "LANG",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "MPLCONFIGDIR",
    "NUMBA_",
    "NUMEXPR_",
    "NPY_",
    "OMP_",
    "OPENBLAS_",
    "POLARS_",
    "PYTHON",
    "VECLIB_",
)


class StartError(ResearchJobsError):
    """An interpreter could not be started for a run."""


class TemplateUnfitError(Exception):
    """The interpreter cannot be a template: something in it does not survive a fork."""


class TemplateGoneError(Exception):
    """The template has ended: a new one must be started."""


def startup_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are read only once, when an interpreter or library starts."""
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


def start_cold(
    python: str, stdout: int, stderr: int
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start an interpreter as the guardian of one run.

    Returns
    -------
    (socket, Popen)
        The connection to it, and its process, which the caller reaps after the run.

    Raises
    ------
    StartError
        When the interpreter does not exist or cannot be executed.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = _start(
                python,
                ("guardian", theirs.fileno(), os.getpid(), stdout, stderr),
                pass_fds=(theirs.fileno(), stdout, stderr),
                stderr=stderr,
            )
        except BaseException:
            ours.close()
            raise
    return ours, process


def _start(
    python: str, arguments: Sequence[Any], *, pass_fds: Sequence[int], stderr: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [python, _BOOTSTRAP, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=pass_fds,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(
            f"interpreter {python} cannot be started: {error.strerror or error}",
            hint="Check `python:` in the manifest.",
        ) from error


@dataclass
class PreloadReport:
    """What a template has preloaded.

    Parameters
    ----------
    loaded : dict of str to float
        Module to the seconds of its import.
    left_out : dict of str to str
        Module to the reason.
    """

    loaded: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class _Facts:
    """The facts that decide whether a template may serve a run.

    Parameters
    ----------
    files : tuple of str
        The files of its modules, and other files that were read.
    path : tuple of str
        Where it has searched for modules.
    modules, missing : frozenset of str
        Top-level names that it has imported, and those that it did not find.
    variables : frozenset of str
        Environment variables that imports have read.
    """

    files: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> _Facts:
        return cls(
            tuple(map(str, message.get("files", ()))),
            tuple(map(str, message.get("path", ()))),
            frozenset(map(str, message.get("modules", ()))),
            frozenset(map(str, message.get("missing", ()))),
            frozenset(map(str, message.get("variables", ()))),
        )

    @cached_property
    def places(self) -> frozenset[str]:
        """The folders from which modules were imported, or could have been."""
        return frozenset({*self.path, *map(os.path.dirname, self.files)})


class Template:
    """One template, from its supervisor's side.

    Parameters
    ----------
    python : str
        The interpreter.
    project : str
        Root of the project, none of whose files it may import.
    modules : sequence of str
        The modules to preload.
    log : callable
        Receives a line for each unfit module, the first time.
    path : sequence of str
        Folders outside the project that come before the interpreter's own in its runs.
    import_limit : float
        Seconds that one import may take.
    inheritable : bool
        Whether forks of this process may use it too (`inherit`). It then ends with the last of
        them, otherwise with this process.
    """

    def __init__(
        self,
        python: str,
        project: str,
        modules: Sequence[str],
        log: Callable[[str], None],
        *,
        path: Sequence[str] = (),
        import_limit: float = IMPORT_LIMIT,
        inheritable: bool = False,
    ) -> None:
        self.python = python
        self.project = project
        self.modules = tuple(modules)
        self.path = tuple(path)
        self.report = PreloadReport()
        self._environment = dict(os.environ)
        self._log = log
        self._import_limit = import_limit
        self._inheritable = inheritable
        startup = startup_environment(os.environ)
        self._verdicts = Verdicts(project, python, (*self.modules, *self.path), startup)
        self._unfit = self._verdicts.read()
        self.report.left_out.update(self._unfit)
        self._known = frozenset(self._unfit)
        self._facts = _Facts()
        self._sources: Sources | None = None
        self._loading: str | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            while not self._try_start():
                self._stop()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The template's process (int or None)."""
        return self._process.pid if self._process is not None else None

    def serves(self, project: str, path: Sequence[str]) -> bool:
        """Whether it has imported nothing of a project, and has its runs' search path."""
        return tuple(path) == self.path and (
            project == self.project
            or not any(in_project(place, project) for place in self._facts.places)
        )

    def outdated(self) -> str | None:
        """A file or variable that has changed since the template started, if any."""
        variable = self.read_too_early(os.environ)
        if variable is not None or self._sources is None:
            return variable
        return self._sources.changed()

    def read_too_early(self, environment: Mapping[str, str], *, whole: bool = True) -> str | None:
        """A variable that the interpreter or an import has read and that differs here.

        Parameters
        ----------
        environment : mapping of str to str
        whole : bool
            Whether a variable that is missing here is unset, rather than unchanged.
        """
        names = {*environment, *self._environment} if whole else set(environment)
        for name in sorted(names):
            read = name in self._facts.variables or name.startswith(_READ_AT_START)
            if read and environment.get(name) != self._environment.get(name):
                return name
        return None

    def hidden_by(self, project: str, path: Sequence[str]) -> str | None:
        """A file of a project that an import would have found instead.

        Parameters
        ----------
        project : str
            The project's root.
        path : sequence of str
            The first entries of the run's ``sys.path``.
        """
        for folder in path:
            if not in_project(folder, project):
                continue
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name.partition(".")[0]
                    missed = name in self._facts.missing
                    if (missed or name in self._facts.modules) and _importable(entry, alone=missed):
                        return entry.path
        return None

    def open_run(self, stdout: int, stderr: int) -> socket.socket:
        """Fork a guardian from the template, and connect to it.

        Raises
        ------
        TemplateGoneError
            When the template has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock, _own_descriptor() as own:
                self._ask_for_run((theirs.fileno(), stdout, stderr, *own))
        except BaseException:
            ours.close()
            raise
        return ours

    def _ask_for_run(self, descriptors: Sequence[int]) -> None:
        if self._control is None:
            raise TemplateGoneError
        try:
            send_message(self._control, "Run", fds=descriptors, supervisor=os.getpid())
        except OSError as error:
            raise TemplateGoneError from error

    def close(self) -> None:
        """End the template; its running runs continue."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            if self._owner == os.getpid():
                # A forked copy of this program may hold the connection open, so send a message too.
                with contextlib.suppress(OSError):
                    send_message(control, "Leave")
            control.close()
        if self._sources is not None:
            self._sources.close()
        if process is not None and self._owner == os.getpid():
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill(self) -> None:
        """End a template that hangs or has crashed, with everything that its imports started."""
        if self._process is not None:
            pid = self._process.pid
            if self._process.poll() is None:
                processes.signal_all([pid], signal.SIGSTOP)
            left = {pid, *processes.descendants(pid), *processes.session_members(pid)}
            if self._process.poll() is not None:
                left.discard(pid)
            processes.signal_all(left, signal.SIGKILL)

    def forget(self) -> None:
        """Forget a template that belongs to the process from which this one was forked."""
        if self._control is not None:
            self._control.close()
        self._control = None
        self._disown()

    def inherit(self) -> None:
        """Go on using the template of the process from which this one was just forked."""
        self._lock = threading.Lock()
        if self._sources is not None:
            self._sources.inherit()
        self._disown()

    def _disown(self) -> None:
        if self._process is not None:
            self._process.returncode = 0  # not our child, so not ours to reap
        self._process = None

    def _try_start(self) -> bool:
        """Whether it is ready; if not, a module is unfit and the next try is due."""
        ours, theirs = socket.socketpair()
        self._control = ours
        self.report.loaded.clear()
        with tempfile.TemporaryFile() as errors, theirs:
            self._process = _start(
                self.python,
                ("template", theirs.fileno(), os.getpid()),
                pass_fds=(theirs.fileno(),),
                stderr=errors.fileno(),
            )
            theirs.close()
            ours.settimeout(_START_LIMIT)
            self._loading = None
            try:
                send_message(
                    ours,
                    "Preload",
                    project=self.project,
                    modules=list(self.modules),
                    path=list(self.path),
                    unfit=self._unfit,
                    shared=self._inheritable,
                )
                ready = self._listen(ours)
            except (EOFError, OSError, ProtocolError) as error:
                if self._loading is None:
                    errors.seek(0)
                    text = errors.read().decode("utf-8", "replace").strip()
                    last = text.splitlines()[-1] if text else str(error) or "no reason given"
                    raise StartError(
                        f"interpreter {self.python} cannot be started: {last}", details=text
                    ) from error
                hangs = isinstance(error, TimeoutError)
                self._leave_out(
                    self._loading,
                    f"its import takes longer than {self._import_limit:g} s"
                    if hangs
                    else "its import ends the interpreter",
                )
                self._kill()
                return False
            ours.settimeout(None)
        return ready

    def _listen(self, control: socket.socket) -> bool:
        while True:
            message = receive_message(control)
            if message is None:
                raise EOFError
            kind, module = message.get("record"), str(message.get("module", ""))
            if kind == "Ready":
                self._facts = _Facts.of(message)
                self._sources = Sources(
                    self._facts.files, self._facts.path, int(message.get("began", 0))
                )
                if self._known != frozenset(self._unfit):
                    self._verdicts.write(self._unfit, self._facts.path)
                return True
            if kind == "StartFailed":
                raise StartError(str(message.get("message")))
            if kind == "Unfit":
                self._leave_out(module, str(message.get("reason")))
                return False
            self._note(control, str(kind), module, message)

    def _note(
        self, control: socket.socket, kind: str, module: str, message: Mapping[str, Any]
    ) -> None:
        if kind == "Loading":
            self._loading = module
            control.settimeout(self._import_limit)
        elif kind == "Loaded":
            self._loading = None
            self.report.loaded[module] = float(message.get("seconds", 0.0))
        elif kind == "Noted":
            self._log(f"preloading {module} wrote to stderr: {message.get('text')}")
        elif kind == "LeftOut" and module not in self.report.left_out:
            self._tell(module, str(message.get("reason")))
        elif kind == "Missing":
            # Not worth a line: notebooks may try imports, and those fail in the run too.
            self.report.left_out[module] = str(message.get("reason"))

    def _leave_out(self, module: str, reason: str) -> None:
        if module in self._unfit or module == "research_jobs":
            # It exists before any import: sitecustomize, a .pth file.
            raise TemplateUnfitError(f"{module}: {reason}")
        self._unfit[module] = reason
        self._tell(module, reason)

    def _tell(self, module: str, reason: str) -> None:
        self.report.left_out[module] = reason
        self._log(f"{module} is not preloaded: {reason}")


@contextlib.contextmanager
def _own_descriptor() -> Generator[tuple[int, ...]]:
    """A descriptor of this process by which others see it end; nothing where there is none."""
    descriptor = processes.open_process(os.getpid())
    try:
        yield () if descriptor is None else (descriptor,)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _importable(entry: os.DirEntry[str], *, alone: bool) -> bool:
    """Whether an import finds a file or folder; a folder without code only if it is `alone`."""
    with contextlib.suppress(OSError):
        if entry.is_dir():
            package = Path(entry.path, "__init__.py")
            return "." not in entry.name and (alone or package.exists())
        return entry.name.endswith((".py", ".pyc", ".so"))
    return False


def wait_readable(sock: socket.socket, seconds: float | None) -> bool:
    """Whether something arrives within so many seconds."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if poller.poll(None if left is None else left * 1000 + 1):
            return True
        if end is not None and time.monotonic() >= end:
            return False


def fork_is_possible() -> bool:
    """Whether templates work here."""
    return sys.platform == "linux"
