"""The doctor's rounds: when it looks, in which process, and what the morning page shows of it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from research_jobs.notify.notifier import masker_of
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.doctor import CHECKS
from research_jobs.orchestration.operations.rounds import (
    FIRST_S,
    LONGEST_S,
    WELL_S,
    WRONG_S,
    Check,
    DoctorBook,
    Rounds,
    due,
)
from research_jobs.project import Project, find_project
from research_jobs.report.morning import FailedCheck, MorningPage, render_morning

NOW = datetime(2026, 11, 28, 7, tzinfo=UTC)
WRONG = (Check("store", ok=False, detail="d", fix="f"),)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one notebook and a secret."""
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "RESEARCH_JOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKEN", "hunter2-hunter2")
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("# %%\nx = 1\n")
    (folder / "manifest.yaml").write_text(
        "notebooks:\n  one: {parameters: {token: {secret: TOKEN}}}\n"
    )
    return find_project(folder.parent)


@pytest.mark.parametrize(
    ("book", "tried", "after", "looks"),
    [
        (DoctorBook(), 0, FIRST_S - 1, False),
        (DoctorBook(), 0, FIRST_S, True),
        (DoctorBook(-50.0), 0, FIRST_S, True),
        (DoctorBook(200.0), 0, 200 + WELL_S - 1, False),
        (DoctorBook(200.0), 150, 200 + WELL_S, True),
        (DoctorBook(200.0, WRONG), 150, 200 + WRONG_S - 1, False),
        (DoctorBook(200.0, WRONG), 150, 200 + WRONG_S, True),
        (DoctorBook(200.0), 300, 300 + WRONG_S - 1, False),
        (DoctorBook(200.0), 300, 300 + WRONG_S, True),
        (DoctorBook(9000.0), 0, 8000.0, True),
    ],
)
def test_when_the_doctor_looks(book: DoctorBook, tried: float, after: float, looks: bool) -> None:
    """Soon after the watch began, daily, hourly if wrong or unanswered, if the clock went back."""
    began = 1e9
    moved = DoctorBook(began + book.at if book.at is not None else None, book.checks)
    assert due(moved, began, began + tried if tried else 0.0, began + after) is looks


def test_a_look_is_a_process_with_a_time_limit(project: Project) -> None:
    """One that takes too long is ended, and the next one writes what each check found."""
    rounds = Rounds(project)
    start = time.time() + FIRST_S
    before = {one.pid for one in psutil.Process().children()}

    def looking() -> list[psutil.Process]:
        return [one for one in psutil.Process().children() if one.pid not in before]

    rounds.go(start)
    rounds.go(start + 1)
    assert len(looking()) == 1
    rounds.go(start + LONGEST_S)
    assert looking() == []
    assert DoctorBook.read(project) == DoctorBook()
    rounds.go(start + LONGEST_S + WRONG_S)
    (process,) = looking()
    process.wait(100)
    assert [one.check for one in DoctorBook.read(project).checks] == list(CHECKS)
    rounds.close()


def test_the_book(project: Project) -> None:
    """It comes back as written but for secrets; a damaged one is as none."""
    found = Check("history", ok=False, detail="password hunter2-hunter2", fix="")
    manifest = load_catalog(project).manifest
    DoctorBook.write(project, [found, *WRONG], masker_of(manifest, manifest.alerts).text)
    book = DoctorBook.read(project)
    assert [one.detail.split()[0] for one in book.wrong] == ["password", "d"]
    assert "hunter2" not in book.wrong[0].detail
    file = project.state / "doctor.json"
    assert file.stat().st_mode & 0o007 == 0
    for damage in ("{", "[]", '{"at": 1, "checks": [1]}', '{"at": null, "checks": []}'):
        file.write_text(damage)
        assert DoctorBook.read(project) == DoctorBook()


def test_the_page_where_all_is_well(tmp_path: Path) -> None:
    """One quiet line says when the doctor looked, that it has not lately, or that it never did."""
    never = render_morning(tmp_path, MorningPage(NOW))
    assert "Nobody has run <code>research-jobs doctor</code>" in never
    fine = render_morning(tmp_path, MorningPage(NOW, examined=NOW - timedelta(days=1)))
    assert "found nothing wrong on" in fine
    assert "Fri 27 Nov 07:00" in fine
    assert "has not looked since" not in fine
    for page in (never, fine):
        assert "Nothing needs attention" in page
        assert 'id="wrong"' not in page
    old = render_morning(tmp_path, MorningPage(NOW, examined=NOW - timedelta(days=3)))
    assert "has not looked since" in old


def test_the_page_where_something_is_wrong(tmp_path: Path) -> None:
    """It says how many checks fail, and each with its detail and fix, as text."""
    wrong = (FailedCheck("disk", "<b>full</b>", "du -xh | sort"), FailedCheck("a", "b", "c && d"))
    page = render_morning(tmp_path, MorningPage(NOW, examined=NOW, wrong=wrong))
    assert "2 things need attention" in page
    assert "2 checks of the installation fail</h2>" in page
    assert "&lt;b&gt;full&lt;/b&gt;" in page
    assert "<code>c &amp;&amp; d</code>" in page
    assert "found this wrong on" in page
    one = render_morning(tmp_path, MorningPage(NOW, examined=NOW, wrong=wrong[:1]))
    assert "1 check of the installation fails</h2>" in one
