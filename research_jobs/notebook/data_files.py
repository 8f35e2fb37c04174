"""Files that a notebook reads by a literal path.

Standard library only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from research_jobs.notebook.walk import dotted_name

__all__ = ["LiteralPath", "missing_files", "read_paths", "written_paths"]


@dataclass(frozen=True)
class LiteralPath:
    """A path in the text, where something reads or writes it.

    Parameters
    ----------
    path : str
    line, column : int
        1-based.
    """

    path: str
    line: int
    column: int


# Readers by their last name, with the keywords that hold the path. The first argument is one too.
_READERS = re.compile(
    r"(?:open|read_(?:csv|excel|parquet|json|pickle|feather|hdf|stata|sas|spss|table|fwf|html|xml"
    r"|orc|text|bytes|ipc|ndjson|avro|file)|scan_(?:csv|parquet|ipc|ndjson)|loadtxt|genfromtxt"
    r"|fromfile|imread|loadmat|load_workbook|ExcelFile|HDFStore|ParquetFile|open_dataset"
    r"|open_zarr|from_csv|load_npz|memmap|recfromcsv|wavfile\.read|listdir|scandir)$"
)
_LOADERS = frozenset({"numpy.load", "joblib.load", "torch.load", "pandas.read_sas"})
_KEYWORDS = frozenset({
    "filepath_or_buffer", "io", "path", "filename", "fname", "file", "path_or_buf", "source",
    "path_or_buffer", "filename_or_obj", "fp", "file_name",
})  # fmt: skip
_WRITERS = re.compile(
    r"(?:to_(?:csv|excel|parquet|json|pickle|feather|hdf|stata|html|latex|markdown|netcdf|zarr)"
    r"|savefig|savetxt|save|savez\w*|dump|imsave|imwrite|mkdir|makedirs|write_text|write_bytes"
    r"|urlretrieve|ExcelWriter|copy\w*|move|rename|touch|write_\w+|sink_\w+)$"
)
_REMOTE = re.compile(r"[A-Za-z][\w+.-]*:(?://|$)|memory:|:memory:|<")


def read_paths(tree: ast.AST, origins: Mapping[str, str]) -> Iterator[LiteralPath]:
    """Literal paths that the usual readers are given, whichever argument.

    Parameters
    ----------
    tree : ast.AST
    origins : mapping of str to str
        As `dotted_name` takes them.
    """
    for call in _calls(tree):
        name, last = _names(call, origins)
        if not (_READERS.search(last) or name in _LOADERS or _READERS.search(name)):
            continue
        if last == "open" and _writes(call):
            continue
        candidates = [*call.args[:1]]
        if name.endswith(("Path.open", "read_text", "read_bytes")) or last in (
            "read_text",
            "read_bytes",
        ):
            candidates = []
        if isinstance(call.func, ast.Attribute):
            candidates += _path_call(call.func.value, origins)
        candidates += [word.value for word in call.keywords if word.arg in _KEYWORDS]
        for node in candidates:
            found = _literal(node, origins)
            if found is not None and found.path and not _REMOTE.match(found.path):
                yield found


def written_paths(tree: ast.AST, origins: Mapping[str, str]) -> Iterator[str]:
    """Literal paths that the file may create before it reads them."""
    for call in _calls(tree):
        _, last = _names(call, origins)
        writes = bool(_WRITERS.search(last)) or (last in ("open", "HDFStore") and _writes(call))
        if not writes:
            continue
        nodes = [*call.args, *(word.value for word in call.keywords)]
        if isinstance(call.func, ast.Attribute):
            nodes += _path_call(call.func.value, origins)
        for node in nodes:
            found = _literal(node, origins)
            if found is not None:
                yield found.path


def missing_files(
    tree: ast.AST, origins: Mapping[str, str], folder: Path
) -> tuple[LiteralPath, ...]:
    """Files that are read and not there, nor made by the notebook itself."""
    made = {Path(path).as_posix() for path in written_paths(tree, origins)}
    shells = _commands(tree)
    missing: dict[str, LiteralPath] = {}
    for found in read_paths(tree, origins):
        path = Path(found.path)
        posix = path.as_posix()
        if posix in made or any(posix.startswith(f"{one}/") for one in made):
            continue
        if any(path.name and path.name in command for command in shells):
            continue
        try:
            if re.search(r"[*?\[]", found.path) or folder.joinpath(path.expanduser()).exists():
                continue
        except (OSError, ValueError, RuntimeError):
            continue
        missing.setdefault(found.path, found)
    return tuple(missing.values())


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _names(call: ast.Call, origins: Mapping[str, str]) -> tuple[str, str]:
    name = dotted_name(call.func, origins)
    last = call.func.attr if isinstance(call.func, ast.Attribute) else name.rpartition(".")[2]
    return name, last


def _writes(call: ast.Call) -> bool:
    method = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call)
    modes = [*call.args[0 if method else 1 : 2]]
    modes += [word.value for word in call.keywords if word.arg == "mode"]
    return any(
        isinstance(mode, ast.Constant)
        and isinstance(mode.value, str)
        and bool(re.match(r"[rbt]*[wax+]", mode.value))
        for mode in modes
    )


def _path_call(node: ast.expr, origins: Mapping[str, str]) -> list[ast.expr]:
    if isinstance(node, ast.Call) and dotted_name(node.func, origins).rpartition(".")[2] == "Path":
        return [node]
    return []


def _literal(node: ast.expr, origins: Mapping[str, str]) -> LiteralPath | None:
    """A literal path, also in ``Path(...)``, ``os.path.join(...)`` and ``a / b``."""
    text = _text(node, origins)
    return None if text is None else LiteralPath(text, node.lineno, node.col_offset + 1)


def _text(node: ast.expr, origins: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    parts: list[ast.expr] = []
    if isinstance(node, ast.Call) and not node.keywords:
        name = dotted_name(node.func, origins)
        if name.rpartition(".")[2] in ("Path", "PurePath") or name == "os.path.join":
            parts = node.args
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        parts = [node.left, node.right]
    texts = [_text(part, origins) for part in parts]
    if not texts or any(text is None for text in texts):
        return None
    return str(Path(*[text for text in texts if text is not None]))


def _commands(tree: ast.AST) -> list[str]:
    """Literals in calls of subprocess and os.system: such a command may make any file it names."""
    texts: list[str] = []
    for call in _calls(tree):
        name = dotted_name(call.func, {})
        if name.startswith("subprocess.") or name in ("os.system", "os.popen"):
            texts += [
                node.value
                for node in ast.walk(call)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return texts
