"""One code cell in Python: IPython says what is a magic, and the trees before and after agree."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from research_jobs.moving.magics import (
    KEPT,
    KNOWN,
    Replacement,
    raising,
    replace_cell_magic,
    replace_line_magic,
    replace_output,
    replace_shell,
    statement_of,
)
from research_jobs.notebook.markers import find_markers, lexed

__all__ = ["Rewritten", "UnexplainedError", "assigned_by", "parsed", "rewrite"]


class UnexplainedError(Exception):
    """The trees of a cell before and after differ by more than its magics."""


@dataclass
class Rewritten:
    """A cell in Python.

    Parameters
    ----------
    source : str
    done : list of str
        What was changed, one entry a magic.
    look : list of str
        What a person must do.
    """

    source: str
    done: list[str] = field(default_factory=list[str])
    look: list[str] = field(default_factory=list[str])


def parsed(source: str) -> ast.Module:
    """The tree of a cell; SyntaxError if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from None


def assigned_by(source: str) -> set[str]:
    """The names that a cell may bind, as IPython would run it."""
    names: set[str] = set()
    try:
        magic, line, body = _split(_cleaned(source))
        if magic in KEPT:
            statement, output = _under(magic, line)
            return assigned_by(f"{statement}\n{body}") | ({output} if output else set())
        tree = parsed(_transformed(source))
    except SyntaxError:
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Call) and _is_kernel_call(node) and len(node.args) > 1:
            text = node.args[1]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                names |= assigned_by(text.value)
    return names


def rewrite(source: str, names: Collection[str] = ()) -> Rewritten:
    """A code cell as Python that means the same.

    Parameters
    ----------
    source : str
    names : collection of str
        What the notebook assigns: IPython puts values for ``$name`` into commands.

    Raises
    ------
    UnexplainedError
        When the trees before and after differ by more than what was replaced.
    """
    result = _rewritten(source, names)
    if ast.dump(parsed(result.source)) != ast.dump(_Explained(names).tree(source)):
        raise UnexplainedError
    return result


def _rewritten(source: str, names: Collection[str]) -> Rewritten:
    text = _automagic(_joined(_cleaned(source)), names)
    magic, line, body = _split(text)
    if magic in KEPT:
        return _measured(magic, line, body, names)
    if magic:
        replacement = replace_cell_magic(magic, line, body, names)
        return _whole(text, replacement, revivable=not replacement.code)
    try:
        parsed(_transformed(text))
    except SyntaxError as error:
        return _whole(text, _not_python(error))
    return _with_lines_replaced(text, names)


def _not_python(error: SyntaxError) -> Replacement:
    return raising(
        "this cell", f"it is not Python ({error.msg}, line {error.lineno or 1} of the cell)"
    )


def _measured(magic: str, line: str, body: str, names: Collection[str]) -> Rewritten:
    """A cell under ``%%time`` and the like: what it runs, without the magic."""
    statement, output = _under(magic, line)
    inner = _rewritten(f"{statement}\n{body}" if statement else body, names)
    if output:
        return _captured(output, inner)
    inner.source = f"# {_note(f'%%{magic} {line}')}\n{inner.source}"
    inner.done.insert(0, f"%%{magic} taken off")
    return inner


# Not a `with` block: indenting would change strings of several lines.
_CAPTURE = (
    """\
from IPython.utils.capture import capture_output
_capturing = capture_output()
{} = _capturing.__enter__()
""",
    "\n_capturing.__exit__(None, None, None)",
)


def _captured(output: str, inner: Rewritten) -> Rewritten:
    """A cell whose output has a name, with what it runs under IPython's own capture."""
    inner.source = f"{_CAPTURE[0].format(output)}{inner.source}{_CAPTURE[1]}"
    inner.done.insert(0, "%%capture by IPython.utils.capture")
    return inner


def _under(magic: str, line: str) -> tuple[str, str]:
    """The statement in a cell magic's own line, and the name that captures what it shows."""
    if magic == "capture":
        words = [word for word in line.split() if not word.startswith("-")]
        return "", words[0] if words and words[0].isidentifier() else ""
    return statement_of(magic, line), ""


def _note(text: str) -> str:
    """A comment that no tool takes for a live magic."""
    return f"in Jupyter: {text.strip()}"


def _whole(text: str, replacement: Replacement, *, revivable: bool = False) -> Rewritten:
    """A cell of which every line becomes a comment, with what replaces it below."""
    lines = text.rstrip("\n").split("\n")
    if not revivable:
        lines[0] = _note(lines[0])
    if replacement.code and not replacement.look:  # the text is in the code already
        lines = lines[:1]
    comments = [f"# {line}".rstrip() for line in lines]
    for marker in find_markers("\n".join(comments)):
        comments[marker.line - 1] = f"# {comments[marker.line - 1]}"
    shown = "\n".join(comments)
    return Rewritten(
        "\n".join(part for part in (shown, replacement.code) if part),
        [replacement.did],
        [replacement.look] if replacement.look else [],
    )


@dataclass
class _Piece:
    """IPython syntax in a cell, as IPython found it: lines, and what it calls instead."""

    first: int
    last: int
    indent: str
    shown: str
    assigned: str
    call: ast.Call


def _pieces(lines: list[str]) -> Iterator[_Piece | tuple[int, int, str]]:
    """The next piece of IPython syntax, until there is none; the caller replaces its lines."""
    from IPython.core.inputtransformer2 import TransformerManager, make_tokens_by_line

    manager = TransformerManager()
    while True:
        tokens = make_tokens_by_line(lines)
        found = [one for kind in manager.token_transformers if (one := kind.find(tokens))]
        for transformer in sorted(found, key=lambda one: one.sortby()):
            try:
                after = transformer.transform(list(lines))
            except SyntaxError:
                continue
            first = transformer.start_line
            last = first + len(lines) - len(after)
            yield _piece(lines, first, last, after[first])
            break
        else:
            return


def _piece(lines: list[str], first: int, last: int, new: str) -> _Piece | tuple[int, int, str]:
    try:
        statement = parsed(new.strip()).body[0]
    except SyntaxError:
        return first, last, new
    value = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
    if not isinstance(value, ast.Call) or not _is_kernel_call(value):
        return first, last, new
    indent = new[: len(new) - len(new.lstrip())]
    code = new.strip()
    column = len(code.encode()[: value.col_offset].decode())
    shown = "".join(lines[first : last + 1]).strip()
    return _Piece(first, last, indent, shown, code[:column], value)


def _is_kernel_call(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in ("run_line_magic", "run_cell_magic", "system", "getoutput")
        and isinstance(function.value, ast.Call)
        and isinstance(function.value.func, ast.Name)
        and function.value.func.id == "get_ipython"
    )


def _replacement(
    call: ast.Call, assigned: str, names: Collection[str]
) -> tuple[str, Replacement | None]:
    """What a call of IPython becomes: a statement that it wraps, or a replacement."""
    assert isinstance(call.func, ast.Attribute)
    words = [str(ast.literal_eval(argument)) for argument in call.args]
    if call.func.attr == "system":
        return "", replace_shell(words[0], names)
    if call.func.attr == "getoutput":
        return "", replace_output(words[0], assigned, names)
    if words[0] in ("pinfo", "pinfo2", "psearch"):
        return "", Replacement("", "help left out")
    replaced = replace_line_magic(words[0], words[1], assigned, names)
    if isinstance(replaced, Replacement):
        return "", replaced
    if not _parses(_transformed(replaced)):
        return "", raising(f"%{words[0]} {words[1]}", "what it measures is not Python")
    return replaced, None


def _with_lines_replaced(text: str, names: Collection[str]) -> Rewritten:
    lines = _escaped_comments(text).splitlines(keepends=True)
    result = Rewritten("")
    passes: list[str] = []
    for piece in _pieces(lines):
        if isinstance(piece, tuple):
            first, last, new = piece
            lines[first : last + 1] = [new]
            continue
        statement, replacement = _replacement(piece.call, piece.assigned, names)
        comment = " ".join(re.sub(r"\\\n\s*", " ", piece.shown).split("\n"))
        if replacement is None:
            name = str(ast.literal_eval(piece.call.args[0]))
            replacement = Replacement(statement, f"%{name} taken off")
            code = [f"{piece.indent}{statement}  # %{name}\n"] if statement else []
        elif replacement.code:
            code = [f"{piece.indent}# {_note(comment)}\n"]
            code += [f"{piece.indent}{line}\n" for line in replacement.code.split("\n")]
        else:
            code = []
        if not code:
            passed = f"{piece.indent}pass  # {comment}\n"
            passes.append(passed)
            code = [passed if piece.indent else f"# {comment}\n"]
        lines[piece.first : piece.last + 1] = code
        result.done.append(replacement.did)
        if replacement.look:
            result.look.append(replacement.look)
    result.source = _with_needed_passes(lines, set(passes)).rstrip("\n")
    return result


def _with_needed_passes(lines: list[str], passes: set[str]) -> str:
    """A `pass` where a block would be empty without it, and the comment alone elsewhere."""
    for number, line in enumerate(lines):
        if line in passes and line[:1].isspace():
            lines[number] = line.replace("pass  # ", "# ", 1)
            try:
                parsed("".join(lines))
            except SyntaxError:
                lines[number] = line
    return "".join(lines)


def _cleaned(source: str) -> str:
    """The cell without what IPython takes off first: blank lines, indentation, prompts."""
    from IPython.core.inputtransformer2 import TransformerManager

    text = source.replace("\r\n", "\n").replace("\r", "\n")
    lines = (text if text.endswith("\n") else text + "\n").splitlines(keepends=True)
    for transform in TransformerManager().cleanup_transforms:
        lines = transform(lines)
    return "".join(lines)


def _transformed(source: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


_CELL_MAGIC = re.compile(r"%%([^\s]+)[^\S\n]*([^\n]*)\n?")


def _split(text: str) -> tuple[str, str, str]:
    """Name, line and body of a cell magic; an empty name if the cell is none."""
    match = _CELL_MAGIC.match(text)
    if match is None or re.match(r"%%\w+\?", text):
        return "", "", text
    return match[1], match[2].strip(), text[match.end() :]


_STATEMENT_MAGIC = re.compile(r"[ \t]*%(\w+)[ \t]+(.*)")


def _joined(text: str) -> str:
    """Magics whose statement goes on inside brackets, with the backslashes that IPython wants."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        match = _STATEMENT_MAGIC.match(lines[number])
        if match and (match[1] in KEPT or match[1] == "timeit") and _inside_code(lines, number):
            end = _bracket_end(statement_of(match[1], match[2]), lines, number)
            were = lines[number : end + 1]
            for comment in ("\n", "  #"):  # with what may be a comment, then without
                joined = [line.split(comment)[0].rstrip("\\ ") for line in were]
                if end > number and _same_statement(match[1], joined, were):
                    lines[number : end + 1] = [*(f"{one} \\" for one in joined[:-1]), joined[-1]]
                    break
            number = end
        number += 1
    return "\n".join(lines)


def _same_statement(magic: str, joined: list[str], lines: list[str]) -> bool:
    """Whether lines behind a magic mean the same as one line; a string over several does not."""
    first = lines[0].partition(magic)[2]
    try:
        was = parsed(statement_of(magic, first) + "".join(f"\n{line}" for line in lines[1:]))
        now = parsed(statement_of(magic, " ".join([joined[0].partition(magic)[2], *joined[1:]])))
    except SyntaxError:
        return False
    return ast.dump(was) == ast.dump(now)


def _inside_code(lines: list[str], number: int) -> bool:
    """Whether a line is not inside a string that began above it."""
    text = "\n".join(lines[:number])
    return not any(
        literal.end() == len(text) and literal.group()[:3] in ('"""', "'''")
        and not (len(literal.group()) > 5 and literal.group().endswith(literal.group()[:3]))
        for literal in lexed(text)
    )  # fmt: skip


def _bracket_end(statement: str, lines: list[str], number: int) -> int:
    """The last line of a statement that is not complete on its first; that line if it never is."""
    if statement.endswith("\\") or _parses(statement):
        return number
    whole = statement
    for end in range(number + 1, min(len(lines), number + 200)):
        whole += f"\n{lines[end]}"
        if _parses(whole):
            return end
    return number


def _parses(source: str) -> bool:
    try:
        parsed(source)
    except SyntaxError:
        return False
    return True


def _automagic(text: str, names: Collection[str]) -> str:
    """A cell of one line that IPython takes for a magic without its percent sign."""
    line = text.strip("\n")
    match = re.match(r"([A-Za-z_]\w*)(?=\s|$)(?!\s*[=(,.\[])", line)
    if "\n" in line or match is None or match[1] not in KNOWN or match[1] in names:
        return text
    return text if _parses(line) and match.end() != len(line) else f"%{line}\n"


class _Explained(ast.NodeTransformer):
    """The tree that IPython would run, with each of its calls replaced as the text was."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    def tree(self, source: str) -> ast.Module:
        text = _automagic(_joined(_cleaned(source)), self.names)
        magic, line, body = _split(text)
        if magic in KEPT:
            statement, output = _under(magic, line)
            inner = self.tree(f"{statement}\n{body}" if statement else body)
            if output:
                begin, end = (parsed(part.format(output)) for part in _CAPTURE)
                inner.body = [*begin.body, *inner.body, *end.body]
            return inner
        if magic:
            return parsed(replace_cell_magic(magic, line, body, self.names).code)
        try:
            tree = parsed(_transformed(text))
            return self.visit(tree)
        except SyntaxError as error:
            return parsed(_not_python(error).code)

    def visit_Expr(self, node: ast.Expr) -> Any:
        if isinstance(node.value, ast.Call) and _is_kernel_call(node.value):
            return self.replaced(node.value, "")
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        if isinstance(node.value, ast.Call) and _is_kernel_call(node.value):
            targets = " = ".join(ast.unparse(target) for target in node.targets)
            return self.replaced(node.value, f"{targets} = ")
        return self.generic_visit(node)

    def replaced(self, call: ast.Call, assigned: str) -> list[ast.stmt]:
        statement, replacement = _replacement(call, assigned, self.names)
        if replacement is None:
            return self.tree(statement).body
        return parsed(replacement.code).body

    def generic_visit(self, node: ast.AST) -> ast.AST:
        blocks = [name for name in ("body", "orelse", "finalbody") if getattr(node, name, None)]
        super().generic_visit(node)
        for name in blocks:
            if not getattr(node, name) and not isinstance(node, ast.Module):
                setattr(node, name, [ast.Pass()])
        return node


_LIVE = re.compile(r"#[# ]*(?:%{1,2}[A-Za-z]|[!?]\s*[A-Za-z.~$\\/{}])")


def _escaped_comments(text: str) -> str:
    """The author's own comments, so that no tool takes one for a magic or for a cell marker."""
    lines = text.split("\n")
    markers = {marker.line for marker in find_markers(text)}
    for literal in lexed(text):
        start = literal.start()
        before = text[text.rfind("\n", 0, start) + 1 : start]
        if before.strip() or not literal.group().startswith("#"):
            continue
        row = text.count("\n", 0, start)
        if row + 1 in markers or _LIVE.match(literal.group()):
            lines[row] = f"{before}# {literal.group()}"
    return "\n".join(lines)
