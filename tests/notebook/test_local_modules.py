"""Import statements as files of the project."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

from research_jobs.notebook.local_modules import Resolver
from research_jobs.notebook.scan import scan
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]

FILES = {
    "notebooks/vol/garch.py": "# %%\n",
    "notebooks/vol/both.py": "",
    "notebooks/both.py": "",
    "notebooks/top.py": "",
    "notebooks/pack/__init__.py": "",
    "notebooks/pack/inner.py": "",
    "notebooks/pack/deep/__init__.py": "",
    "notebooks/pack/deep/est.py": "",
    "notebooks/pack.py": "",
    "notebooks/space/leaf.py": "",
    "space/other.py": "",
    "rooted.py": "",
    "notebooks/pandas/query.py": "",
}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("top", ["notebooks/top.py"]),
        ("both", ["notebooks/vol/both.py"]),
        ("rooted", ["rooted.py"]),
        ("pack", ["notebooks/pack/__init__.py"]),
        ("pack.inner", ["notebooks/pack/__init__.py", "notebooks/pack/inner.py"]),
        (
            "pack.deep.est",
            [
                "notebooks/pack/__init__.py",
                "notebooks/pack/deep/__init__.py",
                "notebooks/pack/deep/est.py",
            ],
        ),
        ("space.leaf", ["notebooks/space/leaf.py"]),
        ("space.other", ["space/other.py"]),
        ("vol.garch", ["notebooks/vol/garch.py"]),
        ("space", None),
        ("pandas", None),
        ("top.below", None),
        ("numpy", None),
        ("pack.missing", None),
    ],
)
def test_found_as_python_finds_it(
    make_project: MakeProject, name: str, files: list[str] | None
) -> None:
    """The own folder, notebooks, the root; packages before modules; folders without init last."""
    project = make_project(FILES)
    search = tuple(
        str(folder) for folder in (project.notebooks / "vol", project.notebooks, project.root)
    )
    found = Resolver().find(name, search)
    shown = None if found is None else [project.display(path) for _, path in found]
    assert shown == files


def test_the_same_as_pythons_own_finder(make_project: MakeProject) -> None:
    """For every name below it, the file is the one that importlib would run."""
    project = make_project(FILES)
    search = [str(project.notebooks / "vol"), str(project.notebooks), str(project.root)]
    names = ["top", "both", "rooted", "pack", "pack.inner", "pack.deep.est", "space.leaf",
             "space.other", "vol.garch"]  # fmt: skip
    code = (
        "import importlib.util, sys\n"
        f"sys.path[:0] = {search!r}\n"
        f"for name in {names!r}: print(importlib.util.find_spec(name).origin)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    ours = [(Resolver().find(name, tuple(search)) or (("", ""),))[-1][1] for name in names]
    assert ours == done.stdout.split()
    assert importlib.util.find_spec("top") is None


def test_third_party_modules(make_project: MakeProject) -> None:
    """Installed modules by dotted name, helpers' too; neither the project's nor Python's own."""
    project = make_project(
        {
            "notebooks/helper.py": "import scipy.stats\nimport json, sys\n",
            "notebooks/pandas_like/x.py": "",
            "notebooks/study.py": "# %%\nimport helper\nfrom sklearn import linear_model as lm\n"
            "import numpy as np\nfrom research_jobs import load\nimport pandas_like.x\n"
            "from . import helper\n",
        }
    )
    found = scan(project, use_cache=False)
    assert found.third_party == ("numpy", "scipy.stats", "sklearn")
    assert found.third_party_members == ("sklearn.linear_model",)
    assert found.get("study").local_modules == ("helper", "pandas_like.x")


def test_folders_named_as_installed_packages(make_project: MakeProject) -> None:
    """A folder of notebooks about a library does not hide the library."""
    project = make_project(
        {
            "notebooks/duckdb/query.py": "# %%\nimport duckdb\nfrom duckdb import connect\n",
        }
    )
    one = scan(project, use_cache=False).get("duckdb/query")
    assert (one.third_party, one.local_modules) == (("duckdb",), ())


def test_further_folders(make_project: MakeProject) -> None:
    """The project's own `sys_path` setting."""
    project = make_project({"src/lib.py": "", "notebooks/study.py": "# %%\nimport lib\n"})
    assert scan(project, use_cache=False).get("study").third_party == ("lib",)
    src = str(project.root / "src")
    assert scan(project, use_cache=False, sys_path=[src]).get("study").local_modules == ("lib",)
