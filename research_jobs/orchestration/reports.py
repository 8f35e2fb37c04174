"""The report of a run, and the metadata that leads to it. Nothing here ever fails a run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from research_jobs.orchestration.catalog import Catalog, Entry
from research_jobs.orchestration.metadata import Metadata
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey, RunResult

__all__ = ["report_entries", "run_folder"]


def run_folder(project: Project, run_id: str, step_key: str, partition: str | None) -> Path:
    """Where a run keeps what it needs while it lasts, made."""
    name = step_key
    if partition is not None:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", partition)[:60]
        name += f"-{plain}-{hashlib.sha256(partition.encode()).hexdigest()[:8]}"
    folder = project.state / "runs" / run_id / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def report_entries(
    catalog: Catalog,
    entry: Entry,
    result: RunResult,
    *,
    capture: Path,
    run_id: str,
    partition: PartitionKey | None,
    secrets: Mapping[str, str],
) -> Metadata:
    """Build the report of a run; metadata entries that lead to it."""
    return {}
