"""The rules of the house: who may import whom, and what the files may say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_rooms_import_only_what_lies_below_them() -> None:
    """import-linter finds no import against the layers, and Dagster in one room only."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_test_says_what_it_proves() -> None:
    """Each test function begins with a sentence."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def _tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name.decode() for name in done.stdout.split(b"\0") if name]


def test_no_file_names_a_download_address_or_a_home_folder() -> None:
    """Versions are pinned by name, and no path of one machine is written down."""
    # Built from parts, so that this file does not contain what it looks for.
    forbidden = re.compile("|".join(["/" + "root/", "python" + "hosted", "py" + "pi[.]org"]))
    found = []
    for path in _tracked():
        if path.suffix in {".png", ".ico"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if forbidden.search(line)
        ]
    assert found == []


def test_the_fresh_process_rooms_start_with_the_standard_library_alone() -> None:
    """What a foreign interpreter imports works where nothing at all is installed."""
    rooms = [
        "errors",
        "outcome",
        "project",
        "protocol",
        "run_context",
        "notebook.cells",
        "notebook.interface",
    ]
    program = "import " + ", ".join(f"research_jobs.{room}" for room in rooms)
    subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"],
        check=True,
        cwd="/",
    )


def test_every_benchmark_can_be_imported() -> None:
    """No benchmark names what the product has moved or renamed."""
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    assert names
    program = "import " + ", ".join(f"benchmarks.{name}" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
