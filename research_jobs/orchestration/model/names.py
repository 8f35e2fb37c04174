"""What notebooks are called in Dagster: asset keys, pools and sets of partition keys.

Projects that share an instance set `prefix:` in their manifests; it goes before all three, so that
neither history, nor limits, nor listed partitions are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["NOTEBOOKS_POOL", "PRUNE_JOB", "PRUNE_SCHEDULE", "AssetNames"]

NOTEBOOKS_POOL = "notebooks"
"""The pool of every notebook that names none of its own."""

PRUNE_JOB = "research_jobs_prune"
PRUNE_SCHEDULE = "research_jobs_prune_nightly"
"""The job that removes what nobody reads any more, and its schedule, of which no manifest knows."""


@dataclass(frozen=True)
class AssetNames:
    """The two-way mapping between a project's notebooks and their names in Dagster.

    Parameters
    ----------
    prefix : str or None
        The manifest's.
    """

    prefix: str | None = None

    def key(self, notebook: str) -> dg.AssetKey:
        """The asset of a notebook: ``volatility/garch`` is ``["volatility", "garch"]``."""
        import dagster as dg  # the catalog is read without it

        parts = notebook.split("/")
        return dg.AssetKey([self.prefix, *parts] if self.prefix else parts)

    def notebook(self, key: dg.AssetKey) -> str:
        """The notebook of an asset; another asset's key as it is written."""
        return self.notebook_at(key.path)

    def notebook_at(self, path: Sequence[str]) -> str:
        """The same, of the parts of a key."""
        return "/".join(path[1:] if path[0] == self.prefix else path)

    def pool(self, pool: str | None = None) -> str:
        """The pool that a notebook names, or the one that all others share."""
        return f"{self.prefix}_{pool or NOTEBOOKS_POOL}" if self.prefix else pool or NOTEBOOKS_POOL
