"""The notebooks of a project as a Dagster component, for a deployment that is built of those.

::

    # defs/research/defs.yaml
    type: research_jobs.orchestration.definitions.component.NotebooksComponent
    attributes:
      project: ../../../../research
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.errors import ProjectError
from research_jobs.orchestration.definitions.factory import build_defs
from research_jobs.project import find_project

__all__ = ["NotebooksComponent", "NotebooksScaffolder"]

FIRST_NOTEBOOK = """\
# %% [markdown]
# # A first notebook

# %% tags=["parameters"]
rows: int = 3  # how many numbers

# %%
numbers = list(range(rows))
"""


class NotebooksScaffolder(dg.Scaffolder[Any]):
    """The result of ``dg scaffold``: a ``defs.yaml`` and a folder of notebooks with one in it."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write the files."""
        dg.scaffold_component(request, {"project": "."})
        notebooks = Path(request.target_path) / "notebooks"
        notebooks.mkdir(parents=True, exist_ok=True)
        first = notebooks / "first_notebook.py"
        if not first.exists():
            first.write_text(FIRST_NOTEBOOK, encoding="utf-8")
        manifest = notebooks / "manifest.yaml"
        if not manifest.exists():
            manifest.write_text(
                "notebooks:\n  first_notebook:\n    outputs: [numbers]\n", encoding="utf-8"
            )


@dg.scaffold_with(NotebooksScaffolder)
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
