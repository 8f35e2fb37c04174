"""The names of converted notebooks: importable, free, and hiding nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from pathlib import Path

from research_jobs.errors import NotebookError
from research_jobs.moving.reading import read_jupyter
from research_jobs.notebook.discovery import importable, jupyter_notebooks
from research_jobs.notebook.environment import installed
from research_jobs.project import Project

__all__ = ["plan_targets"]


def plan_targets(paths: Collection[Path], project: Project) -> dict[Path, Path]:
    """The script that each notebook at the paths becomes, in its own subfolder.

    Parameters
    ----------
    paths : collection of Path
        Files, or folders to search.
        None is named like a library, or like a module that one of them imports.
    project : Project

    Raises
    ------
    NotebookError
        When a folder has no ``.ipynb`` file.
    """
    wanted: dict[Path, tuple[str, ...]] = {}
    for path in paths:
        wanted.update(_wanted(path, project))
    tops = {parts[0] for parts in wanted.values()} | {parts[-1] for parts in wanted.values()}
    libraries = {*sys.stdlib_module_names, *_libraries(tops, project)}
    libraries.update(*map(_imported_by, wanted))
    named = {
        source: tuple(
            f"nb_{part}" if part in libraries and position in (0, len(parts) - 1) else part
            for position, part in enumerate(parts)
        )
        for source, parts in wanted.items()
    }
    folders = {parts[:depth] for parts in named.values() for depth in range(1, len(parts))}
    taken: set[tuple[str, ...]] = set()
    targets: dict[Path, Path] = {}
    for source, parts in named.items():
        name, number = parts[-1], 1
        inside = project.notebooks.joinpath(*parts)
        if parts in folders or (len(parts) > 1 and name == parts[0]) or _has_python(inside):
            name = f"nb_{name}"
        free = name
        while (*parts[:-1], free.casefold()) in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add((*parts[:-1], free.casefold()))
        targets[source] = project.notebooks.joinpath(*parts[:-1], f"{free}.py")
    return targets


_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+(\w+)", re.MULTILINE)


def _imported_by(source: Path) -> set[str]:
    try:
        cells = read_jupyter(source)["cells"]
    except NotebookError:  # reported when it is converted
        return set()
    code = (cell["source"] for cell in cells if cell["cell_type"] == "code")
    return {name for text in code for name in _IMPORT.findall(text)}


def _has_python(folder: Path) -> bool:
    return folder.is_dir() and any(folder.rglob("*.py"))


def _wanted(path: Path, project: Project) -> dict[Path, tuple[str, ...]]:
    """The notebooks at a path, each with its folders and name."""
    notebooks = project.notebooks.resolve()
    files, top = [path], path.parent.resolve()
    if path.is_dir():
        reports = project.reports.resolve()
        top = path.resolve()
        files = [file for file in jupyter_notebooks(path) if reports not in file.resolve().parents]
        if not files:
            raise NotebookError(
                f"{path} has no .ipynb file", hint="Name a file, or another folder."
            )
    wanted: dict[Path, tuple[str, ...]] = {}
    for file in files:
        folder = file.parent.resolve()
        inside = folder.is_relative_to(notebooks)
        folders = folder.relative_to(notebooks if inside else top).parts
        if not inside:  # there a leading underscore does not say that a folder is private
            folders = tuple(name.strip("_") for name in folders)
        wanted[file] = (*map(importable, folders), importable(file.stem.strip("_")))
    return wanted


def _libraries(names: Collection[str], project: Project) -> set[str]:
    """Those names that belong to something installed, and not to the project itself."""
    own = {project.root, project.notebooks}
    found = installed(names)
    return {
        name
        for name in found
        if not any((folder / f"{name}.py").exists() or (folder / name).is_dir() for folder in own)
    }
