"""The contents of a store: notebooks, partitions, outputs, versions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.project import notebook_name
from research_jobs.protocol import PartitionKey
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import HeldVersion, current_version
from research_jobs.store.layout import read_segments
from research_jobs.store.records import Version

__all__ = ["published_files", "stored_outputs", "stored_partitions", "stored_versions"]


def stored_partitions(
    store: str, notebook: str, by: Mapping[str, str] | None = None
) -> tuple[PartitionKey, ...]:
    """The partitions of a notebook that have outputs, ordered by key.

    Parameters
    ----------
    store, notebook : str
    by : mapping of str to str, optional
        Dimension to how its keys are made. If the stored outputs are partitioned differently,
        those set aside count, except the last: its run restores the others.
    """
    backend, name = backend_of(store), notebook_name(notebook)
    units: Iterable[Any] = backend.units(name)
    aside = False
    if by is not None:
        partitioning = backend.partitioning(name)
        aside = partitioning is not None and not partitioning.is_like(by)
        if aside:
            units = backend.kept_aside(name, by)
    keys = [read_segments(unit.segments) for unit in units if unit.segments]
    keys.sort(key=lambda key: key.key)
    return tuple(keys[:-1] if aside else keys)


def stored_outputs(
    store: str, notebook: str, partition: PartitionKey | None = None
) -> Mapping[str, Any]:
    """The outputs of a notebook or of one of its partitions.

    Returns
    -------
    mapping of str to Path or str
        Output to the path (or URL) that other tools read; empty if nothing is published.
    """
    backend = backend_of(store)
    unit = backend.unit(notebook_name(notebook), partition)
    if unit is None:
        return {}
    return {name: unit.link(name) for name in current_version(backend, unit).outputs}


def stored_versions(
    store: str, notebook: str, partition: PartitionKey | None = None
) -> tuple[Version, ...]:
    """The stored versions, the current one first."""
    backend = backend_of(store)
    unit = backend.unit(notebook_name(notebook), partition)
    return tuple(backend.versions(unit)) if unit is not None else ()


@contextmanager
def published_files(
    store: str, notebook: str, segments: tuple[str, ...], version: str | None = None
) -> Generator[tuple[str, Mapping[str, Path]] | None]:
    """A version's id and files, held meanwhile; None where there is none.

    Parameters
    ----------
    store, notebook : str
    segments : tuple of str
        The partition's folders.
    version : str, optional
        By default the current one.
    """
    backend = backend_of(store)
    unit = backend.unit(notebook, read_segments(segments) if segments else None)
    held: HeldVersion | None = None
    if unit is not None:
        with suppress(ResearchJobsError):
            held = backend.hold(unit, version)
    if held is None:
        yield None
        return
    try:
        yield held.version.id, {name: held.version.file(name) for name in held.version.outputs}
    finally:
        held.release()
