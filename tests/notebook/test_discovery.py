"""A folder as notebooks, helper modules and problems."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from research_jobs.errors import NotebookError, NotebookNotFoundError
from research_jobs.notebook.discovery import files_beside, why_not
from research_jobs.notebook.scan import find_notebook, scan
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]
NOTEBOOK = "# %%\nx = 1\n"


def test_notebooks_and_helpers(make_project: MakeProject) -> None:
    """Nested folders count; hidden ones, caches, environments and `_` names do not."""
    project = make_project(
        {
            "notebooks/b.py": NOTEBOOK,
            "notebooks/a/b/c.py": NOTEBOOK,
            "notebooks/a/__init__.py": "# %%\n",
            "notebooks/helper.py": "x = 1\n",
            "notebooks/_draft.py": NOTEBOOK,
            "notebooks/_old/x.py": NOTEBOOK,
            "notebooks/.hidden/x.py": NOTEBOOK,
            "notebooks/.x.py": NOTEBOOK,
            "notebooks/__pycache__/x.py": NOTEBOOK,
            "notebooks/env/pyvenv.cfg": "",
            "notebooks/env/lib/x.py": NOTEBOOK,
            "notebooks/notes.txt": NOTEBOOK,
            "notebooks/2024-script.py": "no_marker = 1\n",
        }
    )
    found = scan(project)
    assert [(nb.name, nb.module) for nb in found.notebooks] == [("a/b/c", "a.b.c"), ("b", "b")]
    assert found.notebooks[1].path == project.notebooks / "b.py"
    helpers = [path.relative_to(project.notebooks).as_posix() for path in found.helpers]
    assert helpers == ["_draft.py", "_old/x.py", "a/__init__.py", "helper.py"]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        (
            "2024-report",
            "'2024-report.py' is not a name that Python can import",
            "nb_2024_report.py",
        ),
        ("my report", "'my report.py' is not a name", "'my_report.py'"),
        ("a.b", "'a.b.py' is not a name", "'a_b.py'"),
        ("2024", "'2024.py' is not a name", "'nb_2024.py'"),
        ("class", "'class.py' is a Python keyword", "'nb_class.py'"),
        ("2024-q1/x", "folder '2024-q1' is not a name", "'nb_2024_q1'"),
        ("e\u0301te", "is spelled in a Unicode form", "'\u00e9te'"),
    ],
)
def test_names_that_cannot_be_imported(
    make_project: MakeProject, name: str, what: str, hint: str
) -> None:
    """Such a notebook is a problem with a better name; the others are found."""
    project = make_project({f"notebooks/{name}.py": NOTEBOOK, "notebooks/good.py": NOTEBOOK})
    found = scan(project)
    assert [nb.name for nb in found.notebooks] == ["good"]
    (problem,) = found.problems
    assert str(problem).startswith(f"notebooks/{name}.py: ")
    assert what in str(problem)
    assert hint in str(problem)


def test_a_file_beside_a_folder_of_its_name(make_project: MakeProject) -> None:
    """Python takes the file, so what is in the folder cannot be imported."""
    project = make_project({"notebooks/vol.py": NOTEBOOK, "notebooks/vol/garch.py": NOTEBOOK})
    found = scan(project)
    assert [nb.name for nb in found.notebooks] == ["vol"]
    assert "notebooks/vol/garch.py: cannot be imported: 'vol' is the file vol.py" in str(
        found.problems[0]
    )


def test_a_file_beside_a_package_of_its_name(make_project: MakeProject) -> None:
    """With `__init__.py` Python takes the folder, so the file cannot be imported."""
    project = make_project(
        {
            "notebooks/vol.py": NOTEBOOK,
            "notebooks/vol/__init__.py": "",
            "notebooks/vol/garch.py": NOTEBOOK,
        }
    )
    found = scan(project)
    assert [nb.name for nb in found.notebooks] == ["vol/garch"]
    assert "is hidden by the package vol/ next to it" in str(found.problems[0])


@pytest.mark.parametrize("beside", ["vol.py", "vol/helper.py", "vol/deep/helper.py"])
def test_a_file_named_as_its_top_folder(make_project: MakeProject, beside: str) -> None:
    """The notebook's own folder is searched first: a file or folder in it hides the one above."""
    project = make_project(
        {f"notebooks/vol/{beside}": "x = 1\n", "notebooks/vol/garch.py": NOTEBOOK}
    )
    found = scan(project)
    assert found.notebooks == ()
    assert "'vol' next to it hides the top-level folder" in str(found.problems[0])


def test_links(make_project: MakeProject, tmp_path: Path) -> None:
    """Inside the folder they are followed, loops apart; out of it, or to nothing, refused."""
    project = make_project({"notebooks/a/x.py": NOTEBOOK, "elsewhere/y.py": NOTEBOOK})
    folder = project.notebooks
    (folder / "alias.py").symlink_to(folder / "a" / "x.py")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "out.py").symlink_to(tmp_path / "elsewhere" / "y.py")
    (folder / "gone.py").symlink_to(folder / "missing.py")
    (folder / "data").symlink_to(tmp_path / "missing")
    found = scan(project)
    assert [nb.name for nb in found.notebooks] == ["a/x", "alias"]
    problems = sorted(str(problem) for problem in found.problems)
    assert [problem.partition(": ")[0] for problem in problems] == [
        "notebooks/gone.py",
        "notebooks/out.py",
        "notebooks/out",
    ]
    assert "does not exist" in problems[0]
    assert "outside notebooks/" in problems[1]


def test_notebooks_may_be_a_link_itself(make_project: MakeProject, tmp_path: Path) -> None:
    """What counts as outside is measured from where it leads."""
    make_project({"real/x.py": NOTEBOOK})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notebooks").symlink_to(tmp_path / "real")
    found = scan(Project(root=tmp_path / "other", store=str(tmp_path / "data")))
    assert [nb.name for nb in found.notebooks] == ["x"]
    assert found.problems == ()


def test_what_is_no_regular_file(make_project: MakeProject) -> None:
    """A pipe or a folder that ends in `.py` is never opened."""
    project = make_project({"notebooks/x.py": NOTEBOOK, "notebooks/folder.py/y.py": NOTEBOOK})
    os.mkfifo(project.notebooks / "pipe.py")
    found = scan(project)
    assert [nb.name for nb in found.notebooks] == ["x"]
    assert "folder 'folder.py' is not a name" in str(found.problems[0])


def test_an_unreadable_file_fails_alone(make_project: MakeProject) -> None:
    """The others run, and a call of it says what is wrong."""
    project = make_project({"notebooks/x.py": NOTEBOOK})
    (project.notebooks / "y.py").write_bytes(b"# %%\n\xff\n")
    assert [(nb.name, nb.error is None) for nb in scan(project).notebooks] == [
        ("x", True),
        ("y", False),
    ]
    with pytest.raises(NotebookError, match=r"notebooks/y\.py:2:1: byte 0xff is not utf-8"):
        find_notebook(project, "y")


@pytest.mark.parametrize(
    "name", ["vol/garch", "vol.garch", "vol/garch.py", "notebooks/vol/garch.py", "./vol/garch"]
)
def test_find_by_any_spelling(make_project: MakeProject, name: str) -> None:
    """As a person types it."""
    project = make_project({"notebooks/vol/garch.py": NOTEBOOK, "notebooks/top.py": NOTEBOOK})
    assert find_notebook(project, name).module == "vol.garch"
    assert find_notebook(project, "top").path == project.notebooks / "top.py"


def test_find_says_what_is_close_or_why_not(make_project: MakeProject) -> None:
    """Misspelt, a helper, broken, private, empty."""
    project = make_project(
        {
            "notebooks/market_data.py": NOTEBOOK,
            "notebooks/helper.py": "x = 1\n",
            "notebooks/_draft.py": NOTEBOOK,
            "notebooks/vol.py": NOTEBOOK,
            "notebooks/vol/garch.py": NOTEBOOK,
        }
    )
    with pytest.raises(NotebookNotFoundError, match=r"Did you mean 'market_data'\?"):
        find_notebook(project, "marketdata")
    with pytest.raises(NotebookNotFoundError, match="not a notebook: it has no line '# %%'"):
        find_notebook(project, "helper")
    with pytest.raises(NotebookNotFoundError, match="its name begins with '_'"):
        find_notebook(project, "_draft")
    with pytest.raises(NotebookError, match=r"'vol' is the file vol\.py"):
        find_notebook(project, "vol.garch")
    with pytest.raises(NotebookNotFoundError, match="no notebook 'x'"):
        find_notebook(project, "../../x")
    with pytest.raises(NotebookNotFoundError):
        find_notebook(project, "")


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    """And no exception."""
    (problem,) = scan(Project(root=tmp_path, store=str(tmp_path / "data"))).problems
    assert "folder cannot be read: no such file or directory" in str(problem)


def test_a_link_to_a_sibling_folder_leads_out(make_project: MakeProject) -> None:
    """A folder whose name only begins like that of notebooks/ is not inside it."""
    project = make_project(
        {"notebooks/a.py": "# %%\n", "notebooks_old/b.py": "# %%\n", "notebooks_old/deep/c.py": ""}
    )
    (project.notebooks / "b.py").symlink_to(project.root / "notebooks_old" / "b.py")
    (project.notebooks / "deep").symlink_to(project.root / "notebooks_old" / "deep")
    (project.notebooks / "again.py").symlink_to(project.notebooks / "a.py")
    found = scan(project)
    assert [notebook.name for notebook in found.notebooks] == ["a", "again"]
    assert found.helpers == ()
    assert [str(problem.where) for problem in found.problems] == [
        "notebooks/b.py",
        "notebooks/deep",
    ]
    assert all("outside notebooks/" in problem.what for problem in found.problems)


def test_why_a_file_is_not_a_notebook(make_project: MakeProject) -> None:
    """Without a marker, with a private name, of Jupyter: each with what to do."""
    project = make_project(
        {
            "notebooks/plain.py": "x = 1\n",
            "notebooks/_own.py": "# %%\n",
            "notebooks/old.ipynb": "{}",
        }
    )
    for name, message in (
        ("plain", "it has no line '# %%'. Put '# %%' above its first cell."),
        ("_own", "its name begins with '_'. Rename it to run it."),
        (
            "old",
            "is a Jupyter notebook, not yet a notebook of this project. research-jobs convert",
        ),
        ("notebooks/old.ipynb", "research-jobs convert"),
    ):
        with pytest.raises(NotebookNotFoundError) as caught:
            find_notebook(project, name)
        assert message in str(caught.value)
    assert why_not(project.notebooks, "gone") is None
    assert why_not(project.notebooks, "") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.py": "# %%\nimport used\n", "used.py": ""}, None),
        ({"a.py": "# %%\n", "_own.py": ""}, None),
        ({"a.py": "# %%\n", "b.ipynb": "{}"}, None),
        ({"v/a.py": "# %%\nimport used\nfrom w import x\n", "v/used.py": "", "w/x.py": ""}, None),
        ({"a.py": "# %%\n", "lone.py": ""}, "not a notebook, and no notebook imports it: lone.py"),
        ({f"n{i}.py": "" for i in range(7)}, "n0.py, n1.py, n2.py, n3.py, n4.py and 2 more"),
        ({"b.ipynb": "{}"}, "1 .ipynb here is not a notebook yet: research-jobs convert"),
        ({"b.ipynb": "{}", "v/c.ipynb": "{}", ".x/b.ipynb": "{}"}, "2 .ipynb here are"),
        ({}, "Create one: research-jobs new NAME"),
    ],
)  # fmt: skip
def test_what_lies_beside_the_notebooks(
    make_project: MakeProject, files: dict[str, str], message: str | None
) -> None:
    """Files that look like notebooks and are not are named, with the reason."""
    project = make_project({f"notebooks/{name}": text for name, text in files.items()})
    said = files_beside(scan(project), project.notebooks)
    assert said == message if message is None else message in (said or "")
