"""What each name in a file may be bound to, scope by scope.

Built only for files whose `load` calls are not all literal: see `research_jobs.notebook.loads`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Binding", "Scope", "scopes_of"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Binding:
    """One place that binds a name.

    Parameters
    ----------
    target : ast.expr or None
        What is unpacked into; ``None`` for a plain name.
    value : object
        The expression, class or import that it is bound to; ``None`` where the text does not tell.
    each : bool
        Whether the name is bound to each item of the value, as in a ``for`` loop.
    scope : Scope
        Where `value` is evaluated.
    """

    target: ast.expr | None
    value: Any
    each: bool
    scope: Scope


@dataclass(eq=False)
class Scope:
    """A module, class, function or comprehension.

    Parameters
    ----------
    kind : str
        ``module``, ``class``, ``function`` or ``comprehension``.
    outer : Scope or None
    bindings : mapping of str to list of Binding
    """

    kind: str
    outer: Scope | None
    bindings: dict[str, list[Binding]] = field(default_factory=dict[str, "list[Binding]"])
    elsewhere: dict[str, Scope] = field(default_factory=dict[str, "Scope"])

    def bind(self, name: str, binding: Binding) -> None:
        """Add a binding, in the scope that a ``global`` statement says."""
        self.elsewhere.get(name, self).bindings.setdefault(name, []).append(binding)

    def lookup(self, name: str) -> Scope | None:
        """The scope whose binding a name means here; None for a builtin."""
        scope: Scope | None = self.elsewhere.get(name, self)
        innermost = True
        while scope is not None:
            if name in scope.bindings and (innermost or scope.kind != "class"):
                return scope
            scope, innermost = scope.outer, False
        return None


def scopes_of(tree: ast.Module, calls: set[ast.AST]) -> tuple[Scope, dict[ast.AST, Scope]]:
    """The module's scope, and the scope that each class and each of the given nodes is in."""
    builder = _Builder(calls)
    module = Scope("module", None)
    builder.body(tree.body, module)
    return module, builder.scope_of


class _Builder:
    def __init__(self, calls: set[ast.AST]) -> None:
        self.calls = calls
        self.scope_of: dict[ast.AST, Scope] = {}

    def body(self, statements: Iterable[ast.stmt], scope: Scope) -> None:
        for statement in statements:
            for node in _own(statement):
                if isinstance(node, (ast.Global, ast.Nonlocal)):
                    for name in node.names:
                        scope.elsewhere[name] = _home(scope, name, node)
        for statement in statements:
            self.visit(statement, scope)

    def visit(self, node: ast.AST, scope: Scope) -> None:  # noqa: C901 - one branch a kind of node
        if node in self.calls:
            self.scope_of[node] = scope
        if isinstance(node, _FUNCTIONS):
            self.function(node, scope)
            return
        if isinstance(node, ast.ClassDef):
            inner = Scope("class", scope)
            scope.bind(node.name, Binding(None, node, each=False, scope=scope))
            self.scope_of[node] = inner
            for child in (*node.decorator_list, *node.bases, *node.keywords):
                self.visit(child, scope)
            self.body(node.body, inner)
            return
        if isinstance(node, _COMPREHENSIONS):
            self.comprehension(node, scope)
            return
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self.assign(target, node.value, scope)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.assign(node.target, node.value, scope)
        elif isinstance(node, ast.NamedExpr):
            home = scope
            while home.kind == "comprehension" and home.outer is not None:
                home = home.outer
            home.bind(node.target.id, Binding(None, node.value, each=False, scope=scope))
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self.assign(node.target, node.iter, scope, each=True)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                scope.bind(name, Binding(None, (node, alias), each=False, scope=scope))
        else:
            for name in _bound_otherwise(node):
                scope.bind(name, Binding(None, None, each=False, scope=scope))
        for child in ast.iter_child_nodes(node):
            self.visit(child, scope)

    def assign(self, target: ast.expr, value: Any, scope: Scope, *, each: bool = False) -> None:
        plain = isinstance(target, ast.Name)
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                whole = None if plain else target
                # each name of a loop needs its target: all of them are bound together
                scope.bind(node.id, Binding(target if each else whole, value, each, scope))
        # a changed item changes the container: `names[0] = ...`
        if isinstance(target, (ast.Subscript, ast.Attribute)):
            base: ast.expr = target
            while isinstance(base, (ast.Subscript, ast.Attribute)):
                base = base.value
            if isinstance(base, ast.Name):
                home = scope.lookup(base.id) or scope
                home.bind(base.id, Binding(None, None, each=False, scope=scope))

    def function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: Scope
    ) -> None:
        if not isinstance(node, ast.Lambda):
            scope.bind(node.name, Binding(None, None, each=False, scope=scope))
            for child in node.decorator_list:
                self.visit(child, scope)
        inner = Scope("function", scope)
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
        defaults += arguments.defaults
        pairs = zip(
            [*positional, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True
        )
        for argument, default in pairs:
            # whoever calls it may give something else
            inner.bind(argument.arg, Binding(None, None, each=False, scope=scope))
            if default is not None:
                inner.bind(argument.arg, Binding(None, default, each=False, scope=scope))
                self.visit(default, scope)
        for argument in (arguments.vararg, arguments.kwarg):
            if argument is not None:
                inner.bind(argument.arg, Binding(None, None, each=False, scope=scope))
        if isinstance(node, ast.Lambda):
            self.visit(node.body, inner)
        else:
            self.body(node.body, inner)

    def comprehension(self, node: Any, scope: Scope) -> None:
        inner = Scope("comprehension", scope)
        self.scope_of[node] = inner
        for index, generator in enumerate(node.generators):
            self.visit(generator.iter, inner if index else scope)
            self.assign(generator.target, generator.iter, inner, each=True)
            for condition in generator.ifs:
                self.visit(condition, inner)
        elements = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for element in elements:
            self.visit(element, inner)


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement that are in its own scope."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            todo += ast.iter_child_nodes(node)


def _home(scope: Scope, name: str, node: ast.Global | ast.Nonlocal) -> Scope:
    outer = scope.outer
    while outer is not None and outer.outer is not None:
        if isinstance(node, ast.Nonlocal) and name in outer.bindings:
            return outer
        outer = outer.outer
    return outer or scope


def _bound_otherwise(node: ast.AST) -> Iterator[str]:
    """Names bound to something that the text does not tell."""
    if isinstance(node, ast.AugAssign):
        target = node.target
        while isinstance(target, (ast.Subscript, ast.Attribute)):
            target = target.value  # type: ignore[assignment]
        if isinstance(target, ast.Name):
            yield target.id
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield from (n.id for n in ast.walk(node.optional_vars) if isinstance(n, ast.Name))
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest
    elif (
        isinstance(node, ast.Call)  # of a method that changes what it is called on
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.attr in _CHANGING
    ):
        yield node.func.value.id


_CHANGING = {"append", "extend", "insert", "update", "add", "setdefault", "pop", "remove", "clear"}
