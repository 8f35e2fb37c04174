"""The template of an interpreter, from which guardians are forked, from its supervisor's side."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.runtime import processes
from research_jobs.runtime.channel import as_text_mapping, send_message
from research_jobs.runtime.fresh import in_project
from research_jobs.supervisor.facts import Facts, PreloadReport
from research_jobs.supervisor.interpreter import READ_AT_START
from research_jobs.supervisor.sources import Sources

__all__ = ["Template", "TemplateGoneError", "TemplateUnfitError", "borrowed_template"]


# How long a template may take to end, seconds.
END_S = 2.0


class TemplateUnfitError(ResearchJobsError):
    """The interpreter cannot be a template: something in it does not survive a fork."""


class TemplateGoneError(Exception):
    """The template has ended: a new one must be started."""


class Template:
    """One template that runs, from its supervisor's side.

    Parameters
    ----------
    python : str
        The interpreter.
    project : str
        Root of the project, none of whose files it has imported.
    path : tuple of str
        Folders outside the project that come before the interpreter's own in its runs.
    environment : mapping of str to str
        The variables with which it was started.
    facts : Facts
    control : socket
        To the template.
    process : Popen, optional
        Its process, unless that belongs to another one.
    report : PreloadReport, optional
    inheritable : bool
        Whether forks of this process, and those to whom it is lent, may use it too. It then ends
        with the last of them, otherwise with this process.
    """

    def __init__(
        self,
        python: str,
        project: str,
        path: tuple[str, ...],
        environment: Mapping[str, str],
        facts: Facts,
        control: socket.socket,
        process: subprocess.Popen[bytes] | None = None,
        report: PreloadReport | None = None,
        *,
        inheritable: bool = False,
    ) -> None:
        self.python = python
        self.project = project
        self.path = path
        self.environment = dict(environment)
        self.facts = facts
        self.report = report or PreloadReport()
        self.inheritable = inheritable
        self._sources = Sources(facts.files, facts.path, facts.began)
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._control: socket.socket | None = control
        self._process = process

    @property
    def pid(self) -> int | None:
        """The template's process (int or None)."""
        return self._process.pid if self._process is not None else None

    def serves(self, project: str, path: Sequence[str]) -> bool:
        """Whether it has imported nothing of a project, and has its runs' search path."""
        return tuple(path) == self.path and (
            project == self.project
            or not any(in_project(place, project) for place in self.facts.places)
        )

    def outdated(self) -> str | None:
        """A file or variable that has changed since the template started, if any."""
        variable = self.read_too_early(os.environ)
        return variable if variable is not None else self._sources.changed()

    def read_too_early(self, environment: Mapping[str, str], *, whole: bool = True) -> str | None:
        """A variable that the interpreter or an import has read and that differs here.

        Parameters
        ----------
        environment : mapping of str to str
        whole : bool
            Whether a variable that is missing here is unset, rather than unchanged.
        """
        names = {*environment, *self.environment} if whole else set(environment)
        for name in sorted(names):
            read = name in self.facts.variables or name.startswith(READ_AT_START)
            if read and environment.get(name) != self.environment.get(name):
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
                    missed = name in self.facts.missing
                    if (missed or name in self.facts.modules) and _importable(entry, alone=missed):
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

    def lend(self) -> tuple[dict[str, Any], int] | None:
        """What `borrowed_template` needs in another process, and the connection's descriptor."""
        if self._control is None or not self.inheritable:
            return None
        loan = {
            "python": self.python,
            "project": self.project,
            "path": self.path,
            "environment": self.environment,
            "facts": self.facts.to_json(),
        }
        return loan, self._control.fileno()

    def close(self) -> None:
        """End the template, or its use by this process; its running runs continue."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        control, self._control = self._control, None
        process, self._process = self._process, None
        own = process is not None and self._owner == os.getpid() and not self.inheritable
        if control is not None:
            if own:
                # A forked copy of this program may hold the connection open, so send a message too.
                with contextlib.suppress(OSError):
                    send_message(control, "Leave")
            control.close()
        self._sources.close()
        if own and process is not None:
            processes.wait_or_kill(process, END_S)

    def forget(self) -> None:
        """Forget a template that belongs to the process from which this one was forked."""
        if self._control is not None:
            self._control.close()
        self._control = None
        self._disown()

    def inherit(self) -> None:
        """Go on using the template of the process from which this one was just forked."""
        self._lock = threading.Lock()
        self._sources.inherit()
        self._disown()

    def _disown(self) -> None:
        if self._process is not None:
            self._process.returncode = 0  # not our child, so not ours to reap
        self._process = None


def borrowed_template(loan: Mapping[str, Any], control: socket.socket) -> Template:
    """The template of another process, as its `Template.lend` describes it.

    Parameters
    ----------
    loan : mapping
    control : socket
        A copy of that process's connection to it.
    """
    return Template(
        str(loan["python"]),
        str(loan["project"]),
        tuple(map(str, loan["path"])),
        as_text_mapping(loan["environment"]),
        Facts.of(loan["facts"]),
        control,
    )


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
