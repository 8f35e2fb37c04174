"""``research-jobs list --preload``: the choice as templates make it, not as it is meant."""

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
def command(tmp_path: Path, call: Any) -> Any:
    """A command over notebooks that import good and bad libraries, some of them cold."""
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
    return lambda *words: call(*words, "--project", str(notebooks.parent), PYTHONPATH=path)


def test_each_interpreter_tells_what_it_imports(command: Any, tmp_path: Path) -> None:
    """Per interpreter: what it imported, what it left out and why; what is started cold and why."""
    done = command("list", "--preload", "--json")
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
        "tuned": "it sets OMP_NUM_THREADS, which is read when the interpreter or a library starts",
    }


def test_a_person_reads_it_as_tables(command: Any) -> None:
    """Without ``--json``: a heading for each interpreter, then modules with times or reasons."""
    lines = [
        line.split(maxsplit=3) for line in command("list", "--preload").stdout.splitlines() if line
    ]
    assert ["grpc", "left", "out", "it is known not to survive a fork"] in lines
    assert any(line[0] == "quick_library" for line in lines)
    assert ["cold", "isolation:", "spawn"] in lines


def test_a_run_says_it_in_the_log(command: Any, tmp_path: Path) -> None:
    """What is left out costs a line in the log of the step that started the template."""
    imports = tmp_path / "project" / "notebooks" / "warm.py"
    imports.write_text(NOTEBOOK.format("noisy_library"))
    done = command("run", "warm")
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "project" / ".research_jobs").rglob("compute_logs/*.err")
    assert "noisy_library is not preloaded: its import writes to stdout\n" in log.read_text()
    assert log.with_suffix(".out").read_text() == "hello from an import\n"


def test_a_program_that_has_imported_polars(call: Any, tmp_path: Path) -> None:
    """What polars adds to the environment at each import makes no module unfit."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.py").write_text(NOTEBOOK.format("polars"))
    done = call("list", "--preload", "--json", _RJEM_MALLOC_CONF="dirty_decay_ms:500")
    (warm,) = json.loads(done.stdout)["warm"]
    assert "polars" in warm["loaded"]
    assert warm["left_out"] == {}
