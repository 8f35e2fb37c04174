"""The memory limit: which cgroup is ours to divide, and what is seen of the tree without one.

Where cgroups are found is tested on plain folders laid out like them. That either way holds a
limit is tested on real runs in tests/faults.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pyarrow as pa
import pytest

from research_jobs.runtime.memory import CGROUP_VARIABLE, MemoryWatch, delegated_cgroup
from research_jobs.runtime.processes import resident_memory


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


def test_pages_that_the_kernel_can_drop_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that is read through a mapping is resident, and yet not held."""
    monkeypatch.delenv(CGROUP_VARIABLE, raising=False)
    # Not one below tmp_path: that may be in memory.
    path = max(Path(pa.__file__).parent.glob("*.so*"), key=lambda found: found.stat().st_size)
    size = path.stat().st_size
    held = resident_memory(os.getpid()).held
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert any(mapped[:: mmap.PAGESIZE])
        watch = MemoryWatch(held + size // 2, "run")
        assert not watch.sample([os.getpid()])
        assert watch.peak > held + size // 2


@pytest.mark.parametrize(
    ("events", "killed"),
    [
        ("oom 3\noom_kill 0\n", False),
        ("oom 10\noom_kill 10\n", True),
        ("oom_kill_disable 1", False),
    ],
)
def test_what_the_kernel_has_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: str, killed: bool
) -> None:
    """The limit is set in a cgroup of the run's own, which says at the end what happened in it."""
    monkeypatch.setenv(CGROUP_VARIABLE, str(make_cgroup(tmp_path / "named")))
    watch = MemoryWatch(1 << 20, "run/1")
    assert watch.group is not None
    group = Path(watch.group)
    assert group.parent == tmp_path / "named"
    assert group.name.startswith("research_jobs-run-1-")
    assert (group / "memory.max").read_text() == str(1 << 20)
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "memory.oom.group").read_text() == "1"
    (group / "memory.current").write_text("5000\n")
    assert not watch.sample([os.getpid()])
    assert watch.held_peak == 5000
    watch.kill()
    assert (group / "cgroup.kill").read_text() == "1"
    (group / "memory.events").write_text(events)
    (group / "memory.peak").write_text(f"{1 << 50}\n")
    watch.close()
    assert watch.was_killed is killed
    assert watch.peak == watch.held_peak == 1 << 50
    assert watch.note is None


def test_a_group_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody named a folder that takes no limit, the run says so; else it does not."""
    monkeypatch.setenv(CGROUP_VARIABLE, str(tmp_path))
    assert "no limit can be set in" in str(MemoryWatch(1 << 20, "run").note)
    assert MemoryWatch(None, "run").note is None
    monkeypatch.delenv(CGROUP_VARIABLE)
    assert MemoryWatch(1 << 20, "run").note is None
