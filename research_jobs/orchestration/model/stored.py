"""What the store has of a notebook's partitions, beside what the instance knows of them."""

from __future__ import annotations

from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.catalog import Entry
from research_jobs.orchestration.model.partitions import partitioning
from research_jobs.store.stored import stored_outputs, stored_partitions

__all__ = ["has_outputs", "stored_keys"]


def stored_keys(store: str, entry: Entry) -> frozenset[str] | None:
    """The partitions of a notebook that have outputs, partitioned as the manifest says now.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    entry : Entry

    Returns
    -------
    frozenset of str or None
        None where the store cannot say: the notebook has no outputs, another IO manager keeps
        them, or the store cannot be read. Then the instance alone knows.
    """
    if not entry.spec.outputs or entry.spec.io_manager is not None:
        return None
    try:
        found = stored_partitions(store, entry.name, partitioning(entry.spec))
    except ResearchJobsError:
        return None
    return frozenset(partition.key for partition in found)


def has_outputs(store: str, entry: Entry) -> bool | None:
    """Whether a notebook has any stored output; None where the store cannot say."""
    found = stored_keys(store, entry)
    if found is None or entry.partitioned:
        return None if found is None else bool(found)
    try:
        return bool(stored_outputs(store, entry.name))
    except ResearchJobsError:
        return None
