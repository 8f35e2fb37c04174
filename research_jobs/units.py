"""Sizes as a person reads them. Standard library only."""

from __future__ import annotations

__all__ = ["readable_size"]


def readable_size(count: float) -> str:
    """Bytes in powers of 1024, named as such: ``312 bytes``, ``4.1 KiB``, ``2 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
