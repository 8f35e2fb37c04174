"""``research-jobs new NAME``: a notebook to begin from."""

from __future__ import annotations

import argparse
import keyword
import os
import re
import sys

from research_jobs.cli.output import complain, is_terminal
from research_jobs.errors import NotebookError, ProjectError
from research_jobs.project import PROJECT_VARIABLE, Project, find_project, notebook_name

__all__ = ["TEMPLATE", "add_arguments", "run"]

TEMPLATE = """\
# %% [markdown]
# # {title}
#
# One sentence on what this notebook answers: it becomes the asset's description.

# %%
import pandas as pd

# %% tags=["parameters"]
days: int = 30  # how many days to look at

# %% Load
# from research_jobs import load
# prices = load("market_data", "prices")
frame = pd.DataFrame({{"day": range(days), "value": range(days)}})
frame.head()

# %% Result
result = frame.describe()
result
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="for example: volatility/garch")


def run(arguments: argparse.Namespace) -> int:
    """Write the file, never over another."""
    project = _project(arguments)
    name = notebook_name(arguments.name)
    parts = [] if ".." in arguments.name else name.split("/")
    if not parts or not all(map(_can_be_imported, parts)):
        raise NotebookError(
            f"'{arguments.name}' is not a valid notebook name",
            hint="Use letters, digits and '_' (it is imported as a module), "
            "with '/' between folders.",
        )
    path = project.notebooks / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = re.sub(r"[_\s]+", " ", name.rsplit("/", 1)[-1]).strip().capitalize()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(title=title))
    except FileExistsError:
        raise NotebookError(
            f"{project.display(path)} already exists", hint="Choose another name."
        ) from None
    print(f"Wrote {project.display(path)}")
    print(f"Run it:             research-jobs run {name}")
    print(f"Keep its result:    in {project.display(project.manifest)}, below `notebooks:`")
    print(f"                      {name}:")
    print("                        outputs: [result]")
    return 0


def _project(arguments: argparse.Namespace) -> Project:
    """The project; where there is none, `init` shows its plan and asks."""
    try:
        return find_project(arguments.project)
    except ProjectError as error:
        named = arguments.project or os.environ.get(PROJECT_VARIABLE)
        if named or not (is_terminal() and sys.stdin.isatty()):
            raise
        complain(f"{error.what}: `research-jobs init` makes this folder a project.")
    from research_jobs.cli.init import run as init

    if init(argparse.Namespace(folder=None, project=None, yes=False, dry_run=False)):
        raise ProjectError("without a project, there is no place for a notebook")
    return find_project(None)


def _can_be_imported(part: str) -> bool:
    return part.isidentifier() and not keyword.iskeyword(part) and not part.startswith("_")
