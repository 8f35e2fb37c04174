"""Where a project's host listens, and who may be on the other side.

There is one host for each project, user and environment: the interpreter with its packages, and
the variables that an interpreter reads when it starts. Each has a socket of its own, so that a
program of another environment does not even find it.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from research_jobs.project import Project
from research_jobs.runtime.channel import address_in

__all__ = ["host_key", "host_lock", "identity", "peer_user", "socket_address", "socket_folder"]

# Variables that Python and the dynamic linker read once. Others are the run's own.
_READ_AT_START = ("LD_", "MALLOC_", "PYTHON")
# What these say does not change what a program computes.
_HARMLESS = frozenset({"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED"})

_CREDENTIALS = struct.Struct("3i")


def host_key(environment: Mapping[str, str]) -> str:
    """What tells the host of this interpreter and environment from others of the project."""
    read = sorted(
        f"{name}={value}"
        for name, value in environment.items()
        if name.startswith(_READ_AT_START) and name not in _HARMLESS
    )
    parts = (str(os.getuid()), _environment(), sys.base_prefix, sys.version, *read)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def socket_folder(project: Project) -> Path:
    """The folder of the project's sockets, which only this user can enter."""
    return project.state / "host"


def socket_address(folder: Path, key: str) -> AbstractContextManager[str]:
    """The address of a host's socket; see `address_in`."""
    return address_in(folder, f"{key}.sock")


def host_lock(folder: Path, key: str) -> Path:
    """The file that a host holds locked while it lives."""
    return folder / f"{key}.lock"


def identity() -> dict[str, str]:
    """What both sides must have in common, in case the socket's name is not enough to tell."""
    return {"python": _environment(), "package": str(Path(__file__).resolve().parents[1])}


def _environment() -> str:
    """The folder of the environment, whether or not it was called through a link."""
    return os.path.realpath(sys.prefix)


def peer_user(connection: socket.socket) -> int:
    """The user id of the process on the other side of a Unix socket (Linux)."""
    size = _CREDENTIALS.size
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(_CREDENTIALS.unpack(data)[1])
