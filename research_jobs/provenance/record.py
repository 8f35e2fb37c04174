"""What a run was made of: its code, parameters, inputs and environment, as one small record.

Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from research_jobs.store.records import short_id

__all__ = [
    "FORMAT",
    "NAME",
    "RUNS",
    "FileRead",
    "Load",
    "Record",
    "find_record",
    "read_record",
    "records",
]

FORMAT = 1
NAME = "provenance.json"
RUNS = "_runs"  # the folder of a notebook's reports


@dataclass(frozen=True)
class Load:
    """A version of an output that the run read.

    Parameters
    ----------
    notebook, output : str
    partition : tuple of str
        Its folders, ``("run_date=2018-11-01",)``; empty without a partition.
    version : str
    run_id, data_version : str
        The run that made it, and the hash of what that version holds; empty where it was gone
        before that could be read.
    store : str
        Where it is not the project's own.
    """

    notebook: str
    output: str
    partition: tuple[str, ...]
    version: str
    run_id: str = ""
    data_version: str = ""
    store: str = ""

    @property
    def name(self) -> str:
        """str: ``market_data.prices``, with the partition's folders."""
        return "/".join((f"{self.notebook}.{self.output}", *self.partition))


@dataclass(frozen=True)
class FileRead:
    """A file that the run read besides.

    Parameters
    ----------
    path : str
        Relative to the project where it is inside.
    by : str
        The reader that named it: ``"open"``, ``"polars"``.
    sha256 : str or None
        None for one that is too large, or was gone.
    bytes : int
    modified : float
        Unix time.
    """

    path: str
    by: str
    sha256: str | None
    bytes: int
    modified: float


@dataclass(frozen=True)
class Record:
    """What a run was made of.

    Parameters
    ----------
    notebook, run_id : str
    partition : str or None
    ending : str
    started_at : float
        Unix time.
    code_version : str or None
    files : mapping of str to str
        Notebook and helper modules, relative to the project, to the SHA-256 of their bytes.
        Each content is kept once (`research_jobs.provenance.shelf`).
    manifest : str
        SHA-256 of the manifest, which is kept likewise; empty without one.
    git_commit : str or None
    parameters : mapping of str to str
        As used, as text; secret ones by name only.
    given : mapping of str to object
        Those that the run set, as JSON, without secret ones.
    variables : mapping of str to str
        Environment variables that the manifest sets, except masked ones.
    python : str
        The interpreter's version.
    environment : str
        Hash of the list of installed distributions, which is kept once.
    loads : tuple of Load
    reads : tuple of FileRead
    not_seen : tuple of str
        What it read that cannot be compared: ``"host api.example.com"``, ``"program git"``.
    data_version : str or None
        The hash of what its outputs hold.
    """

    notebook: str
    run_id: str
    partition: str | None = None
    ending: str = ""
    started_at: float = 0.0
    code_version: str | None = None
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    manifest: str = ""
    git_commit: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    python: str = ""
    environment: str = ""
    loads: tuple[Load, ...] = ()
    reads: tuple[FileRead, ...] = ()
    not_seen: tuple[str, ...] = ()
    data_version: str | None = None

    def dump(self) -> bytes:
        """As JSON; `read_record` reads it."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()


def read_record(path: Path) -> Record | None:
    """The record in a file; None where there is none that this version understands."""
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        if int(said.pop("format")) > FORMAT:
            return None
        said["loads"] = tuple(
            Load(**item | {"partition": tuple(item["partition"])}) for item in said["loads"]
        )
        said["reads"] = tuple(FileRead(**item) for item in said["reads"])
        said["not_seen"] = tuple(said["not_seen"])
        return Record(**said)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def records(reports: Path, notebook: str) -> Iterator[tuple[Path, Record]]:
    """The kept reports' folders of a notebook with their records, the newest first."""
    with suppress(FileNotFoundError):
        folders = sorted((reports / notebook / RUNS).iterdir(), reverse=True)
        # A folder's name begins with the second in which its run began.
        for _, together in groupby(folders, lambda folder: folder.name[:15]):
            pairs = ((folder, read_record(folder / NAME)) for folder in together)
            known = [(folder, record) for folder, record in pairs if record is not None]
            yield from sorted(known, key=lambda pair: pair[1].started_at, reverse=True)


def find_record(
    reports: Path, notebook: str, run_id: str, partition: str | None = None
) -> tuple[Path, Record] | None:
    """The report's folder and the record of a run; None where they are not kept."""
    part = short_id(run_id, 8)
    with suppress(FileNotFoundError):
        for folder in sorted((reports / notebook / RUNS).iterdir(), reverse=True):
            if f"-{part}-" in folder.name:
                record = read_record(folder / NAME)
                if record is not None and (record.run_id, record.partition) == (run_id, partition):
                    return folder, record
    return None
