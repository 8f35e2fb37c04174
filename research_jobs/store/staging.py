"""The staging folder of one run's outputs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from research_jobs.errors import ResearchJobsError, StoreError
from research_jobs.store.backends import backend_of
from research_jobs.store.claims import claim_folder, temporary_root
from research_jobs.store.files import FolderLock, disk
from research_jobs.store.layout import PARTITIONS, STAGING, Unit, is_remote, refuse_link, unit_of
from research_jobs.store.layout import read_segments as read_partition
from research_jobs.store.links import finish
from research_jobs.store.records import short_id
from research_jobs.store.transaction import NOTE
from research_jobs.store.versions import read_partitioning

__all__ = ["Staging", "open_staging"]


class Staging:
    """A folder for one run's staged outputs, on the store's file system.

    Closing it removes it; if its process dies, the next `open_staging` removes it.

    Parameters
    ----------
    path : Path
    lock : FolderLock
        Held as long as the run lives.
    """

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Remove the folder; a second call does nothing."""
        with contextlib.suppress(OSError):
            disk().remove_tree(self.path)
        self._lock.release()

    def __enter__(self) -> Staging:  # noqa: PYI034 - Self requires Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_staging(store: str, run_id: str) -> Staging:
    """Create a staging folder, and remove those of dead processes.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL; outputs for a URL are staged in the temporary folder.
    run_id : str

    Returns
    -------
    Staging

    Raises
    ------
    StoreError
        When the store is not writable.
    """
    backend_of(store).check()
    root = temporary_root() if is_remote(store) else Path(store).resolve()
    area = root / STAGING
    try:
        disk().make_folders(area)
        refuse_link(area, root)
        path, lock = claim_folder(area, short_id(run_id, 40), _finish_noted)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot write to the store {store}: {reason}",
            hint="What was published before is unchanged.",
        ) from error
    return Staging(path, lock)


def _finish_noted(folder: Path) -> bool:
    """Repair the unit that a dead run was publishing; False if it is locked."""
    try:
        note = json.loads((folder / NOTE).read_bytes())
        segments = tuple(map(str, note["segments"]))
        partition = read_partition(segments) if segments else None
        unit = unit_of(
            str(folder.parent.parent),
            str(note["notebook"]),
            partition,
            str(note.get("root", PARTITIONS)),
        )
        return _repair(unit)
    except FileNotFoundError:
        return True  # it was not publishing
    except (ValueError, KeyError, TypeError, RecursionError, ResearchJobsError):
        return True  # it died while it wrote the note


def _repair(unit: Unit) -> bool:
    found = read_partitioning(unit)
    return finish(unit, found.root if found is not None else unit.hidden)
