"""``research-jobs convert FILE.ipynb``: a Jupyter notebook as a percent script.

Outputs are left behind. Lines that only IPython understands (``%magic``, ``!command``, ``?``)
are commented, as jupytext does, so that the script is plain Python.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from research_jobs.errors import NotebookError
from research_jobs.project import find_project

__all__ = ["add_arguments", "percent_script", "run"]

# %magic, !command, ?name, name?, and both forms on the right of an assignment
_MAGIC = re.compile(r"^\s*[%!?]|^\s*[\w.]+\?\??\s*$|^\s*[\w., ]+=\s*[%!]")
_CELL_MAGIC = re.compile(r"^%%\w")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE.ipynb", type=Path)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE.py",
        type=Path,
        help="where to write (default: the same name in the project's notebooks/)",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


def run(arguments: argparse.Namespace) -> int:
    """Read, convert, write."""
    source: Path = arguments.file
    target: Path | None = arguments.output
    if target is None:
        name = re.sub(r"\W+", "_", source.stem).strip("_") or "notebook"
        target = find_project(arguments.project).notebooks / f"{name}.py"
    try:
        notebook = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotebookError(f"{source}: {error.strerror}") from error
    except ValueError as error:
        raise NotebookError(f"{source} is no Jupyter notebook: {error}") from error
    script, commented = percent_script(notebook, where=str(source))
    if target.exists() and not arguments.force:
        raise NotebookError(f"{target} exists already", hint="Say --force to write over it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(script, encoding="utf-8")
    print(f"Wrote {target}")
    if commented:
        lines = "1 line" if commented == 1 else f"{commented} lines"
        print(f"Commented {lines} that only IPython understands: look for '# %' and '# !'.")
    return 0


def percent_script(notebook: Any, *, where: str = "notebook") -> tuple[str, int]:
    """A Jupyter notebook as the text of a percent script.

    Parameters
    ----------
    notebook : object
        The parsed ``.ipynb``, version 4.
    where : str
        Its name, for errors.

    Returns
    -------
    (str, int)
        The text, and how many lines were commented because only IPython understands them.

    Raises
    ------
    NotebookError
        When it has no cells as version 4 has them.
    """
    cells = cast("dict[str, Any]", notebook).get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise NotebookError(
            f"{where} has no cells of format 4", hint="Open and save it in a current Jupyter."
        )
    blocks: list[str] = []
    commented = 0
    for cell in cast("list[dict[str, Any]]", cells):
        raw: str | list[str] = cell.get("source", "")
        text = (raw if isinstance(raw, str) else "".join(raw)).rstrip("\n")
        marker = "# %%" + _metadata(cell.get("metadata", {}))
        if cell.get("cell_type") == "code":
            lines, count = _comment_magics(text)
            commented += count
            blocks.append(f"{marker}\n{lines}".rstrip())
        else:
            kind = "markdown" if cell.get("cell_type") == "markdown" else "raw"
            marker = f"# %% [{kind}]" + _metadata(cell.get("metadata", {}))
            prose = "\n".join(f"# {line}".rstrip() for line in text.split("\n"))
            blocks.append(f"{marker}\n{prose}".rstrip())
    return "\n\n".join(blocks) + "\n", commented


def _metadata(metadata: Mapping[str, Any]) -> str:
    tags = metadata.get("tags")
    return f" tags={json.dumps(tags)}" if tags else ""


def _comment_magics(text: str) -> tuple[str, int]:
    """The cell's text with IPython's own lines commented, and how many they were."""
    lines = text.split("\n")
    if _CELL_MAGIC.match(text):
        # `%%time` and the like say how to run the cell; of other languages nothing can run here.
        keep = re.match(r"^%%(time|timeit|capture)\b", text)
        if keep is None:
            return "\n".join(f"# {line}".rstrip() for line in lines), len(lines)
        rest, count = _comment_magics("\n".join(lines[1:]))
        return f"# {lines[0]}\n{rest}", count + 1
    if _parses(text):
        return text, 0
    count = 0
    for number, line in enumerate(lines):
        if _MAGIC.search(line):
            indent = line[: len(line) - len(line.lstrip())]
            lines[number] = f"{indent}# {line.lstrip()}"
            count += 1
    return "\n".join(lines), count


def _parses(text: str) -> bool:
    try:
        compile(text, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError):
        return False
    return True
