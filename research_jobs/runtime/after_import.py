"""Do something with a module as soon as it is imported. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

__all__ = ["AfterImport"]


class AfterImport:
    """A finder that adapts modules when they are first imported.

    Parameters
    ----------
    wanted : callable
        Whether a module of this name is to be adapted.
    adapt : callable
        Called with the module.
    """

    def __init__(self, wanted: Callable[[str], bool], adapt: Callable[[Any], object]) -> None:
        self._wanted = wanted
        self._adapt = adapt

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if not self._wanted(fullname):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        loader = _Loader(spec.loader, self._adapt)
        spec.loader = loader  # pyright: ignore[reportAttributeAccessIssue]
        return spec


class _Loader:
    """A module's own loader, with an action for when it has loaded."""

    def __init__(self, loader: Any, adapt: Callable[[Any], object]) -> None:
        self._loader = loader
        self._adapt = adapt

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        module.__loader__ = module.__spec__.loader = self._loader
        self._adapt(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
