"""The type of a parameter, from its annotation or default, without running anything.

Standard library only.
"""

from __future__ import annotations

import ast
import datetime as dt
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from research_jobs.notebook.walk import dotted_name

__all__ = ["MISSING", "Names", "TypeOf", "default_value", "type_of_annotation", "type_of_default"]

MISSING: Any = object()
"""The marker for a parameter without a literal default."""

_SCALARS = {"int", "float", "bool", "str"}
_SEQUENCES = {"list", "List", "Sequence", "Iterable", "Collection", "tuple", "Tuple", "set", "Set",
              "frozenset", "FrozenSet", "MutableSequence"}  # fmt: skip
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}


@dataclass(frozen=True)
class TypeOf:
    """A parameter's type as far as the text tells it.

    Parameters
    ----------
    type : str
        One of the names that `Parameter.type` lists.
    optional : bool
    choices : tuple
        Values of a ``Literal``, names of an ``Enum``'s members.
    choice_values : tuple
        For an ``Enum`` the literal values of its members, in the order of `choices`.
    """

    type: str = "any"
    optional: bool = False
    choices: tuple[Any, ...] = ()
    choice_values: tuple[Any, ...] = ()


@dataclass
class Names:
    """The meaning of a notebook's names, as far as types need it.

    Parameters
    ----------
    origins : mapping of str to str
        Local name to dotted origin: ``{"pd": "pandas", "date": "datetime.date"}``.
    enums : mapping of str to mapping
        Class to its members' names and literal values.
    aliases : mapping of str to ast.expr
        ``Mode = Literal["a", "b"]`` at module level.
    """

    origins: dict[str, str] = field(default_factory=dict[str, str])
    enums: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    aliases: dict[str, ast.expr] = field(default_factory=dict[str, ast.expr])

    def dotted(self, node: ast.expr) -> str:
        """A dotted name with the origin of its first part."""
        return dotted_name(node, self.origins)


_TEMPORAL = {
    "datetime.date": "date",
    "datetime.datetime": "datetime",
    "pandas.Timestamp": "timestamp",
}


def type_of_annotation(  # noqa: C901 - one branch a kind of annotation
    annotation: ast.expr, names: Names, *, depth: int = 0
) -> TypeOf:
    """The type that an annotation declares; ``any`` if it is not a supported one."""
    if depth > 8:
        return TypeOf()
    if isinstance(annotation, ast.Constant):
        if annotation.value is None:
            return TypeOf(optional=True)
        if isinstance(annotation.value, str):
            try:
                inner = ast.parse(annotation.value.strip(), mode="eval").body
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return TypeOf()
            return type_of_annotation(inner, names, depth=depth + 1)
        return TypeOf()
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _union(_flatten(annotation), names, depth)
    if isinstance(annotation, ast.Subscript):
        return _subscript(annotation, names, depth)
    if isinstance(annotation, ast.Name):
        if annotation.id in names.enums:
            members = names.enums[annotation.id]
            return TypeOf("enum", choices=tuple(members), choice_values=tuple(members.values()))
        if annotation.id in names.aliases:
            return type_of_annotation(names.aliases[annotation.id], names, depth=depth + 1)
    dotted = names.dotted(annotation)
    if dotted in _SCALARS:
        return TypeOf(dotted)
    if dotted in _TEMPORAL:
        return TypeOf(_TEMPORAL[dotted])
    last = dotted.rpartition(".")[2]
    if last in _MAPPINGS:
        return TypeOf("dict")
    if last in _SEQUENCES:
        return TypeOf("list")
    if dotted == "pathlib.Path":
        return TypeOf("str")
    # some class: the default at run time decides what a value must be
    return TypeOf("any" if last in ("Any", "object", "") else "computed")


def _flatten(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_flatten(node.left), *_flatten(node.right)]
    return [node]


def _union(members: Sequence[ast.expr], names: Names, depth: int) -> TypeOf:
    optional = False
    types: list[TypeOf] = []
    for member in members:
        if isinstance(member, ast.Constant) and member.value is None:
            optional = True
            continue
        member_type = type_of_annotation(member, names, depth=depth + 1)
        optional = optional or member_type.optional
        if member_type not in types:
            types.append(member_type)
    kinds = {member_type.type for member_type in types}
    if len(types) == 1:
        only = types[0]
        return TypeOf(only.type, optional, only.choices, only.choice_values)
    if kinds == {"int", "float"}:
        return TypeOf("float", optional)
    if kinds == {"literal"}:
        choices = dict.fromkeys(choice for member_type in types for choice in member_type.choices)
        return TypeOf("literal", optional, tuple(choices))
    return TypeOf(optional=optional)


def _subscript(node: ast.Subscript, names: Names, depth: int) -> TypeOf:
    base = names.dotted(node.value).rpartition(".")[2]
    arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base == "Optional":
        return _union([*arguments, ast.Constant(None)], names, depth)
    if base == "Union":
        return _union(arguments, names, depth)
    if base in ("Annotated", "Final", "ClassVar", "Required"):
        return type_of_annotation(arguments[0], names, depth=depth + 1)
    if base == "Literal":
        values: list[Any] = []
        for argument in arguments:
            try:
                value = ast.literal_eval(argument)
            except (ValueError, TypeError, SyntaxError):
                return TypeOf()
            if value is not None and not isinstance(value, (str, int, bool)):
                return TypeOf()
            values.append(value)
        choices = tuple(value for value in values if value is not None)
        return TypeOf("literal", None in values, choices)
    if base in _MAPPINGS:
        return TypeOf("dict")
    if base in _SEQUENCES:
        inner = [
            argument
            for argument in arguments
            if not (isinstance(argument, ast.Constant) and argument.value is Ellipsis)
        ]
        kinds = {type_of_annotation(argument, names, depth=depth + 1).type for argument in inner}
        only = kinds.pop() if len(kinds) == 1 else "any"
        return TypeOf(_list_of(only))
    return TypeOf()


def _list_of(element: str) -> str:
    listable = element in _SCALARS or element in _TEMPORAL.values()
    return f"list[{element}]" if listable else "list"


_CONSTRUCTORS = {
    "datetime.date": "date",
    "datetime.date.today": "date",
    "datetime.date.fromisoformat": "date",
    "datetime.datetime": "datetime",
    "datetime.datetime.now": "datetime",
    "datetime.datetime.today": "datetime",
    "datetime.datetime.utcnow": "datetime",
    "datetime.datetime.fromisoformat": "datetime",
    "pandas.Timestamp": "timestamp",
    "pandas.Timestamp.now": "timestamp",
    "pandas.Timestamp.today": "timestamp",
    "pandas.Timestamp.utcnow": "timestamp",
    "pandas.to_datetime": "timestamp",
    "pathlib.Path": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "list": "list",
    "dict": "dict",
    "os.cpu_count": "int",
    "os.getcwd": "str",
}


def type_of_default(node: ast.expr, names: Names) -> TypeOf:  # noqa: C901 - as above
    """The type of a default's expression; ``any`` if the text does not tell."""
    value = default_value(node, names)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        members = names.enums.get(node.value.id)
        if members is not None and node.attr in members:
            return TypeOf("enum", choices=tuple(members), choice_values=tuple(members.values()))
    if isinstance(node, ast.Call):
        dotted = names.dotted(node.func)
        if dotted in _CONSTRUCTORS:
            return TypeOf(_CONSTRUCTORS[dotted])
        # an Enum called with a value
        if isinstance(node.func, ast.Name) and node.func.id in names.enums:
            members = names.enums[node.func.id]
            return TypeOf("enum", choices=tuple(members), choice_values=tuple(members.values()))
        # a method that keeps the type, as in pd.Timestamp.now().normalize()
        if isinstance(node.func, ast.Attribute) and node.func.attr in (
            "normalize", "replace", "floor", "ceil", "round", "tz_localize", "tz_convert",
        ):  # fmt: skip
            return type_of_default(node.func.value, names)
        # the day of a moment
        if isinstance(node.func, ast.Attribute) and node.func.attr == "date" and not node.args:
            inner = type_of_default(node.func.value, names).type
            return TypeOf("date" if inner in _TEMPORAL.values() else "computed")
        return TypeOf("computed")
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kinds = {type_of_default(element, names).type for element in node.elts}
        if kinds == {"int", "float"}:
            kinds = {"float"}
        return TypeOf(_list_of(kinds.pop()) if len(kinds) == 1 else "list")
    if isinstance(node, ast.Dict):
        return TypeOf("dict")
    if isinstance(node, ast.JoinedStr):
        return TypeOf("str")
    if isinstance(node, ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    ):
        return TypeOf("bool")
    if isinstance(node, ast.BinOp) and value is MISSING:
        # a date less some days is a date
        left = type_of_default(node.left, names).type
        if isinstance(node.op, (ast.Add, ast.Sub)) and left in _TEMPORAL.values():
            right = type_of_default(node.right, names).type
            return TypeOf("computed" if right in _TEMPORAL.values() else left)
        return TypeOf("computed")
    if value is None:
        return TypeOf(optional=True)
    if value is not MISSING and type(value).__name__ in _SCALARS:
        return TypeOf(type(value).__name__)
    return TypeOf("computed")


def default_value(node: ast.expr, names: Names) -> Any:
    """A default as a JSON value; `MISSING` if it is known only at run time.

    Dates, times and paths whose arguments are literals are given as text, Enum members by name.
    """
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        members = names.enums.get(node.value.id)
        return node.attr if members is not None and node.attr in members else MISSING
    if isinstance(node, ast.Call):
        return _called(node, names)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        values = [default_value(element, names) for element in node.elts]
        return MISSING if any(value is MISSING for value in values) else values
    if isinstance(node, ast.Dict):
        return _mapping(node, names)
    number = _number(node)
    if number is not None:
        return number
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return MISSING
    return value if value is None or isinstance(value, (str, bool, int, float)) else MISSING


def _mapping(node: ast.Dict, names: Names) -> Any:
    mapping: dict[str, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return MISSING
        item = default_value(value, names)
        if item is MISSING:
            return MISSING
        mapping[key.value] = item
    return mapping


def _number(node: ast.expr) -> int | float | None:  # noqa: C901 - one branch an operator
    """``60 * 60 * 24`` and ``-1``, computed."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) in (int, float) else None  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        operand = _number(node.operand)
        if operand is None:
            return None
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left), _number(node.right)
        if left is None or right is None:
            return None
        try:
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
            if isinstance(node.op, ast.Div):
                return left / right
            if isinstance(node.op, ast.FloorDiv):
                return left // right
            # 2 ** 10, but not 9 ** 9 ** 9
            if isinstance(node.op, ast.Pow) and abs(left) <= 1e6 and 0 <= right <= 64:
                return cast("int | float", left**right)
        except (ArithmeticError, ValueError):
            return None
    return None


def _called(node: ast.Call, names: Names) -> Any:  # noqa: C901 - one branch a class
    dotted = names.dotted(node.func)
    if isinstance(node.func, ast.Name) and node.func.id in names.enums:
        members = names.enums[node.func.id]
        values = _literals(node)
        if values is not None and len(values[0]) == 1:
            by_value = [name for name, value in members.items() if value == values[0][0]]
            return by_value[0] if by_value else MISSING
        return MISSING
    arguments = _literals(node)
    if arguments is None:
        return MISSING
    positional, named = arguments
    try:
        if dotted == "datetime.date":
            return dt.date(*positional, **named).isoformat()
        if dotted == "datetime.date.fromisoformat":
            return dt.date.fromisoformat(*positional).isoformat()
        if dotted == "datetime.datetime":
            return dt.datetime(*positional, **named).isoformat()  # noqa: DTZ001 - as the notebook wrote it
        if dotted == "datetime.datetime.fromisoformat":
            return dt.datetime.fromisoformat(*positional).isoformat()
        if dotted in ("pandas.Timestamp", "pandas.to_datetime") and not named:
            if len(positional) == 1 and isinstance(positional[0], str):
                return positional[0]
            if len(positional) > 2:
                return dt.datetime(*positional).isoformat()  # noqa: DTZ001 - as above
        if dotted == "pathlib.Path" and not named and all(isinstance(p, str) for p in positional):
            return posixpath.join(*positional) if positional else "."
    except (TypeError, ValueError, OverflowError):
        return MISSING
    return MISSING


def _literals(node: ast.Call) -> tuple[list[Any], Mapping[str, Any]] | None:
    try:
        positional = [ast.literal_eval(argument) for argument in node.args]
        named = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in node.keywords
            if keyword.arg is not None
        }
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    if len(named) != len(node.keywords):
        return None
    if any(isinstance(value, float) and not math.isfinite(value) for value in positional):
        return None
    return positional, named
