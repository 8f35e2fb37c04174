"""The factory: a folder of notebooks and its manifest as Dagster definitions.

Every notebook is an asset, even a broken one: it is in the UI, and materialising it says what is
wrong. No notebook is imported here, and neither pandas nor pyarrow.

The definitions are built from Dagster's plain classes rather than with ``@dg.asset``: the decorator
costs half a millisecond per notebook in every process that loads the code location.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, TypeAlias

import dagster as dg

from research_jobs.errors import (
    ManifestError,
    NotebookError,
    PartitionError,
    ResearchJobsError,
    did_you_mean,
)
from research_jobs.manifest import FreshnessSpec, NotebookSpec, Problem, RetrySpec
from research_jobs.notebook.parameters import convert_parameters
from research_jobs.orchestration.compat.instance import serves_definitions
from research_jobs.orchestration.definitions.automation import automation_condition
from research_jobs.orchestration.definitions.jobs import ScheduledNotebook, notebook_jobs, op_names
from research_jobs.orchestration.definitions.schedules import BuiltSchedules, build_schedules
from research_jobs.orchestration.definitions.sensors import BuiltSensors, build_sensors
from research_jobs.orchestration.definitions.upkeep import prune_job, prune_schedule
from research_jobs.orchestration.execution.default_executor import default_executor
from research_jobs.orchestration.execution.io_manager import IO_MANAGER_KEY, NotebookIOManager
from research_jobs.orchestration.execution.step import NotebookStep
from research_jobs.orchestration.model.catalog import Catalog, Entry, load_catalog
from research_jobs.orchestration.model.checks import check_specs
from research_jobs.orchestration.model.config import (
    RESULT,
    config_schema,
    partition_parameters,
    settable_parameters,
)
from research_jobs.orchestration.model.definition_log import record_manifest, was_owed
from research_jobs.orchestration.model.mappings import partition_mapping
from research_jobs.orchestration.model.names import PRUNE_SCHEDULE, AssetNames
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.orchestration.model.stored import stored_keys
from research_jobs.project import Project, find_project

__all__ = ["build_defs", "catalog_defs", "definition_problems", "known_defs"]

logger = logging.getLogger("research_jobs")

Partitions: TypeAlias = dict[str, dg.PartitionsDefinition[Any] | None]

KINDS = ("python", "notebook")
KINDS_LIMIT = 10

_PLAIN = re.compile(r"[A-Za-z0-9_]+\Z")
# Its type is resolved once: Dagster checks every Python type before it finds Any, and would do so
# for each output of each notebook.
_ANYTHING: Any = Any
_ANY = dg.Out(_ANYTHING).dagster_type
_RESULT_OUT = dg.Out(_ANY, is_required=False, io_manager_key=IO_MANAGER_KEY)
_CHECK_OUT = dg.Out(_ANY, is_required=False)


def build_defs(
    project: str | os.PathLike[str] | Project | None = None,
    *,
    resources: Mapping[str, Any] | None = None,
    assets: Iterable[Any] = (),
    asset_checks: Iterable[Any] = (),
    jobs: Iterable[Any] = (),
    schedules: Iterable[Any] = (),
    sensors: Iterable[Any] = (),
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """Definitions of a project: an asset for each notebook, its checks, schedules and sensors.

    Parameters
    ----------
    project : path or Project, optional
        As `research_jobs.project.find_project` takes it.
    resources : mapping, optional
        Resources of the deployment; those that the manifest names as ``io_manager`` among them.
    assets, asset_checks, jobs, schedules, sensors : iterable, optional
        Further definitions of the deployment, which may depend on notebooks and be depended on.
    executor : ExecutorDefinition, optional
        An executor instead of ours; Dagster's own work too, but more slowly.

    Returns
    -------
    dagster.Definitions

    Raises
    ------
    ProjectError
        When there is no project. Mistakes in notebooks or the manifest never raise.
    """
    return catalog_defs(
        load_catalog(find_project(project)),
        resources=resources,
        assets=assets,
        asset_checks=asset_checks,
        jobs=jobs,
        schedules=schedules,
        sensors=sensors,
        executor=executor,
    )


def catalog_defs(
    catalog: Catalog,
    *,
    resources: Mapping[str, Any] | None = None,
    assets: Iterable[Any] = (),
    asset_checks: Iterable[Any] = (),
    jobs: Iterable[Any] = (),
    schedules: Iterable[Any] = (),
    sensors: Iterable[Any] = (),
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """Like `build_defs`, for a catalog that has been read."""
    given = dict(resources or {})
    ours = not (given or assets or asset_checks or jobs or schedules or sensors or executor)
    with warnings.catch_warnings():
        # Using beta features is our choice; users of notebooks cannot act on the warning.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        notebooks, entries, partitions = _assets(catalog, given)
        scheduled = _scheduled(catalog.names, entries, partitions, catalog.project.store)
        sensed = _sensors(catalog, entries, scheduled)
        timed = _schedules(catalog, entries, scheduled, sensed)
    problems = [*_general_problems(catalog), *timed.problems, *sensed.problems]
    for error in (*catalog.scan.problems, *(problem.error for problem in problems)):
        logger.warning("%s", error.headline)
    upkeep = prune_job(catalog)
    if serves_definitions():
        record_manifest(catalog, timed.problems)
    definitions = dg.Definitions(
        assets=[*notebooks, *assets],
        asset_checks=list(asset_checks),
        jobs=[*notebook_jobs(scheduled), upkeep, *jobs],
        schedules=[*timed.schedules, prune_schedule(catalog, upkeep), *schedules],
        sensors=[*sensed.sensors, *sensors],
        resources={IO_MANAGER_KEY: NotebookIOManager(catalog)} | given,
        executor=executor
        or default_executor(
            catalog.manifest.defaults.concurrency, catalog.project, catalog.names.prefix
        ),
    )
    if ours:
        _built[:] = [(catalog, definitions)]
    return definitions


# The last that this process has built: a command beside the host finds there what it needs.
_built: list[tuple[Catalog, dg.Definitions]] = []


def known_defs(catalog: Catalog) -> dg.Definitions | None:
    """The definitions of a catalog, if this process or the host that forked it built them last."""
    return next((built for of, built in _built if of == catalog), None)


def definition_problems(catalog: Catalog) -> list[tuple[str, ResearchJobsError]]:
    """Mistakes that only show when definitions are built, by name.

    They concern partitions that do not match, parameters of schedules, and watched patterns.
    Resources are not known here, so a notebook's ``io_manager`` is taken to be among them.
    """
    managers = {entry.spec.io_manager: None for entry in catalog if entry.spec.io_manager}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        _, entries, partitions = _assets(catalog, managers)
        scheduled = _scheduled(catalog.names, entries, partitions, catalog.project.store)
        sensed = _sensors(catalog, entries, scheduled)
        timed = _schedules(catalog, entries, scheduled, sensed)
    broken = [
        (name, entry.error)
        for name, entry in entries.items()
        if entry.error is not None and catalog.entries[name].error is None
    ]
    return broken + [(p.name or "", p.error) for p in (*timed.problems, *sensed.problems)]


def _general_problems(catalog: Catalog) -> list[Problem]:
    """Mistakes in the manifest that no asset shows."""
    return [
        problem
        for problem in catalog.manifest.problems
        if problem.scope != "notebook" or problem.name not in catalog.entries
    ]


def _schedules(
    catalog: Catalog,
    entries: Mapping[str, Entry],
    scheduled: Mapping[str, ScheduledNotebook],
    sensed: BuiltSensors,
) -> BuiltSchedules:
    def op_config(name: str, parameters: Mapping[str, Any], where: str | None) -> dict[str, Any]:
        entries[name].spec.refuse_secrets(parameters)
        declared = entries[name].notebook.parameters
        settable = scheduled[name].parameters
        mine = {key: value for key, value in parameters.items() if key in settable}
        return convert_parameters(declared, mine, notebook=name, where=where)

    return build_schedules(
        catalog.manifest.schedules,
        scheduled,
        op_config=op_config,
        locate=catalog.manifest.locate,
        manifest=catalog.project.manifest,
        owed_at=partial(was_owed, catalog.project),
        taken={PRUNE_SCHEDULE, *(sensor.name for sensor in sensed.sensors)},
    )


def _sensors(
    catalog: Catalog,
    entries: Mapping[str, Entry],
    scheduled: Mapping[str, ScheduledNotebook],
) -> BuiltSensors:
    return build_sensors(
        catalog.project,
        {name: entry.spec for name, entry in entries.items() if entry.error is None},
        scheduled,
        locate=catalog.manifest.locate,
    )


def _scheduled(
    names: AssetNames, entries: Mapping[str, Entry], partitions: Partitions, store: str
) -> dict[str, ScheduledNotebook]:
    ops = op_names(entries)
    return {
        name: ScheduledNotebook(
            name,
            partitions[name],
            op=ops[name],
            names=names,
            retries=entry.spec.retries.max if entry.spec.retries else 0,
            by=entry.spec.partitions.by if entry.spec.partitions else None,
            parameters=settable_parameters(entry),
            partition_parameters=partition_parameters(entry),
            stored=partial(stored_keys, store, entry),
        )
        for name, entry in entries.items()
    }


def _assets(
    catalog: Catalog, resources: Mapping[str, Any]
) -> tuple[list[dg.AssetsDefinition], dict[str, Entry], Partitions]:
    """One asset for each notebook; the entries, with what else is wrong; their partitions."""
    ops = op_names(catalog.entries)
    partitions: Partitions = {}
    entries: dict[str, Entry] = {}
    for entry in catalog:
        partitions[entry.name] = None
        try:
            _check_io_manager(catalog, entry, resources)
            if entry.error is None:
                partitions[entry.name] = build_partitions(
                    entry.spec, cache=catalog.project.state / "cache"
                )
        except ResearchJobsError as error:
            entry = _broken(entry, _placed(catalog, entry.name, error))  # noqa: PLW2901 - goes on
        entries[entry.name] = entry
    made: list[dg.AssetsDefinition] = []
    for name, entry in list(entries.items()):
        try:
            made.append(_asset(catalog, entry, ops[name], partitions))
        except Exception as error:  # noqa: BLE001, PERF203 - one must not take down the others
            wrong = error if isinstance(error, ResearchJobsError) else _undefinable(name, error)
            wrong = _placed(catalog, name, wrong)
            bare = replace(_broken(entry, wrong), upstream=(), assets=(), spec=NotebookSpec())
            entries[name], partitions[name] = bare, None
            made.append(_asset(catalog, bare, ops[name], partitions))
    return made, entries, partitions


def _broken(entry: Entry, error: ResearchJobsError) -> Entry:
    return entry if entry.error is not None else replace(entry, error=error)


def _placed(catalog: Catalog, name: str, error: ResearchJobsError) -> ResearchJobsError:
    """A mistake in partitions, with its location in the manifest."""
    if not isinstance(error, PartitionError) or error.where is not None:
        return error
    where = catalog.manifest.locate("notebooks", name, "partitions")
    what = error.what if error.what.startswith(f"{name} ") else f"notebook {name}: {error.what}"
    return ManifestError(what, where=where, hint=error.hint)


def _undefinable(name: str, error: Exception) -> NotebookError:
    said = " ".join(str(error).split())[:500] or type(error).__name__
    return NotebookError(f"notebook {name} cannot become an asset: {said}")


def _check_io_manager(catalog: Catalog, entry: Entry, resources: Mapping[str, Any]) -> None:
    key = entry.spec.io_manager
    if key is None or key in (IO_MANAGER_KEY, "io_manager") or key in resources:
        return
    raise ManifestError(
        f"the io_manager '{key}' of {entry.name} is not among the resources",
        where=catalog.manifest.locate("notebooks", entry.name, "io_manager"),
        hint=did_you_mean(key, resources, label="Resources")
        or "Pass it: build_defs(resources={...}).",
    )


def _asset(
    catalog: Catalog,
    entry: Entry,
    op_name: str,
    partitions: Partitions,
) -> dg.AssetsDefinition:
    broken = entry.error is not None
    spec = entry.spec
    key = catalog.names.key(entry.name)
    own = partitions[entry.name]
    deps: list[dg.AssetDep] = []
    for name in entry.upstream:
        mapping = (
            partition_mapping(partitions[name], own, names=(name, entry.name))
            if partitions[name] is not None and not broken
            else None
        )
        deps.append(dg.AssetDep(catalog.names.key(name), partition_mapping=mapping))
    deps += [dg.AssetDep(dg.AssetKey(list(other))) for other in entry.assets]

    checks = [] if broken else check_specs(key, spec.outputs)
    check_outputs = {check.get_python_identifier(): check for check in checks}
    manager = spec.io_manager if spec.io_manager and not broken else IO_MANAGER_KEY
    result = (
        _RESULT_OUT
        if manager == IO_MANAGER_KEY
        else dg.Out(_ANY, is_required=False, io_manager_key=manager)
    )
    inputs = {f"dep_{number}": dep.asset_key for number, dep in enumerate(deps)}
    op = dg.OpDefinition(
        compute_fn=NotebookStep(catalog, entry),
        name=op_name,
        ins=dict.fromkeys(inputs, dg.In(dg.Nothing)),
        outs={RESULT: result, **dict.fromkeys(check_outputs, _CHECK_OUT)},
        config_schema=None if broken else config_schema(entry, op_name),
        retry_policy=None if broken else _retry_policy(spec.retries),
        pool=catalog.names.pool(spec.pool),
    )
    ours = manager == IO_MANAGER_KEY
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={RESULT: key},
        node_def=op,
        specs=[_spec(catalog, entry, key, deps, own)],
        check_specs_by_output_name=check_outputs,
        # Another IO manager writes one partition at a time, so each gets its own run.
        backfill_policy=None if own is None else _one_run() if ours else _many_runs(),
    )


def _spec(
    catalog: Catalog,
    entry: Entry,
    key: dg.AssetKey,
    deps: Sequence[dg.AssetDep],
    partitions: dg.PartitionsDefinition[Any] | None,
) -> dg.AssetSpec:
    spec = entry.spec
    notebook = entry.notebook
    return dg.AssetSpec(
        key=key,
        deps=deps,
        description=_description(entry),
        metadata={
            "dagster/code_references": dg.CodeReferencesMetadataValue(
                code_references=[
                    dg.LocalFileCodeReference(
                        file_path=str(notebook.path),
                        line_number=1,
                        label=catalog.project.display(notebook.path),
                    )
                ]
            )
        },
        skippable=True,
        group_name=_group(entry),
        code_version=notebook.code_version or None,
        freshness_policy=_freshness(spec.freshness, spec.timezone) if spec.freshness else None,
        automation_condition=None if entry.error else automation_condition(spec, catalog.names),
        owners=list(spec.owners),
        tags=dict(spec.tags),
        kinds={*KINDS, *spec.kinds[: KINDS_LIMIT - len(KINDS)]},
        partitions_def=partitions,
    )


def _description(entry: Entry) -> str | None:
    """The manifest's description, else the notebook's prose, after the error if there is one."""
    said = entry.spec.description or entry.notebook.description
    lines: list[str] = []
    if entry.error is not None:
        lines.append(f"**Cannot run:** {_markdown(entry.error.headline)}")
    lines += [f"**Warning:** {_markdown(warning)}" for warning in entry.warnings]
    return "\n\n".join([*lines, said] if said else lines) or None


def _markdown(text: str) -> str:
    """Text escaped for Markdown."""
    return re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", text)


def _group(entry: Entry) -> str | None:
    """The manifest's group, else the notebook's folder."""
    folder = entry.name.rpartition("/")[0].replace("/", "_")
    return entry.spec.group or (folder if _PLAIN.match(folder) else None)


def _retry_policy(retries: RetrySpec | None) -> dg.RetryPolicy | None:
    if retries is None or retries.max == 0:
        return None
    return dg.RetryPolicy(
        max_retries=retries.max,
        delay=retries.delay or None,
        backoff=dg.Backoff(retries.backoff.upper()) if retries.backoff else None,
        jitter=dg.Jitter(retries.jitter.upper()) if retries.jitter else None,
    )


def _freshness(freshness: FreshnessSpec, timezone: str | None) -> dg.FreshnessPolicy:
    within = timedelta(seconds=freshness.within)
    if freshness.cron is not None:
        return dg.FreshnessPolicy.cron(
            deadline_cron=freshness.cron,
            lower_bound_delta=within,
            timezone=freshness.timezone or timezone or "UTC",
        )
    warn = freshness.warn_within
    return dg.FreshnessPolicy.time_window(
        fail_window=within, warn_window=timedelta(seconds=warn) if warn else None
    )


@lru_cache(maxsize=1)
def _one_run() -> dg.BackfillPolicy:
    return dg.BackfillPolicy.single_run()


@lru_cache(maxsize=1)
def _many_runs() -> dg.BackfillPolicy:
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
