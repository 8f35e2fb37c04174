"""Sensors: files that arrive, partition keys that another notebook lists, automation.

All are switched on from the start: writing them into the manifest is enough.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.errors import ManifestError, PartitionError, did_you_mean
from research_jobs.manifest import DynamicSpec, NotebookSpec, Problem
from research_jobs.manifest.partitions import dimension_specs
from research_jobs.orchestration.definitions.automation import (
    automation_condition,
    automation_sensor,
)
from research_jobs.orchestration.definitions.jobs import ScheduledNotebook
from research_jobs.orchestration.definitions.watching import (
    FileScan,
    Pattern,
    compile_pattern,
    scan_files,
)
from research_jobs.orchestration.model.dynamic_keys import changes
from research_jobs.orchestration.model.names import AssetNames
from research_jobs.orchestration.model.partitions import newest_keys
from research_jobs.project import Project

__all__ = ["BuiltSensors", "build_sensors"]

INTERVAL_S = 30
FILES_TAG = "research_jobs/files"
# Postgres keeps tags in an index whose entries have 2,704 bytes at most.
LONGEST_TAG = 600

AnySensor = dg.SensorDefinition


class BuiltSensors:
    """The sensors, and the problems of those that could not be built.

    Parameters
    ----------
    sensors : tuple of dagster.SensorDefinition
    problems : tuple of Problem
        Each disables its sensor, but not the notebook.
    """

    def __init__(self, sensors: Sequence[AnySensor], problems: Sequence[Problem]) -> None:
        self.sensors = tuple(sensors)
        self.problems = tuple(problems)


def build_sensors(
    project: Project,
    specs: Mapping[str, NotebookSpec],
    notebooks: Mapping[str, ScheduledNotebook],
    *,
    locate: Callable[..., Any] | None = None,
) -> BuiltSensors:
    """Build the sensors of a manifest.

    Parameters
    ----------
    project : Project
    specs : mapping of str to NotebookSpec
        The specs of valid notebooks.
    notebooks : mapping of str to ScheduledNotebook
    locate : callable, optional
        `Manifest.locate`, for messages.

    Returns
    -------
    BuiltSensors
        One for each watched notebook, one for each set of dynamic keys, and one for all
        automation.
    """
    sensors: list[AnySensor] = []
    problems: list[Problem] = []
    dynamic: dict[str, tuple[DynamicSpec, AssetNames]] = {}
    automated: list[dg.AssetKey] = []
    for name, spec in specs.items():
        notebook = notebooks[name]
        if spec.watch:
            try:
                sensors.append(_watch_sensor(project, spec, notebook))
            except PartitionError as error:
                where = locate("notebooks", name, "watch") if locate is not None else None
                wrong = ManifestError(
                    f"notebook {name}: {error.what}", where=where, hint=error.hint
                )
                problems.append(Problem("notebook", name, wrong))
        for dimension in dimension_specs(spec).values():
            if dimension.dynamic is not None:
                listed = dimension.dynamic
                dynamic.setdefault(listed.definition_name, (listed, notebook.names))
        if automation_condition(spec, notebook.names) is not None:
            automated.append(notebook.key)
    slugs = Counter(map(_slug, dynamic))
    sensors += [
        _keys_sensor(project, *source, alone=slugs[_slug(name)] == 1)
        for name, source in dynamic.items()
    ]
    automation = automation_sensor(automated)
    if automation is not None:
        sensors.append(automation)
    return BuiltSensors(sensors, problems)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", text)


# --- files ----------------------------------------------------------------------------------------


def _watch_sensor(
    project: Project,
    spec: NotebookSpec,
    notebook: ScheduledNotebook,
) -> dg.SensorDefinition:
    patterns = [compile_pattern(text) for text in spec.watch]
    fields = _fields(patterns, spec)
    root: Path = project.root

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        scan = scan_files(patterns, root, context.cursor, time.time_ns())
        if scan.first:
            return dg.SensorResult(
                skip_reason=f"watching; {scan.files} files already exist", cursor=scan.cursor
            )
        if not scan.arrived:
            waiting = f"; {scan.waiting} are still being written" if scan.waiting else ""
            return dg.SensorResult(skip_reason=f"nothing new{waiting}", cursor=scan.cursor)
        with dg.partition_loading_context(None, context.instance):
            requests, strays = _file_requests(scan, notebook, fields)
        for stray in strays:
            context.log.warning(stray)
        if not requests:
            reason = strays[0] if strays else "there is no partition yet"
            return dg.SensorResult(skip_reason=reason, cursor=scan.cursor)
        return dg.SensorResult(run_requests=requests, cursor=scan.cursor)

    return dg.SensorDefinition(
        name=f"watch_{_slug(notebook.op)}",
        evaluation_fn=evaluate,
        target=dg.AssetSelection.assets(notebook.key),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Runs {notebook.name} when files arrive: {', '.join(spec.watch)}.",
    )


def _fields(patterns: Iterable[Pattern], spec: NotebookSpec) -> dict[str, str]:
    """Field of a pattern to the dimension whose key it has."""
    columns = dimension_specs(spec)
    names = {column: column for column in columns}
    for column, dimension in columns.items():
        if dimension.parameter is not None:
            names[dimension.parameter] = column
    if len(columns) == 1:
        names["partition"] = next(iter(columns))
    found: dict[str, str] = {}
    for pattern in patterns:
        for name in pattern.fields:
            if name not in names:
                hint = (
                    did_you_mean(name, names, label="Its partitions")
                    if names
                    else "Write * for any text."
                )
                raise PartitionError(f"watch: {{{name}}} is not a partition of it", hint=hint)
            found[name] = names[name]
        if pattern.fields and {names[n] for n in pattern.fields} != set(columns):
            missing = sorted(set(columns) - {names[n] for n in pattern.fields})
            raise PartitionError(
                f"watch: '{pattern.text}' names only part of the partition, not {{{missing[0]}}}",
                hint="Name every dimension, or none.",
            )
    return found


def _file_requests(
    scan: FileScan, notebook: ScheduledNotebook, fields: Mapping[str, str]
) -> tuple[list[dg.RunRequest], list[str]]:
    """One run request, or one for each partition that the files name."""
    by_key: dict[str | None, list[str]] = {}
    strays: list[str] = []
    definition = notebook.partitions
    for path, values in scan.arrived:
        if definition is None:
            by_key.setdefault(None, []).append(path)
        elif values:
            parts = {fields[name]: text for name, text in values.items()}
            key = "|".join(parts[name] for name in sorted(parts))
            if _exists(definition, key):
                by_key.setdefault(key, []).append(path)
            else:
                stray = f"{path} names the partition '{key}', which does not exist"
                strays.append(_storable(stray))
        else:
            for key in newest_keys(definition):
                by_key.setdefault(key, []).append(path)
    requests = [
        dg.RunRequest(
            run_key=_run_key(notebook, key, paths, scan),
            asset_selection=[notebook.key],
            partition_key=key,
            tags={FILES_TAG: _listed(paths)},
        )
        for key, paths in by_key.items()
    ]
    return requests, strays


def _exists(definition: dg.PartitionsDefinition[Any], key: str) -> bool:
    try:
        return definition.has_partition_key(key)
    except ValueError:
        return False


def _run_key(
    notebook: ScheduledNotebook, key: str | None, paths: Sequence[str], scan: FileScan
) -> str:
    """The same key for the same files in the same state: a daemon that dies here requests once."""
    state = hashlib.sha256(f"{paths}{scan.cursor}".encode()).hexdigest()[:24]
    return f"{notebook.name}|{key or ''}|{state}"[-250:]


def _listed(paths: Sequence[str]) -> str:
    text = ", ".join(paths[:3])
    text = _storable(f"{text} and {len(paths) - 3} more" if len(paths) > 3 else text)
    return text[:LONGEST_TAG]


def _storable(text: str) -> str:
    """A text that a database takes: names of files need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


# --- keys that a notebook lists -------------------------------------------------------------------


def _keys_sensor(
    project: Project, source: DynamicSpec, names: AssetNames, *, alone: bool
) -> dg.SensorDefinition:
    asset = names.key(source.notebook)
    name = source.definition_name
    # Those of a/b and of a_b would be one.
    tail = "" if alone else f"_{hashlib.sha256(name.encode()).hexdigest()[:6]}"

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        event = context.instance.get_latest_materialization_event(asset)
        stamp = f"{event.run_id}|{event.timestamp}" if event is not None else None
        if stamp is None:
            return dg.SensorResult(skip_reason=f"{source.notebook} has not run yet")
        if stamp == context.cursor:
            return dg.SensorResult(skip_reason=f"{source.notebook} has nothing new")
        added, removed = changes(context.instance, project, source)
        definition = dg.DynamicPartitionsDefinition(name=source.definition_name)
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if added:
            requests.append(definition.build_add_request(added))
        if removed:
            requests.append(definition.build_delete_request(removed))
        if not requests:
            return dg.SensorResult(skip_reason="the same keys as before", cursor=stamp)
        return dg.SensorResult(dynamic_partitions_requests=requests, cursor=stamp)

    return dg.SensorDefinition(
        name=f"keys_of_{_slug(name)}{tail}",
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Keeps the partitions that {source.definition_name} lists up to date.",
    )
