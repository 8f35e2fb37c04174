"""Run commands of research-jobs where Dagster lacks some of its private names.

Its arguments are two lists in JSON: ``[["dagster._core.events", "DagsterEvent"], ...]`` and
``[["run", "--all"], ...]``. Only `research_jobs.orchestration.compat` misses
them; Dagster itself does not.
"""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Mapping
from typing import Any

missing = {tuple(pair) for pair in json.loads(sys.argv[1])}
commands = json.loads(sys.argv[2])
imports = builtins.__import__


def without(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002 - its name in Python
    *rest: Any,
    **named: Any,
) -> Any:
    """Import as Python does, but for the names that are taken away."""
    importer = (globals or {}).get("__name__", "")
    wanted = (rest[1] if len(rest) > 1 else named.get("fromlist")) or ()
    if importer.startswith("research_jobs.orchestration.compat"):
        for part in wanted:
            if (name, part) in missing:
                raise ImportError(f"cannot import name {part!r} from {name!r}")
    return imports(name, globals, *rest, **named)


builtins.__import__ = without

from research_jobs.cli.main import main  # noqa: E402 - not before names are taken away

statuses = [main(command) for command in commands]
sys.exit(max(statuses))
