"""The component: the same definitions, from a ``defs.yaml``."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from research_jobs import NotebooksComponent
from research_jobs.errors import ProjectError

# Dagster's loader of components uses what pydantic has deprecated and what is in beta itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.parse_obj_as.:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]


def test_a_component_with_its_notebooks_loads_and_runs(lab: Any) -> None:
    """A notebook beside ``defs.yaml`` is an asset and can be materialised."""
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(component_cls=NotebooksComponent, defs_path="research")
        notebooks = folder / "notebooks"
        notebooks.mkdir()
        (notebooks / "first_notebook.py").write_text("# %%\nnumbers = [1, 2]\n")
        manifest = "notebooks: {first_notebook: {outputs: [numbers]}}\n"
        (notebooks / "manifest.yaml").write_text(manifest)
        with sandbox.load_component_and_build_defs(defs_path=folder) as (component, defs):
            assert isinstance(component, NotebooksComponent)
            run = lab.materialize("first_notebook", definitions=defs)
            assert run.success, run.errors
        assert (folder / "data" / "first_notebook" / "numbers.parquet").exists()


def test_it_points_at_a_project_elsewhere(lab: Any) -> None:
    """``project:`` is relative to the component's own folder; the framework's attributes apply."""
    lab.write({"vol/garch": "# %%\nx = 1\n"})
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(
            component_cls=NotebooksComponent,
            defs_yaml_contents={
                "type": "research_jobs.orchestration.definitions.component.NotebooksComponent",
                "attributes": {"project": str(lab.root)},
                "post_processing": {
                    "assets": [{"target": "*", "attributes": {"tags": {"team": "quant"}}}]
                },
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=folder) as (_, defs):
            graph = defs.get_repository_def().asset_graph
            assert graph.get(dg.AssetKey(["vol", "garch"])).tags["team"] == "quant"


def test_a_folder_without_notebooks_is_reported(tmp_path: Path) -> None:
    """Neither there nor above: one line says how to name it."""
    component = NotebooksComponent()

    class Context:
        path = tmp_path

    with pytest.raises(ProjectError, match=r"Name the project in defs\.yaml"):
        component.build_defs(Context())  # type: ignore[arg-type]


def test_it_is_registered_for_dg() -> None:
    """``dg list components`` finds it by the package's entry point."""
    (point,) = [
        point
        for point in entry_points(group="dagster_dg_cli.registry_modules")
        if point.name == "research_jobs"
    ]
    assert point.load().NotebooksComponent is NotebooksComponent
