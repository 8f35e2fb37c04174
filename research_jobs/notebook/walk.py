"""One walk over a syntax tree: a digest that ignores formatting, and the names it contains.

The digest covers what the program does: no positions, comments, docstrings or other bare strings.
It is written by hand because `ast.dump` and bytecode differ between Python versions; empty fields
are left out, so a field that a newer Python adds changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

__all__ = ["Walk", "children", "dotted_name", "nodes_of", "walk"]


@dataclass
class Walk:
    """What a walk over one statement (or a whole module) found.

    Parameters
    ----------
    names : set of str
        Bare names, read or bound.
    attributes : set of (str, str)
        ``helper.prices`` as ``("helper", "prices")``; the base is then not among `names`.
    calls, imports, globals : list of nodes
    """

    names: set[str] = field(default_factory=set[str])
    attributes: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    calls: list[ast.Call] = field(default_factory=list[ast.Call])
    imports: list[ast.Import | ast.ImportFrom] = field(
        default_factory=list["ast.Import | ast.ImportFrom"]
    )
    globals: list[ast.Global] = field(default_factory=list[ast.Global])


_IGNORED = {"ctx", "type_comment", "kind", "type_ignores", "simple"}
# Class to the text that opens it, and its fields from last to first, each with what opens a list.
_SHAPES: dict[type[ast.AST], tuple[str, tuple[tuple[str, str], ...]]] = {}


def _shape(cls: type[ast.AST]) -> tuple[str, tuple[tuple[str, str], ...]]:
    fields = [(name, f"{name}[") for name in cls._fields if name not in _IGNORED]
    shape = _SHAPES[cls] = (f"{cls.__name__}(", tuple(reversed(fields)))
    return shape


def _constant(value: Any) -> str:
    kind = type(value).__name__
    if type(value) is int:
        # Hexadecimal has no limit on digits.
        return f"{kind} {value:x}"
    # ascii(): which characters repr() shows depends on the version's Unicode tables.
    return f"{kind} {value!a}"


def _merged(node: ast.JoinedStr) -> ast.JoinedStr:
    """An f-string with its text merged between fields: Python 3.12 splits it at ``{{``."""
    values: list[ast.expr] = []
    for value in node.values:
        last = values[-1] if values else None
        if not isinstance(value, ast.Constant):
            values.append(value)
        elif isinstance(last, ast.Constant):
            values[-1] = ast.Constant(f"{last.value}{value.value}")
        elif value.value:
            values.append(value)
    return ast.JoinedStr(values)


class Digest:
    """Collects the digest of a sequence of statements."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, statement: ast.AST) -> Walk:  # noqa: C901 - one loop without calls, because it is hot
        """Walk one statement."""
        walked = Walk()
        out = self._parts.append
        names = walked.names
        stack: list[Any] = [statement]
        push, pop = stack.append, stack.pop
        while stack:
            item = pop()
            cls = item.__class__
            if cls is str:
                out(item)
                continue
            if cls is ast.Name:
                names.add(item.id)
                out("Name " + item.id)
                continue
            if cls is ast.Constant:
                out(_constant(item.value))
                continue
            if cls is ast.Attribute:
                base = item.value
                if base.__class__ is ast.Name:
                    walked.attributes.add((base.id, item.attr))
                    out(f"Attribute {item.attr} Name {base.id}")
                else:
                    out("Attribute " + item.attr)
                    push(base)
                continue
            if cls is ast.Expr:
                value = item.value
                if value.__class__ is ast.Constant and value.value.__class__ is str:
                    continue
            elif cls is ast.JoinedStr:
                item = _merged(item)
            elif cls is ast.Call:
                walked.calls.append(item)
            elif cls is ast.Import or cls is ast.ImportFrom:
                walked.imports.append(item)
            elif cls is ast.Global:
                walked.globals.append(item)
            begin, fields = _SHAPES.get(cls) or _shape(cls)
            if not fields:  # an operator, `pass`
                out(begin)
                continue
            out(begin)
            push(")")
            for name, begin_list in fields:
                value = getattr(item, name, None)
                if value is None:
                    continue
                kind = value.__class__
                if kind is list:
                    if value:
                        push("]")
                        for element in reversed(value):
                            push("None" if element is None else element)
                        push(begin_list)
                elif kind is str or kind is int:
                    push(f"{name}={value}")
                else:
                    push(value)
                    push(name)
        return walked

    def hexdigest(self) -> str:
        """The digest of everything added so far."""
        return hashlib.sha256("\n".join(self._parts).encode("utf-8", "surrogatepass")).hexdigest()


def dotted_name(node: ast.expr, origins: Mapping[str, str]) -> str:
    """``pd.Timestamp`` as ``pandas.Timestamp``; ``""`` for anything but a dotted name.

    Parameters
    ----------
    node : ast.expr
    origins : mapping of str to str
        Local name to dotted origin: ``{"pd": "pandas", "date": "datetime.date"}``.
    """
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([origins.get(node.id, node.id), *reversed(parts)])


@lru_cache(maxsize=2)
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree, as `ast.walk` yields them, without contexts.

    The last two trees are remembered: a check asks several times, and `ast.walk` is slow.
    """
    nodes = [tree]
    for node in nodes:  # it grows meanwhile
        nodes += children(node)
    return tuple(nodes)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below a node, without contexts: `ast.iter_child_nodes` in half its time."""
    found: list[ast.AST] = []
    for name, value in node.__dict__.items():
        if isinstance(value, list):
            found += [each for each in cast("list[Any]", value) if isinstance(each, ast.AST)]
        elif name != "ctx" and isinstance(value, ast.AST):
            found.append(value)
    return found


def walk(tree: ast.AST) -> Walk:
    """Walk a tree for its contents, without the digest."""
    return Digest().add(tree)
