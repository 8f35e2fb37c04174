"""The few file operations that the store's guarantees depend on.

Everything that `commit` changes on disk goes through one `Files` object, so that a test can log
the operations, replay any part of them as after a power cut, or make the n-th one fail.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path

from research_jobs.filesystem import attempts, refuse_other_than_folder

__all__ = ["Files", "FolderLock", "disk", "is_plain_file"]


def is_plain_file(path: Path) -> bool:
    """Whether `path` is a regular file itself, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


class Files:
    """Operations on the local file system; durable only where a ``sync_`` follows."""

    def make_folder(self, path: Path) -> None:
        """Create a folder; its parent exists, the folder does not."""
        path.mkdir()

    def link(self, path: Path, target: str) -> None:
        """Create a symbolic link."""
        path.symlink_to(target)

    def link_or_copy(self, source: Path, target: Path) -> None:
        """Give a file a second name, or make a durable copy where that is not possible."""
        try:
            os.link(source, target)
        except OSError:  # another file system, or no such links
            shutil.copyfile(source, target)
            self.sync_file(target)

    def rename(self, source: Path, target: Path) -> None:
        """Move within the file system, atomically replacing the target."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file or a link."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def write(self, path: Path, data: bytes) -> None:
        """Create a small file."""
        with path.open("xb") as stream:
            stream.write(data)

    def sync_file(self, path: Path) -> None:
        """Flush a file's content to the disk."""
        self._sync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Flush a folder's names to the disk."""
        self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def _sync(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folders(self, path: Path) -> None:
        """Create a folder and its missing parents, each made durable in its parent.

        Others may create and remove empty folders on the path at the same time.
        """
        for _ in attempts(path):
            if path.is_dir():
                return
            self.make_folders(path.parent)
            with contextlib.suppress(FileNotFoundError):
                try:
                    self.make_folder(path)
                except FileExistsError:
                    refuse_other_than_folder(path)
                self.sync_folder(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and all below it; links are removed, never followed."""
        with os.scandir(path) as entries:
            listed = list(entries)
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                self.remove_tree(Path(entry.path))
            else:
                self.remove(Path(entry.path))
        self.remove_folder(path)


FILES = Files()


def disk() -> Files:
    """The operations that the store uses; a test replaces `FILES`."""
    return FILES


class FolderLock:
    """An advisory lock on a folder, which the kernel releases however its holder ends.

    Parameters
    ----------
    path : Path
        An existing folder. Nothing is written to it, so a read-only store can be locked too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None  # opening may fail, and then there is nothing to close
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def exclusive(self, *, wait: bool = True) -> bool:
        """Acquire it exclusively; False if it is held and `wait` is false."""
        return self._take(fcntl.LOCK_EX, wait=wait)

    def shared(self, *, wait: bool = True) -> bool:
        """Acquire it together with other shared holders."""
        return self._take(fcntl.LOCK_SH, wait=wait)

    def _take(self, kind: int, *, wait: bool) -> bool:
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def descriptor(self) -> int:
        """int: what holds it; a process that inherits it holds it too."""
        assert self._descriptor is not None
        return self._descriptor

    def same_folder(self) -> bool:
        """Whether the path still names the folder that is locked (it may have been replaced)."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release it; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> FolderLock:  # noqa: PYI034 - Self requires Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        # At the interpreter's exit modules may be gone; the kernel then releases the lock.
        try:  # noqa: SIM105 - contextlib may be gone too
            self.release()
        except AttributeError:
            pass
