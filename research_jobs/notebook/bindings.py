"""What each name in a file may be bound to, function by function.

Built only for files whose `load` calls are not all literal: see `research_jobs.notebook.loads`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Binding", "Scope", "scopes_of"]


@dataclass(frozen=True, eq=False)
class Binding:
    """One place that binds a name.

    Parameters
    ----------
    value : ast.expr, str or None
        The expression, or the dotted name of what is imported; None where the text does not tell.
    scope : Scope
        Where `value` is evaluated.
    target : ast.expr or None
        What it is unpacked into; None for a plain name.
    each : bool
        Whether the target is bound to each item of the value, as in a ``for`` loop.
    """

    value: ast.expr | str | None
    scope: Scope
    target: Any = None
    each: bool = False


@dataclass(eq=False)
class Scope:
    """A module, class, function or comprehension.

    Parameters
    ----------
    outer : Scope or None
    kind : str
        ``module``, ``class``, ``function`` or ``comprehension``.
    bindings : mapping of str to list of Binding
    elsewhere : mapping of str to Scope
        Names of ``global`` and ``nonlocal`` statements.
    """

    outer: Scope | None
    kind: str
    bindings: dict[str, list[Binding]] = field(default_factory=dict[str, "list[Binding]"])
    elsewhere: dict[str, Scope] = field(default_factory=dict[str, "Scope"])

    def bind(self, name: str, binding: Binding) -> None:
        """Add a binding, in the scope that a ``global`` statement says."""
        self.elsewhere.get(name, self).bindings.setdefault(name, []).append(binding)

    def lookup(self, name: str) -> Scope | None:
        """The scope whose binding a name means here; None for a builtin."""
        start: Scope | None = self.elsewhere.get(name, self)
        scope = start
        while scope is not None:
            if name in scope.bindings and (scope is start or scope.kind != "class"):
                return scope
            scope = scope.outer
        return None


def scopes_of(tree: ast.Module) -> tuple[Scope, dict[ast.AST, Scope]]:
    """The module's scope, and the scope of each call, name, attribute and comprehension."""
    module = Scope(None, "module")
    builder = _Builder()
    builder.visit_all(tree.body, module)
    for name, scope in builder.changed:
        (scope.lookup(name) or scope).bind(name, Binding(None, scope))
    return module, builder.scope_of


class _Builder:
    def __init__(self) -> None:
        self.scope_of: dict[ast.AST, Scope] = {}
        self.changed: list[tuple[str, Scope]] = []

    def visit_all(self, nodes: Any, scope: Scope) -> None:
        for node in nodes:
            self.visit(node, scope)

    def visit(self, node: ast.AST, scope: Scope) -> None:  # noqa: C901 - one case a kind of node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self.function(node, scope)
            case ast.ClassDef():
                scope.bind(node.name, Binding(None, scope))
                self.visit_all([*node.decorator_list, *node.bases, *node.keywords], scope)
                self.visit_all(node.body, Scope(scope, "class"))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self.comprehension(node, scope)
            case ast.Assign(targets=targets, value=value):
                self.visit(value, scope)
                for target in targets:
                    self.assign(target, value, scope)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.visit(value, scope)
                self.assign(target, value, scope)
            case ast.NamedExpr(target=target, value=value):
                self.visit(value, scope)
                home = scope
                while home.kind == "comprehension" and home.outer is not None:
                    home = home.outer
                home.bind(target.id, Binding(value, scope))
            case ast.For() | ast.AsyncFor():
                self.visit(node.iter, scope)
                self.assign(node.target, node.iter, scope, each=True)
                self.visit_all([*node.body, *node.orelse], scope)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    scope.bind(bound, Binding(_imported(node, alias), scope))
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                for name in names:
                    scope.elsewhere[name] = _outer(scope, name, node)
            case _:
                self.other(node, scope)

    def other(self, node: ast.AST, scope: Scope) -> None:
        """A node that binds nothing whose value the text gives."""
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                scope.bind(name, Binding(None, scope))
            case (
                ast.ExceptHandler(name=str() as name)
                | ast.MatchAs(name=str() as name)
                | ast.MatchStar(name=str() as name)
                | ast.MatchMapping(rest=str() as name)
            ):
                scope.bind(name, Binding(None, scope))
            case (
                ast.Subscript(ctx=ast.Store() | ast.Del())
                | ast.Attribute(ctx=ast.Store() | ast.Del())
            ):
                self.change(node.value, scope)
            case ast.Call(func=ast.Attribute(value=base, attr=method)) if method in _CHANGING:
                self.change(base, scope)
            case _:
                pass
        if isinstance(node, (ast.Call, ast.Name, ast.Attribute)):
            self.scope_of[node] = scope
        self.visit_all(ast.iter_child_nodes(node), scope)

    def change(self, node: ast.expr, scope: Scope) -> None:
        """A changed item changes its container: ``names[0] = ...``, ``names.append(...)``."""
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            node = node.value
        if isinstance(node, ast.Name):
            self.changed.append((node.id, scope))

    def assign(
        self, target: ast.expr, value: ast.expr, scope: Scope, *, each: bool = False
    ) -> None:
        if isinstance(target, ast.Name) and not each:
            scope.bind(target.id, Binding(value, scope))
            return
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                scope.bind(node.id, Binding(value, scope, target, each))
            elif isinstance(node, (ast.Subscript, ast.Attribute)):
                self.visit(node, scope)

    def function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: Scope
    ) -> None:
        inner = Scope(scope, "function")
        arguments = node.args
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ):
            # Whoever calls it may give anything.
            inner.bind(argument.arg, Binding(None, scope))
        defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        positional = [*arguments.posonlyargs, *arguments.args][-len(arguments.defaults) :]
        named = [a for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d]
        for argument, default in zip(
            [*(positional if arguments.defaults else ()), *named], defaults, strict=True
        ):
            inner.bind(argument.arg, Binding(default, scope))
        self.visit_all(defaults, scope)
        if isinstance(node, ast.Lambda):
            self.visit(node.body, inner)
        else:
            scope.bind(node.name, Binding(None, scope))
            self.visit_all(node.decorator_list, scope)
            self.visit_all(node.body, inner)

    def comprehension(self, node: Any, scope: Scope) -> None:
        inner = Scope(scope, "comprehension")
        self.scope_of[node] = inner
        for index, generator in enumerate(node.generators):
            self.visit(generator.iter, inner if index else scope)
            self.assign(generator.target, generator.iter, inner, each=True)
            self.visit_all(generator.ifs, inner)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        self.visit_all(parts, inner)


def _imported(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    if isinstance(node, ast.ImportFrom):
        return f"{'.' * node.level}{node.module or ''}.{alias.name}"
    return alias.name if alias.asname else alias.name.partition(".")[0]


def _outer(scope: Scope, name: str, node: ast.Global | ast.Nonlocal) -> Scope:
    """The scope that a ``global`` or ``nonlocal`` statement means."""
    outer = scope.outer or scope
    while outer.outer is not None:
        if isinstance(node, ast.Nonlocal) and name in outer.bindings:
            return outer
        outer = outer.outer
    return outer


_CHANGING = {"append", "extend", "insert", "update", "add", "setdefault", "pop", "remove", "clear"}
