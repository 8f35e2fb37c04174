"""Where a project is found and how a notebook's name is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from research_jobs.errors import ProjectError
from research_jobs.project import find_project, module_name, notebook_name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT", raising=False)
    monkeypatch.delenv("RESEARCH_JOBS_STORE", raising=False)
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    return tmp_path.resolve()


def test_the_nearest_parent_with_notebooks_is_the_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From inside the notebooks, the folder above them is found."""
    (folder / "notebooks" / "deep" / "notebooks").mkdir()
    monkeypatch.chdir(folder / "notebooks" / "deep" / "notebooks")
    assert find_project().root == folder / "notebooks" / "deep"
    monkeypatch.chdir("..")
    (folder / "notebooks" / "deep" / "notebooks").rmdir()
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", "")  # set to nothing is not set
    monkeypatch.setenv("RESEARCH_JOBS_STORE", "")
    project = find_project()
    assert project.root == folder
    assert project.store == str(folder / "data")


def test_the_environment_points_at_a_project(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RESEARCH_JOBS_PROJECT` wins over the working directory, an argument over both."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(folder))
    assert find_project().root == folder
    other = tmp_path_factory.mktemp("other")
    (other / "notebooks").mkdir()
    assert find_project(other).root == other.resolve()
    monkeypatch.setenv("HOME", str(other.parent))
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", f"~/{other.name}")
    assert find_project().root == other.resolve()


def test_a_store_is_a_path_from_the_root_or_a_url(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative store stands below the project's root; a URL is kept as it is written."""
    monkeypatch.setenv("RESEARCH_JOBS_STORE", "out")
    project = find_project(folder)
    assert project.store == str(folder / "out")
    assert project.store_is_local
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("RESEARCH_JOBS_STORE", "~/out")
    assert find_project(folder).store == str(folder / "home" / "out")
    monkeypatch.setenv("RESEARCH_JOBS_STORE", "s3://bucket/x")
    project = find_project(folder)
    assert project.store == "s3://bucket/x"
    assert not project.store_is_local


def test_no_project_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without notebooks is refused with the folder and what to do."""
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT", raising=False)
    with pytest.raises(ProjectError, match=r"has no folder notebooks/\. Name"):
        find_project(tmp_path)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(tmp_path))
    with pytest.raises(ProjectError, match="RESEARCH_JOBS_PROJECT"):
        find_project()


@pytest.mark.parametrize(
    "typed",
    [
        "volatility/garch",
        "volatility.garch",
        "volatility/garch.py",
        "notebooks/volatility/garch.py",
        "./notebooks/volatility/garch.py",
        " volatility\\garch ",
        "/volatility/garch/",
    ],
)
def test_every_spelling_of_a_notebook_gives_one_name(typed: str) -> None:
    """Whatever a person types, the name and the module are the same."""
    assert notebook_name(typed) == "volatility/garch"
    assert module_name(typed) == "volatility.garch"


def test_paths_are_shown_from_the_root(folder: Path) -> None:
    """A path inside the project is shown relative to it, another as it is."""
    project = find_project(folder)
    assert project.display(folder / "notebooks" / "a.py") == "notebooks/a.py"
    assert project.display("/etc/hosts") == "/etc/hosts"


@pytest.mark.parametrize(
    ("line", "store"),
    [
        ("RESEARCH_JOBS_STORE=out", "out"),
        ("export RESEARCH_JOBS_STORE = 'a b'  # there", "a b"),
        ('RESEARCH_JOBS_STORE="$PLACE/out" # there', "there/out"),
        ("RESEARCH_JOBS_STORE='$PLACE'", "$PLACE"),
        ("RESEARCH_JOBS_STORE=a\nRESEARCH_JOBS_STORE=b", "b"),
        ("# RESEARCH_JOBS_STORE=out", "data"),
        ("MY_RESEARCH_JOBS_STORE=out\nRESEARCH_JOBS_STORE=", "data"),
    ],
)
def test_dot_env_names_the_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, store: str
) -> None:
    """The project's .env names its store as a shell would read it; a variable that is set wins."""
    monkeypatch.setenv("PLACE", "there")
    (folder / ".env").write_text(f"A=1\n{line}\n", encoding="utf-8")
    assert find_project(folder).store == str(folder / store)
    monkeypatch.setenv("RESEARCH_JOBS_STORE", "/set")
    assert find_project(folder).store == "/set"
