"""Code that repeats across notebooks: functions, classes and setup cells, as syntax trees.

Two pieces are alike if their trees are equal up to the names that they bind and the values of their
constants. Imported and builtin names, attributes and keywords count. Standard library only; the
work is linear in the text.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from research_jobs.notebook.cells import Cell, CellKind

__all__ = ["Piece", "Repeat", "find_repeats", "pieces_of"]

_BUILTINS = frozenset(dir(builtins))
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_NAMED = (*_DEFINITIONS, ast.arg, ast.ExceptHandler)
_SETTINGS = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
_IGNORED = frozenset({"ctx", "kind", "type_comment", "annotation", "returns", "type_params"})


@dataclass(frozen=True)
class Piece:
    """A function, a class or a setup cell.

    Parameters
    ----------
    kind : {"function", "class", "setup"}
    file : str
        The name of the notebook, or the path of the helper module.
    names : tuple of str
        What it defines.
    line, lines : int
        Where it begins, 1-based, and how many lines it has.
    shape : str
        Equal for pieces that are alike.
    constants : tuple of str
        Their values, in order.
    needs : tuple of str
        Names of the file that it uses and does not define.
    """

    kind: str
    file: str
    names: tuple[str, ...]
    line: int
    lines: int
    shape: str
    constants: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Repeat:
    """Pieces that are alike, in at least two notebooks.

    Parameters
    ----------
    pieces : tuple of Piece
        Ordered by file and line.
    saved : int
        How many lines fewer there are if one helper module has it and the notebooks import it.
    helper : str or None
        The helper module that has it already.
    differing : int
        How many of its constants are not the same everywhere.
    """

    pieces: tuple[Piece, ...]
    saved: int
    helper: str | None
    differing: int


def pieces_of(file: str, tree: ast.Module, cells: Sequence[Cell] = ()) -> Iterator[Piece]:
    """The functions and classes at the top of a file, and its setup cells.

    A setup cell has imports, and beside them only assignments and calls that use nothing of other
    cells.

    Parameters
    ----------
    file : str
    tree : ast.Module
    cells : sequence of Cell, optional
        Of a notebook.
    """
    origins = dict(_imported(tree.body))
    for node in tree.body:
        if isinstance(node, _DEFINITIONS):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield _piece(kind, file, [node], origins)
    statements = iter(tree.body)
    ahead = next(statements, None)
    for cell in cells:
        inside: list[ast.stmt] = []
        while ahead is not None and ahead.lineno <= cell.last_line:
            inside.append(ahead)
            ahead = next(statements, None)
        if (
            cell.kind is CellKind.CODE
            and any(isinstance(one, (ast.Import, ast.ImportFrom)) for one in inside)
            and all(isinstance(one, _SETTINGS) for one in inside)
        ):
            piece = _piece("setup", file, inside, dict(_imported(inside)))
            if not piece.needs:
                yield piece


def find_repeats(pieces: Iterable[Piece], notebooks: Iterable[str]) -> tuple[Repeat, ...]:
    """Group pieces that are alike, those that save most lines first.

    Parameters
    ----------
    pieces : iterable of Piece
    notebooks : iterable of str
        Which of the files are notebooks; the others are helper modules.
    """
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.shape, []).append(piece)
    own = frozenset(notebooks)
    repeats = [
        repeat
        for group in groups.values()
        if len(group) > 1 and (repeat := _repeat(group, own)) is not None
    ]
    return tuple(
        sorted(repeats, key=lambda one: (-one.saved, one.pieces[0].file, one.pieces[0].line))
    )


def _repeat(group: list[Piece], notebooks: frozenset[str]) -> Repeat | None:
    copies = sorted(
        (one for one in group if one.file in notebooks), key=lambda one: (one.file, one.line)
    )
    helper = min((one.file for one in group if one.file not in notebooks), default=None)
    files = {one.file for one in copies}
    if not files or (helper is None and len(files) < 2):
        return None
    kept = 0 if helper else max(one.lines for one in copies)
    saved = sum(one.lines for one in copies) - kept - len(files)
    if saved <= 0:
        return None
    values = zip(*(one.constants for one in copies), strict=True)
    return Repeat(tuple(copies), saved, helper, sum(len(set(each)) > 1 for each in values))


def _piece(kind: str, file: str, body: Sequence[ast.stmt], origins: Mapping[str, str]) -> Piece:
    first = min([body[0].lineno, *(d.lineno for d in getattr(body[0], "decorator_list", ()))])
    last = body[-1].end_lineno or body[-1].lineno
    shape = _Shape(body, origins)
    names = [one.name for one in body if isinstance(one, _DEFINITIONS)]
    return Piece(
        kind,
        file,
        tuple(names or dict.fromkeys(shape.bound_at_top)),
        first,
        last - first + 1,
        shape.digest(kind),
        tuple(shape.constants),
        tuple(dict.fromkeys(shape.needs)),
    )


def _imported(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The names that import statements bind, each with what it is."""
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                yield alias.asname or alias.name, origin


class _Shape:
    """The words of a tree, in which bound names are numbers and constants are types."""

    def __init__(self, body: Sequence[ast.stmt], origins: Mapping[str, str]) -> None:
        self.constants: list[str] = []
        self.needs: list[str] = []
        self.bound_at_top: list[str] = [name for name, _ in _imported(body)]
        self._words: list[str] = []
        self._numbers: dict[str, int] = {}
        nodes = [node for statement in body for node in ast.walk(statement)]
        inner = dict(_imported(node for node in nodes if isinstance(node, ast.stmt)))
        self._origins = {**origins, **inner}
        self._bound = frozenset(_bound(nodes)) - inner.keys()
        for statement in body:
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            self.bound_at_top += [one.id for one in targets if isinstance(one, ast.Name)]
        for statement in sorted(body, key=_import_order):
            self._add(statement)

    def digest(self, kind: str) -> str:
        words = "\x1f".join([kind, *self._words])
        return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _add(self, value: object) -> None:
        if isinstance(value, ast.Constant):
            self._words.append(type(value.value).__name__)
            self.constants.append(repr(value.value))
        elif isinstance(value, ast.Name):
            self._words.append(self._name(value.id))
        elif isinstance(value, (ast.Import, ast.ImportFrom)):
            self._words += sorted(origin for _, origin in _imported([value]))
        elif isinstance(value, ast.AST):
            self._words.append(type(value).__name__)
            for field in value._fields:
                if field not in _IGNORED:
                    self._field(value, field)
            self._words.append(")")
        elif isinstance(value, list):
            for each in _without_docstring(value):
                self._add(each)
            self._words.append("]")
        else:
            self._words.append(repr(value))

    def _field(self, node: ast.AST, field: str) -> None:
        value = getattr(node, field, None)
        if field in ("name", "arg") and isinstance(node, _NAMED) and value in self._bound:
            self._words.append(self._name(value))
        else:
            self._add(value)

    def _name(self, name: str) -> str:
        if name in self._bound:
            return str(self._numbers.setdefault(name, len(self._numbers)))
        if name in self._origins:
            return self._origins[name]
        if name not in _BUILTINS:
            self.needs.append(name)
            return str(self._numbers.setdefault(name, len(self._numbers)))
        return name


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    methods: set[ast.AST] = set()  # others call them by name
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            methods.update(node.body)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, _DEFINITIONS):
            if node not in methods:
                yield node.name
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _import_order(node: ast.stmt) -> tuple[int, str]:
    """Imports in front and by name: their order means nothing."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return 0, " ".join(sorted(origin for _, origin in _imported([node])))
    return 1, ""


def _without_docstring(body: list[object]) -> list[object]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:]
    return body
