"""What the commands that speak to Dagster begin with: project, instance, definitions."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from research_jobs.errors import NotebookError
from research_jobs.orchestration.compat.outages import ride_out_outages
from research_jobs.orchestration.definitions.factory import catalog_defs, known_defs
from research_jobs.orchestration.definitions.jobs import op_names
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.dynamic_keys import dynamic_sources, newest_dynamic_keys
from research_jobs.orchestration.model.instance import end_dead_runs, enter_project, open_instance
from research_jobs.orchestration.model.ownership import claim_names
from research_jobs.orchestration.operations.entries import find_entries, given_parameters
from research_jobs.orchestration.operations.launch import Launcher
from research_jobs.orchestration.operations.staleness import stale_notebooks
from research_jobs.project import Project

__all__ = ["Session", "open_session"]


@dataclass
class Session:
    """A project, its instance and its definitions.

    Parameters
    ----------
    project : Project
    instance : DagsterInstance
    catalog : Catalog
    """

    project: Project
    instance: dg.DagsterInstance
    catalog: Catalog
    # Lists of keys that were read already.
    _fresh: set[str] = field(default_factory=set[str], init=False, repr=False)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """Definitions: what the code location holds."""
        return known_defs(self.catalog) or catalog_defs(self.catalog)

    @cached_property
    def launcher(self) -> Launcher:
        """Launcher: runs notebooks in this process; another project's names are refused."""
        claim_names(self.instance, self.project, self.catalog.names.prefix)
        ride_out_outages(self.instance)
        return Launcher(self.instance, self.catalog, self.definitions)

    def select(
        self, names: Iterable[str], *, selection: str | None = None, stale: bool = False
    ) -> list[dg.AssetKey]:
        """The assets that a call means.

        Parameters
        ----------
        names : iterable of str
            Notebooks in any spelling; none of them and no `selection` means all.
        selection : str, optional
            In Dagster's own language.
        stale : bool
            Keep only what is out of date.
        """
        graph = self.launcher.graph
        if selection is not None:
            try:
                with warnings.catch_warnings():
                    # Dagster's own parser uses what Dagster calls beta.
                    warnings.simplefilter("ignore", dg.BetaWarning)
                    chosen = dg.AssetSelection.from_string(selection).resolve(graph)
            except Exception as error:  # its parser raises several unrelated classes
                line = str(error).strip().split("\n", 1)[0]
                raise NotebookError(f"--select '{selection}' cannot be read: {line}") from error
            keys = [key for key in graph.toposorted_asset_keys if key in chosen]
            keys = [key for key in keys if graph.get(key).is_materializable]
            if not keys:
                raise NotebookError(f"--select '{selection}' matches no notebook")
        else:
            entries = find_entries(self.catalog, names)
            keys = [self.catalog.names.key(entry.name) for entry in entries]
        if stale:
            due = set(stale_notebooks(self.instance, self.definitions))
            keys = [key for key in keys if key in due]
        return keys

    def refresh_keys(self, names: Iterable[str]) -> None:
        """Learn the newest partitions of notebooks that take them from another one's output.

        Raises
        ------
        PartitionError
            When there is no such output yet, or it cannot be read.
        """
        for name in names:
            for source in dynamic_sources(self.catalog.entries[name].spec):
                if source.definition_name not in self._fresh:
                    newest_dynamic_keys(self.instance, self.project, source)
                    self._fresh.add(source.definition_name)

    def forget_keys(self) -> None:
        """Read lists of keys again, when they are asked for."""
        self._fresh.clear()

    def run_config(self, keys: Sequence[dg.AssetKey], values: Mapping[str, str]) -> dict[str, Any]:
        """Parameters from the command line as Dagster's run config, below ``ops``."""
        names = [self.catalog.names.notebook(key) for key in keys]
        ops = op_names(self.catalog.entries)
        return {
            ops[name]: {"config": converted}
            for name, converted in given_parameters(self.catalog, names, values).items()
        }


@contextmanager
def open_session(project: Project) -> Generator[Session]:
    """A session, as a context; the process becomes one of the project's."""
    enter_project(project)
    with open_instance(project) as instance:
        end_dead_runs(instance)
        yield Session(project, instance, load_catalog(project))
