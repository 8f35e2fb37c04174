"""What an expression can be, as far as the constants of its file tell.

Nothing is imported or run. A name leads to whatever it is bound to, a loop over constants to each
of their items, a conditional expression to both branches. Anything else is `Unknown`. What is
read may be hostile: texts and lists are bounded, steps are counted, and only scalars are
formatted, sorted and used as keys, since nested containers can take exponential time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from research_jobs.notebook.bindings import Binding, Scope

__all__ = ["Evaluator", "Imported", "TooMuchError", "Unknown"]

LONGEST = 1000
"""Items of a list, characters of a text."""

Chosen = Mapping[ast.expr, Any]
"""Which item the targets of loops are bound to."""

Values = list[tuple[Any, Chosen]]


@dataclass(frozen=True, eq=False)
class Unknown:
    """A value that the text does not give; `node` is what it does not tell of."""

    node: ast.expr


@dataclass(frozen=True)
class Imported:
    """A module, or what is imported from one: its dotted name."""

    name: str


class TooMuchError(Exception):
    """There are more combinations than are followed."""


class Evaluator:
    """Evaluates expressions of one file.

    Parameters
    ----------
    scope_of : mapping of node to Scope
    steps : int
        For the whole file.
    """

    def __init__(self, scope_of: Mapping[ast.AST, Scope], steps: int = 100_000) -> None:
        self._scope_of = scope_of
        self._steps = steps
        self._active: set[Binding] = set()

    def values(  # noqa: C901 - one case a kind of node
        self, node: ast.expr, scope: Scope, chosen: Chosen | None = None
    ) -> Values:
        """Every value that an expression can have, `Unknown` among them.

        Parameters
        ----------
        node : ast.expr
        scope : Scope
            Where it is evaluated.
        chosen : mapping, optional
            Loops whose item is decided.

        Returns
        -------
        list of (value, chosen)

        Raises
        ------
        TooMuchError
        RecursionError
        """
        chosen = {} if chosen is None else chosen
        self._spend(1)
        match node:
            case ast.Constant(value=value):
                return [(value, chosen)]
            case ast.Name():
                return self._name(node, scope, chosen)
            case (
                ast.NamedExpr(value=inner)
                | ast.FormattedValue(value=inner, conversion=-1 | 115, format_spec=None)
            ):
                return self.values(inner, scope, chosen)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                tests = [_scalar(value) for value, _ in self.values(test, scope, chosen)]
                branches = [body] * any(t is None or t[0] for t in tests)
                branches += [orelse] * any(t is None or not t[0] for t in tests)
                return [pair for one in branches for pair in self.values(one, scope, chosen)]
            case ast.BoolOp(values=operands):
                return [pair for one in operands for pair in self.values(one, scope, chosen)]
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                return self._fold(node, items, scope, chosen, lambda *parts: list(parts))
            case ast.Dict(keys=keys, values=items) if None not in keys:
                both = [*cast("list[ast.expr]", keys), *items]
                return self._fold(node, both, scope, chosen, _dict)
            case ast.JoinedStr(values=items):
                return self._fold(node, items, scope, chosen, _joined)
            case ast.BinOp(left=left, right=right, op=ast.Add()):
                return self._fold(node, [left, right], scope, chosen, _added)
            case ast.BinOp(left=left, right=right, op=ast.Mod()):
                return self._fold(node, [left, right], scope, chosen, _percent)
            case ast.UnaryOp(operand=ast.Constant(value=int() as number), op=ast.USub()):
                return [(-number, chosen)]
            case ast.Subscript(value=base, slice=index) if not isinstance(index, ast.Slice):
                return self._fold(node, [base, index], scope, chosen, _item)
            case ast.Attribute(value=base, attr=name):
                return self._fold(
                    node, [base], scope, chosen, lambda whole: Imported(f"{_module(whole)}.{name}")
                )
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node, chosen)
            case ast.Call():
                return self._call(node, scope, chosen)
            case _:
                return [(Unknown(node), chosen)]

    def each(self, nodes: list[ast.expr], scope: Scope, chosen: Chosen) -> Values:
        """Every list of values that several expressions can have together."""
        together: list[tuple[list[Any], Chosen]] = [([], chosen)]
        for node in nodes:
            starred = isinstance(node, ast.Starred)
            inner = node.value if isinstance(node, ast.Starred) else node
            longer: list[tuple[list[Any], Chosen]] = []
            for values, known in together:
                for value, after in self.values(inner, scope, known):
                    self._spend(1 + len(values) // 64)
                    items = _items(value) if starred else [value]
                    if items is None:
                        items = [value if isinstance(value, Unknown) else Unknown(inner)]
                    longer.append(([*values, *items], after))
            together = longer
        return together

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TooMuchError

    def _fold(
        self,
        node: ast.expr,
        parts: list[ast.expr],
        scope: Scope,
        chosen: Chosen,
        combine: Callable[..., Any],
    ) -> Values:
        """What an operation gives for each combination of its operands."""
        results: Values = []
        for values, known in self.each(parts, scope, chosen):
            try:
                value = combine(*values)
                if isinstance(value, (str, list, dict)) and len(cast("str", value)) > LONGEST:
                    value = Unknown(node)
            except Exception:  # noqa: BLE001 - the operation is not known, or fails in the notebook too
                unknown = [v for v in values if isinstance(v, Unknown)]
                value = unknown[0] if unknown else Unknown(node)
            results.append((value, known))
        return results

    def _name(self, node: ast.Name, scope: Scope, chosen: Chosen) -> Values:
        home = scope.lookup(node.id)
        if home is None:
            return [(Unknown(node), chosen)]
        results: Values = []
        for binding in home.bindings[node.id]:
            if isinstance(binding.value, str):
                results.append((Imported(binding.value), chosen))
            elif binding.value is None or binding in self._active:
                results.append((Unknown(node), chosen))
            elif binding.each and binding.target in chosen:
                results.append((_unpacked(binding, chosen[binding.target], node), chosen))
            else:
                results += self._bound(binding, node, chosen)
        return results

    def _bound(self, binding: Binding, node: ast.Name, chosen: Chosen) -> Values:
        """What one binding, whose value the text gives, gives a name."""
        assert isinstance(binding.value, ast.expr)
        # What is bound further down is of an earlier turn of a loop, with another item of it.
        earlier = binding.value.lineno > node.lineno
        self._active.add(binding)
        try:
            wholes = self.values(binding.value, binding.scope, {} if earlier else chosen)
        finally:
            self._active.discard(binding)
        results: Values = []
        for whole, known in wholes:
            after = chosen if earlier else known
            if not binding.each:
                results.append((_unpacked(binding, whole, node), after))
                continue
            items = _items(whole)
            if items is None:
                results.append((whole if isinstance(whole, Unknown) else Unknown(node), after))
            for item in items or ():
                self._spend(1)
                results.append((_unpacked(binding, item, node), {**after, binding.target: item}))
        return results

    def _comprehension(self, node: Any, chosen: Chosen) -> Values:
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        if any(generator.ifs for generator in node.generators):
            return [(Unknown(node), chosen)]
        rows: list[Any] = [row for row, _ in self.each(parts, self._scope_of[node], chosen)]
        if len(rows) > LONGEST or any(isinstance(v, Unknown) for row in rows for v in row):
            return [(Unknown(node), chosen)]
        if isinstance(node, ast.DictComp):
            return self._fold(node, [], self._scope_of[node], chosen, lambda: _pairs(rows))
        return [([row[0] for row in rows], chosen)]

    def _call(self, node: ast.Call, scope: Scope, chosen: Chosen) -> Values:
        if node.keywords:
            return [(Unknown(node), chosen)]
        match node.func:
            case ast.Name(id="getattr") if len(node.args) == 2:
                return self._fold(
                    node,
                    node.args,
                    scope,
                    chosen,
                    lambda o, n: Imported(f"{_module(o)}.{_text(n)}"),
                )
            case ast.Name(id=name) if name in _FUNCTIONS and scope.lookup(name) is None:
                return self._fold(node, node.args, scope, chosen, _FUNCTIONS[name])
            case ast.Attribute(value=base, attr=name) if name in _METHODS:
                return self._fold(node, [base, *node.args], scope, chosen, _METHODS[name])
            case _:
                return [(Unknown(node), chosen)]


# --- operations: whatever they raise makes their result unknown ---------------------------------


def _module(value: Any) -> str:
    if not isinstance(value, Imported):
        raise TypeError
    return value.name


def _scalar(value: Any) -> tuple[Any] | None:
    """A scalar in a tuple of its own, None for anything else."""
    return (value,) if value is None or isinstance(value, (str, int, float)) else None


def _scalars(*values: Any) -> list[Any]:
    if None in map(_scalar, values):
        raise TypeError
    return list(values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _items(value: Any) -> list[Any] | None:
    return list(cast("list[Any]", value)) if isinstance(value, (list, dict, str)) else None


def _joined(*parts: Any) -> str:
    return "".join(map(str, _scalars(*parts)))


def _added(left: Any, right: Any) -> Any:
    if not (isinstance(left, list) and isinstance(right, list)):
        _scalars(left, right)
    return left + right


def _percent(left: Any, right: Any) -> str:
    if re.search(r"%(?![sd])", _text(left)):
        raise ValueError
    return left % (tuple(_scalars(*right)) if isinstance(right, list) else _scalars(right)[0])


def _format(text: Any, *values: Any) -> str:
    if re.search(r"[:!.\[]", _text(text)):
        raise ValueError
    return text.format(*_scalars(*values))


def _item(base: Any, index: Any) -> Any:
    if isinstance(base, (list, dict, str)) and _scalar(index) is not None:
        return cast("Any", base)[index]
    raise TypeError


def _dict(*keys_and_values: Any) -> dict[Any, Any]:
    half = len(keys_and_values) // 2
    return dict(zip(_scalars(*keys_and_values[:half]), keys_and_values[half:], strict=True))


def _pairs(rows: list[Any]) -> dict[Any, Any]:
    return {_scalars(key)[0]: value for key, value in rows}


def _unpacked(binding: Binding, item: Any, node: ast.Name) -> Any:
    """What a name gets when an item is bound to the target that holds it."""
    try:
        return _names(binding.target, item)[node.id] if binding.target is not None else item
    except (TypeError, ValueError, LookupError):
        return item if isinstance(item, Unknown) else Unknown(node)


def _names(target: ast.expr, item: Any) -> dict[str, Any]:
    if isinstance(target, ast.Name):
        return {target.id: item}
    if not isinstance(target, (ast.Tuple, ast.List)):
        raise TypeError
    items = _items(item)
    if items is None:
        raise TypeError
    stars = [n for n, element in enumerate(target.elts) if isinstance(element, ast.Starred)]
    if stars:
        first, end = stars[0], len(items) - (len(target.elts) - stars[0] - 1)
        items = [*items[:first], items[first:end], *items[end:]]
    bound: dict[str, Any] = {}
    for element, one in zip(target.elts, items, strict=True):
        bound |= _names(element.value if isinstance(element, ast.Starred) else element, one)
    return bound


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > LONGEST:
        raise ValueError
    return list(numbers)


def _list(items: Any) -> list[Any]:
    listed = _items(items)
    if listed is None:
        raise TypeError
    return listed


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "range": _range,
    "enumerate": lambda items, start=0: [[n, one] for n, one in enumerate(_list(items), start)],
    "zip": lambda *rows: [list(row) for row in zip(*map(_list, rows), strict=False)],
    "sorted": lambda items: sorted(_scalars(*_list(items))),
    "reversed": lambda items: _list(items)[::-1],
    "str": lambda value: str(_scalars(value)[0]),
    **dict.fromkeys(("list", "tuple", "set"), _list),
}
_METHODS: Mapping[str, Callable[..., Any]] = {
    "format": _format,
    "join": lambda text, items: _text(text).join(_list(items)),
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "strip": lambda text: _text(text).strip(),
    "split": lambda text, *by: _text(text).split(*by),
    "get": lambda whole, key, other=None: {**whole}.get(_scalars(key)[0], other),
    "keys": lambda whole: list({**whole}),
    "values": lambda whole: list({**whole}.values()),
    "items": lambda whole: [[key, value] for key, value in {**whole}.items()],
}
