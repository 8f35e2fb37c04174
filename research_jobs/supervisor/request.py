"""Run requests: project, manifest and the caller's arguments combined."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.errors import ParameterError
from research_jobs.notebook.parameters import convert_parameters
from research_jobs.protocol import Keep, OutputRequest, PartitionKey, RunRequest
from research_jobs.runtime.display import display_modules

if TYPE_CHECKING:
    from research_jobs.manifest import Manifest, NotebookSpec
    from research_jobs.notebook.scan import Scan, ScannedNotebook
    from research_jobs.project import Project

__all__ = ["build_request", "preload_modules", "secret_values", "working_directory"]


def build_request(
    project: Project,
    notebook: ScannedNotebook,
    spec: NotebookSpec,
    manifest: Manifest,
    *,
    run_id: str,
    step_key: str = "",
    parameters: Mapping[str, Any] | None = None,
    partition: PartitionKey | None = None,
    staging: str | os.PathLike[str] | None = None,
    results: Sequence[str] = (),
    results_path: str | None = None,
    capture_path: str | None = None,
    view: str | None = None,
    trying: bool = False,
    keep: Keep | None = None,
) -> RunRequest:
    """Everything that the fresh process needs for one run.

    Parameters
    ----------
    project : Project
    notebook : ScannedNotebook
    spec : NotebookSpec
        The notebook's entry of the manifest, defaults merged in.
    manifest : Manifest
    run_id, step_key : str
        Dagster's identifiers of the run.
    parameters : mapping, optional
        JSON values, already checked against the notebook's parameters.
    partition : PartitionKey, optional
    staging : path, optional
        Folder for staged outputs; without it no outputs are staged.
    results : sequence of str
        Variables for the caller, pickled to `results_path`.
    results_path, capture_path, view : str, optional
    trying : bool
    keep : Keep, optional
        As in `RunRequest`.

    Returns
    -------
    RunRequest
    """
    outputs = (
        ()
        if staging is None
        else tuple(
            OutputRequest(name=name, options=output.options(), checks=output.checks())
            for name, output in spec.outputs.items()
        )
    )
    # Nothing that differs between equal runs: equal outputs are equal files.
    metadata = {"notebook": notebook.name, "code_version": notebook.code_version}
    if partition is not None:
        metadata["partition"] = partition.key
    folder = Path(notebook.path).parent
    secret_parameters = _secret_parameters(notebook, spec)
    return RunRequest(
        run_id=run_id,
        step_key=step_key,
        notebook=notebook.name,
        module=notebook.module,
        path=str(notebook.path),
        project_root=str(project.root),
        store=project.store,
        working_directory=working_directory(project, folder, manifest.defaults.working_directory),
        sys_path=tuple(
            dict.fromkeys(
                map(
                    str,
                    (
                        folder,
                        project.notebooks,
                        project.root,
                        *(project.root / entry for entry in manifest.defaults.sys_path),
                    ),
                )
            )
        ),
        parameters=dict(parameters or {}),
        secret_parameters=secret_parameters,
        parameter_types={
            parameter.name: parameter.type
            for parameter in notebook.parameters
            if parameter.name in {**(parameters or {}), **secret_parameters}
        },
        partition=partition,
        outputs=outputs,
        staging=str(staging) if staging is not None else None,
        results=tuple(results),
        results_path=results_path,
        capture_path=capture_path,
        view=view,
        trying=trying,
        timeout_s=spec.timeout,
        memory_bytes=spec.memory,
        code_version=notebook.code_version,
        environment=dict(spec.environment),
        secrets=secret_values(spec, manifest),
        metadata=metadata,
        keep=keep,
    )


def secret_values(spec: NotebookSpec, manifest: Manifest) -> dict[str, str]:
    """Variable to value: what is masked in everything that a run of a notebook leaves behind."""
    return {
        name: value
        for name in (*manifest.masked, *spec.secret_parameters.values())
        if (value := _variable(spec, name))
    }


def _variable(spec: NotebookSpec, name: str) -> str | None:
    """An environment variable in the notebook's process."""
    return spec.environment.get(name) or os.environ.get(name)


def _secret_parameters(notebook: ScannedNotebook, spec: NotebookSpec) -> dict[str, Any]:
    """The values of secret parameters, from the environment.

    Raises
    ------
    ParameterError
        When a variable is not set or its value does not convert. The message omits the value.
    """
    values: dict[str, Any] = {}
    for name, variable in spec.secret_parameters.items():
        value = _variable(spec, variable)
        if not value:
            raise ParameterError(
                f"{notebook.name} takes its parameter '{name}' from the environment variable"
                f" {variable}, which is not set",
                hint="Set it where the run starts: the shell, or the code server's unit.",
            )
        try:
            values |= convert_parameters(
                notebook.parameters, {name: value}, notebook=notebook.name, text=True
            )
        except ParameterError:
            type_ = next((p.type for p in notebook.parameters if p.name == name), None)
            what = f"is not of type {type_}" if type_ else "belongs to no parameter of it"
            raise ParameterError(
                f"{notebook.name}: the value of {variable}, for the parameter '{name}', {what}"
            ) from None
    return values


def working_directory(project: Project, folder: Path, setting: str | None) -> str:
    """A notebook's working directory: its own folder, the project's root, or a path below it.

    Parameters
    ----------
    project : Project
    folder : Path
        The notebook's.
    setting : str or None
        ``defaults.working_directory`` of the manifest.
    """
    if setting in (None, "notebook"):
        return str(folder)
    if setting == "project":
        return str(project.root)
    return str(project.root / Path(setting).expanduser())


def preload_modules(scan: Scan) -> tuple[str, ...]:
    """The modules that a template should import for a project's notebooks.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    tuple of str
        The installed modules that they import, then the names imported from those, then what
        figures need. A name that is not a module costs nothing.
    """
    modules = (*scan.third_party, *scan.third_party_members)
    return tuple(dict.fromkeys((*modules, *display_modules(scan.third_party))))
