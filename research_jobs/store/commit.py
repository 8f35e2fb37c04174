"""Publishing what a run staged: all of its outputs, or none. No pyarrow here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from research_jobs.errors import CorruptOutputError, StoreError
from research_jobs.protocol import PartitionKey, StagedOutput
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.files import is_plain_file
from research_jobs.store.layout import check_output_name, is_remote, unit_of
from research_jobs.store.links import refuse_foreign_partitions
from research_jobs.store.staging import Staging, open_staging
from research_jobs.store.transaction import FAILPOINTS

__all__ = [
    "FAILPOINTS",
    "PublishedOutput",
    "Staging",
    "open_staging",
    "publish",
    "refuse_any_foreign",
    "refuse_foreign",
    "reject",
]

MAGIC = b"PAR1"


def publish(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    *,
    staging: Staging | Path,
    partition: PartitionKey | None,
    keep: Mapping[str, int] | None = None,
    run_id: str,
    group: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[PublishedOutput, ...]:
    """Publish staged outputs: all of them in one step, or none.

    Outputs that were partitioned in another way are set aside: nothing is lost, and no reader
    sees both.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    notebook : str
    staged : sequence of StagedOutput
        Files below `staging`, written and synced by `write_output`. They are moved.
    staging : Staging or Path
    partition : PartitionKey or None
    keep : mapping of str to int, optional
        Output to the number of older versions kept beside the new one. A version is kept when
        any of its outputs asks for it.
    run_id : str
    group : str, optional
        A Unix group that may read what is published.
    tell : callable, optional
        Called with a line when older outputs are set aside.

    Returns
    -------
    tuple of PublishedOutput

    Raises
    ------
    StoreError
        When they cannot be published; the outputs that were there stay as they are.
    PartitionError
        For a partition key that no path can hold.
    """
    job = _publication(notebook, staged, staging, partition, run_id, keep, group, tell)
    return backend_of(store).publish(job)


def reject(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    *,
    staging: Staging | Path,
    partition: PartitionKey | None,
    run_id: str,
    group: str | None = None,
) -> Path | str:
    """Keep staged outputs aside that an error-level check refused.

    Parameters
    ----------
    store, notebook, staged, staging, partition, run_id, group
        As in `publish`.

    Returns
    -------
    Path or str
        The folder (or URL) with the files in it. Only the latest of a unit is kept.

    Raises
    ------
    StoreError
        When they cannot be moved.
    """
    job = _publication(notebook, staged, staging, partition, run_id, group=group)
    return backend_of(store).reject(job)


def refuse_foreign(
    store: str, notebook: str, outputs: Sequence[str], partition: PartitionKey | None = None
) -> None:
    """Refuse outputs whose place holds a file or folder that the store did not make.

    Raises
    ------
    StoreError
        Names the file and what to do.
    """
    backend_of(store).refuse_foreign(notebook, outputs, partition)


def refuse_any_foreign(
    store: str, notebook: str, outputs: Sequence[str], *, partitioned: bool
) -> None:
    """Refuse them for whatever run comes next: in a folder, in the place of any partition.

    A store behind a URL is not looked at: that would be a request for each output.

    Raises
    ------
    StoreError
        Names the file and what to do.
    """
    if is_remote(store):
        return
    unit = unit_of(store, notebook, None)
    # A partitioned output has a folder where a plain one has a file.
    refuse_foreign(store, notebook, () if partitioned else outputs)
    if partitioned:
        refuse_foreign_partitions(unit, outputs)


def _publication(
    notebook: str,
    staged: Sequence[StagedOutput],
    staging: Staging | Path,
    partition: PartitionKey | None,
    run_id: str,
    keep: Mapping[str, int] | None = None,
    group: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Publication:
    folder = staging.path if isinstance(staging, Staging) else Path(staging)
    _check_staged(staged, folder)
    job = Publication(notebook, staged, folder, partition, run_id, keep or {}, group)
    return job if tell is None else replace(job, tell=tell)


def _check_staged(staged: Sequence[StagedOutput], staging: Path) -> None:
    """Refuse what is not a whole Parquet file of ours in the staging folder."""
    root = staging.resolve()
    names = [item.name for item in staged]
    if len(set(names)) < len(names):
        raise StoreError(f"an output is staged twice: {', '.join(sorted(names))}")
    for item in staged:
        path = Path(item.path)
        if check_output_name(item.name) != item.name:
            raise StoreError(f"{item.name!r} is not the name Python gives that variable")
        if not is_plain_file(path) or not path.resolve().is_relative_to(root):
            raise StoreError(
                f"output '{item.name}': {path} is no file of the staging folder {root}"
            )
        if path.stat().st_size != item.bytes or not _is_parquet(path):
            raise CorruptOutputError(
                f"output '{item.name}': {path} is not the file that was staged",
                hint="Something else wrote to it; run the notebook again.",
            )


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.read(4) != MAGIC:
            return False
        stream.seek(-4, os.SEEK_END)
        return stream.read(4) == MAGIC
