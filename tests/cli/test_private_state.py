"""What a real run leaves, as other users of the machine see it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest


def readable_by_others(folder: Path) -> list[Path]:
    """What others can reach and read: a closed folder hides all that is in it."""
    found: list[Path] = []
    for entry in [folder, *(path for path in folder.iterdir() if not path.is_symlink())]:
        mode = stat.S_IMODE(entry.stat().st_mode)
        if mode & 0o077:
            found.append(entry)
        if entry is not folder and entry.is_dir() and mode & 0o011:
            found += readable_by_others(entry)
    return found


@pytest.mark.parametrize("home", [False, True], ids=["embedded", "DAGSTER_HOME"])
def test_state_is_private_after_a_run(tmp_path: Path, *, home: bool) -> None:
    """State, run folders and a DAGSTER_HOME that we make are for their owner alone."""
    umask = 0o002  # lets the group write
    project, dagster_home = tmp_path / "project", tmp_path / "made" / "home"
    (project / "notebooks").mkdir(parents=True)
    (project / "notebooks" / "prices.py").write_text("# %%\nvalue = 1\n")
    (project / "notebooks" / "manifest.yaml").write_text(
        "notebooks: {prices: {outputs: [value]}}\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("research-jobs"), "run", "prices"],
        cwd=project,
        env=os.environ
        | {"DAGSTER_HOME": str(dagster_home) if home else "", "RESEARCH_JOBS_PROJECT": ""},
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((project / ".research_jobs").rglob("*"))) > 2
    assert readable_by_others(project / ".research_jobs") == []
    # Not only hidden by the folder above: each of ours is closed itself.
    for name in ("dagster", "runs", "cache") if not home else ("runs", "cache"):
        assert stat.S_IMODE((project / ".research_jobs" / name).stat().st_mode) == 0o700, name
    if home:
        assert list(dagster_home.iterdir())
        assert stat.S_IMODE(dagster_home.stat().st_mode) == 0o700
    # What others are to read follows the umask.
    assert stat.S_IMODE((project / "data").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((project / "reports").stat().st_mode) == 0o777 & ~umask
