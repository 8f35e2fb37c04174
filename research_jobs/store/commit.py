"""Publish a run's staged outputs: all of them, or none. No pyarrow here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from research_jobs.errors import CorruptOutputError, StoreError
from research_jobs.outcome import StagedOutput
from research_jobs.protocol import PartitionKey
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.files import is_plain_file
from research_jobs.store.layout import check_output_name, is_remote, unit_of
from research_jobs.store.links import refuse_foreign_partitions
from research_jobs.store.origin import Origin
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
    keep: Mapping[str, int | None] | None = None,
    run_id: str,
    group: str | None = None,
    data_version: str | None = None,
    origin: Origin | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[PublishedOutput, ...]:
    """Publish staged outputs: all of them in one step, or none.

    Outputs that were partitioned differently are set aside: nothing is lost, and no reader sees
    both.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    notebook : str
    staged : sequence of StagedOutput
        Files below `staging`, written and synced by `write_output`. They are moved.
    staging : Staging or Path
    partition : PartitionKey or None
    keep : mapping of str to int or None, optional
        Output to the number of older versions to keep besides the new one; None as in `retained`.
        A version is kept when any of its outputs asks for it.
    run_id : str
    group : str, optional
        A Unix group that may read what is published.
    data_version : str, optional
        The hash of what they hold, by which a copy of the store is checked.
    origin : Origin, optional
        Where they were pulled from.
    tell : callable, optional
        Called with a line when older outputs are set aside.

    Returns
    -------
    tuple of PublishedOutput

    Raises
    ------
    StoreError
        When they cannot be published; the previous outputs stay unchanged.
    PartitionError
        For a partition key that does not fit in a path.
    """
    return backend_of(store).publish(
        Publication(
            notebook,
            staged,
            _checked(staged, staging),
            partition,
            run_id,
            keep or {},
            group,
            data_version,
            origin,
            tell,
        )
    )


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
    """Set aside staged outputs that failed an error-level check.

    Parameters
    ----------
    store, notebook, staged, staging, partition, run_id, group
        As in `publish`.

    Returns
    -------
    Path or str
        The folder (or URL) of the files. Only the latest of a unit is kept.

    Raises
    ------
    StoreError
        When they cannot be moved.
    """
    folder = _checked(staged, staging)
    return backend_of(store).reject(
        Publication(notebook, staged, folder, partition, run_id, group=group)
    )


def refuse_foreign(
    store: str, notebook: str, outputs: Sequence[str], partition: PartitionKey | None = None
) -> None:
    """Refuse outputs if a file or folder that the store did not create has their path.

    Raises
    ------
    StoreError
        Names the file and what to do.
    """
    backend_of(store).refuse_foreign(notebook, outputs, partition)


def refuse_any_foreign(
    store: str, notebook: str, outputs: Sequence[str], *, partitioned: bool
) -> None:
    """Refuse them for any future run: in a local store, at the path of any partition.

    A store behind a URL is not checked: that would be a request for each output.

    Raises
    ------
    StoreError
        Names the file and what to do.
    """
    if is_remote(store):
        return
    unit = unit_of(store, notebook, None)
    # A partitioned output is a folder, a plain one is a file.
    refuse_foreign(store, notebook, () if partitioned else outputs)
    if partitioned:
        refuse_foreign_partitions(unit, outputs)


def _checked(staged: Sequence[StagedOutput], staging: Staging | Path) -> Path:
    """The staging folder; anything in it but complete Parquet files of ours is refused."""
    folder = staging.path if isinstance(staging, Staging) else staging
    root = folder.resolve()
    names = [item.name for item in staged]
    if len(set(names)) < len(names):
        raise StoreError(f"an output is staged twice: {', '.join(sorted(names))}")
    for item in staged:
        path = Path(item.path)
        if check_output_name(item.name) != item.name:
            raise StoreError(f"{item.name!r} is not in Python's normalized spelling")
        if not is_plain_file(path) or not path.resolve().is_relative_to(root):
            raise StoreError(f"output '{item.name}': {path} is not in the staging folder {root}")
        if path.stat().st_size != item.bytes or not _is_parquet(path):
            raise CorruptOutputError(
                f"output '{item.name}': {path} is not the file that was staged",
                hint="Another process changed it; run the notebook again.",
            )
    return folder


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.read(4) != MAGIC:
            return False
        stream.seek(-4, os.SEEK_END)
        return stream.read(4) == MAGIC
