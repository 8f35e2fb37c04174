"""What the commands' tests share: a small project, and the command as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from said import Said

from research_jobs.cli.main import main

COMMAND = str(Path(sys.executable).with_name("research-jobs"))

NOTEBOOKS = {
    "numbers_table.py": """
        # %% [markdown]
        # # Numbers
        #
        # Ten numbers and their squares.

        # %% tags=["parameters"]
        count: int = 10  # how many

        # %%
        import pandas as pd

        table = pd.DataFrame({"n": range(count), "square": [n * n for n in range(count)]})
        total = {"sum": int(table["square"].sum())}
        """,
    "reports/total.py": """
        # %%
        from research_jobs import load

        total = load("numbers_table", "total")
        double = 2 * total["sum"]
        """,
    "daily.py": """
        # %% tags=["parameters"]
        from datetime import date

        day: date = date(2024, 1, 1)

        # %%
        import research_jobs

        if day.isoformat() == "2024-01-06":
            research_jobs.skip("market closed")
        if day.isoformat() == "2024-01-04":
            raise ValueError(f"no prices on {day}")
        value = day.day
        """,
    "broken.py": """
        # %% Load prices
        prices = {}

        # %% Take one
        prices["Close"]
        """,
    "helper.py": "CONSTANT = 1\n",
}

MANIFEST = """
notebooks:
  numbers_table: {outputs: [table, total], group: numbers}
  reports/total: {outputs: [double]}
  daily:
    outputs: [value]
    partitions: {by: day, start: 2024-01-01, end: 2024-01-08, parameter: day}
schedules:
  mornings:
    cron: "0 6 * * 1-5"
    timezone: Europe/Zagreb
    notebooks: [numbers_table, reports/total]
"""


def write_notebooks(root: Path, notebooks: Mapping[str, str]) -> None:
    """Write notebooks below a project's root."""
    for name, text in notebooks.items():
        path = root / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's root with notebooks that succeed, fail, skip and depend on each other."""
    write_notebooks(tmp_path, NOTEBOOKS)
    (tmp_path / "notebooks" / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    return tmp_path


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """``call("list", "--json", cwd=...)``: the command in a process of its own, piped."""

    def run(*words: str, cwd: Path | None = None, **environment: str) -> object:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_"))
        }
        return subprocess.run(
            [COMMAND, *words],
            cwd=cwd or tmp_path,
            env=inherited | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )

    return run  # type: ignore[return-value]


@pytest.fixture
def say(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """``say("run", "numbers_table")``: the command in this process, over the project."""
    for name in ("DAGSTER_HOME", "RESEARCH_JOBS_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(project))
    monkeypatch.chdir(project)

    def call(*words: str) -> Said:
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return call
