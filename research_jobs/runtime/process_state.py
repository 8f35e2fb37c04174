"""State of the whole process, which an import must not change.

A template imports what any notebook needs, so a notebook would see what other notebooks' libraries
have set. A module that changes any of this is therefore not preloaded.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import codecs
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection
from typing import Any

__all__ = [
    "SETTINGS_OF",
    "STATEFUL_MODULES",
    "differences",
    "process_state",
    "renew_warnings",
]


def process_state(environment: Collection[str]) -> dict[str, Any]:
    """The state by name, in a form that can be compared.

    Parameters
    ----------
    environment : collection of str
        Names of the variables that an import must not change.
    """
    root = logging.getLogger()
    state: dict[str, Any] = {
        "the warning filters": [entry for entry in warnings.filters if _concerns_everybody(entry)],
        "how warnings are shown": warnings.showwarning,
        "the root logger": (root.level, list(root.handlers), list(root.filters), root.disabled),
        "logging": (root.manager.disable, logging.getLoggerClass(), logging.getLogRecordFactory()),
        # What an import adds is added to each run too (`fresh.remember_preloaded`).
        "the environment": {name: os.environ.get(name) for name in environment},
        "sys.path": list(sys.path),
        "sys.argv": list(sys.argv),
        "the working directory": os.getcwd(),  # noqa: PTH109 - no object is needed
        "standard streams": (sys.stdin, sys.stdout, sys.stderr),
        "an interpreter hook": (
            sys.excepthook,
            sys.unraisablehook,
            sys.displayhook,
            sys.breakpointhook,
            threading.excepthook,
            sys.gettrace(),
            sys.getprofile(),
        ),
        "interpreter limits": (sys.getrecursionlimit(), sys.getswitchinterval()),
        "the garbage collector": (gc.get_threshold(), list(gc.callbacks)),
        "signal handlers": tuple(map(signal.getsignal, signal.valid_signals())),
        "the default encoding's error handlers": tuple(
            map(codecs.lookup_error, ("strict", "ignore", "replace", "surrogateescape"))
        ),
    }
    for module, (what, describe) in _OF_MODULES.items():
        loaded: Any = sys.modules.get(module)
        if loaded is not None:
            state[what] = describe(loaded)
    return state


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what differs; state that is new belongs to a newly imported module."""
    return [what for what, value in before.items() if _differ(value, after.get(what))]


def renew_warnings() -> None:
    """Make warnings that were shown "once" or by "default" appear again."""
    onceregistry: dict[Any, Any] = getattr(warnings, "onceregistry", {})
    onceregistry.clear()
    # Leaving the context invalidates every module's record of shown warnings.
    with warnings.catch_warnings():
        pass


def _concerns_everybody(entry: Any) -> bool:
    """Whether a filter affects more than one library's own category, message or module."""
    _action, message, category, module, _line = entry
    return message is None and module is None and category.__module__ == "builtins"


def _differ(before: object, after: object) -> bool:
    try:
        return bool(before != after)
    except Exception:  # noqa: BLE001 - an array among the settings, for instance
        return repr(before) != repr(after)


def _locale(module: Any) -> Any:
    return module.setlocale(module.LC_ALL)


def _decimal(module: Any) -> Any:
    return repr(module.getcontext()), repr(module.DefaultContext)


def _numpy(module: Any) -> Any:
    return module.geterr(), module.get_printoptions()


def _matplotlib(module: Any) -> Any:
    # The backend is chosen for each run.
    return {name: item for name, item in dict.items(module.rcParams) if name != "backend"}


def _pandas(module: Any) -> Any:
    # A nested dictionary of all options.
    return repr(module._global_config)  # noqa: SLF001 - a copy in public would read each option


def _multiprocessing(module: Any) -> Any:
    return module.get_start_method(allow_none=True)


#: modules of the standard library that hold state of the whole process
STATEFUL_MODULES = ("locale", "decimal", "multiprocessing")

#: libraries with settings that others may change
SETTINGS_OF = ("numpy", "pandas", "matplotlib")

_OF_MODULES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "locale": ("the locale", _locale),
    "decimal": ("the decimal context", _decimal),
    "numpy": ("numpy's settings", _numpy),
    "matplotlib": ("matplotlib's settings", _matplotlib),
    "pandas._config.config": ("pandas' options", _pandas),
    "multiprocessing": ("how processes are started", _multiprocessing),
}
