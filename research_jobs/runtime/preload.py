"""Import modules ahead of the notebooks, and find out which of them must not be.

After each import the process is checked for anything that a fresh one would not have. Such an
import cannot be undone: the process must end, and a new one starts without that module.

Standard library only, Python 3.10 and later.
"""

# ruff: noqa: PTH117, PTH118, PTH208 - plain strings, as `sys.path` and `__file__` are

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NoReturn

from research_jobs.runtime import processes
from research_jobs.runtime.channel import send_message
from research_jobs.runtime.fresh import (
    in_project,
    remember_preloaded,
    settings_file,
    stop_native_pools,
)
from research_jobs.runtime.lookups import Lookups, watch_lookups
from research_jobs.runtime.process_state import (
    SETTINGS_OF,
    STATEFUL_MODULES,
    differences,
    process_state,
)
from research_jobs.runtime.rehearsal import rehearse

__all__ = ["RUNTIME_MODULES", "UNSAFE_MODULES", "Preload", "UnfitError"]

#: needed by every run; another interpreter may lack some
RUNTIME_MODULES = (
    "research_jobs.runtime.child",
    "research_jobs.project",
    "research_jobs.notebook.parameters",
    "research_jobs.store.load",
    "research_jobs.store.codec",
    "research_jobs.store.checks",
    "pyarrow",
    "pyarrow.parquet",
    "pyarrow.pandas_compat",
    "research_jobs.store.codec.reading",
    "cloudpickle",
)

#: known not to survive a fork (they have threads, device contexts or remote connections)
UNSAFE_MODULES = frozenset(
    {
        "cudf",
        "cupy",
        "eventlet",
        "gevent",
        "grpc",
        "h2o",
        "jax",
        "jaxlib",
        "jnius",
        "jpype",
        "juliacall",
        "juliapkg",
        "keras",
        "mpi4py",
        "mxnet",
        "pycuda",
        "pyspark",
        "ray",
        "rpy2",
        "tensorflow",
        "torch",
        "torch_xla",
    }
)

# A rehearsal that leaves anything behind is unfit, like a module.
_REHEARSAL = "research_jobs.runtime.rehearsal"

# polars adds its allocator's settings at each import. A program that has imported it hands them on
# to the template, where every module that imports polars would count as unfit.
_GROWING = frozenset({"_RJEM_MALLOC_CONF"})

# Native threads that restart in a forked child or are not needed there.
_HARMLESS_THREADS = ("jemalloc_bg_thd", "polars-")

_MISSING = "does not have it"


class UnfitError(Exception):
    """An imported module is unfit for forked runs."""


class Preload:
    """Imports modules one by one and checks what each leaves behind.

    Parameters
    ----------
    control : socket
        Receives each module's name before its import, so that one that hangs is known.
    project : str
        Root of the project, none of whose files may be imported.
    unfit : mapping of str to str
        Modules that were unfit in earlier templates, and why.
    """

    def __init__(self, control: socket.socket, project: str, unfit: Mapping[str, str]) -> None:
        self.control = control
        self.project = project
        self.unfit = unfit
        self.loaded: list[str] = []
        self.began = time.time_ns()
        # The modules that a cold start imports before it sets the notebook's path.
        self.before = frozenset(sys.modules)
        self.seen: set[str] = set()
        self.lookups = Lookups()
        self.output = os.memfd_create("research_jobs_preload")
        self.errors = os.memfd_create("research_jobs_preload")

    def run(self, names: Iterable[str], path: Iterable[str] = ()) -> None:
        """Import the modules, then those that every run needs, then rehearse.

        Parameters
        ----------
        names : iterable of str
        path : iterable of str
            Folders outside the project that runs find before the interpreter's own.
        """
        entries = dict.fromkeys((*path, *sys.path))
        sys.path[:] = [entry for entry in entries if not in_project(entry, self.project)]
        standard = os.dup(1), os.dup(2)
        os.dup2(self.output, 1)
        os.dup2(self.errors, 2)
        self.descriptors = processes.open_descriptors()
        with watch_lookups() as self.lookups, _display_variables():
            for name in STATEFUL_MODULES:
                importlib.import_module(name)
            self.environment = frozenset(os.environ) - _GROWING
            self.state = self._process_state()
            self._examine("research_jobs")
            # The project's first: the earlier an unfit one is found, the less is repeated.
            for name in _ordered(names):
                self._load(name, ours=False)
            theirs = set(sys.modules)
            for name in RUNTIME_MODULES:
                self._load(name, ours=True)
            from research_jobs.store.codec.registry import codec_modules

            # Only a library's users should load its codec.
            for library, module in codec_modules().items():
                if library in theirs:
                    self._load(module, ours=True)
            if _REHEARSAL not in self.unfit:
                rehearse()
                self._examine(_REHEARSAL)
            remember_preloaded({*os.environ} - self.environment)
        for source, target in zip(standard, (1, 2), strict=True):
            os.dup2(source, target)
            os.close(source)
        os.close(self.output)
        os.close(self.errors)

    def facts(self) -> dict[str, Any]:
        """The facts by which the supervisor decides whether this template may serve a run."""
        files = {
            file
            for module in list(sys.modules.values())
            if isinstance(file := getattr(module, "__file__", None), str) and os.path.isabs(file)
        }
        files |= {file for file in (settings_file(), *_start_files()) if file}
        modules = {name for name in sys.modules if "." not in name} - self.before
        return {
            "began": self.began,
            "files": sorted(files),
            "path": [entry for entry in sys.path if entry],
            "modules": sorted(modules - {"research_jobs", "__main__"}),
            "missing": sorted(self.lookups.missing),
            "variables": sorted(self.lookups.variables),
        }

    def _load(self, name: str, *, ours: bool) -> None:
        if name in sys.modules:
            if not ours:
                self.loaded.append(name)
                send_message(self.control, "Loaded", module=name, seconds=0.0)
            return
        reason = self.unfit.get(name) or self._refuse(name, ours=ours)
        if reason is not None:
            if reason and name not in self.unfit:
                kind = "Missing" if reason.endswith(_MISSING) else "LeftOut"
                send_message(self.control, kind, module=name, reason=reason)
            return
        send_message(self.control, "Loading", module=name)
        begun = time.monotonic()
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if ours or error.name == name:
                # An attribute that looks like a module, or a package that does not exist.
                return
            self._give_up(name, f"its import fails: {_one_line(error)}")
        except BaseException as error:  # noqa: BLE001 - SystemExit included
            self._give_up(name, f"its import fails: {_one_line(error)}")
        self._examine(name)
        if not ours:
            self.loaded.append(name)
        send_message(
            self.control, "Loaded", module=name, seconds=round(time.monotonic() - begun, 3)
        )

    def _refuse(self, name: str, *, ours: bool) -> str | None:
        """Why a module is not even tried; an empty reason is not logged."""
        top = name.partition(".")[0]
        if ours:
            return None
        if top in UNSAFE_MODULES:
            return "it is known not to survive a fork"
        if top in sys.stdlib_module_names:
            return None
        try:
            with self.lookups.paused():
                spec = importlib.util.find_spec(top)
        except (ImportError, ValueError, AttributeError) as error:
            return f"it cannot be found: {_one_line(error)}"
        if spec is None:
            return f"{sys.executable} {_MISSING}"
        places = [spec.origin, *(spec.submodule_search_locations or ())]
        if any(place and in_project(place, self.project) for place in places):
            return "it belongs to the project"
        return None

    def _examine(self, name: str) -> None:
        """Check that the import left nothing that a fresh process would not have."""
        new = [module for module in list(sys.modules) if module not in self.seen]
        self.seen.update(new)
        for module in new:
            top = module.partition(".")[0]
            if top in UNSAFE_MODULES and sys.modules.get(module) is not None:
                self._give_up(name, f"it imports {top}, which is known not to survive a fork")
            file = getattr(sys.modules.get(module), "__file__", None)
            if isinstance(file, str) and in_project(file, self.project):
                self._give_up(name, f"it imports the project's own file {file}")
        self._examine_output(name)
        stop_native_pools()
        self._examine_threads(name)
        if processes.open_descriptors() - self.descriptors:
            self._give_up(name, "its import leaves a file or connection open")
        if processes.children_of(os.getpid()) or []:
            self._give_up(name, "its import starts a process")
        state = self._process_state()
        changed = differences(self.state, state)
        self.state = state
        if changed:
            self._give_up(name, f"its import changes {changed[0]}")

    def _process_state(self) -> dict[str, Any]:
        with self.lookups.paused():  # we read all variables, which says nothing of the imports
            return process_state(self.environment)

    def _examine_output(self, name: str) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fstat(self.output).st_size:
            self._give_up(name, "its import writes to stdout")
        if os.fstat(self.errors).st_size:
            text = os.pread(self.errors, 2000, 0).decode("utf-8", "replace").strip()
            os.ftruncate(self.errors, 0)
            os.lseek(self.errors, 0, os.SEEK_SET)
            send_message(self.control, "Noted", module=name, text=text)

    def _examine_threads(self, name: str) -> None:
        started = [thread.name for thread in threading.enumerate()]
        if len(started) > 1:
            self._give_up(name, f"its import starts a thread ({started[-1]})")
        native = _native_threads()
        if native:
            # A library that handles forks (OpenBLAS) ends its threads before one.
            _try_fork()
            native = _native_threads()
        if native:
            self._give_up(name, f"its import starts a native thread ({native[0]})")

    def _give_up(self, name: str, reason: str) -> NoReturn:
        # Before the supervisor is told: its answer may end this process at any moment.
        processes.signal_all(processes.descendants(os.getpid()), signal.SIGKILL)
        send_message(self.control, "Unfit", module=name, reason=reason)
        raise UnfitError


@contextlib.contextmanager
def _display_variables() -> Generator[None]:
    """Set the variables that plotting libraries find in a run."""
    from research_jobs.runtime.display import display_environment

    wanted = display_environment()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _native_threads() -> list[str]:
    return [
        thread for thread in processes.thread_names() if not thread.startswith(_HARMLESS_THREADS)
    ]


def _start_files() -> Iterable[str]:
    """Files on ``sys.path`` that an interpreter reads when it starts."""
    for entry in sys.path:
        with contextlib.suppress(OSError):
            yield from (
                os.path.join(entry, name)
                for name in os.listdir(entry)
                if name.endswith((".pth", ".egg-link"))
            )
    yield os.path.join(sys.prefix, "pyvenv.cfg")


def _try_fork() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _ordered(names: Iterable[str]) -> list[str]:
    """Each top-level package before its submodules, in the order given.

    Those with settings of their own come first: so what another one does to them is seen.
    """
    names = list(names)
    wanted = dict.fromkeys(name for name in SETTINGS_OF if name in names)
    for name in names:
        wanted[name.partition(".")[0]] = None
        wanted[name] = None
    return list(wanted)


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
