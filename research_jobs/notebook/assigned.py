"""The names that a notebook binds at module level: its possible outputs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from research_jobs.notebook.cells import read_notebook_text
from research_jobs.notebook.source import parse_source
from research_jobs.notebook.walk import Walk

__all__ = ["assigned_names", "may_assign_any_name"]


def assigned_names(
    tree: ast.Module, walked: Walk | None = None, *, walrus: bool = True
) -> dict[str, int]:
    """Names bound at module level, with the first line that binds each.

    Names that a function declares ``global`` count too: calling the function binds them.

    Parameters
    ----------
    tree : ast.Module
    walked : Walk, optional
        Of the tree, for the ``global`` statements.
    walrus : bool
        False when the text has no ``:=``: expressions are then skipped, which is most of the work.
    """
    names: dict[str, int] = {}
    for name, line in _bound(tree.body, walrus):
        names.setdefault(name, line)
    for node in walked.globals if walked else ():
        for name in node.names:
            names.setdefault(name, node.lineno)
    return names


def _bound(  # noqa: C901 - one branch a kind of statement
    body: Sequence[ast.stmt], walrus: bool
) -> Iterator[tuple[str, int]]:
    """Names that statements bind, in order; without recursion, for an `elif` nests in the last."""
    todo: list[Any] = list(reversed(body))
    while todo:
        statement = todo.pop()
        if isinstance(statement, tuple):  # a name that is bound, in its turn
            yield cast("tuple[str, int]", statement)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
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
            todo += reversed(list(_bound_by_compound(statement, walrus)))


def _bound_by_compound(  # noqa: C901 - as above
    statement: ast.stmt, walrus: bool
) -> Iterator[Any]:
    """The names that a compound statement itself binds, and the statements in it."""
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return  # `x: int` declares but does not bind
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
        yield from getattr(statement, inner, ())
    for handler in getattr(statement, "handlers", ()):
        # `except ... as error` unbinds the name at its end
        yield from handler.body
    for case in getattr(statement, "cases", ()):
        yield from _pattern_names(case.pattern)
        if walrus and case.guard is not None:
            yield from _walruses([case.guard])
        yield from case.body


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
    """Names bound by ``:=``, in comprehensions too; those in a lambda are its own."""
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


def may_assign_any_name(path: Path) -> bool:
    """Whether a notebook may bind names that its text does not show.

    It does so with a star import, ``exec``, ``globals()`` and the like.
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
