"""What processes that ask Dagster's storages much need not do again each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research_jobs.orchestration.compat.engines import remember_engines
from research_jobs.orchestration.compat.migrations import remember_migrations
from research_jobs.orchestration.compat.run_files import copy_run_files
from research_jobs.orchestration.compat.schema import remember_schema

if TYPE_CHECKING:
    from dagster import DagsterInstance

__all__ = ["remember"]


def remember(instance: DagsterInstance | None = None) -> None:
    """For a process that serves many runs: the host and its forks, the daemon, the code server.

    Parameters
    ----------
    instance : DagsterInstance, optional
        One that is open already.
    """
    remember_migrations()
    remember_schema()
    copy_run_files()
    remember_engines(instance)
