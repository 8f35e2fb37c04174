"""What is the project's own, and what belongs to an environment or to us."""

# ruff: noqa: PTH208 - what is tested takes plain strings

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import research_jobs
from research_jobs.runtime.fresh import close_others, in_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an environment inside."""
    for name in (
        "notebooks/helper.py",
        "src/own/__init__.py",
        ".venv/pyvenv.cfg",
        ".venv/lib/other/module.py",
        "vendor/site-packages/module.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", True),
        ("notebooks", True),
        ("notebooks/helper.py", True),
        ("src/own/__init__.py", True),
        ("notebooks/not_there.py", True),
        (".venv", False),
        (".venv/lib/other/module.py", False),
        ("vendor/site-packages/module.py", False),
        ("../elsewhere.py", False),
    ],
)
def test_in_project(project: Path, path: str, expected: bool) -> None:
    """The project's files are its own; those of environments inside it are not."""
    assert in_project(str(project / path), str(project)) is expected


def test_links_are_followed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link to the project's files leads into the project, however it is written."""
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(project)
    assert in_project(str(link / "notebooks" / "helper.py"), str(project))
    assert in_project(str(project / "notebooks" / "helper.py"), str(link))


def test_a_name_that_only_begins_alike(project: Path) -> None:
    """A neighbour whose name begins with the project's is outside."""
    assert not in_project(f"{project}-other/file.py", str(project))


def test_research_jobs_itself_is_not_the_projects() -> None:
    """In our own checkout, and in the root folder, neither we nor the interpreter are."""
    package = Path(str(research_jobs.__file__)).parent
    assert not in_project(str(package / "errors.py"), str(package.parent))
    assert not in_project(os.__file__, "/")
    assert not in_project(sys.prefix, str(Path(sys.prefix).parent))


def test_close_others() -> None:
    """Every descriptor but the standard ones and those to keep is closed."""
    child = os.fork() if sys.version_info < (3, 12) else None
    if child is None:
        pytest.skip("a fork beside threads is a warning from Python 3.12 on")
    if child == 0:
        try:
            opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
            close_others([opened[1], opened[3]])
            left = {int(name) for name in os.listdir("/proc/self/fd")}
            kept = {0, 1, 2, opened[1], opened[3]}
            # The listing has one of its own.
            os._exit(0 if kept <= left and len(left - kept) == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
