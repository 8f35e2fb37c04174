"""A folder of research notebooks as scheduled Dagster assets.

The public names are imported on first use (PEP 562): importing this package imports neither
Dagster nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_jobs.errors import (
        BackupError,
        CorruptOutputError,
        DependencyCycleError,
        DependencyError,
        InstallError,
        ManifestError,
        NotebookError,
        NotebookNotFoundError,
        NotebookSyntaxError,
        OutputError,
        OutputNotAssignedError,
        OutputNotFoundError,
        OutputNotParquetError,
        ParameterError,
        PartitionError,
        ProjectError,
        PruneError,
        RemoteError,
        ResearchJobsError,
        RunError,
        StoreError,
    )
    from research_jobs.orchestration.definitions.component import NotebooksComponent
    from research_jobs.orchestration.definitions.factory import build_defs
    from research_jobs.run_context import RunContext, context, skip
    from research_jobs.store.load import load
    from research_jobs.supervisor.run import run_notebook

__version__ = "0.2.0"

__all__ = [
    "BackupError",
    "CorruptOutputError",
    "DependencyCycleError",
    "DependencyError",
    "InstallError",
    "ManifestError",
    "NotebookError",
    "NotebookNotFoundError",
    "NotebookSyntaxError",
    "NotebooksComponent",
    "OutputError",
    "OutputNotAssignedError",
    "OutputNotFoundError",
    "OutputNotParquetError",
    "ParameterError",
    "PartitionError",
    "ProjectError",
    "PruneError",
    "RemoteError",
    "ResearchJobsError",
    "RunContext",
    "RunError",
    "StoreError",
    "__version__",
    "build_defs",
    "context",
    "load",
    "run_notebook",
    "skip",
]

_HOME = {
    "BackupError": "research_jobs.errors",
    "CorruptOutputError": "research_jobs.errors",
    "DependencyCycleError": "research_jobs.errors",
    "DependencyError": "research_jobs.errors",
    "InstallError": "research_jobs.errors",
    "ManifestError": "research_jobs.errors",
    "NotebookError": "research_jobs.errors",
    "NotebookNotFoundError": "research_jobs.errors",
    "NotebookSyntaxError": "research_jobs.errors",
    "NotebooksComponent": "research_jobs.orchestration.definitions.component",
    "OutputError": "research_jobs.errors",
    "OutputNotAssignedError": "research_jobs.errors",
    "OutputNotFoundError": "research_jobs.errors",
    "OutputNotParquetError": "research_jobs.errors",
    "ParameterError": "research_jobs.errors",
    "PartitionError": "research_jobs.errors",
    "ProjectError": "research_jobs.errors",
    "PruneError": "research_jobs.errors",
    "RemoteError": "research_jobs.errors",
    "ResearchJobsError": "research_jobs.errors",
    "RunContext": "research_jobs.run_context",
    "RunError": "research_jobs.errors",
    "StoreError": "research_jobs.errors",
    "build_defs": "research_jobs.orchestration.definitions.factory",
    "context": "research_jobs.run_context",
    "load": "research_jobs.store.load",
    "run_notebook": "research_jobs.supervisor.run",
    "skip": "research_jobs.run_context",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
