"""A Unix group that may read what is published: ``group:`` in the manifest."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from research_jobs.errors import StoreError
from research_jobs.store.layout import Unit

__all__ = ["Sharing"]


@dataclass(frozen=True)
class Sharing:
    """Gives a group read access to files and folders; new files in such folders inherit it.

    Parameters
    ----------
    group : str
        Its name.
    """

    group: str

    @cached_property
    def _number(self) -> int:
        import grp

        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise StoreError(
                f"there is no group '{self.group}' on this machine",
                hint="Check group in notebooks/manifest.yaml, or create the group with groupadd.",
            ) from None

    def share(self, path: Path) -> None:
        """Let the group read a file, or enter and list a folder; missing ones are skipped.

        Raises
        ------
        StoreError
            When there is no such group, or this user is not a member.
        """
        try:
            self._share(path)
        except FileNotFoundError:
            return  # a temporary file, or one that another process removed
        except PermissionError as error:
            raise StoreError(
                f"{path} cannot be given to the group '{self.group}': {error.strerror}",
                hint="The user that runs research_jobs must be a member of the group.",
            ) from error

    def _share(self, path: Path) -> None:
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            return
        wanted = stat.S_IMODE(state.st_mode) | stat.S_IRGRP
        if stat.S_ISDIR(state.st_mode):
            wanted |= stat.S_IXGRP | stat.S_ISGID
        if state.st_gid != self._number:
            os.chown(path, -1, self._number, follow_symlinks=False)
        # Changing the group clears the setgid bit.
        if stat.S_IMODE(path.lstat().st_mode) != wanted:
            path.chmod(wanted)

    def share_way(self, root: Path, path: Path) -> None:
        """Share every folder from `root` to `path`, both included."""
        self.share(root)
        for name in path.relative_to(root).parts:
            root = root / name
            self.share(root)

    def share_tree(self, folder: Path) -> None:
        """Share a folder and everything below it; links are not followed."""
        self.share(folder)
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                self.share(Path(place, name))

    def share_files(self, root: Path, path: Path) -> None:
        """Share the folders from `root` to `path`, and the files in each of them."""
        self.share_way(root, path)
        for place in (path, *path.parents):
            if not place.is_relative_to(root):
                return
            with os.scandir(place) as entries:
                files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
            for name in files:
                self.share(Path(name))

    def share_version(self, unit: Unit, folder: Path) -> None:
        """Share a complete but uncommitted version, and the folders above it."""
        self.share_way(unit.store, folder)
        for path in (*folder.iterdir(), unit.partitioning):
            self.share(path)

    def share_links(self, unit: Unit, outputs: Iterable[str]) -> None:
        """Share the folders of the names that other tools read."""
        for output in outputs:
            self.share_way(unit.store, unit.link(output).parent)
