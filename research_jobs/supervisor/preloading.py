"""Start a template: import what runs need, without the modules that are unfit for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from research_jobs.protocol import ProtocolError
from research_jobs.runtime import processes
from research_jobs.runtime.channel import receive_message, send_message
from research_jobs.supervisor.facts import Facts, PreloadReport
from research_jobs.supervisor.interpreter import StartError, start_interpreter, startup_environment
from research_jobs.supervisor.template import END_S, Template, TemplateUnfitError
from research_jobs.supervisor.verdicts import Verdicts

__all__ = ["start_template"]

# How long one module may take to import before it counts as hanging: seconds.
IMPORT_LIMIT = 60.0
_START_LIMIT = 60.0


def start_template(
    python: str,
    project: str,
    modules: Sequence[str],
    log: Callable[[str], None],
    *,
    path: Sequence[str] = (),
    import_limit: float = IMPORT_LIMIT,
    inheritable: bool = False,
) -> Template:
    """Start a template; one that finds a module unfit is started again without it.

    Parameters
    ----------
    python, project, path, inheritable
        As for `Template`.
    modules : sequence of str
        The modules to preload.
    log : callable
        Receives a line for each unfit module, the first time.
    import_limit : float
        Seconds that one import may take.

    Raises
    ------
    StartError
        When the interpreter cannot be started.
    TemplateUnfitError
        When it cannot serve as a template.
    """
    start = _Start(python, project, modules, log, path, import_limit, inheritable=inheritable)
    while (template := start.attempt()) is None:
        pass
    return template


class _Start:
    def __init__(
        self,
        python: str,
        project: str,
        modules: Sequence[str],
        log: Callable[[str], None],
        path: Sequence[str],
        import_limit: float,
        *,
        inheritable: bool,
    ) -> None:
        self.python = python
        self.project = project
        self.modules = tuple(modules)
        self.path = tuple(path)
        self.inheritable = inheritable
        self.report = PreloadReport()
        self._environment = dict(os.environ)
        self._log = log
        self._import_limit = import_limit
        startup = startup_environment(os.environ)
        self._verdicts = Verdicts(project, python, (*self.modules, *self.path), startup)
        self._unfit = self._verdicts.read()
        self.report.left_out.update(self._unfit)
        self._known = frozenset(self._unfit)
        self._loading: str | None = None

    def attempt(self) -> Template | None:
        """The template, or None if a module is unfit and the next attempt is due."""
        self.report.loaded.clear()
        self._loading = None
        ours, theirs = socket.socketpair()
        process: subprocess.Popen[bytes] | None = None
        ready: Facts | None = None
        try:
            with theirs, tempfile.TemporaryFile() as errors:
                process = start_interpreter(
                    self.python,
                    ("template", theirs.fileno(), os.getpid()),
                    pass_fds=(theirs.fileno(),),
                    stderr=errors.fileno(),
                )
                theirs.close()
                ours.settimeout(_START_LIMIT)
                try:
                    self._ask(ours)
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
                    _kill(process)
        finally:
            if ready is None:
                ours.close()
                if process is not None:
                    processes.wait_or_kill(process, END_S)
        if ready is None:
            return None
        ours.settimeout(None)
        return Template(
            self.python,
            self.project,
            self.path,
            self._environment,
            ready,
            ours,
            process,
            self.report,
            inheritable=self.inheritable,
        )

    def _ask(self, control: socket.socket) -> None:
        send_message(
            control,
            "Preload",
            project=self.project,
            modules=list(self.modules),
            path=list(self.path),
            unfit=self._unfit,
            shared=self.inheritable,
        )

    def _listen(self, control: socket.socket) -> Facts | None:
        """What it has imported once it is ready; None when a module is unfit."""
        while True:
            message = receive_message(control)
            if message is None:
                raise EOFError
            kind, module = message.get("record"), str(message.get("module", ""))
            if kind == "Ready":
                facts = Facts.of(message)
                if self._known != frozenset(self._unfit):
                    self._verdicts.write(self._unfit, facts.path)
                return facts
            if kind == "StartFailed":
                raise StartError(str(message.get("message")))
            if kind == "Unfit":
                self._leave_out(module, str(message.get("reason")))
                return None
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


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a template that hangs or has crashed, with everything that its imports started."""
    pid = process.pid
    if process.poll() is None:
        processes.signal_all([pid], signal.SIGSTOP)
    left = {pid, *processes.descendants(pid), *processes.session_members(pid)}
    if process.poll() is not None:
        left.discard(pid)
    processes.signal_all(left, signal.SIGKILL)
