"""Run a notebook from outside: a `Supervisor` for run workers and commands, `run_notebook()`."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from research_jobs.environments.declared import Environment, declared_environment
from research_jobs.errors import RunError
from research_jobs.notebook.discovery import walk_folder
from research_jobs.notebook.parameters import convert_parameters
from research_jobs.notebook.scan import find_notebook, scan
from research_jobs.outcome import Outcome
from research_jobs.project import Project, find_project
from research_jobs.protocol import PartitionKey, RunRequest
from research_jobs.supervisor.connection import CancelToken
from research_jobs.supervisor.facts import PreloadReport
from research_jobs.supervisor.interpreter import StartError
from research_jobs.supervisor.loans import borrow_template
from research_jobs.supervisor.request import build_request, preload_modules
from research_jobs.supervisor.shared import shared_supervisor
from research_jobs.supervisor.supervise import Isolation, Supervisor

if TYPE_CHECKING:
    from research_jobs.manifest import Manifest, NotebookSpec
    from research_jobs.notebook.scan import ScannedNotebook

__all__ = [
    "Call",
    "CancelToken",
    "Isolation",
    "PreloadReport",
    "StartError",
    "Supervisor",
    "prepare_call",
    "record_notebook",
    "run_error",
    "run_notebook",
]


def run_notebook(
    notebook: str,
    results: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    partition: str | PartitionKey | None = None,
    project: str | os.PathLike[str] | Project | None = None,
    timeout: float | None = None,
    isolation: Isolation | None = None,
) -> list[Any]:
    """Run a notebook in a fresh process and return some of its variables.

    The notebook's outputs are not published; its stdout and stderr go to this process's.

    Parameters
    ----------
    notebook : str
        Any spelling of its name: ``"volatility/garch"``, ``"volatility.garch"``.
    results : sequence of str
        Variables to return. Instances of classes that the notebook or its helpers define work
        although the notebook is not imported: their classes are pickled too.
    parameters : mapping, optional
        Values that replace those of the notebook's parameters cell.
    partition : str or PartitionKey, optional
        The partition, if the notebook has partitions. Given as a key, ``context()`` has no time
        window.
    project : path or Project, optional
        A folder that contains ``notebooks/``. Default: ``RESEARCH_JOBS_PROJECT``, else the nearest
        parent of the working directory that contains one.
    timeout : float, optional
        Seconds; the manifest's by default.
    isolation : {"fork", "spawn"}, optional
        The manifest's by default.

    Returns
    -------
    list
        The values in the order of `results`, None for a name that the notebook did not define. All
        are None if the notebook skipped its run.

    Raises
    ------
    NotebookNotFoundError
        With similar names.
    ParameterError, PartitionError
        Before anything runs.
    RunError
        When the notebook did not succeed: the location first, then its own traceback.
    """
    _fill_standard_descriptors()
    names = [results] if isinstance(results, str) else list(results)
    call = prepare_call(notebook, project, parameters, partition, timeout)
    with _results_file() as (handover, path):
        request = call.request(results=tuple(names), results_path=path)
        result = call.run(request, stdout=1, stderr=2, isolation=isolation)
        if not result.state.ok:
            raise run_error(result)
        taken = _take(handover, request.notebook) if result.results else {}
    return [taken.get(name) for name in names]


def record_notebook(
    notebook: str,
    capture: Path,
    *,
    project: str | os.PathLike[str] | Project | None = None,
    timeout: float | None = None,
) -> Outcome:
    """Run a notebook in a fresh process, and record what its cells show.

    Nothing is published, and what it prints goes into the record only.

    Parameters
    ----------
    notebook : str
    capture : Path
        The file for the record; `research_jobs.report.record` reads it.
    project, timeout
        As for `run_notebook`.

    Returns
    -------
    Outcome
        Whatever became of it: a failure of the notebook raises nothing.
    """
    call = prepare_call(notebook, project, None, None, timeout)
    with Path(os.devnull).open("wb") as nowhere:
        return call.run(
            call.request(capture_path=str(capture)),
            stdout=nowhere.fileno(),
            stderr=nowhere.fileno(),
        )


@dataclass(frozen=True)
class Call:
    """A run outside Dagster, with its parameters checked.

    Parameters
    ----------
    project : Project
    notebook : ScannedNotebook
    spec : NotebookSpec
    manifest : Manifest
    parameters : mapping
    partition : PartitionKey or None
    """

    project: Project
    notebook: ScannedNotebook
    spec: NotebookSpec
    manifest: Manifest
    parameters: Mapping[str, Any]
    partition: PartitionKey | None
    environment: Environment | None

    def request(self, **places: Any) -> RunRequest:
        """Its request; `places` as in `build_request`."""
        return build_request(
            self.project,
            self.notebook,
            self.spec,
            self.manifest,
            run_id=f"call-{secrets.token_hex(8)}",
            parameters=self.parameters,
            partition=self.partition,
            **places,
        )

    def run(
        self, request: RunRequest, *, stdout: int, stderr: int, isolation: Isolation | None = None
    ) -> Outcome:
        """Run it, with two descriptors for what it prints."""
        _flush()
        supervisor = shared_supervisor(_preload(self.project, self.manifest))
        supervisor.lender = borrow_template
        return supervisor.run(
            request,
            stdout=stdout,
            stderr=stderr,
            isolation=isolation or self.spec.isolation,
            python=self.spec.python,
            environment=self.environment,
        )


def prepare_call(
    notebook: str,
    project: str | os.PathLike[str] | Project | None,
    parameters: Mapping[str, Any] | None,
    partition: str | PartitionKey | None,
    timeout: float | None,
) -> Call:
    """Find a notebook and check what it is going to be run with; parameters as `run_notebook`.

    Raises
    ------
    NotebookNotFoundError, ManifestError, ParameterError, PartitionError
    """
    from research_jobs.manifest.partitions import key_parts

    place = find_project(project)
    found = find_notebook(place, notebook)
    manifest = _manifest(place)
    for problem in manifest.problems_of(found.name):
        raise problem.error
    spec = manifest.spec(found.name)
    if isinstance(partition, str):
        partition = PartitionKey(key=partition, dimensions=key_parts(spec, partition))
    declared = [parameter.name for parameter in found.parameters]
    spec.refuse_secrets(parameters or ())
    given = {
        **spec.plain_parameters,
        **_partition_values(spec, partition, declared),
        **(parameters or {}),
    }
    values = convert_parameters(found.parameters, given, notebook=found.name)
    environment = declared_environment(place, found, spec, manifest)
    if environment is not None and environment.problem is not None:
        raise environment.problem
    if timeout is not None:
        spec = spec.model_copy(update={"timeout": timeout})
    return Call(place, found, spec, manifest, values, partition, environment)


def run_error(result: Outcome) -> RunError:
    """The exception for an unsuccessful result.

    Parameters
    ----------
    result : Outcome

    Returns
    -------
    RunError
        Its text is the headline, then the notebook's traceback and the cell.
    """
    failure = result.failure
    if failure is None:
        return RunError(f"the run {result.state}", ending=str(result.state))
    parts = [failure.traceback.rstrip()] if failure.traceback else []
    if failure.cell_source:
        parts.append(f"Cell {failure.cell}:\n{failure.cell_source.rstrip()}")
    return RunError(failure.headline, ending=str(result.state), details="\n\n".join(parts) or None)


def _partition_values(
    spec: NotebookSpec, key: PartitionKey | None, declared: Sequence[str]
) -> dict[str, Any]:
    """The parameters that a partition sets: its key, for the parameter's type to convert."""
    if key is None:
        return {}
    values: dict[str, Any] = dict(spec.variants.get(key.dimensions.get("variant", ""), {}))
    columns = spec.partitions.columns if spec.partitions is not None else {}
    for name, dimension in columns.items():
        parameter = dimension.parameter or (name if name in declared else None)
        if parameter is not None and name in key.dimensions:
            values[parameter] = key.dimensions[name]
    return values


# -- values ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _results_file() -> Generator[tuple[BinaryIO, str]]:
    """A private file without a name, and a path by which the child opens it."""
    if sys.platform == "linux":
        with tempfile.TemporaryFile() as file:
            yield file, f"/proc/{os.getpid()}/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield file, file.name  # pyright: ignore[reportReturnType]


def _take(file: BinaryIO, notebook: str) -> dict[str, Any]:
    """Unpickle the child's values.

    This is the only place that unpickles anything of a notebook: the caller asked for its live
    objects, and so trusts it.
    """
    file.seek(0)
    try:
        return pickle.load(file)  # noqa: S301 - see above
    except Exception as error:
        raise RunError(
            f"notebook '{notebook}': its results cannot be loaded into this process: "
            f"{type(error).__name__}: {error}",
            ending="succeeded",
            hint="Both sides need the packages that define these objects.",
        ) from error


def _fill_standard_descriptors() -> None:
    """If stdout or stderr is closed, keep our files from getting its number and its output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _flush() -> None:
    """Flush our output so that it comes before the notebook's."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


# -- what is kept between calls -----------------------------------------------------------------

_preloads: dict[str, tuple[str, ...]] = {}
_manifests: dict[str, tuple[Any, Manifest]] = {}


def _preload(project: Project, manifest: Manifest) -> tuple[str, ...]:
    """What templates import for a project's notebooks, scanned once."""
    root = str(project.root)
    if root not in _preloads:
        _preloads[root] = preload_modules(scan(project, sys_path=manifest.defaults.sys_path))
    return _preloads[root]


def _manifest(project: Project) -> Manifest:
    """The manifest, read again when it changes or a notebook is added."""
    from research_jobs.manifest import load_manifest

    # Helper modules are among them: which files are notebooks takes reading them.
    names = {file.name for file in walk_folder(project.notebooks).files}
    try:
        status = project.manifest.stat()
        mark: Any = (status.st_mtime_ns, status.st_size, status.st_ino, names)
    except OSError:
        mark = None
    known = _manifests.get(str(project.root))
    if known is None or known[0] != mark:
        known = _manifests[str(project.root)] = (mark, load_manifest(project, names))
    return known[1]
