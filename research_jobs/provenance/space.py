"""How much room notebooks take: current outputs, older versions, refused ones, reports.

Standard library only, but for stores behind a URL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import ResearchJobsError
from research_jobs.filesystem import folder_bytes
from research_jobs.provenance.record import RUNS
from research_jobs.store.backends import backend_of
from research_jobs.store.layout import (
    PARTITIONS,
    REJECTED,
    VERSIONS,
    Unit,
    is_remote,
    notebook_folder,
)
from research_jobs.store.readers import is_read
from research_jobs.store.records import sequence
from research_jobs.store.versions import (
    current_id,
    read_partitioning,
    roots_of,
    units_below,
    version_ids,
)

__all__ = ["Space", "spaces"]


@dataclass
class Space:
    """What one notebook takes, in bytes.

    Parameters
    ----------
    notebook : str
    current : int
        The current outputs of all its partitions.
    older : int
        Older versions, and those of a partitioning that it had before.
    versions : int
        How many those are.
    named : int
        How many of them a kept record names, so that they are not pruned.
    rejected : int
        Outputs that a check refused.
    reports : int
    """

    notebook: str
    current: int = 0
    older: int = 0
    versions: int = 0
    named: int = 0
    rejected: int = 0
    reports: int = 0

    @property
    def total(self) -> int:
        """int: all of it."""
        return self.current + self.older + self.rejected + self.reports


def spaces(store: str, reports: Path) -> list[Space]:
    """What each notebook takes, the largest first.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    reports : Path
        The folder of all reports.

    Raises
    ------
    StoreError
        When the store cannot be read.
    """
    written = {folder.relative_to(reports).as_posix(): folder for folder in _reported(reports)}
    stored = set(backend_of(store).notebooks())
    found: list[Space] = []
    for notebook in stored | set(written):
        space = Space(notebook)
        if is_remote(store):
            _behind_url(store, space)
        else:
            _in_folder(store, space)
        if notebook in written:
            space.reports = folder_bytes(written[notebook] / RUNS)
        found.append(space)
    return sorted(found, key=lambda space: (-space.total, space.notebook))


def _reported(folder: Path) -> Iterator[Path]:
    """The folders of the notebooks that have reports."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    if RUNS in names:
        yield folder
    for name in names:
        if name != RUNS and not name.startswith("."):
            yield from _reported(folder / name)


def _in_folder(store: str, space: Space) -> None:
    folder = notebook_folder(store, space.notebook)
    root = Path(store).resolve()
    base = Unit(root, folder.relative_to(root).as_posix())
    space.rejected = folder_bytes(base.rejected)
    served: str | None = None  # where it is damaged, everything counts as older
    with suppress(ResearchJobsError):
        partitioning = read_partitioning(base)
        served = partitioning.root if partitioning is not None else None
    for hidden in roots_of(base):
        for unit in units_below(base, hidden):
            current: str | None = None
            with suppress(ResearchJobsError):
                current = current_id(unit) if hidden == served else None
            for name in version_ids(unit):
                size = folder_bytes(unit.versions / name)
                if name == current:
                    space.current += size
                else:
                    space.older += size
                    space.versions += 1
                    space.named += is_read(unit.versions / name)


def _behind_url(store: str, space: Space) -> None:
    from research_jobs.store.backends.remote import RemoteStore
    from research_jobs.store.backends.remote_units import RemoteUnit
    from research_jobs.store.objects import objects_of  # fsspec only for a URL

    objects, backend = objects_of(store), RemoteStore(store)
    base = RemoteUnit(store, space.notebook)
    current = {
        f"{unit.versions}/{held[0].id}"
        for unit in backend.units(space.notebook)
        if (held := backend.versions(unit))
    }
    with objects.explained("it cannot be listed"):
        details = objects.find(base.folder)
    older: set[str] = set()
    for path, info in details.items():
        inside = objects.inside(path, base.folder)
        size, version = int(info.get("size") or 0), "/".join((base.folder, *inside[:-1]))
        if inside[0] == REJECTED:
            space.rejected += size
        elif not (inside[0] == VERSIONS or inside[0].startswith(PARTITIONS)):
            # A plain copy of a current output, or an output of a notebook in a subfolder.
            space.current += size if _is_own(inside) else 0
        elif version in current or sequence(version.rpartition("/")[2]) < 0:
            space.current += size
        else:
            space.older += size
            older.add(version)
    space.versions = len(older)


def _is_own(inside: Sequence[str]) -> bool:
    return len(inside) == 1 or (len(inside) > 2 and all("=" in part for part in inside[1:-1]))
