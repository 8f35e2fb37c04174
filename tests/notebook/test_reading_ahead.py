"""The process that reads a part of the files of a large project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from research_jobs.notebook import reading_ahead
from research_jobs.notebook import scan as scan_module
from research_jobs.notebook.scan import scan
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]

NOTEBOOK = '''\
"""Study {0}."""
# %% tags=["parameters"]
lookback: int = {0}  # days
# %%
import helper
from research_jobs import load
prices = load("study_{1:02}", "prices")
'''
# In the order of their names: the last two fifths are the other process's.
FILES = {
    **{
        f"notebooks/study_{number:02}.py": NOTEBOOK.format(number, (number + 1) % 20)
        for number in range(20)
    },
    "notebooks/helper.py": "x = 1\n",
    "notebooks/study_15.py": "\ufeff# %%\nx = (\n",
    "notebooks/study_16.py": "y = (\n",
    "notebooks/study_17.py": "z = 1\n",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reading ahead from ten files on; what was read in this process, by name."""
    here: list[str] = []
    read_file = scan_module.read_file

    def noted(path: Path, *words: Any) -> Any:
        here.append(path.stem)
        return read_file(path, *words)

    monkeypatch.setattr(scan_module, "read_file", noted)
    monkeypatch.setattr(reading_ahead, "FEWEST", 10)
    monkeypatch.setattr(reading_ahead, "usable_cores", lambda: 2)
    return here


def told(project: Project) -> tuple[Any, ...]:
    """All that a scan says."""
    found = scan(project)
    broken = [str(notebook.error) for notebook in found.notebooks if notebook.error]
    assert broken
    return (
        [(notebook.name, notebook.code_version, notebook.parameters, notebook.loads)
         for notebook in found.notebooks],
        broken,
        found.helpers,
        [str(problem) for problem in found.problems],
    )  # fmt: skip


def test_two_processes_find_what_one_finds(
    make_project: MakeProject, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts, errors and helpers are the same, and the next scan parses only what did not parse."""
    project = make_project(FILES)
    shared = told(project)
    # This process reads its part, and what the other could not read.
    assert set(asked) == {"helper", *(f"study_{n:02}" for n in range(12)), "study_15", "study_16"}
    asked.clear()
    assert told(project) == shared
    assert set(asked) == {"study_15", "study_16"}
    monkeypatch.setattr(reading_ahead, "FEWEST", 1_000)
    project.state.joinpath("cache", "scan.json").unlink()
    assert told(project) == shared
    assert len(asked) > 20


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import os; os.abort()"])
def test_a_process_that_fails_costs_nothing_but_time(
    make_project: MakeProject, asked: list[str], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """What it does not answer for is read here."""
    project = make_project(FILES)
    monkeypatch.setattr(reading_ahead, "_PROGRAM", program)
    failed = told(project)
    assert len(set(asked)) == 21
    monkeypatch.setattr(reading_ahead, "FEWEST", 1_000)
    assert told(project) == failed


def test_it_imports_nothing_of_the_project(
    make_project: MakeProject, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beside the notebooks that is called as a module of Python's is not imported."""
    project = make_project({**FILES, "json.py": "open('imported', 'w')\n"})
    monkeypatch.chdir(project.root)
    told(project)
    assert "study_19" not in asked
    assert not (project.root / "imported").exists()


def test_it_is_light() -> None:
    """The process imports neither pandas nor pyarrow nor dagster."""
    program = "import sys, research_jobs.notebook.reading_ahead; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"pandas", "numpy", "pyarrow", "dagster", "yaml"} & set(done.stdout.split())


def test_no_process_for_few_files(make_project: MakeProject) -> None:
    """A small project is read by one process."""
    project = make_project(FILES)
    ahead = reading_ahead.ReadAhead(project, [str(path) for path in project.notebooks.iterdir()])
    assert ahead._process is None
    assert ahead.get(str(project.notebooks / "study_19.py")) is None


def test_a_scan_that_ends_early_leaves_no_process(
    make_project: MakeProject, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process ends with the scan, whatever ended that."""
    project = make_project(FILES)
    monkeypatch.setattr(reading_ahead, "_PROGRAM", "import time; time.sleep(600)")
    started: list[Any] = []
    popen = subprocess.Popen

    def noted(*words: Any, **options: Any) -> Any:
        started.append(popen(*words, **options))
        return started[-1]

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(scan_module, "read_file", fail)
    with pytest.raises(KeyboardInterrupt):
        scan(project)
    assert started[0].returncode is not None
