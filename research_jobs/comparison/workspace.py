"""What a comparison may take: memory, a folder for temporary files, two threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research_jobs.process import usable_cores

__all__ = ["Limits", "Workspace", "side_by_side", "workspace"]


@dataclass(frozen=True)
class Limits:
    """What is held in memory, and what is told.

    Parameters
    ----------
    rows : int
        Records of each side; more are partitioned on disk.
    partition : int
        Rows of one partition.
    chunk : int
        Rows that are sorted into partitions in one step.
    bytes : int
        Values of changed rows; more are partitioned on disk.
    sizes : int
        Changes of a column of which the median is exact; of more it is that of a random sample.
    examples : int
        Rows shown.
    """

    rows: int = 2_000_000
    partition: int = 64 * 1024
    chunk: int = 1_000_000
    bytes: int = 64 << 20
    sizes: int = 200_000
    examples: int = 5


class Workspace:
    """A temporary folder, made when it is needed.

    Parameters
    ----------
    limits : Limits
    parent : Path or None
        A folder on the file system to use; None for the system's own.
    """

    def __init__(self, limits: Limits, parent: Path | None) -> None:
        self.limits = limits
        self._parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def path(self) -> Path:
        """A new file's path."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix=".comparing-", dir=self._parent)
        self._count += 1
        return Path(self._folder.name, str(self._count))

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


@contextmanager
def workspace(limits: Limits, parent: Path | None) -> Generator[Workspace]:
    """A `Workspace` that is removed at the end."""
    made = Workspace(limits, parent)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def side_by_side(*, on: bool) -> Generator[Callable[..., Iterator[Any]]]:
    """`map` in two threads: numpy and pyarrow release the interpreter's lock."""
    if not on or usable_cores() < 2:
        yield map
        return
    with ThreadPoolExecutor(2) as pool:
        yield pool.map
