"""The notebooks of a project as a Dagster component, for a deployment that is built of those.

::

    # defs/research/defs.yaml
    type: research_jobs.orchestration.definitions.component.NotebooksComponent
    attributes:
      project: ../../../../research
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from research_jobs.errors import ProjectError
from research_jobs.orchestration.definitions.factory import build_defs
from research_jobs.project import find_project

__all__ = ["NotebooksComponent"]


class NotebooksComponent(dg.Component, dg.Model, dg.Resolvable):
    """An asset for each ``# %%`` notebook of a folder, run in a fresh process.

    A code location can have only one such component: its job and resource have fixed names.

    Attributes
    ----------
    project : str or None
        Folder that contains ``notebooks/``, relative to the component's own. Default: the nearest
        of the component's folder and those above it that contains one.
    """

    project: str | None = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What the component's page in the UI says."""
        return dg.ComponentTypeSpec(
            description="A folder of notebooks (# %% cells) as assets whose outputs are Parquet.",
            tags=["python", "notebook", "parquet"],
            produces=["asset", "asset_check", "job", "schedule", "sensor"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Definitions of the project.

        Parameters
        ----------
        context : ComponentLoadContext

        Raises
        ------
        ProjectError
            When the folder does not contain ``notebooks/``.
        """
        here = Path(context.path)
        if self.project is not None:
            return build_defs(here / self.project)
        for folder in (here, *here.parents):
            if (folder / "notebooks").is_dir():
                return build_defs(find_project(folder))
        raise ProjectError(
            f"no folder notebooks/ in {here} or above it",
            hint="Name the project in defs.yaml: attributes: {project: ../research}.",
        )
