"""Reports as a run makes them: folders, links, and what happens when one cannot be made."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path

from research_jobs.orchestration.execution.reports import run_folder
from research_jobs.project import Project


def test_run_folders_share_no_parent_that_goes(tmp_path: Path) -> None:
    """Steps that begin while others of their run end always get their folder."""
    project = Project(tmp_path, store=str(tmp_path / "data"))
    failed: list[BaseException] = []

    def steps(name: str) -> None:
        try:
            for number in range(300):
                folder = run_folder(project, "run", f"{name}{number}", None)
                (folder / "capture.jsonl").write_text("x")
                shutil.rmtree(folder)
                with suppress(OSError):
                    folder.parent.rmdir()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failed.append(error)

    (tmp_path / ".research_jobs" / "runs" / "other").mkdir(parents=True)
    threads = [threading.Thread(target=steps, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_run_folders_differ(tmp_path: Path) -> None:
    """Runs, steps and partitions that differ only in odd or far characters get other folders."""
    project = Project(tmp_path, store=str(tmp_path / "data"))
    long = "x" * 300
    asked = [
        ("run", "step", None),
        ("run", "step", "a/b"),
        ("run", "step", "a_b"),
        ("run", "step", "a b"),
        ("run", "step", long + "1"),
        ("run", "step", long + "2"),
        ("run", long + "1", None),
        ("run", long + "2", None),
        ("other", "step", None),
    ]
    folders = {run_folder(project, *each) for each in asked}
    assert len(folders) == len(asked)
    assert all(len(folder.name) < 255 for folder in folders)
