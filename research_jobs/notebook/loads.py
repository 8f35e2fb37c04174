"""The `load` calls of a file: which notebooks and outputs it reads.

A call whose arguments are literal is read at once. For any other the file's constants are
followed (`research_jobs.notebook.constants`), and so are the other names of `load`. What cannot be
followed is a `HiddenLoad`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from research_jobs.notebook.bindings import Binding, scopes_of
from research_jobs.notebook.constants import Evaluator, Imported, TooMuchError, Unknown
from research_jobs.notebook.walk import dotted_name
from research_jobs.project import notebook_name

if TYPE_CHECKING:
    from research_jobs.notebook.interface import ImportRef

__all__ = ["HiddenLoad", "LoadCall", "Loads", "find_loads"]


@dataclass(frozen=True)
class LoadCall:
    """What a ``load("market_data", "prices")`` reads.

    Parameters
    ----------
    notebook : str
        Normalised name.
    output : str or None
        ``None`` for all outputs, or where the text does not say which.
    path : str
        The file that holds the call, as a person should see it.
    line, column : int
        1-based.
    """

    notebook: str
    output: str | None
    path: str
    line: int
    column: int


@dataclass(frozen=True)
class HiddenLoad:
    """A use of `load` that may read what the text does not tell.

    Parameters
    ----------
    reason : str
        What is not known, for a message.
    path : str
    line, column : int
        1-based.
    """

    reason: str
    path: str
    line: int
    column: int

    @property
    def message(self) -> str:
        """str: what it means, and what to do."""
        return (
            f"this load() makes no dependency: {self.reason}; write the notebook's name as text or "
            "as a constant of the file, or list it under `after` in the manifest"
        )


@dataclass(frozen=True)
class Loads:
    """The calls of a file that make dependencies, those that do not, and `load`'s names in it."""

    calls: tuple[LoadCall, ...] = ()
    hidden: tuple[HiddenLoad, ...] = ()
    names: tuple[str, ...] = ()

    def within(self, first: int, last: int) -> Loads:
        """Those between two lines, both included."""
        return Loads(
            tuple(call for call in self.calls if first <= call.line <= last),
            tuple(call for call in self.hidden if first <= call.line <= last),
        )


_PACKAGE = "research_jobs"
_HOMES = {"research_jobs", "research_jobs.store.load"}
_LOAD = f"{_PACKAGE}.load"
_LOADS = {f"{home}.load" for home in _HOMES}
_TOO_DEEP = "an expression of this file is nested too deeply"


def find_loads(
    tree: ast.Module,
    calls: Iterable[ast.Call],
    refs: Iterable[ImportRef],
    *,
    text: str,
    path: str,
    parameters: Collection[str] = (),
) -> Loads:
    """The `load` calls of a file, whatever `load` was imported as.

    Parameters
    ----------
    tree : ast.Module
    calls : iterable of ast.Call
        All calls in it.
    refs : iterable of ImportRef
        Its imports.
    text : str
        Of the file.
    path : str
        The file's name in messages.
    parameters : collection of str
        Names that a run may set to something else than the file says.
    """
    functions, modules, mentions = _names_of_load(refs)
    if not functions and not modules:
        return Loads()
    known = [call for call in calls if _is_load(call.func, functions, modules)]
    plain = [_literal_call(call, path) for call in known]
    names = "|".join(map(re.escape, sorted(functions | {"load"})))
    if len(re.findall(rf"(?<![\w])(?:{names})(?![\w])", text)) == mentions + sum(
        one is not None for one in plain
    ):
        # Every mention of `load` is a literal call: nothing to follow.
        made = [one for one in plain if one is not None and one.notebook]
        made.sort(key=lambda call: (call.line, call.column))
        return Loads(tuple(made), names=tuple(sorted(functions)))
    try:
        return _Follower(tree, path, functions, modules, parameters).find()
    except RecursionError:
        place = known[0] if known else tree.body[0]
        hidden = HiddenLoad(_TOO_DEEP, path, place.lineno, place.col_offset + 1)
        return Loads(hidden=(hidden,), names=tuple(sorted(functions)))


def _names_of_load(refs: Iterable[ImportRef]) -> tuple[set[str], dict[str, str], int]:
    """Local names of `load`, and of modules that have it; how often imports mention a name."""
    functions: set[str] = set()
    modules: dict[str, str] = {}
    mentions = 0
    for ref in refs:
        if ref.level or ref.module.partition(".")[0] != _PACKAGE:
            continue
        if ref.bound is not None:
            modules[ref.bound] = ref.module if ref.bound != _PACKAGE else _PACKAGE
        for name, bound in ref.names:
            if ref.module in _HOMES and name in ("load", "*"):
                functions.add("load" if name == "*" else bound)
                mentions += 1 + (bound not in (name, "*"))
            elif f"{ref.module}.{name}" in _HOMES:
                modules[bound] = f"{ref.module}.{name}"
    return functions, modules, mentions


def _is_load(function: ast.expr, functions: Collection[str], modules: Mapping[str, str]) -> bool:
    if isinstance(function, ast.Name):
        return function.id in functions
    return dotted_name(function, modules) in _LOADS


def _literal_call(call: ast.Call, path: str) -> LoadCall | None:
    """A call that says literally what it reads; None for any other."""
    arguments: dict[str, ast.expr] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            return None
        arguments[keyword.arg] = keyword.value
    for name, value in zip(("notebook", "output"), call.args, strict=False):
        if isinstance(value, ast.Starred):
            return None
        arguments[name] = value
    texts: list[str | None] = []
    for name in ("notebook", "output"):
        value = arguments.get(name)
        if value is None:
            texts.append(None)
        elif isinstance(value, ast.Constant) and isinstance(value.value, (str, type(None))):
            texts.append(value.value)
        else:
            return None
    notebook, output = texts
    if notebook is None:
        return None
    return LoadCall(notebook_name(notebook), output, path, call.lineno, call.col_offset + 1)


class _Follower:
    """Follows constants and aliases through one file."""

    def __init__(
        self,
        tree: ast.Module,
        path: str,
        functions: set[str],
        modules: Mapping[str, str],
        parameters: Collection[str],
    ) -> None:
        self.path = path
        self.starred = "load" in functions
        self.nodes = list(ast.walk(tree))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        module, self.scope_of = scopes_of(tree)
        for name in parameters:
            module.bind(name, Binding(None, module))
        self.evaluator = Evaluator(self.scope_of)
        self.names = functions | set(modules)
        self.calls: dict[LoadCall, None] = {}
        self.hidden: dict[tuple[int, int], HiddenLoad] = {}

    def find(self) -> Loads:
        self.add_aliases()
        node: ast.AST | None = None
        try:
            for node in self.nodes:
                if isinstance(node, ast.Call) and self.may_be_load(node.func):
                    self.call(node)
                elif isinstance(node, (ast.Name, ast.Attribute)) and self.may_be_load(node):
                    self.passed_on(node)
        except TooMuchError:
            assert isinstance(node, ast.expr)
            self.hide(node, "there are too many combinations to follow from here on")
        return Loads(
            tuple(sorted(self.calls, key=lambda c: (c.line, c.column, c.notebook, c.output or ""))),
            tuple(self.hidden[place] for place in sorted(self.hidden)),
            tuple(sorted(self.names)),
        )

    def add_aliases(self) -> None:
        """Names that may stand for `load` or its module: those assigned from one that may."""
        assigned: list[tuple[set[str], ast.expr]] = []
        for node in self.nodes:
            match node:
                case ast.Assign(targets=targets, value=value):
                    pass
                case (
                    ast.AnnAssign(target=target, value=ast.expr() as value)
                    | ast.NamedExpr(target=target, value=value)
                    | ast.For(target=target, iter=value)
                    | ast.comprehension(target=target, iter=value)
                ):
                    targets = [target]
                case _:
                    continue
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            assigned.append((names, value))
        mentions: dict[str, list[int]] = {}
        for number, (_, value) in enumerate(assigned):
            for inner in ast.walk(value):
                if isinstance(inner, ast.Name):
                    mentions.setdefault(inner.id, []).append(number)
        waiting = list(range(len(assigned)))
        while waiting:
            names, value = assigned[waiting.pop()]
            new = names - self.names
            if new and self.may_be_load(value):
                self.names |= new
                waiting += [number for name in new for number in mentions.get(name, ())]

    def may_be_load(self, node: ast.AST) -> bool:
        """Whether an expression names `load` or what holds it, other than to call it."""
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Attribute):
            return node.attr == "load" or self.may_be_load(node.value)
        if isinstance(node, ast.Call):
            return (
                isinstance(node.func, ast.Name)
                and node.func.id == "getattr"
                and any(map(self.may_be_load, node.args))
            )
        holds = (ast.IfExp, ast.BoolOp, ast.Tuple, ast.List, ast.Dict, ast.Subscript)
        return isinstance(node, holds) and any(map(self.may_be_load, ast.iter_child_nodes(node)))

    def values(self, node: ast.expr) -> list[Any]:
        """What an expression that may be `load` can be."""
        scope = self.scope_of.get(node)
        if scope is None:
            inner = (n for n in ast.walk(node) if n in self.scope_of)
            scope = next((self.scope_of[n] for n in inner), None)
        if scope is None:
            return []
        if isinstance(node, ast.Name) and self.starred and scope.lookup(node.id) is None:
            return [Imported(_LOAD)] if node.id == "load" else []
        return [value for value, _ in self.evaluator.values(node, scope)]

    def is_load(self, node: ast.expr) -> bool:
        return any(isinstance(v, Imported) and v.name in _LOADS for v in self.values(node))

    def call(self, node: ast.Call) -> None:
        if not self.is_load(node.func):
            values = self.values(node.func)
            # A method named `load` is most often some other object's.
            if not isinstance(node.func, ast.Attribute) and any(
                isinstance(value, Unknown) for value in values
            ):
                self.hide(node, _unknown(node.func))
            return
        scope = self.scope_of[node]
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        rest = [value for name, value in named.items() if name is None]
        places = [*node.args, *filter(None, (named.get("notebook"), named.get("output"))), *rest]
        for values, _ in self.evaluator.each(places, scope, {}):
            arguments = _arguments(node, values, rest)
            if arguments is None:
                self.hide(node, _unknown(rest[0]))
                continue
            notebook, output = arguments.get("notebook"), arguments.get("output")
            if isinstance(notebook, str) and notebook_name(notebook):
                known = output if isinstance(output, str) else None
                place = (self.path, node.lineno, node.col_offset + 1)
                self.calls[LoadCall(notebook_name(notebook), known, *place)] = None
            elif isinstance(notebook, Unknown):
                self.hide(node, _unknown(notebook.node))
            elif notebook is not None and not isinstance(notebook, (str, int, float)):
                self.hide(node, _unknown(places[0]))

    def passed_on(self, node: ast.Name | ast.Attribute) -> None:
        """`load` used as a value: followed where it gets another name, reported elsewhere."""
        if not isinstance(node.ctx, ast.Load) or not self.is_load(node):
            return
        child: ast.AST = node
        parent = self.parents.get(child)
        while isinstance(
            parent, (ast.IfExp, ast.BoolOp, ast.Tuple, ast.List, ast.Dict, ast.Subscript)
        ):
            child, parent = parent, self.parents.get(parent)
        match parent:
            case ast.Assign(targets=targets):
                followed = all(isinstance(target, (ast.Name, ast.Tuple)) for target in targets)
            case ast.AnnAssign(target=target):
                followed = isinstance(target, ast.Name)
            case ast.Call(func=function):
                followed = function is child
            case ast.NamedExpr() | ast.For() | ast.comprehension() | ast.Attribute() | ast.Expr():
                followed = True
            case _:
                followed = False
        if not followed or isinstance(self.parents.get(parent or node), ast.ClassDef):
            self.hide(
                node,
                "it is passed on as a value, and called where the text does not tell with what",
            )

    def hide(self, node: ast.expr, reason: str) -> None:
        self.hidden.setdefault(
            (node.lineno, node.col_offset),
            HiddenLoad(reason, self.path, node.lineno, node.col_offset + 1),
        )


def _arguments(node: ast.Call, values: list[Any], rest: list[ast.expr]) -> dict[str, Any] | None:
    """The arguments of `load` by name; None where ``**options`` are not known."""
    unpacked: dict[str, Any] = {}
    for options in values[len(values) - len(rest) :]:
        if not isinstance(options, dict):
            return None
        unpacked |= cast("dict[str, Any]", options)
    named = [n for n in ("notebook", "output") if any(k.arg == n for k in node.keywords)]
    positional = values[: len(values) - len(rest) - len(named)]
    by_name = dict(zip(named, values[len(positional) :], strict=False))
    return {**unpacked, **by_name, **dict(zip(("notebook", "output"), positional, strict=False))}


def _unknown(node: ast.expr) -> str:
    shown = ast.unparse(node).split("\n")[0]
    shown = shown if len(shown) <= 60 else f"{shown[:56]} ..."
    return f"'{shown}' is known only when the notebook runs"
