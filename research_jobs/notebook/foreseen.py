"""What will fail or be left out, as far as the text, the environment and the disk tell."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from research_jobs.notebook.cells import Cell, CellKind, NotebookText, cell_label
from research_jobs.notebook.data_files import FileUse, guarded_lines
from research_jobs.notebook.environment import (
    RequiredImport,
    bound_names,
    distribution_of,
    missing_attribute,
    missing_part,
    module_attributes,
    required_imports,
)
from research_jobs.notebook.interface import parameters_cell, parameters_of
from research_jobs.notebook.local_modules import Resolver
from research_jobs.notebook.parity import ParityFinding
from research_jobs.notebook.parity_rules import silenced
from research_jobs.notebook.removed import removed_names
from research_jobs.notebook.walk import nodes_of

__all__ = ["Surroundings", "foresee", "foresee_imports"]


@dataclass(frozen=True)
class Surroundings:
    """Where a notebook runs.

    Parameters
    ----------
    folder : Path
        Its working directory.
    search : tuple of str
        The project's folders on its import path.
    editor_search : tuple of str
        Those that are on the editor's too.
    located : mapping of str to tuple of str
        The installed modules that it may import, as `environment.locate` returns them.
    written : frozenset of Path
        Files that notebooks write.
    resolver : Resolver
    versions : mapping of str to str or None
        Distributions and their versions; None for those of this interpreter.
    declared : bool
        Whether the notebook says itself what is installed.
    """

    folder: Path
    search: tuple[str, ...]
    editor_search: tuple[str, ...]
    located: Mapping[str, tuple[str, ...]]
    written: frozenset[Path] = frozenset()
    resolver: Resolver = field(default_factory=Resolver)
    versions: Mapping[str, str] | None = None
    declared: bool = False


def foresee(
    text: NotebookText,
    tree: ast.Module,
    origins: Mapping[str, str],
    use: FileUse,
    where: Surroundings,
) -> tuple[ParityFinding, ...]:
    """Find what will fail or be left out.

    Parameters
    ----------
    text : NotebookText
    tree : ast.Module
        Of the text.
    origins : mapping of str to str
        As `dotted_name` takes them.
    use : FileUse
        Of the tree.
    where : Surroundings

    Returns
    -------
    tuple of ParityFinding
        In the order of the lines.
    """
    found = [
        *_imports(tree, where),
        *_files(use, where),
        *_gone(tree, origins, where),
        *_raised(tree),
        *_cells(text),
        *_statements_in_comments(text),
        *_unread_parameters(text, tree),
    ]
    lines = text.text.split("\n")
    kept = {one for one in found if not silenced(lines[one.line - 1], one.code)}
    return tuple(sorted(kept, key=lambda one: (one.line, one.column, one.code)))


def foresee_imports(
    text: NotebookText, tree: ast.Module, where: Surroundings
) -> tuple[ParityFinding, ...]:
    """Find the imports of a helper module that will fail; parameters as for `foresee`."""
    lines = text.text.split("\n")
    return tuple(
        one
        for one in _imports(tree, where)
        if one.level == "error" and not silenced(lines[one.line - 1], one.code)
    )


def _imports(tree: ast.Module, where: Surroundings) -> Iterator[ParityFinding]:
    reported: set[str] = set()
    written = {path.stem for path in where.written if path.suffix == ".py"}
    for required in required_imports(tree):
        top = required.top
        if top in sys.builtin_module_names or top == "research_jobs" or required.module in reported:
            continue
        if where.resolver.holds(top, where.search):
            yield from _editor_import(required, where)
            yield from _local_name(required, where)
            reported.add(required.module)
            continue
        if top in written:
            continue
        if top not in where.located:
            reported.add(required.module)
            yield _at(
                required,
                "missing-module",
                f"'{top}' is not installed for the notebook's interpreter; "
                + (
                    f"add {distribution_of(top)} to its dependencies"
                    if where.declared
                    else f"pip install {distribution_of(top)}"
                ),
                "error",
            )
            continue
        missing = missing_part(required, where.located)
        if missing is not None:
            yield _at(
                required,
                "missing-name",
                f"the installed {missing[1]} has no '{missing[0]}'; the import fails",
                "error",
            )


def _editor_import(required: RequiredImport, where: Surroundings) -> Iterator[ParityFinding]:
    if required.top in where.located or where.resolver.holds(required.top, where.editor_search):
        return
    yield _at(
        required,
        "batch-only-import",
        f"'{required.top}' is found in batch, but the editor starts in the notebook's own folder; "
        "put its folder on the interpreter's path (a .pth file, or PYTHONPATH in .env)",
    )


def _local_name(required: RequiredImport, where: Surroundings) -> Iterator[ParityFinding]:
    """A name that a helper module does not bind."""
    files = where.resolver.find(required.module, where.search)
    known = bound_names(files[-1][1]) if files else None
    if known is None:
        return
    for name in required.names:
        inner = f"{required.module}.{name}"
        if name not in known and where.resolver.find(inner, where.search) is None:
            yield _at(
                required,
                "missing-name",
                f"'{required.module}' has no '{name}'; the import fails",
                "error",
            )


def _files(use: FileUse, where: Surroundings) -> Iterator[ParityFinding]:
    for path in use.missing(where.folder):
        if (where.folder / path.path).absolute() not in where.written:
            yield ParityFinding(
                path.line,
                path.column,
                "missing-file",
                f"'{path.path}' does not exist in {where.folder}",
            )


def _gone(
    tree: ast.Module, origins: Mapping[str, str], where: Surroundings
) -> Iterator[ParityFinding]:
    """Names that libraries no longer have, and attributes that installed modules do not bind."""
    guarded = guarded_lines(tree)
    known: set[tuple[int, int]] = set()
    for found in removed_names(tree, origins, where.versions):
        node = found.node
        if node.lineno not in guarded:
            known.add((node.lineno, node.col_offset))
            message = f"{found.library} no longer has '{found.name}'"
            yield ParityFinding(node.lineno, node.col_offset + 1, "removed-name", message)
    reported: set[tuple[str, str]] = set()
    for node, module, attributes in module_attributes(tree):
        top = module.partition(".")[0]
        place = (node.lineno, node.col_offset)
        if node.lineno in guarded or place in known or where.resolver.holds(top, where.search):
            continue
        missing = missing_attribute(module, attributes, where.located)
        if missing is not None and missing not in reported:
            reported.add(missing)
            message = f"the installed {missing[1]} has no '{missing[0]}'"
            yield ParityFinding(place[0], place[1] + 1, "missing-name", message)


def _raised(tree: ast.Module) -> Iterator[ParityFinding]:
    """Exceptions that every run raises, such as those of `convert` for what it cannot write."""
    for node in tree.body:
        if isinstance(node, ast.Raise) and node.exc is not None:
            text = ast.unparse(node.exc)
            if not text.startswith(("SystemExit", "KeyboardInterrupt")):
                yield ParityFinding(
                    node.lineno,
                    node.col_offset + 1,
                    "always-raises",
                    f"this line ends every run: {text if len(text) < 80 else text[:76] + ' ...'}",
                    "error",
                )


_COMMENTED_CELL = re.compile(r"#[ \t]*%%[ \t]*(\w+)")
_NOT_OTHER = frozenset({"time", "timeit", "capture", "prun", "memit", "lprun", "mprun", "debug"})


def _cells(text: NotebookText) -> Iterator[ParityFinding]:
    for cell in text.cells:
        line = cell.marker_line or cell.first_line
        if cell.kind is CellKind.CODE:
            yield from _commented_cell(cell)
        if cell.title and re.search(r"\btags\s*[=:]|^\{|\{\s*\"", cell.title):
            yield ParityFinding(
                line,
                1,
                "marker-metadata",
                f"the metadata of {cell_label(cell)} do not parse, so they are its title; "
                'write # %% tags=["parameters"]',
            )


def _commented_cell(cell: Cell) -> Iterator[ParityFinding]:
    lines = [
        (number, line)
        for number, line in enumerate(cell.source.split("\n"), cell.first_line)
        if line.strip()
    ]
    match = _COMMENTED_CELL.match(lines[0][1]) if lines else None
    if match is None or match[1] in _NOT_OTHER:
        return
    if all(line.startswith("#") for _, line in lines):
        yield ParityFinding(
            lines[0][0],
            1,
            "other-language",
            f"cell {cell.number} is %%{match[1]} and does not run in batch; write it in Python "
            "(subprocess.run, Path.write_text)",
        )


_COMMENTED = re.compile(
    r"^[ \t]*#[ \t]*(?:%(?:time|prun|memit|lprun)[ \t]+(?P<timed>\w[\w., \[\]'\"]*=(?!=).*)"
    r"|(?P<assigned>\w[\w., ]*=[ \t]*[%!]\w.*))$"
)


def _statements_in_comments(text: NotebookText) -> Iterator[ParityFinding]:
    """Assignments that a conversion took for a magic and commented out."""
    if "#" not in text.text or ("%" not in text.text and "!" not in text.text):
        return
    code = [cell for cell in text.cells if cell.kind is CellKind.CODE]
    for cell in code:
        for number, line in enumerate(cell.source.split("\n"), cell.first_line):
            match = _COMMENTED.match(line)
            if match is not None:
                what = (match["timed"] or match["assigned"]).strip()
                yield ParityFinding(
                    number,
                    line.index("#") + 1,
                    "commented-magic",
                    f"'{what}' is in a comment and does not run in batch; write it in Python",
                )


def _unread_parameters(text: NotebookText, tree: ast.Module) -> Iterator[ParityFinding]:
    first = parameters_cell(text.cells)
    if first is None:
        return
    read: set[str] = set()
    strings: list[str] = []
    for node in nodes_of(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            read.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
        elif isinstance(node, ast.Attribute):
            read.add(node.attr)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            read.add(node.target.id)
    if read & {"globals", "locals", "vars", "exec", "eval"}:
        return
    words = set(re.findall(r"\w+", " ".join(strings)))
    for parameter in parameters_of(text, tree, first):
        if parameter.name not in read | words:
            yield ParityFinding(
                parameter.line,
                parameter.column,
                "unread-parameter",
                f"no cell reads the parameter '{parameter.name}', so its value changes nothing",
            )


def _at(required: RequiredImport, code: str, message: str, level: str = "warning") -> ParityFinding:
    return ParityFinding(required.line, required.column, code, message, level)
