"""The code blocks of the README and the pages of notebooks, manifest, partitions and outputs.

A block that cannot run here has a comment ``<!-- not run: why -->`` on the line above it.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any

import pytest
import yaml

from research_jobs.cli import main as commands
from research_jobs.cli.main import main
from research_jobs.manifest.load import load_manifest
from research_jobs.notebook.cells import has_marker
from research_jobs.project import PROJECT_VARIABLE, Project

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/notebooks.md",
    "docs/manifest.md",
    "docs/partitions.md",
    "docs/outputs.md",
)
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: .+ -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
DAYS = ("2018-11-01", "2018-11-05")
"""The partitions that a page reads."""
MORE = {"research-jobs init": " --yes", "--missing": " --dry-run"}
"""What a line gets here: nobody can be asked, and a year of days takes a minute."""


@dataclass(frozen=True)
class Block:
    """A code block."""

    page: str
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The blocks that run, in order."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if not found["mark"]:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page, found["language"], found["text"], line)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The samples, run twice where a page reads the version before the last."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    manifest = root / "notebooks" / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("prices: {", "prices: {keep: 2, "), encoding="utf-8")
    for words in (
        ["run", "market_data"],
        ["run", "market_data", "performance_report"],
        ["backfill", "momentum_signals", "--from", DAYS[0], "--to", DAYS[1]],
    ):
        assert main([*words, "--project", str(root)]) == 0
    return Project(root=root, store=str(root / "data"))


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python(block: Block, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the project of the samples; one that is a notebook runs as such."""
    monkeypatch.setenv(PROJECT_VARIABLE, str(project.root))
    monkeypatch.chdir(project.root)
    if has_marker(block.text):
        (project.notebooks / "page.py").write_text(block.text, encoding="utf-8")
        assert main(["check", "notebooks/page.py"]) == 0
        assert main(["run", "page"]) == 0
        return
    setup = "import duckdb, pandas as pd, polars as pl\n"
    names: dict[str, Any] = {}
    exec(compile(setup + block.text, str(block), "exec"), names)
    for target in ast.walk(ast.parse(block.text)):
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
            assert names[target.id] is not None


def manifests(block: Block) -> Iterator[str]:
    """The manifests that a block shows: it, or each of its alternatives for one notebook."""
    if not block.text.startswith(" "):
        yield block.text
        return
    for part in re.split(r"^(?= {4}\w)", block.text, flags=re.MULTILINE):
        if part:
            yield f"notebooks:\n  universe: {{outputs: [members]}}\n  some_notebook:\n{part}"


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml(block: Block, tmp_path: Path) -> None:
    """It is a manifest without mistakes, or keys of one notebook."""
    (tmp_path / "notebooks").mkdir()
    shown = list(manifests(block))
    assert shown
    for text in shown:
        (tmp_path / "notebooks" / "manifest.yaml").write_text(text, encoding="utf-8")
        names = yaml.safe_load(text)["notebooks"]
        loaded = load_manifest(Project(root=tmp_path, store=str(tmp_path / "data")), names)
        assert loaded.problems == ()


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_sh(block: Block, project: Project, tmp_path: Path) -> None:
    """Each line works, in the project of the samples or in the folder to which it changes."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_"))
    }
    environment |= {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
    }
    (tmp_path / "research").mkdir()
    lines = [_here(line) for line in block.text.splitlines()]
    done = subprocess.run(
        ["sh", "-exc", "\n".join(lines)],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _here(line: str) -> str:
    command = line.partition("#")[0].rstrip()
    if command == "research-jobs ui":  # until somebody stops it; tests/e2e does that
        return "research-jobs ui --help"
    return command + "".join(more for words, more in MORE.items() if command.endswith(words))


def test_every_command_of_every_page_parses() -> None:
    """Each line that calls research-jobs, on whatever page, has options that exist."""
    seen: set[str] = set()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for found in BLOCK.finditer(path.read_text(encoding="utf-8")):
            if found["language"] != "sh":
                continue
            for line in re.findall(r"^research-jobs (.*)$", found["text"], re.MULTILINE):
                words = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", line), comments=True)
                if words[0].startswith("-"):
                    continue
                name = re.split(r"[|>&;]", words[0])[0]
                words = words[: next((n for n, w in enumerate(words) if w in "|&&>;"), len(words))]
                place = f"{name}_" if iskeyword(name) else name
                module: Any = import_module(f"research_jobs.cli.{place}")
                try:
                    commands._parser(name, module).parse_args(words[1:])
                except SystemExit:
                    pytest.fail(f"{path.name}: research-jobs {line}")
                seen.add(name)
    assert len(seen) > 12
