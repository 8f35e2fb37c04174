"""The manifest as far as it could be read, and the mistakes that were found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from research_jobs.errors import ManifestError, SourceLocation
from research_jobs.manifest.document import Document
from research_jobs.manifest.models import (
    Defaults,
    NotebookSpec,
    ProjectSpec,
    ReportsSpec,
    ScheduleSpec,
)
from research_jobs.project import notebook_name

__all__ = ["Manifest", "Problem", "Scope", "with_defaults"]

Scope: TypeAlias = Literal["manifest", "notebook", "schedule"]


@dataclass(frozen=True)
class Problem:
    """One mistake, and what it takes down.

    Parameters
    ----------
    scope : {"manifest", "notebook", "schedule"}
        ``"manifest"`` takes down what it names and nothing else (a default falls back), unless
        `Manifest.unreadable` is set.
    name : str or None
        The notebook's or schedule's name.
    error : ManifestError
    """

    scope: Scope
    name: str | None
    error: ManifestError


@dataclass(frozen=True)
class Manifest:
    """The manifest, as far as it could be read.

    Parameters
    ----------
    defaults : Defaults
    notebooks : mapping of str to NotebookSpec
        Defaults merged in. Names that the manifest has and that have no mistake.
    schedules : mapping of str to ScheduleSpec
        Those that have no mistake, with their time zone filled in.
    secrets : tuple of str
        Environment variables whose values are masked.
    reports : ReportsSpec
    project : ProjectSpec
        ``prefix`` and ``group``.
    problems : tuple of Problem
        In the order of the file.
    unreadable : Problem or None
        Set when nothing can be said of any notebook (the text is not YAML, or there is no
        telling what its section ``notebooks`` is): to run one would be to run it without its
        declared outputs.
    """

    defaults: Defaults = field(default_factory=Defaults)
    notebooks: Mapping[str, NotebookSpec] = field(default_factory=dict[str, NotebookSpec])
    schedules: Mapping[str, ScheduleSpec] = field(default_factory=dict[str, ScheduleSpec])
    secrets: tuple[str, ...] = ()
    reports: ReportsSpec = field(default_factory=ReportsSpec)
    project: ProjectSpec = field(default_factory=ProjectSpec)
    problems: tuple[Problem, ...] = ()
    unreadable: Problem | None = None
    document: Document | None = field(default=None, repr=False, compare=False)

    def spec(self, name: str) -> NotebookSpec:
        """What holds for a notebook: its entry with defaults merged in, or the defaults alone.

        Ask `problems_of` first: a notebook with a mistake has no entry here.
        """
        found = self.notebooks.get(name)
        if found is None:
            found = self.notebooks.get(notebook_name(name))
        return found if found is not None else with_defaults(NotebookSpec(), self.defaults)

    def problems_of(self, name: str) -> tuple[Problem, ...]:
        """Why a notebook cannot run: its own mistakes, or that the manifest is unreadable."""
        found = tuple(p for p in self.problems if p.scope == "notebook" and p.name == name)
        return found or ((self.unreadable,) if self.unreadable is not None else ())

    def locate(self, *path: str | int, key: bool = False) -> SourceLocation | None:
        """Where something stands: ``locate("notebooks", "signals", "parameters", "lookback")``.

        Parts that the manifest does not have are passed over; None without a manifest.
        With ``key=True``, where its key stands.
        """
        if self.document is None or self.document.root is None:
            return None
        return self.document.locate(self._written(path), key=key)

    def _written(self, path: Sequence[str | int]) -> tuple[str | int, ...]:
        """The path with a notebook's name as the file spells it."""
        root = self.document.root if self.document else None
        if root is None or len(path) < 2 or path[0] != "notebooks":
            return tuple(path)
        section = root.children.get("notebooks")
        for written, _ in section.items() if section else ():
            if notebook_name(written) == path[1]:
                return ("notebooks", written, *path[2:])
        return tuple(path)


def with_defaults(spec: NotebookSpec, defaults: Defaults) -> NotebookSpec:
    """A notebook's entry with what the defaults say where it says nothing."""
    given = spec.model_fields_set
    update: dict[str, Any] = {
        name: getattr(defaults, name)
        for name in (
            "timezone",
            "timeout",
            "memory",
            "retries",
            "pool",
            "isolation",
            "python",
            "io_manager",
            "owners",
            "group",
            "kinds",
        )
        if name not in given
    }
    # mappings add up, and the notebook's own entry wins
    if defaults.tags:
        update["tags"] = {**defaults.tags, **spec.tags}
    if defaults.environment:
        update["environment"] = {**defaults.environment, **spec.environment}
    if spec.partitions is not None:
        update["partitions"] = spec.partitions.in_timezone(spec.timezone or defaults.timezone)
    return spec.model_copy(update=update)
