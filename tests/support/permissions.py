"""Who may read what: a second group, a umask, and the modes of a whole folder."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def second_group() -> grp.struct_group:
    """A group that is not this process's own and that it may give files to; skips without one."""
    own = os.getegid()
    allowed = os.getgroups()
    for group in grp.getgrall():
        if group.gr_gid != own and (os.geteuid() == 0 or group.gr_gid in allowed):
            return group
    pytest.skip("this user is in one group only")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for as long as the block runs."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def permissions(root: Path) -> dict[str, tuple[str, int]]:
    """Path below `root` to mode and group, of every file and folder; links have none.

    The folder of what is not published yet is left out: it is nobody's but the run's.
    """
    found: dict[str, tuple[str, int]] = {}
    for path in (root, *root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_symlink() and ".staging" not in name:
            state = path.stat()
            found[name] = (stat.filemode(state.st_mode), state.st_gid)
    return found


def expected(root: Path, mask: int, group: int | None = None) -> dict[str, tuple[str, int]]:
    """What `permissions` is to say: by the umask, and readable by a group where one is named."""
    wanted: dict[str, tuple[str, int]] = {}
    for name in permissions(root):
        folder = (root / name).is_dir()
        mode = (0o777 if folder else 0o666) & ~mask
        if group is not None:
            mode |= stat.S_IRGRP | ((stat.S_IXGRP | stat.S_ISGID) if folder else 0)
        kind = stat.S_IFDIR if folder else stat.S_IFREG
        wanted[name] = (stat.filemode(kind | mode), os.getegid() if group is None else group)
    return wanted
