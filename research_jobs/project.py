"""The paths of a project: its root, notebooks, store, reports and state.

It imports the standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import ProjectError
from research_jobs.filesystem import make_folder, make_private

__all__ = [
    "Project",
    "enter_environment",
    "find_project",
    "find_project_above",
    "module_name",
    "notebook_name",
    "read_variable",
]

PROJECT_VARIABLE = "RESEARCH_JOBS_PROJECT"
STORE_VARIABLE = "RESEARCH_JOBS_STORE"
SHARED_REPORTS_VARIABLE = "RESEARCH_JOBS_SHARED_REPORTS"  # a URL where machines exchange reports
REPORTS_VARIABLE = "RESEARCH_JOBS_REPORTS_URL"  # the address of the reports
UI_VARIABLE = "RESEARCH_JOBS_UI_URL"  # the address of Dagster's UI
UI_PORT, REPORTS_PORT = 3000, 3001  # what `research-jobs ui` takes when they are free


@dataclass(frozen=True)
class Project:
    """A folder that contains ``notebooks/``, and the paths that follow from it.

    Parameters
    ----------
    root : Path
        Absolute path of the project.
    store : str
        Absolute path of the outputs' folder, or an fsspec URL.
    aside : Path or None
        A folder for reports and state instead of the project's own, for runs that do not count.
    """

    root: Path
    store: str
    aside: Path | None = None

    @property
    def notebooks(self) -> Path:
        """Path: the folder of notebooks and helper modules."""
        return self.root / "notebooks"

    @property
    def manifest(self) -> Path:
        """Path: the manifest, whether or not it exists."""
        return self.notebooks / "manifest.yaml"

    @property
    def reports(self) -> Path:
        """Path: executed notebooks, pages and the gallery."""
        return (self.aside or self.root) / "reports"

    @property
    def shared_reports(self) -> str | None:
        """The URL where machines exchange reports; None for runs that do not count."""
        name = SHARED_REPORTS_VARIABLE
        found = os.environ.get(name) or read_variable(self.root / ".env", name)
        if not found or self.aside is not None:
            return None
        if "://" not in found:
            raise ProjectError(
                f"{name}: '{found}' is not a URL", hint="Write it as s3://bucket/reports."
            )
        return found

    @property
    def state(self) -> Path:
        """Path: the one folder of state, ignored by Git (instance, caches, run folders)."""
        return (self.aside or self.root) / ".research_jobs"

    @property
    def environments(self) -> Path:
        """Path: environments of notebooks; runs that do not count use those of the project."""
        return (self.root / ".research_jobs" / "environments").resolve()

    def make_state_folder(self, *parts: str) -> Path:
        """Create a folder below `state` that only this user can enter, whatever the umask.

        Parameters
        ----------
        *parts : str
            Names below the state folder.

        Returns
        -------
        Path
        """
        make_folder(self.state, private=True)
        make_private(self.state)  # an earlier version left its mode to the umask
        folder = self.state.joinpath(*parts)
        make_folder(folder, private=True)
        return folder

    @property
    def store_is_local(self) -> bool:
        """bool: whether the store is a local folder rather than a URL."""
        return "://" not in self.store

    def display(self, path: str | os.PathLike[str]) -> str:
        """A path as messages show it: relative to the root if it is inside."""
        try:
            return Path(path).relative_to(self.root).as_posix()
        except ValueError:
            return str(path)


def find_project(project: str | os.PathLike[str] | Project | None = None) -> Project:
    """Resolve the project.

    Parameters
    ----------
    project : path or Project, optional
        A folder that contains ``notebooks/``. Default: ``RESEARCH_JOBS_PROJECT``, else the
        nearest of the working directory and its parents that contains ``notebooks/``.

    Returns
    -------
    Project

    Raises
    ------
    ProjectError
        When there is none.
    """
    if isinstance(project, Project):
        return project
    named = project if project is not None else os.environ.get(PROJECT_VARIABLE) or None
    if named is not None:
        root = Path(named).expanduser().resolve()
        if not (root / "notebooks").is_dir():
            source = "" if project is not None else f" ({PROJECT_VARIABLE})"
            raise ProjectError(
                f"{root}{source} has no folder notebooks/",
                hint="Name the folder that contains it.",
            )
    else:
        here = Path.cwd()
        above = find_project_above(here)
        if above is None:
            raise ProjectError(
                f"no folder notebooks/ in {here} or above it",
                hint=f"Change to a project's folder, pass one, or set {PROJECT_VARIABLE}. "
                "`research-jobs init` makes this folder one.",
            )
        return above
    return _project_at(root)


def find_project_above(here: Path) -> Project | None:
    """The project of the nearest of a folder and its parents that contains ``notebooks/``."""
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir():
            return _project_at(folder)
    return None


def _project_at(root: Path) -> Project:
    store = (
        os.environ.get(STORE_VARIABLE)
        or read_variable(root / ".env", STORE_VARIABLE)
        or str(root / "data")
    )
    if "://" not in store:
        store = str((root / Path(store).expanduser()).resolve())
    return Project(root=root, store=store)


def enter_environment(project: Project) -> None:
    """Give this process the variables of the project's ``.env``, as its runs have them."""
    file = project.root / ".env"
    if not file.is_file():
        return
    from dotenv import dotenv_values

    values = {name: value for name, value in dotenv_values(file).items() if value is not None}
    if STORE_VARIABLE in values:
        values[STORE_VARIABLE] = project.store
    # An import path for Dagster's processes: a notebook must not hide a module from them.
    ours = {str(project.notebooks), str(project.root)}
    path = values.pop("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(entry for entry in path if entry not in ours)
    os.environ.update(values | ({"PYTHONPATH": kept} if kept else {}))


def read_variable(file: Path, name: str) -> str | None:
    """The value that a file such as ``.env`` gives to a variable, or None.

    The editor does not pass ``.env`` to every process, and `load()` must find the store in all.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.findall(
        rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE
    )
    if not found:
        return None
    value: str = found[-1]
    quote = value[:1] if value[:1] in ("'", '"') else ""
    value = value[1:].partition(quote)[0] if quote else re.split(r"\s+#", value, maxsplit=1)[0]
    return value if quote == "'" else os.path.expandvars(value)


def notebook_name(text: str) -> str:
    """The canonical spelling of a notebook's name, from any that a person types.

    ``volatility.garch``, ``volatility/garch``, ``volatility/garch.py`` and
    ``notebooks/volatility/garch.py`` all give ``volatility/garch``.
    """
    name = text.strip().replace("\\", "/")
    name = name.removeprefix("./")
    name = name.removesuffix(".py").removeprefix("notebooks/")
    return name.replace(".", "/").strip("/")


def module_name(notebook: str) -> str:
    """The import name of a notebook: ``volatility/garch`` is module ``volatility.garch``."""
    return notebook_name(notebook).replace("/", ".")
