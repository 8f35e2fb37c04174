"""Units and versions behind a URL: where their objects are, and what a pointer names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError
from research_jobs.store.cache import digest_of, file_cache
from research_jobs.store.layout import PART, PARTITIONING, PARTITIONS, SUFFIX, VERSIONS
from research_jobs.store.objects import objects_of
from research_jobs.store.records import Version, check_format, version_of

__all__ = ["POINTER", "RemoteHeld", "RemoteUnit", "RemoteVersion", "pointed", "read_pointer"]

POINTER = "current.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteUnit:
    """Like `research_jobs.store.layout.Unit`, behind a URL."""

    store: str
    notebook: str
    segments: tuple[str, ...] = ()
    root: str = PARTITIONS

    @property
    def folder(self) -> str:
        """str: the notebook's folder."""
        return f"{objects_of(self.store).root}/{self.notebook}"

    @property
    def versions(self) -> str:
        """str: the folder of versions and the pointer."""
        tail = (self.root, *self.segments) if self.segments else (VERSIONS,)
        return "/".join((self.folder, *tail))

    @property
    def pointer(self) -> str:
        """str: the object whose replacement is the commit."""
        return f"{self.versions}/{POINTER}"

    @property
    def partitioning(self) -> str:
        """str: the object that names the hidden folder that readers follow."""
        return f"{self.folder}/{PARTITIONING}"

    def _tail(self, output: str) -> tuple[str, ...]:
        return (output, *self.segments, PART) if self.segments else (f"{output}.parquet",)

    def link(self, output: str) -> str:
        """The URL that other tools read."""
        return "/".join((self.store.rstrip("/"), self.notebook, *self._tail(output)))

    def plain(self, output: str) -> str:
        """The same as a path in the file system."""
        return "/".join((self.folder, *self._tail(output)))

    def file(self, version: str, output: str) -> str:
        """The path of an output's file in a version."""
        return f"{self.versions}/{version}/{output}{SUFFIX}"

    def __str__(self) -> str:
        return " ".join((self.notebook, *self.segments))


@dataclass(frozen=True)
class RemoteVersion(Version):
    """A version whose files are fetched on demand; see `research_jobs.store.cache`."""

    unit: RemoteUnit | None = None
    record: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def file(self, output: str) -> Path:
        """A local copy of the file of an output."""
        assert self.unit is not None
        return _fetch(self.unit, self, output)


def _fetch(unit: RemoteUnit, version: RemoteVersion, output: str) -> Path:
    path, item = unit.file(version.id, output), version.outputs[output]
    digest, size = str(item.get("sha256") or ""), int(item.get("bytes") or 0)
    objects = objects_of(unit.store)

    def download(target: Path) -> None:
        with objects.explained(f"{unit.link(output)} cannot be fetched"):
            objects.download(path, target)
        if digest and digest_of(target) != digest:
            raise CorruptOutputError(
                f"{path} is not the file that was published",
                hint="Run the notebook again.",
            )

    # Versions that an earlier research_jobs published have no digest; their ids are random.
    name = digest or hashlib.sha256(f"{unit.store} {path} {size}".encode()).hexdigest()
    return file_cache().fetch(f"{name[:32]}-{output}{SUFFIX}", size, download)


@dataclass(frozen=True)
class RemoteHeld:
    """Like `HeldVersion`, but nothing can be held behind a URL."""

    version: RemoteVersion

    def release(self) -> None:
        """Do nothing."""


def pointed(unit: RemoteUnit) -> list[RemoteVersion]:
    """The versions that the pointer names, the current one first; empty without a pointer."""
    return read_pointer(unit, objects_of(unit.store).read(unit.pointer))


def read_pointer(unit: RemoteUnit, text: bytes | None) -> list[RemoteVersion]:
    """The versions that a pointer's content names.

    Raises
    ------
    CorruptOutputError
    """
    if text is None:
        return []
    try:
        record = json.loads(text)
        check_format(record, unit.pointer)
        return [_version(unit, item) for item in record["versions"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptOutputError(
            f"{unit.pointer} does not name versions: {error}",
            hint=f"Remove it and the outputs of {unit} next to it, then run the notebook again.",
        ) from error


def _version(unit: RemoteUnit, record: Mapping[str, Any]) -> RemoteVersion:
    plain = version_of(record, str(record["version"]), Path())
    for item in plain.outputs.values():
        if _SHA256.fullmatch(str(item.get("sha256") or "0" * 64)) is None:  # a file's name here
            raise ValueError(f"{item['sha256']!r} is not a SHA-256")
    return RemoteVersion(**vars(plain), unit=unit, record=dict(record))
