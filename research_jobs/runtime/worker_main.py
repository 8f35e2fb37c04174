"""The ``__main__`` of a notebook's worker processes, which multiprocessing runs as a script.

It replaces the notebook: importing the notebook in a worker would run it a second time, so that
import is refused.

Standard library only, Python 3.10 and later. It must not import our modules: a worker may not have
research_jobs.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import types
from collections.abc import Sequence
from typing import NoReturn


class _Refusal:
    """Blocks the import of one module.

    Parameters
    ----------
    module, path : str
        The notebook's name and file.
    refusals : str
        Receives a line for each refusal.
    """

    def __init__(self, module: str, path: str, refusals: str) -> None:
        self.module = module
        self.path = os.path.realpath(path)
        self.refusals = refusals

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> None:
        """Find nothing, but raise ImportError for the notebook."""
        del target
        if fullname.rpartition(".")[2] != self.module.rpartition(".")[2]:
            return
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin and os.path.realpath(spec.origin) == self.path:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raise; in a pool that takes work, report it and exit, as the pool would go on."""
        message = f"a worker process cannot import the notebook {self.module}: it would run again"
        caller = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no public way
        if _takes_work(caller):
            with contextlib.suppress(OSError):
                os.write(2, f"{message}\n".encode())
                os.write(os.open(self.refusals, os.O_WRONLY), b"refused\n")
                os._exit(1)
        raise ImportError(message)


def _takes_work(frame: types.FrameType | None) -> bool:
    """Whether a pool imports, to unpickle work, rather than the work itself."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("importlib", "dill"):
            return package in ("multiprocessing", "multiprocess", "billiard")
        frame = frame.f_back
    return False


class _Absent(types.ModuleType):
    """Whether no worker could import the notebook, as its folder has another module's name."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _refusal.refuse()


_refusal = _Refusal(**json.loads(os.environ["RESEARCH_JOBS_WORKER_OF"]))
sys.meta_path.insert(0, _refusal)
_parent = _refusal.module.rpartition(".")[0]
if _parent:
    with contextlib.suppress(ImportError):
        _found = importlib.util.find_spec(_parent)
        if _found is not None and _found.submodule_search_locations is None:
            sys.modules[_refusal.module] = _Absent(_refusal.module)
