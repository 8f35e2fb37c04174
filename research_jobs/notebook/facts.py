"""What is remembered of one file between two scans: read once, kept as JSON."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from research_jobs.notebook.cells import NotebookText
from research_jobs.notebook.interface import (
    ImportRef,
    LoadCall,
    Parameter,
    assigned_names,
    description_of,
    import_refs,
    load_calls,
    parameters_cell,
    parameters_of,
    type_checking_lines,
)
from research_jobs.notebook.source import parse_source
from research_jobs.notebook.walk import Digest, Walk

__all__ = ["FileFacts", "Unit", "read_facts"]


@dataclass(frozen=True)
class Unit:
    """A part of a module that runs as one: its top level, or one function or class.

    Parameters
    ----------
    name : str or None
        The function or class; ``None`` for what runs when the module is imported.
    uses : tuple of str
        Names in it that the module imports or defines.
    attributes : tuple of (str, str)
        ``helper.prices`` as ``("helper", "prices")``.
    loads : tuple of LoadCall
    """

    name: str | None
    uses: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    loads: tuple[LoadCall, ...]


@dataclass(frozen=True)
class FileFacts:
    """One parsed file.

    Parameters
    ----------
    digest : str
        Of its syntax tree.
    imports : tuple of ImportRef
    units : tuple of Unit
        One for a notebook, which runs as a whole.
    description, parameters, parameters_cell, assigned
        As in `Interface`; empty for a helper module.
    """

    digest: str
    imports: tuple[ImportRef, ...]
    units: tuple[Unit, ...]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    parameters_cell: int | None = None
    assigned: Mapping[str, int] | None = None


def read_facts(text: NotebookText, *, notebook: bool, shown: str) -> FileFacts:
    """Parse a file and keep what a scan needs.

    Parameters
    ----------
    text : NotebookText
    notebook : bool
        Whether it is a notebook rather than a helper module.
    shown : str
        The file as a person should see it.

    Raises
    ------
    NotebookSyntaxError
        When it does not parse.
    """
    tree = parse_source(text)
    digest = Digest()
    if notebook:
        walks: list[tuple[str | None, Walk]] = [(None, digest.add(tree))]
    else:
        walks = [
            (
                statement.name
                if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                else None,
                digest.add(statement),
            )
            for statement in tree.body
        ]
    skip = type_checking_lines(tree)
    refs = tuple(ref for _, found in walks for ref in import_refs(found, skip=skip))
    known = {name for name, _ in walks if name}
    for ref in refs:
        known.update(bound for _, bound in ref.names)
        if ref.bound:
            known.add(ref.bound)
    units = _units(walks, refs, known, shown)
    if not notebook:
        return FileFacts(digest.hexdigest(), refs, units)
    cell = parameters_cell(text.cells)
    return FileFacts(
        digest.hexdigest(),
        refs,
        units,
        description=description_of(text, tree),
        parameters=parameters_of(text, tree, cell),
        parameters_cell=cell.number if cell else None,
        assigned=assigned_names(tree, walks[0][1], walrus=":=" in text.text),
    )


def _units(
    walks: Iterable[tuple[str | None, Walk]],
    refs: tuple[ImportRef, ...],
    known: set[str],
    shown: str,
) -> tuple[Unit, ...]:
    units: list[Unit] = []
    for name, found in walks:
        uses = found.names & known
        attributes = {pair for pair in found.attributes if pair[0] in known}
        loads = load_calls((found,), refs, shown)
        if uses or attributes or loads or name:
            units.append(Unit(name, tuple(sorted(uses)), tuple(sorted(attributes)), loads))
    return tuple(units)


# `dataclasses.astuple` copies every value deeply, and takes as long as parsing the file.
_PARAMETER_FIELDS = tuple(field.name for field in dataclasses.fields(Parameter))


# --- as JSON -----------------------------------------------------------------------------------


def facts_to_json(facts: FileFacts) -> list[Any]:
    """Facts as JSON lists: a thousand of them are read in a few milliseconds."""
    return [
        facts.digest,
        [[r.module, r.level, r.names, r.bound, r.line] for r in facts.imports],
        [[u.name, u.uses, u.attributes, [_load(c) for c in u.loads]] for u in facts.units],
        facts.description,
        [[getattr(p, name) for name in _PARAMETER_FIELDS] for p in facts.parameters],
        facts.parameters_cell,
        facts.assigned,
    ]


def _load(call: LoadCall) -> list[Any]:
    return [call.notebook, call.output, call.path, call.line, call.column]


def facts_from_json(value: list[Any]) -> FileFacts:
    """The inverse; raises what indexing and unpacking raise when the shape is another."""
    digest, imports, units, description, parameters, cell, assigned = value
    return FileFacts(
        digest,
        tuple(
            ImportRef(module, level, tuple((a, b) for a, b in names), bound, line)
            for module, level, names, bound, line in imports
        ),
        tuple(
            Unit(
                name,
                tuple(uses),
                tuple((a, b) for a, b in attributes),
                tuple(LoadCall(*call) for call in loads),
            )
            for name, uses, attributes, loads in units
        ),
        description,
        tuple(_parameter(row) for row in parameters),
        cell,
        assigned,
    )


def _parameter(row: list[Any]) -> Parameter:
    row[6], row[10] = tuple(row[6]), tuple(row[10])  # the choices and their values
    return Parameter(*row)
