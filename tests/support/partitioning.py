"""Partitions as the manifest would define them, without a manifest."""

from __future__ import annotations

from typing import Any

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.model.partitions import build_partitions


def definition(**spec: Any) -> Any:
    """A definition from what the manifest would say, in UTC."""
    made = build_partitions(NotebookSpec.model_validate({"partitions": spec}))
    assert made is not None
    return made
