"""The manifest as far as it could be read, and the mistakes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from research_jobs.errors import ManifestError, SourceLocation
from research_jobs.manifest.alerts import ChannelSpec, HeartbeatSpec, variables_in
from research_jobs.manifest.backup import BackupSpec
from research_jobs.manifest.document import Document
from research_jobs.manifest.models import (
    Defaults,
    NotebookSpec,
    ProjectSpec,
    ReportsSpec,
    ScheduleSpec,
    SharedSpec,
)
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.manifest.retention import RetentionSpec
from research_jobs.project import notebook_name

__all__ = ["Manifest", "Problem", "Scope", "with_defaults"]

Scope: TypeAlias = Literal["manifest", "notebook", "schedule", "channel", "remote"]


@dataclass(frozen=True)
class Problem:
    """One mistake, and what it disables.

    Parameters
    ----------
    scope : {"manifest", "notebook", "schedule", "channel", "remote"}
        ``"manifest"`` disables only what it names (a default falls back), unless
        `Manifest.unreadable` is set.
    name : str or None
        The notebook's, schedule's, channel's or remote's name; None for the whole section.
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
        The entries without a mistake, defaults merged in.
    schedules : mapping of str to ScheduleSpec
        Those without a mistake, with their time zone filled in.
    secrets : tuple of str
        Environment variables whose values are masked.
    reports : ReportsSpec
    alerts : mapping of str to ChannelSpec
        The channels without a mistake, the quiet hours with their time zone filled in.
    heartbeat : HeartbeatSpec or None
    backup : BackupSpec or None
    retention : RetentionSpec
    remotes : mapping of str to RemoteSpec
    project : ProjectSpec
        ``prefix`` and ``group``.
    problems : tuple of Problem
        In the order of the file.
    unreadable : Problem or None
        Set when the settings of every notebook are unknown (the text is not YAML, or its section
        ``notebooks`` is not a mapping). No notebook runs then, as it would run without its
        declared outputs.
    """

    defaults: Defaults = field(default_factory=Defaults)
    notebooks: Mapping[str, NotebookSpec] = field(default_factory=dict[str, NotebookSpec])
    schedules: Mapping[str, ScheduleSpec] = field(default_factory=dict[str, ScheduleSpec])
    secrets: tuple[str, ...] = ()
    reports: ReportsSpec = field(default_factory=ReportsSpec)
    alerts: Mapping[str, ChannelSpec] = field(default_factory=dict[str, ChannelSpec])
    heartbeat: HeartbeatSpec | None = None
    backup: BackupSpec | None = None
    retention: RetentionSpec = field(default_factory=RetentionSpec)
    remotes: Mapping[str, RemoteSpec] = field(default_factory=dict[str, RemoteSpec])
    project: ProjectSpec = field(default_factory=ProjectSpec)
    problems: tuple[Problem, ...] = ()
    unreadable: Problem | None = None
    document: Document | None = field(default=None, repr=False, compare=False)

    @property
    def masked(self) -> tuple[str, ...]:
        """Tuple of str: `secrets`, and the variables that channels and the heartbeat need."""
        said: list[str | None] = [self.heartbeat.url if self.heartbeat is not None else None]
        for channel in self.alerts.values():
            said += [channel.url, channel.email.password if channel.email is not None else None]
        return tuple(dict.fromkeys((*self.secrets, *variables_in(said))))

    def spec(self, name: str) -> NotebookSpec:
        """A notebook's settings: its entry with defaults merged in, or the defaults alone.

        Ask `problems_of` first: a notebook with a mistake has no entry here.
        """
        entry = self.notebooks.get(name)
        if entry is None:
            entry = self.notebooks.get(notebook_name(name))
        return entry if entry is not None else with_defaults(NotebookSpec(), self.defaults)

    def problems_of(self, name: str) -> tuple[Problem, ...]:
        """Why a notebook cannot run: its own mistakes, or that the manifest is unreadable."""
        found = tuple(p for p in self.problems if p.scope == "notebook" and p.name == name)
        return found or ((self.unreadable,) if self.unreadable is not None else ())

    def locate(self, *path: str | int, key: bool = False) -> SourceLocation | None:
        """The location of a value: ``locate("notebooks", "signals", "parameters", "lookback")``.

        Parts that the manifest does not have are skipped; None without a manifest.
        With ``key=True``, the location of its key.
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
    """A notebook's entry, with the defaults for what it does not set."""
    merged = {"tags", "environment"}
    shared = {*SharedSpec.model_fields, "timezone"}
    unset = shared - spec.model_fields_set - merged
    update: dict[str, Any] = {name: getattr(defaults, name) for name in unset}
    # The notebook's own values win.
    if defaults.tags:
        update["tags"] = {**defaults.tags, **spec.tags}
    if defaults.environment:
        update["environment"] = {**defaults.environment, **spec.environment}
    if spec.partitions is not None:
        update["partitions"] = spec.partitions.in_timezone(spec.timezone or defaults.timezone)
    return spec.model_copy(update=update)
