"""The folder ``notebooks/`` as notebooks and helper modules.

Only names are decided here, and only from text: nothing is imported.
"""

from __future__ import annotations

import keyword
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.errors import (
    NotebookError,
    NotebookNotFoundError,
    SourceLocation,
    did_you_mean,
)
from research_jobs.notebook.cells import has_marker
from research_jobs.notebook.decoding import decode_source, read_bytes, shown_path
from research_jobs.project import notebook_name

if TYPE_CHECKING:
    from research_jobs.notebook.scan import Scan

__all__ = [
    "SourceFile",
    "files_beside",
    "importable",
    "jupyter_notebooks",
    "lone_notebook",
    "not_found",
    "why_not",
]


@dataclass(frozen=True)
class SourceFile:
    """A Python file below ``notebooks/``.

    Parameters
    ----------
    parts : tuple of str
        Relative path without ``.py``: ``("volatility", "garch")``.
    path : Path
    stat : os.stat_result
    """

    parts: tuple[str, ...]
    path: Path
    stat: os.stat_result

    @property
    def name(self) -> str:
        """str: as a notebook, ``volatility/garch``."""
        return "/".join(self.parts)

    @property
    def module(self) -> str:
        """str: as a module, ``volatility.garch``."""
        return ".".join(self.parts)

    @property
    def is_private(self) -> bool:
        """bool: whether its name, or that of a folder above it, begins with ``_``."""
        return any(part.startswith("_") for part in self.parts)


@dataclass
class Folder:
    """The result of a walk: files, and what it refused."""

    files: list[SourceFile]
    problems: list[NotebookError]


def walk_folder(notebooks: Path) -> Folder:
    """All Python files below a folder, in a fixed order.

    Hidden folders, ``__pycache__`` and virtual environments are skipped. A link that leads out of
    the folder is a problem.
    """
    result = Folder([], [])
    root = os.path.realpath(notebooks)
    _walk(str(notebooks), root, (), (root,), result)
    result.files.sort(key=lambda file: file.parts)
    return result


def _walk(  # noqa: C901 - one branch a kind of entry
    folder: str, root: str, parts: tuple[str, ...], above: tuple[str, ...], result: Folder
) -> None:
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = SourceLocation(shown_path(Path(folder)))
        result.problems.append(NotebookError(f"folder cannot be read: {reason}", where=where))
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name == "__pycache__":
            continue
        python = name.endswith(".py")
        try:
            link = entry.is_symlink()
            folder_like = entry.is_dir()
            if not folder_like and not python:
                continue
            real = os.path.realpath(entry.path) if link else None
            if real is not None and not _inside(real, root):
                _refuse(entry.path, f"is a link to {real}, outside notebooks/", result)
                continue
            if folder_like:
                real = real or os.path.join(above[-1], name)  # noqa: PTH118 - thousands of these
                if real not in above:  # else the link leads into one of its own parents
                    _walk(entry.path, root, (*parts, name), (*above, real), result)
            elif entry.is_file():
                stat = entry.stat()
                result.files.append(SourceFile((*parts, name[:-3]), Path(entry.path), stat))
            elif link:
                _refuse(entry.path, "is a link to a file that does not exist", result)
        except OSError as error:
            _refuse(entry.path, f"cannot be read: {(error.strerror or str(error)).lower()}", result)


def _inside(real: str, root: str) -> bool:
    return real == root or real.startswith(root + os.sep)


def _refuse(path: str, what: str, folder: Folder) -> None:
    folder.problems.append(
        NotebookError(
            what,
            where=SourceLocation(shown_path(Path(path))),
            hint="Put the file itself into notebooks/, or install its package.",
        )
    )


def name_problem(file: SourceFile) -> NotebookError | None:
    """Why a notebook's name is unusable; ``None`` if it is usable."""
    for index, part in enumerate(file.parts):
        if part.isidentifier() and part.isascii() and not keyword.iskeyword(part):
            continue
        suffix = ".py" if index == len(file.parts) - 1 else ""
        label = f"'{part}.py'" if suffix else f"folder '{part}'"
        if not part.isidentifier():
            what = f"{label} is not a name that Python can import"
            hint = f"Rename it, for instance to '{importable(part)}{suffix}'."
        elif keyword.iskeyword(part):
            what = f"{label} is a Python keyword and cannot be imported"
            hint = f"Rename it, for instance to '{importable(part)}{suffix}'."
        elif unicodedata.normalize("NFKC", part) != part:
            what = f"{label} is spelled in a Unicode form that Python cannot import"
            hint = f"Rename it to '{unicodedata.normalize('NFKC', part)}', typed again."
        else:
            continue
        return NotebookError(what, where=SourceLocation(shown_path(file.path)), hint=hint)
    return None


def importable(part: str) -> str:
    """A similar name that Python can import: ``2024-report`` gives ``nb_2024_report``."""
    name = unicodedata.normalize("NFKC", part)
    if not name.isidentifier():
        name = re.sub(r"\W+", "_", name).strip("_")
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"nb_{name}".rstrip("_")


def shadow_problems(files: Sequence[SourceFile]) -> dict[tuple[str, ...], NotebookError]:
    """Files that no import reaches, because another file or folder has their name.

    A folder with ``__init__.py`` comes before a file of its name, and a file before a folder
    without one. A nested notebook is imported through its top-level folder. A file or folder of
    that name next to the notebook hides it, because the notebook's own folder is searched first.
    """
    modules = {file.parts for file in files}
    packages = {file.parts[:-1] for file in files if file.parts[-1] == "__init__"}
    folders = {file.parts[:depth] for file in files for depth in range(1, len(file.parts))}
    problems: dict[tuple[str, ...], NotebookError] = {}
    for file in files:
        where = SourceLocation(shown_path(file.path))
        if file.parts in packages:
            problems[file.parts] = NotebookError(
                f"is hidden by the package {'/'.join(file.parts)}/ next to it",
                where=where,
                hint="Rename one of them.",
            )
            continue
        for depth in range(1, len(file.parts)):
            above = file.parts[:depth]
            if above in modules and above not in packages:
                problems[file.parts] = NotebookError(
                    f"cannot be imported: '{'.'.join(above)}' is the file "
                    f"{'/'.join(above)}.py, not the folder",
                    where=where,
                    hint="Rename the file or the folder, or give the folder an __init__.py.",
                )
                break
        else:
            beside = (*file.parts[:-1], file.parts[0])
            if len(file.parts) > 1 and (beside in modules or beside in folders):
                problems[file.parts] = NotebookError(
                    f"cannot be imported: '{file.parts[0]}' next to it hides the top-level "
                    "folder of the same name",
                    where=where,
                    hint="Rename one of them.",
                )
    return problems


def sort_out(files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, NotebookError | None]]:
    """Each file with the reason why it cannot be a notebook, if any."""
    shadows = shadow_problems(files)
    for file in files:
        yield file, name_problem(file) or shadows.get(file.parts)


def lone_notebook(notebooks: Path, name: str) -> SourceFile | None:
    """A notebook without any obstacle; ``None`` if only a scan can tell."""
    parts: tuple[str, ...] = (*name.split("/"),)
    path = notebooks.joinpath(*parts).with_suffix(".py")
    if len(parts) > 1 or (notebooks / name).is_dir():
        return None
    try:
        if path.is_symlink():
            return None
        file = SourceFile(parts, path, path.stat())
        if file.is_private or name_problem(file) is not None:
            return None
        if not has_marker(decode_source(read_bytes(path), path)):
            return None
    except (OSError, NotebookError):
        return None
    return file


def jupyter_notebooks(notebooks: Path) -> list[Path]:
    """The ``.ipynb`` files below a folder, hidden folders left out."""
    paths: list[Path] = []
    for folder, folders, files in os.walk(notebooks):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(folder, name) for name in sorted(files) if name.endswith(".ipynb")]
    return paths


def files_beside(scan: Scan, notebooks: Path) -> str | None:
    """What looks like a notebook but is not one, and why; None for nothing.

    That is, Python files without a marker that no notebook imports and, if there are no notebooks
    at all, ``.ipynb`` files.
    """
    lines: list[str] = []
    imported = {name for notebook in scan.notebooks for name in notebook.local_modules}
    unused: list[str] = []
    for path in scan.helpers:
        parts = path.relative_to(notebooks).with_suffix("").parts
        private = any(part.startswith("_") for part in parts)
        if not private and not imported & {".".join(parts), parts[-1]}:
            unused.append("/".join(parts) + ".py")
    if unused:
        shown = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
        lines.append(
            f"No line '# %%', so not a notebook, and no notebook imports it: {shown}"
            if len(unused) == 1
            else f"No line '# %%', so not notebooks, and no notebook imports them: {shown}"
        )
    jupyter = [] if scan.notebooks else jupyter_notebooks(notebooks)
    if jupyter:
        what = "is not a notebook" if len(jupyter) == 1 else "are not notebooks"
        lines.append(f"{len(jupyter)} .ipynb here {what} yet: research-jobs convert notebooks/")
    if not scan.notebooks and not lines:
        lines.append(f"No notebooks in {notebooks}. Create one: research-jobs new NAME")
    return "\n".join(lines) or None


def why_not(notebooks: Path, name: str) -> NotebookNotFoundError | None:
    """Why the file of this name is not a notebook; None if there is no such file."""
    wanted = notebook_name(name)
    if not wanted:
        return None
    path = notebooks.joinpath(*wanted.split("/")).with_suffix(".py")
    shown = f"notebooks/{wanted}.py"
    if path.is_file():
        if any(part.startswith("_") for part in wanted.split("/")):
            return NotebookNotFoundError(
                f"{shown} is a helper module, not a notebook: its name begins with '_'",
                hint="Rename it to run it.",
            )
        return NotebookNotFoundError(
            f"{shown} is a helper module, not a notebook: it has no line '# %%'",
            hint="Put '# %%' above its first cell.",
        )
    jupyter = Path(name if name.endswith(".ipynb") else path.with_suffix(".ipynb"))
    for candidate in (jupyter, notebooks.parent / jupyter, notebooks / jupyter):
        if candidate.is_file():
            return NotebookNotFoundError(
                f"{candidate} is a Jupyter notebook, not yet a notebook of this project",
                hint=f"research-jobs convert {candidate}",
            )
    return None


def not_found(name: str, known: Iterable[str]) -> NotebookNotFoundError:
    """The error for a notebook that does not exist."""
    names = list(known)
    hint = did_you_mean(notebook_name(name), names, label="Notebooks")
    return NotebookNotFoundError(
        f"no notebook '{notebook_name(name) or name}'",
        hint=hint or "No file in notebooks/ has a line '# %%'.",
    )
