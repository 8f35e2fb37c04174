"""The files of the project that an import statement refers to.

The rules are those of Python's path finder, applied to the names in folders: a package comes
before a module of its name, and both before a folder without ``__init__.py``, which counts only
if nothing else has the name. Nothing is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from research_jobs.notebook.interface import ImportRef, absolute

__all__ = ["Imported", "Resolver"]

_OWN = "research_jobs"


@dataclass(frozen=True)
class Imported:
    """A file's imports, resolved on one search path.

    Parameters
    ----------
    modules : tuple of (str, str)
        Local modules, name and file, packages above them included.
    external : tuple of str
        Dotted names of everything else except the standard library.
    members : tuple of str
        Names imported *from* those, dotted: modules or anything else.
    targets : tuple of (ImportRef, str)
        Each statement with the absolute name of its module.
    """

    modules: tuple[tuple[str, str], ...]
    external: tuple[str, ...]
    members: tuple[str, ...]
    targets: tuple[tuple[ImportRef, str], ...]


class Resolver:
    """Resolves imports; listings and results are cached for one scan."""

    def __init__(self) -> None:
        self._listings: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._found: dict[tuple[tuple[str, ...], str], tuple[tuple[str, str], ...] | None] = {}

    def imports(self, refs: Sequence[ImportRef], package: str, search: tuple[str, ...]) -> Imported:
        """Resolve import statements.

        Parameters
        ----------
        refs : sequence of ImportRef
        package : str
            Dotted package that relative imports start from.
        search : tuple of str
            Folders in the order of ``sys.path``.
        """
        modules: dict[str, str] = {}
        external: dict[str, None] = {}
        targets: list[tuple[ImportRef, str]] = []
        for ref in refs:
            name = absolute(ref, package)
            top = name.partition(".")[0]
            if not name or top == _OWN or top in sys.builtin_module_names:
                continue
            files = self.find(name, search)
            if files is None:
                if top not in sys.stdlib_module_names and not ref.level:
                    external[name] = None
                # a folder without __init__.py still holds modules: `from volatility import garch`
                for inner, _ in ref.names:
                    below = self.find(f"{name}.{inner}", search)
                    if below:
                        modules.update(below)
                        external.pop(name, None)
                        targets.append((ref, name))
                continue
            modules.update(files)
            targets.append((ref, name))
            for inner, _ in ref.names:
                modules.update(self.find(f"{name}.{inner}", search) or ())
        members = {
            f"{ref.module}.{inner}": None
            for ref in refs
            if not ref.level and ref.module in external
            for inner, _ in ref.names
            if inner != "*"
        }
        return Imported(tuple(modules.items()), tuple(external), tuple(members), tuple(targets))

    def holds(self, top: str, search: tuple[str, ...]) -> bool:
        """Whether a top-level name is a module, or a folder with modules, of these folders."""
        return any(
            top in stems or (top in folders and bool(self._listing(f"{folder}{os.sep}{top}")[0]))
            for folder in search
            for stems, folders in (self._listing(folder),)
        )

    def find(self, name: str, search: tuple[str, ...]) -> tuple[tuple[str, str], ...] | None:
        """The files that importing a module runs, packages first; ``None`` when it is not local."""
        key = (search, name)
        if key not in self._found:
            self._found[key] = self._find(name, search)
        return self._found[key]

    def _find(self, name: str, search: tuple[str, ...]) -> tuple[tuple[str, str], ...] | None:
        folders: Sequence[str] = search
        files: list[tuple[str, str]] = []
        dotted = ""
        parts = name.split(".")
        for index, part in enumerate(parts):
            dotted = f"{dotted}.{part}" if dotted else part
            portions: list[str] = []
            for folder in folders:
                stems, subfolders = self._listing(folder)
                inner = f"{folder}{os.sep}{part}"
                if part in subfolders:
                    if "__init__" in self._listing(inner)[0]:
                        files.append((dotted, f"{inner}{os.sep}__init__.py"))
                        portions = [inner]
                        break
                    portions.append(inner)
                if part in stems:
                    files.append((dotted, f"{inner}.py"))
                    # a module has no modules below it
                    return tuple(files) if index == len(parts) - 1 else None
            if not portions:
                return None
            folders = portions
        last = files[-1][0] if files else ""
        return tuple(files) if last == name else None

    def _listing(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        """Stems of the Python files and names of the folders in a folder."""
        known = self._listings.get(folder)
        if known is None:
            stems: set[str] = set()
            folders: set[str] = set()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py"):
                            stems.add(entry.name[:-3])
                        elif "." not in entry.name and entry.is_dir():
                            folders.add(entry.name)
            except OSError:
                pass
            known = self._listings[folder] = (frozenset(stems), frozenset(folders))
        return known


def search_path(folder: Path, notebooks: Path, root: Path, extra: Sequence[str]) -> tuple[str, ...]:
    """The folders on a notebook's import path, as in the fresh process."""
    return tuple(dict.fromkeys([str(folder), str(notebooks), str(root), *extra]))
