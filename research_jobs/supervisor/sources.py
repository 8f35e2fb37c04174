"""Whether a template's imports still match those of a cold start.

Checking every file before every run would cost 9 ms with 2,500 modules (pandas, matplotlib,
scikit-learn, statsmodels, plotly). So the kernel watches their folders, and the files are checked
only after an event. On network file systems the kernel misses changes by other machines, and the
files are checked every time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

__all__ = ["Sources"]

# From <sys/inotify.h>.
_WATCHED = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
_NONBLOCKING, _CLOSE_ON_EXEC = os.O_NONBLOCK, os.O_CLOEXEC

_LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)
# A file system's clock may lag by a tick: nanoseconds.
_TICK = 20_000_000
# Endings of names that can change what an import finds; a folder has none.
_FOUND_BY_IMPORTS = frozenset(
    {
        "",
        ".dist-info",
        ".egg",
        ".egg-info",
        ".egg-link",
        ".pth",
        ".py",
        ".pyc",
        ".pyd",
        ".so",
        ".zip",
    }
)
# How long after a fork a check from before it counts: seconds.
_TRUST_S = 2.0

_Signature: TypeAlias = "tuple[int, ...] | frozenset[str] | None"


class Sources:
    """The files of a template's modules, and the folders that it searched for them.

    Parameters
    ----------
    files : iterable of str
        Source files, extension modules, settings.
    folders : iterable of str
        Entries of ``sys.path``. A new or removed file counts as a change, here and next to each
        file.
    since : int
        When the template began to import, in nanoseconds. A newer file may differ from the one that
        was imported.
    ignored : iterable of str
        Paths in those folders that hold no code: one that appears is no change.
    """

    def __init__(
        self,
        files: Iterable[str],
        folders: Iterable[str],
        since: int,
        ignored: Iterable[str] = (),
    ) -> None:
        files = set(files)
        self._ignored = frozenset(ignored)
        self._paths = tuple(sorted({*files, *folders, *map(os.path.dirname, files)}))
        self._watch = _watch(self._paths)
        self._lock = threading.Lock()
        self._seen = tuple(map(self._signature, self._paths))
        self._changed = next(
            (
                path
                for path, seen in zip(self._paths, self._seen, strict=True)
                if isinstance(seen, tuple) and seen[2] > since - _TICK
            ),
            None,
        )
        # Until when a check by the process from which this one was forked counts here too.
        self._trusted_until = 0.0
        self._absent = tuple(
            path for path, seen in zip(self._paths, self._seen, strict=True) if seen is None
        )

    def changed(self) -> str | None:
        """A path with a change; None if there is none."""
        with self._lock:
            if self._changed is None and self._may_have_changed():
                for path, seen in zip(self._paths, self._seen, strict=True):
                    if self._signature(path) != seen:
                        self._changed = path
                        break
            return self._changed

    def inherit(self) -> None:
        """In a fork of a process that has just checked: watch for ourselves, from the next check.

        Both would read the same events otherwise, and each would miss what the other has read.
        """
        self._lock = threading.Lock()
        self._trusted_until = time.monotonic() + _TRUST_S
        if self._watch is not None:
            os.close(self._watch)
            self._watch = None

    def close(self) -> None:
        """Close the watch."""
        with self._lock:
            watch, self._watch = self._watch, None
            if watch is not None:
                os.close(watch)

    def _may_have_changed(self) -> bool:
        if self._trusted_until:
            if time.monotonic() < self._trusted_until:
                return False
            self._trusted_until = 0.0
            self._watch = _watch(self._paths)
            return True
        if self._watch is None or any(map(os.path.lexists, self._absent)):
            return True
        seen = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._watch, 65536):
                seen = True
        return seen

    def _signature(self, path: str) -> _Signature:
        """A value that changes with a file, or with the names in a folder."""
        try:
            status = os.stat(path)  # noqa: PTH116 - thousands of them
            if not stat.S_ISDIR(status.st_mode):
                # Not the time of its inode: a new hard link elsewhere changes that.
                return status.st_ino, status.st_size, status.st_mtime_ns
            return frozenset(
                name
                for name in os.listdir(path)  # noqa: PTH208 - thousands of them
                if name != "__pycache__"
                and name[0] != "."
                and _ending(name) in _FOUND_BY_IMPORTS
                and f"{path}/{name}" not in self._ignored
            )
        except OSError:
            return None


def _ending(name: str) -> str:
    return os.path.splitext(name)[1]  # noqa: PTH122 - thousands of them


def _watch(paths: Sequence[str]) -> int | None:
    """A descriptor that is readable after a change; None if that is not reliable."""
    folders = {path for path in paths if os.path.isdir(path)}  # noqa: PTH112
    folders |= {str(Path(path).resolve().parent) for path in paths if os.path.islink(path)}  # noqa: PTH114
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1") or not _all_local(folders):
        return None
    watch = libc.inotify_init1(_NONBLOCKING | _CLOSE_ON_EXEC)
    if watch < 0:
        return None
    for folder in folders:
        if libc.inotify_add_watch(watch, os.fsencode(folder), _WATCHED) < 0:
            os.close(watch)
            return None
    return watch


def _all_local(folders: Iterable[str]) -> bool:
    """Whether all folders are on file systems that no other machine can write to."""
    kinds: dict[int, str] = {}
    with contextlib.suppress(OSError), Path("/proc/self/mountinfo").open("rb") as mounts:
        for mount in mounts:  # whose folders may have any bytes in their names
            major, minor = mount.split()[2].split(b":")
            kind = mount.partition(b" - ")[2].split()[0]
            kinds[os.makedev(int(major), int(minor))] = kind.decode("ascii", "replace")
    with contextlib.suppress(OSError):
        return all(kinds.get(os.stat(folder).st_dev) in _LOCAL for folder in folders)  # noqa: PTH116
    return False
