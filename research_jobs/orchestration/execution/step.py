"""The compute function of a notebook's asset, as light as the code location wants it.

Loading the definitions makes one for each notebook and calls none. What it takes to run a
notebook (supervisor, store, reports) is imported with the first call.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from research_jobs.orchestration.model.catalog import Catalog, Entry

__all__ = ["NotebookStep"]


class NotebookStep:
    """The compute function of a notebook's asset.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    """

    __slots__ = ("_catalog", "_entry")

    # Dagster asks for it once for each notebook; to work it out takes a tenth of a millisecond.
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("step", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("inputs", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        ]
    )

    def __init__(self, catalog: Catalog, entry: Entry) -> None:
        self._catalog = catalog
        self._entry = entry

    def __call__(self, step: dg.AssetExecutionContext, inputs: Mapping[str, Any]) -> Iterator[Any]:
        """Run it, as Dagster asks for it.

        Parameters
        ----------
        step : AssetExecutionContext
            Not called ``context``: Dagster refuses a postponed annotation of that name.
        inputs : mapping
            Empty: a notebook reads by ``load()``, so its dependencies hand it nothing.
        """
        del inputs
        from research_jobs.orchestration.execution.notebook_run import run_step

        return run_step(self._catalog, self._entry, step)
