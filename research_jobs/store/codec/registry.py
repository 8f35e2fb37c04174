"""The codecs: ``<library>_codec.py`` in this folder has the `CODEC` of that library's values.

Such a module is looked up by its name, so that only users of a library import it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from research_jobs.store.codec.base import FOREIGN

if TYPE_CHECKING:
    from research_jobs.store.codec.base import Encoded, ErrorContext
    from research_jobs.store.codec.source import Source

__all__ = ["Codec", "codec_modules", "codec_of", "codec_of_kind", "is_table"]


@dataclass(frozen=True)
class Codec:
    """How the values of one library become Parquet, and back.

    Parameters
    ----------
    kinds : frozenset of str
        What `encode` writes; each begins with the library's name and a dot.
    encode : callable
        A value as columns; None for a type without a kind.
    decode : callable
        The value of a file, with the columns and rows that are requested.
    tables : bool
        Whether the values have columns and rows to select.
    """

    kinds: frozenset[str]
    encode: Callable[[Any, ErrorContext], Encoded | None]
    decode: Callable[[Source, Sequence[Any] | None, Any], Any]
    tables: bool = True


@cache
def codec_modules() -> dict[str, str]:
    """Each library that has a codec, and the codec's module."""
    folder = __name__.rpartition(".")[0]
    modules = [module.name for module in iter_modules(import_module(folder).__path__)]
    codecs = [name for name in modules if name.endswith("_codec")]
    return {name.rpartition("_")[0]: f"{folder}.{name}" for name in codecs}


def codec_of(name: str) -> Codec | None:
    """The codec of a kind, or of a type's module; None if its library has no codec."""
    module = codec_modules().get(name.partition(".")[0])
    return None if module is None else import_module(module).CODEC


def codec_of_kind(kind: str) -> Codec | None:
    """The codec that writes a kind; None for what `plain` writes."""
    codec = codec_of(kind)
    return codec if codec is not None and kind in codec.kinds else None


def is_table(kind: str) -> bool:
    """Whether a kind has columns and rows to select."""
    codec = codec_of_kind(kind)
    return codec.tables if codec is not None else kind == FOREIGN
