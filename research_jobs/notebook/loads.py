"""The `load` calls of a file: which notebooks and outputs it reads.

A call whose arguments are literal is read at once. For any other the file's constants are
followed (`research_jobs.notebook.constants`), and the names that stand for `load` as well:
aliases, `functools.partial`, modules that have it. What cannot be followed is a `HiddenLoad`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from research_jobs.notebook.constants import Evaluator
from research_jobs.notebook.pure import Imported, Unknown
from research_jobs.notebook.scopes import Binding, Scope, scopes_of
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
_LOADS = {f"{home}.load" for home in _HOMES}
_PARTIAL = {"functools.partial", "partial"}


@dataclass(frozen=True)
class _Load:
    """`load` itself, or a partial call of it."""

    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] | None = None


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
        The file as a person should see it.
    parameters : collection of str
        Names that a run may set to something else than the file says.
    """
    functions, modules, mentions = _names_of_load(refs)
    if not functions and not modules:
        return Loads()
    plain: list[LoadCall] = []
    count = 0
    for call in calls:
        if _is_load(call.func, functions, modules):
            one = _literal_call(call, path)
            count += one is not None
            if one is not None and one.notebook:
                plain.append(one)
    names = "|".join(map(re.escape, sorted(functions | {"load"})))
    if len(re.findall(rf"(?<![\w])(?:{names})(?![\w])", text)) == count + mentions:
        # every mention of `load` is a literal call: nothing to follow
        plain.sort(key=lambda call: (call.line, call.column))
        return Loads(tuple(plain), names=tuple(sorted(functions)))
    return _Follower(tree, path, functions, modules, parameters).find()


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
    if not isinstance(function, ast.Attribute) or function.attr != "load":
        return False
    parts: list[str] = []
    node: ast.expr = function.value
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in modules:
        return False
    return ".".join([modules[node.id], *parts]) in _HOMES


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
        self.functions = functions
        self.modules = modules
        self.nodes = list(ast.walk(tree))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        nodes = [n for n in self.nodes if isinstance(n, (ast.Call, ast.Name, ast.Attribute))]
        module, self.scope_of = scopes_of(tree, set(nodes))
        for name in parameters:
            module.bind(name, Binding(None, None, each=False, scope=module))
        self.evaluator = Evaluator(self.scope_of, self.called)
        self.partials: set[ast.AST] = set()
        self.calls: dict[LoadCall, None] = {}
        self.hidden: dict[tuple[int, int], HiddenLoad] = {}

    def find(self) -> Loads:
        aliases = self.aliases()
        for node in self.nodes:
            if isinstance(node, ast.Call):
                if self.mentions(node.func, aliases):
                    self.call(node)
                elif self.is_load(node, aliases):
                    self.partial(node)
            elif (
                isinstance(node, (ast.Name, ast.Attribute))
                and isinstance(node.ctx, ast.Load)
                and self.mentions(node, aliases)
            ):
                self.passed_on(node)
        return Loads(
            tuple(sorted(self.calls, key=lambda c: (c.line, c.column, c.notebook, c.output or ""))),
            tuple(self.hidden[place] for place in sorted(self.hidden)),
            tuple(sorted(aliases)),
        )

    def aliases(self) -> set[str]:
        """Names that may stand for `load`: those that are assigned from one that may."""
        aliases = set(self.functions)
        assigned: list[tuple[set[str], ast.AST]] = []
        for node in self.nodes:
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
                assigned.append((names, node.value))
        mentioning: dict[str, list[int]] = {}
        for number, (_, value) in enumerate(assigned):
            for node in ast.walk(value):
                if isinstance(node, ast.Name):
                    mentioning.setdefault(node.id, []).append(number)
        todo = list(range(len(assigned)))
        while todo:
            names, value = assigned[todo.pop()]
            new = names - aliases
            if new and self.is_load(value, aliases):
                aliases |= new
                todo += [number for name in new for number in mentioning.get(name, ())]
        return aliases

    def is_load(self, value: ast.AST, aliases: set[str]) -> bool:
        """Whether an expression may be `load`: it, a partial of it, or a choice of both."""
        if isinstance(value, ast.Call):
            if not isinstance(value.func, (ast.Name, ast.Attribute)):
                return False
            name = value.func.id if isinstance(value.func, ast.Name) else value.func.attr
            return name in ("partial", "getattr", "import_module") and bool(
                value.args and self.mentions(value.args[0], aliases, anywhere=True)
            )
        return isinstance(
            value, (ast.Name, ast.Attribute, ast.IfExp, ast.BoolOp, ast.Tuple, ast.List, ast.Dict)
        ) and self.mentions(value, aliases, anywhere=True)

    def mentions(self, node: ast.AST, aliases: set[str], *, anywhere: bool = False) -> bool:
        if isinstance(node, ast.Name):
            return node.id in aliases or (anywhere and node.id in self.modules)
        if isinstance(node, ast.Attribute):
            if node.attr == "load":
                return True
            return anywhere and self.mentions(node.value, aliases, anywhere=True)
        if isinstance(node, ast.Call) and not anywhere:
            # a partial of it that is called at once
            return self.is_load(node, aliases)
        return any(
            self.mentions(inner, aliases, anywhere=anywhere) for inner in ast.iter_child_nodes(node)
        )

    # --- one call ------------------------------------------------------------------------------

    def called(
        self, function: Any, node: ast.Call, arguments: list[Any], keywords: dict[str, Any]
    ) -> Any:
        """What calling something imported gives, for the evaluator."""
        if isinstance(function, Imported):
            name = function.name
            if name in _PARTIAL and arguments:
                inner = self.as_load(arguments[0])
                if inner is not None:
                    return _joined(inner, arguments[1:], keywords)
            if name.endswith("import_module") and arguments and isinstance(arguments[0], str):
                return Imported(arguments[0])
        raise Unknown(node)

    def as_load(self, value: Any) -> _Load | None:
        if isinstance(value, Imported) and value.name in _LOADS:
            return _Load()
        return value if isinstance(value, _Load) else None

    def function(self, node: ast.expr, scope: Scope, environment: Any) -> _Load | None:
        """The `load` that a called expression stands for."""
        if isinstance(node, ast.Name) and scope.lookup(node.id) is None:
            return _Load() if node.id in self.functions else None  # from a star import
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "getattr"
            and len(node.args) > 1
        ):
            base = self.evaluator.evaluate(node.args[0], scope, environment)
            name = self.evaluator.evaluate(node.args[1], scope, environment)
            return (
                self.as_load(Imported(f"{base.name}.{name}"))
                if (isinstance(base, Imported))
                else None
            )
        return self.as_load(self.evaluator.evaluate(node, scope, environment))

    def call(self, node: ast.Call) -> None:
        scope = self.scope_of.get(node)
        if scope is None:
            return
        functions = self.evaluator.solve(partial(self.function, node.func, scope))
        if not any(functions.values):
            if functions.unknown and self.certain(node.func):
                self.hide(node, functions.unknown[0])
            return
        pairs = self.evaluator.solve(partial(self.read, node, scope, True))
        notebooks = self.evaluator.solve(partial(self.read, node, scope, False))
        known = {pair[0] for pair in pairs.values if pair}
        found = [pair for pair in pairs.values if pair]
        found += [pair for pair in notebooks.values if pair and pair[0] not in known]
        for notebook, output in found:
            self.calls[LoadCall(notebook, output, self.path, node.lineno, node.col_offset + 1)] = (
                None
            )
        if notebooks.unknown:
            self.hide(node, notebooks.unknown[0])

    def partial(self, node: ast.Call) -> None:
        """``partial(load, "src")``: whoever calls it reads that notebook."""
        scope = self.scope_of.get(node)
        if scope is None:
            return
        for load in self.evaluator.solve(partial(self.function, node, scope)).values:
            pair = self.pair(load, node) if load is not None else None
            if pair is not None:
                self.partials.add(node)
                self.calls[LoadCall(*pair, self.path, node.lineno, node.col_offset + 1)] = None

    def certain(self, node: ast.expr) -> bool:
        """Whether a called expression is made of `load` and not of some other object's method."""
        return not isinstance(node, ast.Attribute)

    def read(
        self, node: ast.Call, scope: Scope, with_output: bool, environment: Any
    ) -> tuple[str, str | None] | None:
        """Notebook and output of a call, in one environment."""
        load = self.function(node.func, scope, environment)
        if load is None:
            return None
        kept = node
        if not with_output and not any(isinstance(a, ast.Starred) for a in node.args):
            # the output's name need not be known for a dependency
            first = 0 if load.positional or "notebook" in (load.keywords or {}) else 1
            keywords = [k for k in node.keywords if k.arg in ("notebook", None)]
            kept = ast.copy_location(ast.Call(node.func, node.args[:first], keywords), node)
        arguments, named = self.evaluator.arguments(kept, scope, environment)
        return self.pair(_joined(load, arguments, named), node)

    def pair(self, whole: _Load, node: ast.Call) -> tuple[str, str | None] | None:
        """Notebook and output; None where the call is an error or leaves the notebook open."""
        values = dict(zip(("notebook", "output"), whole.positional, strict=False))
        values = {**(whole.keywords or {}), **values}
        notebook, output = values.get("notebook"), values.get("output")
        if isinstance(notebook, Unknown):
            raise notebook
        if not isinstance(notebook, str) or not notebook_name(notebook):
            if notebook is None or isinstance(notebook, (str, int, float)):
                return None  # an error of the notebook's, when it runs
            raise Unknown(node)
        return notebook_name(notebook), output if isinstance(output, str) else None

    # --- what is not a call --------------------------------------------------------------------

    def passed_on(self, node: ast.Name | ast.Attribute) -> None:
        """`load` used as a value: followed where it gets another name, reported elsewhere."""
        scope = self.scope_of.get(node)
        if scope is None:
            return
        if not any(self.evaluator.solve(partial(self.function, node, scope)).values):
            return
        child: ast.AST = node
        parent = self.parents.get(child)
        while parent is not None and (
            isinstance(
                parent, (ast.IfExp, ast.BoolOp, ast.Tuple, ast.List, ast.Dict, ast.Subscript)
            )
            or self.is_partial(parent, child)
        ):
            if parent in self.partials:
                return  # which notebook it reads is known
            child, parent = parent, self.parents.get(parent)
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            return  # the new name is followed
        if isinstance(parent, ast.Call) and parent.func is child:
            return
        if isinstance(parent, ast.Attribute):
            return  # `load.__doc__`
        self.hidden.setdefault(
            (node.lineno, node.col_offset),
            HiddenLoad(
                "it is passed on as a value, and called where the text does not tell with what",
                self.path,
                node.lineno,
                node.col_offset + 1,
            ),
        )

    def is_partial(self, parent: ast.AST, child: ast.AST) -> bool:
        return (
            isinstance(parent, ast.Call)
            and bool(parent.args)
            and parent.args[0] is child
            and parent.func.__class__ in (ast.Name, ast.Attribute)
            and ast.unparse(parent.func).endswith("partial")
        )

    def hide(self, node: ast.Call, unknown: ast.AST) -> None:
        if isinstance(unknown, ast.Constant):
            reason = str(unknown.value)
        else:
            shown = ast.unparse(unknown).split("\n")[0]
            shown = shown if len(shown) <= 60 else f"{shown[:56]} ..."
            reason = f"'{shown}' is known only when the notebook runs"
        self.hidden.setdefault(
            (node.lineno, node.col_offset),
            HiddenLoad(reason, self.path, node.lineno, node.col_offset + 1),
        )


def _joined(load: _Load, positional: Iterable[Any], keywords: Mapping[str, Any]) -> _Load:
    return _Load((*load.positional, *positional), {**(load.keywords or {}), **keywords})
