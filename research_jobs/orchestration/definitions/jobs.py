"""Jobs over notebooks: Dagster's own for schedules and sensors, named ones for its commands.

A job that names its assets can have only one partitioning, but a folder of notebooks has several.
The job that Dagster creates for all assets has no such limit: a click on "Materialize" runs it, and
schedules and sensors select from it.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import dagster as dg

from research_jobs.orchestration.model.names import AssetNames

if TYPE_CHECKING:
    from research_jobs.orchestration.compat.assets import UnresolvedAssetJobDefinition

__all__ = [
    "ALL_ASSETS_JOB",
    "JOB_NAME",
    "NOTEBOOK_JOBS",
    "ScheduledNotebook",
    "notebook_jobs",
    "op_names",
]

# Dagster's name of the job that it makes of all assets.
ALL_ASSETS_JOB = "__ASSET_JOB"
JOB_NAME = "notebooks"
# How the names of jobs that run notebooks begin; that of a schedule has a name of Dagster's.
NOTEBOOK_JOBS = (ALL_ASSETS_JOB, JOB_NAME, "__anonymous_asset_job")
# Each job costs milliseconds of every load.
MOST_JOBS = 30

# Characters that Dagster does not allow in the name of an op.
_TAKEN = frozenset(
    {"arg_dict", "bool", "conf", "config", "context", "dict", "float", "input", "input_arg_dict"}
    | {"int", "meta", "output", "output_arg_dict", "str", "type"}
)
_PLAIN = re.compile(r"[A-Za-z0-9_]+\Z")


def op_names(names: Iterable[str]) -> dict[str, str]:
    """The op (and step) of each notebook: ``volatility/garch`` is ``volatility__garch``.

    Two notebooks never share one, though ``a/b`` and ``a__b`` would.
    """
    found: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(names, key=lambda name: ("/" in name, name)):
        op = name.replace("/", "__")
        if not _PLAIN.match(op):
            op = f"{re.sub(r'[^A-Za-z0-9_]', '_', op)}_{sha256(name.encode()).hexdigest()[:6]}"
        if op in _TAKEN or keyword.iskeyword(op):
            op += "_"
        if op in used:
            op = f"{op}_{sha256(name.encode()).hexdigest()[:6]}"
        used.add(op)
        found[name] = op
    return found


@dataclass(frozen=True)
class ScheduledNotebook:
    """The facts about a notebook that jobs, schedules and sensors need.

    Parameters
    ----------
    name : str
    partitions : dagster.PartitionsDefinition or None
    op : str
        The name of its op, from `op_names`.
    names : AssetNames
        The project's.
    retries : int
        How many failed runs of a partition are retried.
    by : str or None
        The manifest's ``by`` for time partitions.
    parameters : tuple of str
        The names of the notebook's parameters that a schedule may set.
    partition_parameters : frozenset of str
        Those that the partition sets.
    stored : callable
        Returns the partitions that have outputs in the store; None if that is unknown.
    """

    name: str
    partitions: dg.PartitionsDefinition[Any] | None = None
    op: str = field(kw_only=True)
    names: AssetNames = field(default_factory=AssetNames)
    retries: int = 0
    by: str | None = None
    parameters: tuple[str, ...] = ()
    partition_parameters: frozenset[str] = frozenset()
    stored: Callable[[], frozenset[str] | None] = field(
        default=lambda: None, compare=False, repr=False
    )

    @property
    def key(self) -> dg.AssetKey:
        """dagster.AssetKey: of its asset."""
        return self.names.key(self.name)


def notebook_jobs(
    notebooks: Mapping[str, ScheduledNotebook],
) -> list[UnresolvedAssetJobDefinition]:
    """Jobs for people and for ``dagster job backfill``.

    Parameters
    ----------
    notebooks : mapping of str to ScheduledNotebook

    Returns
    -------
    list of dagster.UnresolvedAssetJobDefinition
        ``notebooks`` over all that have no partitions, and one for each partitioning:
        ``notebooks_by_day`` (by values, by keys); where several are by day, the name of the first
        notebook of each is appended. At most thirty, those with the most notebooks.
    """
    groups = partition_groups(notebooks[name] for name in sorted(notebooks))
    plain = [n for n in notebooks.values() if n.partitions is None]
    kinds = [_kind(members[0]) for _, members in groups]
    jobs: list[UnresolvedAssetJobDefinition] = []
    if plain:
        jobs.append(_job(JOB_NAME, plain, "All notebooks without partitions."))
    largest = sorted(groups, key=lambda group: -len(group[1]))[:MOST_JOBS]
    for group in groups:
        if group not in largest:
            continue
        members = group[1]
        kind = _kind(members[0])
        name = f"{JOB_NAME}_by_{kind}"
        if kinds.count(kind) > 1:
            name = f"{name}_{members[0].op}"
        # The dimensions of one may be called as the kind and a notebook of another.
        if name in {job.name for job in jobs}:
            name = f"{name}_{sha256(members[0].name.encode()).hexdigest()[:6]}"
        jobs.append(_job(name, members, f"Notebooks with the same partitions, by {kind}."))
    return jobs


def partition_groups(
    notebooks: Iterable[ScheduledNotebook],
) -> list[tuple[dg.PartitionsDefinition[Any], list[ScheduledNotebook]]]:
    """Those with partitions, by what they share."""
    groups: dict[dg.PartitionsDefinition[Any], list[ScheduledNotebook]] = {}
    for notebook in notebooks:
        if notebook.partitions is not None:
            groups.setdefault(notebook.partitions, []).append(notebook)
    return list(groups.items())


def _kind(notebook: ScheduledNotebook) -> str:
    if notebook.by is not None:
        return notebook.by
    if isinstance(notebook.partitions, dg.DynamicPartitionsDefinition):
        return "keys"
    if isinstance(notebook.partitions, dg.MultiPartitionsDefinition):
        return "_".join(notebook.partitions.partition_dimension_names)
    return "values"


def _job(
    name: str, notebooks: Iterable[ScheduledNotebook], description: str
) -> UnresolvedAssetJobDefinition:
    selection = dg.AssetSelection.assets(*(notebook.key for notebook in notebooks))
    return dg.define_asset_job(name, selection=selection, description=description)
