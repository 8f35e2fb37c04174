"""A store whose disk is not mounted is told from one that was never there, or was removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from research_jobs.errors import StoreError
from research_jobs.project import Project
from research_jobs.store.presence import find_absence, refuse_unmounted


def _umount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Mounts a disk of its own, whose store is below its top."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    with ExitStack() as stack:

        def do() -> Path:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
            stack.callback(lambda: os.path.ismount(disk) and _umount(disk))
            return disk

        yield do


def test_a_store_whose_disk_is_gone_is_refused(tmp_path: Path, mount: Callable[[], Path]) -> None:
    """It names the mount point, as long as nothing is there; begun anew only where told."""
    disk = mount()
    project = Project(tmp_path, str(disk / "store"))
    refuse_unmounted(project)  # nothing is known of it
    (disk / "store" / "prices" / ".versions").mkdir(parents=True)
    assert find_absence(project) is None
    _umount(disk)
    for made in (False, True):
        if made:
            Path(project.store, ".staging").mkdir(parents=True)
        with pytest.raises(StoreError, match=f"is gone: nothing is mounted at {disk}") as raised:
            refuse_unmounted(project)
        assert f"Mount {disk}. To begin a new store" in (raised.value.hint or "")
    refuse_unmounted(Project(tmp_path, str(tmp_path / "other")))
    shutil.copytree(tmp_path / ".research_jobs", tmp_path / "known")
    (tmp_path / ".research_jobs" / "store.json").unlink()
    refuse_unmounted(project)
    shutil.copytree(tmp_path / "known", tmp_path / ".research_jobs", dirs_exist_ok=True)
    (mount() / "store" / "prices").mkdir(parents=True)
    assert find_absence(project) is None


def test_a_store_that_was_removed_is_told_and_begun_anew(tmp_path: Path) -> None:
    """No run refuses it; the watch and the doctor say so until something is published."""
    project = Project(tmp_path, str(tmp_path / "data"))
    output = tmp_path / "data" / "prices"
    output.mkdir(parents=True)
    assert find_absence(project) is None
    shutil.rmtree(tmp_path / "data")
    refuse_unmounted(project)
    absence = find_absence(project)
    assert absence is not None
    assert "has nothing of what was published to it" in absence.why
    output.mkdir(parents=True)
    assert find_absence(project) is None
