"""What a notebook says about itself: prose, parameters, what it reads, assigns and imports.

Read from its syntax tree alone; nothing runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from research_jobs.notebook.cells import (
    Cell,
    CellKind,
    NotebookText,
    read_notebook_text,
    shown_path,
)
from research_jobs.notebook.loads import LoadCall, find_loads
from research_jobs.notebook.parameter_types import (
    MISSING,
    Names,
    default_value,
    type_of_annotation,
    type_of_default,
)
from research_jobs.notebook.rst import rst_to_markdown
from research_jobs.notebook.source import parse_source
from research_jobs.notebook.walk import Walk, walk

__all__ = [
    "ImportRef",
    "Interface",
    "LoadCall",
    "Parameter",
    "description_of",
    "import_refs",
    "parameters_of",
    "read_interface",
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
        enum``, ``computed`` where only the default's class tells it when the notebook runs, else
        ``any``.
    optional : bool
        Whether ``None`` is a value.
    has_default : bool
        Whether the default can be read from the text; one computed at run time cannot.
    default : JSON value
        ``None`` without a readable default. Dates as ISO text, Enum members by name.
    default_source : str
        The default as written; ``""`` for a bare annotation, which must be given a value.
    choices : tuple
        Values of a ``Literal``, names of an ``Enum``'s members where the notebook defines it.
    description : str
        The comment behind the line, else the comment lines right above it.
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
class Interface:
    """What a notebook says about itself.

    Parameters
    ----------
    description : str
        Its leading prose as Markdown.
    parameters : tuple of Parameter
    parameters_cell : int or None
        Number of the cell tagged ``parameters``.
    loads : tuple of LoadCall
        In this file; see `research_jobs.notebook.scan` for those of its helpers.
    assigned : mapping of str to int
        Names bound at module level, to the line that first does.
    imports : tuple of str
        Absolute dotted names of the modules imported, anywhere in the file.
    """

    description: str
    parameters: tuple[Parameter, ...]
    parameters_cell: int | None
    loads: tuple[LoadCall, ...]
    assigned: Mapping[str, int] = field(repr=False)
    imports: tuple[str, ...]


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


def read_interface(text: NotebookText) -> Interface:
    """Read a notebook's interface from its text.

    Raises
    ------
    NotebookSyntaxError
        When it does not parse.
    """
    tree = parse_source(text)
    found = walk(tree)
    refs = import_refs(found, skip=type_checking_lines(tree))
    cell = parameters_cell(text.cells)
    package = package_of(text.path)
    parameters = parameters_of(text, tree, cell)
    loads = find_loads(
        tree,
        found.calls,
        refs,
        text=text.text,
        path=shown_path(text.path),
        parameters=[parameter.name for parameter in parameters],
    )
    return Interface(
        description=description_of(text, tree),
        parameters=parameters,
        parameters_cell=cell.number if cell else None,
        loads=loads.calls,
        assigned=assigned_names(tree, found, walrus=":=" in text.text),
        imports=tuple(sorted({absolute(ref, package) for ref in refs} - {""})),
    )


def package_of(path: Path) -> str:
    """The package that a file below ``notebooks/`` belongs to, ``""`` for the folder itself."""
    parts = path.parts
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "notebooks":
            return ".".join(parts[index + 1 : -1])
    return ""


def absolute(ref: ImportRef, package: str) -> str:
    """The absolute name of an imported module; ``""`` where the dots lead out of the top."""
    if not ref.level:
        return ref.module
    parts = package.split(".") if package else []
    if ref.level - 1 > len(parts):
        return ""
    base = parts[: len(parts) - (ref.level - 1)]
    return ".".join([*base, *([ref.module] if ref.module else [])])


# --- prose -------------------------------------------------------------------------------------


def description_of(text: NotebookText, tree: ast.Module) -> str:
    """The leading prose: the first cell where it is prose, else the module's docstring."""
    for cell in text.cells:
        if cell.kind is CellKind.MARKDOWN:
            if cell.source.strip():
                if cell.metadata.get("markup") == "rst":
                    return rst_to_markdown(cell.source)
                return cell.source.strip()
        elif cell.kind is CellKind.CODE and cell.source.strip():
            break
    return ast.get_docstring(tree) or ""


# --- parameters --------------------------------------------------------------------------------


def parameters_cell(cells: Iterable[Cell]) -> Cell | None:
    """The cell tagged ``parameters``; of several the first, as papermill has it."""
    return next(
        (c for c in cells if c.kind is CellKind.CODE and PARAMETERS_TAG in c.tags),
        None,
    )


def parameters_of(text: NotebookText, tree: ast.Module, cell: Cell | None) -> tuple[Parameter, ...]:
    """The plain assignments in the parameters cell; a name assigned twice counts as last."""
    if cell is None:
        return ()
    names = names_of(tree)
    lines = text.text.split("\n")
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        if not cell.first_line <= statement.lineno <= cell.last_line:
            continue
        for target, annotation, value in _assignments(statement):
            if target.id.startswith("_"):
                continue
            found.pop(target.id, None)
            found[target.id] = _parameter(target, annotation, value, statement, names, lines)
    return tuple(found.values())


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
    lines: Sequence[str],
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
        default_source=_segment(lines, value) if value else "",
        choices=kind.choices,
        description=_comment(statement, lines),
        line=target.lineno,
        column=len(_upto(lines[target.lineno - 1], target.col_offset)) + 1,
        choice_values=kind.choice_values,
    )


def _upto(line: str, offset: int) -> str:
    """The part of a line before an offset of the tree, which counts UTF-8 bytes."""
    return line[:offset] if line.isascii() else line.encode()[:offset].decode("utf-8", "replace")


def _segment(lines: Sequence[str], node: ast.expr) -> str:
    """The source of an expression; `ast.get_source_segment` splits the whole file each time."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    end = _upto(lines[last], node.end_col_offset or 0)
    if first == last:
        return end[len(_upto(lines[first], node.col_offset)) :]
    start = lines[first][len(_upto(lines[first], node.col_offset)) :]
    return "\n".join([start, *lines[first + 1 : last], end])


def _comment(statement: ast.stmt, lines: Sequence[str]) -> str:
    """The comment behind a statement, else the comment lines right above it."""
    end = (statement.end_lineno or statement.lineno) - 1
    behind = lines[end][len(_upto(lines[end], statement.end_col_offset or 0)) :].strip()
    if behind.startswith("#"):
        return _plain(behind)
    above: list[str] = []
    number = statement.lineno - 2
    while number >= 0 and lines[number].lstrip().startswith("#"):
        line = lines[number].strip()
        if line.lstrip("# ").startswith("%%"):
            break
        above.insert(0, _plain(line))
        number -= 1
    return " ".join(line for line in above if line)


def _plain(comment: str) -> str:
    # Directives for tools say nothing to a person.
    text = comment.lstrip("#:").strip()
    first = text.split("#")[0].strip()
    return "" if first.startswith(("noqa", "type:", "pyright:", "ruff:", "fmt:")) else text


def names_of(tree: ast.Module) -> Names:
    """What the names at module level stand for, as far as types need it."""
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


def import_refs(found: Walk, *, skip: frozenset[int] = frozenset()) -> tuple[ImportRef, ...]:
    """The modules that a walked tree imports, ``import_module("literal")`` included."""
    refs: list[ImportRef] = []
    for node in found.imports:
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
    for call in found.calls:
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


def may_assign_any_name(path: Path) -> bool:
    """Whether a notebook may bind names that its text does not show.

    By a star import, ``exec``, ``globals()`` and the like.
    """
    tree = parse_source(read_notebook_text(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in _BINDING_CALLS:
                return True
    return False


_BINDING_CALLS = frozenset({
    "exec", "globals", "locals", "vars", "setattr", "__dict__", "modules", "get_ipython",
    "run_line_magic", "run_cell", "push",
})  # fmt: skip


# --- names -------------------------------------------------------------------------------------


def assigned_names(
    tree: ast.Module, found: Walk | None = None, *, walrus: bool = True
) -> dict[str, int]:
    """Names bound at module level, to the line that first does.

    Functions that say ``global name`` count too: calling them binds it.

    Parameters
    ----------
    tree : ast.Module
    found : Walk, optional
        Of the tree, for the ``global`` statements.
    walrus : bool
        False when the text has no ``:=``: expressions then need no look, which is most of the work.
    """
    names: dict[str, int] = {}
    for name, line in _bound(tree.body, walrus):
        names.setdefault(name, line)
    for node in found.globals if found else ():
        for name in node.names:
            names.setdefault(name, node.lineno)
    return names


def _bound(  # noqa: C901 - one branch a kind of statement
    body: Iterable[ast.stmt], walrus: bool
) -> Iterator[tuple[str, int]]:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name, statement.lineno
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                if alias.name != "*":
                    yield alias.asname or alias.name.partition(".")[0], statement.lineno
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                yield from _targets(target)
            if walrus:
                yield from _walruses([statement.value])
        elif isinstance(statement, ast.Expr):
            if walrus:
                yield from _walruses([statement.value])
        else:
            yield from _bound_by_compound(statement, walrus)


def _bound_by_compound(  # noqa: C901 - as above
    statement: ast.stmt, walrus: bool
) -> Iterator[tuple[str, int]]:
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return  # `x: int` declares and does not bind
    for field_name in ("target", "name"):  # AugAssign, AnnAssign, For; `type Name = ...`
        target = getattr(statement, field_name, None)
        if isinstance(target, ast.AST):
            yield from _targets(target)
    for item in getattr(statement, "items", ()):
        if item.optional_vars is not None:
            yield from _targets(item.optional_vars)
    if walrus:
        yield from _walruses(
            [value for name, value in ast.iter_fields(statement) if name not in _STATEMENT_LISTS]
        )
    for inner in ("body", "orelse", "finalbody"):
        yield from _bound(getattr(statement, inner, ()), walrus)
    for handler in getattr(statement, "handlers", ()):
        # `except ... as error` unbinds the name at its end
        yield from _bound(handler.body, walrus)
    for case in getattr(statement, "cases", ()):
        yield from _pattern_names(case.pattern)
        if walrus and case.guard is not None:
            yield from _walruses([case.guard])
        yield from _bound(case.body, walrus)


_STATEMENT_LISTS = {"body", "orelse", "finalbody", "handlers", "cases"}


def _targets(target: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(target, ast.Name):
        yield target.id, target.lineno
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _targets(element)
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value)


def _walruses(nodes: Sequence[Any]) -> Iterator[tuple[str, int]]:
    """Names bound by ``:=``, in comprehensions too; those inside a lambda are its own."""
    stack: list[Any] = list(reversed(nodes))
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(reversed(cast("list[Any]", node)))
        elif isinstance(node, ast.AST) and not isinstance(node, ast.Lambda):
            if isinstance(node, ast.NamedExpr):
                yield node.target.id, node.target.lineno
            stack.extend(reversed([value for _, value in ast.iter_fields(node)]))


def _pattern_names(pattern: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(pattern):
        name = getattr(node, "name", None) or getattr(node, "rest", None)
        if isinstance(name, str):
            yield name, getattr(node, "lineno", 1)
