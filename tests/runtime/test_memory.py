"""The memory limit: which cgroup is ours to divide, and what is seen of the tree without one.

Where cgroups are found is tested on plain folders laid out like them. That either way holds a
limit is tested on real runs in tests/faults.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from research_jobs.runtime.memory import CGROUP_VARIABLE, MemoryWatch, delegated_cgroup


def make_cgroup(folder: Path, controllers: str = "cpu memory") -> Path:
    """A folder with the files of a cgroup."""
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("")
    (folder / "cgroup.subtree_control").write_text(controllers)
    return folder


def test_parent_of_our_leaf_is_delegated(tmp_path: Path) -> None:
    """Our own cgroup is a leaf of a subtree that systemd delegated: its parent takes new ones."""
    base = make_cgroup(tmp_path / "fs" / "system.slice" / "jobs.service")
    make_cgroup(base / "main")
    own = tmp_path / "own"
    own.write_text("0::/system.slice/jobs.service/main\n")
    assert delegated_cgroup(tmp_path / "fs", own) is None
    os.setxattr(base, "user.delegate", b"1")
    assert delegated_cgroup(tmp_path / "fs", own) == base


@pytest.mark.parametrize("text", ["", "0::/\n", "0::/only\n", "4:memory:/x\n0::/\n"])
def test_nothing_is_delegated(tmp_path: Path, text: str) -> None:
    """The root cgroup and its children are nobody's to divide."""
    make_cgroup(tmp_path / "fs")
    make_cgroup(tmp_path / "fs" / "only")
    own = tmp_path / "own"
    own.write_text(text)
    assert delegated_cgroup(tmp_path / "fs", own) is None


def test_named_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable names the folder; memory is switched on in it where it is not."""
    base = make_cgroup(tmp_path / "named", "cpu")
    monkeypatch.setenv(CGROUP_VARIABLE, str(base))
    assert delegated_cgroup() == base
    assert (base / "cgroup.subtree_control").read_text() == "+memory"


def test_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cgroup the tree is looked at: over the limit, under it, and without one."""
    monkeypatch.setenv(CGROUP_VARIABLE, "/no/such/folder")
    assert MemoryWatch(1 << 20, "run").sample([os.getpid()])
    assert not MemoryWatch(1 << 40, "run").sample([os.getpid()])
    unlimited = MemoryWatch(None, "run")
    assert not unlimited.sample([os.getpid()])
    assert unlimited.peak > 1 << 20
    assert unlimited.due is not None
