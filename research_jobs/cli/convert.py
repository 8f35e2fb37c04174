"""``research-jobs convert PATH...``: Jupyter notebooks as percent scripts that mean the same."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from research_jobs.cli.output import complain, print_table, print_wrapped
from research_jobs.errors import NotebookError
from research_jobs.moving.naming import plan_targets
from research_jobs.moving.reading import read_jupyter
from research_jobs.moving.script import Script, percent_script
from research_jobs.notebook.data_files import FileUse
from research_jobs.notebook.environment import distribution_of, installed, required_imports
from research_jobs.notebook.interface import names_of
from research_jobs.notebook.local_modules import Resolver, search_path
from research_jobs.project import Project, find_project

__all__ = ["add_arguments", "run"]


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
    parser.add_argument("--dry-run", action="store_true", help="show the table and write nothing")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run each script, and compare what its cells show with what the .ipynb has stored; "
        "existing scripts are verified, not overwritten",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=600.0,
        help="how long each may run with --verify (default: 600)",
    )
    parser.epilog = (
        "Exit code: 1 if a person must look at something or --verify finds a difference, 2 if a "
        "file was not converted. The others are converted."
    )


@dataclass(frozen=True)
class _Converted:
    """One notebook, read and rewritten."""

    source: Path
    target: Path
    script: Script
    modules: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def needs_a_look(self) -> bool:
        return bool(self.script.look or self.modules or self.files)


def run(arguments: argparse.Namespace) -> int:
    """Read, convert, write; a file that cannot be converted holds up no other."""
    paths: list[Path] = arguments.paths
    output: Path | None = arguments.output
    project = find_project(arguments.project) if output is None else None
    if project is not None:
        targets = plan_targets(paths, project)
    elif output is not None and len(paths) == 1 and not paths[0].is_dir():
        targets = {paths[0]: output}
    else:
        raise NotebookError(
            "--output names one file, but several would be converted",
            hint="Leave it out: each file then gets its own name in notebooks/.",
        )
    kept = _existing(targets) if arguments.verify and not arguments.force else {}
    done: list[_Converted] = []
    for source, target in targets.items():
        if source in kept:
            continue
        try:
            converted = _convert(source, target, project, force=arguments.force)
            if not arguments.dry_run:
                _write(converted)
        except NotebookError as error:
            complain(f"error: {error.headline}")
            continue
        done.append(converted)
    _report(done, project, dry_run=arguments.dry_run)
    status = 1 if any(one.needs_a_look for one in done) else 0
    if arguments.verify and not arguments.dry_run:
        from research_jobs.cli.verifying import verify

        pairs = [*kept.items(), *((one.source, one.target) for one in done)]
        place = project or find_project(arguments.project)
        status = max(status, verify(pairs, place, timeout=arguments.timeout))
    return 2 if len(done) + len(kept) < len(targets) else status


def _existing(targets: Mapping[Path, Path]) -> dict[Path, Path]:
    """The notebooks that were converted before."""
    return {source: target for source, target in targets.items() if target.exists()}


def _convert(source: Path, target: Path, project: Project | None, *, force: bool) -> _Converted:
    notebook = read_jupyter(source)
    if target.exists() and not force:
        raise NotebookError(
            f"{source}: {target} already exists", hint="Use --force to overwrite it."
        )
    script = percent_script(notebook, name=target.stem, where=str(source))
    tree = ast.parse(script.text)
    folder = target.parent
    notebooks, root = (project.notebooks, project.root) if project else (folder, folder)
    search = search_path(folder, notebooks, root, ())
    resolver = Resolver()
    wanted = {one.top for one in required_imports(tree) if not resolver.holds(one.top, search)}
    use = FileUse(tree, names_of(tree).origins)
    written = {Path(path).stem for path in use.written() if path.endswith(".py")}
    return _Converted(
        source,
        target,
        script,
        tuple(sorted(wanted - installed(wanted) - written)),
        tuple(one.path for one in use.missing(folder)),
    )


def _write(converted: _Converted) -> None:
    folder = converted.target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in converted.script.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        converted.target.write_text(converted.script.text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise NotebookError(f"{converted.target}: {error.strerror}") from error


def _report(done: list[_Converted], project: Project | None, *, dry_run: bool) -> None:
    """The closing table, then what to look at, and what to install."""
    if not done:
        return
    rows = [
        (
            str(one.source),
            project.display(one.target) if project else str(one.target),
            ", ".join(f"{did} ({count})" for did, count in one.script.done.items()) or "nothing",
            str(len(one.script.look) or ""),
            " ".join(one.modules),
            " ".join(one.files),
        )
        for one in done
    ]
    heading = "would be" if dry_run else "written"
    print_table(
        ("from", heading, "changed", "look at", "missing modules", "missing files"),
        rows,
        right=("look at",),
    )
    for one in done:
        name = project.display(one.target) if project else str(one.target)
        for look in one.script.look:
            print_wrapped(f"{name}: {look}", hang="  ")
    modules = sorted({distribution_of(module) for one in done for module in one.modules})
    if modules:
        print(f"Not installed: pip install {' '.join(modules)}")
