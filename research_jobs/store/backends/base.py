"""What every kind of store does. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from research_jobs.protocol import PartitionKey, StagedOutput
from research_jobs.store.records import Partitioning, Version

__all__ = ["HeldVersion", "Publication", "PublishedOutput", "StoreBackend", "StoredUnit"]


@dataclass(frozen=True)
class PublishedOutput:
    """One output as the store has it now.

    Parameters
    ----------
    name : str
    path : str
        The stable path (or URL) that other tools read.
    file : str
        This version's own file: the same bytes as long as the version is kept.
    kind : str
        As in `StagedOutput`.
    rows : int or None
    bytes : int
    version : str
    previous_rows : int or None
        Rows of the output in the version before, None where there was none.
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


def _silent(_message: str) -> None:
    """Say it to nobody."""


@dataclass(frozen=True)
class Publication:
    """Staged outputs on their way into a store.

    Parameters
    ----------
    notebook : str
    staged : sequence of StagedOutput
        Checked: whole Parquet files of ours in `folder`.
    folder : Path
        The staging folder.
    partition : PartitionKey or None
    keep : mapping of str to int
        Output to the number of older versions kept.
    run_id : str
    group : str or None
        A Unix group that may read what is published.
    tell : callable
        Called with a line for the person who reads the run's log.
    """

    notebook: str
    staged: Sequence[StagedOutput]
    folder: Path
    partition: PartitionKey | None
    run_id: str
    keep: Mapping[str, int] = field(default_factory=dict[str, int])
    group: str | None = None
    tell: Callable[[str], None] = _silent


class StoredUnit(Protocol):
    """What is published in one step: a notebook's outputs, or those of one partition of it."""

    @property
    def segments(self) -> tuple[str, ...]:
        """The partition's folders; empty where there is no partition."""
        ...

    def link(self, output: str) -> Any:
        """The path or URL that other tools read."""
        ...


class HeldVersion(Protocol):
    """A version that is not pruned as long as this object is there, where the store can hold."""

    @property
    def version(self) -> Version:
        """The version."""
        ...

    def release(self) -> None:
        """Let the version be pruned."""
        ...


U = TypeVar("U", bound=StoredUnit)


class StoreBackend(Protocol[U]):
    """One kind of store. All its methods are safe from several threads and processes."""

    def check(self) -> None:
        """Refuse a store that cannot be used at all, before anything is run for it.

        Raises
        ------
        StoreError
        """
        ...

    def notebooks(self) -> tuple[str, ...]:
        """The notebooks that have outputs, sorted."""
        ...

    def partitioning(self, notebook: str) -> Partitioning | None:
        """How the outputs of a notebook are divided now; None when there are none."""
        ...

    def units(self, notebook: str) -> Iterator[U]:
        """The units of a notebook that have a current version, of its partitioning alone."""
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
        """The unit of a notebook or partition; None when it has no current version."""
        ...

    def hold(self, unit: U, choose: str | int | None = None) -> HeldVersion:
        """Hold a version.

        Parameters
        ----------
        unit : StoredUnit
        choose : str, int or None
            None for the current one, -1 for the one before it and so on, or a version's id.

        Raises
        ------
        OutputNotFoundError
            When nothing was published, or there is no such version.
        """
        ...

    def versions(self, unit: U) -> list[Version]:
        """The versions that are kept, the current one first."""
        ...

    def refuse_foreign(
        self, notebook: str, outputs: Sequence[str], partition: PartitionKey | None
    ) -> None:
        """Refuse to publish where somebody else's file or folder is in the way.

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
        """Keep the outputs aside; the folder (or URL) with the files in it."""
        ...
