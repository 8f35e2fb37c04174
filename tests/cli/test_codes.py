"""The codes of ``check``: each has a page, and each page's example has its finding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from research_jobs.cli.codes import Code, codes, index, page
from research_jobs.cli.main import main
from research_jobs.notebook.parity_rules import CALLS

PAGES = Path(__file__).parents[2] / "docs" / "check"
ALONE = {
    code.name: code
    for code in codes().values()
    if set(code.example) == set(code.mended) == {"a.py"} and not code.beside
}
"""Those about one notebook, whatever else is there: they share a project."""


def found(
    root: Path, files: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> set[tuple[str, str]]:
    """Write files below ``notebooks/``, check, and return the codes with the file's stem."""
    (root / "notebooks").mkdir(parents=True)
    for name, text in files.items():
        path = root / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    main(["check", "--json", "--project", str(root)])
    return {
        (one["code"], Path(one["path"] or "").stem) for one in json.loads(capsys.readouterr().out)
    }


def test_the_pages_are_up_to_date() -> None:
    """What is in docs/check/ is what the generator writes, and nothing else."""
    wanted = {f"{code.name}.md": page(code) for code in codes().values()} | {"README.md": index()}
    assert {path.name: path.read_text("utf-8") for path in PAGES.iterdir()} == wanted


def test_examples_of_one_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each example has its finding and no other, each mended one has none."""
    before = {f"{name.replace('-', '_')}.py": code.example["a.py"] for name, code in ALONE.items()}
    after = {f"{name.replace('-', '_')}.py": code.mended["a.py"] for name, code in ALONE.items()}
    assert len(ALONE) > 20
    assert found(tmp_path / "before", before, capsys) == {
        (name, name.replace("-", "_")) for name in ALONE
    }
    assert found(tmp_path / "after", after, capsys) == set()


@pytest.mark.parametrize(
    "code", [one for one in codes().values() if one.name not in ALONE], ids=lambda one: one.name
)
def test_examples_of_projects(
    code: Code, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each example has its finding and no other, each mended one has none."""
    assert {
        name for name, _ in found(tmp_path / "before", {**code.beside, **code.example}, capsys)
    } == {code.name}
    assert found(tmp_path / "after", {**code.beside, **code.mended}, capsys) == set()


def test_a_page_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """`--explain` prints a page; for a code that does not exist it suggests one."""
    assert main(["check", "--explain", "input-call"]) == 0
    assert capsys.readouterr().out == page(codes()["input-call"])
    assert main(["check", "--explain", "inputcall"]) == 2
    assert "Did you mean 'input-call'" in capsys.readouterr().err
    assert {code for code, _ in CALLS.values()} <= set(codes())
