"""Frames over a socket, whole or not."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_jobs.outcome import Outcome, State
from research_jobs.protocol import (
    FRAME_LIMIT,
    HEADER,
    ProtocolError,
    RunRequest,
    encode,
    parse_message,
)
from research_jobs.runtime.channel import (
    MESSAGE_LIMIT,
    FrameReader,
    message,
    receive_descriptors,
    receive_frame,
    receive_message,
    send_message,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_message_and_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    """A message carries fields, and descriptors beside it; several follow one another."""
    left, right = pair
    reader, writer = os.pipe()
    send_message(left, "Run", fds=(writer,), name="first")
    send_message(left, "Leave")
    got, descriptors = receive_descriptors(right, 3)
    assert got is not None
    assert (got["record"], got["name"], len(descriptors)) == ("Run", "first", 1)
    assert not os.get_inheritable(descriptors[0])
    os.write(descriptors[0], b"through")
    assert os.read(reader, 10) == b"through"
    got, descriptors = receive_descriptors(right, 3)
    assert got is not None
    assert (got["record"], descriptors) == ("Leave", [])
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """The end of the stream is None, not an error."""
    left, right = pair
    left.close()
    assert receive_message(right) is None


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack(">I", 100) + b"short", "cut short"),
        (b"\0\0", "cut short"),
        (struct.pack(">I", FRAME_LIMIT + 1), f"frame of {FRAME_LIMIT + 1} bytes"),
    ],
)
def test_broken_frames(pair: tuple[socket.socket, socket.socket], sent: bytes, reason: str) -> None:
    """A frame that is cut short or too large is an error that says so."""
    left, right = pair
    left.sendall(sent)
    left.close()
    with pytest.raises(ProtocolError, match=reason):
        receive_frame(right)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"{", "not JSON"), (b"[]", "not an object"), (b'{"version": 7}', "protocol 7")],
)
def test_messages_that_are_not_ours(payload: bytes, reason: str) -> None:
    """A message must be an object of our version."""
    with pytest.raises(ProtocolError, match=reason):
        parse_message(payload)


def test_frames_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    """Frames are cut out of the stream however it arrives, without ever blocking."""
    left, right = pair
    reader = FrameReader(right)
    assert list(reader.read()) == []
    frames = message("One") + message("Two", text="x" * 1000)
    got: list[str] = []
    for index in range(len(frames)):
        left.sendall(frames[index : index + 1])
        got += [parse_message(payload)["record"] for payload in reader.read()]
    assert got == ["One", "Two"]
    left.close()
    assert list(reader.read()) == []
    assert reader.closed


def test_descriptors_of_a_broken_message(pair: tuple[socket.socket, socket.socket]) -> None:
    """What comes with a message of another version, or cut short, does not stay open."""
    left, right = pair
    before = set(Path("/proc/self/fd").iterdir())
    left.settimeout(10)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 2))]
    other = b'{"version": 7}'
    left.sendmsg([HEADER.pack(len(other)) + other], rights)
    left.sendmsg([HEADER.pack(100) + b"{"], rights)
    left.shutdown(socket.SHUT_WR)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            receive_descriptors(right, 3)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_sender_that_does_not_stop(pair: tuple[socket.socket, socket.socket]) -> None:
    """Reading comes to an end while frames come faster than they are taken."""
    left, right = pair
    reader = FrameReader(right)
    frame = message("Cell", text="x" * 50_000)
    left.sendall(frame)
    taken = 0
    for _ in reader.read():
        left.sendall(frame)  # another one is there before the reader looks again
        taken += 1
        assert taken < 1000
    assert taken


def test_stream_that_ends_within_a_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    """The end of the stream within a frame is an error."""
    left, right = pair
    left.sendall(message("One")[:-1])
    left.close()
    with pytest.raises(ProtocolError, match="cut short"):
        list(FrameReader(right).read())


def test_largest_record(pair: tuple[socket.socket, socket.socket]) -> None:
    """A record above the limit is refused by the sender."""
    with pytest.raises(ProtocolError, match="at most"):
        encode(Outcome(State.SUCCEEDED, notes=("x" * FRAME_LIMIT,)))
    assert isinstance(RunRequest.__name__, str)


def test_largest_message(pair: tuple[socket.socket, socket.socket]) -> None:
    """A message above its limit, which is below a record's, is refused on both sides."""
    left, right = pair
    with pytest.raises(ProtocolError, match="message Run of"):
        message("Run", text="x" * MESSAGE_LIMIT)
    left.sendall(HEADER.pack(MESSAGE_LIMIT + 1))
    with pytest.raises(ProtocolError, match=f"message of {MESSAGE_LIMIT + 1} bytes"):
        receive_descriptors(right, 1)
