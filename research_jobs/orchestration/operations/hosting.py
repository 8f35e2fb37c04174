"""What the host has in memory for the processes that it forks: Dagster, definitions, helpers."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from research_jobs.environments.making import environment_files, existing_python
from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.compat import instance as compat
from research_jobs.orchestration.compat.remembering import remember
from research_jobs.orchestration.execution.run_worker import conclude_run, work_on_run
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.instance import default_config, enter_project
from research_jobs.process import hand_down
from research_jobs.project import Project
from research_jobs.report.making import start_maker
from research_jobs.resident.server import Work
from research_jobs.supervisor.interpreter import fork_is_possible
from research_jobs.supervisor.shared import shared_supervisor
from research_jobs.supervisor.sources import Sources

__all__ = ["prepare"]

# What a run imports once it works on one, and the definitions do not.
_NEEDED = (
    "dagster._core.instance.runs.run_domain",
    "dagster._core.system_config.composite_descent",
    "dagster._grpc.impl",
    "dagster._utils.hosted_user_process",
    "encodings.ascii",
    "encodings.idna",
    "fsspec.implementations.local",
    "research_jobs.cli.backfill",
    "research_jobs.cli.run",
    "research_jobs.cli.try_",
    "research_jobs.orchestration.compat.connections",
    "research_jobs.orchestration.compat.outages",
    "research_jobs.orchestration.compat.storage",
    "research_jobs.orchestration.execution.notebook_run",
    "research_jobs.orchestration.operations.call",
    "research_jobs.orchestration.operations.overview",
    "research_jobs.orchestration.operations.session",
    "research_jobs.orchestration.operations.trial",
    "research_jobs.store.backends.local",
    "upath.implementations.local",
)
# Of a database that may not be installed.
_OPTIONAL = ("psycopg2", "dagster_postgres", "sqlalchemy.dialects.postgresql.psycopg2")


def prepare(project: Project, command: Callable[[Sequence[str]], int]) -> Work:
    """Import Dagster, build the definitions, start template and report process.

    Parameters
    ----------
    project : Project
    command : callable
        Runs one of our commands, given its words.

    Returns
    -------
    Work
        For `research_jobs.resident.server.Host`.
    """
    began = time.time_ns()
    enter_project(project)
    hand_down(on=True)
    start_maker()
    # Reads notebooks and manifest, as every process of the code location does.
    repository = importlib.import_module("research_jobs.definitions").defs.get_repository_def()
    if repository.asset_graph.get_all_asset_keys():
        # Each run of some notebooks names the job of all: a second for a thousand notebooks.
        repository.get_implicit_global_asset_job_def().get_job_snapshot_id()
    for name in (*_NEEDED, *_OPTIONAL):
        # A name that this version of a library lacks costs the runs a few milliseconds.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    remember()
    _open_an_instance()
    catalog = load_catalog(project)
    supervisor = shared_supervisor(catalog.preload)
    if fork_is_possible():
        for python in _interpreters(catalog):
            # Whatever is wrong with it, the run that needs it says so.
            with contextlib.suppress(ResearchJobsError, OSError):
                supervisor.warm(project.root, python, sys_path=catalog.sys_path)
    # What runs write is no code, even where it lies beside the notebooks' folder.
    written = (str(project.reports), project.store)
    imported = Sources(_imported(project), _looked_up(), began, ignored=written)
    read = Sources(_files(catalog), _folders(catalog), began, ignored=written)

    def outdated() -> str | None:
        return imported.changed() or supervisor.outdated()

    def changed() -> str | None:
        return outdated() or read.changed()

    return Work(
        run=work_on_run,
        conclude=conclude_run,
        command=command,
        changed=changed,
        outdated=outdated,
        lend=supervisor.lend,
    )


def _open_an_instance() -> None:
    """Import what any instance needs, and read the migrations' scripts once for all runs."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(folder, "none.yaml").open("w"),  # or Dagster says that it misses one
        compat.open_instance(Path(folder), config=default_config(folder)) as instance,
    ):
        instance.get_run_by_id("none")


def _interpreters(catalog: Catalog) -> set[str | None]:
    """The interpreters that notebooks run under: None is this one."""
    return {
        entry.python
        for entry in catalog
        if entry.error is None
        and entry.spec.isolation != "spawn"
        # An environment that is not there is made by the first run, and then watched.
        and (entry.environment is None or existing_python(entry.environment) is not None)
    }


def _imported(project: Project) -> Iterator[str]:
    """The files that modules come from, and the settings of this process."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield file
    yield str(project.root / ".env")
    yield str(Path(sys.prefix, "pyvenv.cfg"))


def _looked_up() -> Iterator[str]:
    """Where modules are looked up: a new name there may be found first."""
    yield from (entry for entry in sys.path if entry and Path(entry).is_dir())


def _files(catalog: Catalog) -> Iterator[str]:
    """The files that definitions come from."""
    yield str(catalog.project.manifest)
    yield from catalog.scan.files
    for entry in catalog:
        if entry.environment is not None:
            yield from map(str, environment_files(entry.environment))


def _folders(catalog: Catalog) -> Iterator[str]:
    """Where notebooks and their modules are looked up: a new name there may be found first."""
    project = catalog.project
    yield from catalog.sys_path
    yield str(project.root)
    for folder, inner, _ in os.walk(project.notebooks):
        inner[:] = [name for name in inner if name != "__pycache__" and not name.startswith(".")]
        yield folder
