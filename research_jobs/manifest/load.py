"""`notebooks/manifest.yaml` -> `Manifest`: every mistake has a location and disables one thing.

Each entry is validated on its own. A mistake in a notebook, schedule or channel disables that one,
and a default with a mistake is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from research_jobs.errors import ManifestError, SourceLocation, did_you_mean
from research_jobs.manifest.alerts import (
    ChannelSpec,
    HeartbeatSpec,
    read_heartbeat,
)
from research_jobs.manifest.backup import BackupSpec, read_backup
from research_jobs.manifest.cron import CronCheck
from research_jobs.manifest.document import Node, read_document
from research_jobs.manifest.manifest import Manifest, Problem, Scope, with_defaults
from research_jobs.manifest.messages import (
    is_plain_name,
    suggest_key,
)
from research_jobs.manifest.models import (
    Defaults,
    NotebookSpec,
    ProjectSpec,
    ReportsSpec,
    ScheduleSpec,
)
from research_jobs.manifest.recipients import RecipientsReader
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.manifest.retention import RetentionSpec
from research_jobs.manifest.values import is_variable
from research_jobs.project import Project, notebook_name

__all__ = ["load_manifest"]

SECTIONS = (
    "defaults", "notebooks", "schedules", "secrets", "reports", "alerts", "heartbeat", "backup",
    "retention", "remotes",
)  # fmt: skip
_SYNONYMS = {
    "notebook": "notebooks",
    "schedule": "schedules",
    "alert": "alerts",
    "remote": "remotes",
}
_ENTRIES = ("notebooks", "schedules", "alerts", "remotes")  # sections of entries that stand alone
TOP_LEVEL = (*SECTIONS, *ProjectSpec.model_fields)


def load_manifest(
    project: Project,
    notebooks: Iterable[str] | None,
    *,
    cron: CronCheck | None = None,
    path: Path | None = None,
) -> Manifest:
    """Read a project's manifest.

    Parameters
    ----------
    project : Project
    notebooks : iterable of str or None
        Names of the notebooks that exist (``volatility/garch``); None where any may.
    cron : callable, optional
        Dagster's check of cron expressions; without it they are not checked.
    path : Path, optional
        Another file than the project's.

    Returns
    -------
    Manifest
        Mistakes in the file never raise; they are in ``problems``.
    """
    try:
        file = path or project.manifest
        document = read_document(file, project.display(file))
    except ManifestError as error:
        problem = Problem("manifest", None, error)
        return Manifest(problems=(problem,), unreadable=problem)
    return _Loader(document, None if notebooks is None else frozenset(notebooks), cron).load()


class _Loader(RecipientsReader):
    """One manifest being read."""

    unreadable: Problem | None = None
    broken_defaults: frozenset[str] = frozenset()

    def load(self) -> Manifest:
        root = self.document.root
        if root is None or root.data is None:
            return Manifest(document=self.document)
        if not isinstance(root.data, dict):
            self._block(
                "the manifest is not a mapping",
                self.document.locate(()),
                f"Its sections are {', '.join(SECTIONS)}.",
            )
            return self._finish()
        self._sections(root)
        defaults = self._defaults(root.children.get("defaults"))
        notebooks = self._notebooks(root.children.get("notebooks"), defaults)
        schedules = self._schedules(root.children.get("schedules"), defaults)
        secrets = self._secrets(root.children.get("secrets"))
        reports = self._lenient(ReportsSpec, root.children.get("reports"), "reports")[0]
        alerts = self._alerts(root, defaults)
        heartbeat = self._optional(root, "heartbeat", HeartbeatSpec, read_heartbeat)
        backup = self._optional(root, "backup", BackupSpec, read_backup)
        kept = self._lenient(RetentionSpec, root.children.get("retention"), "retention")[0]
        remotes = self._remotes(root.children.get("remotes"))
        project = self._project(root)
        defaults = self._recipients(root, defaults, notebooks, schedules)
        if self.unreadable is not None:
            notebooks, schedules = {}, {}
        return self._finish(
            defaults,
            notebooks,
            schedules,
            secrets,
            reports,
            alerts,
            heartbeat,
            backup,
            kept,
            remotes,
            project,
        )

    def _finish(self, *parts: Any) -> Manifest:
        names = (*SECTIONS, "project")
        ordered = sorted(
            self.problems,
            key=lambda p: (
                (p.error.where.line or 0, p.error.where.column or 0) if p.error.where else (0, 0)
            ),
        )
        return Manifest(
            **dict(zip(names, parts, strict=False)),
            problems=tuple(ordered),
            unreadable=self.unreadable,
            document=self.document,
        )

    # --- sections ------------------------------------------------------------------------------

    def _sections(self, root: Node) -> None:
        for defect in self.document.defects:
            if len(defect.path) < 2 or defect.path[0] not in _ENTRIES:
                where = self.document.where(defect.mark)
                if defect.path[:1] == ("notebooks",):
                    self._block(defect.what, where, defect.hint)
                else:
                    self._problem("manifest", None, defect.what, where, defect.hint)
        for key, child in root.items():
            if key in TOP_LEVEL:
                continue
            where = self.document.where(root.keys.get(key, child.mark))
            hint = suggest_key(key, TOP_LEVEL, _SYNONYMS)
            what = f"unknown section '{key}'"
            if "'notebooks'" in hint and "notebooks" not in root.children:
                self._block(what, where, hint)
            else:
                if not hint.startswith("Did") and key in (self.known or ()):
                    hint = f"Put the notebook '{key}' under notebooks, indented."
                self._problem("manifest", None, what, where, hint)

    def _project(self, root: Node) -> ProjectSpec:
        """The top-level keys; with a bad prefix no notebook may run, as asset keys would change."""
        data = {key: child.data for key, child in root.items() if key in ProjectSpec.model_fields}
        try:
            return ProjectSpec.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain("manifest", None, ProjectSpec, (), detail)
                data.pop(str(detail["loc"][0]))
            if "prefix" in root.children and "prefix" not in data:
                self.unreadable = next(
                    p for p in self.problems if p.error.what.startswith("prefix:")
                )
            return ProjectSpec.model_validate(data)

    def _defaults(self, node: Node | None) -> Defaults:
        defaults, broken = self._lenient(Defaults, node, "defaults")
        self.broken_defaults = broken
        return defaults

    def _lenient(
        self, model: type[Any], node: Node | None, section: str
    ) -> tuple[Any, frozenset[str]]:
        """A model from a section; keys with mistakes fall back to their defaults."""
        if node is None or node.data is None:
            return model(), frozenset()
        if not isinstance(node.data, dict):
            self._wrong_shape("manifest", section, node)
            return model(), frozenset()
        data = dict(node.data)
        broken: set[str] = {
            str(d.path[1])
            for d in self.document.defects
            if len(d.path) > 1 and d.path[0] == section
        }
        for key in broken:
            data.pop(key, None)
        try:
            return model.model_validate(data, context=self.context), frozenset(broken)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain("manifest", None, model, (section,), detail)
                key = str(detail["loc"][0]) if detail["loc"] else ""
                broken.add(key)
                data.pop(key, None)
        try:
            # the remaining keys are valid
            return model.model_validate(data, context=self.context), frozenset(broken)
        except ValidationError:
            return model(), frozenset(broken | set(data))

    def _notebooks(self, node: Node | None, defaults: Defaults) -> dict[str, NotebookSpec]:
        if node is None or node.data is None:
            return {}
        if not isinstance(node.data, dict):
            names = isinstance(node.data, list)
            self._block(
                "notebooks is not a mapping",
                self.document.where(node.mark),
                "Write 'market_data: {outputs: [prices]}', one entry per notebook"
                + (", without dashes." if names else "."),
            )
            return {}
        valid: dict[str, NotebookSpec] = {}
        first: dict[str, str] = {}
        for written, child in node.items():
            name = notebook_name(written)
            where = self.document.where(node.keys.get(written, child.mark))
            path = ("notebooks", written)
            if name in first:
                self._problem(
                    "notebook",
                    name,
                    f"duplicate notebook '{name}', written as '{first[name]}' and '{written}'",
                    where,
                    "Keep one.",
                )
                valid.pop(name, None)
                continue
            first[name] = written
            fine = self._no_defects("notebook", name, path)
            if not self._exists(name):
                self._problem(
                    "notebook",
                    name,
                    f"there is no notebook '{written}'",
                    where,
                    self._close(name) or f"Create notebooks/{name}.py.",
                )
                fine = False
            spec = self._validate(NotebookSpec, "notebook", name, path, child)
            if spec is None or not fine or not self._names_in(spec, name, path):
                continue
            if "timezone" in self.broken_defaults and spec.takes_timezone:
                self._needs_timezone("notebook", name, where)
                continue
            valid[name] = with_defaults(spec, defaults)
        unsound = [
            name
            for name, spec in valid.items()
            if not self._sources_of(name, spec, valid, first)
            or not self._samples_of(name, spec, valid, first)
        ]
        for name in unsound:
            del valid[name]
        return valid

    def _samples_of(
        self,
        name: str,
        spec: NotebookSpec,
        valid: Mapping[str, NotebookSpec],
        written: Mapping[str, str],
    ) -> bool:
        """Check that the inputs of its test are outputs of notebooks."""
        for key, notebook, output, _, _ in spec.test.files() if spec.test is not None else ():
            if not self._exists(notebook):
                what, hint = f"there is no notebook '{notebook}'", self._close(notebook)
            elif notebook in written and notebook not in valid:
                continue  # its mistake is reported at its entry
            else:
                outputs = valid.get(notebook, NotebookSpec()).outputs
                if output in outputs:
                    continue
                what = f"{notebook} declares no output '{output}'"
                hint = did_you_mean(output, outputs, label="Its outputs")
                hint = hint or "Declare it under its outputs."
            place = ("notebooks", written[name], "test", "inputs", key)
            where = self.document.locate(place, key=True)
            self._problem("notebook", name, f"notebook {name}, test.inputs: {what}", where, hint)
            return False
        return True

    def _sources_of(
        self,
        name: str,
        spec: NotebookSpec,
        valid: Mapping[str, NotebookSpec],
        written: Mapping[str, str],
    ) -> bool:
        """Check that the outputs that should list partition keys can do so."""
        columns = spec.partitions.columns if spec.partitions is not None else {}
        for column, dimension in columns.items():
            source = dimension.dynamic
            # a mistake in the source is reported at the source
            if source is None or (source.notebook in written and source.notebook not in valid):
                continue
            source_spec = valid.get(source.notebook, NotebookSpec())
            path = ("notebooks", written[name], "partitions", "dimensions", column, "dynamic")
            if source.output not in source_spec.outputs:
                what = f"{source.notebook} declares no output '{source.output}'"
                hint = did_you_mean(source.output, source_spec.outputs, label="Its outputs")
                hint = hint or "Declare it under its outputs."
                where = self.document.locate((*path, "output"))
            elif source_spec.partitions is not None or source_spec.variants:
                what = (
                    f"{source.notebook} is itself partitioned, so no single output lists the keys"
                )
                hint = "Take the keys from a notebook without partitions."
                where = self.document.locate((*path, "notebook"))
            else:
                continue
            self._problem(
                "notebook", name, f"notebook {name}, partitions.dynamic: {what}", where, hint
            )
            return False
        return True

    def _names_in(self, spec: NotebookSpec, name: str, path: tuple[str, ...]) -> bool:
        """Check that the other notebooks that an entry names exist."""
        named: list[tuple[tuple[str | int, ...], str]] = [
            (("after", i), n) for i, n in enumerate(spec.after)
        ]
        if spec.partitions is not None:
            for column, dimension in spec.partitions.columns.items():
                if dimension.dynamic is not None:
                    place = ("partitions", "dimensions", column, "dynamic", "notebook")
                    named.append((place, dimension.dynamic.notebook))
        fine = True
        for place, notebook in named:
            if not self._exists(notebook):
                what = f"{place[0]}: there is no notebook '{notebook}'"
                hint = self._close(notebook)
            elif notebook == name:
                what, hint = f"{place[0]}: the notebook '{name}' names itself", "Name another."
            else:
                continue
            fine = False
            where = self.document.locate((*path, *place))
            self._problem("notebook", name, f"notebook {name}: {what}", where, hint)
        return fine

    def _entries_of(self, node: Node | None, scope: Scope, section: str) -> dict[str, Node]:
        """The entries of a section by name; none where it is left out or is not a mapping."""
        if node is None or node.data is None:
            return {}
        if not isinstance(node.data, dict):
            self._wrong_shape(scope, section, node)
            return {}
        return dict(node.items())

    def _schedules(self, node: Node | None, defaults: Defaults) -> dict[str, ScheduleSpec]:
        valid: dict[str, ScheduleSpec] = {}
        for name, child in self._entries_of(node, "manifest", "schedules").items():
            path = ("schedules", name)
            where = self.document.locate(path, key=True)
            fine = self._no_defects("schedule", name, path)
            if not is_plain_name(name):
                better = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
                self._problem(
                    "schedule",
                    name,
                    f"the schedule name '{name}' has characters other than letters, digits and _",
                    where,
                    f"Did you mean '{better}'?",
                )
                fine = False
            spec = self._validate(ScheduleSpec, "schedule", name, path, child)
            if spec is None or not fine:
                continue
            unknown = [(i, n) for i, n in enumerate(spec.notebooks) if not self._exists(n)]
            for index, notebook in unknown:
                self._problem(
                    "schedule",
                    name,
                    f"schedule {name}: there is no notebook '{notebook}'",
                    self.document.locate((*path, "notebooks", index)),
                    self._close(notebook),
                )
            if unknown:
                continue
            if spec.timezone is None and "timezone" in self.broken_defaults:
                self._needs_timezone("schedule", name, where)
                continue
            timezone = spec.timezone or defaults.timezone
            valid[name] = spec.model_copy(update={"timezone": timezone})
        return valid

    def _secrets(self, node: Node | None) -> tuple[str, ...]:
        if node is None or node.data is None:
            return ()
        items = [node] if isinstance(node.data, str) else list(node.children.values())
        if isinstance(node.data, dict) or not (isinstance(node.data, (list, str))):
            self._wrong_shape("manifest", "secrets", node)
            return ()
        variables: list[str] = []
        for item in items:
            name = item.data
            if is_variable(name):
                variables.append(name)
            else:
                self._problem(
                    "manifest",
                    None,
                    f"secrets: {name!r} is not an environment variable name",
                    self.document.where(item.mark),
                    "List names such as DB_PASSWORD, never their values.",
                )
        return tuple(dict.fromkeys(variables))

    # --- alerts --------------------------------------------------------------------------------

    def _alerts(self, root: Node, defaults: Defaults) -> dict[str, ChannelSpec]:
        valid: dict[str, ChannelSpec] = {}
        written = self._entries_of(root.children.get("alerts"), "channel", "alerts")
        for name, child in written.items():
            path = ("alerts", name)
            fine = self._no_defects("channel", name, path)
            spec = self._validate(ChannelSpec, "channel", name, path, child)
            if spec is None or not fine:
                continue
            valid[name] = spec.in_timezone(defaults.timezone)
            for index, notebook in enumerate(spec.audience.notebooks if spec.audience else ()):
                if not any(c in notebook for c in "*?[") and not self._exists(notebook):
                    what = f"channel {name}, for: there is no notebook '{notebook}'"
                    where = self.document.locate((*path, "for", "notebooks", index))
                    self._problem("manifest", None, what, where, self._close(notebook))
        return valid

    def _optional(self, root: Node, name: str, model: type[Any], read: Callable[[Any], Any]) -> Any:
        """A section that is there whole or not at all."""
        node = root.children.get(name)
        if node is None or node.data is None:
            return None
        try:
            return model.model_validate(read(node.data))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain("manifest", None, model, (name,), detail)
            return None

    def _remotes(self, node: Node | None) -> dict[str, RemoteSpec]:
        valid: dict[str, RemoteSpec] = {}
        for name, child in self._entries_of(node, "remote", "remotes").items():
            path = ("remotes", name)
            fine = self._no_defects("remote", name, path)
            spec = self._validate(RemoteSpec, "remote", name, path, child)
            if spec is not None and fine:
                valid[name] = spec
        return valid

    # --- what several sections need ------------------------------------------------------------

    def _block(self, what: str, where: SourceLocation, hint: str) -> None:
        self.unreadable = self._problem("manifest", None, what, where, hint)

    def _needs_timezone(self, scope: Scope, name: str, where: SourceLocation) -> None:
        self._problem(
            scope,
            name,
            f"{scope} {name} takes its time zone from defaults, where it is invalid",
            where,
            "Correct defaults.timezone, or set one here.",
        )
