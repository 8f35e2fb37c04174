"""What a tree of files would be served as."""

from __future__ import annotations

from pathlib import Path

import pytest

from research_jobs.errors import ProjectError
from research_jobs.orchestration.model.snapshot import Snapshot
from research_jobs.orchestration.operations.deploy_tree import read_tree

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = """
notebooks: {one: {outputs: [x]}, listed: {partitions: {values: [b, a]}, tags: {z: y, a: b}}}
schedules:
  often: {cron: ["5 8 * * *", "5 9 * * *"], timezone: Europe/Zagreb, notebooks: [one]}
  lost: {cron: "* * * * *", notebooks: [gone]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with something wrong in it."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("# %%\nx = 1\n")
    (folder / "listed.py").write_text("# %%\ny = 1\n")
    (folder / "broken.py").write_text("# %%\nz = (\n")
    (folder / "manifest.yaml").write_text(MANIFEST)
    return folder.parent


def test_what_a_tree_says(root: Path) -> None:
    """Notebooks, schedules and mistakes are read by another process, each time the same."""
    tree = read_tree(root)
    assert tree.notebooks.keys() == tree.versions.keys() == {"broken", "listed", "one"}
    assert tree.schedules == {"often": "5 8 * * * and 5 9 * * * (Europe/Zagreb)"}
    assert "notebooks/broken.py:2" in tree.errors["broken"]
    assert "there is no notebook 'gone'" in tree.broken_schedules["lost"]
    assert tree.unreadable is None
    assert read_tree(root) == tree


def test_what_is_served(root: Path) -> None:
    """All of the tree is served, whatever else is; what was removed is not."""
    tree = read_tree(root)
    more = Snapshot({**tree.versions, "other": "1"}, {**tree.schedules, "own": "* * * * * (UTC)"})
    assert tree.is_served(more)
    assert not tree.is_served(more, without=["other"])
    assert not tree.is_served(Snapshot({**more.notebooks, "one": "older"}, more.schedules))
    assert not tree.is_served(Snapshot(more.notebooks, {"often": "5 8 * * * (UTC)"}))


def test_code_that_does_not_load(root: Path) -> None:
    """A tree whose own version of the package does not load is refused with the reason."""
    package = root / "research_jobs"
    package.mkdir()
    (package / "__init__.py").write_text("import no_such_module\n")
    with pytest.raises(ProjectError, match="no_such_module"):
        read_tree(ROOT, repository=ROOT, tree=root)
