"""What a notebook does differently in the editor and in batch, reported before it runs.

Only the text is read, so nearly every finding is a hint. A comment ``# parity: ignore`` (or
``# parity: ignore[input-call, chdir]``) on a line silences it.
"""

from __future__ import annotations

import ast
import bisect
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from research_jobs.errors import NotebookSyntaxError
from research_jobs.notebook.assigned import assigned_names
from research_jobs.notebook.cells import Cell, CellKind, NotebookText, cell_at, cell_label
from research_jobs.notebook.interface import (
    PARAMETERS_TAG,
    ImportRef,
    import_refs,
    package_of,
    parameters_cell,
    parameters_of,
)
from research_jobs.notebook.interface import absolute as absolute_name
from research_jobs.notebook.loads import find_loads
from research_jobs.notebook.markers import lines_like_markers
from research_jobs.notebook.parity_rules import APPS, CALLS, READS, SERVES, silenced
from research_jobs.notebook.source import parse_source
from research_jobs.notebook.undefined import KERNEL_NAMES, UndefinedName, undefined_names
from research_jobs.notebook.walk import dotted_name, nodes_of, walk
from research_jobs.project import notebook_name

__all__ = ["ParityFinding", "check_parity"]


@dataclass(frozen=True)
class ParityFinding:
    """One difference between the editor and batch.

    Parameters
    ----------
    line, column : int
        1-based.
    code : str
        One of those in ``codes.toml``.
    message : str
        One line: what differs, and what to do.
    level : {"warning", "error"}
        ``error`` for what fails in batch too.
    """

    line: int
    column: int
    code: str
    message: str
    level: str = "warning"


def check_parity(
    text: NotebookText,
    *,
    notebook: str | None = None,
    notebooks: Collection[str] = (),
    undefined: Iterable[UndefinedName] | None = None,
    tree: ast.Module | None = None,
) -> tuple[ParityFinding, ...]:
    """Find what behaves differently in the editor and in batch.

    Parameters
    ----------
    text : NotebookText
    notebook : str, optional
        Its name; by default that of its path.
    notebooks : collection of str
        Names of all notebooks, to tell an import of one from an import of a helper.
    undefined : iterable of UndefinedName, optional
        What `undefined_names` says of the text; without it ruff is asked here.
    tree : ast.Module, optional
        Of the text, where the caller has parsed it.

    Returns
    -------
    tuple of ParityFinding
        In the order of the lines.
    """
    try:
        tree = tree or parse_source(text)
    except NotebookSyntaxError as error:
        where = error.where
        hint = f". {error.hint}" if error.hint else ""
        line, column = (where.line or 1, where.column or 1) if where else (1, 1)
        return (ParityFinding(line, column, "syntax", f"{error.what}{hint}", "error"),)
    if notebook is None:
        package = package_of(text.path)
        notebook = ".".join([*([package] if package else []), text.path.stem])
    if undefined is None:
        (undefined,) = undefined_names([text.text])
    check = _Check(
        text, tree, notebook_name(notebook), {notebook_name(n) for n in notebooks}, undefined
    )
    lines = text.text.split("\n")
    findings = {f for f in check.run() if not silenced(lines[f.line - 1], f.code)}
    return tuple(sorted(findings, key=lambda f: (f.line, f.column, f.code)))


class _Check:
    def __init__(
        self,
        text: NotebookText,
        tree: ast.Module,
        notebook: str,
        notebooks: set[str],
        undefined: Iterable[UndefinedName],
    ) -> None:
        self.text = text
        self.tree = tree
        self.notebook = notebook
        self.notebooks = notebooks
        self.undefined = undefined
        self.walked = walk(tree)
        self.refs = import_refs(self.walked)
        self.origins: dict[str, str] = {}
        for ref in self.refs:
            if ref.bound is not None:
                top = ref.module.partition(".")[0]
                self.origins[ref.bound] = top if ref.bound == top else ref.module
            for name, bound in ref.names:
                self.origins[bound] = f"{ref.module}.{name}"
        self.assigned = assigned_names(tree, self.walked)

    def run(self) -> Iterator[ParityFinding]:
        yield from self.calls()
        yield from self.names()
        yield from self.statements()
        yield from self.imports()
        yield from self.cells()
        yield from self.parameters()
        yield from self.order()

    def at(self, node: ast.expr | ast.stmt, code: str, message: str) -> ParityFinding:
        return ParityFinding(node.lineno, node.col_offset + 1, code, message)

    def on(self, line: int, code: str, message: str, level: str = "warning") -> ParityFinding:
        return ParityFinding(line, 1, code, message, level)

    def dotted(self, node: ast.expr) -> str:
        return dotted_name(node, self.origins)

    def calls(self) -> Iterator[ParityFinding]:
        for call in self.walked.calls:
            name = self.dotted(call.func)
            if name in CALLS and name not in self.assigned:
                yield self.at(call, *CALLS[name])
            yield from self.serving(call, name)
            if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call):
                inner = self.dotted(call.func.value.func)
                if inner.rpartition(".")[2] == "get_ipython":
                    yield self.at(
                        call,
                        "kernel-call",
                        f"get_ipython().{call.func.attr}() needs a kernel, and batch has none; "
                        "write it in Python",
                    )
            yield from self.paths(call, name)
        first = parameters_cell(self.text.cells)
        loads = find_loads(
            self.tree,
            self.walked.calls,
            self.refs,
            text=self.text.text,
            path=str(self.text.path),
            parameters=[p.name for p in parameters_of(self.text, self.tree, first)],
        )
        for hidden in loads.hidden:
            yield ParityFinding(hidden.line, hidden.column, "hidden-load", hidden.message)
        for load in loads.calls:
            if load.notebook == self.notebook:
                yield ParityFinding(
                    load.line,
                    load.column,
                    "loads-itself",
                    "load() of the notebook's own output finds nothing before the first run "
                    "and is not a dependency",
                )

    def serving(self, call: ast.Call, name: str) -> Iterator[ParityFinding]:
        base, _, last = name.rpartition(".")
        app = base.rpartition(".")[2] in APPS
        if base and ((last in SERVES and last != "launch") or (last in ("run", "launch") and app)):
            yield self.at(
                call,
                "blocking-call",
                f"{last}() blocks until it is stopped, so the run never ends; "
                "keep servers out of notebooks",
            )

    def paths(self, call: ast.Call, name: str) -> Iterator[ParityFinding]:
        last = name.rpartition(".")[2] or (
            call.func.attr if isinstance(call.func, ast.Attribute) else ""
        )
        if not READS.match(last) or not call.args:
            return
        value = call.args[0]
        if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
            return
        path = value.value
        if re.match(r"\.\.(?:[/\\]|$)", path):
            yield self.at(
                value,
                "outside-path",
                f"'{path}' depends on the working directory; "
                "build it from Path(__file__).parent, or make it an output and load() it",
            )
        elif re.match(r"(?:/home/|/Users/|~|[A-Za-z]:[\\/])", path):
            yield self.at(
                value,
                "home-path",
                f"'{path}' is a path on one person's machine; make it a parameter or put "
                "the file next to the notebook",
            )

    def names(self) -> Iterator[ParityFinding]:
        for node in nodes_of(self.tree):
            if (
                isinstance(node, (ast.Attribute, ast.Name))
                and isinstance(node.ctx, ast.Load)
                and self.dotted(node) == "sys.argv"
            ):
                yield self.at(
                    node, "sys-argv", "sys.argv is not the notebook's own in batch; use parameters"
                )
            elif (
                isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Load)
                and node.id in KERNEL_NAMES
                and node.id not in self.assigned
                and not self.is_local(node.id)
            ):
                yield self.at(
                    node, "kernel-name", f"'{node.id}' is filled only by the editor's kernel"
                )

    def is_local(self, name: str) -> bool:
        """Whether any function or loop of the file binds a name (`for _ in ...`, gettext's `_`)."""
        return any(
            isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
            for node in nodes_of(self.tree)
        ) or any(isinstance(node, ast.arg) and node.arg == name for node in nodes_of(self.tree))

    def statements(self) -> Iterator[ParityFinding]:
        for node in nodes_of(self.tree):
            if (
                isinstance(node, ast.If)
                and isinstance(node.test, ast.Compare)
                and isinstance(node.test.left, ast.Name)
                and node.test.left.id == "__name__"
            ):
                yield self.at(
                    node,
                    "main-guard",
                    "__name__ is '__main__' in the editor and "
                    f"'{self.notebook.replace('/', '.')}' in batch, where this does not run; "
                    "take it out of the if",
                )

    def imports(self) -> Iterator[ParityFinding]:
        package = package_of(self.text.path)
        # An import by a call (`__import__("x")`) has a star in its ref, and binds no names.
        stars = {
            node.lineno
            for node in self.walked.imports
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        }
        for ref in self.refs:
            if ref.level:
                yield self.relative_import(ref, package)
            module = absolute_name(ref, package)
            if ref.line in stars and ref.names == (("*", "*"),):
                yield self.on(
                    ref.line,
                    "star-import",
                    f"the names that * imports from {module or 'it'} are not in the text, "
                    "and outputs may be among them; import by name",
                )
            candidates = {module, *(f"{module}.{name}" for name, _ in ref.names)}
            for candidate in sorted(candidates):
                name = notebook_name(candidate)
                if name in self.notebooks and name != self.notebook:
                    yield self.on(
                        ref.line,
                        "imports-notebook",
                        f"importing {candidate} runs that notebook again; "
                        f'read its outputs with load("{name}", ...)',
                    )
        top = self.notebook.partition("/")[0]
        if top in sys.stdlib_module_names:
            yield self.on(
                1,
                "hides-module",
                f"'{top}' is a standard library module, which other code in the same "
                "process can then no longer import; rename the notebook",
            )

    def relative_import(self, ref: ImportRef, package: str) -> ParityFinding:
        if ref.level <= len(package.split(".") if package else ()):
            message = (
                "a relative import works in batch but not in the editor; "
                "write the module's full name"
            )
            return self.on(ref.line, "relative-import", message)
        where = f"the package '{package}'" if package else "no package"
        message = (
            f"'{'.' * ref.level}{ref.module}' points outside {where}: the import fails in the "
            "editor and in batch; write the module's full name"
            if package
            else "a notebook at the top of notebooks/ is not in a package: a relative import "
            "fails in the editor and in batch; write the module's full name"
        )
        level = "error" if ref.line in _always_run(self.tree.body) else "warning"
        return self.on(ref.line, "relative-import", message, level)

    def cells(self) -> Iterator[ParityFinding]:
        previous: Cell | None = None
        for cell in self.text.cells:
            if cell.metadata.get("magic"):
                yield self.on(
                    cell.first_line,
                    "other-language",
                    f"{cell_label(cell)} is %{cell.metadata['magic']} and does not run in batch",
                )
            if (
                cell.kind is CellKind.CODE
                and cell.marker_line is None
                and previous is not None
                and previous.marker_line is not None
                and not previous.metadata.get("gallery")
                and not previous.metadata.get("magic")
                and self.runs(cell)
            ):
                yield self.on(
                    cell.first_line,
                    "code-in-prose",
                    f"the editor shows the code below {cell_label(previous)} as text, "
                    "batch runs it; put a marker '# %%' above it",
                )
            previous = cell
        yield from self.split()

    def split(self) -> Iterator[ParityFinding]:
        """Markers inside a statement, and lines of a string that the editor takes for one."""
        markers = sorted({cell.marker_line for cell in self.text.cells if cell.marker_line})
        for statement in self.tree.body:
            decorators = getattr(statement, "decorator_list", ())
            first = min([statement.lineno, *(node.lineno for node in decorators)])
            end = statement.end_lineno or statement.lineno
            for line in markers[bisect.bisect_right(markers, first) :]:
                if line >= end:
                    break
                yield self.on(
                    line,
                    "split-statement",
                    "this marker is inside a statement: the editor runs half of it, "
                    "batch all of it",
                )
        for line in lines_like_markers(self.text.text):
            yield self.on(
                line,
                "split-statement",
                "the editor takes this line of a string for a marker and runs half of the "
                "statement, batch all of it; indent the line",
            )

    def runs(self, cell: Cell) -> bool:
        return any(cell.first_line <= s.lineno <= cell.last_line for s in self.tree.body)

    def parameters(self) -> Iterator[ParityFinding]:
        first = parameters_cell(self.text.cells)
        for cell in self.text.cells:
            line = cell.marker_line or cell.first_line
            if cell.kind is not CellKind.CODE or cell is first:
                continue
            if PARAMETERS_TAG in cell.tags:
                yield self.on(
                    line,
                    "second-parameters",
                    f"{cell_label(cell)} is tagged parameters too; only the first such cell counts",
                )
            elif first is None and (cell.title or "").strip().lower() in (
                "parameters",
                "params",
            ):
                yield self.on(
                    line,
                    "untagged-parameters",
                    f"{cell_label(cell)} sets no parameters in batch without a tag; "
                    'write # %% tags=["parameters"]',
                )
        if first is None:
            return
        names = {p.name: p.line for p in parameters_of(self.text, self.tree, first)}
        for statement in self.tree.body:
            if statement.lineno <= first.last_line or not isinstance(
                statement, (ast.Assign, ast.AnnAssign)
            ):
                continue
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if (
                    isinstance(target, ast.Name)
                    and target.id in names
                    and statement.value is not None
                    and target.id not in _names_in(statement.value)
                ):
                    yield self.at(
                        statement,
                        "parameter-lost",
                        f"'{target.id}' is a parameter (line {names[target.id]}); assigning it "
                        "again undoes the value given in batch",
                    )

    def order(self) -> Iterator[ParityFinding]:
        """Names used before they are assigned, or never assigned."""
        # A name that a function declares global is bound whenever the function is called.
        known = {name for node in self.walked.globals for name in node.names}
        uses = {
            (node.lineno, node.col_offset): node
            for node in nodes_of(self.tree)
            if isinstance(node, ast.Name)
        }
        lines = self.text.text.split("\n")
        for use in self.undefined:
            node = uses.get((use.line, len(lines[use.line - 1][: use.column - 1].encode())))
            # a name in a quoted annotation is never looked up; one that the statement itself
            # binds may be bound by an earlier turn of a loop
            if node is None or use.name in known or use.name in self.bound_by(use.line):
                continue
            known.add(use.name)
            yield self.unbound(node, use.name)

    def bound_by(self, line: int) -> Collection[str]:
        """The names that the top-level loop around a line binds."""
        for statement in self.tree.body:
            if isinstance(statement, (ast.For, ast.AsyncFor, ast.While)) and (
                statement.lineno <= line <= (statement.end_lineno or line)
            ):
                return assigned_names(ast.Module([statement], []))
        return ()

    def unbound(self, node: ast.Name, name: str) -> ParityFinding:
        later = self.assigned.get(name)
        if later is not None and later < node.lineno:
            return self.at(
                node, "undefined-name", f"'{name}' no longer exists here: it was deleted"
            )
        if later is None:
            return self.at(
                node,
                "undefined-name",
                f"nothing in the file assigns '{name}': it is left in the editor's memory "
                "by a deleted cell",
            )
        cell = cell_at(self.text.cells, later)
        place = f"{cell_label(cell)}, line {later}" if cell else f"line {later}"
        return self.at(
            node,
            "used-before-assigned",
            f"'{name}' is only assigned further down ({place}): it works in the editor when cells "
            "are run out of order; move that cell up",
        )


def _always_run(body: Iterable[ast.stmt]) -> set[int]:
    """Lines of statements that run on every import, and whose errors nothing catches."""
    lines: set[int] = set()
    for statement in body:
        lines.add(statement.lineno)
        if isinstance(statement, (ast.With, ast.ClassDef)):
            lines |= _always_run(statement.body)
    return lines


def _names_in(node: ast.expr) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
