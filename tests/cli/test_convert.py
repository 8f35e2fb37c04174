"""``research-jobs convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.main import main
from research_jobs.notebook.scan import scan
from research_jobs.project import find_project


def cell(kind: str, source: str, **metadata: Any) -> dict[str, Any]:
    """A cell as nbformat has it."""
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": metadata}


def test_the_command_writes_into_the_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script lands in notebooks/ under a name that can be imported, and not twice."""
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "My Analysis (2).ipynb"
    source.write_text(json.dumps({"cells": [cell("code", "x = 1")]}), encoding="utf-8")
    words = ["convert", str(source), "--project", str(tmp_path)]
    assert main(words) == 0
    target = tmp_path / "notebooks" / "My_Analysis_2.py"
    assert target.read_text(encoding="utf-8") == "# %%\nx = 1\n"
    assert main(words) == 2
    assert main([*words, "--force"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"worksheets": 3}',
        '{"cells": 3}',
        '{"cells": ["x"]}',
        '{"cells": [{"cell_type": "code", "source": null}]}',
        '{"cells": [{"cell_type": "code", "source": [1]}]}',
        '{"cells": [{"cell_type": "code", "source": "1", "metadata": null}]}',
        '{"cells": [{"cell_type": "graph", "source": "1"}]}',
        '{"cells": [{"source": "1"}]}',
        '{"cells": [], "metadata": []}',
        '{"cells": [{"cell_type": "markdown", "source": "x", "attachments": [1]}]}',
        '{"nbformat": "x", "worksheets": []}',
    ],
)
def test_what_is_no_notebook_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken and old files are one line and exit code 2."""
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "x.ipynb"
    source.write_text(text, encoding="utf-8")
    assert main(["convert", str(source), "--project", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def make_ipynb(path: Path, source: str = "x = 1") -> Path:
    """A Jupyter notebook of one cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [cell("code", source)]}), encoding="utf-8")
    return path


def scripts(root: Path) -> list[str]:
    """The scripts in a project's notebooks/."""
    return sorted(p.relative_to(root).as_posix() for p in root.joinpath("notebooks").rglob("*.py"))


@pytest.mark.parametrize("named", ["notebooks", "."])
def test_a_folder_is_converted_in_place(
    tmp_path: Path, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file lands beside its source, by a name that can be imported; copies are left alone."""
    notebooks = tmp_path / "notebooks"
    ligature = "\N{LATIN SMALL LIGATURE FI}t"
    for name in ("top", "sub/deep/inner", "2024/3 ways", "class", "_drafts/a-b", ligature):
        make_ipynb(notebooks / f"{name}.ipynb")
    make_ipynb(notebooks / ".ipynb_checkpoints" / "top-checkpoint.ipynb")
    make_ipynb(tmp_path / "reports" / "top" / "_runs" / "1" / "notebook.ipynb")
    assert main(["convert", str(tmp_path / named), "--project", str(tmp_path)]) == 0
    assert scripts(tmp_path) == [
        "notebooks/_drafts/a_b.py",
        "notebooks/fit.py",
        "notebooks/nb_2024/nb_3_ways.py",
        "notebooks/nb_class.py",
        "notebooks/sub/deep/inner.py",
        "notebooks/top.py",
    ]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["from", "written", "changed"]
    assert len(table) == 7
    found = scan(find_project(notebooks.parent))
    assert not found.problems
    assert len(found.notebooks) == 5  # what is in _drafts is private


def test_what_lies_elsewhere_keeps_its_subfolders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder's files keep their places below it, and a file alone goes to the top."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    make_ipynb(tmp_path / "old" / "top.ipynb")
    make_ipynb(tmp_path / "old" / "_texts" / "_a.ipynb")
    make_ipynb(tmp_path / "old" / "rates" / "curve.ipynb", "%matplotlib inline\n!ls")
    alone = make_ipynb(tmp_path / "other" / "alone.ipynb")
    words = ["convert", str(tmp_path / "old"), str(alone), "--project", str(tmp_path / "project")]
    assert main(words) == 0
    assert scripts(tmp_path / "project") == [
        "notebooks/alone.py",
        "notebooks/rates/curve.py",
        "notebooks/texts/a.py",
        "notebooks/top.py",
    ]
    table = capsys.readouterr().out
    assert "editor's settings left out (1), ! as subprocess.run (1)" in table


def test_one_bad_file_holds_up_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is broken, missing or there already is a line each and exit code 2."""
    notebooks = tmp_path / "notebooks"
    good = make_ipynb(notebooks / "a b.ipynb")
    same = make_ipynb(notebooks / "a-b.ipynb", "y = 2")
    there = make_ipynb(notebooks / "kept.ipynb")
    (notebooks / "kept.py").write_text("# mine\n", encoding="utf-8")
    broken = notebooks / "broken.ipynb"
    broken.write_text("{", encoding="utf-8")
    last = make_ipynb(notebooks / "last.ipynb")
    files = [good, same, there, broken, notebooks / "missing.ipynb", last]
    assert main(["convert", *map(str, files), "--project", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    bad = ("kept.py", "broken.ipynb", "missing.ipynb")
    assert len(lines) == len(bad)
    assert all(
        line.startswith("error: ") and name in line for line, name in zip(lines, bad, strict=True)
    )
    assert scripts(tmp_path) == [
        "notebooks/a_b.py",
        "notebooks/a_b_2.py",
        "notebooks/kept.py",
        "notebooks/last.py",
    ]
    assert (notebooks / "a_b.py").read_text(encoding="utf-8") == "# %%\nx = 1\n"
    assert (notebooks / "kept.py").read_text(encoding="utf-8") == "# mine\n"


def test_an_empty_folder_and_one_name_for_several_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to convert is an error, and so is ``--output`` with more than one file."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    assert main(["convert", str(notebooks), "--project", str(tmp_path)]) == 2
    assert "has no .ipynb file" in capsys.readouterr().err
    one, two = make_ipynb(tmp_path / "one.ipynb"), make_ipynb(tmp_path / "two.ipynb")
    target = tmp_path / "out.py"
    assert main(["convert", str(one), str(two), "-o", str(target)]) == 2
    assert main(["convert", str(tmp_path), "-o", str(target)]) == 2
    assert not target.exists()
    assert main(["convert", str(one), "-o", str(target)]) == 0
    assert target.exists()


def test_nothing_is_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of libraries, of imported modules and of folders beside them are not taken."""
    notebooks = tmp_path / "notebooks"
    names = ("pandas", "vol/json", "statistics/a", "torch", "vol", "vol/vol", "rates/a", "rates/b")
    for name in names:
        make_ipynb(notebooks / f"{name}.ipynb")
    make_ipynb(notebooks / "user.ipynb", "def f():\n    import torch")
    assert main(["convert", str(notebooks), "--project", str(tmp_path)]) == 0
    assert scripts(tmp_path) == [
        "notebooks/nb_pandas.py",
        "notebooks/nb_statistics/a.py",
        "notebooks/nb_torch.py",
        "notebooks/nb_vol.py",
        "notebooks/rates/a.py",
        "notebooks/rates/b.py",
        "notebooks/user.py",
        "notebooks/vol/nb_json.py",
        "notebooks/vol/nb_vol.py",
    ]
    assert not scan(find_project(tmp_path)).problems
    capsys.readouterr()


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is the same, and no file appears."""
    (tmp_path / "notebooks").mkdir()
    source = make_ipynb(tmp_path / "a.ipynb", "%time x = 1")
    words = ["convert", str(source), "--project", str(tmp_path), "--dry-run"]
    assert main(words) == 0
    assert "%time taken off (1)" in capsys.readouterr().out
    assert scripts(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("%%sql\nselect 1", "pandas.read_sql"),
        ("import not_installed_xyz", "pip install not-installed-xyz"),
        ("import sklearn_none, not_there_xyz.inner", "pip install not-there-xyz sklearn-none"),
        ("import pandas as pd\npd.read_csv('data/none.csv')", "data/none.csv"),
        ("import pandas as pd\npd.read_csv(filepath_or_buffer='none.csv')", "none.csv"),
        ("from pathlib import Path\nx = Path('data', 'none.txt').read_text()", "data/none.txt"),
        ("with open('none.txt') as f:\n    pass", "none.txt"),
    ],
)
def test_what_a_person_must_see_is_exit_code_1(
    tmp_path: Path, source: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells that raise, modules that are not installed and files that are not there."""
    (tmp_path / "notebooks").mkdir()
    make_ipynb(tmp_path / "a.ipynb", source)
    assert main(["convert", str(tmp_path / "a.ipynb"), "--project", str(tmp_path)]) == 1
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    import not_there_xyz\nexcept ImportError:\n    pass",
        "import pandas as pd\npd.DataFrame().to_csv('a.csv')\npd.read_csv('a.csv')",
        "import pandas as pd\npd.read_csv('https://example.org/a.csv')",
        "open('made.txt', 'w').write('')\nopen('made.txt')",
        "%%writefile made_xyz.py\nx = 1\n",
        "%%bash\necho 1 > made.txt",
    ],
)
def test_what_will_work_is_exit_code_0(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guarded imports, addresses, and files that the notebook makes itself."""
    (tmp_path / "notebooks").mkdir()
    make_ipynb(tmp_path / "a.ipynb", source)
    assert main(["convert", str(tmp_path / "a.ipynb"), "--project", str(tmp_path)]) == 0
    capsys.readouterr()


def test_pictures_are_written_beside_the_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture pasted into prose is a file that the prose links to."""
    (tmp_path / "notebooks").mkdir()
    prose = cell("markdown", "![a](attachment:a%20b.png)")
    prose["attachments"] = {"a b.png": {"image/png": "aGVsbG8="}}
    source = tmp_path / "a.ipynb"
    source.write_text(json.dumps({"cells": [prose]}), encoding="utf-8")
    assert main(["convert", str(source), "--project", str(tmp_path)]) == 0
    script = (tmp_path / "notebooks" / "a.py").read_text(encoding="utf-8")
    assert "(a_files/cell1_a_b.png)" in script
    assert (tmp_path / "notebooks" / "a_files" / "cell1_a_b.png").read_bytes() == b"hello"
    capsys.readouterr()
