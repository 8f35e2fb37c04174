"""Files from behind a URL, kept on this machine for all processes of a user.

::

    ~/.cache/research_jobs/files/3f/<digest>-<output>.pq    what was fetched, at most `LIMIT` bytes
    ~/.cache/research_jobs/open/<pid>-<token>/              links to what a living process reads

A process reads through links of its own. So a file that is removed to make room stays where it is
read, and what a killed process leaves is found by its lock.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from research_jobs.filesystem import make_folder
from research_jobs.store.claims import claim_folder, temporary_root
from research_jobs.store.files import FolderLock

__all__ = ["LIMIT", "FileCache", "digest_of", "file_cache"]

LIMIT = 8 * 2**30
"""Bytes of all files together; the least recently used ones go first."""


class FileCache:
    """The files of one process; see `file_cache`.

    Parameters
    ----------
    root : Path
        The folder that all processes share.
    limit : int
    """

    def __init__(self, root: Path, limit: int = LIMIT) -> None:
        self.limit = limit
        self._files, opened = root / "files", root / "open"
        for folder in (root, self._files, opened):
            make_folder(folder, private=True)
        self.folder, self._lock = claim_folder(opened, str(os.getpid()))
        self._unlisted = limit  # bytes that were added since the files were last listed
        self._owner = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """Remove this process's links; a fork that ends keeps its parent's."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)

    def fetch(self, name: str, size: int, download: Callable[[Path], None]) -> Path:
        """A file, downloaded by the first process that needs it while others wait.

        Parameters
        ----------
        name : str
            Of a content that never changes; begins with hexadecimal digits.
        size : int
            Its bytes; 0 if they are not known.
        download : callable
            Creates a file; what it raises is raised, and nothing is kept.
        """
        own, shelf = self.folder / name, self._files / name[:2]
        if own.exists():
            return own
        make_folder(shelf, private=True)
        with FolderLock(shelf) as turn:
            turn.exclusive()
            if own.exists():
                return own
            shared = shelf / name
            if _link(shared, own):
                if not size or own.stat().st_size == size:
                    os.utime(own)
                    return own
                for broken in (own, shared):
                    broken.unlink()
            self._add(own, shared, download)
        self._make_room()
        return own

    def _add(self, own: Path, shared: Path, download: Callable[[Path], None]) -> None:
        part = own.with_name(f"{own.name}.part")
        try:
            download(part)
            with part.open("rb+") as stream:
                os.fsync(stream.fileno())  # a power cut leaves no broken file under this name
                self._unlisted += os.fstat(stream.fileno()).st_size
            part.rename(own)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _link(own, shared)

    def _make_room(self) -> None:
        """Remove the least recently used files; one process does it, now and then."""
        if self._unlisted < self.limit // 16:
            return
        with FolderLock(self._files) as turn:
            if not turn.exclusive(wait=False):
                return
            self._unlisted = 0
            found: list[tuple[float, int, Path]] = []
            for path in self._files.glob("*/*"):
                with suppress(FileNotFoundError):
                    state = path.stat()
                    found.append((state.st_mtime, state.st_size, path))
            total = sum(size for _, size, _ in found)
            for _, size, path in sorted(found):
                if total <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= size


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _opened(root: Path, _process: int) -> FileCache:
    try:
        return FileCache(root)
    except OSError:  # a service without a home that it may write to
        return FileCache(temporary_root())


def file_cache() -> FileCache:
    """The files of this process; ``XDG_CACHE_HOME`` moves them."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return _opened(Path(base, "research_jobs"), os.getpid())
