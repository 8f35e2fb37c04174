"""Describe a failure for the notebook's author: the location first, then only their own frames.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from research_jobs.errors import ResearchJobsError
from research_jobs.notebook.cells import Cell, NotebookText, cell_at, cell_label
from research_jobs.outcome import Failure

__all__ = ["describe_failure", "safe_str", "user_traceback"]

# Of a longer cell, only the part around the failing line is shown.
CELL_LINES = 60
CONTEXT_LINES = 15
MESSAGE_LENGTH = 2_000

_HERE = str(Path(__file__).resolve().parents[1]) + os.sep


def describe_failure(error: BaseException, text: NotebookText, project_root: Path) -> Failure:
    """Describe a notebook's exception, with a one-line headline.

    Parameters
    ----------
    error : BaseException
        What the notebook raised.
    text : NotebookText
        The notebook as it was run.
    project_root : Path
        Paths below it are shown relative to it.

    Returns
    -------
    Failure
        ``headline`` is ``file:line, cell 3 "title": KeyError: 'Close'``; ``traceback`` has the
        user's frames only.
    """
    line = _notebook_line(error, text)
    cell = cell_at(text.cells, line) if line is not None else None
    place = _shown(text.path, project_root)
    if line is not None:
        place += f":{line}"
    if cell is not None:
        place += f", {cell_label(cell)}"
    origin = _origin(error, text, project_root)
    return Failure(
        headline=f"{place}: {_one_line(error)}" + (f" (in {origin})" if origin else ""),
        traceback=user_traceback(error, text, project_root),
        exception=_qualified_name(type(error)),
        line=line,
        cell=cell.number if cell is not None else None,
        cell_title=cell.title if cell is not None else None,
        cell_source=_cell_source(cell, line) if cell is not None else None,
    )


def user_traceback(error: BaseException, text: NotebookText, project_root: Path) -> str:
    """The traceback without the frames of libraries and of this program.

    If the exception was raised inside a library, one line says where.
    If no frame is the user's, those of libraries are kept.
    """
    description = traceback.TracebackException.from_exception(error, compact=True)
    for part in _parts(description):
        _keep_user_frames(part, str(text.path), str(project_root), whole=part is description)
    return "".join(description.format()).rstrip("\n")


def _parts(description: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """The exception with its causes, contexts and the members of groups."""
    waiting = [description]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [linked for linked in (part.__cause__, part.__context__) if linked is not None]
        waiting += getattr(part, "exceptions", None) or []


def _keep_user_frames(
    part: traceback.TracebackException, notebook: str, project_root: str, *, whole: bool
) -> None:
    """Cut a stack down; with none of the user's, `whole` keeps all and otherwise the last."""
    frames = list(part.stack)
    for index, frame in enumerate(frames):
        if frame.filename == notebook:
            # The notebook's callers are ours, not the user's.
            frames = frames[index:]
            break
    kept = [frame for frame in frames if _is_users(frame.filename, notebook)]
    if not kept:
        # Neither this program nor the import that it made is a part of the story.
        ours = (_HERE, "<frozen ")
        if not frames[-1:] or not frames[-1].filename.startswith(ours):
            kept = [frame for frame in frames if not frame.filename.startswith(ours)]
            kept = kept if whole else kept[-1:]
    elif frames[-1] is not kept[-1] and not frames[-1].filename.startswith(_HERE):
        last = frames[-1]
        note = f"(raised inside {_library_path(last.filename)}, line {last.lineno}, in {last.name})"
        kept.append(traceback.FrameSummary(note, None, "", lookup_line=False, line=""))
    if kept:
        part.stack = _Stack.of(kept, project_root)
    else:
        part.stack = cast("Any", None)  # then no line says that frames follow


class _Stack(traceback.StackSummary):
    """A stack whose last entry may be a note instead of a frame."""

    _root = ""

    @classmethod
    def of(cls, frames: list[traceback.FrameSummary], root: str) -> _Stack:
        stack = cls(frames)
        stack._root = root
        return stack

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **options: bool) -> str:
        if frame_summary.lineno is None:
            return f"  {frame_summary.filename}\n"
        text = super().format_frame_summary(frame_summary, **options)
        prefix = f'  File "{self._root}{os.sep}'
        return '  File "' + text[len(prefix) :] if text.startswith(prefix) else text


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.add(os.path.dirname(os.__file__))  # noqa: PTH120 - a string is compared
    return tuple(os.path.realpath(folder) + os.sep for folder in folders) + tuple(
        folder + os.sep for folder in folders
    )


def _is_users(filename: str, notebook: str) -> bool:
    if filename == notebook:
        return True
    if filename.startswith(("<frozen ", _HERE)):
        return False
    if not os.path.isabs(filename):  # noqa: PTH117 - a string is asked about
        # Generated code, and compiled libraries that name their sources.
        return False
    parts = filename.replace("\\", "/").split("/")
    if "site-packages" in parts or "dist-packages" in parts:
        return False
    return not filename.startswith(_library_folders())


def _library_path(filename: str) -> str:
    """``pandas/core/frame.py`` for a file of an installed package."""
    text = filename.replace("\\", "/")
    for marker in ("/site-packages/", "/dist-packages/"):
        if marker in text:
            return text.rsplit(marker, 1)[1]
    for folder in _library_folders():
        if filename.startswith(folder):
            return filename[len(folder) :]
    return filename


def _notebook_line(error: BaseException, text: NotebookText) -> int | None:
    """The line of the notebook that was running, from the innermost frame in it."""
    path = str(text.path)
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    if isinstance(error, ResearchJobsError) and error.where is not None:
        where = error.where
        if where.line is not None and Path(where.path).name == text.path.name:
            return where.line
    line: int | None = None
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frame = current.__traceback__
        while frame is not None:
            code = frame.tb_frame.f_code
            # The module-level frame decides the cell: a function may be defined in an earlier one.
            if code.co_filename == path and (line is None or code.co_name == "<module>"):
                line = frame.tb_lineno
            frame = frame.tb_next
        if line is not None:
            return line
        current = current.__cause__ or current.__context__
    return None


def _origin(error: BaseException, text: NotebookText, project_root: Path) -> str | None:
    """The user's other file, or the string, that failed; None for the notebook itself."""
    path = str(text.path)
    if isinstance(error, SyntaxError):
        file, line = error.filename or _source_with_null(error), error.lineno
    elif isinstance(error, ResearchJobsError):
        return None
    else:
        file, line = _innermost(error, path)
    if file is None or file == path:
        return None
    place = _shown(Path(file), project_root)
    return f"{place}:{line}" if line else place


def _innermost(error: BaseException, notebook: str) -> tuple[str | None, int | None]:
    """The innermost of the user's frames below the notebook's, without generated code."""
    file: str | None = None
    line: int | None = None
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if name == notebook or (file is not None and _is_users(name, notebook)):
            file, line = name, step.tb_lineno
        step = step.tb_next
    return file, line


def _source_with_null(error: BaseException) -> str | None:
    """The imported file that contains a null byte: Python's error does not name it."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or "null byte" not in str(error):
        return None
    line = linecache.getline(step.tb_frame.f_code.co_filename, step.tb_lineno).strip()
    names: list[str] = []
    with contextlib.suppress(SyntaxError):
        for node in ast.walk(ast.parse(line)):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in names:
        with contextlib.suppress(Exception):
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin and b"\0" in Path(spec.origin).read_bytes():
                return spec.origin
    return None


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, ResearchJobsError):
        message = error.headline
    elif isinstance(error, SyntaxError):
        message = safe_str(error.msg or "")  # a bare ``raise SyntaxError`` has None
    else:
        message = safe_str(error)
    lines = message.strip().splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    if len(first) > MESSAGE_LENGTH:
        first = first[:MESSAGE_LENGTH] + "…"
    return f"{name}: {first}" if first else name


def safe_str(value: object) -> str:
    """The text of an exception, or of what a notebook exits with."""
    try:
        return str(value)
    except BaseException:  # noqa: BLE001 - its __str__ may raise anything, SystemExit included
        return "(its message cannot be shown)"


def _qualified_name(cls: type[BaseException]) -> str:
    module = cls.__module__
    return cls.__qualname__ if module in ("builtins", None) else f"{module}.{cls.__qualname__}"


def _cell_source(cell: Cell, line: int | None) -> str:
    """The cell with line numbers and an arrow at the failing line."""
    lines = cell.source.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    numbered = [(cell.first_line + index, text) for index, text in enumerate(lines)]
    if len(numbered) > CELL_LINES and line is not None:
        numbered = [item for item in numbered if abs(item[0] - line) <= CONTEXT_LINES]
    width = len(str(numbered[-1][0])) if numbered else 1
    return "\n".join(
        f"{'->' if number == line else '  '} {number:>{width}} {text}".rstrip()
        for number, text in numbered
    )


def _shown(path: Path, project_root: Path) -> str:
    try:
        return path.relative_to(project_root).as_posix()
    except ValueError:
        return str(path)


if sys.version_info < (3, 11):  # pragma: no cover - StackSummary formats frames inline there

    def _format(self: _Stack) -> list[str]:
        lines: list[str] = []
        prefix = f'  File "{self._root}{os.sep}'
        plain = traceback.StackSummary.from_list([f for f in self if f.lineno is not None])
        lines += [
            '  File "' + item[len(prefix) :] if item.startswith(prefix) else item
            for item in traceback.StackSummary.format(plain)
        ]
        lines += [f"  {frame.filename}\n" for frame in self if frame.lineno is None]
        return lines

    _Stack.format = _format  # type: ignore[method-assign]
