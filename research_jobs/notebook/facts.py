"""The facts about one file that the cache keeps, as JSON."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from research_jobs.notebook.assigned import assigned_names
from research_jobs.notebook.cells import NotebookText
from research_jobs.notebook.interface import (
    ImportRef,
    Parameter,
    description_of,
    import_refs,
    parameters_cell,
    parameters_of,
    type_checking_lines,
)
from research_jobs.notebook.loads import HiddenLoad, LoadCall, Loads, find_loads
from research_jobs.notebook.script_metadata import ScriptMetadata, Written, read_script_metadata
from research_jobs.notebook.source import parse_source
from research_jobs.notebook.walk import Digest, Walk

__all__ = ["FileFacts", "Unit", "read_facts"]


@dataclass(frozen=True)
class Unit:
    """A part of a module that runs as a whole: its top level, or one function or class.

    Parameters
    ----------
    name : str or None
        The function or class; ``None`` for the code that runs on import.
    uses : tuple of str
        Names in it that the module imports or defines.
    attributes : tuple of (str, str)
        ``helper.prices`` as ``("helper", "prices")``.
    loads : tuple of LoadCall
    hidden : tuple of HiddenLoad
    """

    name: str | None
    uses: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    loads: tuple[LoadCall, ...]
    hidden: tuple[HiddenLoad, ...] = ()


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
        As in `ScannedNotebook`; empty for a helper module.
    load_names : tuple of str
        Names in a helper module that are `load` itself.
    script : ScriptMetadata or None
        What a notebook's ``# /// script`` block asks for.
    """

    digest: str
    imports: tuple[ImportRef, ...]
    units: tuple[Unit, ...]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    parameters_cell: int | None = None
    assigned: Mapping[str, int] | None = None
    load_names: tuple[str, ...] = ()
    script: ScriptMetadata | None = None

    @property
    def reads_outputs(self) -> bool:
        """bool: whether the file itself calls `load`, or may."""
        return any(unit.loads or unit.hidden for unit in self.units)


def read_facts(text: NotebookText, *, notebook: bool, shown: str) -> FileFacts:
    """Parse a file and extract what a scan needs.

    Parameters
    ----------
    text : NotebookText
    notebook : bool
        Whether it is a notebook rather than a helper module.
    shown : str
        The file's name in messages.

    Raises
    ------
    NotebookSyntaxError
        When it does not parse.
    DependencyError
        When its script metadata cannot be read.
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
    refs = tuple(ref for _, walked in walks for ref in import_refs(walked, skip=skip))
    known = {name for name, _ in walks if name}
    for ref in refs:
        known.update(bound for _, bound in ref.names)
        if ref.bound:
            known.add(ref.bound)
    cell = parameters_cell(text.cells) if notebook else None
    parameters = parameters_of(text, tree, cell)
    loads = find_loads(
        tree,
        [call for _, walked in walks for call in walked.calls],
        refs,
        text=text.text,
        path=shown,
        parameters=[parameter.name for parameter in parameters],
    )
    if not notebook:
        units = _units(zip(tree.body, walks, strict=True), known, loads)
        return FileFacts(digest.hexdigest(), refs, units, load_names=loads.names)
    return FileFacts(
        digest.hexdigest(),
        refs,
        (_unit(None, walks[0][1], known, loads),),
        description=description_of(text, tree),
        parameters=parameters,
        parameters_cell=cell.number if cell else None,
        assigned=assigned_names(tree, walks[0][1], walrus=":=" in text.text),
        script=read_script_metadata(text.text, shown),
    )


def _units(
    statements: Iterable[tuple[ast.stmt, tuple[str | None, Walk]]], known: set[str], loads: Loads
) -> tuple[Unit, ...]:
    units: list[Unit] = []
    for statement, (name, walked) in statements:
        mine = loads
        if loads.calls or loads.hidden:
            decorators = getattr(statement, "decorator_list", ())
            first = min([statement.lineno, *(node.lineno for node in decorators)])
            mine = loads.within(first, statement.end_lineno or statement.lineno)
        unit = _unit(name, walked, known, mine)
        if unit.uses or unit.attributes or unit.loads or unit.hidden or name:
            units.append(unit)
    return tuple(units)


def _unit(name: str | None, walked: Walk, known: set[str], loads: Loads) -> Unit:
    return Unit(
        name,
        tuple(sorted(walked.names & known)),
        tuple(sorted(pair for pair in walked.attributes if pair[0] in known)),
        loads.calls,
        loads.hidden,
    )


# --- as JSON -----------------------------------------------------------------------------------


_RECORDS = (
    *(FileFacts, ImportRef, Unit, LoadCall, HiddenLoad, Parameter),
    *(ScriptMetadata, Written),
)
_FIELDS = {record: [field.name for field in dataclasses.fields(record)] for record in _RECORDS}


def as_row(record: Any) -> list[Any]:
    """A record's values, as `json.dumps` takes it: of lists a thousand files load in milliseconds.

    `dataclasses.astuple` copies every value deeply, which takes as long as parsing the file.
    """
    return [getattr(record, name) for name in _FIELDS[type(record)]]


def facts_from_json(value: list[Any]) -> FileFacts:
    """The inverse; raises what indexing and unpacking raise when the shape is another."""
    digest, imports, units, description, parameters, cell, assigned, load_names, script = value
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
                tuple(HiddenLoad(*load) for load in hidden),
            )
            for name, uses, attributes, loads, hidden in units
        ),
        description,
        tuple(_parameter(row) for row in parameters),
        cell,
        assigned,
        tuple(load_names),
        _script(script),
    )


def _script(row: list[Any] | None) -> ScriptMetadata | None:
    if row is None:
        return None
    line, dependencies, python = row
    return ScriptMetadata(
        line,
        tuple(Written(*each) for each in dependencies),
        Written(*python) if python is not None else None,
    )


def _parameter(row: list[Any]) -> Parameter:
    row[6], row[10] = tuple(row[6]), tuple(row[10])  # the choices and their values
    return Parameter(*row)
