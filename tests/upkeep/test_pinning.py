"""What is linked for a backup where some of it cannot be read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from research_jobs.upkeep.pinning import pin_store, pin_tree
from research_jobs.upkeep.point import _unless


def test_a_folder_that_may_not_be_entered_is_left_out_alone() -> None:
    """As another user's, such as ``lost+found``: what is beside it is in the backup."""
    folder = Path(tempfile.mkdtemp())  # its parents may be entered by anybody
    source, target = folder / "source", folder / "open" / "target"
    for made in (source / "closed", source / "notebooks", target.parent):
        made.mkdir(parents=True)
    (source / "notebooks" / "a.py").touch()
    (source / "closed").chmod(0)
    folder.chmod(0o755)
    target.parent.chmod(0o777)
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.setuid(65534)
        left_out = list(pin_tree(source, target, _unless(set())))
        good = left_out == [source / "closed"] and (target / "notebooks" / "a.py").exists()
        os._exit(not good)
    assert os.waitpid(child, 0)[1] == 0
    shutil.rmtree(folder)


def test_a_current_version_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Its outputs are not in the backup, so that it is not whole."""
    versions = tmp_path / "data" / "total" / ".versions"
    versions.mkdir(parents=True)
    (versions / "current").symlink_to("000001-abcdef01")
    left_out = list(pin_store(str(tmp_path / "data"), tmp_path / "pinned"))
    assert left_out == [versions / "current"]
