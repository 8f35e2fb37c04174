"""Frames over a socket, between supervisor, template, guardian and notebook process.

A frame is a length of four bytes, then JSON. Run requests and results are the records of
`research_jobs.protocol`; the few other messages are plain objects that also have a ``record`` and
a ``version``.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from research_jobs.outcome import Outcome
from research_jobs.protocol import (
    FRAME_LIMIT,
    HEADER,
    PROTOCOL_VERSION,
    ProtocolError,
    RunRequest,
    encode,
    parse_message,
)

__all__ = [
    "FrameReader",
    "address_in",
    "as_text_mapping",
    "message",
    "receive_descriptors",
    "receive_frame",
    "receive_message",
    "send_frame",
    "send_message",
    "send_record",
]

# Messages are small, the largest contains an environment; only records may fill a whole frame.
MESSAGE_LIMIT = 4 * 1024 * 1024

# How much is read without a pause: bytes, and how often. A socket holds less.
_PIECE, _PIECES = 256 * 1024, 16

# Other systems than Linux do not have it.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def message(kind: str, **fields: Any) -> bytes:
    """A small message as one frame."""
    payload = json.dumps({"version": PROTOCOL_VERSION, "record": kind, **fields}).encode()
    if len(payload) > MESSAGE_LIMIT:
        raise ProtocolError(f"message {kind} of {len(payload)} bytes")
    return HEADER.pack(len(payload)) + payload


def send_message(sock: socket.socket, kind: str, *, fds: Sequence[int] = (), **fields: Any) -> None:
    """Send a small message, with descriptors if any."""
    frame = message(kind, **fields)
    if not fds:
        sock.sendall(frame)
        return
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sent = sock.sendmsg([frame], rights)
    if sent < len(frame):
        sock.sendall(frame[sent:])


def send_frame(sock: socket.socket, payload: bytes) -> None:
    """Forward a payload as one frame."""
    sock.sendall(HEADER.pack(len(payload)) + payload)


def send_record(sock: socket.socket, record: RunRequest | Outcome) -> None:
    """Send a record as one frame."""
    sock.sendall(encode(record))


def receive_frame(sock: socket.socket) -> bytes | None:
    """The payload of the next frame, or None when the other side has closed.

    Raises
    ------
    ProtocolError
        When the frame is too large or cut short.
    """
    header = _receive_exactly(sock, HEADER.size)
    if header is None:
        return None
    (size,) = HEADER.unpack(header)
    if size > FRAME_LIMIT:
        raise ProtocolError(f"frame of {size} bytes; the limit is {FRAME_LIMIT}")
    payload = _receive_exactly(sock, size)
    if payload is None:
        raise ProtocolError(f"frame of {size} bytes cut short")
    return payload


def receive_message(sock: socket.socket) -> dict[str, Any] | None:
    """The next message, or None when the other side has closed."""
    payload = receive_frame(sock)
    return None if payload is None else parse_message(payload)


def receive_descriptors(sock: socket.socket, most: int) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and the descriptors that came with it.

    Only the first bytes of the frame carry descriptors, so these are read together. No program
    that this process starts inherits them; with a message that is not ours they are closed.
    """
    fds: array.array[int] = array.array("i")
    header, ancillary, _flags, _address = sock.recvmsg(
        HEADER.size, socket.CMSG_SPACE(most * fds.itemsize), _CLOSE_ON_EXEC
    )
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not header:
        return None, list(fds)
    try:
        return _rest_of_message(sock, header), list(fds)
    except BaseException:
        for descriptor in fds:
            os.close(descriptor)
        raise


def _rest_of_message(sock: socket.socket, header: bytes) -> dict[str, Any]:
    if len(header) < HEADER.size:
        header += _receive_exactly(sock, HEADER.size - len(header)) or b""
    if len(header) < HEADER.size:
        raise ProtocolError("frame cut short")
    (size,) = HEADER.unpack(header)
    if size > MESSAGE_LIMIT:
        raise ProtocolError(f"message of {size} bytes")
    payload = _receive_exactly(sock, size)
    if payload is None:
        raise ProtocolError("frame cut short")
    return parse_message(payload)


class FrameReader:
    """Splits the bytes of a socket into frames without ever blocking.

    Parameters
    ----------
    sock : socket
        A stream socket.
    limit : int
        Of one frame's payload, bytes.
    """

    def __init__(self, sock: socket.socket, limit: int = FRAME_LIMIT) -> None:
        self._sock = sock
        self._limit = limit
        self._buffer = bytearray()
        self.closed = False

    def read(self) -> Iterator[bytes]:
        """The complete frames so far; sets `closed` at the end of the stream.

        Of a sender that goes on and on, some are left for the next call.

        Raises
        ------
        ProtocolError
            When a frame is too large, or the stream ended within one.
        """
        for _ in range(_PIECES if not self.closed else 0):
            try:
                data = self._sock.recv(_PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                self.closed = True
                break
            self._buffer += data
            yield from self._frames()
        if self.closed and self._buffer:
            cut = len(self._buffer)
            self._buffer.clear()
            raise ProtocolError(f"frame cut short after {cut} bytes")

    def _frames(self) -> Iterator[bytes]:
        while len(self._buffer) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._buffer)
            if size > self._limit:
                raise ProtocolError(f"frame of {size} bytes; the limit is {self._limit}")
            end = HEADER.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield payload


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    buffer = bytearray()
    while len(buffer) < size:
        try:
            data = sock.recv(min(size - len(buffer), 1 << 20))
        except ConnectionError:
            data = b""
        if not data:
            if buffer:
                raise ProtocolError("frame cut short")
            return None
        buffer += data
    return bytes(buffer)


@contextlib.contextmanager
def address_in(folder: str | os.PathLike[str], name: str) -> Generator[str]:
    """The address of a socket in a folder, however long the folder's path.

    A Unix socket's address may have 107 bytes. An open folder has a short name below ``/proc``.

    Raises
    ------
    OSError
        When the folder does not exist or cannot be entered.
    """
    if sys.platform != "linux":
        yield os.path.join(folder, name)  # noqa: PTH118 - pathlib is not needed for this
        return
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def as_text_mapping(value: Any) -> dict[str, str]:
    """A message's field as a mapping of text to text."""
    if not isinstance(value, Mapping):
        raise ProtocolError("field is not a mapping")
    return {str(key): str(item) for key, item in value.items()}
