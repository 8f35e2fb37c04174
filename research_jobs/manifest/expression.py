"""The language of `when`: a condition over published values, without any code.

``summary.worst_drawdown < -0.3 and rows(prices) > 1000``: comparisons, ``and``, ``or``, ``not``,
arithmetic, parentheses, numbers, strings, ``true``, ``false``, ``null``, an output and what is in
it (``summary``, ``summary.sharpe["sp500"]``, ``prices.close[-1]``), ``rows(output)``, ``abs(x)``,
and ``changed``. Python's parser reads it, and only what is on this list is taken from its tree.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from research_jobs.errors import did_you_mean

__all__ = ["CHANGED", "Condition", "ConditionError", "Values", "parse_condition"]

CHANGED = "changed"
"""The name that says whether the outputs differ from those of the success before."""

LENGTH = 500
DEPTH = 30
_WORDS = {"true": True, "false": False, "null": None}
_FUNCTIONS = ("rows", "abs")
_COMPARED: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_COMPUTED: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


class ConditionError(Exception):
    """Why a condition cannot be read, or has no answer: one line.

    Parameters
    ----------
    what : str
    hint : str
        What to do.
    column : int
        Where in its text, from 1.
    """

    def __init__(self, what: str, hint: str = "", column: int = 1) -> None:
        super().__init__(what)
        self.what, self.hint, self.column = what, hint, column


class Values(Protocol):
    """The published values that a condition asks for."""

    changed: bool | None

    def rows(self, output: str) -> int:
        """How many rows an output has; raises `ConditionError`."""
        ...

    def value(self, output: str, keys: Sequence[str | int]) -> Any:
        """What is in an output, below these keys; raises `ConditionError`."""
        ...


@dataclass(frozen=True)
class Condition:
    """A condition that could be read.

    Parameters
    ----------
    text : str
    """

    text: str
    _tree: ast.expr = field(repr=False, compare=False)

    @property
    def outputs(self) -> Iterator[tuple[str, int]]:
        """Iterator: each output that it names, and the column, from 1."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id not in (*_WORDS, *_FUNCTIONS, CHANGED):
                yield node.id, node.col_offset + 1

    def holds(self, values: Values) -> bool:
        """Whether it holds.

        Raises
        ------
        ConditionError
            When a value is missing, or is none that it can compare.
        """
        answer = _Evaluation(self.text, values).of(self._tree)
        if not isinstance(answer, bool):
            raise ConditionError(
                f"'{self.text}' is {_shown(answer)}, not true or false", "Compare it: x > 0."
            )
        return answer


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises
    ------
    ConditionError
        When it is none; says where.
    """
    if len(text) > LENGTH:
        raise ConditionError(f"it has {len(text)} characters", f"Keep it below {LENGTH}.")
    if not text.strip() or "\n" in text.strip():
        raise ConditionError("it is not one line", "Write summary.worst_drawdown < -0.3.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        early = _could_go_on(text)
        column = len(text) + 1 if early else min(error.offset or 1, len(text))
        near = "" if early else text.strip()[column - 1 : column + 14]
        what = f"it cannot be read at '{near}'" if near else "it ends too early"
        hint = {"&": "Write and.", "|": "Write or.", "=": "Write == to compare.", "!": "Write not."}
        raise ConditionError(what, hint.get(near[:1], ""), column) from None
    except (ValueError, RecursionError, MemoryError):
        raise ConditionError("it cannot be read", "Write it shorter.") from None
    _check(tree, 0)
    return Condition(text.strip(), tree)


def _could_go_on(text: str) -> bool:
    try:
        ast.parse(f"{text.strip()} 0", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _check(node: ast.expr, depth: int) -> None:
    """Refuse what is not part of the language."""
    if depth > DEPTH:
        raise ConditionError("it nests too deep", "Write it shorter.", node.col_offset + 1)
    inner = _combined(node)
    if inner is None:
        _check_leaf(node)
    for part in inner or ():
        _check(part, depth + 1)


def _combined(node: ast.expr) -> Sequence[ast.expr] | None:
    """The parts of what is made of parts."""
    match node:
        case ast.BoolOp(values=parts):
            return parts
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=part):
            return [part]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTED:
            return [left, right]
        case ast.Compare(left=left, ops=ops) if all(type(op) in _COMPARED for op in ops):
            return [left, *node.comparators]
        case ast.Call(func=ast.Name(id="abs"), args=[part], keywords=[]):
            return [part]
        case _:
            return None


def _check_leaf(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=int() | float() | str() as value) if not isinstance(value, bool):
            return
        case ast.Name(id=name) if name not in _FUNCTIONS:
            return
        case ast.Attribute() | ast.Subscript():
            _path(node)
        case ast.Call(func=ast.Name(id="rows"), args=[ast.Name()], keywords=[]):
            return
        case _:
            raise _refused(node)


def _refused(node: ast.expr) -> ConditionError:
    text, column = ast.unparse(node)[:40], node.col_offset + 1
    match node:
        case ast.Call(func=ast.Name(id="rows")) | ast.Name(id="rows"):
            return ConditionError("rows takes an output's name", "Write rows(prices).", column)
        case ast.Call(func=ast.Name(id=name)):
            hint = did_you_mean(name, _FUNCTIONS, label="Functions")
            return ConditionError(f"there is no function '{name}'", hint, column)
        case ast.Constant(value=bool() | None as value):
            word = "null" if value is None else str(value).lower()
            return ConditionError(f"'{value}' is Python's", f"Write {word}.", column)
        case _:
            hint = "It has comparisons, and, or, not, + - * /, output.key, rows() and abs()."
            return ConditionError(f"'{text}' is no part of a condition", hint, column)


def _path(node: ast.expr) -> tuple[str, list[str | int]]:
    """The output, and the keys below it, of ``output.key[0]``."""
    keys: list[str | int] = []
    place = node
    while True:
        match place:
            case ast.Attribute(value=inner, attr=key):
                keys.append(key)
            case ast.Subscript(value=inner, slice=ast.Constant(value=str() | int() as key)):
                keys.append(key)
            case ast.Subscript(
                value=inner,
                slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as key)),
            ):
                keys.append(-key)
            case ast.Name(id=name) if name not in (*_WORDS, *_FUNCTIONS, CHANGED):
                return name, keys[::-1]
            case _:
                raise _refused(place)
        place = inner


@dataclass
class _Evaluation:
    """The tree of a condition, with values for its names."""

    text: str
    values: Values

    def of(self, node: ast.expr) -> Any:
        match node:
            case ast.BoolOp(op=op, values=parts):
                decided = isinstance(op, ast.Or)
                return decided if any(self._flag(p) is decided for p in parts) else not decided
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return not self._flag(part)
            case ast.UnaryOp(op=op, operand=part):
                number = self._number(part)
                return -number if isinstance(op, ast.USub) else number
            case ast.BinOp():
                return self._computed(node)
            case ast.Compare():
                return self._compared(node)
            case _:
                return self._leaf(node)

    def _leaf(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in _WORDS:
                return _WORDS[name]
            case ast.Name(id="changed"):
                return self._changed()
            case ast.Call(func=ast.Name(id="rows"), args=[ast.Name(id=output)]):
                return self.values.rows(output)
            case ast.Call(args=[part]):
                return abs(self._number(part))
            case _:
                output, keys = _path(node)
                return self.values.value(output, keys)

    def _changed(self) -> bool:
        if self.values.changed is None:
            raise ConditionError("whether the outputs changed is not known: it declares none")
        return self.values.changed

    def _flag(self, node: ast.expr) -> bool:
        value = self.of(node)
        if not isinstance(value, bool):
            what = f"{ast.unparse(node)} is {_shown(value)}, not true or false"
            raise ConditionError(what, column=node.col_offset + 1)
        return value

    def _number(self, node: ast.expr) -> Any:
        value = self.of(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = f"{ast.unparse(node)} is {_shown(value)}, not a number"
            raise ConditionError(what, column=node.col_offset + 1)
        return value

    def _computed(self, node: ast.BinOp) -> Any:
        left, right = self._number(node.left), self._number(node.right)
        try:
            return _COMPUTED[type(node.op)][1](left, right)
        except ArithmeticError:
            what = f"{ast.unparse(node)} cannot be computed: {left} and {right}"
            raise ConditionError(what, column=node.col_offset + 1) from None

    def _compared(self, node: ast.Compare) -> bool:
        left = self.of(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self.of(part)
            sign, compare = _COMPARED[type(op)]
            try:
                if not compare(left, right):
                    return False
            except TypeError:
                what = f"{ast.unparse(node)}: {_shown(left)} and {_shown(right)} have no {sign}"
                raise ConditionError(what, column=node.col_offset + 1) from None
            left = right
        return True


def _shown(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
