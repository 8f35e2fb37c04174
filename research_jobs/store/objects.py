"""The objects behind an fsspec URL: operations that are safe for threads, processes, machines."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from research_jobs.errors import ResearchJobsError, StoreError, first_line
from research_jobs.filesystem import make_folder
from research_jobs.store.conditions import CONDITIONS, Conditions, is_lost, is_refused
from research_jobs.store.files import FolderLock

__all__ = ["Objects", "in_parallel", "objects_of"]

T = TypeVar("T")
R = TypeVar("R")

PROBE = ".conditions"
"""The object on which is tried out whether the service honours conditions."""
REQUESTS = 16  # at once
PART = 8 * 2**20  # bytes; a transfer holds at most PARTS of them in memory
PARTS = 4
_TRANSFER: Mapping[str, Mapping[str, int]] = {
    "s3": {"chunksize": PART, "max_concurrency": PARTS},
    "gs": {"chunksize": PART},
    "abfs": {"max_concurrency": PARTS},
}
# Package and our extra that fsspec's protocols need.
_PACKAGES = {
    "s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"), "abfs": ("adlfs", "azure"), "abfss": ("adlfs", "azure"),
    "sftp": ("paramiko", "sftp"), "ssh": ("paramiko", "sftp"),
}  # fmt: skip

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

    @property
    def conditional(self) -> bool:
        """bool: whether `replace` holds for all machines."""
        return self.in_memory or self._local or self._conditions is not None

    @cached_property
    def _conditions(self) -> Conditions | None:
        """How the service replaces on a condition, if it does; it is asked once a process."""
        ways = next((CONDITIONS[name] for name in self._protocols if name in CONDITIONS), ())
        with self.explained("it cannot be written to"):
            return next((way for way in ways if self._honoured(way)), None)

    def _honoured(self, way: Conditions) -> bool:
        path = f"{self.root}/{PROBE}"

        def put(tag: str | None) -> bool:
            return _put(way, self.system, path, b"{}", tag)

        try:
            put(None)  # from now on it exists
            if put(None) or put(way.never):
                return False
            tried = None
            while (tag := self._tag(way, path)) != tried:  # others may try it at the same moment
                if put(tag):
                    return True
                tried = tag
        except Exception as error:
            if not is_refused(error):
                raise
        return False

    def _tag(self, way: Conditions, path: str) -> str:
        self.system.invalidate_cache()
        return self.system.info(path)[way.tag]

    @property
    def _local(self) -> bool:
        return not self._protocols.isdisjoint(("file", "local"))

    @contextmanager
    def _folder_lock(self) -> Generator[None]:
        if not self._local:
            yield
            return
        make_folder(Path(self.root))
        with FolderLock(Path(self.root)) as lock:
            lock.exclusive()
            yield

    def tagged(self, path: str) -> tuple[bytes | None, Any]:
        """The content of a small object (None if it does not exist), and its tag for `replace`."""
        if self._conditions is None:
            content = self.read(path)
            return content, content
        with self.explained(f"{path} cannot be read"):
            try:
                # In this order: the tag is never newer than the content.
                tag = self._tag(self._conditions, path)
                return self.system.cat_file(path), tag
            except FileNotFoundError:
                return None, None
            except Exception:
                self.system.cat_file(path)  # an answer to HEAD does not say why
                raise

    def replace(self, path: str, content: bytes, tag: Any) -> bool:
        """Replace a small object unless it has changed since `tagged`; False if it has.

        Where the service knows no conditions, this holds for the threads of this process, and
        for all processes if it is a local folder.
        """
        if self._conditions is None:
            with _one_at_a_time, self._folder_lock():
                if self.read(path) != tag:
                    return False
                self.write(path, content)
                return True
        with self.explained(f"{path} cannot be replaced"):
            try:
                if _put(self._conditions, self.system, path, content, tag):
                    return True
            except Exception:
                if self.read(path) == content:  # it was done, only the answer was lost
                    return True
                raise
            return self.read(path) == content  # an answer was lost and the client tried again

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
            self.system.put_file(str(source), path, **self._transfer)
            return
        with self._renamed(path) as temporary:
            self.system.put_file(str(source), temporary)

    def download(self, path: str, target: Path) -> None:
        """Create a local copy of an object."""
        if self.in_memory:
            target.write_bytes(self.system.cat_file(path))
        else:
            self.system.get_file(path, str(target), **self._transfer)

    @property
    def _transfer(self) -> Mapping[str, int]:
        """Options that bound the memory of a transfer; the libraries' defaults are 500 MB."""
        return next((_TRANSFER[name] for name in self._protocols if name in _TRANSFER), {})

    def copy(self, source: str, path: str, local: Path | None = None) -> None:
        """Replace an object by another atomically.

        Parameters
        ----------
        source, path : str
        local : Path, optional
            A file with the same content, for a service that cannot copy.
        """
        try:
            if not self.has_folders:
                self.system.cp_file(source, path)
                return
            with self._renamed(path) as temporary:
                self.system.cp_file(source, temporary)
        except NotImplementedError:
            if local is not None:
                self.upload(local, path)
                return
            with tempfile.TemporaryDirectory() as folder:
                self.download(source, Path(folder, "copy"))
                self.upload(Path(folder, "copy"), path)

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

    def find(self, folder: str) -> dict[str, Mapping[str, Any]]:
        """All objects below a folder by path, and what the service says of them."""
        self.system.invalidate_cache()  # others publish too
        try:
            return dict(sorted(self.system.find(folder, detail=True).items()))
        except FileNotFoundError:
            return {}

    def inside(self, path: str, folder: str | None = None) -> list[str]:
        """The parts of a path below a folder, by default below the store."""
        base = folder or self.root
        return path[path.index(base) + len(base) + 1 :].split("/")

    @contextmanager
    def explained(self, what: str) -> Generator[None]:
        """Turn errors of a file system into one-line errors; FileNotFoundError passes."""
        try:
            yield
        except (FileNotFoundError, ResearchJobsError):
            raise
        except Exception as error:
            # Client libraries put "None" where the service gave no message.
            texts = (first_line(each) for each in (error, error.__cause__) if each)
            said = (text for text in texts if not text.endswith("None"))
            reason = next(said, type(error).__name__)
            hint = "Check the credentials." if isinstance(error, PermissionError) else None
            raise StoreError(f"the store {self.store}: {what}: {reason}", hint=hint) from error


_one_at_a_time = threading.Lock()


def _put(way: Conditions, system: Any, path: str, content: bytes, tag: str | None) -> bool:
    """Whether an object had the tag (or did not exist, for None), and is replaced."""
    try:
        way.put(system, path, content, tag)
    except Exception as error:
        if is_lost(error) or (tag is not None and isinstance(error, FileNotFoundError)):
            return False
        raise
    return True


def in_parallel(work: Callable[[T], R], items: Iterable[T], *, at_once: int = REQUESTS) -> list[R]:
    """The results of requests that do not wait for each other, in order."""
    several = list(items)
    if len(several) < 2:
        return [work(item) for item in several]
    with ThreadPoolExecutor(min(at_once, len(several))) as pool:
        return list(pool.map(work, several))


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
        raise StoreError(
            f"the store {store} cannot be opened: {error}", hint=_to_install(store, error)
        ) from error
    if "s3" in system.protocol:
        system.max_concurrency = 1  # no question for the size before each read of a small object
    return Objects(store, system, path.rstrip("/"))


def _to_install(store: str, error: Exception) -> str | None:
    if isinstance(error, ImportError) and (known := _PACKAGES.get(store.partition("://")[0])):
        return f"pip install {known[0]} (the extra research_jobs[{known[1]}] brings it)"
    named = re.search(r"(?i)\binstall (?:the )?[\"'`]?([\w\-]+)", str(error))
    return f"pip install {named[1]}" if named else None


def objects_of(store: str) -> Objects:
    """The objects of a store, opened once in a process: file systems do not survive a fork."""
    return _open(store, os.getpid())
