"""What is known of a project's backups, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research_jobs.manifest.backup import BackupSpec
from research_jobs.orchestration.operations.conditions import of_backup
from research_jobs.project import Project
from research_jobs.upkeep.point import place_store
from research_jobs.upkeep.proof import BackupBook, check_store

DAY = 86_400.0
NOW = 1000 * DAY


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project's folder."""
    return Project(tmp_path, str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("book", "said"),
    [
        (BackupBook(), "No backup was made yet."),
        (BackupBook(NOW - 60), "The last backup is 1 min old; none was proven yet."),
        (
            BackupBook(NOW - 0.2 * DAY, NOW - 6 * DAY),
            "The last backup is 5 h old, the last proven one 6 days.",
        ),
    ],
)
def test_a_line_says_how_old_backups_are(book: BackupBook, said: str) -> None:
    """In minutes, hours or days."""
    assert book.describe(NOW) == said


@pytest.mark.parametrize(
    ("book", "said"),
    [
        (BackupBook(), ["none was proven yet: run research-jobs backup --verify"]),
        (BackupBook(NOW, NOW - 7 * DAY), []),
        (BackupBook(NOW, NOW - 9 * DAY), ["the last proven one is older than 8 days"]),
        (BackupBook(NOW, NOW).ended("proof", NOW, "a bit"), ["its proof fails: a bit"]),
    ],
)
def test_a_condition_says_what_is_wrong_with_them(
    project: Project, book: BackupBook, said: list[str]
) -> None:
    """None was proven, the last is too old, or one fails; nothing without `backup`."""
    BackupBook.change(project, lambda _: book)
    spec = BackupSpec(to="/mnt/backup")
    assert [one.reason for one in of_backup(project, spec, NOW)] == said
    assert list(of_backup(project, None, NOW)) == []


def test_one_damaged_record_stops_no_restore(project: Project) -> None:
    """The other outputs are placed, and the check names the notebook."""
    for name in ("a", "b"):
        folder = project.root / "point" / "store" / name
        (folder / ".versions").mkdir(parents=True)
        (folder / ".partitioning.json").write_text("[]" if name == "a" else "")
    (folder / ".partitioning.json").unlink()
    place_store(project.root / "point", project, [])
    assert (Path(project.store) / "b" / ".versions").is_dir()
    assert [one[:3] for one in check_store(project.store).damaged] == ["a: "]


def test_a_backup_that_works_does_not_hide_a_proof_that_fails(project: Project) -> None:
    """Each is noted for itself, with since when; a damaged book is an empty one."""
    failing = BackupBook(NOW).ended("proof", NOW, "a bit").ended("making", NOW, "no route")
    again = failing.ended("proof", NOW + DAY, "two bits").ended("making", NOW + DAY, None)
    assert again.failing == {"proof": (NOW, "two bits")}
    BackupBook.change(project, lambda _: again)
    assert BackupBook.read(project) == again
    BackupBook.change(project, lambda book: replace(book, proven=NOW))
    assert BackupBook.read(project).failing == again.failing
    for damage in ("{", '{"made": "x", "proven": null, "failing": {}}'):
        (project.state / "backup.json").write_text(damage)
        assert BackupBook.read(project) == BackupBook()
