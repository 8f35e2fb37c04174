"""What the documentation shows is true: blocks, commands, messages and links.

The blocks of `PAGES` run. Those of other pages are read as what they are: Python, a manifest,
commands. A block that cannot run here has a comment ``<!-- not run: why -->`` on the line above it.
Those of docs/check/ are in tests/cli/test_codes.py.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
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
from site_pages import commands as command_pages
from site_pages import links, manifest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/notebooks.md",
    "docs/manifest.md",
    "docs/partitions.md",
    "docs/outputs.md",
)
OTHERS = [
    place
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if (place := path.relative_to(ROOT).as_posix()) not in PAGES
    and not place.startswith(("docs/check/", "docs/decisions/"))
]
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: .+ -->\n)?(?P<indent> *)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]*))?\)")
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


def blocks(*languages: str, pages: Sequence[str] = PAGES) -> list[Block]:
    """The blocks of some pages, in order."""
    return [block for page in pages for block in _blocks(page) if block.language in languages]


def _blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if not found["mark"]:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(
                page,
                found["language"],
                re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
                line,
            )


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


def test_every_block_is_what_it_says(tmp_path: Path) -> None:
    """Where blocks do not run: Python compiles and its imports exist, YAML is a manifest."""
    (tmp_path / "notebooks").mkdir()
    for block in blocks("python", "json", "yaml", pages=OTHERS):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            entry = re.match(r"  \w", block.text)  # of one notebook
            whole = f"notebooks:\n{block.text}" if entry else block.text
            loads_without_mistakes(whole, tmp_path)
        else:
            for node in ast.walk(compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST)):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert find_spec(name.partition(".")[0]) is not None, f"{block}: {name}"
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("research_"):
                    module = import_module(node.module or "")
                    assert all(hasattr(module, one.name) for one in node.names), str(block)


def loads_without_mistakes(text: str, root: Path) -> None:
    """Load a manifest, which may name notebooks that it does not show."""
    (root / "notebooks" / "manifest.yaml").write_text(text, encoding="utf-8")
    names = yaml.safe_load(text).get("notebooks") or {}
    loaded = load_manifest(Project(root=root, store=str(root / "data")), names)
    wrong = [one for one in loaded.problems if "there is no notebook" not in one.error.what]
    assert wrong == [], text


def test_the_example_of_a_manifest(tmp_path: Path) -> None:
    """It has no mistake, and the site's reference shows an example of every key but mappings."""
    text = (ROOT / manifest.EXAMPLE).read_text(encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    loads_without_mistakes(text, tmp_path)
    shown = manifest.page(ROOT)
    for heading in ("Notebook", "Output", "Schedule", "Channel"):
        assert f"## {heading}" in shown
    assert "| `timeout` | number or string |  | The run is stopped after this long. |" in shown


def test_links_of_the_site() -> None:
    """What is outside docs/ is in the repository, and a folder is its index; code stays."""
    shown = "[a](../README.md) [b](../deploy/README.md#x) [c](decisions/) [d](outputs.md#y)\n"
    shown += "```python\nf[0](../README.md)\n```\n"
    assert links.for_site(shown, "docs/faults.md", ROOT, "https://x/y") == (
        "[a](overview.md) [b](https://x/y/blob/main/deploy/README.md#x) [c](decisions/index.md) "
        "[d](outputs.md#y)\n```python\nf[0](../README.md)\n```\n"
    )
    assert links.for_site("[a](docs/images/ui.png) [b](LICENSE)", "README.md", ROOT, "x") == (
        "[a](images/ui.png) [b](x/blob/main/LICENSE)"
    )


def test_the_reference_of_commands_has_all() -> None:
    """The site's page has the help of each command."""
    shown = command_pages.page(ROOT)
    assert all(f"usage: research-jobs {name}" in shown for name in commands.COMMANDS)


def test_messages_to_look_up_exist() -> None:
    """Each message of docs/troubleshooting.md is one of ours, word for word."""
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "research_jobs").rglob("*.py")
    )
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a literal that goes on in the next line
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.*?)`", page, re.MULTILINE)
    assert len(messages) > 40
    for message in messages:
        for part in message.split("…"):
            assert part.strip(" '.:();,") in source, message


def test_links_lead_somewhere() -> None:
    """Each link between files of the repository names a file, and a heading where it names one."""
    headings: dict[Path, set[str]] = {}
    for page in (*PAGES, *OTHERS, "deploy/README.md", "benchmarks/README.md"):
        path = ROOT / page
        text = BLOCK.sub("", path.read_text(encoding="utf-8"))
        for place, heading in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
            target = (path.parent / place).resolve() if place else path
            assert target.exists(), f"{page}: {place}"
            if heading and target.suffix == ".md":
                if target not in headings:
                    headings[target] = set(_headings(target))
                assert heading in headings[target], f"{page}: {place}#{heading}"


def _headings(path: Path) -> Iterator[str]:
    for title in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


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
    """Each line that calls research-jobs, and each call in prose, has options that exist."""
    seen: set[str] = set()
    for page in [*PAGES, *OTHERS, "deploy/README.md"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if found["language"] == "sh":
                for line in re.findall(r"^ *research-jobs (.*)$", found["text"], re.MULTILINE):
                    seen.add(parses(line, page))
        for line in re.findall(r"`research-jobs (\w[^`]*)`", BLOCK.sub("", text)):
            name, _, rest = line.replace("\n", " ").partition(" ")
            parser = parser_of(name)
            known = {option for action in parser._actions for option in action.option_strings}
            used = re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest)
            assert set(used) <= known, f"{page}: research-jobs {line}"
    assert len(seen) > 12


def parses(line: str, page: str) -> str:
    """Read a command line as `main` does; the command's name."""
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", line), comments=True)
    if words[0].startswith("-"):
        return ""
    name = re.split(r"[|>&;]", words[0])[0]
    words = words[: next((n for n, w in enumerate(words) if w in "|&&>;"), len(words))]
    try:
        parser_of(name).parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"{page}: research-jobs {line}")
    return name


def parser_of(name: str) -> Any:
    """The parser of a command, or a failure that names it."""
    assert name in commands.COMMANDS, name
    module: Any = import_module(
        f"research_jobs.cli.{name}_" if iskeyword(name) else f"research_jobs.cli.{name}"
    )
    return commands._parser(name, module)
