"""Read Dagster's migration scripts once for a process and its forks.

Opening a storage compares its database with the newest of some hundred scripts, each a Python file
that is executed for it: a tenth of a second for each run, and for each tick in the code server.
"""

from __future__ import annotations

from typing import Any

__all__ = ["remember_migrations"]


def remember_migrations() -> None:
    """Have the scripts of a folder read when they are first asked for, and never again.

    For a process whose code does not change while it lives. Where Alembic has no such class, the
    scripts are read each time.
    """
    try:
        from alembic.script import ScriptDirectory
    except ImportError:
        return
    original = ScriptDirectory.from_config
    if getattr(original, "remembers", False):
        return
    known: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = original(config)
        return known[place]

    from_config.remembers = True  # type: ignore[attr-defined]
    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]
