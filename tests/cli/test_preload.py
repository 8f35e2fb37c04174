"""``research-jobs list --preload``: the choice as warm interpreters make it, not as it is meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = {
    "quick_library": "VALUE = 1",
    "noisy_library": "print('hello from an import')",
    "broken_library": "raise RuntimeError('no licence')",
    "grpc": "VALUE = 1",
}
NOTEBOOK = "# %% Import\nimport {}\n"
MANIFEST = """
notebooks:
  cold: {isolation: spawn}
  tuned: {environment: {OMP_NUM_THREADS: "1"}}
  foreign: {python: other/bin/python}
  lost: {python: no/such/python}
"""


@pytest.fixture
def shown(tmp_path: Path, call: Any) -> Any:
    """Notebooks over good and bad libraries, some cold, some under other interpreters."""
    libraries, notebooks = tmp_path / "libraries", tmp_path / "project" / "notebooks"
    libraries.mkdir()
    notebooks.mkdir(parents=True)
    for name, text in LIBRARIES.items():
        (libraries / f"{name}.py").write_text(text)
    imports = ", ".join([*LIBRARIES, "own_helper"])
    (notebooks / "own_helper.py").write_text("VALUE = 1\n")
    (notebooks / "warm.py").write_text(NOTEBOOK.format(imports))
    for name in ("cold", "tuned", "foreign", "lost"):
        (notebooks / f"{name}.py").write_text(NOTEBOOK.format("quick_library"))
    (notebooks / "manifest.yaml").write_text(MANIFEST)
    other = tmp_path / "project" / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    path = str(libraries)
    return lambda *words: call(
        *("list", "--preload", "--project", str(notebooks.parent), *words), PYTHONPATH=path
    )


def test_each_interpreter_tells_what_it_imports(shown: Any, tmp_path: Path) -> None:
    """Per interpreter: what it imported, what it left out and why; what is started cold and why."""
    done = shown("--json")
    found = json.loads(done.stdout)
    warm = {entry["python"]: entry for entry in found["warm"]}
    ours = warm[sys.executable]
    assert ours["notebooks"] == ["warm"]
    assert "quick_library" in ours["loaded"]
    assert ours["left_out"] == {
        "noisy_library": "its import writes to stdout",
        "broken_library": "its import fails: RuntimeError: no licence",
        "grpc": "it is known not to survive a fork",
    }
    foreign = warm[str(tmp_path / "project" / "other" / "bin" / "python")]
    assert foreign["notebooks"] == ["foreign"]
    assert "quick_library" in foreign["loaded"]
    assert not {"own_helper", *ours["left_out"]} & {*ours["loaded"], *foreign["loaded"]}
    lost = warm[str(tmp_path / "project" / "no" / "such" / "python")]
    assert "cannot be started" in lost["error"]
    assert done.returncode == 1
    assert found["cold"] == {
        "cold": "isolation: spawn",
        "tuned": "it sets OMP_NUM_THREADS, which is read when interpreter or libraries start",
    }


def test_a_person_reads_it_as_tables(shown: Any) -> None:
    """Without ``--json``: a heading for each interpreter, then modules with times or reasons."""
    lines = [line.split(maxsplit=3) for line in shown().stdout.splitlines() if line]
    assert ["grpc", "left", "out", "it is known not to survive a fork"] in lines
    assert any(line[0] == "quick_library" for line in lines)
    assert ["cold", "isolation:", "spawn"] in lines
