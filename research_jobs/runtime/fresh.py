"""Make a forked process look like a freshly started one.

The same steps run in both isolation modes, so a notebook gets the same process whether it is
forked from the template or from a cold interpreter.

Standard library only, Python 3.10 and later.
"""

# ruff: noqa: PTH110, PTH118, PTH119, PTH120, PTH208 - plain strings: every run takes these steps

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import linecache
import os
import random
import signal
import sys
import time
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from research_jobs.runtime.process_state import renew_warnings

__all__ = [
    "FreshState",
    "become_fresh",
    "close_others",
    "default_signals",
    "fresh_randomness",
    "in_project",
    "modules_since_preload",
    "prepare",
    "remember_preloaded",
    "replace_environment",
    "settings_file",
    "standard_streams",
    "stop_native_pools",
]

# The signals that a fresh interpreter ignores.
_IGNORED = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}

# How this interpreter would open its own streams: "surrogateescape" in the C locale, so that file
# names that are not UTF-8 can be printed.
_ERRORS = [
    getattr(stream, "errors", None) or "strict" for stream in (sys.__stdin__, sys.__stdout__)
]

# The folder of research_jobs itself.
_PACKAGE = str(Path(__file__).resolve().parents[1])

# The matplotlibrc that a preloaded matplotlib has read; see `remember_preloaded`.
_matplotlib_file: str | None = None

# Variables that preloaded modules have added to the environment, as in a cold start.
_variables: dict[str, str] = {}

# The module that was preloaded last; see `modules_since_preload`.
_last_preloaded: tuple[str, types.ModuleType] | None = None


@dataclass(frozen=True)
class FreshState:
    """The initial state of the notebook's process.

    Parameters
    ----------
    environment : mapping of str to str
        The whole environment.
    working_directory : str
    argv : tuple of str
        ``sys.argv``.
    sys_path : tuple of str
        The whole ``sys.path``.
    umask : int
    """

    environment: Mapping[str, str]
    working_directory: str
    argv: tuple[str, ...]
    sys_path: tuple[str, ...]
    umask: int


def prepare(*, stdout: int, stderr: int, keep: Collection[int], faults: int | None) -> None:
    """Take the steps in this freshly forked process that do not depend on the run.

    Parameters
    ----------
    stdout, stderr : int
        Descriptors that become 1 and 2.
    keep : collection of int
        Private descriptors that stay open; programs that the notebook starts do not inherit them.
    faults : int or None
        Descriptor for the Python stack when a signal such as SIGSEGV ends the process.
    """
    default_signals()
    _standard_descriptors(stdout, stderr)
    close_others(keep)
    standard_streams()
    _blank_main()
    linecache.clearcache()
    fresh_randomness()
    if faults is not None:
        faulthandler.enable(faults, all_threads=True)
    if not gc.isenabled():
        gc.enable()


def become_fresh(state: FreshState) -> None:
    """Apply the state of the run; the notebook can then be imported."""
    replace_environment(state.environment)
    os.umask(state.umask)
    os.chdir(state.working_directory)
    sys.argv[:] = state.argv
    sys.path[:] = state.sys_path
    _matplotlib_settings()
    _native_pools()


def default_signals() -> None:
    """Reset every signal to a fresh interpreter's disposition and mask."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        wanted: Any = signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL
        if number == signal.SIGINT:
            wanted = signal.default_int_handler
        if signal.getsignal(number) != wanted:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, wanted)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but 0, 1, 2 and those to keep."""
    kept = sorted({0, 1, 2, *keep})
    try:
        end = max(map(int, os.listdir("/proc/self/fd"))) + 1
    except OSError:
        end = os.sysconf("SC_OPEN_MAX")
    for low, high in zip(kept, [*kept[1:], end], strict=True):
        os.closerange(low + 1, high)
    for descriptor in kept[3:]:
        os.set_inheritable(descriptor, False)


def fresh_randomness() -> None:
    """Seed every module-level random generator, as its first import would."""
    random.seed()
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None
        tempfile._name_sequence = None  # noqa: SLF001 - a cache that has no public reset
    multiprocessing: Any = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        multiprocessing.current_process().authkey = os.urandom(32)


def _standard_descriptors(stdout: int, stderr: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for descriptor in {null, stdout, stderr} - {0, 1, 2}:
        os.close(descriptor)


def replace_environment(environment: Mapping[str, str]) -> None:
    """Make this process's variables these, and those that preloaded modules have added."""
    environment = {**_variables, **environment}
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if hasattr(time, "tzset"):
        time.tzset()


def standard_streams() -> None:
    """Open new streams: those of the template may be wrapped or have buffered text."""
    raw = io.FileIO(0, "r", closefd=False)
    raw.name = "<stdin>"  # type: ignore[misc]
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(
        io.BufferedReader(raw), encoding="utf-8", errors=_ERRORS[0]
    )
    sys.stdout = sys.__stdout__ = _live_stream(1, _ERRORS[1])
    sys.stderr = sys.__stderr__ = _live_stream(2, "backslashreplace")


class _LiveWriter(io.BufferedWriter):
    """Passes every write on at once and, unlike a raw file, always as a whole."""

    def write(self, buffer: Any, /) -> int:
        count = super().write(buffer)
        self.flush()
        return count


def _live_stream(descriptor: int, errors: str) -> TextIO:
    """An unbuffered UTF-8 text stream."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    raw.name = "<stdout>" if descriptor == 1 else "<stderr>"  # type: ignore[misc]
    return io.TextIOWrapper(
        _LiveWriter(raw), encoding="utf-8", errors=errors, newline="\n", write_through=True
    )


def _blank_main() -> None:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main


def remember_preloaded(variables: Iterable[str]) -> None:
    """Record what is preloaded, and with which settings (called by the template).

    Parameters
    ----------
    variables : iterable of str
        Those that imports have added to the environment.
    """
    global _last_preloaded, _matplotlib_file, _variables
    _variables = {name: os.environ[name] for name in variables}
    name = next(reversed(sys.modules))
    _last_preloaded = (name, sys.modules[name])
    _matplotlib_file = settings_file()
    renew_warnings()


def modules_since_preload() -> Iterator[tuple[str, types.ModuleType]]:
    """Names and modules imported since `remember_preloaded`; all if it was not called.

    New names are last in ``sys.modules``. Touching the others would copy their memory pages in a
    forked process.
    """
    for name in reversed(sys.modules):
        module = sys.modules[name]
        if (name, module) == _last_preloaded:
            return
        yield name, module


def settings_file() -> str | None:
    """The settings file that an imported matplotlib reads here."""
    matplotlib: Any = sys.modules.get("matplotlib")
    return None if matplotlib is None else str(matplotlib.matplotlib_fname())


def stop_native_pools() -> None:
    """End pools of native threads of libraries that can restart them in a forked process."""
    numexpr: Any = sys.modules.get("numexpr")
    if numexpr is not None:
        numexpr.set_num_threads(1)


def _native_pools() -> None:
    """Restart the pools, with the size that an import in this process would choose."""
    numexpr: Any = sys.modules.get("numexpr")
    if numexpr is not None:
        numexpr.set_num_threads(numexpr.nthreads)


def _matplotlib_settings() -> None:
    """Read what matplotlib reads on import (settings file, backend), if it is preloaded."""
    matplotlib: Any = sys.modules.get("matplotlib")
    if matplotlib is None:
        return
    file = matplotlib.matplotlib_fname()
    if file != _matplotlib_file:
        settings = matplotlib.rc_params_from_file(file)
        matplotlib.rcParamsOrig = settings.copy()
        matplotlib.rcParams.update(settings)
    backend = os.environ.get("MPLBACKEND")
    if backend:
        matplotlib.rcParams["backend"] = backend


def in_project(path: str, root: str) -> bool:
    """Whether a file or folder belongs to the project.

    A virtual environment may be inside the project, and so may research_jobs itself (in its own
    checkout): neither is the project's code.
    """
    place = os.path.realpath(path)
    top = os.path.realpath(root)
    if place != top and not place.startswith(top.rstrip(os.sep) + os.sep):
        return False
    if place == _PACKAGE or place.startswith(_PACKAGE + os.sep):
        return False
    return not _in_environment(place, top)


@lru_cache(maxsize=4096)
def _in_environment(place: str, top: str) -> bool:
    """Whether a path inside the project belongs to a virtual environment."""
    name = os.path.basename(place)
    if name in ("site-packages", "dist-packages") or place in _prefixes():
        return True
    if os.path.exists(os.path.join(place, "pyvenv.cfg")):
        return True
    parent = os.path.dirname(place)
    return place not in (top, parent) and parent != top and _in_environment(parent, top)


@lru_cache(maxsize=1)
def _prefixes() -> frozenset[str]:
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    return frozenset(map(os.path.realpath, prefixes))
