"""Which partitions a backfill runs, how ranges of them are written, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import dagster as dg

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.mappings import partition_mapping
from research_jobs.orchestration.model.selection import select_partitions
from research_jobs.orchestration.model.status import partition_status
from research_jobs.orchestration.model.stored import has_outputs, stored_keys
from research_jobs.orchestration.operations.staleness import stale_partitions
from research_jobs.outcome import Outcome, State

if TYPE_CHECKING:
    from research_jobs.orchestration.compat.assets import AssetGraph

__all__ = [
    "BackfillSummary",
    "Only",
    "PlannedNotebook",
    "foresee",
    "in_order",
    "plan_backfill",
    "spans_among",
    "spans_of",
]

Only: TypeAlias = Literal["all", "missing", "failed", "stale"]


@dataclass(frozen=True)
class PlannedNotebook:
    """What a backfill is going to do with one notebook.

    Parameters
    ----------
    notebook : str
    keys : tuple of str
        The partitions to run, in order.
    selected : int
        How many were selected before `keys` were picked out.
    skipped_before : int
        Those among them that an earlier run skipped, and that are therefore left out.
    partitioned : bool
        False for a notebook that runs once, without a key.
    """

    notebook: str
    keys: tuple[str, ...]
    selected: int
    skipped_before: int = 0
    partitioned: bool = True

    @property
    def to_run(self) -> int:
        """int: how many times the notebook is to run."""
        return len(self.keys) if self.partitioned else 1


@dataclass(frozen=True)
class BackfillSummary:
    """What became of a backfill.

    Parameters
    ----------
    id : str
        As the runs' tag ``research_jobs/backfill`` says.
    plan : tuple of PlannedNotebook
        Dependencies first.
    run_ids : tuple of str
    counts : mapping of str to int
        State to the number of partitions.
    problems : tuple of Outcome
        Those that failed or were not run.
    foreseen : tuple of str
        Of a dry run: what cannot work as planned, one line each.
    interrupted : bool
    duration_s : float
    """

    id: str
    plan: tuple[PlannedNotebook, ...]
    run_ids: tuple[str, ...] = ()
    counts: Mapping[State, int] = field(default_factory=dict[State, int])
    problems: tuple[Outcome, ...] = ()
    foreseen: tuple[str, ...] = ()
    interrupted: bool = False
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """bool: whether every partition succeeded or was skipped, or can be expected to."""
        return not self.problems and not self.foreseen and not self.interrupted


def plan_backfill(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    definitions: dg.Definitions,
    notebooks: Sequence[str],
    *,
    first: str | None = None,
    last: str | None = None,
    keys: Sequence[str] = (),
    only: Only = "all",
) -> tuple[PlannedNotebook, ...]:
    """The partitions that a backfill would run, dependencies first.

    Parameters
    ----------
    instance : DagsterInstance
    catalog : Catalog
    definitions : Definitions
        Of `research_jobs.orchestration.definitions.factory.catalog_defs`.
    notebooks : sequence of str
        Names, as in the catalog.
    first, last, keys
        As `research_jobs.orchestration.model.selection.select_partitions` takes them; none of them
        selects all partitions.
    only : {"all", "missing", "failed", "stale"}
        Which of the selected. ``missing`` are those without data, failed ones included and those
        that a notebook itself skipped left out.

    Raises
    ------
    PartitionError
        For a notebook without partitions, and a selection that selects nothing.
    """
    graph = definitions.get_repository_def().asset_graph
    wanted = {catalog.names.key(name): name for name in notebooks}
    planned: list[PlannedNotebook] = []
    for key in graph.toposorted_asset_keys:
        if key not in wanted:
            continue
        name = wanted[key]
        definition = graph.get(key).partitions_def
        if definition is None:
            broken = catalog.entries[name].error
            if broken is not None:
                raise broken
            raise PartitionError(f"{name} has no partitions", hint="Use research-jobs run.")
        selected = select_partitions(
            definition, first=first, last=last, keys=keys, instance=instance
        )
        stored = stored_keys(catalog.project.store, catalog.entries[name])
        chosen, skipped = _only(instance, definitions, key, selected, only, stored)
        if only == "missing":
            idle = _skipped_upstream(instance, graph, catalog, key, chosen)
            chosen = [item for item in chosen if item not in idle]
            skipped += len(idle)
        if only == "stale":
            behind = _behind(instance, graph, catalog, key, planned)
            behind |= set(chosen)
            chosen = [item for item in selected if item in behind]
        planned.append(PlannedNotebook(name, tuple(chosen), len(selected), skipped))
    return tuple(planned)


def foresee(catalog: Catalog, plan: Sequence[PlannedNotebook]) -> tuple[str, ...]:
    """What cannot work as planned: notebooks that are broken, or read what nobody has made.

    Parameters
    ----------
    catalog : Catalog
    plan : sequence of PlannedNotebook

    Returns
    -------
    tuple of str
        One line each.
    """
    lines: list[str] = []
    made = {planned.notebook for planned in plan if planned.to_run}
    for name in (planned.notebook for planned in plan if planned.to_run):
        entry = catalog.entries[name]
        if entry.error is not None:
            lines.append(entry.error.headline)
        lines += [
            f"{name} reads {other}, which has no outputs yet. Run it first."
            for other in entry.upstream
            if other not in made
            and has_outputs(catalog.project.store, catalog.entries[other]) is False
        ]
    return tuple(lines)


def _only(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    key: dg.AssetKey,
    selected: list[str],
    only: Only,
    stored: frozenset[str] | None,
) -> tuple[list[str], int]:
    """Those of the selected partitions that are to run; how many were skipped before."""
    if only == "all":
        return selected, 0
    status = partition_status(instance, key, selected, stored=stored)
    if only == "stale":
        stale = stale_partitions(instance, definitions, key, sorted(status.materialized))
        return [item for item in selected if item in stale], 0
    chosen = status.failed if only == "failed" else frozenset(status.missing)
    return [item for item in selected if item in chosen], len(status.skipped)


def _skipped_upstream(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    catalog: Catalog,
    key: dg.AssetKey,
    chosen: Sequence[str],
) -> frozenset[str]:
    """Partitions that a notebook with the same ones, which this one reads, skipped."""
    found: frozenset[str] = frozenset()
    for name in catalog.entries[catalog.names.notebook(key)].upstream:
        other = catalog.names.key(name)
        if graph.get(other).partitions_def == graph.get(key).partitions_def:
            found |= partition_status(instance, other, chosen).skipped
    return found


def _behind(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    catalog: Catalog,
    key: dg.AssetKey,
    planned: Sequence[PlannedNotebook],
) -> frozenset[str]:
    """Existing partitions that read one that this backfill is going to rebuild."""
    definition = graph.get(key).partitions_def
    assert definition is not None
    name = catalog.names.notebook(key)
    upstream = catalog.entries[name].upstream
    found: set[str] = set()
    for other in planned:
        theirs = graph.get(catalog.names.key(other.notebook)).partitions_def
        if other.notebook not in upstream or not other.keys or theirs is None:
            continue
        mapping = partition_mapping(theirs, definition, names=(other.notebook, name))
        assert mapping is not None, "both have partitions"
        with dg.partition_loading_context(dynamic_partitions_store=instance):
            read = mapping.get_downstream_partitions_for_partitions(
                theirs.subset_with_partition_keys(other.keys), theirs, definition
            )
            found.update(read.get_partition_keys())
    return frozenset(found & instance.get_materialized_partitions(key)) if found else frozenset()


def in_order(
    definition: dg.PartitionsDefinition[Any], keys: Sequence[str], instance: dg.DagsterInstance
) -> list[str]:
    """Those of some keys that exist, in the definition's order.

    Raises
    ------
    PartitionError
        When none exists: listed ones may go while a backfill runs.
    """
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        wanted = set(keys)
        found = [str(key) for key in definition.get_partition_keys() if key in wanted]
    if not found:
        raise PartitionError("none of its partitions exists any more")
    return found


def spans_of(
    definition: dg.PartitionsDefinition[Any], keys: Sequence[str], instance: dg.DagsterInstance
) -> list[str]:
    """Keys as spans ``first...last`` where they are adjacent."""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return spans_among(definition, definition.get_partition_keys(), keys)


def spans_among(
    definition: dg.PartitionsDefinition[Any], every: Iterable[str], keys: Iterable[str]
) -> list[str]:
    """The same, where all keys of the definition are known."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return list(keys)  # a span of those is a rectangle, not a stretch of the list
    wanted = set(keys)
    spans: list[str] = []
    run: list[str] = []
    for key in (*every, None):
        if key is not None and key in wanted:
            run.append(str(key))
        elif run:
            spans.append(run[0] if len(run) == 1 else f"{run[0]}...{run[-1]}")
            run = []
    return spans
