"""Files that a notebook reads and writes by a path that stands in its text.

Standard library only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from research_jobs.notebook.walk import dotted_name, nodes_of

__all__ = ["FileUse", "LiteralPath", "guarded_lines"]


@dataclass(frozen=True)
class LiteralPath:
    """A path in the text, where something reads it.

    Parameters
    ----------
    path : str
    line, column : int
        1-based.
    """

    path: str
    line: int
    column: int


# Readers by their last name; their first argument is a path, and so are some keywords.
_READERS = re.compile(
    r"(?:open|read_(?:csv|excel|parquet|json|pickle|feather|hdf|stata|sas|spss|table|fwf|html|xml"
    r"|orc|text|bytes|ipc|ndjson|avro|file)|scan_(?:csv|parquet|ipc|ndjson)|loadtxt|genfromtxt"
    r"|fromfile|imread|loadmat|load_workbook|ExcelFile|ParquetFile|open_dataset|open_zarr|from_csv"
    r"|load_npz|memmap|recfromcsv|listdir|scandir)$"
)
_LOADERS = frozenset({"numpy.load", "joblib.load", "torch.load", "scipy.io.wavfile.read"})
_KEYWORDS = frozenset({
    "filepath_or_buffer", "io", "path", "filename", "fname", "file", "path_or_buf", "source",
    "path_or_buffer", "filename_or_obj", "fp", "file_name",
})  # fmt: skip
_WRITERS = re.compile(
    r"(?:to_(?:csv|excel|parquet|json|pickle|feather|hdf|stata|html|latex|markdown|netcdf|zarr)"
    r"|savefig|savetxt|save|savez\w*|dump|imsave|imwrite|mkdir|makedirs|write_text|write_bytes"
    r"|urlretrieve|ExcelWriter|HDFStore|copy\w*|move|rename|touch|write_\w+|sink_\w+|extractall"
    r"|connect)$"
)
_ASKS = frozenset({"exists", "isfile", "isdir", "is_file", "is_dir", "access"})
_REMOTE = re.compile(r"[A-Za-z][\w+.-]+:(?://|$)|memory:|:memory:|<")


class FileUse:
    """What a notebook does with files, as far as its text shows.

    Paths may be literals, names that are assigned one, and what ``Path(...)``, ``/``, ``+``,
    ``os.path.join(...)`` and f-strings make of them.

    Parameters
    ----------
    tree : ast.Module
    origins : mapping of str to str
        As `dotted_name` takes them.
    """

    def __init__(self, tree: ast.Module, origins: Mapping[str, str]) -> None:
        self._tree = tree
        self._origins = origins
        nodes = nodes_of(tree)
        self._calls = [node for node in nodes if isinstance(node, ast.Call)]
        self._constants = _assigned_once(tree, nodes)
        self._imported = {
            alias.asname or alias.name.partition(".")[0]
            for node in nodes
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }

    def written(self) -> Iterator[str]:
        """Paths that the file may create, or whose existence it asks for itself."""
        for call in self._calls:
            _, last = self._names(call)
            opens = last == "open" and _opens_to_write(call)
            if opens or last in _ASKS or _WRITERS.search(last):
                values = [*call.args, *(word.value for word in call.keywords), *self._self(call)]
                for node in values:
                    text = self._text(node)
                    if text is not None:
                        yield text

    def read(self) -> Iterator[LiteralPath]:
        """Paths that the usual readers are given, whichever argument."""
        for call in self._calls:
            name, last = self._names(call)
            if not (_READERS.search(last) or name in _LOADERS):
                continue
            if last == "open" and _opens_to_write(call):
                continue
            own = self._self(call)
            if isinstance(call.func, ast.Attribute) and not own and not self._of_module(call.func):
                continue  # a method of something that may be an archive, a server
            values = own or [*call.args[:1]]
            values += [word.value for word in call.keywords if word.arg in _KEYWORDS]
            for node in values:
                text = self._text(node)
                if text and not _REMOTE.match(text):
                    yield LiteralPath(text, node.lineno, node.col_offset + 1)

    def missing(self, folder: Path) -> tuple[LiteralPath, ...]:
        """Files that are read and do not exist, nor are made by the notebook itself.

        Parameters
        ----------
        folder : Path
            The working directory.
        """
        made = {Path(path).as_posix() for path in self.written()}
        commands = self._commands()
        guarded = guarded_lines(self._tree)
        missing: dict[str, LiteralPath] = {}
        for found in self.read():
            path = Path(found.path)
            posix = path.as_posix()
            if (
                found.line in guarded
                or posix in made
                or any(posix.startswith(f"{one}/") for one in made)
                or any(path.name and path.name in command for command in commands)
                or _exists(folder, found.path)
            ):
                continue
            missing.setdefault(found.path, found)
        return tuple(missing.values())

    def _names(self, call: ast.Call) -> tuple[str, str]:
        name = dotted_name(call.func, self._origins)
        last = call.func.attr if isinstance(call.func, ast.Attribute) else name.rpartition(".")[2]
        return name, last

    def _of_module(self, function: ast.Attribute) -> bool:
        root: ast.expr = function
        while isinstance(root, ast.Attribute):
            root = root.value
        return isinstance(root, ast.Name) and root.id in self._imported

    def _self(self, call: ast.Call) -> list[ast.expr]:
        """The path whose method is called: ``Path("a").read_text()``."""
        if not isinstance(call.func, ast.Attribute):
            return []
        value = call.func.value
        return [value] if self._is_path(value) else []

    def _is_path(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            assigned = self._constants.get(node.id)
            return assigned is not None and assigned is not node and self._is_path(assigned)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self._is_path(node.left) or self._is_path(node.right)
        return isinstance(node, ast.Call) and (
            dotted_name(node.func, self._origins).rpartition(".")[2] == "Path"
        )

    def _text(self, node: ast.expr, depth: int = 0) -> str | None:
        if depth > 10:  # names that are assigned in a circle
            return None
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            value = self._constants.get(node.id)
            return None if value is None else self._text(value, depth + 1)
        if isinstance(node, ast.FormattedValue):
            plain = node.conversion == -1 and node.format_spec is None
            return self._text(node.value, depth + 1) if plain else None
        parts: list[ast.expr] = []
        joins = True
        if isinstance(node, ast.Call) and not node.keywords:
            name = dotted_name(node.func, self._origins)
            if name.rpartition(".")[2] in ("Path", "PurePath") or name == "os.path.join":
                parts = node.args
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Add)):
            parts, joins = [node.left, node.right], isinstance(node.op, ast.Div)
        elif isinstance(node, ast.JoinedStr):
            parts, joins = node.values, False
        texts = [self._text(part, depth + 1) for part in parts]
        known = [text for text in texts if text is not None]
        if not known or len(known) < len(texts):
            return None
        return str(Path(*known)) if joins else "".join(known)

    def _commands(self) -> list[str]:
        """Literals in calls that start programs: such a command may make any file it names."""
        texts: list[str] = []
        for call in self._calls:
            name, _ = self._names(call)
            if name.startswith("subprocess.") or name in ("os.system", "os.popen"):
                texts += [
                    node.value
                    for node in ast.walk(call)
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)
                ]
        return texts


def _assigned_once(tree: ast.Module, nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Module-level names with the one value that the file gives them."""
    values: dict[str, ast.expr] = {}
    for statement in tree.body:
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            values[statement.targets[0].id] = statement.value
        elif (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value is not None
        ):
            values[statement.target.id] = statement.value
    counts: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            counts[node.id] = counts.get(node.id, 0) + 1
        elif isinstance(node, ast.arg):
            counts[node.arg] = counts.get(node.arg, 0) + 1
    return {name: value for name, value in values.items() if counts.get(name) == 1}


def _opens_to_write(call: ast.Call) -> bool:
    positional: Iterable[ast.expr] = call.args[:2]
    modes = [*positional, *(word.value for word in call.keywords if word.arg == "mode")]
    return any(
        isinstance(mode, ast.Constant)
        and isinstance(mode.value, str)
        and bool(re.fullmatch(r"[rbtU]*[wax+][rbtwax+]*", mode.value))
        for mode in modes
    )


def _exists(folder: Path, path: str) -> bool:
    try:
        return re.search(r"[*?\[]", path) is not None or (folder / Path(path).expanduser()).exists()
    except (OSError, ValueError, RuntimeError):
        return True


def guarded_lines(tree: ast.Module) -> set[int]:
    """Lines whose failure a handler catches."""
    return {
        line
        for node in nodes_of(tree)
        if isinstance(node, ast.Try) and node.handlers
        for statement in node.body
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    }
