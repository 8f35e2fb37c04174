"""What counts as a change of the definitions, and how one is reported."""

from __future__ import annotations

import queue
import shutil
import socket
from pathlib import Path

import pytest

from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.model.snapshot import Changes, Snapshot, compare
from research_jobs.orchestration.operations import reloading
from research_jobs.orchestration.operations.reloading import CodeWatch
from research_jobs.orchestration.operations.served import NotServedError, ask
from research_jobs.project import Project, find_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A notebook with a helper, and one without anything."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "one.py").write_text("# %%\nimport helper\n\nx = helper.value\n")
    (notebooks / "helper.py").write_text("value = 1\n")
    (notebooks / "two.py").write_text("# %%\ny = 2\n")
    (notebooks / "manifest.yaml").write_text("notebooks: {one: {outputs: [x]}}\n")
    return find_project(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("one.py", "# %%\nimport helper\n\nx = helper.value  # new\n", "nothing new"),
        ("one.py", "# %%\nx = 3\n", "1 notebook changed"),
        ("one.py", "# %% [markdown]\n# Prose\n\n# %%\nx = 3\n", "1 notebook changed"),
        ("one.py", "# %%\nx = (\n", "1 notebook changed"),
        ("helper.py", "value = 2\n", "1 notebook changed"),
        ("other.py", "# %%\nz = 1\n", "1 notebook added"),
        ("other.py", "z = 1\n", "nothing new"),
        ("manifest.yaml", "notebooks: {one: {outputs: [x], group: a}}\n", "1 notebook changed"),
        ("manifest.yaml", "# new\nnotebooks: {one: {outputs: [x]}}\n", "nothing new"),
        (
            "manifest.yaml",
            (
                "notebooks: {one: {outputs: [x]}}\n"
                "schedules: {s: {cron: '1 * * * *', notebooks: [one]}}\n"
            ),
            "1 schedule added",
        ),
        (
            "manifest.yaml",
            "notebooks: {one: {outputs: [x]}}\ndefaults: {concurrency: 1}\n",
            "settings changed",
        ),
    ],
)
def test_what_counts(project: Project, name: str, text: str, said: str) -> None:
    """What changes a definition counts; comments, and helpers that nobody imports, do not."""
    before = Snapshot.of(load_catalog(project))
    (project.notebooks / name).write_text(text)
    changes = compare(before, Snapshot.of(load_catalog(project)))
    assert str(changes) == said
    assert bool(changes) is (said != "nothing new")


def test_a_line_counts_each_kind() -> None:
    """Each kind is counted, with the noun once."""
    changes = Changes(
        added=("a",),
        removed=("b", "c"),
        changed=("d",),
        schedules={"s": ("0 8 * * * (UTC)", "0 9 * * * (UTC)"), "t": (None, "0 9 * * * (UTC)")},
    )
    assert str(changes) == "1 notebook added, 2 removed, 1 changed; 1 schedule added, 1 changed"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_nobody_answers() -> None:
    """Where no webserver listens, that is one line with its address."""
    url = free_address()
    with pytest.raises(NotServedError) as raised:
        ask(url, "{ version }")
    assert url in raised.value.headline


def test_a_failed_reload_is_tried_again(project: Project) -> None:
    """A reload that fails is reported in one line, and tried again after the next change."""
    said: queue.Queue[str] = queue.Queue()
    with CodeWatch(project, free_address(), said.put):
        (project.notebooks / "one.py").write_text("# %%\nx = 3\n")
        assert said.get(timeout=60).startswith("Not reloaded, next try after the next change: ")
        # A comment alone changes nothing, but what was to be reloaded still is.
        (project.notebooks / "two.py").write_text("# %%\ny = 2  # the same\n")
        assert "Not reloaded" in said.get(timeout=60)


def test_another_folder_in_its_place_is_watched(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of notebooks that is swapped is followed; a page that fails ends nothing."""

    def fail(*_: object) -> None:
        raise RuntimeError("database is locked")

    monkeypatch.setattr(reloading, "reload_definitions", lambda _url: None)
    monkeypatch.setattr(reloading, "look_and_write", fail)
    said: queue.Queue[str] = queue.Queue()

    def wait_for_a_reload() -> None:
        while not said.get(timeout=60).startswith("Reloaded: "):
            pass
        assert said.get(timeout=60).endswith("is not written: database is locked")

    with CodeWatch(project, "", said.put):
        (project.notebooks / "one.py").write_text("# %%\nx = 3\n")
        wait_for_a_reload()
        shutil.copytree(project.notebooks, project.root / "next")
        (project.root / "next" / "one.py").write_text("# %%\nx = 4\n")
        project.notebooks.rename(project.root / "previous")
        (project.root / "next").rename(project.notebooks)
        wait_for_a_reload()
        (project.notebooks / "one.py").write_text("# %%\nx = 5\n")
        wait_for_a_reload()
