"""What a tree of files would be served as, read by a process of its own.

::

    python -m research_jobs.orchestration.operations.deploy_tree FOLDER

The tree may bring another version of this package, which then reads it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import research_jobs
from research_jobs.errors import ProjectError
from research_jobs.orchestration.model.snapshot import Snapshot
from research_jobs.project import PROJECT_VARIABLE

__all__ = ["Tree", "read_tree"]


@dataclass(frozen=True)
class Tree(Snapshot):
    """A project's definitions.

    Parameters
    ----------
    versions : mapping of str to str
        Notebook to code version, as Dagster serves it.
    errors : mapping of str to str
        Notebook to why it cannot run.
    broken_schedules : mapping of str to str
        Schedule to why it cannot be on.
    prefix : str or None
        Of the project's asset keys.
    unreadable : str or None
        Why the manifest as a whole cannot be read.
    """

    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    errors: Mapping[str, str] = field(default_factory=dict[str, str])
    broken_schedules: Mapping[str, str] = field(default_factory=dict[str, str])
    prefix: str | None = None
    unreadable: str | None = None

    def is_served(self, served: Snapshot, *, without: Collection[str] = ()) -> bool:
        """Whether a webserver shows these definitions, beside others that a deployment may add.

        Parameters
        ----------
        served : Snapshot
            With code versions, as `research_jobs.orchestration.operations.served` reads it.
        without : collection of str
            Notebooks that it must no longer show.
        """
        return (
            self.versions.items() <= served.notebooks.items()
            and self.schedules.items() <= served.schedules.items()
            and served.notebooks.keys().isdisjoint(without)
        )


def read_tree(root: Path, *, repository: Path | None = None, tree: Path | None = None) -> Tree:
    """Read a project's definitions in a new process.

    Parameters
    ----------
    root : Path
        The project's folder.
    repository, tree : Path, optional
        Where the project's repository is, and where the checkout is to be read instead.

    Returns
    -------
    Tree

    Raises
    ------
    ProjectError
        When the process fails: that version of this package does not load.
    """
    environment = {
        **os.environ,
        # Nothing is to be written into a tree that may be read-only, or thrown away.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Digests of sets are the same in each process.
        "PYTHONHASHSEED": "0",
    }
    if repository is not None and tree is not None:
        root = tree / root.relative_to(repository)
        if not (root / "notebooks").is_dir():
            raise ProjectError("the new commit has no folder notebooks/")
        package = Path(research_jobs.__file__).resolve().parent
        if package.is_relative_to(repository):
            folder = tree / package.relative_to(repository)
            if folder.is_dir():
                path = (str(folder.parent), os.environ.get("PYTHONPATH"))
                environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, str(root)],
        env={**environment, PROJECT_VARIABLE: str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProjectError(f"the new code does not load: {lines[-1]}")
    return Tree(**json.loads(done.stdout.splitlines()[-1]))


def _read(root: str) -> Tree:
    """What this version of the package makes of a project."""
    from research_jobs.orchestration.definitions.factory import definition_problems
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.project import find_project

    catalog = load_catalog(find_project(root))
    snapshot = Snapshot.of(catalog)
    errors = {entry.name: entry.error.headline for entry in catalog if entry.error}
    broken: dict[str, str] = {}
    for problem in catalog.manifest.problems:
        if problem.scope == "schedule" and problem.name:
            broken.setdefault(problem.name, problem.error.headline)
    for name, error in definition_problems(catalog):
        (errors if name in catalog.entries else broken).setdefault(name, error.headline)
    unreadable = catalog.manifest.unreadable
    return Tree(
        notebooks=snapshot.notebooks,
        schedules={name: cron for name, cron in snapshot.schedules.items() if name not in broken},
        others=snapshot.others,
        versions={entry.name: entry.notebook.code_version for entry in catalog},
        errors=errors,
        broken_schedules=broken,
        prefix=catalog.manifest.project.prefix,
        unreadable=unreadable.error.headline if unreadable else None,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_read(sys.argv[1]))))  # noqa: T201 - the process's answer
