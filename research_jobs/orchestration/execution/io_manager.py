"""The IO manager: publishes what a notebook's process staged, and hands outputs to other assets.

A notebook's value, as far as Dagster is concerned, is a `StagedRun`: names and paths, no data.
Publishing it renames files; nothing of the data passes through the run worker. What another asset
gets is a mapping that reads an output when it is first asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import isgenerator
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.errors import OutputError
from research_jobs.orchestration.compat.assets import table_types
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.orchestration.model.causes import single_errors
from research_jobs.orchestration.model.partitions import partition_key_of
from research_jobs.outcome import StagedOutput
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import read_output
from research_jobs.store.commit import PublishedOutput, Staging, publish, reject

__all__ = [
    "IO_MANAGER_KEY",
    "NotebookIOManager",
    "PublishedPartitions",
    "Settle",
    "SettlingIOManager",
    "StagedRun",
    "asset_value",
]

logger = logging.getLogger("research_jobs")

IO_MANAGER_KEY = "notebook_io_manager"
"""The resource that notebook assets use unless the manifest names another.

Not ``io_manager``: other assets of the deployment keep theirs.
"""

Settle = Callable[[Exception | None], Mapping[str, Any]]
"""Makes a run's report, and returns metadata that leads to it.

It takes None, or what kept the outputs from being stored; then it raises what the step fails with.
"""


@dataclass(frozen=True)
class StagedRun:
    """The staged outputs of one run, to be published together or not at all.

    Parameters
    ----------
    store, notebook, run_id : str
    outputs : tuple of StagedOutput
    staging : Staging
    partition : PartitionKey or None
    keep : mapping of str to int or None
        Output to the number of older versions kept; see `retained`.
    settle : callable or None
        Called once that is settled.
    group : str or None
        A Unix group that may read them.
    data_version : str or None
    """

    store: str
    notebook: str
    run_id: str
    outputs: tuple[StagedOutput, ...]
    staging: Staging
    partition: PartitionKey | None = None
    keep: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    settle: Settle | None = None
    group: str | None = None
    data_version: str | None = None

    def publish(self, tell: Callable[[str], None] = logger.warning) -> tuple[PublishedOutput, ...]:
        """Make the outputs what everybody reads; the staging folder is gone afterwards.

        Parameters
        ----------
        tell : callable
            Called with a line when outputs of an earlier partitioning are set aside.
        """
        with self.staging:
            return publish(
                self.store,
                self.notebook,
                self.outputs,
                staging=self.staging,
                partition=self.partition,
                keep=self.keep,
                run_id=self.run_id,
                group=self.group,
                data_version=self.data_version,
                tell=tell,
            )

    def reject(self) -> Path | str:
        """Keep the outputs aside: a check refused them; where (a URL in a remote store)."""
        with self.staging:
            return reject(
                self.store,
                self.notebook,
                self.outputs,
                staging=self.staging,
                partition=self.partition,
                run_id=self.run_id,
                group=self.group,
            )


@dataclass(frozen=True)
class PublishedPartitions:
    """What a step hands on when nothing is left to publish: how many partitions it published."""

    count: int = 0


def asset_value(manager: Any, run: StagedRun) -> Any:
    """What an IO manager that is not ours gets for a run: a mapping of the loaded outputs.

    A manager of tables (Dagster's DuckDB, Snowflake, BigQuery..., dagster-polars) takes no
    mapping. It gets the table of the one output, as the kind of frame that it knows.

    Raises
    ------
    OutputError
        When a manager of tables is given a notebook without exactly one output.
    """
    types = table_types(manager)
    if types is None or any(issubclass(dict, kind) for kind in types):
        return {output.name: read_output(Path(output.path)) for output in run.outputs}
    if len(run.outputs) != 1:
        names = ", ".join(output.name for output in run.outputs)
        raise OutputError(
            f"{run.notebook} has {len(run.outputs)} outputs ({names}), and its io_manager, a "
            f"{type(manager).__name__}, keeps one table for each asset",
            hint="Split the notebook, or take another io_manager.",
        )
    path = Path(run.outputs[0].path)
    value = read_output(path)
    if isinstance(value, tuple(types)):
        return value
    libraries = {kind.__module__.partition(".")[0] for kind in types}
    library = next((name for name in ("pandas", "polars") if name in libraries), None)
    return read_output(path, as_=library) if library else value


class SettlingIOManager(dg.IOManager):
    """Another IO manager, whose failure to store a run's outputs leaves the run's record.

    Parameters
    ----------
    manager : IOManager
    settle : callable
    """

    def __init__(self, manager: dg.IOManager, settle: Settle) -> None:
        self._manager = manager
        self._settle = settle

    def handle_output(self, context: dg.OutputContext, obj: Any) -> Any:
        """Store the outputs, and yield what the IO manager yields or returns."""
        stored: Any
        try:
            with single_errors():
                stored = self._manager.handle_output(context, obj)
                if isgenerator(stored):
                    yield from stored
                elif stored:
                    yield stored
        except Exception as error:
            self._settle(error)
            raise

    def load_input(self, context: dg.InputContext) -> Any:
        """What the IO manager loads."""
        return self._manager.load_input(context)


class NotebookIOManager(dg.IOManager):
    """Keeps notebooks' outputs as Parquet in the project's store.

    Parameters
    ----------
    catalog : Catalog
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def project(self) -> Project:
        """Project: whose store it is."""
        return self._catalog.project

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish a run's outputs: all, or none.

        Parameters
        ----------
        context : OutputContext
        obj : StagedRun or PublishedPartitions
        """
        if isinstance(obj, PublishedPartitions):
            return
        if not isinstance(obj, StagedRun):
            raise OutputError(
                f"{context.asset_key.to_user_string()} gave a {type(obj).__name__} to the IO "
                f"manager '{IO_MANAGER_KEY}', which keeps the outputs of notebooks only",
                hint="Give that asset another io_manager_key.",
            )
        try:
            with single_errors():
                published = obj.publish(tell=context.log.warning)
        except Exception as error:
            if obj.settle is not None:
                obj.settle(error)
            raise
        if obj.settle is not None:
            context.add_output_metadata(obj.settle(None))
        for position, output in enumerate(published):
            if output.rows is not None and output.previous_rows is not None:
                name = "rows_change" if position == 0 else f"{output.name}/rows_change"
                context.add_output_metadata({name: output.rows - output.previous_rows})

    def load_input(self, context: dg.InputContext) -> Any:
        """What another asset gets that takes a notebook as an input.

        Returns
        -------
        Outputs or dict of str to Outputs
            A mapping from output to value, read when asked for. For several partitions, or where
            the asset has no partitions and the notebook has: one such mapping for each partition
            that is there, by key.
        """
        from research_jobs.store.load import Outputs
        from research_jobs.store.stored import stored_partitions

        name = self._catalog.names.notebook(context.asset_key)
        entry = self._catalog.entries[name]
        if not entry.partitioned:
            return Outputs(self.project.store, name)
        keys = list(context.asset_partition_keys)
        if len(keys) == 1 and context.has_partition_key:
            return Outputs(
                self.project.store, name, partition=partition_key_of(entry.spec, keys[0])
            )
        there = {stored.key for stored in stored_partitions(self.project.store, name)}
        return {
            key: Outputs(self.project.store, name, partition=partition_key_of(entry.spec, key))
            for key in keys
            if key in there
        }
