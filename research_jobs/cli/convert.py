"""``research-jobs convert PATH...``: Jupyter notebooks as percent scripts.

Outputs are left behind. Lines that only IPython understands (``%magic``, ``!command``, ``?``)
are commented, as jupytext does, so that the script is plain Python.
"""

from __future__ import annotations

import argparse
import ast
import json
import keyword
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from research_jobs.cli.output import complain, print_table
from research_jobs.errors import NotebookError
from research_jobs.notebook.discovery import jupyter_notebooks
from research_jobs.project import Project, find_project

__all__ = ["add_arguments", "percent_script", "run"]

# %magic, !command, ?name, name?, and both forms on the right of an assignment
_MAGIC = re.compile(r"^\s*[%!?]|^\s*[\w.]+\?\??\s*$|^\s*[\w., ]+=\s*[%!]")
_CELL_MAGIC = re.compile(r"^%%\w")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        type=Path,
        nargs="+",
        help="an .ipynb file, or a folder to search for them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE.py",
        type=Path,
        help="the new file (default: next to the .ipynb file if that is in notebooks/, "
        "otherwise in notebooks/)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.epilog = "Exit code: 2 if a file could not be converted. The others are converted."


def run(arguments: argparse.Namespace) -> int:
    """Read, convert, write; a file that cannot be converted holds up no other."""
    if arguments.output is None:
        project = find_project(arguments.project)
        pairs = [pair for path in arguments.paths for pair in _pairs(path, project)]
    elif len(arguments.paths) == 1 and not arguments.paths[0].is_dir():
        pairs = [(arguments.paths[0], arguments.output)]
    else:
        raise NotebookError(
            "--output names one file, but several would be converted",
            hint="Leave it out: each file then gets its own name in notebooks/.",
        )
    rows: list[tuple[str, str, str]] = []
    written: dict[Path, Path] = {}
    for source, target in pairs:
        try:
            commented = _convert(source, target, written.get(target), force=arguments.force)
        except NotebookError as error:
            complain(f"error: {error.headline}")
            continue
        written[target] = source
        rows.append((str(source), str(target), str(commented)))
    if rows:
        print_table(("from", "written", "lines commented"), rows, right=("lines commented",))
    if any(row[2] != "0" for row in rows):
        print("Lines that only IPython understands are now comments: look for '# %' and '# !'.")
    return 0 if len(rows) == len(pairs) else 2


def _pairs(path: Path, project: Project) -> list[tuple[Path, Path]]:
    """The notebooks at a path, each with the script that it becomes: in its own subfolder."""
    notebooks = project.notebooks.resolve()
    files, top = [path], path.parent.resolve()
    if path.is_dir():
        reports = project.reports.resolve()
        top = path.resolve()
        files = [file for file in jupyter_notebooks(path) if reports not in file.resolve().parents]
        if not files:
            raise NotebookError(
                f"{path} has no .ipynb file", hint="Name a file, or another folder."
            )
    pairs: list[tuple[Path, Path]] = []
    for file in files:
        folder = file.parent.resolve()
        folders = folder.relative_to(notebooks if folder.is_relative_to(notebooks) else top).parts
        name = _importable(file.stem.strip("_"))
        target = project.notebooks.joinpath(*map(_importable, folders), f"{name}.py")
        pairs.append((file, target))
    return pairs


def _importable(part: str) -> str:
    """A name like the one given that Python can import; see `discovery.name_problem`."""
    name = unicodedata.normalize("NFKC", part)
    if not name.isidentifier():
        name = re.sub(r"\W+", "_", name).strip("_")
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"nb_{name}".rstrip("_")


def _convert(source: Path, target: Path, taken_by: Path | None, *, force: bool) -> int:
    """Write one script; how many of its lines are commented."""
    try:
        notebook = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotebookError(f"{source}: {error.strerror}") from error
    except ValueError as error:
        raise NotebookError(f"{source} is not a Jupyter notebook: {error}") from error
    script, commented = percent_script(notebook, where=str(source))
    if taken_by is not None:
        raise NotebookError(
            f"{source}: {taken_by} was written to {target}", hint="Rename one of them."
        )
    if target.exists() and not force:
        raise NotebookError(f"{target} already exists", hint="Use --force to overwrite it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(script, encoding="utf-8")
    return commented


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
