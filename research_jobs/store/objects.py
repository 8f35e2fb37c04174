"""The objects behind an fsspec URL, with thread-safe operations."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError, StoreError

__all__ = ["Objects", "objects_of"]

# Systems with folders that write in place; all others replace whole objects.
FOLDER_PROTOCOLS = frozenset(
    ("file", "local", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "arrow_hdfs", "webdav")
)


@dataclass(frozen=True)
class Objects:
    """The objects of a store, with thread-safe operations.

    Nothing here uses fsspec's transactions: they are state of the file system object, and fsspec
    gives the same object to all callers.

    Parameters
    ----------
    store : str
        The URL.
    system : fsspec.AbstractFileSystem
        Not shared with other code.
    root : str
        The store's path on it.
    """

    store: str
    system: Any
    root: str

    @property
    def _protocols(self) -> set[str]:
        protocol = self.system.protocol
        return {protocol} if isinstance(protocol, str) else set(protocol)

    @property
    def has_folders(self) -> bool:
        """bool: whether files are written in place, in a folder that must exist."""
        return not FOLDER_PROTOCOLS.isdisjoint(self._protocols)

    @property
    def in_memory(self) -> bool:
        """bool: whether all readers and writers of an object share one file position."""
        return "memory" in self._protocols

    def read(self, path: str) -> bytes | None:
        """The content of a small object; None if it does not exist."""
        with self.explained(f"{path} cannot be read"):
            try:
                return self.system.cat_file(path)
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes) -> None:
        """Replace a small object atomically."""
        if not self.has_folders:
            self.system.pipe_file(path, content)
            return
        with self._renamed(path) as temporary:
            self.system.pipe_file(temporary, content)

    def upload(self, source: str | Path, path: str) -> None:
        """Replace an object by a file atomically."""
        if self.in_memory:
            self.system.pipe_file(path, Path(source).read_bytes())
            return
        if not self.has_folders:
            self.system.put_file(str(source), path)
            return
        with self._renamed(path) as temporary:
            self.system.put_file(str(source), temporary)

    def download(self, path: str, target: Path) -> None:
        """Create a local copy of an object."""
        if self.in_memory:
            target.write_bytes(self.system.cat_file(path))
        else:
            self.system.get_file(path, str(target))

    def copy(self, source: str, path: str) -> None:
        """Replace an object by another atomically."""
        if not self.has_folders:
            self.system.cp_file(source, path)
            return
        with self._renamed(path) as temporary:
            self.system.cp_file(source, temporary)

    @contextmanager
    def _renamed(self, path: str) -> Generator[str]:
        folder, _, name = path.rpartition("/")
        self.system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name[:40]}.{secrets.token_hex(8)}.part"
        try:
            yield temporary
            self.system.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                self.system.rm_file(temporary)
            raise

    def remove(self, path: str) -> None:
        """Remove an object if it exists."""
        with suppress(FileNotFoundError):
            self.system.rm_file(path)
        with suppress(OSError):  # a folder that is not empty
            while self.has_folders and (path := path.rpartition("/")[0]) != self.root:
                self.system.rmdir(path)

    def find(self, folder: str) -> list[str]:
        """All objects below a folder; none if it does not exist."""
        self.system.invalidate_cache()  # others publish too
        try:
            return sorted(map(str, self.system.find(folder)))
        except FileNotFoundError:
            return []

    @contextmanager
    def explained(self, what: str) -> Generator[None]:
        """Turn errors of a file system into one-line errors; FileNotFoundError passes."""
        try:
            yield
        except (FileNotFoundError, ResearchJobsError):
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise StoreError(f"the store {self.store}: {what}: {reason}") from error


@lru_cache(maxsize=64)
def _open(store: str, _process: int) -> Objects:
    try:
        import fsspec
    except ImportError as error:
        raise StoreError(
            f"the store {store} requires the package 'fsspec'", hint="pip install fsspec"
        ) from error
    try:
        # Our own instance: the one that fsspec shares may be in another caller's transaction.
        system, path = fsspec.core.url_to_fs(store, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        package = re.search(r"(?i)\binstall (?:the )?[\"'`]?([\w\-]+)", str(error))
        raise StoreError(
            f"the store {store} cannot be opened: {error}",
            hint=f"pip install {package[1]}" if package else None,
        ) from error
    return Objects(store, system, path.rstrip("/"))


def objects_of(store: str) -> Objects:
    """The objects of a store, opened once in a process: file systems do not survive a fork."""
    return _open(store, os.getpid())
