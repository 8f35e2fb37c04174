"""``research-jobs list --preload``: what templates really import."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from research_jobs.cli.output import complain, print_json, print_table
from research_jobs.environments.installer import Installer
from research_jobs.environments.interpreters import resolve_interpreter
from research_jobs.environments.making import prepare
from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, Entry, load_catalog
from research_jobs.orchestration.model.instance import enter_project
from research_jobs.project import Project
from research_jobs.supervisor.interpreter import fork_is_possible
from research_jobs.supervisor.run import Supervisor
from research_jobs.supervisor.supervise import changed_at_start
from research_jobs.supervisor.template import TemplateUnfitError

__all__ = ["show_preload"]

T = TypeVar("T")

# A shorter import is shown without a time: another module has already done the work.
_WORTH_TELLING_S = 0.005


@dataclass
class _Warm:
    """A template and the notebooks that are forked from it."""

    python: str
    notebooks: list[str] = field(default_factory=list[str])
    loaded: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    error: str | None = None


def show_preload(project: Project, *, as_json: bool) -> int:
    """Start each template that the project needs, and print the results.

    Parameters
    ----------
    project : Project
    as_json : bool

    Returns
    -------
    int
        The command's exit code: 1 when an interpreter cannot be started.
    """
    enter_project(project)
    catalog = load_catalog(project)
    cold = {entry.name: why for entry in runnable_entries(catalog) if (why := _why_cold(entry))}
    interpreters: dict[str, _Warm] = {}
    for entry in runnable_entries(catalog):
        if entry.name not in cold:
            python, error = _interpreter(entry, project)
            warm = interpreters.setdefault(python, _Warm(python, error=error))
            warm.notebooks.append(entry.name)
    # Its report has all of its messages.
    with Supervisor(preload=catalog.preload, log=lambda _line: None) as supervisor:
        for warm in interpreters.values():
            if warm.error is None:
                _try(supervisor, project, warm, catalog.sys_path)
    if as_json:
        print_json({"warm": [vars(warm) for warm in interpreters.values()], "cold": cold})
    else:
        _print(interpreters.values(), cold)
    return 1 if any(warm.error for warm in interpreters.values()) else 0


def runnable_entries(catalog: Catalog) -> Iterable[Entry]:
    return (entry for entry in catalog if entry.error is None)


def _interpreter(entry: Entry, project: Project) -> tuple[str, str | None]:
    """A notebook's interpreter, and why there is none; its environment is made if it is not there.

    Where it cannot be made, a name stands for it.
    """
    if entry.environment is None:
        return resolve_interpreter(entry.spec.python, str(project.root)) or sys.executable, None
    try:
        return prepare(entry.environment, Installer(project.root, complain)), None
    except ResearchJobsError as error:
        return f"environment of {entry.name}", error.headline


def _why_cold(entry: Entry) -> str | None:
    """Why a notebook is not forked from a template; None if it is."""
    if not fork_is_possible():
        return f"{sys.platform} has no templates"
    if entry.spec.isolation == "spawn":
        return "isolation: spawn"
    early = changed_at_start(entry.spec.environment)
    return (
        f"it sets {early}, which is read when the interpreter or a library starts"
        if early
        else None
    )


def _try(supervisor: Supervisor, project: Project, warm: _Warm, sys_path: Sequence[str]) -> None:
    try:
        report = supervisor.warm(project.root, warm.python, sys_path=sys_path)
    except TemplateUnfitError as error:
        warm.error = f"its runs are started cold: {error}"
    except ResearchJobsError as error:
        warm.error = error.headline
    else:
        warm.loaded, warm.left_out = _third_party(report.loaded), _third_party(report.left_out)


def _third_party(modules: Mapping[str, T]) -> dict[str, T]:
    """The modules without our own, which every run needs."""
    return {
        name: result for name, result in modules.items() if not name.startswith("research_jobs.")
    }


def _print(interpreters: Iterable[_Warm], cold: dict[str, str]) -> None:
    for warm in interpreters:
        print(f"{_short(warm.python)}, for {_count(len(warm.notebooks), 'notebook')}")
        if warm.error:
            print(f"  {warm.error}")
        rows = [
            [name, f"{seconds:.2f} s" if seconds >= _WORTH_TELLING_S else "", ""]
            for name, seconds in warm.loaded.items()
        ]
        rows += [[name, "left out", reason] for name, reason in warm.left_out.items()]
        if rows:
            print_table(["module", "import", "why"], rows, right=["import"])
        print()
    if cold:
        print_table(["started cold", "why"], [[name, why] for name, why in cold.items()])


def _short(python: str) -> str:
    home = str(Path.home())
    return python.replace(home, "~", 1) if python.startswith(home + "/") else python


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
