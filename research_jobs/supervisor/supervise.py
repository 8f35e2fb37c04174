"""The supervisor runs notebooks, each in a fresh process, from any number of threads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from research_jobs.environments.declared import Environment
from research_jobs.environments.installer import Installer
from research_jobs.environments.interpreters import resolve_interpreter
from research_jobs.environments.making import prepare
from research_jobs.errors import InstallError
from research_jobs.outcome import Failure, Outcome, State, failed
from research_jobs.protocol import RunRequest
from research_jobs.runtime import processes
from research_jobs.runtime.ending import shown_path
from research_jobs.runtime.fresh import in_project
from research_jobs.runtime.masking import Masker
from research_jobs.supervisor.connection import (
    GUARDIAN_SLACK,
    CancelToken,
    Connection,
    NotStartedError,
)
from research_jobs.supervisor.facts import PreloadReport
from research_jobs.supervisor.interpreter import (
    StartError,
    fork_is_possible,
    start_cold,
    startup_environment,
)
from research_jobs.supervisor.kept import was_kept
from research_jobs.supervisor.preloading import start_template
from research_jobs.supervisor.template import Template, TemplateGoneError, TemplateUnfitError

__all__ = ["Isolation", "Supervisor", "changed_at_start"]

Isolation: TypeAlias = Literal["fork", "spawn"]

_logger = logging.getLogger("research_jobs")


class Supervisor:
    """Runs notebooks, each in a fresh process, from any number of threads.

    It is a context manager. Templates start when first needed and end with it, or with this
    process, however that ends.

    Parameters
    ----------
    preload : sequence of str
        Third-party modules that templates preload (found statically: `Scan.third_party`).
    python : str, optional
        The interpreter of runs that do not name one; ours by default.
    log : callable, optional
        Receives lines about modules that are not preloaded; by default the logger
        ``research_jobs``.
    inheritable : bool
        Whether forks of this process use its templates too.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = (),
        python: str | None = None,
        log: Callable[[str], None] | None = None,
        inheritable: bool = False,
    ) -> None:
        self._preload = tuple(dict.fromkeys(preload))
        self._python = python or sys.executable
        self._log = log or _logger.warning
        self._inheritable = inheritable
        #: asked for a template before one is started: interpreter, project
        self.lender: Callable[[str, str], Template | None] | None = None
        self._lock = threading.Lock()
        self._templates: list[Template] = []
        self._starting: dict[str, threading.Lock] = {}
        self._without_template: set[str] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def template_pids(self) -> tuple[int, ...]:
        """The processes of the running templates (tuple of int)."""
        with self._lock:
            pids = [template.pid for template in self._templates]
        return tuple(pid for pid in pids if pid is not None)

    def close(self) -> None:
        """End the templates."""
        with self._lock:
            self._closed = True
            templates, self._templates = self._templates, []
        for template in templates:
            template.close()

    def forget(self) -> None:
        """Forget the templates without ending them: this process is a fork of their owner."""
        self._renew_locks()
        for template in self._templates:
            template.forget()
        self._templates = []

    def inherit(self) -> None:
        """Go on with the templates of the process from which this one was just forked."""
        self._renew_locks()
        self._inheritable = False
        for template in self._templates:
            template.inherit()

    def _renew_locks(self) -> None:
        # Another thread may have held one.
        self._lock = threading.Lock()
        self._starting = {}

    def outdated(self) -> str | None:
        """Why a template no longer matches a cold start, if one does not."""
        with self._lock:
            templates = list(self._templates)
        return next((why for each in templates if (why := each.outdated()) is not None), None)

    def warm(
        self,
        project: str | os.PathLike[str],
        python: str | None = None,
        *,
        sys_path: Sequence[str] = (),
    ) -> PreloadReport:
        """Start the template of an interpreter, unless it is running.

        Parameters
        ----------
        project : path
            The project's root.
        python : str, optional
            An interpreter, as in the manifest; ours by default.
        sys_path : sequence of str
            The project's own entries of ``sys.path``.

        Returns
        -------
        PreloadReport
            What it has imported, what it has left out, and why.

        Raises
        ------
        StartError
            When the interpreter cannot be started.
        TemplateUnfitError
            When it cannot serve as a template; runs are started cold then.
        """
        root = str(project)
        interpreter = resolve_interpreter(python, root) or self._python
        return self._template(interpreter, root, sys_path).report

    def run(
        self,
        request: RunRequest,
        *,
        stdout: int,
        stderr: int,
        isolation: Isolation | None = None,
        python: str | None = None,
        environment: Environment | None = None,
        cancel: CancelToken | None = None,
    ) -> Outcome:
        """Run one notebook and return its result; blocks without using CPU.

        Parameters
        ----------
        request : RunRequest
        stdout, stderr : int
            Descriptors for the notebook's live output.
        isolation : {"fork", "spawn"}, optional
            By default ``fork`` if possible.
        python : str, optional
            Another interpreter.
        environment : Environment, optional
            Its interpreter runs the notebook. It is made before the run if it is not there, and
            that is logged to `stderr`.
        cancel : CancelToken, optional
            Ends the run.

        Returns
        -------
        Outcome
            For every ending; only a mistake in the call raises.
        """
        interpreter = resolve_interpreter(python, request.project_root) or self._python
        notes: tuple[str, ...] = ()
        if isolation is None or not fork_is_possible():
            isolation = "fork" if fork_is_possible() else "spawn"
        early = changed_at_start(request.environment) if isolation == "fork" else None
        if early is not None:
            isolation = "spawn"
            notes = (f"started cold: {early} is read when the interpreter or a library starts",)
        started_at, started = time.time(), time.monotonic()
        cancelled = Outcome(
            State.CANCELLED,
            failure=Failure(headline=f"{shown_path(request)}: cancelled before it started"),
            started_at=started_at,
            isolation=isolation,
        )
        if cancel is not None and cancel.is_cancelled:
            return cancelled
        try:
            if environment is not None:
                interpreter = _prepared(environment, request, stderr, cancel)
                if environment.lock is None:
                    notes += (f"{environment.notebook} has no lock: its versions may change",)
            result = self._run(request, stdout, stderr, isolation, interpreter, cancel)
        except (StartError, InstallError) as error:
            if cancel is not None and cancel.is_cancelled and isinstance(error, InstallError):
                return cancelled
            kind = type(error)
            result = failed(
                Failure(
                    headline=f"{shown_path(request)}: {error.headline}",
                    traceback=error.details or "",
                    exception=f"{kind.__module__}.{kind.__name__}",
                )
            )
            return replace(
                result,
                started_at=started_at,
                duration_s=time.monotonic() - started,
                isolation=isolation,
            )
        return replace(result, notes=(*notes, *result.notes)) if notes else result

    # -- one run --------------------------------------------------------------------------

    def _run(
        self,
        request: RunRequest,
        stdout: int,
        stderr: int,
        isolation: Isolation,
        python: str,
        cancel: CancelToken | None,
    ) -> Outcome:
        notes: tuple[str, ...] = ()
        if isolation == "fork":
            try:
                result = self._run_forked(request, stdout, stderr, python, cancel)
            except _MisfitError as misfit:
                notes = (f"started cold: {misfit}",)
            else:
                if result is not None:
                    return result
        connection, process = start_cold(python, stdout, stderr)
        try:
            result = Connection(request, connection, "spawn").wait(cancel)
            return replace(result, notes=(*notes, *result.notes)) if notes else result
        except NotStartedError:
            raise StartError(
                f"interpreter {python} did not start the notebook",
                hint="Its error message, if it has one, is in the run's stderr.",
            ) from None
        finally:
            if request.keep is not None and was_kept(request.keep):
                # It is reaped when it ends, if this process is still there.
                threading.Thread(target=process.wait, name="kept", daemon=True).start()
            else:
                processes.wait_or_kill(process, GUARDIAN_SLACK)

    def _run_forked(
        self,
        request: RunRequest,
        stdout: int,
        stderr: int,
        python: str,
        cancel: CancelToken | None,
    ) -> Outcome | None:
        """The result, or None if no template is available: a cold start does the same."""
        for attempt in range(3):
            if python in self._without_template:
                return None
            try:
                template = self._template(python, request.project_root, request.sys_path)
            except TemplateUnfitError as error:
                self._without_template.add(python)
                self._log(f"runs of {python} are started cold: {error}")
                return None
            except (StartError, OSError):
                if self._closed:
                    raise
                # A cold start either works or gives a better error.
                return None
            _require_fit(template, request)
            try:
                connection = template.open_run(stdout, stderr)
            except TemplateGoneError:
                self._drop(template)
                continue
            except OSError:
                return None
            try:
                return Connection(request, connection, "fork").wait(cancel)
            except NotStartedError as error:
                # Nothing of the notebook has run: it can be requested again.
                if attempt or isinstance(error.__cause__, TimeoutError):
                    self._drop(template)
        return None

    def _template(self, python: str, project: str, sys_path: Sequence[str]) -> Template:
        # Nothing inside the project is preloaded: `Template.hidden_by` checks that.
        path = tuple(entry for entry in dict.fromkeys(sys_path) if not in_project(entry, project))
        with self._lock:
            if self._closed:
                raise StartError("this supervisor is closed")
            starting = self._starting.setdefault(python, threading.Lock())
        # One thread starts it; those that need the same interpreter wait, others do not.
        with starting:
            existing = self._find(python, project, path)
            if existing is not None:
                return existing
            template = self._borrow(python, project, path) or start_template(
                python,
                project,
                self._preload,
                self._log,
                path=path,
                inheritable=self._inheritable,
            )
            with self._lock:
                if not self._closed:
                    self._templates.append(template)
                    return template
        template.close()
        raise StartError("this supervisor is closed")

    def _borrow(self, python: str, project: str, path: Sequence[str]) -> Template | None:
        template = self.lender(python, project) if self.lender is not None else None
        if template is None:
            return None
        if template.outdated() is None and template.serves(project, path):
            return template
        template.close()
        return None

    def lend(self, python: str) -> tuple[dict[str, Any], int] | None:
        """What another process needs to use the template of an interpreter, if one runs."""
        with self._lock:
            ours = [template for template in self._templates if template.python == python]
        return ours[0].lend() if ours else None

    def _find(self, python: str, project: str, path: Sequence[str]) -> Template | None:
        """A template that may fork for a project; outdated ones are removed."""
        with self._lock:
            ours = [template for template in self._templates if template.python == python]
        for template in ours:
            if template.outdated() is not None:
                self._drop(template)
            elif template.serves(project, path):
                return template
        return None

    def _drop(self, template: Template) -> None:
        with self._lock:
            if template in self._templates:
                self._templates.remove(template)
        template.close()


def _prepared(
    environment: Environment, request: RunRequest, stderr: int, cancel: CancelToken | None
) -> str:
    """The interpreter of a notebook's environment; what making it says goes to its log."""

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(stderr, f"{line}\n".encode(errors="replace"))

    hide = Masker(tuple(request.secrets.values())).text
    return prepare(environment, Installer(Path(request.project_root), say, hide, cancel))


class _MisfitError(Exception):
    """The template's imports would differ in this run, so the run starts cold."""


def _require_fit(template: Template, request: RunRequest) -> None:
    variable = template.read_too_early(request.environment, whole=False)
    if variable is not None:
        raise _MisfitError(f"{variable} is read when the interpreter or a library starts")
    hidden = template.hidden_by(request.project_root, request.sys_path)
    if hidden is not None:
        raise _MisfitError(f"{hidden} has the name of a module that a library imports")


def changed_at_start(environment: Mapping[str, str]) -> str | None:
    """A variable set by the run that a forked process would read too late."""
    for name, value in startup_environment(environment).items():
        if os.environ.get(name) != value:
            return name
    return None
