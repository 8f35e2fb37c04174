"""``research-jobs check``: what the text, the environment and the disk foretell."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from research_jobs.cli.main import main

ROOT = Path(__file__).parents[2]
Check = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project."""
    (tmp_path / "notebooks").mkdir()
    return tmp_path


@pytest.fixture
def check(project: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run `check --json` on files, and return its findings."""

    def run(files: dict[str, str], *words: str) -> list[dict[str, Any]]:
        for name, text in files.items():
            path = project / "notebooks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        capsys.readouterr()
        main(["check", "--json", "--project", str(project), *words])
        return json.loads(capsys.readouterr().out)

    return run


TAGGED = '# %% tags=["parameters"]\n'


@pytest.mark.parametrize(
    ("code", "text", "line", "column"),
    [
        ("missing-module", "# %%\nimport not_installed_xyz\n", 2, 1),
        ("missing-module", "# %%\nx = 1\n# %%\nfrom not_installed_xyz.a import b\n", 4, 1),
        ("missing-module", "# %%\nwith open(__file__):\n    import not_there_xyz\n", 3, 5),
        ("missing-name", "# %%\nfrom sklearn.cross_validation import KFold\n", 2, 1),
        ("missing-name", "# %%\nimport pandas.io.data_gone\n", 2, 1),
        ("missing-name", "# %%\nfrom json import no_such_name\n", 2, 1),
        ("missing-name", "# %%\nfrom helper import no_such_name\n", 2, 1),
        ("missing-name", "# %%\nimport json\njson.no_such_name(1)\n", 3, 1),
        ("missing-name", "# %%\nimport email.mime.text\nemail.mime.text.none.x\n", 3, 1),
        ("missing-name", "# %%\nfrom email.mime import text as m\nf = m.none\n", 3, 5),
        ("missing-module",
         "# %%\ntry:\n    import no_such_xyz\nexcept ImportError:\n    import no_such_xyz\n", 5, 5),
        ("always-raises", "# %%\nx = 1\nraise NotImplementedError('R')\n", 3, 1),
        ("missing-file", "# %%\nimport pandas as pd\npd.read_csv('data/none.csv')\n", 3, 13),
        ("missing-file",
         "# %%\nimport pandas as pd\npd.read_csv(sep=';', filepath_or_buffer='n')\n", 3, 41),
        ("missing-file", "# %%\nimport pandas as pd\npd.read_excel(io='n.xlsx')\n", 3, 18),
        ("missing-file", "# %%\nimport numpy as np\nnp.loadtxt('n.txt')\n", 3, 12),
        ("missing-file", "# %%\nimport numpy as np\nnp.load('n.npy')\n", 3, 9),
        ("missing-file", "# %%\nfrom pathlib import Path\nPath('n.txt').read_text()\n", 3, 1),
        ("missing-file", "# %%\nfrom pathlib import Path\n(Path('a') / 'n.txt').open()\n", 3, 2),
        ("missing-file", "# %%\nimport json\nwith open('n.json') as f:\n    json.load(f)\n", 3, 11),
        ("missing-file", "# %%\nimport os\nopen(os.path.join('a', 'n.txt'))\n", 3, 6),
        ("missing-file", "# %%\nFILE = 'n.txt'\nopen(FILE)\n", 3, 6),
        ("missing-file", "# %%\nD = 'data'\nopen(f'{D}/n.txt')\n", 3, 6),
        ("missing-file", "# %%\nD = 'data/'\nopen(D + 'n.txt')\n", 3, 6),
        ("missing-file",
         "# %%\nfrom pathlib import Path\nD = Path('data')\n(D / 'n.txt').read_text()\n", 4, 2),
        ("removed-name", "# %%\nimport pandas as pd\npd.Panel\n", 3, 1),
        ("removed-name", "# %%\nimport pandas as pd\ndf = pd.DataFrame()\ndf.ix[0]\n", 4, 1),
        ("removed-name", "# %%\nfrom sklearn.datasets import load_boston\n", 2, 1),
        ("removed-name",
         "# %%\nimport matplotlib.pyplot as plt\nplt.style.use('seaborn')\n", 3, 15),
        ("removed-name", "# %%\nimport numpy as np\nx = [np.float(1)]\n", 3, 6),
        ("other-language", "# %%\n# %%bash\n# ls\n", 2, 1),
        ("other-language", "# %%\n# %%sql\n# select 1\n", 2, 1),
        ("other-language", "# %%\n# %%writefile a.py\n# x = 1\n", 2, 1),
        ("commented-magic", "# %%\n# %time x = f()\n", 2, 1),
        ("commented-magic", "# %%\nfor i in []:\n    # %time y = i\n    pass\n", 3, 5),
        ("commented-magic", "# %%\n# files = !ls\n", 2, 1),
        ("marker-metadata", '# %% {"tags": ["parameters"]\nx = 1\n', 1, 1),
        ("unread-parameter", TAGGED + "a = 1\nb = 2\n# %%\na\n", 3, 1),
    ],
)  # fmt: skip
def test_what_is_foreseen(check: Check, code: str, text: str, line: int, column: int) -> None:
    """Each kind, with its place, and nothing else."""
    found = check({"a.py": text, "helper.py": "x = 1\n"})
    assert [(f["code"], f["path"], f["line"], f["column"]) for f in found] == [
        (code, "notebooks/a.py", line, column)
    ]
    assert not found[0]["message"].startswith("notebooks/")
    silenced = text.split("\n")
    silenced[line - 1] += f"  # parity: ignore[{code}]"
    if code not in ("marker-metadata", "commented-magic"):  # these lines are comments already
        assert check({"a.py": "\n".join(silenced)}) == []


@pytest.mark.parametrize(
    "text",
    [
        "# %%\ntry:\n    import not_there_xyz\nexcept ImportError:\n    pass\n",
        "# %%\ntry:\n    import no_such_xyz as j\nexcept ImportError:\n    import json as j\n",
        "# %%\nimport json\nif hasattr(json, 'no'):\n    json.no\njson.x = 1\njson.__doc__\n",
        "# %%\nimport json\ndef f(json):\n    return json.no\n",
        "# %%\nfrom json import JSONDecoder\nJSONDecoder.no_such\n",
        "# %%\nimport numpy as np, scipy, os\nnp.linalg.no\nscipy.stats.norm\nos.path.join\n",
        "# %%\nif 1:\n    raise ValueError\n",
        "# %%\nimport os.path, xml.etree.ElementTree, importlib.metadata, concurrent.futures\n",
        "# %%\nfrom scipy import stats\nfrom sklearn.datasets import load_iris\n",
        "# %%\nimport numpy.linalg, pandas.api.types, matplotlib.pyplot as plt\n",
        "# %%\nfrom mpl_toolkits.mplot3d import Axes3D\nfrom IPython.display import display\n",
        "# %%\nimport statsmodels.api as sm\nimport statsmodels.formula.api as smf\n",
        "# %%\nfrom helper import x, f\nfrom box import part\nfrom box.part import y\n",
        "# %%\nopen('made.txt', 'w').write('')\nopen('made.txt')\n",
        "# %%\nimport pandas as pd\npd.DataFrame().to_csv('m.csv')\npd.read_csv('m.csv')\n",
        "# %%\nimport pandas as pd\npd.read_csv('https://x.org/a.csv')\npd.read_csv('s3://b/a')\n",
        "# %%\nimport os\nif os.path.exists('n.txt'):\n    open('n.txt')\n",
        "# %%\ntry:\n    open('n.txt')\nexcept OSError:\n    pass\n",
        "# %%\nimport sqlite3\nsqlite3.connect(':memory:')\n",
        "# %%\nopen('there.txt')\nopen(file='there.txt')\n",
        "# %%\nfor name in ['a', 'b']:\n    open(f'{name}.txt')\n",
        "# %%\nname = 'a'\nname = 'there'\nopen(name + '.txt')\n",
        "# %%\nFILE = 'there.txt'\nopen(FILE)\n",
        "# %%\nimport zipfile\nwith zipfile.ZipFile('there.txt') as z:\n    z.open('a.csv')\n",
        "# %%\nimport subprocess\nsubprocess.run('touch made.txt', shell=True)\nopen('made.txt')\n",
        "# %%\n# 50% of it! and %time is a word\n# %timeit f()\n# %matplotlib inline\n",
        "# %% A title, with {braces}\nx = 1\n",
        TAGGED + "a = 1\n# %%\nq = 'x > @a'\n",
        TAGGED + "a = 1\nb = a * 2\n# %%\nprint(f'{b}')\n",
    ],
)  # fmt: skip
def test_no_false_alarms(check: Check, text: str) -> None:
    """What is guarded, made by the notebook, remote, or there is not reported."""
    files = {"helper.py": "x = 1\ndef f(): pass\n", "box/part.py": "y = 1\n", "there.txt": ""}
    assert check({"a.py": text, **files}) == []


def test_imports_of_helpers_count(check: Check) -> None:
    """A helper that a notebook imports is looked at too, and one that nobody imports is not."""
    files = {
        "a.py": "# %%\nimport helper\n",
        "helper.py": "import not_installed_xyz\n",
        "unused.py": "import not_there_xyz\n",
    }
    assert [(f["code"], f["path"]) for f in check(files)] == [
        ("missing-module", "notebooks/helper.py")
    ]


def test_another_notebook_may_write_the_file(check: Check) -> None:
    """A file that any notebook writes is not missing."""
    reads = "# %%\nimport pandas as pd\npd.read_csv('shared.csv')\n"
    writes = "# %%\nimport pandas as pd\npd.DataFrame().to_csv('shared.csv')\n"
    assert [f["code"] for f in check({"a.py": reads})] == ["missing-file"]
    assert check({"a.py": reads, "b.py": writes}) == []


def test_helpers_that_only_batch_finds(check: Check, project: Path) -> None:
    """The editor starts in the notebook's folder; PYTHONPATH in .env mends it."""
    files = {
        "vol/a.py": "# %%\nimport beside\nimport helper\nimport toolbox\n",
        "vol/beside.py": "x = 1\n",
        "helper.py": "x = 1\n",
    }
    (project / "toolbox.py").write_text("x = 1\n", encoding="utf-8")
    found = check(files)
    assert [(f["code"], f["line"]) for f in found] == [
        ("batch-only-import", 3),
        ("batch-only-import", 4),
    ]
    (project / ".env").write_text("PYTHONPATH=notebooks:.\n", encoding="utf-8")
    assert check(files) == []


def test_files_that_hide_modules(check: Check) -> None:
    """Notebooks and helpers, standard library and installed."""
    found = check({"pandas.py": "# %%\n1\n", "random.py": "x = 1\n", "sub/numpy.py": "# %%\n1\n"})
    assert sorted((f["code"], f["path"]) for f in found) == [
        ("hides-module", "notebooks/pandas.py"),
        ("hides-module", "notebooks/random.py"),
        ("hides-module", "notebooks/sub/numpy.py"),
    ]


def test_jupyter_notebooks_left(check: Check) -> None:
    """Those without a script are one finding, by whatever name it has."""
    files = {"a.py": "# %%\n1\n", "a.ipynb": "{}", "2 b.ipynb": "{}", "nb_2_b.py": "# %%\n1\n"}
    assert check(files) == []
    (found,) = check({"c.ipynb": "{}", "d.ipynb": "{}"})
    assert (found["code"], found["path"]) == ("unconverted", "notebooks/c.ipynb")
    assert found["text"].startswith("2 .ipynb here are not notebooks yet")


def test_another_interpreter_is_asked(check: Check, tmp_path: Path) -> None:
    """A module of this environment may be missing in the notebook's."""
    bare = tmp_path / "bare" / "python"
    bare.parent.mkdir()
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    manifest = f"notebooks:\n  a: {{python: '{bare}'}}\n"
    found = check({"a.py": "# %%\nimport pandas\nimport json\n", "manifest.yaml": manifest})
    assert [(f["code"], f["line"]) for f in found] == [("missing-module", 2)]


def test_files_formats_and_the_closing_line(
    check: Check, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings of some files, annotations for GitHub, and what to install."""
    files = {
        "a.py": "# %%\nimport not_installed_xyz, sklearn_none.x\n",
        "b.py": "# %%\nimport not_installed_xyz\nopen('100%.txt')\n",
    }
    assert len(check(files)) == 4
    assert len(check({}, str(project / "notebooks" / "a.py"))) == 2
    words = ["check", "--project", str(project)]
    assert main(words) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "To install: pip install not-installed-xyz sklearn-none",
        "2 notebooks, 3 errors, 1 warning",
    ]
    assert main([*words, "--format", "github", str(project / "notebooks" / "b.py")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::error file=")
    assert "notebooks/b.py,line=2,col=1,title=missing-module::" in lines[0]
    assert lines[1].startswith("::warning file=")
    assert "'100%25.txt'" in lines[1]
    assert main([*words, "no_such_file.py"]) == 2
    capsys.readouterr()


def test_the_hook_for_pre_commit(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hook's entry, called as pre-commit does with the changed files that it asks for."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert (hook["language"], hook["require_serial"]) == ("system", True)
    monkeypatch.chdir(project)
    bad, good = "# %%\nimport not_installed_xyz\n", "# %%\nx = 1\n"
    for name, text in {
        "a.py": bad,
        "sub/b.py": bad,
        "c.py": good,
        "data.csv": "",
        "m.yaml": "",
    }.items():
        path = project / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    changed = [path.relative_to(project).as_posix() for path in sorted(project.rglob("*.*"))]
    wanted = [name for name in changed if re.search(hook["files"], name)]
    assert wanted == ["notebooks/a.py", "notebooks/c.py", "notebooks/m.yaml", "notebooks/sub/b.py"]
    words = hook["entry"].split()
    assert words[0] == "research-jobs"
    for files, status, errors in ((wanted, 1, 2), (wanted[:1], 1, 1), (wanted[1:3], 0, 0)):
        assert main([*words[1:], *files]) == status
        assert f"{errors} error{'s' * (errors != 1)}" in capsys.readouterr().out


def test_dagster_is_asked_once_for_a_manifest(project: Path) -> None:
    """A check of what was checked imports no Dagster; a mistake that only it sees is found."""
    (project / "notebooks" / "days.py").write_text("# %%\nx = 1\n", encoding="utf-8")
    (project / "notebooks" / "after.py").write_text(
        "# %%\nfrom research_jobs import load\ny = load('days', 'x')\n", encoding="utf-8"
    )
    manifest = project / "notebooks" / "manifest.yaml"
    days = "{outputs: [x], partitions: {by: day, start: 2020-01-01}}"
    manifest.write_text(f"notebooks:\n  days: {days}\n  after: {{outputs: [y]}}\n")
    program = (
        "import sys\nfrom research_jobs.cli.main import main\n"
        "status = main(['check', '--project', sys.argv[1]])\n"
        "print(status, 'dagster' in sys.modules)\n"
    )

    def check() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(project)],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    first, second = check(), check()
    assert first[-1].endswith(" True")
    assert second == [*first[:-1], first[-1].replace(" True", " False")]
    manifest.write_text(
        f"notebooks:\n  days: {days}\n  after: {{outputs: [y]}}\n"
        "schedules:\n  mixed: {cron: '@daily', notebooks: [days], parameters: {days: {z: 1}}}\n"
    )
    for _ in range(2):  # what is wrong is not remembered
        assert check()[-1] == "1 True"
