"""Logs: live, bounded, without secrets."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.runtime.pump import BoundedLog, Pump


def logged(pieces: Sequence[bytes], *, limit: int = 1 << 20, secrets: Sequence[str] = ()) -> bytes:
    """What a log holds after these writes."""
    with tempfile.TemporaryFile() as file:
        log = BoundedLog(file.fileno(), limit=limit, secrets=secrets)
        for piece in pieces:
            log.feed(piece)
        log.finish()
        file.seek(0)
        return file.read()


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The bytes in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[low:high] for low, high in itertools.pairwise(edges)]


@given(
    before=st.binary(max_size=20),
    after=st.binary(max_size=20),
    places=st.lists(st.integers(0, 1000), max_size=12),
    secret=st.sampled_from(["hunter22", "aaaa", "pässwörd", "a b&c"]),
)
def test_a_secret_never_gets_through(
    before: bytes, after: bytes, places: list[int], secret: str
) -> None:
    """Wherever writes cut it, a secret is masked and everything else is as it was."""
    raw = secret.encode()
    found = logged(cut(before + b"<" + raw + b">" + after, places), secrets=[secret])
    assert raw not in found.replace(b"***", b"")
    if raw not in before + b"<" and raw not in b">" + after:
        assert b"<***>" in found


@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 1000), max_size=12))
def test_bytes_pass_as_they_are(data: bytes, places: list[int]) -> None:
    """Below the limit nothing is changed, whatever the bytes are."""
    assert logged(cut(data, places)) == data


@settings(max_examples=200)
@given(
    size=st.integers(0, 400),
    limit=st.integers(2, 100),
    places=st.lists(st.integers(0, 1000), max_size=12),
)
def test_head_and_tail_of_a_flood(size: int, limit: int, places: list[int]) -> None:
    """Above the limit both ends stay, and the marker tells how much is missing."""
    data = bytes(i % 251 for i in range(size))
    found = logged(cut(data, places), limit=limit)
    head = limit // 2
    tail = limit - head
    assert found.startswith(data[:head])
    assert found.endswith(data[head:][-tail:])
    dropped = max(0, size - limit)
    assert (f"{dropped} bytes left out here".encode() in found) == (dropped > 0)


def test_a_prefix_of_a_secret_at_the_end_is_shown() -> None:
    """What only began like a secret is shown when no more comes."""
    assert logged([b"pass", b"wo"], secrets=["password"]) == b"passwo"


def test_a_log_that_cannot_be_written_holds_nothing_up() -> None:
    """When the log's disk is full or its reader gone, the stream is drained all the same."""
    log = BoundedLog(os.open("/dev/full", os.O_WRONLY), limit=1 << 20)
    for _ in range(10):
        log.feed(b"x" * 1000)
    log.finish()
    assert log.error is not None


def test_pump_reads_to_the_end() -> None:
    """A pump ends when the last writer closes, with everything in the log."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file:
        pump = Pump(reader, BoundedLog(file.fileno(), limit=1 << 20))
        pump.start()
        os.write(writer, b"one ")
        os.write(writer, b"two")
        os.close(writer)
        pump.join(10)
        assert not pump.is_alive()
        file.seek(0)
        assert file.read() == b"one two"


def test_limit_of_nothing() -> None:
    """A limit of 0 keeps nothing but the marker."""
    assert (
        logged([b"x" * 10], limit=0)
        .strip()
        .endswith(
            b"[research_jobs: 10 bytes left out here, the log keeps the beginning and the end]"
        )
    )


@pytest.mark.parametrize("secret", ["", "abc"])
def test_short_secrets_are_left_alone(secret: str) -> None:
    """Masking what is too short to be a secret would empty the log."""
    assert logged([b"abc abc"], secrets=[secret]) == b"abc abc"
