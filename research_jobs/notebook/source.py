"""The text of a notebook as a syntax tree, or an error that says what to do.

Standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import ast
import itertools
import re
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

from research_jobs.errors import NotebookSyntaxError, SourceLocation
from research_jobs.notebook.cells import NotebookText, cell_at, cell_label
from research_jobs.notebook.decoding import shown_path
from research_jobs.notebook.markers import lexed

__all__ = ["nested_too_deeply", "parse_source", "shorten"]

# The parser warns of invalid escapes and of numbers that run into a word (`1if x`).
_WARNED = re.compile(r"\\|\d[a-z]")


class _Silence:
    """A context without warnings.

    `warnings.catch_warnings` replaces the filters of the whole process and restores them at the
    end: two overlapping threads would restore each other's. With the lock ours take turns.
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
        With file, line, column and cell. For a magic (``%time``, ``!ls``, ``df?``) the hint says
        what to write instead.
    """
    _check_size(text)
    try:
        # An invalid escape matters when the notebook runs, not when it is read.
        with _SILENCE if _WARNED.search(text.text) else nullcontext():
            return ast.parse(text.text, filename=str(text.path))
    except SyntaxError as error:
        raise _syntax_error(text, error) from None
    except (RecursionError, MemoryError):
        raise nested_too_deeply(text.path) from None
    except UnicodeEncodeError as error:  # half of a surrogate pair, from an odd encoding
        line = text.text.count("\n", 0, error.start) + 1
        raise NotebookSyntaxError(
            f"U+{ord(text.text[error.start]):04X} is half of a surrogate pair, not a character",
            where=SourceLocation(shown_path(text.path), line),
            hint="Save the file as UTF-8.",
        ) from None
    except ValueError as error:  # null bytes, before Python 3.12
        line = text.text.partition("\0")[0].count("\n") + 1
        raise NotebookSyntaxError(
            str(error), where=SourceLocation(shown_path(text.path), line)
        ) from None


def nested_too_deeply(path: Path) -> NotebookSyntaxError:
    """The error for a file that is nested too deeply for Python's parser or for us."""
    return NotebookSyntaxError(
        "is nested too deeply to be parsed", where=SourceLocation(shown_path(path))
    )


TOKEN_LIMIT = 1_000_000
"""Tokens in a file: the tree of a larger one would take over half a gigabyte."""

_FIELDS_LIMIT = 10_000

_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t][^\n]*", re.MULTILINE)
_TOKENS = re.compile(r"\w+|[^\w\s]|\n")


def _check_size(text: NotebookText) -> None:
    """Refuse a file whose tree would exhaust memory; long strings and comments do not."""
    if len(text.text) <= _FIELDS_LIMIT:
        return
    for statement in _IMPORT.finditer(text.text):
        if statement.group().count(".") > _FIELDS_LIMIT:  # Python joins such names one by one
            raise NotebookSyntaxError(
                "imports a name with more than 10,000 parts",
                where=SourceLocation(
                    shown_path(text.path), text.text.count("\n", 0, statement.start()) + 1
                ),
            )
    count = position = 0
    for literal in itertools.chain(lexed(text.text), (None,)):
        end = literal.start() if literal is not None else len(text.text)
        if literal is not None and literal.group().count("{") > _FIELDS_LIMIT:
            prefix = text.text[max(0, end - 2) : end].lower()
            if "f" in prefix and not literal.group().startswith("#"):
                # Python 3.11 searches for each field from the start of the string
                raise NotebookSyntaxError(
                    f"has an f-string of more than {_FIELDS_LIMIT:,} fields",
                    where=SourceLocation(shown_path(text.path), text.text.count("\n", 0, end) + 1),
                    hint="Keep data in a separate file and read it from there.",
                )
        if len(text.text) > TOKEN_LIMIT:
            count += 1 + sum(1 for _ in _TOKENS.finditer(text.text, position, end))
        position = literal.end() if literal is not None else end
        if count > TOKEN_LIMIT:
            raise NotebookSyntaxError(
                f"has more than {TOKEN_LIMIT:,} tokens, so it is data, not source code",
                where=SourceLocation(shown_path(text.path)),
                hint="Keep data in a separate file and read it from there.",
            )


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
    magic = _MAGIC.match(line) if len(line) < 10_000 else None
    if magic:
        return NotebookSyntaxError(
            f"'{shorten(line.strip())}'{inside} is IPython syntax, not Python",
            where=SourceLocation(where, number, magic.start("magic") + 1),
            hint=_instead(shorten(magic["magic"].strip())),
            details=_excerpt(line, number, magic.start("magic") + 1),
        )
    return NotebookSyntaxError(
        f"{error.msg}{inside}",
        where=SourceLocation(where, number, column),
        details=_excerpt(line, number, column),
    )


def shorten(text: str) -> str:
    """A line as a message shows it."""
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 4]} ..."


def _excerpt(line: str, number: int, column: int) -> str:
    margin = f"{number:>5} | "
    if len(line) > _WIDEST:  # the part around the place
        start = max(0, column - _WIDEST // 2)
        line, column = line[start : start + _WIDEST], column - start
    # Tabs are kept so that the caret is below its character in any terminal.
    before = "".join(c if c == "\t" else " " for c in line[: column - 1])
    return f"{margin}{line}\n{' ' * (len(margin) - 2)}| {before}^"


_WIDEST = 200

_MAGIC = re.compile(
    # Each run of blanks is taken whole, or a long one would be tried at each of its places.
    r"[ \t]*(?![ \t])(?:[\w.,* \t\[\]'\"]*?=[ \t]*(?![ \t]))?"
    r"(?P<magic>%%?[A-Za-z].*|!{1,2}\S.*|\?{1,2}[A-Za-z*].*"
    r"|[A-Za-z_][\w.*]*\?{1,2}[ \t]*$)"
)

_INSTEAD = {
    "matplotlib": "Charts work without it",
    "autoreload": "Every run is a fresh process, so nothing needs reloading",
    "load_ext": "IPython extensions are not loaded in batch",
    "reload_ext": "IPython extensions are not loaded in batch",
    "config": "IPython settings have no effect in batch",
    "pip": "Install packages in the environment, not in the notebook",
    "conda": "Install packages in the environment, not in the notebook",
    "time": "Call time.perf_counter() before and after it",
    "timeit": "Call timeit.timeit(...)",
    "cd": "Build paths from Path(__file__).parent",
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
