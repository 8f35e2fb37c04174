"""Notebooks and manifest put together: what each notebook is, needs, and why it cannot run.

Text only, and nothing of Dagster: this is the answer to "what does the project say", of which
the factory makes definitions. Whatever is wrong with one notebook stays with that notebook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from research_jobs.environments.declared import Environment, declared_environment
from research_jobs.environments.making import existing_python
from research_jobs.errors import (
    DependencyCycleError,
    DependencyError,
    PartitionError,
    ResearchJobsError,
    SourceLocation,
    did_you_mean,
)
from research_jobs.manifest import Manifest, NotebookSpec, load_manifest
from research_jobs.notebook.lineage import shortest_cycle, strongly_connected
from research_jobs.notebook.parameters import convert_parameters
from research_jobs.notebook.scan import Scan, ScannedNotebook, scan
from research_jobs.notebook.version import code_version
from research_jobs.orchestration.model.crons import remembered_crons
from research_jobs.orchestration.model.names import AssetNames
from research_jobs.project import Project
from research_jobs.supervisor.request import preload_modules
from research_jobs.supervisor.shared import remember_preload

if TYPE_CHECKING:
    from research_jobs.orchestration.model.tried import Adopted

__all__ = ["Catalog", "Entry", "load_catalog"]


@dataclass(frozen=True)
class Entry:
    """One notebook.

    Parameters
    ----------
    notebook : ScannedNotebook
    spec : NotebookSpec
        What the manifest says, defaults merged in.
    error : ResearchJobsError or None
        Why it cannot run.
    warnings : tuple of str
        What looks wrong and does not keep it from running, one line each.
    upstream : tuple of str
        The notebooks that it reads or waits for, itself left out.
    assets : tuple of tuple of str
        Keys of other assets that it waits for.
    reads_itself : bool
        Whether it loads its own earlier outputs.
    parameters : mapping
        The manifest's values, converted.
    environment : Environment or None
        The one that it asks for; None where it runs in the project's.
    """

    notebook: ScannedNotebook
    spec: NotebookSpec
    error: ResearchJobsError | None = None
    warnings: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    assets: tuple[tuple[str, ...], ...] = ()
    reads_itself: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Environment | None = None

    @property
    def python(self) -> str | None:
        """Str or None: the interpreter that runs it, as far as there is one; None is ours."""
        made = existing_python(self.environment) if self.environment is not None else None
        return made or self.spec.python

    @property
    def name(self) -> str:
        """str: ``volatility/garch``."""
        return self.notebook.name

    @property
    def partitioned(self) -> bool:
        """bool: whether it has partitions or variants."""
        return self.spec.partitions is not None or bool(self.spec.variants)


@dataclass(frozen=True)
class Catalog:
    """All notebooks of a project.

    Parameters
    ----------
    project : Project
    scan : Scan
    manifest : Manifest
    entries : mapping of str to Entry
        By name, sorted.
    adopted : mapping of (str, str or None) to Adopted
        Notebooks and partitions that are not run, for they were tried: this is published.
    """

    project: Project
    scan: Scan
    manifest: Manifest
    entries: Mapping[str, Entry]
    adopted: Mapping[tuple[str, str | None], Adopted] = field(
        default_factory=dict[tuple[str, str | None], "Adopted"]
    )

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    @cached_property
    def names(self) -> AssetNames:
        """AssetNames: what the notebooks are called in Dagster."""
        return AssetNames(self.manifest.project.prefix)

    @cached_property
    def preload(self) -> tuple[str, ...]:
        """Tuple of str: the modules that a template imports ahead for all notebooks."""
        return preload_modules(self.scan)

    @property
    def sys_path(self) -> tuple[str, ...]:
        """Tuple of str: the project's own entries of ``sys.path``."""
        return tuple(str(self.project.root / entry) for entry in self.manifest.defaults.sys_path)

    def remember_preload(self) -> None:
        """Let the next command begin with the template that this one needs."""
        ours = [
            entry
            for entry in self
            if entry.error is None and not entry.spec.python and entry.environment is None
        ]
        if any(entry.spec.isolation != "spawn" for entry in ours):
            remember_preload(self.project, self.preload, self.sys_path)

    def upstream_of(self, name: str) -> set[str]:
        """All notebooks that one reads, directly or not."""
        found: set[str] = set()
        left = [name]
        while left:
            entry = self.entries.get(left.pop())
            new = set(entry.upstream) - found if entry else set[str]()
            found |= new
            left += new
        return found


def load_catalog(project: Project, *, whole: bool = True) -> Catalog:
    """Read a project's notebooks and manifest.

    Parameters
    ----------
    project : Project
    whole : bool
        Whether all notebooks are there; if not, others that the manifest names are no mistake.

    Returns
    -------
    Catalog
        Never raises for what a notebook or the manifest says: mistakes are in the entries.
    """
    scanned = scan(project)
    names = [notebook.name for notebook in scanned.notebooks]
    crons = remembered_crons(project.state / "cache")
    manifest = load_manifest(project, names if whole else None, cron=crons)
    if manifest.defaults.sys_path:
        # Where imports are looked up is said by the manifest, which needs the names first.
        scanned = scan(project, sys_path=manifest.defaults.sys_path)
    known = {notebook.name: notebook for notebook in scanned.notebooks}
    entries = {
        notebook.name: _entry(project, manifest, notebook, known) for notebook in scanned.notebooks
    }
    return Catalog(project, scanned, manifest, _break_cycles(entries))


def _entry(
    project: Project,
    manifest: Manifest,
    notebook: ScannedNotebook,
    known: Mapping[str, ScannedNotebook],
) -> Entry:
    spec = manifest.spec(notebook.name)
    for dimension in spec.partitions.columns.values() if spec.partitions else ():
        if dimension.dynamic is not None:
            dimension.dynamic.set_scope(manifest.project.prefix)
    error: ResearchJobsError | None = notebook.error
    problems = manifest.problems_of(notebook.name)
    if error is None and problems:
        error = problems[0].error
    parameters: dict[str, Any] = {}
    if error is None:
        try:
            parameters = _parameters(manifest, notebook, spec)
        except ResearchJobsError as wrong:
            error = wrong
    environment: Environment | None = None
    try:
        environment = declared_environment(project, notebook, spec, manifest)
        if environment is not None:
            error = error or environment.problem
            version = code_version(notebook.code_version, {"environment": environment.version})
            notebook = replace(notebook, code_version=version)
    except DependencyError as wrong:
        error = error or wrong
    upstream, assets, warnings = _needs(manifest, notebook, spec, known)
    warnings += [problem.error.headline for problem in problems[1:]]
    return Entry(
        notebook=notebook,
        spec=spec,
        error=error,
        warnings=tuple(dict.fromkeys(warnings)),
        upstream=tuple(name for name in upstream if name != notebook.name),
        assets=assets,
        reads_itself=notebook.reads_itself or notebook.name in upstream,
        parameters=parameters,
        environment=environment,
    )


def _parameters(
    manifest: Manifest, notebook: ScannedNotebook, spec: NotebookSpec
) -> dict[str, Any]:
    """The manifest's values for a notebook's parameters, converted; errors give their lines."""
    converted: dict[str, Any] = {}
    declared = {parameter.name for parameter in notebook.parameters}
    for name, value in spec.parameters.items():
        if name in spec.secret_parameters and name in declared:
            continue  # its value comes with the run
        where = manifest.locate("notebooks", notebook.name, "parameters", name)
        converted |= convert_parameters(
            notebook.parameters,
            {name: value},
            notebook=notebook.name,
            where=str(where) if where else None,
        )
    for variant, values in spec.variants.items():
        for name, value in values.items():
            where = manifest.locate("notebooks", notebook.name, "variants", variant, name)
            convert_parameters(
                notebook.parameters,
                {name: value},
                notebook=notebook.name,
                where=str(where) if where else None,
            )
    _check_partition_parameters(manifest, notebook, spec)
    return converted


def _check_partition_parameters(
    manifest: Manifest, notebook: ScannedNotebook, spec: NotebookSpec
) -> None:
    """Refuse a parameter that a partition is to set and the notebook does not have."""
    if spec.partitions is None:
        return
    declared = [parameter.name for parameter in notebook.parameters]
    for dimension in spec.partitions.columns.values():
        name = dimension.parameter
        if name is None or name in declared:
            continue
        path = ("notebooks", notebook.name, "partitions")
        where = manifest.locate(*path, "parameter")
        for key, inner in (spec.partitions.dimensions or {}).items():
            if inner is dimension:
                where = manifest.locate(*path, "dimensions", key, "parameter")
        raise PartitionError(
            f"the partition's parameter '{name}' is not one of {notebook.name}'s",
            where=where,
            hint=did_you_mean(name, declared, label="Parameters")
            or 'Assign it in a cell tagged: # %% tags=["parameters"].',
        )


def _needs(
    manifest: Manifest,
    notebook: ScannedNotebook,
    spec: NotebookSpec,
    known: Mapping[str, ScannedNotebook],
) -> tuple[list[str], tuple[tuple[str, ...], ...], list[str]]:
    """The notebooks and other assets that a notebook needs, and what looks wrong about them."""
    upstream: list[str] = []
    warnings: list[str] = []
    for call in notebook.loads:
        place = SourceLocation(call.path, call.line, call.column)
        if call.notebook not in known:
            hint = did_you_mean(call.notebook, known, label="Notebooks")
            warnings.append(
                f"{place}: load() of '{call.notebook}', which is not a notebook. {hint}"
            )
            continue
        upstream.append(call.notebook)
        outputs = manifest.spec(call.notebook).outputs
        if call.output is not None and call.output not in outputs:
            if manifest.problems_of(call.notebook):
                continue  # its outputs are not known
            hint = did_you_mean(call.output, outputs, label="Its outputs") or "It has none."
            warnings.append(
                f"{place}: '{call.notebook}' declares no output '{call.output}'. {hint}"
            )
    upstream += [name for name in spec.after if name in known]
    assets: list[tuple[str, ...]] = []
    names = AssetNames(manifest.project.prefix)
    for key in spec.deps:
        # As the manifest writes a notebook's name, or as Dagster does.
        own = [name for name in ("/".join(key), names.notebook_at(key)) if name in known]
        upstream += own[:1]
        if not own:
            assets.append(tuple(key))
    return list(dict.fromkeys(upstream)), tuple(dict.fromkeys(assets)), warnings


def _break_cycles(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Notebooks that need each other cannot run; they lose the dependencies among themselves."""
    fixed = dict(entries)
    for loop in strongly_connected({name: entry.upstream for name, entry in entries.items()}):
        members = set(loop)
        for name in loop:
            entry = entries[name]
            cyclic = [other for other in entry.upstream if other in members]
            way = shortest_cycle(name, {member: entries[member].upstream for member in members})
            fixed[name] = replace(
                entry,
                error=entry.error or _cycle_error(entries, way),
                upstream=tuple(other for other in entry.upstream if other not in cyclic),
            )
    return fixed


def _cycle_error(entries: Mapping[str, Entry], way: Sequence[str]) -> DependencyCycleError:
    """The loop in one line, and below it the lines of the notebooks that make it."""
    lines: list[str] = []
    for name, other in zip(way, (*way[1:], way[0]), strict=True):
        call = next((c for c in entries[name].notebook.loads if c.notebook == other), None)
        place = f"{call.path}:{call.line} loads it" if call else "notebooks/manifest.yaml says so"
        lines.append(f"  {name} needs {other}: {place}")
    call = next((c for c in entries[way[0]].notebook.loads if c.notebook in way), None)
    return DependencyCycleError(
        "notebooks load each other in a cycle: " + " -> ".join((*way, way[0])),
        where=SourceLocation(call.path, call.line, call.column) if call else None,
        hint="Remove one of these load() calls, or move what both need into a third notebook.",
        details="\n".join(lines),
    )
