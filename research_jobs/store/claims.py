"""Folders that belong to a living process; those of dead ones are removed."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from research_jobs.errors import StoreError
from research_jobs.store.files import FolderLock, disk

__all__ = ["claim_folder", "temporary_root"]


def claim_folder(
    area: Path, prefix: str, settle: Callable[[Path], bool] = lambda _folder: True
) -> tuple[Path, FolderLock]:
    """Create a folder for this process, and remove those whose process has died.

    Parameters
    ----------
    area : Path
        An existing folder that has such folders only.
    prefix : str
        How the folder's name begins.
    settle : callable, optional
        Called before a dead process's folder is removed; False keeps it.

    Returns
    -------
    Path and FolderLock
        The lock is held as long as the folder is claimed.

    Raises
    ------
    OSError
    """
    # One at a time: a new folder looks abandoned until it is locked.
    with FolderLock(area) as guard:
        guard.exclusive()
        for folder in area.iterdir():
            with contextlib.suppress(OSError), FolderLock(folder) as lock:
                if lock.exclusive(wait=False) and settle(folder):
                    disk().remove_tree(folder)
        path = area / f"{prefix}-{secrets.token_hex(4)}"
        disk().make_folder(path)
        lock = FolderLock(path)
        lock.exclusive()
    return path, lock


def temporary_root() -> Path:
    """The folder of temporary files of this user alone."""
    root = Path(tempfile.gettempdir()) / f"research_jobs-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    state = root.lstat()
    # Anyone can create names in the temporary folder: check that it is ours.
    if root.is_symlink() or state.st_uid != os.getuid():
        raise StoreError(f"{root} belongs to another user", hint="Set TMPDIR to another folder.")
    return root
