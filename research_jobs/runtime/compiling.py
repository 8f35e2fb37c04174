"""A notebook's cells as code: one parse of the file, compiled cell by cell.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import CodeType

from research_jobs.notebook.cells import Cell, CellKind, NotebookText

__all__ = ["CompiledCell", "CompiledNotebook", "awaits", "compile_notebook"]

_ALLOW_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_COROUTINE = 0x80 | 0x200  # inspect.CO_COROUTINE | CO_ASYNC_GENERATOR, without importing inspect


@dataclass(frozen=True)
class CompiledCell:
    """One code cell, ready to run.

    Parameters
    ----------
    cell : Cell
    body : CodeType or None
        Its statements, without the last if that is shown.
    shown : CodeType or None
        The bare last expression, whose value is shown.
    assigned : tuple of str
        Names that plain assignments at its top level give a value.
    """

    cell: Cell
    body: CodeType | None
    shown: CodeType | None
    assigned: tuple[str, ...]

    @property
    def awaits(self) -> bool:
        """bool: whether it awaits at the top level."""
        return any(code is not None and awaits(code) for code in (self.body, self.shown))


@dataclass(frozen=True)
class CompiledNotebook:
    """A whole notebook, ready to run.

    Parameters
    ----------
    docstring : CodeType or None
        Sets ``__doc__``, as the first statement of a module does.
    cells : tuple of CompiledCell
    """

    docstring: CodeType | None
    cells: tuple[CompiledCell, ...]


def awaits(code: CodeType) -> bool:
    """Whether a piece of a cell evaluates to something to await."""
    return bool(code.co_flags & _COROUTINE)


def compile_notebook(text: NotebookText) -> CompiledNotebook:
    """All code cells of a notebook, compiled: one parse, the file's own line numbers.

    Raises
    ------
    SyntaxError
        As a plain import would raise it, before any cell runs.
    """
    filename = str(text.path)
    try:
        tree = compile(
            text.text, filename, "exec", ast.PyCF_ONLY_AST | _ALLOW_AWAIT, dont_inherit=True
        )
    except SyntaxError as error:
        _explain_magic(error, text)
        raise
    # The docstring is the module's description, wherever it is.
    docstring: CodeType | None = None
    statements = tree.body
    if statements and _is_text(statements[0]):
        docstring = compile(
            ast.Module(body=statements[:1], type_ignores=[]), filename, "exec", dont_inherit=True
        )
    by_cell = _by_cell(text.cells, statements)
    lines = text.text.split("\n")
    compiled: list[CompiledCell] = []
    flags = _ALLOW_AWAIT
    for cell in text.cells:
        if cell.kind is not CellKind.CODE:
            continue
        body = by_cell.get(cell.number, [])
        for statement in body:
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                flags |= _future_flags(statement)
        compiled.append(_compile_cell(cell, body, lines, filename, flags))
    return CompiledNotebook(docstring, tuple(compiled))


def _compile_cell(
    cell: Cell,
    body: list[ast.stmt],
    lines: Sequence[str],
    filename: str,
    flags: int,
) -> CompiledCell:
    assigned = tuple(dict.fromkeys(_assigned(body)))
    shown: CodeType | None = None
    last = body[-1] if body else None
    if isinstance(last, ast.Expr) and not _ends_quietly(last, lines):
        expression = ast.Expression(last.value)
        shown = compile(expression, filename, "eval", flags, dont_inherit=True)
        body = body[:-1]
    # A string at the start of a cell must not become the module's docstring.
    while body and _is_text(body[0]):
        body = body[1:]
    code: CodeType | None = None
    if body:
        module = ast.Module(body=body, type_ignores=[])
        code = compile(module, filename, "exec", flags, dont_inherit=True)
    return CompiledCell(cell, code, shown, assigned)


def _by_cell(cells: Iterable[Cell], body: Iterable[ast.stmt]) -> dict[int, list[ast.stmt]]:
    """Statements by the number of the cell where they begin."""
    statements_of: dict[int, list[ast.stmt]] = {}
    ordered = list(cells)
    index = 0
    for statement in body:
        line = statement.lineno
        decorators = getattr(statement, "decorator_list", None)
        if decorators:
            line = min(line, *(decorator.lineno for decorator in decorators))
        while index < len(ordered) - 1 and ordered[index].last_line < line:
            index += 1
        # A string in a prose cell is its prose and does nothing.
        if ordered[index].kind is CellKind.CODE or not _is_text(statement):
            statements_of.setdefault(ordered[index].number, []).append(statement)
    return statements_of


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _ends_quietly(statement: ast.Expr, lines: Sequence[str]) -> bool:
    """Whether a ``;`` follows the expression."""
    assert statement.end_lineno is not None
    assert statement.end_col_offset is not None
    line = lines[statement.end_lineno - 1].encode()
    return line[statement.end_col_offset :].lstrip().startswith(b";")


def _future_flags(statement: ast.ImportFrom) -> int:
    import __future__

    flags = 0
    for alias in statement.names:
        feature = getattr(__future__, alias.name, None)
        flags |= getattr(feature, "compiler_flag", 0)
    return flags


def _assigned(body: Iterable[ast.stmt]) -> Iterable[str]:
    for statement in body:
        targets: Sequence[ast.expr] = ()
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id


def _explain_magic(error: SyntaxError, text: NotebookText) -> None:
    """Say what to do about a line in IPython syntax."""
    if error.lineno is None:
        return
    lines = text.text.split("\n")
    line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
    if line.startswith(("%", "!", "?")) or line.endswith("?"):
        error.msg = (
            f"'{line[:60]}' is IPython syntax, not Python: comment it out ('# {line[:60]}'), "
            "the editor still runs it, and use Python here"
        )
