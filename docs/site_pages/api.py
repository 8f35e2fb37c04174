"""The API reference: the public names, whose docstrings mkdocstrings reads."""

from __future__ import annotations

import inspect
from pathlib import Path

import research_jobs

__all__ = ["page"]

INTRODUCTION = """\
# Python API

`import research_jobs` imports neither Dagster nor pandas: each name below is imported on first use.
"""


def page(_root: Path) -> str:
    """The page's Markdown: functions and classes first, then errors."""
    names = [name for name in research_jobs.__all__ if not name.startswith("_")]
    objects = {name: getattr(research_jobs, name) for name in names}
    errors = {
        name
        for name, value in objects.items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    parts = [INTRODUCTION, "## Functions and classes"]
    parts += [_entry(name, objects[name]) for name in names if name not in errors]
    parts += ["## Errors"]
    parts += [_entry(name, objects[name]) for name in names if name in errors]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, value: object) -> str:
    # The module that defines it, so that no other module need be read.
    return f"::: {value.__module__}.{name}"
