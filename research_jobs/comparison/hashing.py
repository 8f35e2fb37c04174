"""Arrow columns as 64-bit hashes, a whole column at a time.

Two values have the same hash if they are equal in the type in which they are compared: all NaN are
one value, and 0.0 and -0.0 are another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

t: Any = pa.types

__all__ = ["hash_column", "hash_positions", "hash_row"]

_FIRST = np.uint64(0xFF51AFD7ED558CCD)  # the constants of MurmurHash3's finaliser
_SECOND = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(32)
_NULL = 0x9E3779B97F4A7C15
_STEP = 0x9E3779B97F4A7C15
_LONG = 256  # bytes: longer texts are hashed one by one
_ALL = 0xFFFFFFFFFFFFFFFF
_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(8)] + [_ALL], dtype="<u8")


def _mix(numbers: Any) -> Any:
    """Mix the bits of 64-bit numbers in place."""
    numbers *= _FIRST
    numbers ^= numbers >> _SHIFT
    numbers *= _SECOND
    numbers ^= numbers >> _SHIFT
    return numbers


def hash_row(columns: Sequence[Any], rows: int, *, start: int = 0) -> Any:
    """One hash for each row of converted columns.

    Parameters
    ----------
    columns : sequence of pyarrow.Array
    rows : int
    start : int
        The number of the first column: a column's place is part of the hash.

    Returns
    -------
    numpy.ndarray of uint64
    """
    total = np.zeros(rows, dtype="<u8")
    for number, column in enumerate(columns, start=start + 1):
        hashed = hash_column(column)
        hashed += np.uint64(number * _STEP & _ALL)
        total += _mix(hashed)
    return total


def hash_positions(first: int, rows: int) -> Any:
    """The hashes of the numbers of rows."""
    return _mix(np.arange(first, first + rows, dtype="<u8") + np.uint64(_STEP))


def hash_column(column: Any) -> Any:
    """One hash for each value of an array from `convert`; the caller may change it."""
    kind = column.type
    if t.is_null(kind):
        return np.full(len(column), _NULL, dtype="<u8")
    if t.is_dictionary(kind):
        values = np.append(hash_column(column.dictionary), np.uint64(_NULL))
        codes = column.indices.cast(pa.int64()).fill_null(len(column.dictionary))
        return values[codes.to_numpy()]
    if t.is_large_string(kind) or t.is_large_binary(kind):
        hashed = _hash_texts(column)
    elif t.is_decimal(kind):
        hashed = _hash_words(column, kind.bit_width // 64)
    else:
        hashed = _bits(column)
    if column.null_count:
        hashed[np.asarray(column.is_null())] = _NULL
    return hashed


def _bits(column: Any) -> Any:
    """Numbers and times as 64-bit numbers, not mixed yet."""
    kind = column.type
    if t.is_boolean(kind):
        return np.asarray(column.fill_null(False)).astype("<u8")
    wide = kind.bit_width == 64
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.zeros(len(column), dtype="<u8")
    if t.is_floating(kind):
        numbers = np.frombuffer(buffer, "<f8", len(column), column.offset * 8) + 0.0
        numbers[np.isnan(numbers)] = np.nan
        return numbers.view("<u8")
    dtype = "<u8" if wide else "<i4"
    numbers = np.frombuffer(buffer, dtype, len(column), column.offset * kind.bit_width // 8)
    return numbers.copy() if wide else numbers.astype("<i8").view("<u8")


def _hash_words(column: Any, width: int) -> Any:
    """Fixed-width values of several 64-bit words."""
    rows = len(column)
    buffer = column.buffers()[1]
    total = np.zeros(rows, dtype="<u8")
    if buffer is None or not rows:
        return total
    words = np.frombuffer(buffer, "<u8", rows * width, column.offset * width * 8)
    for word in range(width):
        total += np.uint64(word * _STEP & _ALL)
        total ^= words[word::width]
        _mix(total)
    return total


def _hash_texts(column: Any) -> Any:
    """Texts and bytes: eight bytes of all of them at a time."""
    rows = len(column)
    _, offset_buffer, data = column.buffers()
    if not rows or offset_buffer is None:
        return np.zeros(rows, dtype="<u8")
    offsets = np.frombuffer(offset_buffer, "<i8", rows + 1, column.offset * 8)
    first, last = int(offsets[0]), int(offsets[-1])
    content = np.zeros(
        last - first + 8, dtype="u1"
    )  # eight more, so that a word may begin anywhere
    if data is not None:
        content[: last - first] = np.frombuffer(data, "u1", last - first, first)
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    hashed = _mix(lengths.astype("<u8"))
    words = np.ndarray((len(content) - 7,), "<u8", content, strides=(1,))
    short = lengths <= _LONG
    longest = int(lengths[short].max(initial=0))
    for place in range(0, longest, 8):
        left = lengths - place
        chosen = np.flatnonzero((left > 0) & short)
        taken = words[starts[chosen] + place] & _MASKS[np.minimum(left[chosen], 8)]
        hashed[chosen] = _mix(hashed[chosen] ^ taken)
    for row in np.flatnonzero(~short):
        text: Any = content[starts[row] : starts[row] + lengths[row]]
        hashed[row] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return hashed
