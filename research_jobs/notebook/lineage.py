"""What a notebook reads: its own `load` calls, those of its helpers, and cycles of notebooks.

A helper module often has one reading function per notebook. Only the functions that a notebook
can reach count, or every notebook would depend on everything that any of them reads.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from research_jobs.notebook.facts import FileFacts, Unit
from research_jobs.notebook.loads import HiddenLoad, LoadCall, Loads
from research_jobs.notebook.local_modules import Imported

__all__ = ["reached_loads", "shortest_cycle", "strongly_connected"]

_START = ""


def reached_loads(
    start: tuple[FileFacts, Imported],
    modules: Mapping[str, tuple[FileFacts, Imported]],
    shown: str,
) -> Loads:
    """The `load` calls that a notebook's run can reach.

    Parameters
    ----------
    start : (FileFacts, Imported)
        The notebook.
    modules : mapping of str to (FileFacts, Imported)
        Every local module that it imports, directly or not.
    shown : str
        The notebook's file as a person should see it.

    Returns
    -------
    Loads
        The notebook's own calls first.
    """
    own = Loads(
        tuple(call for unit in start[0].units for call in unit.loads),
        tuple(load for unit in start[0].units for load in unit.hidden),
    )
    helpers = [facts for facts, _ in modules.values()]
    if not any(
        facts.load_names or any(unit.loads or unit.hidden for unit in facts.units)
        for facts in helpers
    ):
        return own
    reach = _Reach({_START: start, **modules}, shown)
    for name in [_START, *modules]:
        reach.top_level(name)
    calls = dict.fromkeys(call for call in reach.loads if call not in own.calls)
    hidden = dict.fromkeys(load for load in reach.hidden if load not in own.hidden)
    return Loads(
        (*own.calls, *sorted(calls, key=lambda call: (call.path, call.line, call.column))),
        (*own.hidden, *sorted(hidden, key=lambda load: (load.path, load.line, load.column))),
    )


class _Reach:
    """The units of modules that are reached; when in doubt, a unit counts as reached."""

    def __init__(self, modules: Mapping[str, tuple[FileFacts, Imported]], shown: str) -> None:
        self.modules = modules
        self.shown = shown
        self.loads: list[LoadCall] = []
        self.hidden: list[HiddenLoad] = []
        self._bindings: dict[str, dict[str, list[tuple[str, str | None]]]] = {}
        self._seen: set[tuple[str, str | None]] = set()

    def top_level(self, module: str) -> None:
        self._reach([(module, None)])

    def _reach(self, todo: list[tuple[str, str | None]]) -> None:
        """Follow (module, name) pairs; ``None`` means what an import runs, ``*`` everything."""
        while todo:
            module, name = todo.pop()
            if (module, name) in self._seen or module not in self.modules:
                continue
            self._seen.add((module, name))
            facts, imported = self.modules[module]
            if name == "*":
                todo += [(module, unit.name) for unit in facts.units]
                continue
            units = [unit for unit in facts.units if unit.name == name]
            for unit in units:
                self.loads += unit.loads
                self.hidden += unit.hidden
                todo += self._uses(module, unit)
            if name is None:
                # a star import may use anything: take all of it
                todo += self._bound(module).get("*", ())
            elif not units:
                # a name that the module imports, or one of its submodules; an imported module
                # may be used in any way
                todo += [(target, i or "*") for target, i in self._bound(module).get(name, ())]
                todo += [
                    (target, name) for ref, target in imported.targets if ("*", "*") in ref.names
                ]
                todo.append((f"{module}.{name}", "*"))

    def _uses(self, module: str, unit: Unit) -> Iterator[tuple[str, str | None]]:
        bound = self._bound(module)
        defined = {other.name for other in self.modules[module][0].units if other.name}
        if module == _START:
            self._load_of_helpers(unit)
        for name in unit.uses:
            if name in defined:
                yield module, name
            for target, inner in bound.get(name, ()):
                # a module passed around as a value may be used in any way
                behind = self._module(target, inner)
                yield (behind, "*") if behind is not None else (target, inner)
        for base, attribute in unit.attributes:
            if base in defined:
                yield module, base
            for target, inner in bound.get(base, ()):
                behind = self._module(target, inner)
                yield (behind, attribute) if behind is not None else (target, inner)

    def _load_of_helpers(self, unit: Unit) -> None:
        """Record where a notebook imports `load` from a helper module, which hides its calls."""
        used = {*unit.uses, *(base for base, _ in unit.attributes)}
        for ref, target in self.modules[_START][1].targets:
            if target not in self.modules:
                continue
            names = self.modules[target][0].load_names
            taken = [name for name, bound in ref.names if name in names and bound in used]
            taken += [name for base, name in unit.attributes if base == ref.bound and name in names]
            for name in taken[:1]:
                reason = f"'{name}' comes from {target}; import load from research_jobs"
                self.hidden.append(HiddenLoad(reason, self.shown, ref.line, 1))

    def _module(self, target: str, name: str | None, depth: int = 0) -> str | None:
        """The module that a name in another module refers to; ``None`` if it is not a module."""
        if name is None:
            return target
        if name == "*" or depth > 8:  # modules may import names from each other in a cycle
            return None
        if f"{target}.{name}" in self.modules:
            return f"{target}.{name}"
        if target in self.modules:
            for further, inner in self._bound(target).get(name, ()):
                behind = self._module(further, inner, depth + 1)
                if behind is not None:
                    return behind
        return None

    def _bound(self, module: str) -> dict[str, list[tuple[str, str | None]]]:
        """Local name to the (module, name) pairs that it may refer to."""
        known = self._bindings.get(module)
        if known is None:
            known = self._bindings[module] = {}
            for ref, target in self.modules[module][1].targets:
                if ref.bound is not None:
                    # `import a.b` binds a, and a.b.c is then an attribute of an attribute
                    top = target.partition(".")[0]
                    plain = ref.bound == top and top != target
                    known.setdefault(ref.bound, []).append((top if plain else target, None))
                    if plain:
                        known[ref.bound].append((target, "*"))
                for inner, bound in ref.names:
                    known.setdefault(bound, []).append((target, inner))
        return known


def strongly_connected(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The loops of a graph: sets of nodes that all reach each other.

    Parameters
    ----------
    graph : mapping of str to collection of str
        Node to the nodes that it needs. Names that are not keys, and nodes that need themselves,
        are ignored.

    Returns
    -------
    list of list of str
        Each with at least two nodes; all sorted.
    """
    forward = {name: {o for o in graph[name] if o in graph and o != name} for name in graph}
    backward: dict[str, set[str]] = {name: set() for name in graph}
    for name, needed in forward.items():
        for successor in needed:
            backward[successor].add(name)
    # Nodes that can be ordered from either end are in no loop: usually all of them.
    rest = _unordered(forward) & _unordered(backward)
    loops: list[list[str]] = []
    while rest:
        start = min(rest)
        loop = _reach(start, forward, rest) & _reach(start, backward, rest)
        rest -= loop
        if len(loop) > 1:
            loops.append(sorted(loop))
    return loops


def _unordered(graph: Mapping[str, Collection[str]]) -> set[str]:
    """The nodes in a loop, and those that need one."""
    sorter = TopologicalSorter(graph)
    # After the error the sorter still yields every node that no loop blocks.
    with contextlib.suppress(CycleError):
        sorter.prepare()
    left = set(graph)
    while ready := sorter.get_ready():
        left.difference_update(ready)
        sorter.done(*ready)
    return left


def _reach(start: str, graph: Mapping[str, Collection[str]], within: Collection[str]) -> set[str]:
    reached = {start}
    todo = [start]
    while todo:
        further = {other for other in graph[todo.pop()] if other in within} - reached
        reached |= further
        todo += further
    return reached


def shortest_cycle(start: str, graph: Mapping[str, Iterable[str]]) -> list[str]:
    """A shortest path from a node back to itself, without the end: ``["a", "b"]``.

    Raises
    ------
    ValueError
        When the node is in no loop.
    """
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for successor in graph.get(name, ()):
            if successor == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if successor not in came_from:
                came_from[successor] = name
                queue.append(successor)
    raise ValueError(f"'{start}' is in no loop")
