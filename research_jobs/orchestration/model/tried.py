"""What was tried and is to be published: a run's result, and what must not have moved since."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import Outcome, StagedOutput
from research_jobs.provenance.record import Load, Record
from research_jobs.store.files import disk
from research_jobs.store.layout import folders_of, read_segments
from research_jobs.store.records import Version
from research_jobs.store.stored import stored_partitions, stored_versions
from research_jobs.store.view import READS

__all__ = ["Adopted", "current_version", "moved_inputs"]

Unit = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Adopted:
    """A run that was tried, to be published as it is.

    Parameters
    ----------
    outcome : Outcome
    data_version : str or None
    files : mapping of str to Path
        Output to its file.
    capture : Path
        The folder of what its cells showed and what it read.
    given : mapping of str to object
        The parameters that it set.
    record : Record
        What it was made of.
    segments : tuple of str
        Its partition's folders.
    published : str or None
        The version of its outputs that was published when it was tried.
    tried_store : str
        Where the outputs of the same trial are.
    together : set of (str, tuple of str)
        What is published along: notebooks with their partitions' folders.
    """

    outcome: Outcome
    data_version: str | None
    files: Mapping[str, Path]
    capture: Path
    given: Mapping[str, Any]
    record: Record
    segments: tuple[str, ...]
    published: str | None
    tried_store: str
    together: Collection[Unit] = field(default_factory=frozenset[Unit])

    def moved(self, store: str, *, alone: bool = False) -> Iterator[str]:
        """What has changed in the store since it was tried, one line each.

        Parameters
        ----------
        store : str
            The project's.
        alone : bool
            Whether what it reads of the same trial is published by now, and is looked at too.
        """
        name = self.record.notebook
        current = current_version(store, name, self.segments)
        if (current.id if current is not None else None) != self.published:
            by = f" by run {current.run_id[:8]}" if current is not None else ""
            yield f"the outputs of {self.outcome.label} were published{by}"
        yield from moved_inputs(self, store)
        for load in self.record.loads if alone else ():
            if load.store == self.tried_store:
                now = current_version(store, load.notebook, load.partition)
                if now is None or now.data_version != load.data_version:
                    yield f"{load.name}, which {name} read as it was tried, is not published"

    def lay_out(self, store: str, folder: Path, staging: Path) -> tuple[StagedOutput, ...]:
        """Stage its outputs, and put what it showed and read where a run's report looks for it.

        Parameters
        ----------
        store : str
            The project's: what was read of the trial is what is published there by now.
        folder : Path
            Of the run that publishes it.
        staging : Path
        """
        for path in self.capture.iterdir():
            if path.is_file() and path.name != READS:
                shutil.copyfile(path, folder / path.name)
        with suppress(FileNotFoundError):
            noted = (self.capture / READS).read_bytes().splitlines(keepends=True)
            lines = (self._as_published(line, store) for line in noted)
            (folder / READS).write_bytes(b"".join(lines))
        return tuple(
            replace(output, path=str(_staged(self.files[output.name], staging)))
            for output in self.outcome.outputs
        )

    def _as_published(self, line: bytes, store: str) -> bytes:
        """A line of what it read, with published versions for those of the trial."""
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            entry = json.loads(line)
            if str(entry.get("file", "")).startswith(f"{self.tried_store}/"):
                return b""  # the store of the trial, by which nobody finds it any more
            if entry["store"] == self.tried_store:
                versions: list[Any] = []
                for segments, _ in entry["versions"]:
                    now = current_version(store, str(entry["load"]), tuple(map(str, segments)))
                    if now is not None:
                        versions.append([segments, now.id])
                return json.dumps(entry | {"store": store, "versions": versions}).encode() + b"\n"
        return line


def _staged(source: Path, staging: Path) -> Path:
    target = staging / source.name
    disk().link_or_copy(source, target)
    return target


def current_version(store: str, notebook: str, segments: tuple[str, ...]) -> Version | None:
    """What is published of a notebook or partition."""
    key = read_segments(segments) if segments else None
    with suppress(ResearchJobsError):
        return next(iter(stored_versions(store, notebook, key)), None)
    return None


def moved_inputs(tried: Adopted, store: str) -> Iterator[str]:
    """What has changed of the outputs that a run read, one line each.

    Parameters
    ----------
    tried : Adopted
    store : str
        The project's.
    """
    read: dict[str, dict[tuple[str, ...], Load]] = {}
    for load in tried.record.loads:
        if not load.store:
            read.setdefault(load.notebook, {}).setdefault(load.partition, load)
    began = tried.record.started_at
    for notebook, loads in read.items():
        for segments, load in loads.items():
            if (notebook, segments) in tried.together:
                yield (
                    f"{tried.record.notebook} read {load.name} by its path: what is published, and "
                    "not what was tried"
                )
                continue
            now = current_version(store, notebook, segments)
            # An older version that was asked for is as it was if nothing came since.
            if now is None:
                yield f"{load.name}, which {tried.record.notebook} read, is gone"
            elif now.id != load.version and _after(now, began):
                yield f"{load.name}, which {tried.record.notebook} read, was published again"
        if len(loads) > 1:  # a range: another partition would have been read too
            yield from _new_partitions(tried, store, notebook, set(loads), began)


def _new_partitions(
    tried: Adopted, store: str, notebook: str, read: set[tuple[str, ...]], began: float
) -> Iterator[str]:
    for key in stored_partitions(store, notebook):
        segments = folders_of(key)
        if segments in read or (notebook, segments) in tried.together:
            continue
        now = current_version(store, notebook, segments)
        if now is not None and _after(now, began):
            yield f"{notebook} [{key.key}] was published, and {tried.record.notebook} reads a range"


def _after(version: Version, moment: float) -> bool:
    return datetime.fromisoformat(version.published_at).timestamp() > moment
