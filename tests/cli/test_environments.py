"""Notebooks with packages of their own, beside those without, as a person runs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from wheels import offline, write_pyarrow, write_wheel

import research_jobs
from research_jobs import run_notebook
from research_jobs.provenance.record import read_record
from research_jobs.provenance.shelf import kept

LOOK = """
# %% Look
import importlib.util
import tinylib

found = [tinylib.__version__, importlib.util.find_spec("pandas") is not None]
"""
BLOCK = '# /// script\n# dependencies = ["tinylib=={}"]\n# ///'
PLAIN = """
# %%
import importlib.util
from research_jobs import load

import pandas as pd

found = [importlib.util.find_spec("tinylib"), pd.DataFrame({"old": [load("old", "found")[0]]})]
frame = found[1]
"""
MANIFEST = """
notebooks:
  old: {outputs: [found]}
  new: {outputs: [found], dependencies: [tinylib>=2]}
  plain: {outputs: [frame]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A block asks for an old version, the manifest for a new one, and one for none."""
    wheels = tmp_path / "wheels"
    for version in ("1.0", "2.0"):
        write_wheel(wheels, "tinylib", version)
    write_pyarrow(wheels, tmp_path / "pyarrow")
    for name, value in offline(wheels, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "old.py").write_text(BLOCK.format("1.0") + LOOK)
    (notebooks / "new.py").write_text(LOOK)
    (notebooks / "plain.py").write_text(PLAIN)
    (notebooks / "manifest.yaml").write_text(MANIFEST)
    return tmp_path


def installed(project: Path, notebook: str) -> bytes:
    """The packages that the record of a notebook's last run names."""
    (path,) = (project / "reports" / notebook / "_runs").glob("*/provenance.json")
    record = read_record(path)
    assert record is not None
    return kept(project / "reports", record.environment) or b""


def test_two_versions_in_one_run(say: Any, project: Path) -> None:
    """Each notebook has its own packages, in one run; locks, records and checks know them."""
    said = say("check", "--json")
    assert {(one["notebook"], one["code"]) for one in said.json} == {
        ("old", "no-lock"),
        ("new", "no-lock"),
    }, "nothing is missing where nobody has looked yet"
    said = say("lock")
    assert said.code == 0, said.err
    assert (project / "notebooks" / "locks" / "old.txt").read_text() == (
        "# Written by `research-jobs lock old`.\n# for: tinylib==1.0\n"
        f"# Python {sys.version_info[0]}.{sys.version_info[1]}\npyarrow==99.0\ntinylib==1.0\n"
    )
    (project / "notebooks" / "wrong.py").write_text(BLOCK.format("7.0") + LOOK)

    said = say("run", "--all", "--json")
    outcomes = {one["notebook"]: one for one in said.json}
    assert [name for name, one in outcomes.items() if one["ending"] != "succeeded"] == ["wrong"]
    why = outcomes["wrong"]["error"]
    assert why.startswith("notebooks/wrong.py: the dependencies of wrong cannot be resolved: No ")
    assert "tinylib==7.0" in why
    assert research_jobs.load("old", "found", project=project) == ["1.0", False]
    assert research_jobs.load("new", "found", project=project) == ["2.0", False]
    assert research_jobs.load("plain", "frame", project=project)["old"].tolist() == ["1.0"]
    assert installed(project, "old") == b"pyarrow==99.0\ntinylib==1.0\n"
    assert b"pandas==" in installed(project, "plain")
    assert run_notebook("old", ["found"], project=project) == [["1.0", False]]

    # What is locked differently is other code, and `try` says which versions.
    (project / "notebooks" / "wrong.py").unlink()
    (project / "notebooks" / "old.py").write_text(BLOCK.format("1.0").replace("==", ">=") + LOOK)
    said = say("check", "--json")
    assert [(one["notebook"], one["code"]) for one in said.json] == [("old", "dependency")]
    assert "tinylib 1.0 → 2.0" in say("lock", "old").out
    said = say("try", "old")
    assert "notebooks/locks/old.txt" in said.out
    assert "tinylib: 1.0 → 2.0" in said.out, said.out
