"""``research-jobs reuse``: what notebooks repeat, and the helper module for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path, PurePosixPath

from research_jobs.cli.output import print_json, print_wrapped
from research_jobs.errors import ResearchJobsError
from research_jobs.notebook.cells import read_notebook_text
from research_jobs.notebook.repeats import Piece, Repeat, find_repeats, pieces_of
from research_jobs.notebook.scan import Scan, scan
from research_jobs.notebook.source import parse_source
from research_jobs.project import Project, find_project

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read everything, run nothing, list what repeats."""
    project = find_project(arguments.project)
    found = scan(project)
    paths = {one.name: project.display(one.path) for one in found.notebooks}
    repeats = find_repeats(_pieces(found, project), paths)
    listed = list(zip(repeats, _modules(repeats, found, project), strict=True))
    if arguments.json:
        print_json([_row(repeat, module, paths) for repeat, module in listed])
        return 0
    for repeat, module in listed:
        _print(repeat, module, paths)
    saved = sum(repeat.saved for repeat in repeats)
    print(f"{len(paths)} notebooks, {len(repeats)} repeats: helpers save {saved} lines")
    return 0


def _pieces(found: Scan, project: Project) -> Iterator[Piece]:
    for notebook in found.notebooks:
        text = read_notebook_text(notebook.path)
        yield from pieces_of(notebook.name, parse_source(text), text.cells)
    for path in found.helpers:
        try:
            tree = parse_source(read_notebook_text(path))
        except ResearchJobsError:  # a problem that `check` reports
            continue
        yield from pieces_of(path.relative_to(project.notebooks).as_posix(), tree)


def _modules(repeats: tuple[Repeat, ...], found: Scan, project: Project) -> list[str]:
    """The file below notebooks/ for each: next to its notebooks, or above their folders."""
    notebooks = {
        Path(one.path).relative_to(project.notebooks).as_posix() for one in found.notebooks
    }
    held: dict[str, set[str]] = {}
    modules: list[str] = []
    for repeat in repeats:
        first = repeat.pieces[0]
        names: set[str] = set() if first.kind == "setup" else {*first.names}
        folders = [PurePosixPath(one.file).parent.parts for one in repeat.pieces]
        levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
        folder = PurePosixPath(*(parts[0] for parts in levels))
        candidates = (str(folder / f"helpers{n}.py") for n in ("", *range(2, len(repeats) + 3)))
        module = repeat.helper or next(
            name
            for name in candidates
            if name not in notebooks and not names & held.get(name, set())
        )
        held.setdefault(module, set()).update(names)
        modules.append(module)
    return modules


def _row(repeat: Repeat, module: str, paths: Mapping[str, str]) -> dict[str, object]:
    return {
        "kind": repeat.pieces[0].kind,
        "names": repeat.pieces[0].names,
        "saved": repeat.saved,
        "module": f"notebooks/{module}",
        "exists": repeat.helper is not None,
        "import": _import(repeat, module),
        "differing_constants": repeat.differing,
        "needs": _needs(repeat),
        "copies": [
            {"path": paths[one.file], "line": one.line, "lines": one.lines, "names": one.names}
            for one in repeat.pieces
        ],
    }


def _import(repeat: Repeat, module: str) -> str:
    dotted = module.removesuffix(".py").replace("/", ".")
    return f"from {dotted} import {', '.join(repeat.pieces[0].names)}"


def _needs(repeat: Repeat) -> list[str]:
    return sorted({name for one in repeat.pieces for name in one.needs})


def _print(repeat: Repeat, module: str, paths: Mapping[str, str]) -> None:
    first = repeat.pieces[0]
    what = "setup cell" if first.kind == "setup" else f"{first.kind} {first.names[0]}"
    copies = len(repeat.pieces)
    print(f"{repeat.saved} lines: {what}, {copies} cop{'ies' if copies > 1 else 'y'}")
    places = ", ".join(f"{paths[one.file]}:{one.line}" for one in repeat.pieces)
    print_wrapped(places, indent="  ", hang="  ")
    where = f"{'already in' if repeat.helper else 'into'} notebooks/{module}"
    text = f"{where}: {_import(repeat, module)}"
    if repeat.differing == 1:
        text += " (1 constant differs: make it an argument)"
    elif repeat.differing:
        text += f" ({repeat.differing} constants differ: make them arguments)"
    if needs := _needs(repeat):
        text += f" (it needs {', '.join(needs)} too)"
    print_wrapped(text, indent="  ", hang="    ")
