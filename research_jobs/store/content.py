"""The data version of a materialisation: a hash of what its outputs hold.

Dagster's own would be a hash of the code version and of the inputs' versions. A notebook that
fetches prices has no inputs, so its version would be the same every morning and nothing that
reads it would ever be out of date. With a hash of the content, a run that changes nothing leaves
what is downstream up to date, and any other makes it stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from research_jobs.outcome import StagedOutput

__all__ = ["content_version", "same_data"]

MAGIC = b"PAR1"
BLOCK = 1 << 20


def content_version(outputs: Iterable[StagedOutput]) -> str | None:
    """A hash over the outputs' names, types, columns and data.

    Parameters
    ----------
    outputs : iterable of StagedOutput
        Staged files, still where the notebook's process wrote them.

    Returns
    -------
    str or None
        None when there is no output. The Parquet footer is left out: it names the run.
    """
    digest = hashlib.blake2b(digest_size=16)
    empty = True
    for output in sorted(outputs, key=lambda item: item.name):
        empty = False
        digest.update(repr((output.name, output.kind, output.rows, output.columns)).encode())
        _hash_data(Path(output.path), digest)
    return None if empty else digest.hexdigest()


def same_data(left: Path, right: Path) -> bool:
    """Whether two Parquet files have the same bytes, their footers left out."""
    with left.open("rb") as one, right.open("rb") as other:
        if _data_size(one) != _data_size(other):
            return False
        return all(a == b for a, b in zip(_data(one), _data(other), strict=True))


def _hash_data(path: Path, digest: hashlib.blake2b) -> None:
    with path.open("rb") as stream:
        for block in _data(stream):
            digest.update(block)


def _data(stream: BinaryIO) -> Iterator[bytes]:
    left = _data_size(stream)
    stream.seek(0)
    while left > 0 and (block := stream.read(min(BLOCK, left))):
        yield block
        left -= len(block)


def _data_size(stream: BinaryIO) -> int:
    """Bytes before the footer, which is followed by its length and the magic word."""
    size = stream.seek(0, 2)
    if size < len(MAGIC) + 8:
        return size
    stream.seek(size - 8)
    tail = stream.read(8)
    footer = int.from_bytes(tail[:4], "little") + 8
    return size - footer if tail[4:] == MAGIC and footer <= size else size
