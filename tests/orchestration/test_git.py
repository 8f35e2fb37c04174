"""What a deployment asks of Git, with real repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from research_jobs.errors import ProjectError
from research_jobs.orchestration.operations.git import Repository


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with a commit."""
    folder = tmp_path / "origin"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "one.py").write_text("# %%\nx = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def clone(origin: Path) -> Repository:
    """A clone of it."""
    git(origin.parent, "clone", "-q", "origin", "clone")
    found = Repository.of(origin.parent / "clone" / "notebooks")
    assert found is not None
    return found


def change(origin: Path, text: str) -> None:
    (origin / "notebooks" / "one.py").write_text(text)
    git(origin, "commit", "-qam", "change")


def test_no_repository(tmp_path: Path) -> None:
    """A folder that Git knows nothing of has none."""
    assert Repository.of(tmp_path) is None


def test_a_branch_without_upstream(origin: Path) -> None:
    """A branch that follows none is refused, with the command that sets one."""
    repository = Repository.of(origin)
    assert repository is not None
    with pytest.raises(ProjectError) as raised:
        repository.fetch()
    assert "--set-upstream-to" in raised.value.headline


def test_local_edits_are_in_the_checkout(origin: Path, clone: Repository) -> None:
    """A checkout has edits and untracked files as a fast-forward leaves them, and is removed."""
    (origin / "helper.py").write_text("value = 1\n")
    git(origin, "add", "--all")
    change(origin, "# %%\nx = 2\n")
    (clone.root / "notebooks" / "own.py").write_text("# %%\ny = 1\n")
    (clone.root / "big.parquet").write_text("no text")
    latin = os.fsdecode(b"caf\xe9.py")
    (clone.root / latin).touch()
    with clone.checkout(clone.fetch(), clone.root / "notebooks") as tree:
        assert (tree / "helper.py").is_file()
        assert (tree / "notebooks" / "one.py").read_text() == "# %%\nx = 2\n"
        assert (tree / "notebooks" / "own.py").is_file()
        assert not (tree / "big.parquet").exists()
        assert (tree / latin).exists()
    assert not tree.exists()
    assert (clone.root / "notebooks" / "one.py").read_text() == "# %%\nx = 1\n"


def test_edits_in_the_way(origin: Path, clone: Repository) -> None:
    """Git's own reason is given where an edit keeps the tree from moving; nothing moves."""
    before = clone.head()
    change(origin, "# %%\nx = 2\n")
    edited = clone.root / "notebooks" / "one.py"
    edited.write_text("# %%\nx = 3\n")
    with pytest.raises(ProjectError, match=r"git merge: .*overwritten"):
        clone.fast_forward(clone.fetch())
    assert (clone.head(), edited.read_text()) == (before, "# %%\nx = 3\n")
