"""One engine for each SQLite file of Dagster's, in processes that ask it much.

Dagster's SQLite storages make an engine for each question. An engine keeps the statements that it
has compiled, so each question compiles its statement again. Sharing them saves a tenth of the CPU
time of a small run's worker. They keep no connection, so threads and forks can share them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

__all__ = ["remember_engines"]

_STORAGES = (
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
)
# A run's events are in a file of its own: those of runs that are over are forgotten.
_MOST = 16


def remember_engines() -> None:
    """Have Dagster's SQLite storages share engines, where they make them as we know it."""
    for place in _STORAGES:
        try:
            module = importlib.import_module(place)
            original = module.create_engine
        except (ImportError, AttributeError):
            continue
        if not hasattr(original, "remembers"):
            module.create_engine = _remembering(original)  # type: ignore[attr-defined]


def _remembering(original: Any) -> Any:
    from sqlalchemy.pool import NullPool

    @lru_cache(_MOST)
    def make(url: str, connecting: tuple[tuple[str, Any], ...]) -> Any:
        return original(url, poolclass=NullPool, connect_args=dict(connecting))

    def create_engine(
        url: Any, *, connect_args: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        connecting = dict(connect_args or {})
        if options != {"poolclass": NullPool}:
            return original(url, connect_args=connecting, **options)
        return make(url, tuple(sorted(connecting.items())))

    create_engine.remembers = True  # type: ignore[attr-defined]
    return create_engine
