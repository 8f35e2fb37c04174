"""``research-jobs init [DIR]``: make a repository a project, writing only what is missing."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, cast

from research_jobs.cli.output import complain, is_terminal
from research_jobs.errors import ProjectError
from research_jobs.notebook.discovery import jupyter_notebooks
from research_jobs.project import (
    STORE_VARIABLE,
    Project,
    find_project,
    find_project_above,
    read_variable,
)

__all__ = ["add_arguments", "run"]

MANIFEST = """\
# yaml-language-server: $schema=./manifest.schema.json
#
# Which variables each notebook keeps, and when it runs. A notebook that is not named here runs
# too, but keeps nothing. `research-jobs check` reports mistakes in this file.
#
# notebooks:
#   market_data:
#     outputs: [prices]
"""
MARK = "# written by research-jobs init"
STORES = ("store", "outputs", "research_jobs_store")
"""Names for the store's folder where ``data/`` belongs to somebody else; the first that is free."""

HOOKS = """\
repos:
  - repo: local
    hooks:
      - id: research-jobs-check
        name: research-jobs check
        entry: research-jobs check
        language: system
        files: ^notebooks/.*\\.(py|ya?ml)$
        require_serial: true
"""
WORKFLOW = """\
# Mistakes in notebooks and manifest, as annotations of the change that makes them.
name: notebooks
on: [push, pull_request]
permissions:
  contents: read
jobs:
  check:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {{python-version: "3.{minor}"}}
      # research_jobs and the libraries of the notebooks: `check` looks whether they are there.
      - run: python -m pip install {packages}
      - run: research-jobs check --format github
"""

# A string, or what JSON does not have but editors accept: comments and a comma before a bracket.
_EXTRAS = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One file to write.

    Parameters
    ----------
    path : Path
    before : str or None
        Its text today; None if there is no such file.
    after : str
    what : str
        What is added, for the plan.
    """

    path: Path
    before: str | None
    after: str
    what: str

    def write(self) -> None:
        """Write the file, unless somebody else has written it since it was read."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.before is None:
            with self.path.open("x", encoding="utf-8", newline="") as file:
                if self.path.name == ".env":  # where people write secrets
                    os.fchmod(file.fileno(), 0o600)
                file.write(self.after)
        elif _read(self.path) == self.before:
            with self.path.open("w", encoding="utf-8", newline="") as file:
                file.write(self.after)
        else:
            raise ProjectError(f"{self.path} has just changed", hint="Run the command again.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "folder",
        metavar="DIR",
        type=Path,
        nargs="?",
        help="the folder (default: the project in this repository, else the working directory)",
    )
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and write nothing")
    parser.epilog = "Exit code: 1 if something is missing and was not written."


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, write."""
    root = _root(arguments.folder or arguments.project)
    notes: list[str] = []
    steps = list(_plan(root, notes))
    print(f"{root}: {'this is missing' if steps else 'nothing is missing'}")
    for step in steps:
        print(f"  {step.path.relative_to(root).as_posix():32} {step.what}")
    for note in notes:
        print(f"  note: {note}")
    if not steps or arguments.dry_run:
        return 0
    if not arguments.yes and not _agreed():
        print("Nothing was written.")
        return 1
    for step in steps:
        step.write()
    print("Written. Next:")
    for line in _next_steps(root):
        print(f"  {line}")
    return 0


def _agreed() -> bool:
    if not (is_terminal() and sys.stdin.isatty()):
        complain("research-jobs init: nobody can be asked here; pass --yes to write.")
        return False
    return input("Write this? [Y/n] ").strip().lower() in ("", "y", "yes")


def _root(named: str | os.PathLike[str] | None) -> Path:
    if named is not None:
        root = Path(named).expanduser().resolve()
        if not root.is_dir():
            raise ProjectError(f"{root} is not a folder")
        return root
    here = Path.cwd()
    repository = next((one for one in (here, *here.parents) if (one / ".git").exists()), here)
    above = find_project_above(here)
    return above.root if above and above.root.is_relative_to(repository) else here


def _plan(root: Path, notes: list[str]) -> Iterable[Step]:
    """What is missing; `notes` gets what a person must look at."""
    from research_jobs.manifest.schema import schema_text

    notebooks = root / "notebooks"
    if notebooks.exists() and not notebooks.is_dir():
        raise ProjectError(f"{notebooks} is not a folder", hint="Rename it.")
    manifest, schema = notebooks / "manifest.yaml", notebooks / "manifest.schema.json"
    if not manifest.exists():
        yield Step(manifest, None, MANIFEST, "the manifest, with nothing in it yet")
    elif "$schema=" not in (_read(manifest) or ""):
        notes.append(f"the editor checks the manifest below this line: {MANIFEST.splitlines()[0]}")
    if not schema.exists():
        yield Step(schema, None, schema_text(), "the manifest's schema, for the editor")
    store, moved = _store(root, notes)
    directory, extra = _settings_of_batch(root)
    folders = ["/.research_jobs/", *([f"/{store}/"] if store else []), "/.env", "__pycache__/"]
    reports = root / "reports"
    ran = (root / ".research_jobs").is_dir() and (reports / "index.html").exists()
    if MARK in (_read(root / ".gitignore") or ""):
        pass  # decided before reports were written there
    elif _is_free(reports) or ran:
        folders.insert(1, "/reports/")
    else:
        notes.append("reports/ has files that are not ours; reports are written beside them")
    yield from _ignored(root, folders)
    path = [str(notebooks), str(root), *(str(root / entry) for entry in extra)]
    variables = {"PYTHONPATH": os.pathsep.join(path)}
    if moved:
        variables[STORE_VARIABLE] = moved
    yield from _variables(root, variables, notes)
    yield from _editor(root, directory, ["notebooks", *extra], notes)
    if (root / ".git").exists():
        yield from _checked(root, notes)


def _settings_of_batch(root: Path) -> tuple[str, tuple[str, ...]]:
    """Where batch runs a notebook, in the editor's words, and what else is on its path."""
    if not (root / "notebooks" / "manifest.yaml").exists():
        return "${fileDirname}", ()
    from research_jobs.manifest.load import load_manifest

    defaults = load_manifest(find_project(root), ()).defaults
    setting = defaults.working_directory
    if setting in (None, "notebook"):
        return "${fileDirname}", defaults.sys_path
    folder = "" if setting == "project" else setting
    return os.path.join("${workspaceFolder}", folder).rstrip("/"), defaults.sys_path  # noqa: PTH118


def _store(root: Path, notes: list[str]) -> tuple[str | None, str | None]:
    """The store's folder if it is in the project, and its new name if it must have one."""
    named = os.environ.get(STORE_VARIABLE) or read_variable(root / ".env", STORE_VARIABLE)
    if named:
        inside = Path(Project(root, named).display(root / Path(named).expanduser()))
        return (None if "://" in named or inside.is_absolute() else inside.as_posix()), None
    if _is_free(root / "data") or _is_a_store(root / "data"):
        return "data", None
    free = next((name for name in STORES if _is_free(root / name)), STORES[-1])
    notes.append(f"data/ has files that are not ours, so outputs are stored in {free}/")
    return free, free


def _is_free(folder: Path) -> bool:
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return not any(folder.iterdir())


def _is_a_store(folder: Path) -> bool:
    """Whether a store has published into it."""
    return any(
        name in (".versions", ".partitions")
        for _, folders, _ in os.walk(folder)
        for name in folders
    )


def _ignored(root: Path, folders: list[str]) -> Iterable[Step]:
    path = root / ".gitignore"
    before = _read(path)
    known = {line.strip().strip("/") for line in (before or "").splitlines()}
    missing = [line for line in folders if line.strip("/") not in known]
    if missing:
        after = _appended(before, missing)
        yield Step(path, before, after, f"Git ignores {' '.join(missing)}")


def _variables(root: Path, wanted: dict[str, str], notes: list[str]) -> Iterable[Step]:
    path = root / ".env"
    before = _read(path)
    missing: list[str] = []
    for name, value in wanted.items():
        today = read_variable(path, name)
        if today is None:
            missing.append(f"{name}={shlex.quote(value)}")
        elif name == "PYTHONPATH":
            entries = {str((root / entry).resolve()) for entry in today.split(os.pathsep)}
            absent = [part for part in value.split(os.pathsep) if part not in entries]
            if absent:
                notes.append(f".env sets PYTHONPATH without {', '.join(absent)}; add it by hand")
    if missing:
        names = ", ".join(line.partition("=")[0] for line in missing)
        yield Step(path, before, _appended(before, missing), f"{names}, as in batch")


def _appended(before: str | None, lines: list[str]) -> str:
    """A text with marked lines at its end, in the style of its line ends."""
    end = "\r\n" if before and "\r\n" in before else "\n"
    start = before or ""
    if start and not start.endswith("\n"):
        start += end
    return f"{start}{end if start else ''}{end.join([MARK, *lines])}{end}"


def _editor(root: Path, directory: str, paths: list[str], notes: list[str]) -> Iterable[Step]:
    path = root / ".vscode" / "settings.json"
    wanted: dict[str, Any] = {
        "jupyter.notebookFileRoot": directory,
        "python.terminal.executeInFileDir": directory == "${fileDirname}",
        "python.envFile": "${workspaceFolder}/.env",
        "python.terminal.useEnvFile": True,
        "python.analysis.extraPaths": paths,
    }
    before = _read(path)
    what = "the editor runs cells and files where batch does"
    if before is None or not before.strip():
        yield Step(path, before, json.dumps(wanted, indent=2) + "\n", what)
        return
    today = _settings(before)
    if today is None:
        notes.append(f".vscode/settings.json cannot be read; it needs {json.dumps(wanted)}")
        return
    missing = {name: value for name, value in wanted.items() if name not in today}
    for name, value in wanted.items():
        if name not in missing and today[name] != value:
            notes.append(f".vscode/settings.json: {name} differs from batch, {json.dumps(value)}")
    if missing:
        lines = [f"\n  {json.dumps(name)}: {json.dumps(value)}" for name, value in missing.items()]
        at = _first_brace(before)
        text = ",".join(lines) + ("," if today else "\n")
        yield Step(path, before, before[:at] + text + before[at:], what)


def _checked(root: Path, notes: list[str]) -> Iterable[Step]:
    """`check` before each commit, and on GitHub unless the repository is elsewhere."""
    hooks = root / ".pre-commit-config.yaml"
    today = _read(hooks)
    if today is None:
        yield Step(hooks, None, HOOKS, "pre-commit checks what changed (`pre-commit install`)")
    elif "research-jobs" not in today:
        notes.append(f"{hooks.name} has no hook with `entry: research-jobs check`; add one by hand")
    git = root / ".git" / "config"
    remote = (_read(git) or "") if git.is_file() else ""
    folder = root / ".github" / "workflows"
    others = [_read(path) or "" for path in folder.glob("*.y*ml")] if folder.is_dir() else []
    if ("url" in remote and "github" not in remote) or any(
        "research-jobs" in one for one in others
    ):
        return
    text = WORKFLOW.format(minor=sys.version_info[1], packages=" ".join(_packages(root)))
    yield Step(folder / "notebooks.yml", None, text, "GitHub annotates mistakes")


def _packages(root: Path) -> Iterable[str]:
    """What a workflow installs: this research_jobs, from where it came, and what the root lists."""
    origin = json.loads(distribution("research_jobs").read_text("direct_url.json") or "{}")
    vcs = origin.get("vcs_info")
    yield f'"{vcs["vcs"]}+{origin["url"]}@{vcs["commit_id"]}"' if vcs else "research_jobs"
    if (root / "requirements.txt").exists():
        yield "-r requirements.txt"
    elif (root / "pyproject.toml").exists():
        yield "."


def _settings(text: str) -> dict[str, Any] | None:
    plain = text
    for _ in range(2):  # first the comments, then the commas in front of them
        plain = _EXTRAS.sub(lambda found: found[1] or "", plain)
    try:
        value: object = json.loads(plain.removeprefix("\ufeff"))
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _first_brace(text: str) -> int:
    """Where the object's content begins, comments above it left out."""
    blank = _EXTRAS.sub(lambda found: found[1] or " " * len(found[0]), text)
    return blank.index("{") + 1


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ProjectError(f"{path} is not UTF-8", hint="Save it as UTF-8.") from None


def _next_steps(root: Path) -> Iterable[str]:
    project = find_project(root)
    found = (path.relative_to(root).parts[0] for path in jupyter_notebooks(root))
    folders = [name for name in dict.fromkeys(found) if root / name != project.reports]
    if folders:
        yield f"research-jobs convert {shlex.join(folders)}   # the Jupyter notebooks there"
    if not any(project.notebooks.rglob("*.py")):
        yield "research-jobs new NAME         # a notebook to begin with"
    yield "research-jobs check            # what would go wrong"
    yield "research-jobs run --all        # run them"
