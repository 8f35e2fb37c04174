"""Asking a database once whether it has a table or column, instead of with each statement.

Dagster's storages ask before most statements, since an older version may have made the database.
A run had the question put nine times. Tables and columns do not go away while a process lives, so
a yes is remembered for each storage; a no is not, for a migration may come.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

__all__ = ["remember_schema"]

_QUESTIONS = (
    ("dagster._core.storage.runs", "SqlRunStorage", "has_run_stats_index_cols"),
    ("dagster._core.storage.schedules", "SqlScheduleStorage", "has_instigators_table"),
    ("dagster._core.storage.schedules", "SqlScheduleStorage", "_has_instigators_table"),
)


def remember_schema() -> None:
    """Have the storages remember it, where they ask as we know it."""
    for place, kind, name in _QUESTIONS:
        try:
            storage = getattr(importlib.import_module(place), kind)
            original = getattr(storage, name)
        except (ImportError, AttributeError):
            continue
        if not hasattr(original, "remembers"):
            setattr(storage, name, _remembering(original, name))


def _remembering(original: Any, name: str) -> Any:
    known = f"_research_jobs{name}"

    @functools.wraps(original)
    def ask(self: Any, *arguments: Any) -> bool:
        if known in self.__dict__:
            return True
        answer = bool(original(self, *arguments))
        if answer:
            self.__dict__[known] = True
        return answer

    ask.remembers = True  # type: ignore[attr-defined]
    return ask
