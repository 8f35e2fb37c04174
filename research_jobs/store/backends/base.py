"""The interface of every kind of store. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from research_jobs.outcome import StagedOutput
from research_jobs.protocol import PartitionKey
from research_jobs.store.origin import Origin
from research_jobs.store.records import Partitioning, Version

__all__ = [
    "HeldVersion",
    "Publication",
    "PublishedOutput",
    "StoreBackend",
    "StoredUnit",
    "current_version",
]


@dataclass(frozen=True)
class PublishedOutput:
    """One output in the store.

    Parameters
    ----------
    name : str
    path : str
        The stable path (or URL) that other tools read.
    file : str
        This version's own file, which does not change as long as the version is kept.
    kind : str
        As in `StagedOutput`.
    rows : int or None
    bytes : int
    version : str
    previous_rows : int or None
        Rows of the output in the previous version; None without one.
    """

    name: str
    path: str
    file: str
    kind: str
    rows: int | None
    bytes: int
    version: str
    previous_rows: int | None = None

    @classmethod
    def of(
        cls,
        item: StagedOutput,
        path: object,
        file: object,
        version: str,
        previous: Mapping[str, int | None],
    ) -> PublishedOutput:
        """A staged output that was published."""
        return cls(
            name=item.name,
            path=str(path),
            file=str(file),
            kind=item.kind,
            rows=item.rows,
            bytes=item.bytes,
            version=version,
            previous_rows=previous.get(item.name),
        )


@dataclass(frozen=True)
class Publication:
    """Staged outputs to be published.

    Parameters
    ----------
    notebook : str
    staged : sequence of StagedOutput
        Checked: complete Parquet files of ours in `folder`.
    folder : Path
        The staging folder.
    partition : PartitionKey or None
    keep : mapping of str to int or None
        Output to the number of older versions kept; see `retained`.
    run_id : str
    group : str or None
        A Unix group that may read what is published.
    data_version : str or None
        The hash of what the outputs hold.
    origin : Origin or None
        Where they were pulled from.
    tell : callable
        Called with a line for the person who reads the run's log.
    """

    notebook: str
    staged: Sequence[StagedOutput]
    folder: Path
    partition: PartitionKey | None
    run_id: str
    keep: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    group: str | None = None
    data_version: str | None = None
    origin: Origin | None = None
    tell: Callable[[str], object] = lambda _: None


class StoredUnit(Protocol):
    """What is published in one step: the outputs of a notebook or of one of its partitions."""

    @property
    def segments(self) -> tuple[str, ...]:
        """The partition's folders; empty without a partition."""
        ...

    def link(self, output: str) -> Any:
        """The path or URL that other tools read."""
        ...


class HeldVersion(Protocol):
    """A version that is not pruned as long as this object exists, if the store can hold it."""

    @property
    def version(self) -> Version:
        """The version."""
        ...

    def release(self) -> None:
        """Release the version."""
        ...


def current_version(store: Any, unit: StoredUnit) -> Version:
    """The current version of a unit in a store or `Reader`; from now on it may be pruned.

    Raises
    ------
    OutputNotFoundError
        When nothing is published.
    """
    held: HeldVersion = store.hold(unit)
    held.release()
    return held.version


U = TypeVar("U", bound=StoredUnit)


class StoreBackend(Protocol[U]):
    """One kind of store. All methods are safe to call from several threads and processes."""

    def check(self) -> None:
        """Raise if the store is unusable, before anything runs.

        Raises
        ------
        StoreError
        """
        ...

    def caveat(self) -> str | None:
        """What the store cannot do, for whoever publishes to it; None if nothing is missing.

        Raises
        ------
        StoreError
        """
        ...

    def notebooks(self) -> tuple[str, ...]:
        """The notebooks that have outputs, sorted."""
        ...

    def partitioning(self, notebook: str) -> Partitioning | None:
        """The current partitioning of a notebook; None if it has no outputs."""
        ...

    def units(self, notebook: str) -> Iterator[U]:
        """The units of a notebook that have a current version, in its current partitioning."""
        ...

    def kept_aside(self, notebook: str, by: Mapping[str, str]) -> Iterator[U]:
        """The units of a partitioning that the notebook had before and does not have now.

        Parameters
        ----------
        notebook : str
        by : mapping of str to str
            Dimension to how its keys are made.
        """
        ...

    def unit(self, notebook: str, partition: PartitionKey | None) -> U | None:
        """The unit of a notebook or partition; None if it has no current version."""
        ...

    def hold(self, unit: U, choose: str | int | None = None) -> HeldVersion:
        """Hold a version.

        Parameters
        ----------
        unit : StoredUnit
        choose : str, int or None
            None for the current one, -1 for the previous one and so on, or a version's id.

        Raises
        ------
        OutputNotFoundError
            When nothing is published, or there is no such version.
        """
        ...

    def versions(self, unit: U) -> list[Version]:
        """The stored versions, the current one first."""
        ...

    def refuse_foreign(
        self, notebook: str, outputs: Sequence[str], partition: PartitionKey | None
    ) -> None:
        """Raise if a foreign file or folder is in the way.

        Raises
        ------
        StoreError
        """
        ...

    def publish(self, publication: Publication) -> tuple[PublishedOutput, ...]:
        """Publish all outputs in one step, or none.

        Raises
        ------
        StoreError
        """
        ...

    def reject(self, publication: Publication) -> Path | str:
        """Set the outputs aside; return the folder (or URL) of the files."""
        ...
