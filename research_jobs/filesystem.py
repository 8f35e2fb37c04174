"""Folders and files that several threads and processes create, replace and remove at once.

All code that creates shared folders or files uses these functions. Standard library only: every
package may use it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = [
    "attempts",
    "folder_bytes",
    "make_folder",
    "make_private",
    "open_private",
    "refuse_other_than_folder",
    "temporary_path",
    "write_atomically",
]

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
# An attempt fails only if another process removes a folder at that moment.
ATTEMPTS = 10_000


def make_folder(path: Path, *, private: bool = False) -> None:
    """Create a folder and its missing parents, even while others create and remove them.

    Parameters
    ----------
    path : Path
    private : bool
        Whether only this user can enter the created folders (0700), whatever the umask.

    Raises
    ------
    NotADirectoryError
        When something else has that name.
    OSError
        When it cannot be created.
    """
    for _ in attempts(path):
        try:
            path.mkdir(PRIVATE_FOLDER if private else 0o777)
        except FileNotFoundError:
            if path.parent == path:
                raise
            make_folder(path.parent, private=private)
            continue
        except FileExistsError:
            refuse_other_than_folder(path)
            if path.is_dir():
                return
            continue  # removed since
        if private:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(PRIVATE_FOLDER)  # mkdir() applies the umask
        return


def refuse_other_than_folder(path: Path) -> None:
    """Raise NotADirectoryError when a file or a dangling link has a wanted folder's name."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return
    except FileNotFoundError:
        if not path.is_symlink():
            return
    raise NotADirectoryError(errno.ENOTDIR, "A file is in the way", str(path))


def attempts(path: Path) -> Iterator[int]:
    """Count attempts at something that others undo; raise after very many."""
    yield from range(ATTEMPTS)
    raise FileNotFoundError(errno.ENOENT, "It is removed each time it is created", str(path))


def folder_bytes(folder: Path) -> int:
    """How many bytes are in the files below a folder; links are not followed."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def make_private(folder: Path) -> None:
    """Make a folder of this user private; leave another user's as it is."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(PRIVATE_FOLDER)


_counter = itertools.count()


def temporary_path(path: Path) -> Path:
    """A hidden name next to `path` that no other thread, process or machine uses.

    It ends in ``.part``, so a reader that lists the folder can tell it from a finished file.
    """
    unique = f"{os.getpid():x}-{next(_counter):x}-{secrets.token_hex(4)}"
    # 255 bytes is what file systems allow; a character has at most four of them.
    return path.with_name(f".{path.name[:40]}.{unique}.part")


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Parameters
    ----------
    path : Path
        Its folder is created if missing.
    content : bytes
    private : bool
        Whether only this user can read the file and enter folders created for it.
    """
    for _ in attempts(path):
        temporary = temporary_path(path)
        try:
            with _create(temporary, private=private) as file:
                file.write(content)
            temporary.replace(path)
        except FileNotFoundError:  # the folder is missing, or was removed since
            make_folder(path.parent, private=private)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        else:
            return


def _create(path: Path, *, private: bool) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE if private else 0o666)
    if private:
        os.fchmod(descriptor, PRIVATE_FILE)  # open() applies the umask
    return os.fdopen(descriptor, "wb")


def open_private(path: Path, mode: str = "wb") -> IO[Any]:
    """Open a file for writing that only this user can read, even if it already exists.

    Parameters
    ----------
    path : Path
        Its folder is created, private, if missing. A symbolic link is refused.
    mode : str
        As `open` takes it.
    """

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NOFOLLOW, PRIVATE_FILE)
        with contextlib.suppress(OSError):  # another user's file, or a device
            os.fchmod(descriptor, PRIVATE_FILE)
        return descriptor

    for _ in attempts(path):
        try:
            return open(path, mode, opener=opener)
        except FileNotFoundError:  # noqa: PERF203 - the loop is about this error
            make_folder(path.parent, private=True)
    raise AssertionError  # pragma: no cover - the attempts end with an error
