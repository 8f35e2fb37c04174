"""What both sides say to each other: frames of a JSON header and bytes.

The far side begins with `GREETING`. What a shell prints before it (a banner, an `echo` in
``.bashrc``) is skipped. Each frame is two lengths, the header and the bytes. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from research_jobs.errors import RemoteError

__all__ = [
    "BLOCK",
    "GREETING",
    "PROTOCOL",
    "CutError",
    "Frames",
    "await_greeting",
    "new_digest",
]

PROTOCOL = 1
"""What the frames mean. A side that knows a higher one also speaks the lower ones."""

GREETING = b"\n\0research_jobs remote-serve\0\n"
BLOCK = 1 << 20
"""Bytes of a frame at most."""

_LENGTHS = struct.Struct(">II")
_MOST_HEADER = 64 << 20
_MOST_BANNER = 1 << 20


class CutError(RemoteError):
    """The other side is gone."""


@dataclass(frozen=True)
class Frames:
    """One side of a connection.

    Parameters
    ----------
    source, sink : BinaryIO
    """

    source: BinaryIO
    sink: BinaryIO

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Send one frame.

        Raises
        ------
        CutError
        """
        said = json.dumps(header).encode()
        try:
            self.sink.write(_LENGTHS.pack(len(said), len(body)) + said + body)
            self.sink.flush()
        except ConnectionError as error:
            raise CutError("the connection is cut") from error

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Wait for one frame.

        Raises
        ------
        CutError
            When the other side has ended, within a frame or between two.
        RemoteError
            When it is no frame.
        """
        length, size = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        header = None
        if length <= _MOST_HEADER and size <= BLOCK:
            with suppress(ValueError, RecursionError):
                header = json.loads(self._exactly(length))
        if not isinstance(header, dict):
            raise RemoteError("the other side does not speak as research_jobs does")
        return header, self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        found = self.source.read(count)
        if len(found) < count:
            raise CutError("the connection is cut")
        return found


def new_digest() -> hashlib.blake2b:
    """The digest by which both sides compare files."""
    return hashlib.blake2b(digest_size=32)


def await_greeting(source: BinaryIO) -> bytes:
    """Read up to the greeting.

    Returns
    -------
    bytes
        What came before it.

    Raises
    ------
    CutError
        When it does not come; its argument is what came instead.
    """
    seen = bytearray()
    while not seen.endswith(GREETING):
        # By bytes: what follows the greeting belongs to the frames.
        letter = source.read(1)
        if not letter or len(seen) > _MOST_BANNER:
            raise CutError(seen.decode(errors="replace"))
        seen += letter
    return bytes(seen[: -len(GREETING)])
