"""Which project's notebooks the names on a Dagster instance are.

Projects that share an instance and a prefix (or have none) would share histories and pools without
a word. So the instance remembers who ran first under each prefix, and another one is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.errors import ProjectError
from research_jobs.project import Project

__all__ = ["claim_names"]


def claim_names(instance: dg.DagsterInstance, project: Project, prefix: str | None) -> None:
    """Claim a prefix for a project before it runs anything.

    Projects with one store are one project (releases in folders of their own). A project that is
    gone, or has moved, loses its claim.

    Parameters
    ----------
    instance : DagsterInstance
    project : Project
    prefix : str or None
        The manifest's.

    Raises
    ------
    ProjectError
        When another project has claimed it.
    """
    key = f"research_jobs/owner/{prefix or ''}"
    cursors = instance.daemon_cursor_storage
    known = cursors.get_cursor_values({key}).get(key)
    mine = {"root": str(project.root.resolve()), "store": project.store}
    owner: dict[str, Any] = json.loads(known) if known else mine
    if owner == mine:
        if known is None:
            cursors.set_cursor_values({key: json.dumps(mine)})
        return
    root = Path(owner["root"])
    # A copied project brings a copy of its embedded instance, which is nobody else's.
    embedded = Path(instance.storage_directory()).resolve().is_relative_to(project.state.resolve())
    same = owner["root"] == mine["root"] or owner["store"] == mine["store"]
    if same or embedded or not (root / "notebooks").is_dir():
        cursors.set_cursor_values({key: json.dumps(mine)})
        return
    what = f"the prefix '{prefix}'" if prefix else "no prefix"
    raise ProjectError(
        f"{project.root} has {what}, like {root} on the same Dagster instance, and would share its"
        " history and pools",
        hint=f"Set another `prefix:` in {project.display(project.manifest)}, such as"
        f" `prefix: {project.root.name}`, or another DAGSTER_HOME.",
    )
