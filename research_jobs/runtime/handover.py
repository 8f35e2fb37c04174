"""Live values for the caller of `run_notebook()`: the only place that pickles anything.

Classes and functions of the project are pickled by value, as the caller does not import them.

Standard library only at the top, Python 3.10 and later.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research_jobs.errors import OutputError, SourceLocation
from research_jobs.protocol import RunRequest
from research_jobs.runtime.ending import shown_path
from research_jobs.runtime.fresh import in_project, modules_since_preload
from research_jobs.runtime.ownership import as_owner

__all__ = ["hand_over"]


def hand_over(request: RunRequest, namespace: Mapping[str, Any]) -> tuple[str, ...]:
    """Pickle the requested values into the file that the caller reads.

    Parameters
    ----------
    request : RunRequest
    namespace : mapping
        The notebook's names.

    Returns
    -------
    tuple of str
        Those of the requested names that the notebook defined.

    Raises
    ------
    OutputError
        When a value cannot be pickled; names it and its type.
    """
    if request.results_path is None:
        return ()
    names = tuple(name for name in request.results if name in namespace)
    dumps = _pickler(request)
    try:
        pickled = as_owner(lambda: dumps({name: namespace[name] for name in names}))
    except Exception:
        for name in names:
            _explain(request, name, namespace[name], dumps)
        raise
    Path(request.results_path).write_bytes(pickled)
    return names


def _explain(request: RunRequest, name: str, value: Any, dumps: Any) -> None:
    """Raise an error that names the value if this is the one that cannot be pickled."""
    try:
        dumps(value)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise OutputError(
            f"result '{name}' of type {kind} cannot be pickled: {error}",
            where=SourceLocation(shown_path(request)),
            hint="Ask for a value that can be pickled.",
        ) from error


def _pickler(request: RunRequest) -> Any:
    try:
        import cloudpickle
    except ModuleNotFoundError:
        # The notebook's own interpreter may lack it: then the project's classes cannot be
        # pickled, and the error names the class.
        return _plain_pickle(request)
    for name, module in list(modules_since_preload()):
        if _is_project_module(name, module, request):
            cloudpickle.register_pickle_by_value(module)

    def dumps(value: Any) -> bytes:
        return cloudpickle.dumps(value, protocol=5)

    return dumps


def _plain_pickle(request: RunRequest) -> Any:
    class Pickler(pickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            owner = sys.modules.get(getattr(obj, "__module__", None) or "")
            if (
                isinstance(obj, type)
                and owner is not None
                and _is_project_module(owner.__name__, owner, request)
            ):
                raise pickle.PicklingError(
                    f"class {obj.__qualname__} is defined in the project, so pickling it "
                    f"requires the package 'cloudpickle' in {sys.executable}"
                )
            return NotImplemented

    def dumps(value: Any) -> bytes:
        import io

        buffer = io.BytesIO()
        Pickler(buffer, protocol=5).dump(value)
        return buffer.getvalue()

    return dumps


def _is_project_module(name: str, module: Any, request: RunRequest) -> bool:
    if name.partition(".")[0] == "research_jobs" or name == "__main__":
        return False
    file = getattr(module, "__file__", None)
    # Most modules are libraries: asking the file system about each would take longer than the run.
    return (
        isinstance(file, str)
        and file.startswith((request.project_root, *request.sys_path))
        and in_project(file, request.project_root)
    )
