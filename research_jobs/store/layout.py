"""The layout of the store: (notebook, output, partition) to paths.

::

    data/performance_report/perf_df.parquet        -> .versions/current/perf_df.pq
    data/performance_report/.versions/current      -> 000007-1f0c9a2e
    data/performance_report/.versions/000007-1f0c9a2e/perf_df.pq

    data/momentum_signals/signals/run_date=2018-11-01/part-0.parquet
                        -> ../../.partitions/run_date=2018-11-01/current/signals.pq
    data/momentum_signals/.partitions/run_date=2018-11-01/current -> 000001-77ab01c4

The names that other tools read are links that never change. Only ``current`` changes, one link for
all outputs of a notebook (or of one of its partitions). The files of a version end in ``.pq`` so
that a careless ``data/x/**/*.parquet`` does not count them twice.

No pyarrow here: the run worker uses this module too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote

from research_jobs.errors import PartitionError, StoreError
from research_jobs.project import notebook_name
from research_jobs.protocol import PartitionKey

__all__ = [
    "CURRENT",
    "SUFFIX",
    "Unit",
    "check_output_name",
    "folders_of",
    "is_remote",
    "notebook_folder",
    "output_path",
    "partition_dimensions",
    "partition_segments",
    "read_segments",
    "unit_of",
]

CURRENT = "current"
SUFFIX = ".pq"
VERSIONS = ".versions"
PARTITIONS = ".partitions"
REJECTED = ".rejected"
STAGING = ".staging"
PARTITIONING = ".partitioning.json"
PART = "part-0.parquet"

NAME_LIMIT = 255  # bytes in one name, on every file system that matters
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
NOTEBOOK_PART = re.compile(r"\w[\w \-]*\Z")


def is_remote(store: str) -> bool:
    """Whether the store is an fsspec URL rather than a folder."""
    return "://" in store


def check_notebook_name(notebook: str) -> tuple[str, ...]:
    """The parts of a notebook's name, each a safe folder name.

    Raises
    ------
    StoreError
        When a part is empty, hidden, too long, or has characters that notebook files cannot have.
    """
    parts = tuple(notebook_name(notebook).split("/"))
    for part in parts:
        if NOTEBOOK_PART.match(part) is None or len(part.encode()) > NAME_LIMIT:
            raise StoreError(
                f"{_shown(notebook)} is not a valid notebook name for the store",
                hint="Use letters, digits, '_' and '-', and '/' between folders.",
            )
    return parts


def check_output_name(output: str) -> str:
    """Check an output's name, which is that of a Python variable.

    Raises
    ------
    StoreError
        When it is not an identifier, or is too long for a file name.
    """
    if not output.isidentifier() or len(output.encode()) > NAME_LIMIT - len(".parquet"):
        raise StoreError(
            f"{_shown(output)} is not a valid output name",
            hint="Use the name of a Python variable.",
        )
    # Python's own rule for identifiers: `ﬁt` and `fit` are the same name.
    return unicodedata.normalize("NFKC", output)


def partition_dimensions(partition: PartitionKey) -> dict[str, str]:
    """Dimension to key, ordered by dimension so that a mapping's order does not change paths."""
    return dict(sorted((partition.dimensions or {"partition": partition.key}).items()))


def partition_segments(dimensions: Mapping[str, str]) -> tuple[str, ...]:
    """The folders of a partition: ``("run_date=2018-11-01",)``.

    Parameters
    ----------
    dimensions : mapping of str to str
        Column to key. Everything but letters, digits and ``_.-~`` is percent-encoded as UTF-8,
        which DuckDB, polars and pyarrow decode; no two keys share a path.

    Raises
    ------
    PartitionError
        For a key that does not fit in a path.
    """
    return tuple(_segment(name, dimensions[name]) for name in sorted(dimensions))


def folders_of(partition: PartitionKey | None) -> tuple[str, ...]:
    """The folders of a partition; none without one. See `partition_segments`."""
    return partition_segments(partition_dimensions(partition)) if partition else ()


def _segment(dimension: str, key: str) -> str:
    if not dimension.isidentifier():
        raise PartitionError(
            f"{_shown(dimension)} is not a valid name for a partition column",
            hint="Use letters, digits and '_'.",
        )
    if not key:
        raise PartitionError(f"the partition key of {dimension} is empty")
    if "\0" in key:
        raise PartitionError(
            f"the partition key {_shown(key)} of {dimension} contains a NUL character"
        )
    if key == HIVE_NULL:
        raise PartitionError(f"readers take the partition key {key} for a missing key")
    try:
        segment = f"{quote(dimension, safe='')}={quote(key, safe='')}"
    except UnicodeEncodeError as error:
        raise PartitionError(
            f"the partition key {_shown(key)} of {dimension} is not Unicode text"
        ) from error
    if len(segment) > NAME_LIMIT:
        raise PartitionError(
            f"the partition key {_shown(key)} of {dimension} is too long: "
            f"{len(segment)} characters once encoded",
            hint=f"At most {NAME_LIMIT - len(dimension) - 1} fit in a folder name.",
        )
    return segment


def read_segments(segments: tuple[str, ...]) -> PartitionKey:
    """The partition of folders such as ``run_date=2018-11-01``."""
    pairs = [segment.split("=", 1) for segment in segments]
    dimensions = {unquote(name): unquote(key) for name, key in pairs}
    return PartitionKey(key="|".join(dimensions.values()), dimensions=dimensions)


@dataclass(frozen=True)
class Unit:
    """What is published in one step: the outputs of a notebook or of one of its partitions.

    Parameters
    ----------
    store : Path
        The store's folder, resolved.
    notebook : str
    segments : tuple of str
        The partition's folders; empty without a partition.
    root : str
        The hidden folder of the notebook's partitions; those of an earlier partitioning are in
        another one.
    """

    store: Path
    notebook: str
    segments: tuple[str, ...] = ()
    root: str = PARTITIONS

    @cached_property
    def folder(self) -> Path:
        """Path: the notebook's folder."""
        return self.store.joinpath(*self.notebook.split("/"))

    @property
    def hidden(self) -> str:
        """str: the name of the hidden folder with the unit's versions."""
        return self.root if self.segments else VERSIONS

    @cached_property
    def versions(self) -> Path:
        """Path: the folder of versions, which contains ``current``."""
        return self.folder.joinpath(self.hidden, *self.segments)

    @property
    def partitioning(self) -> Path:
        """Path: the file that names the hidden folder that readers follow."""
        return self.folder / PARTITIONING

    @property
    def current(self) -> Path:
        """Path: the link whose replacement is the commit."""
        return self.versions / CURRENT

    @property
    def rejected(self) -> Path:
        """Path: the folder of versions that failed a check."""
        return self.folder / REJECTED

    def link(self, output: str) -> Path:
        """The path that other tools read."""
        if self.segments:
            return self.folder.joinpath(output, *self.segments, PART)
        return self.folder / f"{output}.parquet"

    def link_target(self, output: str) -> str:
        """The target of the link of `output`, relative to the link."""
        if self.segments:
            up = "../" * (len(self.segments) + 1)
            return f"{up}{self.root}/{'/'.join(self.segments)}/{CURRENT}/{output}{SUFFIX}"
        return f"{VERSIONS}/{CURRENT}/{output}{SUFFIX}"

    def __str__(self) -> str:
        if not self.segments:
            return self.notebook
        return f"{self.notebook} [{'|'.join(read_segments(self.segments).dimensions.values())}]"


def notebook_folder(store: str, notebook: str) -> Path:
    """The folder of a notebook's outputs in a local store.

    Raises
    ------
    StoreError
        When the name is unusable or a symbolic link on the path leaves the store.
    """
    parts = check_notebook_name(notebook)
    root = Path(store).resolve()
    folder = root
    for part in parts:
        folder = folder / part
        refuse_link(folder, root)
    return folder


def refuse_link(folder: Path, root: Path) -> None:
    """Refuse a symbolic link where the store expects one of its own folders."""
    if folder.is_symlink():
        raise StoreError(
            f"{folder} is a symbolic link, which the store {root} does not follow",
            hint="Replace it with a folder, or move the whole store with RESEARCH_JOBS_STORE.",
        )


def unit_of(
    store: str, notebook: str, partition: PartitionKey | None, root: str = PARTITIONS
) -> Unit:
    """The unit of a notebook or of one of its partitions, with checked paths.

    Raises
    ------
    StoreError, PartitionError
    """
    folder = notebook_folder(store, notebook)
    segments = folders_of(partition)
    unit = Unit(Path(store).resolve(), "/".join(check_notebook_name(notebook)), segments, root)
    place = folder
    for name in unit.versions.relative_to(folder).parts:
        place = place / name
        refuse_link(place, unit.store)
    return unit


def output_path(
    store: str, notebook: str, output: str, partition: PartitionKey | None = None
) -> str:
    """The path of an output for other tools.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    notebook, output : str
    partition : PartitionKey, optional

    Returns
    -------
    str
        ``data/perf/perf_df.parquet``, or ``part-0.parquet`` below the partition's folders.

    Raises
    ------
    StoreError, PartitionError
        For names that the store does not allow.
    """
    name = check_output_name(output)
    if is_remote(store):
        parts = check_notebook_name(notebook)
        segments = folders_of(partition)
        tail = (name, *segments, PART) if segments else (f"{name}.parquet",)
        return "/".join((store.rstrip("/"), *parts, *tail))
    return str(unit_of(store, notebook, partition).link(name))


def _shown(text: str) -> str:
    """Text for one line of an error."""
    return ascii(text) if len(text) <= 60 else ascii(text[:57]) + "..."
