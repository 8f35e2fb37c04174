"""Worker processes of a notebook get its functions without running it again.

- With cloudpickle (loky, joblib, dask, any vendored copy), the notebook's functions and classes are
pickled by value, like those of the editor's ``__main__``.
- With pickling by name (spawn and forkserver pools of multiprocessing and the like), a worker would
have to import the notebook, which runs it. `worker_main` refuses that import and tells the
guardian, which ends the run.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from research_jobs.runtime.after_import import AfterImport
from research_jobs.runtime.fresh import modules_since_preload

__all__ = ["WORKER_VARIABLE", "become_main", "remember_helpers"]

#: tells a worker which import to refuse, and where to report it
WORKER_VARIABLE = "RESEARCH_JOBS_WORKER_OF"

_WORKER_MAIN = str(Path(__file__).with_name("worker_main.py"))

# Modules that send work to other processes: by the last part of their name, wherever a package
# keeps a copy, and by name.
_KINDS = ("cloudpickle", "spawn")
_DISTRIBUTED = "distributed.protocol.pickle"
# What has taken a function from the latter when it was preloaded.
_DISTRIBUTED_USERS = ("distributed.client", "distributed.scheduler")

# Such modules that were preloaded; see `remember_helpers`.
_preloaded: list[ModuleType] = []


def remember_helpers() -> None:
    """Record which modules that send work are preloaded (called by the template)."""
    _preloaded[:] = [module for name, module in sys.modules.items() if _is_helper(name)]


def become_main(module: ModuleType, refusals: int) -> None:
    """Make the notebook's module ``__main__``, as in the editor, for its workers too.

    Parameters
    ----------
    module : ModuleType
        The notebook, before its first cell runs.
    refusals : int
        Descriptor of the pipe on which a worker reports that it tried to import the notebook.
    """
    sys.modules["__main__"] = module
    if "__mp_main__" in sys.modules:  # as multiprocessing's import leaves it
        sys.modules["__mp_main__"] = module
    adapt = _Adapter(module, refusals)
    for helper in (*_preloaded, *(found for _name, found in modules_since_preload())):
        if _is_helper(helper.__name__):
            adapt(helper)
    sys.meta_path.insert(0, AfterImport(_is_helper, adapt))


def _is_helper(name: str) -> bool:
    return name.rpartition(".")[2] in _KINDS or name == _DISTRIBUTED


class _Adapter:
    """Adapts modules that send work to other processes to this notebook.

    Parameters
    ----------
    notebook : ModuleType
    refusals : int
    """

    def __init__(self, notebook: ModuleType, refusals: int) -> None:
        self._notebook = notebook
        self._order = json.dumps(
            {
                "module": notebook.__name__,
                "path": notebook.__file__,
                "refusals": f"/proc/{os.getpid()}/fd/{refusals}",
            }
        )

    def __call__(self, helper: ModuleType) -> None:
        register: Any = getattr(helper, "register_pickle_by_value", None)
        if register is not None:
            register(self._notebook)
        prepare: Any = getattr(helper, "get_preparation_data", None)
        if prepare is not None:
            helper.get_preparation_data = self._prepare(prepare)  # type: ignore[attr-defined]
        if helper.__name__ == _DISTRIBUTED:
            dumps: Any = helper.dumps
            by_value = self._by_value(dumps)
            for user in (helper, *map(sys.modules.get, _DISTRIBUTED_USERS)):
                if getattr(user, "dumps", None) is dumps:
                    setattr(user, "dumps", by_value)  # noqa: B010 - any module

    def _prepare(self, prepare: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """A worker's start data, without the order to run ``__main__`` again."""

        def get_preparation_data(*args: Any, **options: Any) -> dict[str, Any]:
            os.environ[WORKER_VARIABLE] = self._order
            data = prepare(*args, **options)
            data.pop("init_main_from_name", None)
            data["init_main_from_path"] = _WORKER_MAIN
            return data

        return get_preparation_data

    def _by_value(self, dumps: Callable[..., bytes]) -> Callable[..., bytes]:
        """Pickle what refers to the notebook with cloudpickle, as distributed does."""
        import cloudpickle

        mark = self._notebook.__name__.encode()

        def by_value(
            value: Any, *, buffer_callback: Callable[[Any], object] | None = None, **options: Any
        ) -> bytes:
            buffers: list[Any] = []
            take = None if buffer_callback is None else buffers.append
            data = dumps(value, buffer_callback=take, **options)
            if mark in data:
                buffers.clear()
                data = cloudpickle.dumps(value, buffer_callback=take, **options)
            if buffer_callback is not None:
                for buffer in buffers:
                    buffer_callback(buffer)
            return data

        return by_value
