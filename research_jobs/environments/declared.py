"""What environment a notebook asks for: in its own text, or in the manifest.

Text only: nothing is looked up on an index, and no interpreter is started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from research_jobs.environments.interpreters import resolve_interpreter
from research_jobs.environments.versions import Lock, lock_path, read_lock
from research_jobs.errors import DependencyError, SourceLocation
from research_jobs.manifest import Manifest, NotebookSpec
from research_jobs.notebook.environment import plain_name
from research_jobs.notebook.scan import ScannedNotebook
from research_jobs.project import Project

__all__ = ["Environment", "declared_environment"]

# What a notebook's process needs to write outputs, and to read them.
_FOR_OUTPUTS = "pyarrow>=18"


@dataclass(frozen=True)
class Environment:
    """The environment that a notebook asks for.

    Parameters
    ----------
    notebook : str
    dependencies : tuple of str
        As declared, in one spelling.
    requires_python : str or None
    added : tuple of str
        What we need in it.
    python : str or None
        The path of the interpreter that the manifest names.
    where : SourceLocation
        Of the declaration.
    project : Project
    lock : Lock or None
        The versions that the repository says.
    """

    notebook: str
    dependencies: tuple[str, ...]
    requires_python: str | None
    added: tuple[str, ...]
    python: str | None
    where: SourceLocation
    project: Project
    lock: Lock | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """Tuple of str: all that is resolved."""
        return (*self.dependencies, *self.added)

    @property
    def lock_path(self) -> Path:
        """Path: where its lock is, or would be."""
        return lock_path(self.project.notebooks, self.notebook)

    @cached_property
    def version(self) -> str:
        """str: changes with what a run finds installed, as far as the repository says it."""
        pins = self.lock.pins if self.lock is not None else None
        said = json.dumps([self.dependencies, self.requires_python, pins])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def problem(self) -> DependencyError | None:
        """DependencyError or None: why its lock is not one of what it asks for."""
        if self.lock is None:
            return None
        shown = self.project.display(self.lock_path)
        missing = [name for each in self.added if (name := _name(each)) not in self.lock.versions]
        if (self.lock.dependencies, self.lock.requires_python) != (
            self.dependencies,
            self.requires_python,
        ):
            what = f"{shown} is of other dependencies than these"
        elif missing:
            what = f"{shown} has no {missing[0]}, which its outputs need"
        else:
            return None
        hint = f"Resolve them: research-jobs lock {self.notebook}."
        return DependencyError(what, where=self.where, hint=hint)


def declared_environment(
    project: Project, notebook: ScannedNotebook, spec: NotebookSpec, manifest: Manifest
) -> Environment | None:
    """The environment that a notebook asks for; None where it runs in the project's.

    Parameters
    ----------
    project : Project
    notebook : ScannedNotebook
    spec : NotebookSpec
        The notebook's entry of the manifest.
    manifest : Manifest

    Raises
    ------
    DependencyError
        When what it asks for cannot be read. That its lock is of something else is its `problem`.
    """
    script = notebook.script
    if script is None and spec.dependencies is None:
        return None
    in_manifest = manifest.locate("notebooks", notebook.name, "dependencies", key=True)
    shown = project.display(notebook.path)
    if script is not None and spec.dependencies is not None:
        raise DependencyError(
            f"the dependencies of {notebook.name} are also in {shown}:{script.line}",
            where=in_manifest,
            hint="Keep them in one place.",
        )
    requires = None
    if script is not None:
        where = SourceLocation(shown, script.line, 1)
        texts = [
            (each.text, SourceLocation(shown, each.line, each.column))
            for each in script.dependencies
        ]
        if script.requires_python is not None:
            said = script.requires_python
            requires = _specifiers(said.text, SourceLocation(shown, said.line, said.column))
    else:
        where = in_manifest or SourceLocation(project.display(project.manifest))
        path = ("notebooks", notebook.name, "dependencies")
        texts = [
            (text, manifest.locate(*path, number) or where)
            for number, text in enumerate(spec.dependencies or ())
        ]
    dependencies = tuple(_requirements(texts))
    needs = bool(spec.outputs) or notebook.reads_outputs
    has = {_name(each) for each in dependencies}
    lock = lock_path(project.notebooks, notebook.name)
    return Environment(
        notebook=notebook.name,
        dependencies=dependencies,
        requires_python=requires,
        added=(_FOR_OUTPUTS,) if needs and _name(_FOR_OUTPUTS) not in has else (),
        python=resolve_interpreter(spec.python, str(project.root)),
        where=where,
        project=project,
        lock=read_lock(lock, project.display(lock)),
    )


def _requirements(texts: Sequence[tuple[str, SourceLocation]]) -> Iterator[str]:
    """Each in one spelling; an address is refused, as no lock could hold it."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text, where in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            said = str(error).partition("\n")[0]
            raise DependencyError(
                f"'{text}' is not a dependency: {said}",
                where=where,
                hint="Write a package's name and versions: pandas<3. Notebooks that must run"
                " before this one belong under deps.",
            ) from None
        if requirement.url is not None:
            raise DependencyError(
                f"'{requirement.name}' is given by an address, and a lock holds names and versions",
                where=where,
                hint="Put the package on an index, and write its name.",
            )
        yield str(requirement)


def _specifiers(text: str, where: SourceLocation) -> str:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        raise DependencyError(
            f"'{text}' does not say versions of Python", where=where, hint="Write >=3.11."
        ) from None


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement

    return plain_name(Requirement(requirement).name)
