"""What a notebook reads: its own `load` calls, those of its helpers, and circles among notebooks.

A helper module often holds one reading function for each notebook. Only the functions that a
notebook can reach count, or every notebook would depend on everything that any of them reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from research_jobs.errors import DependencyCycleError, SourceLocation
from research_jobs.notebook.facts import FileFacts, Unit
from research_jobs.notebook.interface import LoadCall
from research_jobs.notebook.local_modules import Imported

__all__ = ["find_cycle", "raise_cycle", "reached_loads"]

_START = ""


def reached_loads(
    start: tuple[FileFacts, Imported], modules: Mapping[str, tuple[FileFacts, Imported]]
) -> tuple[LoadCall, ...]:
    """The `load` calls that running a notebook can come to.

    Parameters
    ----------
    start : (FileFacts, Imported)
        The notebook.
    modules : mapping of str to (FileFacts, Imported)
        Every local module that it imports, directly or not.

    Returns
    -------
    tuple of LoadCall
        The notebook's own first.
    """
    reach = _Reach({_START: start, **modules})
    own = [call for unit in start[0].units for call in unit.loads]
    if not any(unit.loads for facts, _ in modules.values() for unit in facts.units):
        return tuple(own)
    for name in [_START, *modules]:
        reach.top_level(name)
    found = [call for call in reach.loads if call not in own]
    return (*own, *sorted(found, key=lambda call: (call.path, call.line, call.column)))


class _Reach:
    """Which units of which modules are reached; errs on the side of reaching too many."""

    def __init__(self, modules: Mapping[str, tuple[FileFacts, Imported]]) -> None:
        self.modules = modules
        self.loads: list[LoadCall] = []
        self._bindings: dict[str, dict[str, list[tuple[str, str | None]]]] = {}
        self._seen: set[tuple[str, str | None]] = set()

    def top_level(self, module: str) -> None:
        self._reach([(module, None)])

    def _reach(self, todo: list[tuple[str, str | None]]) -> None:
        """Follow (module, name) pairs; ``None`` stands for what an import runs, ``*`` for all."""
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
                todo += self._uses(module, unit)
            if name is None:
                # what a star brings in is not told apart: take all of it
                todo += self._bound(module).get("*", ())
            elif not units:
                # a name that the module has from elsewhere, or one of its submodules; a module
                # had from elsewhere may be used in any way
                todo += [(target, i or "*") for target, i in self._bound(module).get(name, ())]
                todo += [
                    (target, name) for ref, target in imported.targets if ("*", "*") in ref.names
                ]
                todo.append((f"{module}.{name}", "*"))

    def _uses(self, module: str, unit: Unit) -> Iterator[tuple[str, str | None]]:
        bound = self._bound(module)
        defined = {other.name for other in self.modules[module][0].units if other.name}
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

    def _module(self, target: str, name: str | None, depth: int = 0) -> str | None:
        """The module that a name in another module stands for; ``None`` when it is none."""
        if name is None:
            return target
        if name == "*" or depth > 8:  # modules may pass names around in a circle
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
        """Local name to the (module, name) pairs that it may stand for."""
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


def find_cycle(dependencies: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """A circle among dependencies.

    Parameters
    ----------
    dependencies : mapping of str to iterable of str
        Notebook to the notebooks that it reads. Names that are no key are ignored.

    Returns
    -------
    tuple of str or None
        The loop in reading order with its start repeated at the end, beginning with the name
        that sorts first: ``("a", "b", "a")``. The same for the same input.
    """
    done: set[str] = set()
    for start in sorted(dependencies):
        if start in done:
            continue
        path: list[str] = []
        on_path: dict[str, int] = {}
        stack: list[tuple[str, list[str]]] = [(start, _sorted(dependencies, start))]
        path.append(start)
        on_path[start] = 0
        while stack:
            name, rest = stack[-1]
            if not rest:
                stack.pop()
                path.pop()
                del on_path[name]
                done.add(name)
                continue
            following = rest.pop()
            if following in on_path:
                loop = path[on_path[following] :]
                first = loop.index(min(loop))
                loop = loop[first:] + loop[:first]
                return (*loop, loop[0])
            if following not in done:
                on_path[following] = len(path)
                path.append(following)
                stack.append((following, _sorted(dependencies, following)))
    return None


def _sorted(dependencies: Mapping[str, Iterable[str]], name: str) -> list[str]:
    return sorted({d for d in dependencies[name] if d in dependencies}, reverse=True)


def raise_cycle(cycle: tuple[str, ...], loads: Mapping[str, Iterable[LoadCall]]) -> NoReturn:
    """Raise the error that shows a loop.

    Parameters
    ----------
    cycle : tuple of str
        From `find_cycle`.
    loads : mapping of str to iterable of LoadCall
        The calls of each notebook in it, for the lines to look at.

    Raises
    ------
    DependencyCycleError
        Always.
    """
    raise cycle_error(cycle, loads)


def cycle_error(
    cycle: tuple[str, ...], loads: Mapping[str, Iterable[LoadCall]]
) -> DependencyCycleError:
    """The error of `raise_cycle`, for those who collect errors."""
    steps: list[str] = []
    where: SourceLocation | None = None
    for reader, read in itertools.pairwise(cycle):
        call = next((c for c in loads.get(reader, ()) if c.notebook == read), None)
        if call is None:
            steps.append(f"  {reader} waits for {read}")
            continue
        location = SourceLocation(call.path, call.line, call.column)
        where = where or location
        steps.append(f"  {reader} loads {read} at {location}")
    if len(set(cycle)) == 1:
        what = f"{cycle[0]} depends on itself"
    else:
        what = f"notebooks depend on each other in a circle: {' -> '.join(cycle)}"
    return DependencyCycleError(
        what,
        where=where,
        hint="Move what both need into a notebook of its own, and load that.",
        details="\n".join(steps),
    )
