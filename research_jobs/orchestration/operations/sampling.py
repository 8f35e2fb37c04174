"""Which partitions stand for all of a notebook's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from research_jobs.comparison.timeline import NoTimeError, open_timeline
from research_jobs.errors import PartitionError, ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.partitions import (
    build_partitions,
    partition_key_of,
    partitioning,
)
from research_jobs.orchestration.operations.cutting import zone_of
from research_jobs.store.backends import backend_of
from research_jobs.store.layout import read_segments
from research_jobs.store.stored import published_files, stored_partitions

__all__ = ["sample_partitions", "spread"]

GOLDEN = 0.618034
T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """So many items, one from each of as many equal parts.

    They are not equally far apart, or all might be Mondays.
    """
    shares = ((number + (0.5 + number * GOLDEN) % 1) / count for number in range(count))
    return [items[place] for place in sorted({int(len(items) * share) for share in shares})]


def sample_partitions(catalog: Catalog, entry: Entry, count: int) -> list[str]:
    """Partitions of a notebook, spread over those after which its inputs go on.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    count : int

    Returns
    -------
    list of str
        Dagster's keys, in order.
    """
    keys = _keys(catalog, entry)
    first, last = _range(catalog, entry)
    windows = {key: partition_key_of(entry.spec, key) for key in keys}
    inside = [
        key
        for key, window in windows.items()
        if window.start is None
        or window.end is None
        or first is None
        or last is None
        or (
            first <= datetime.fromisoformat(window.start)
            and datetime.fromisoformat(window.end) < last
        )
    ]
    inside = inside or list(keys)
    return spread(inside, count) if inside else []


def _keys(catalog: Catalog, entry: Entry) -> Sequence[str]:
    """All partitions; of dynamic ones, those with data."""
    definition = build_partitions(entry.spec, cache=catalog.project.state / "cache")
    dynamic = any(
        dimension.dynamic is not None
        for dimension in (entry.spec.partitions.columns.values() if entry.spec.partitions else ())
    )
    if definition is not None and not dynamic:
        return [str(key) for key in definition.get_partition_keys()]
    stored = stored_partitions(catalog.project.store, entry.name, partitioning(entry.spec))
    return [key.key for key in stored]


def _range(catalog: Catalog, entry: Entry) -> tuple[datetime | None, datetime | None]:
    """From when to when the notebooks upstream have data."""
    found: list[datetime] = []
    store = catalog.project.store
    for name in catalog.upstream_of(entry.name):
        other = catalog.entries[name]
        if other.upstream:
            continue
        for unit in backend_of(store).units(name):
            if unit.segments:
                try:
                    key = partition_key_of(other.spec, read_segments(unit.segments).key)
                except PartitionError:  # stored before its partitions were changed
                    continue
                found += [datetime.fromisoformat(each) for each in (key.start, key.end) if each]
                if key.start is not None:
                    continue
            with published_files(store, name, unit.segments) as published:
                for output, path in published[1].items() if published is not None else ():
                    found += _ends(other, output, path)
    return (min(found), max(found)) if found else (None, None)


def _ends(entry: Entry, output: str, path: Path) -> list[datetime]:
    spec = entry.spec.outputs.get(output)
    try:
        moments = open_timeline(path, zone_of(entry), spec.time if spec else None).moments()
    except (NoTimeError, ResearchJobsError, OSError):  # a damaged file says nothing of time
        return []
    return [moments[0], moments[-1]] if moments else []
