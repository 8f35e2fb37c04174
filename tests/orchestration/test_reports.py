"""Reports as a run makes them: folders, links, and what happens when one cannot be made."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from permissions import expected, permissions, second_group, umask

from research_jobs.orchestration.execution import reports
from research_jobs.orchestration.execution.reports import run_folder
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.morning import look_and_write
from research_jobs.project import Project
from research_jobs.report.making import close_maker, make_report


@pytest.mark.parametrize("said", [b"gitdir: /\xff/.git", b"gitdir: /a\0b", b"gitdir: ", b"\xff"])
def test_a_repository_that_cannot_be_read(tmp_path: Path, said: bytes) -> None:
    """A checkout whose Git is damaged, or elsewhere by now, has no commit, and fails no report."""
    (tmp_path / ".git").write_bytes(said)
    assert reports.git_commit(tmp_path) is None


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


MARKET = "# %%\nprices = [1, 2, 3]\nprint('shown')\n"


def endings(root: Path) -> list[str]:
    """The endings that the reports of a project's runs say, by their notebooks' metadata."""
    found = sorted(root.glob("reports/**/notebook.ipynb"))
    return [json.loads(path.read_text())["metadata"]["research_jobs"]["ending"] for path in found]


def test_made_after_publishing(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a report is made, the outputs are already what everybody reads."""
    lab.write({"market": MARKET}, "notebooks: {market: {outputs: [prices]}}\n")
    published: list[bool] = []

    def spy(order: Any, **options: Any) -> Any:
        published.append((lab.root / "data/market/prices.parquet").exists())
        return make_report(order, **options)

    monkeypatch.setattr(reports, "make_report", spy)
    run = lab.materialize("market")
    assert run.success, run.errors
    assert published == [True]
    assert "shown" in Path(run.metadata("market")["report_file"]).read_text()


def test_refused_is_not_succeeded(lab: Any) -> None:
    """The report and the gallery of a run that a check refused say so, and which check."""
    manifest = "notebooks: {market: {outputs: {prices: {min_rows: 9}}}}\n"
    lab.write({"market": MARKET}, manifest)
    assert not lab.materialize("market").success
    assert endings(lab.root) == ["refused"]
    (page,) = lab.root.glob("reports/market/_runs/*/report.html")
    assert "Refused" in page.read_text()
    assert "min_rows" in page.read_text()
    assert '"ending":"refused"' in (lab.root / "reports/market/runs.js").read_text()


def test_not_stored_is_not_succeeded(lab: Any) -> None:
    """The report of a run whose outputs could not be published says that it failed, and why."""
    place = lab.root / "data" / "market"
    notebook = f"{MARKET}from pathlib import Path\nPath({str(place)!r}).write_text('a file')\n"
    lab.write({"market": notebook}, "notebooks: {market: {outputs: [prices]}}\n")
    assert not lab.materialize("market").success
    assert endings(lab.root) == ["failed"]
    assert place.read_text() == "a file"


@pytest.fixture
def fresh_maker() -> Iterator[None]:
    """The process that makes reports keeps the umask that it was started with."""
    close_maker()
    yield
    close_maker()


@pytest.mark.usefixtures("fresh_maker")
@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("named", [True, False], ids=["group", "no group"])
def test_who_may_read(lab: Any, mask: int, named: bool) -> None:
    """Outputs, reports and gallery are a named group's to read; without one, by the umask."""
    group = second_group() if named else None
    notebooks = "notebooks:\n  deep/market: {outputs: [prices]}\n"
    head = f"group: {group.gr_name}\n" if group is not None else ""
    lab.write({"deep/market": MARKET, "bad": "# %%\n1 / 0\n"}, head + notebooks)
    with umask(mask):
        assert lab.materialize("deep/market").success
        assert not lab.materialize("bad").success
        look_and_write(lab.instance, load_catalog(lab.project))
    for folder in (lab.root / "data", lab.root / "reports"):
        gid = group.gr_gid if group is not None else None
        assert permissions(folder) == expected(folder, mask, gid)
    pages = list(permissions(lab.root / "reports"))
    assert {"index.html", "gallery.js", "deep/market/runs.js", "bad/index.html"} <= set(pages)
    assert sum(page.endswith("report.html") for page in pages) == 2
    assert any(page.startswith("assets/page-") for page in pages)


def test_unknown_group(lab: Any) -> None:
    """A group that does not exist: the run says so, and its report is there all the same."""
    lab.write(
        {"market": MARKET}, "group: no-such-group\nnotebooks: {market: {outputs: [prices]}}\n"
    )
    run = lab.materialize("market")
    assert not run.success
    assert "there is no group 'no-such-group'" in run.errors
    assert endings(lab.root) == ["failed"]
    assert look_and_write(lab.instance, load_catalog(lab.project)).is_file()
