"""Whether the store is there: a disk that is not mounted leaves an empty folder, or none.

What was seen last is noted in ``.research_jobs/store.json``: each store that had outputs, and where
the file system that it is on was mounted. A folder that somebody has removed is begun anew. One
whose disk is not there is not: outputs would be hidden once the disk is back.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import ResearchJobsError, StoreError
from research_jobs.filesystem import write_atomically
from research_jobs.project import Project

__all__ = ["Absence", "find_absence", "has_outputs", "refuse_unmounted"]

NOTE = "store.json"


@dataclass(frozen=True)
class Absence:
    """A store that had outputs, and has none now.

    Parameters
    ----------
    why, fix : str
        One line each.
    unmounted : bool
        Whether its disk is not there.
    """

    why: str
    fix: str
    unmounted: bool


def has_outputs(store: str) -> bool:
    """Whether a local store has a notebook's folder.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    with suppress(FileNotFoundError), os.scandir(store) as entries:
        return any(
            not entry.name.startswith(".")
            and entry.name != "lost+found"  # an empty file system has it
            and entry.is_dir(follow_symlinks=False)
            for entry in entries
        )
    return False


def find_absence(project: Project) -> Absence | None:
    """What became of a local store that had outputs and has none; None where all is well.

    It takes a few system calls, whatever is in the store.

    Parameters
    ----------
    project : Project
    """
    if not project.store_is_local or project.aside is not None:
        return None
    store, known = project.store, _read(project)
    mount = known.get(store)
    try:
        if has_outputs(store):
            if mount != (here := _mount_of(Path(store))):
                _write(project, known | {store: here})
            return None
    except OSError as error:
        if mount is None:
            return None  # whoever needs it says so
        why = f"the store {store} cannot be read: {error.strerror}"
        return Absence(why, f"Mount the disk of {store} again.", unmounted=True)
    if mount is None:
        return None
    if not os.path.ismount(mount):
        return Absence(
            f"the store {store} is gone: nothing is mounted at {mount}",
            f"Mount {mount}. To begin a new store without it, remove {project.state / NOTE}.",
            unmounted=True,
        )
    return Absence(
        f"the store {store} has nothing of what was published to it",
        f"Bring it back, from a backup say. To begin anew, remove {project.state / NOTE}.",
        unmounted=False,
    )


def refuse_unmounted(project: Project) -> None:
    """Refuse a store that had outputs and whose disk is not mounted.

    Raises
    ------
    StoreError
    """
    absence = find_absence(project)
    if absence is not None and absence.unmounted:
        raise StoreError(absence.why, hint=absence.fix)


def _mount_of(folder: Path) -> str:
    while not os.path.ismount(folder) and folder != folder.parent:
        folder = folder.parent
    return str(folder)


def _read(project: Project) -> dict[str, str]:
    try:
        said = json.loads((project.state / NOTE).read_bytes())
        return {str(store): str(mount) for store, mount in said.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(project: Project, known: dict[str, str]) -> None:
    with suppress(OSError, ResearchJobsError):  # a full disk stops no run here
        project.make_state_folder()
        write_atomically(project.state / NOTE, json.dumps(known).encode(), private=True)
