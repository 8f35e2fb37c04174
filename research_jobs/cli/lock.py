"""``research-jobs lock``: resolve the packages that notebooks ask for, and keep their versions."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import complain, print_json
from research_jobs.errors import NotebookError, ResearchJobsError
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.environments.declared import Environment
    from research_jobs.environments.installer import Installer
    from research_jobs.orchestration.model.catalog import Catalog, Entry

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="which (default: all that ask for packages of their own)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 if one of them could not be resolved or made, else 0."


def run(arguments: argparse.Namespace) -> int:
    """Resolve, write the locks, and make the environments."""
    from research_jobs.environments.installer import Installer
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import enter_project

    project = find_project(arguments.project)
    enter_project(project)
    catalog = load_catalog(project)
    wanted = _wanted(catalog, arguments.notebooks)
    installer = Installer(project.root, lambda line: print(f"  {line}", file=sys.stderr))
    done: list[dict[str, Any]] = []
    for entry in wanted:
        one: dict[str, Any] = {"notebook": entry.name, "error": None}
        try:
            if entry.environment is None:
                raise entry.error or NotebookError(f"{entry.name} asks for no packages of its own")
            one |= _lock(entry.environment, installer)
        except ResearchJobsError as error:
            one["error"] = error.headline
        done.append(one)
        if not arguments.json:
            _show(one)
    if arguments.json:
        print_json(done)
    elif not done:
        print("No notebook asks for packages of its own.")
    return 1 if any(one["error"] for one in done) else 0


def _wanted(catalog: Catalog, names: list[str]) -> list[Entry]:
    from research_jobs.errors import DependencyError
    from research_jobs.orchestration.operations.entries import find_entries

    if names:
        entries = find_entries(catalog, names)
        for entry in entries:
            if entry.environment is None and not isinstance(entry.error, DependencyError):
                raise NotebookError(
                    f"{entry.name} asks for no packages of its own",
                    hint="Give it a `# /// script` block, or `dependencies` in the manifest.",
                )
        return entries
    return [
        entry
        for entry in catalog
        if entry.environment is not None or isinstance(entry.error, DependencyError)
    ]


def _lock(environment: Environment, installer: Installer) -> dict[str, Any]:
    from dataclasses import replace

    from research_jobs.environments.making import prepare, resolve
    from research_jobs.filesystem import write_atomically

    lock = resolve(environment, installer)
    before = environment.lock.versions if environment.lock is not None else {}
    path = environment.lock_path
    if lock != environment.lock:
        write_atomically(path, lock.dump(environment.notebook).encode())
    return {
        "lock": environment.project.display(path),
        "versions": lock.versions,
        "changes": {
            name: [before.get(name), lock.versions.get(name)]
            for name in sorted({*before, *lock.versions})
            if before and before.get(name) != lock.versions.get(name)
        },
        "python": prepare(replace(environment, lock=lock), installer),
    }


def _show(one: dict[str, Any]) -> None:
    if one["error"]:
        complain(f"{one['notebook']}: {one['error']}")
        return
    count = len(one["versions"])
    print(f"{one['notebook']}: {count} package{'' if count == 1 else 's'} in {one['lock']}")
    for name, (old, new) in one["changes"].items():
        print(f"  {name} {old or 'not there'} → {new or 'not there'}")
    print(f"  {one['python']}")
