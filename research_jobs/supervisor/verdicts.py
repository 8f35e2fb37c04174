"""A cache of modules that no template may import, shared by programs.

Finding one costs the start of a template. The results are valid for a day, as long as the folders
from which the interpreter imports are unchanged.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from research_jobs.filesystem import write_atomically
from research_jobs.protocol import PROTOCOL_VERSION

__all__ = ["Verdicts"]

FILE = Path(".research_jobs", "cache", "unfit.json")
_SECONDS = 24 * 3600


class Verdicts:
    """The unfit modules of one interpreter and one project.

    Parameters
    ----------
    project : str
        Root of the project.
    python : str
        The interpreter.
    modules : sequence of str
        The modules that the template should import.
    startup : mapping of str to str
        Variables that the interpreter and libraries read when they start.
    """

    def __init__(
        self, project: str, python: str, modules: Sequence[str], startup: Mapping[str, str]
    ) -> None:
        self._project = Path(project)
        self._key = json.dumps([PROTOCOL_VERSION, python, sorted(modules), sorted(startup.items())])

    def read(self) -> dict[str, str]:
        """Module to reason; empty if nothing is known."""
        found = self._entries().get(self._key)
        if found is None or _stamps(found["stamps"]) != found["stamps"]:
            return {}
        return {str(module): str(reason) for module, reason in found["unfit"].items()}

    def write(self, unfit: Mapping[str, str], folders: Sequence[str]) -> None:
        """Save the unfit modules.

        Parameters
        ----------
        unfit : mapping of str to str
        folders : sequence of str
            The folders from which the interpreter imports, and the files of the modules.
        """
        entries = self._entries()
        if not unfit and self._key not in entries:
            return
        entries[self._key] = {
            "at": time.time(),
            "unfit": dict(unfit),
            "stamps": _stamps(dict.fromkeys(folders)),
        }
        path = self._project / FILE
        # The loss only costs the next program some seconds.
        with contextlib.suppress(OSError):
            # Where nothing has run yet, no folder is created just for this.
            if path.parent.parent.is_dir():
                write_atomically(path, json.dumps(entries).encode(), private=True)

    def _entries(self) -> dict[str, Any]:
        try:
            content: object = json.loads((self._project / FILE).read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        oldest = time.time() - _SECONDS
        return {
            key: entry
            for key, entry in cast("dict[str, Any]", content).items()
            if _is_valid(entry) and entry["at"] > oldest
        }


def _is_valid(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("at"), float)
        and isinstance(entry.get("unfit"), dict)
        and isinstance(entry.get("stamps"), dict)
    )


def _stamps(paths: Mapping[str, Any]) -> dict[str, list[int] | None]:
    return {path: _stamp(path) for path in paths}


def _stamp(path: str) -> list[int] | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]
