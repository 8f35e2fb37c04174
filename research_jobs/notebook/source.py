"""The text of a notebook as a syntax tree, with an error that says what to do where there is none.

Standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from contextlib import nullcontext

from research_jobs.errors import NotebookSyntaxError, SourceLocation
from research_jobs.notebook.cells import NotebookText, cell_at, cell_label, shown_path

__all__ = ["parse_source"]

# What the parser may warn of: an escape, or a number that runs into a word (`1if x`).
_WARNED = re.compile(r"\\|\d[a-z]")


class _Silence:
    """No warnings while it is held.

    `warnings.catch_warnings` sets a filter of the whole process and puts the old one back: two
    threads that overlap would put back each other's. Ours at least take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = threading.local()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._held.context = warnings.catch_warnings()
        self._held.context.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *exc: object) -> None:
        self._held.context.__exit__(*exc)
        self._lock.release()


_SILENCE = _Silence()


def parse_source(text: NotebookText) -> ast.Module:
    """Parse a notebook or a helper module.

    Parameters
    ----------
    text : NotebookText

    Returns
    -------
    ast.Module
        Line numbers are those of the file. Top-level ``await`` is accepted.

    Raises
    ------
    NotebookSyntaxError
        With file, line, column and cell. A magic (``%time``, ``!ls``, ``df?``) is told apart from
        other mistakes: the hint says what to write instead.
    """
    try:
        # An invalid escape is the notebook's business when it runs, not ours when it is read.
        with _SILENCE if _WARNED.search(text.text) else nullcontext():
            return ast.parse(text.text, filename=str(text.path))
    except SyntaxError as error:
        raise _syntax_error(text, error) from None
    except (RecursionError, MemoryError):
        raise NotebookSyntaxError(
            "is nested too deeply to be parsed", where=SourceLocation(shown_path(text.path))
        ) from None
    except ValueError as error:  # null bytes, before Python 3.12
        line = text.text.partition("\0")[0].count("\n") + 1
        raise NotebookSyntaxError(
            str(error), where=SourceLocation(shown_path(text.path), line)
        ) from None


def _syntax_error(text: NotebookText, error: SyntaxError) -> NotebookSyntaxError:
    lines = text.text.split("\n")
    number = error.lineno
    if number is None:  # null bytes, from Python 3.12 on
        number = text.text.partition("\0")[0].count("\n") + 1
    number = max(1, min(number, len(lines)))
    line = lines[number - 1]
    column = max(1, error.offset or 1)
    cell = cell_at(text.cells, number)
    inside = f" in {cell_label(cell)}" if cell else ""
    where = shown_path(text.path)
    magic = _MAGIC.match(line)
    if magic:
        return NotebookSyntaxError(
            f"'{line.strip()}'{inside} is IPython's and no Python",
            where=SourceLocation(where, number, magic.start("magic") + 1),
            hint=_instead(magic["magic"].strip()),
            details=_excerpt(line, number, magic.start("magic") + 1),
        )
    return NotebookSyntaxError(
        f"{error.msg}{inside}",
        where=SourceLocation(where, number, column),
        details=_excerpt(line, number, column),
    )


def _excerpt(line: str, number: int, column: int) -> str:
    margin = f"{number:>5} | "
    # Tabs are kept so that the caret stands below its character in any terminal.
    before = "".join(c if c == "\t" else " " for c in line[: column - 1])
    return f"{margin}{line}\n{' ' * (len(margin) - 2)}| {before}^"


_MAGIC = re.compile(
    r"[ \t]*(?:[\w.,* \t\[\]'\"]*?=[ \t]*)?(?P<magic>%%?[A-Za-z].*|!{1,2}\S.*|\?{1,2}[A-Za-z*].*"
    r"|[A-Za-z_][\w.*]*\?{1,2}[ \t]*$)"
)

_INSTEAD = {
    "matplotlib": "Charts need no magic here",
    "autoreload": "Every run is a fresh process, so nothing need be reloaded",
    "load_ext": "Extensions of IPython are not loaded in batch",
    "reload_ext": "Extensions of IPython are not loaded in batch",
    "config": "IPython's settings have no meaning in batch",
    "pip": "Packages belong into the environment, not into the notebook",
    "conda": "Packages belong into the environment, not into the notebook",
    "time": "Write time.perf_counter() before and behind it",
    "timeit": "Write timeit.timeit(...)",
    "cd": "Write paths from Path(__file__).parent",
    "env": "Write os.environ[...]",
    "set_env": "Write os.environ[...]",
    "run": "Import the file, or read its outputs with load()",
    "pwd": "Write os.getcwd()",
    "ls": "Write os.listdir()",
    "store": "Declare the value as an output and read it with load()",
    "writefile": "Write Path(...).write_text(...)",
}


def _instead(magic: str) -> str:
    comment = f"or comment it out ('# {magic.splitlines()[0]}')"
    if magic.startswith("!"):
        command = magic.lstrip("!").strip()
        if re.match(r"(?:pip|conda|uv|mamba)\b", command):
            return f"{_INSTEAD['pip']}: comment it out ('# {magic}')."
        return f"Write subprocess.run({command!r}, shell=True, check=True), {comment}."
    if "?" in (magic[0], magic[-1]):
        return f"Write help({magic.strip('?')}), {comment}."
    name = re.match(r"%+(\w+)", magic)
    known = _INSTEAD.get(name[1]) if name else None
    if known is None:
        return f"Write it in Python, {comment}."
    if known.startswith(("Write", "Import", "Declare")):
        return f"{known}, {comment}."
    return f"{known}: comment it out ('# {magic}')."
