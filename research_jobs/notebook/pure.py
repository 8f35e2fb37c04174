"""Operations on constants, bounded: what is read may be hostile.

Whatever an operation raises would end the notebook's run, and is `Unknown` here. Texts and lists
do not grow beyond `LONGEST`, and only scalars are formatted, compared and hashed, since nested
containers can take exponential time.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from research_jobs.notebook.scopes import Scope

__all__ = [
    "BUILTINS",
    "COMPARISONS",
    "LONGEST",
    "OPERATORS",
    "UNARY",
    "Imported",
    "Unknown",
    "narrow",
    "plain",
    "pure",
    "scalar",
    "sized",
    "text_or_dict_method",
]

LONGEST = 10_000
"""Of a text or a list that is computed."""


class Unknown(Exception):  # noqa: N818 - it never leaves this package
    """The text does not tell; `node` is what it does not tell of."""

    def __init__(self, node: ast.AST) -> None:
        super().__init__()
        self.node = node


@dataclass(frozen=True)
class Imported:
    """A module, or what is imported from one: its dotted name."""

    name: str


def plain(value: Any, node: ast.AST) -> Any:
    if isinstance(value, (Imported, Scope, Unknown)):
        raise Unknown(node)
    return value


def scalar(value: Any, node: ast.AST) -> Any:
    """A value that is not a container: texts and hashes of nested ones grow exponentially."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise Unknown(node)


def scalars(items: Any) -> list[Any]:
    return [scalar(item, ast.Constant(None)) for item in items]


def sized(value: Any, node: ast.AST) -> Any:
    """A value, unless it is too large to go on with."""
    plain(value, node)
    if isinstance(value, int) and abs(value) > 10**18:
        raise Unknown(node)
    if hasattr(value, "__len__") and len(cast("Any", value)) > LONGEST:
        raise Unknown(node)
    return value


def narrow(spec: Any, node: ast.AST) -> Any:
    """A format, unless it asks for more characters than fit a screen."""
    if not isinstance(spec, str) or len(spec) > LONGEST or re.search(r"\d{4}|\*", spec):
        raise Unknown(node)
    return spec


def pure(node: ast.AST, compute: Callable[[], Any]) -> Any:
    """The result of an operation on constants; whatever it raises would end the run."""
    try:
        return compute()
    except Unknown:
        raise
    except Exception:  # noqa: BLE001 - the notebook's own error
        raise Unknown(node) from None


_TEXT_METHODS = frozenset({
    "capitalize", "casefold", "endswith", "format", "join", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rpartition", "rsplit", "rstrip", "split",
    "startswith", "strip", "swapcase", "title", "upper",
})  # fmt: skip
_DICT_METHODS = frozenset({"copy", "get", "items", "keys", "values"})


def text_or_dict_method(
    base: Any, name: str, arguments: list[Any], keywords: dict[str, Any], node: ast.Call
) -> Any:
    for argument in (*arguments, *keywords.values()):
        plain(argument, node)
    if isinstance(base, str) and name in _TEXT_METHODS:
        if name == "format":
            narrow(base, node)
        for argument in arguments:
            if name == "join":
                sized("".join(pure(node, lambda a=argument: scalars(a))), node)
            else:
                scalar(argument, node)
        if name == "replace" and len(base) * max(1, *(len(str(a)) for a in arguments)) > 10**6:
            raise Unknown(node)
        return sized(pure(node, lambda: getattr(base, name)(*arguments, **keywords)), node)
    if isinstance(base, dict) and name in _DICT_METHODS:
        mapping = cast("dict[Any, Any]", base)
        result = pure(node, lambda: getattr(mapping, name)(*arguments, **keywords))
        return list(result) if name in ("items", "keys", "values") else result
    raise Unknown(node)


OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.BitOr: operator.or_,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > LONGEST:
        raise ValueError(bounds)
    return list(numbers)


BUILTINS: Mapping[str, Callable[..., Any]] = {
    "range": _range,
    "enumerate": lambda items, start=0: list(enumerate(items, start)),
    "zip": lambda *rows, strict=False: list(zip(*rows, strict=strict)),
    "reversed": lambda items: list(reversed(items)),
    "set": lambda items=(): tuple(dict.fromkeys(scalars(items))),
    "frozenset": lambda items=(): tuple(dict.fromkeys(scalars(items))),
    "sorted": lambda items, reverse=False: sorted(scalars(items), reverse=reverse),
    "str": lambda value="": str(scalars([value])[0]),
    "int": lambda value=0: int(scalars([value])[0]),
    **{f.__name__: f for f in (list, tuple, len, bool)},
}
