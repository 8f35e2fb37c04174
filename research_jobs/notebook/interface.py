"""A notebook's interface: prose, parameters and imports.

Read from its syntax tree alone; nothing runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research_jobs.notebook.cells import Cell, CellKind, NotebookText
from research_jobs.notebook.parameter_types import (
    MISSING,
    Names,
    default_value,
    type_of_annotation,
    type_of_default,
)
from research_jobs.notebook.walk import Walk

__all__ = [
    "ImportRef",
    "Parameter",
    "description_of",
    "import_refs",
    "parameters_of",
]

PARAMETERS_TAG = "parameters"


@dataclass(frozen=True)
class Parameter:
    """One assignment in the cell tagged ``parameters``.

    Parameters
    ----------
    name : str
    type : str
        ``int float bool str date datetime timestamp list list[<one of these>] dict literal
        enum``, ``computed`` if the default's class decides when the notebook runs, else ``any``.
    optional : bool
        Whether ``None`` is a value.
    has_default : bool
        Whether the default is in the text; one computed at run time is not.
    default : JSON value
        ``None`` without a readable default. Dates as ISO text, Enum members by name.
    default_source : str
        The default as written; ``""`` for a bare annotation, which needs a value.
    choices : tuple
        Values of a ``Literal``, or names of an ``Enum``'s members if the notebook defines it.
    description : str
        The comment at the end of the line, else the comment lines directly above it.
    line, column : int
        1-based.
    choice_values : tuple
        Literal values of an ``Enum``'s members, in the order of `choices`.
    """

    name: str
    type: str
    optional: bool
    has_default: bool
    default: Any
    default_source: str
    choices: tuple[Any, ...]
    description: str
    line: int
    column: int
    choice_values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ImportRef:
    """One imported module, as written.

    Parameters
    ----------
    module : str
        Dotted; relative to the package where `level` is not 0.
    level : int
        Number of leading dots.
    names : tuple of (str, str)
        ``from module import a as b`` gives ``("a", "b")``; ``("*", "*")`` for a star.
    bound : str or None
        Local name of the module itself: ``np`` of ``import numpy as np``.
    line : int
        1-based.
    """

    module: str
    level: int
    names: tuple[tuple[str, str], ...]
    bound: str | None
    line: int


def package_of(path: Path) -> str:
    """The package that a file below ``notebooks/`` belongs to, ``""`` for the folder itself."""
    parts = path.parts
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "notebooks":
            return ".".join(parts[index + 1 : -1])
    return ""


def absolute(ref: ImportRef, package: str) -> str:
    """The absolute name of an imported module; ``""`` if the dots lead out of the top package."""
    if not ref.level:
        return ref.module
    parts = package.split(".") if package else []
    if ref.level - 1 > len(parts):
        return ""
    base = parts[: len(parts) - (ref.level - 1)]
    return ".".join([*base, *([ref.module] if ref.module else [])])


# --- prose -------------------------------------------------------------------------------------


def description_of(text: NotebookText, tree: ast.Module) -> str:
    """The leading prose: the first cell if it is prose, else the module's docstring."""
    for cell in text.cells:
        if cell.kind is CellKind.MARKDOWN:
            if cell.source.strip():
                return cell.source.strip()
        elif cell.kind is CellKind.CODE and cell.source.strip():
            break
    return ast.get_docstring(tree) or ""


# --- parameters --------------------------------------------------------------------------------


def parameters_cell(cells: Iterable[Cell]) -> Cell | None:
    """The cell tagged ``parameters``; of several the first, as in papermill."""
    return next(
        (c for c in cells if c.kind is CellKind.CODE and PARAMETERS_TAG in c.tags),
        None,
    )


def parameters_of(text: NotebookText, tree: ast.Module, cell: Cell | None) -> tuple[Parameter, ...]:
    """The plain assignments in the parameters cell; the last one of a name counts."""
    if cell is None:
        return ()
    names = names_of(tree)
    lines = Lines(text.text)
    parameters: dict[str, Parameter] = {}
    for statement in tree.body:
        if not cell.first_line <= statement.lineno <= cell.last_line:
            continue
        for target, annotation, value in _assignments(statement):
            if target.id.startswith("_"):
                continue
            parameters.pop(target.id, None)
            parameters[target.id] = _parameter(target, annotation, value, statement, names, lines)
    return tuple(parameters.values())


def _assignments(
    statement: ast.stmt,
) -> Iterator[tuple[ast.Name, ast.expr | None, ast.expr | None]]:
    if isinstance(statement, ast.AnnAssign):
        if isinstance(statement.target, ast.Name):
            yield statement.target, statement.annotation, statement.value
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target, None, statement.value
            elif (
                isinstance(target, (ast.Tuple, ast.List))
                and isinstance(statement.value, (ast.Tuple, ast.List))
                and len(target.elts) == len(statement.value.elts)
            ):
                for name, value in zip(target.elts, statement.value.elts, strict=True):
                    if isinstance(name, ast.Name):
                        yield name, None, value


def _parameter(
    target: ast.Name,
    annotation: ast.expr | None,
    value: ast.expr | None,
    statement: ast.stmt,
    names: Names,
    lines: Lines,
) -> Parameter:
    default = default_value(value, names) if value is not None else MISSING
    if annotation is not None:
        kind = type_of_annotation(annotation, names)
    elif value is not None:
        kind = type_of_default(value, names)
    else:  # pragma: no cover - an assignment has one or the other
        raise AssertionError(statement)
    computed = kind.type == "computed" and value is not None and default is MISSING
    return Parameter(
        name=target.id,
        type=kind.type if kind.type != "computed" or computed else "any",
        # `start: date = None` is common and means `date | None`
        optional=kind.optional or default is None,
        has_default=default is not MISSING,
        default=None if default is MISSING else default,
        default_source=lines.segment(value) if value else "",
        choices=kind.choices,
        description=lines.comment(statement),
        line=target.lineno,
        column=lines.column(target.lineno - 1, target.col_offset) + 1,
        choice_values=kind.choice_values,
    )


class Lines:
    """The lines of a file, addressed by the tree's offsets, which count UTF-8 bytes.

    A line may be a megabyte with a hundred thousand statements: no lookup reads all of it.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self._characters: dict[int, list[int]] = {}

    def column(self, line: int, offset: int) -> int:
        """The 0-based character at a byte offset of a 0-based line."""
        text = self.lines[line]
        if text.isascii():
            return offset
        known = self._characters.get(line)
        if known is None:
            known = self._characters[line] = [
                number
                for number, character in enumerate(text)
                for _ in character.encode("utf-8", "surrogatepass")
            ]
            known.append(len(text))
        return known[offset]

    def segment(self, node: ast.expr) -> str:
        """The source of an expression; `ast.get_source_segment` would split the file each time."""
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        start = self.column(first, node.col_offset)
        end = self.column(last, node.end_col_offset or 0)
        if first == last:
            return self.lines[first][start:end]
        return "\n".join(
            [self.lines[first][start:], *self.lines[first + 1 : last], self.lines[last][:end]]
        )

    def comment(self, statement: ast.stmt) -> str:
        """The comment at the end of a statement, else the comment lines directly above it."""
        last = (statement.end_lineno or statement.lineno) - 1
        behind = _BEHIND.match(self.lines[last], self.column(last, statement.end_col_offset or 0))
        if behind:
            return _plain(behind[1])
        if statement.col_offset:  # a comment above a line belongs to its first statement
            return ""
        above: list[str] = []
        number = statement.lineno - 2
        while number >= 0 and self.lines[number].lstrip().startswith("#"):
            line = self.lines[number].strip()
            if line.lstrip("# ").startswith("%%"):
                break
            above.append(_plain(line))
            number -= 1
        return " ".join(line for line in reversed(above) if line)


_BEHIND = re.compile(r"[ \t]*(#.*)")


def _plain(comment: str) -> str:
    # Directives are for tools, not for people.
    text = comment.lstrip("#:").strip()
    first = text.split("#")[0].strip()
    return "" if first.startswith(("noqa", "type:", "pyright:", "ruff:", "fmt:")) else text


def names_of(tree: ast.Module) -> Names:
    """The meaning of module-level names, as far as types need it."""
    names = Names()
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.asname:
                    names.origins[alias.asname] = alias.name
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            for alias in statement.names:
                names.origins[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
        elif isinstance(statement, ast.ClassDef):
            members = _enum_members(statement, names)
            if members is not None:
                names.enums[statement.name] = members
        elif (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
            and isinstance(statement.value, (ast.Subscript, ast.BinOp, ast.Name, ast.Attribute))
        ):
            names.aliases[statement.targets[0].id] = statement.value
    return names


_ENUMS = {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"}


def _enum_members(node: ast.ClassDef, names: Names) -> dict[str, Any] | None:
    bases = [names.dotted(base).rpartition(".")[2] for base in node.bases]
    if not _ENUMS.intersection(bases):
        return None
    members: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    value = default_value(statement.value, names)
                    if value is MISSING and _is_auto(statement.value, names):
                        value = target.id.lower() if "StrEnum" in bases else len(members) + 1
                    members[target.id] = None if value is MISSING else value
    return members


def _is_auto(node: ast.expr, names: Names) -> bool:
    return isinstance(node, ast.Call) and names.dotted(node.func).rpartition(".")[2] == "auto"


# --- imports ------------------------------------------------------------------------------


def type_checking_lines(tree: ast.Module) -> frozenset[int]:
    """Lines of imports under ``if TYPE_CHECKING:``, which never run."""
    lines: set[int] = set()
    for statement in tree.body:
        if isinstance(statement, ast.If):
            test = statement.test
            name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
            if name == "TYPE_CHECKING":
                for inner in statement.body:
                    if isinstance(inner, (ast.Import, ast.ImportFrom)):
                        lines.add(inner.lineno)
    return frozenset(lines)


def import_refs(walked: Walk, *, skip: frozenset[int] = frozenset()) -> tuple[ImportRef, ...]:
    """The modules that a walked tree imports, ``import_module("literal")`` included."""
    refs: list[ImportRef] = []
    for node in walked.imports:
        if node.lineno in skip:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                # `import a.b` binds `a`; `import a.b as c` binds a.b
                refs.append(ImportRef(alias.name, 0, (), bound, node.lineno))
        else:
            names = tuple((alias.name, alias.asname or alias.name) for alias in node.names)
            refs.append(ImportRef(node.module or "", node.level, names, None, node.lineno))
    for call in walked.calls:
        name = (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        if name in ("import_module", "__import__") and call.args:
            first = call.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                module = first.value
                level = len(module) - len(module.lstrip("."))
                refs.append(ImportRef(module[level:], level, (("*", "*"),), None, call.lineno))
    return tuple(refs)
