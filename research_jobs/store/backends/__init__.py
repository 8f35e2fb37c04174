"""Backends: one module for each kind of store."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from research_jobs.store.backends.base import StoreBackend
from research_jobs.store.layout import is_remote

__all__ = ["backend_of"]


@lru_cache(maxsize=64)
def backend_of(store: str) -> StoreBackend[Any]:
    """The backend of a store.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    """
    if is_remote(store):
        from research_jobs.store.backends.remote import RemoteStore  # fsspec only for a URL

        return RemoteStore(store)
    from research_jobs.store.backends.local import LocalStore

    return LocalStore(store)
