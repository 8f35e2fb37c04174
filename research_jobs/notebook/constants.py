"""What an expression can be, as far as a file's constants tell.

Nothing is imported or run. Names are followed to what they are bound to, loops over constants to
each of their items, a condition that is not constant to both of its branches. What depends on
anything else raises `Unknown`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from research_jobs.notebook.pure import (
    BUILTINS,
    COMPARISONS,
    LONGEST,
    OPERATORS,
    UNARY,
    Imported,
    Unknown,
    narrow,
    plain,
    pure,
    scalar,
    sized,
    text_or_dict_method,
)
from research_jobs.notebook.scopes import Binding, Scope

__all__ = ["Evaluator", "Solutions"]

Environment = Mapping[Any, Any]


class _Need(Exception):  # noqa: N818
    """A name or condition has to be decided first: each way gives environments, or `Unknown`."""

    def __init__(self, ways: list[Callable[[Environment], list[Environment]]], key: Any) -> None:
        super().__init__()
        self.ways = ways
        self.key = key


@dataclass
class Solutions:
    """Every value that was found, and what kept others from being found."""

    values: list[Any] = field(default_factory=list[Any])
    unknown: list[ast.AST] = field(default_factory=list[ast.AST])


class Evaluator:
    """Evaluates expressions of one file.

    Parameters
    ----------
    scope_of : mapping of node to Scope
    call : callable, optional
        ``call(function, node, arguments, keywords)`` gives the value of a call of something
        imported, or raises `Unknown`.
    budget : int
        Steps, for the whole file.
    """

    def __init__(
        self,
        scope_of: Mapping[ast.AST, Scope],
        call: Callable[[Any, ast.Call, list[Any], dict[str, Any]], Any] | None = None,
        budget: int = 50_000,
    ) -> None:
        self.scope_of = scope_of
        self.call = call
        self.budget = budget
        self._active: set[Any] = set()

    def solve(self, compute: Callable[[Environment], Any]) -> Solutions:
        """All results of a computation over `evaluate`."""
        found = Solutions()
        self._solve(compute, {}, found)
        return found

    def _solve(
        self, compute: Callable[[Environment], Any], environment: Environment, found: Solutions
    ) -> None:
        self.budget -= 1
        try:
            found.values.append(compute(environment))
        except Unknown as unknown:
            found.unknown.append(unknown.node)
        except RecursionError:
            found.unknown.append(ast.Constant("an expression nested too deeply"))
        except _Need as need:
            if need.key in self._active:  # `x = x + 1`
                found.unknown.append(need.key[1])
                return
            self._active.add(need.key)
            decided = Solutions()
            for way in need.ways:
                self._solve(way, environment, decided)
            self._active.discard(need.key)
            found.unknown += decided.unknown
            for update in [one for several in decided.values for one in several]:
                if self.budget < 0:
                    found.unknown.append(ast.Constant("too many combinations"))
                    return
                self._solve(compute, {**environment, **update}, found)

    # --- one value in one environment ---------------------------------------------------------

    def evaluate(self, node: ast.expr, scope: Scope, environment: Environment) -> Any:
        """The value of an expression.

        Raises
        ------
        Unknown
        """
        self.budget -= 1
        if self.budget < 0:
            raise Unknown(node)
        method = getattr(self, f"_{node.__class__.__name__.lower()}", None)
        if method is None:
            raise Unknown(node)
        return method(node, scope, environment)

    def _constant(self, node: ast.Constant, _scope: Scope, _environment: Environment) -> Any:
        return node.value

    def _name(self, node: ast.Name, scope: Scope, environment: Environment) -> Any:
        home = scope.lookup(node.id)
        if home is None:
            raise Unknown(node)
        key = (home, node.id)
        if key not in environment:
            raise _Need([self._way(b, node, key) for b in home.bindings[node.id]], (home, node))
        return environment[key]

    def _way(
        self, binding: Binding, node: ast.Name, key: Any
    ) -> Callable[[Environment], list[Environment]]:
        value = binding.value
        home = key[0]

        def decide(environment: Environment) -> list[Environment]:
            if value is None:
                raise Unknown(node)
            if isinstance(value, ast.ClassDef):
                return [{key: self.scope_of[value]}]
            if isinstance(value, tuple):
                return [{key: Imported(_imported(*cast("tuple[Any, ast.alias]", value)))}]
            whole = self.evaluate(value, binding.scope, environment)
            if binding.target is None:
                return [{key: whole}]
            items = list(sized(whole, value)) if binding.each else [whole]
            return [
                {(home, name): item for name, item in _unpacked(binding.target, one, value)}
                for one in items
            ]

        return decide

    def _choice(
        self, node: ast.expr, options: list[ast.expr], scope: Scope, environment: Environment
    ) -> Any:
        """One of several expressions, whichever it is."""
        key = ("choice", node)
        if key not in environment:
            numbers = range(len(options))
            raise _Need([lambda _, n=number: [{key: n}] for number in numbers], key)
        return self.evaluate(options[environment[key]], scope, environment)

    def _ifexp(self, node: ast.IfExp, scope: Scope, environment: Environment) -> Any:
        try:
            test = plain(self.evaluate(node.test, scope, environment), node)
            chosen = node.body if test else node.orelse
        except Unknown:
            return self._choice(node, [node.body, node.orelse], scope, environment)
        return self.evaluate(chosen, scope, environment)

    def _boolop(self, node: ast.BoolOp, scope: Scope, environment: Environment) -> Any:
        value: Any = None
        for operand in node.values:
            try:
                value = plain(self.evaluate(operand, scope, environment), node)
            except Unknown:
                return self._choice(node, node.values, scope, environment)
            if bool(value) is isinstance(node.op, ast.Or):
                return value
        return value

    def _joinedstr(self, node: ast.JoinedStr, scope: Scope, environment: Environment) -> Any:
        parts = [str(self.evaluate(part, scope, environment)) for part in node.values]
        return sized("".join(parts), node)

    def _formattedvalue(
        self, node: ast.FormattedValue, scope: Scope, environment: Environment
    ) -> Any:
        value: Any = scalar(self.evaluate(node.value, scope, environment), node)
        convert: Mapping[int, Callable[[Any], str]] = {115: str, 114: repr, 97: ascii}
        if node.conversion in convert:
            value = convert[node.conversion](value)
        spec = self.evaluate(node.format_spec, scope, environment) if node.format_spec else ""
        return pure(node, lambda: format(value, narrow(spec, node)))

    def _binop(self, node: ast.BinOp, scope: Scope, environment: Environment) -> Any:
        left = self.evaluate(node.left, scope, environment)
        right = self.evaluate(node.right, scope, environment)
        function = OPERATORS.get(node.op.__class__)
        if function is None:
            raise Unknown(node)
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            narrow(left, node)
            for value in right if isinstance(right, tuple) else (right,):
                scalar(value, node)
        elif not isinstance(node.op, ast.Add):
            scalar(left, node)
            scalar(right, node)
        if isinstance(node.op, ast.Mult) and not any(
            isinstance(n, (int, float)) and abs(n) <= LONGEST for n in (left, right)
        ):
            raise Unknown(node)
        return sized(pure(node, lambda: function(left, right)), node)

    def _unaryop(self, node: ast.UnaryOp, scope: Scope, environment: Environment) -> Any:
        value = self.evaluate(node.operand, scope, environment)
        return pure(node, lambda: UNARY[node.op.__class__](value))

    def _compare(self, node: ast.Compare, scope: Scope, environment: Environment) -> Any:
        left = self.evaluate(node.left, scope, environment)
        right = self.evaluate(node.comparators[0], scope, environment)
        function = COMPARISONS.get(node.ops[0].__class__)
        if function is None or len(node.ops) > 1:
            raise Unknown(node)
        scalar(left, node)
        if not isinstance(node.ops[0], (ast.In, ast.NotIn)):
            scalar(right, node)
        return pure(node, lambda: function(left, right))

    def _subscript(self, node: ast.Subscript, scope: Scope, environment: Environment) -> Any:
        base = self.evaluate(node.value, scope, environment)
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            index: Any = slice(
                *(None if p is None else self.evaluate(p, scope, environment) for p in parts)
            )
        else:
            index = self.evaluate(node.slice, scope, environment)
        index = index if isinstance(index, slice) else scalar(index, node)
        return pure(node, lambda: plain(base, node)[index])

    def _sequence(self, node: Any, scope: Scope, environment: Environment) -> Any:
        items: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                items += sized(self.evaluate(element.value, scope, environment), node)
            else:
                items.append(self.evaluate(element, scope, environment))
        # a set is kept in the order in which it is written
        return items if isinstance(node, ast.List) else tuple(items)

    _list = _tuple = _set = _sequence

    def _dict(self, node: ast.Dict, scope: Scope, environment: Environment) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            evaluated = self.evaluate(value, scope, environment)
            if key is None:
                found.update(pure(node, lambda v=evaluated: dict(v)))
            else:
                found[scalar(self.evaluate(key, scope, environment), node)] = evaluated
        return found

    def _comprehension(self, node: Any, scope: Scope, environment: Environment) -> Any:
        inner = self.scope_of.get(node)
        if inner is None:
            raise Unknown(node)
        mapping = isinstance(node, ast.DictComp)
        parts = (node.key, node.value) if mapping else (node.elt,)
        rows: list[Any] = []

        def loop(depth: int, known: Environment) -> None:
            if depth == len(node.generators):
                row = [self.evaluate(part, inner, known) for part in parts]
                if mapping:
                    scalar(row[0], node)
                rows.append(tuple(row) if mapping else row[0])
                return
            generator = node.generators[depth]
            where = inner if depth else scope
            for item in sized(self.evaluate(generator.iter, where, known), node):
                names = dict(_unpacked(generator.target, item, node))
                below = {**known, **{(inner, name): value for name, value in names.items()}}
                if all(self.evaluate(test, inner, below) for test in generator.ifs):
                    loop(depth + 1, below)

        loop(0, environment)
        return pure(node, lambda: dict(rows)) if mapping else rows

    _listcomp = _setcomp = _generatorexp = _dictcomp = _comprehension

    def _attribute(self, node: ast.Attribute, scope: Scope, environment: Environment) -> Any:
        base = self.evaluate(node.value, scope, environment)
        if isinstance(base, Imported):
            return Imported(f"{base.name}.{node.attr}")
        if isinstance(base, Scope):
            if node.attr not in base.bindings:
                raise Unknown(node)
            named = ast.copy_location(ast.Name(node.attr, ast.Load()), node)
            return self._name(named, base, environment)
        if node.attr == "value" and isinstance(base, (str, int)):  # of an Enum's member
            return base
        raise Unknown(node)

    def _namedexpr(self, node: ast.NamedExpr, scope: Scope, environment: Environment) -> Any:
        return self.evaluate(node.value, scope, environment)

    def _call(self, node: ast.Call, scope: Scope, environment: Environment) -> Any:
        function = node.func
        if isinstance(function, ast.Attribute):
            base = self.evaluate(function.value, scope, environment)
            if not isinstance(base, (Imported, Scope)):
                arguments, keywords = self.arguments(node, scope, environment)
                return text_or_dict_method(base, function.attr, arguments, keywords, node)
        elif isinstance(function, ast.Name) and scope.lookup(function.id) is None:
            builtin = BUILTINS.get(function.id)
            if builtin is None:
                raise Unknown(node)
            arguments, keywords = self.arguments(node, scope, environment)
            for value in (*arguments, *keywords.values()):
                plain(value, node)
            return sized(pure(node, lambda: builtin(*arguments, **keywords)), node)
        called = self.evaluate(function, scope, environment)
        if self.call is None:
            raise Unknown(node)
        arguments, keywords = self.arguments(node, scope, environment)
        return self.call(called, node, arguments, keywords)

    def arguments(
        self, node: ast.Call, scope: Scope, environment: Environment
    ) -> tuple[list[Any], dict[str, Any]]:
        """A call's arguments; those that the text does not tell are `Unknown` values.

        Raises
        ------
        Unknown
            When a starred argument is not known.
        """
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                positional += sized(self.evaluate(argument.value, scope, environment), node)
            else:
                positional.append(self._maybe(argument, scope, environment))
        for keyword in node.keywords:
            if keyword.arg is None:
                value = self.evaluate(keyword.value, scope, environment)
                keywords.update(pure(node, lambda v=value: dict(v)))
            else:
                keywords[keyword.arg] = self._maybe(keyword.value, scope, environment)
        return positional, keywords

    def _maybe(self, node: ast.expr, scope: Scope, environment: Environment) -> Any:
        try:
            return self.evaluate(node, scope, environment)
        except Unknown as unknown:
            return unknown


def _imported(node: Any, alias: ast.alias) -> str:
    if isinstance(node, ast.ImportFrom):
        return f"{'.' * node.level}{node.module or ''}.{alias.name}"
    return alias.name if alias.asname else alias.name.partition(".")[0]


def _unpacked(target: ast.expr, value: Any, node: ast.AST) -> list[tuple[str, Any]]:
    """Names of a target with what each is bound to."""
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if not isinstance(target, (ast.Tuple, ast.List)):
        raise Unknown(node)
    items: list[Any] = list(sized(value, node))
    stars = [n for n, element in enumerate(target.elts) if isinstance(element, ast.Starred)]
    if stars:
        first, behind = stars[0], len(target.elts) - stars[0] - 1
        end = len(items) - behind
        items = [*items[:first], items[first:end], *items[end:]]
    if len(items) != len(target.elts):
        raise Unknown(node)
    found: list[tuple[str, Any]] = []
    for element, item in zip(target.elts, items, strict=True):
        inner = element.value if isinstance(element, ast.Starred) else element
        found += _unpacked(inner, item, node)
    return found
