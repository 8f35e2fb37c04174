"""What differs between the editor and batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.errors import ResearchJobsError
from research_jobs.notebook.cells import NotebookText, parse_cells
from research_jobs.notebook.parity import check_parity
from research_jobs.notebook.scan import scan
from research_jobs.notebook.undefined import UndefinedName, undefined_names
from research_jobs.project import Project

Make = Callable[..., NotebookText]

PARAMETERS = '# %% tags=["parameters"]\nx = 1\n'


@pytest.mark.parametrize(
    ("code", "text", "line"),
    [
        ("syntax", "# %%\n%matplotlib inline\n", 2),
        ("syntax", "# %%\nx = = 1\n", 2),
        ("input-call", "# %%\nname = input('Name? ')\n", 2),
        ("input-call", "# %%\nfrom getpass import getpass\nx = getpass()\n", 3),
        ("kernel-call", "# %%\nget_ipython().run_line_magic('time', '')\n", 2),
        ("kernel-name", "# %%\n1 + 1\n# %%\nx = _ + 1\n", 4),
        ("kernel-name", "# %%\nx = Out[3]\n", 2),
        ("main-guard", "# %%\nif __name__ == '__main__':\n    print(1)\n", 2),
        ("outside-path", "# %%\nimport pandas as pd\npd.read_csv('../data/x.csv')\n", 3),
        ("outside-path", "# %%\nopen('../x').read()\n", 2),
        ("home-path", "# %%\nopen('/home/ana/x.csv')\n", 2),
        ("home-path", "# %%\nopen(r'C:\\x.csv')\n", 2),
        ("sys-argv", "# %%\nimport sys\nx = sys.argv[1]\n", 3),
        ("sys-argv", "# %%\nfrom sys import argv\nx = argv\n", 3),
        ("interactive-plot", "# %%\nimport matplotlib.pyplot as plt\nplt.ion()\n", 3),
        ("interactive-plot", "# %%\nimport matplotlib\nmatplotlib.use('QtAgg')\n", 3),
        ("blocking-call", "# %%\napp = open('x')\napp.run(debug=True)\n", 3),
        ("blocking-call", "# %%\nserver = open('x')\nserver.serve_forever()\n", 3),
        ("blocking-call", "# %%\nbreakpoint()\n", 2),
        ("exit-call", "# %%\nimport sys\nsys.exit(0)\n", 3),
        ("exit-call", "# %%\nexit()\n", 2),
        ("hidden-load", "# %%\nfrom research_jobs import load\nload(str().join)\n", 3),
        ("chdir", "# %%\nimport os\nos.chdir('..')\n", 3),
        ("chdir", "# %%\nfrom os import chdir\nchdir('..')\n", 3),
        ("loads-itself", "# %%\nfrom research_jobs import load\nload('study', 'x')\n", 3),
        ("star-import", "# %%\nfrom numpy import *\n", 2),
        ("relative-import", "# %%\nfrom . import helper\n", 2),
        ("imports-notebook", "# %%\nimport market_data\n", 2),
        ("imports-notebook", "# %%\nfrom vol import garch\n", 2),
        ("used-before-assigned", "# %%\ny = x\n# %%\nx = 1\n", 2),
        ("used-before-assigned", "# %%\nx = [f(i) for i in range(3)]\n# %%\nf = abs\n", 2),
        ("undefined-name", "# %%\ny = gone + 1\n", 2),
        ("undefined-name", "# %%\ndef f():\n    return gone\n", 3),
        ("undefined-name", "# %%\nclass A:\n    def f(self):\n        return gone\n", 4),
        ("undefined-name", "# %%\n@gone\ndef f(a=1):\n    pass\n", 2),
        ("code-in-prose", "# %% [markdown]\n# text\nx = 1\n", 3),
        ("other-language", "# Databricks notebook source\n# MAGIC %sql\n# MAGIC select 1\n", 2),
        ("split-statement", "# %%\ndef f():\n    x = 1\n# %%\n    return x\n", 4),
        ("second-parameters", PARAMETERS + '# %% tags=["parameters"]\ny = 1\n', 3),
        ("untagged-parameters", "# %% Parameters\nx = 1\n", 1),
        ("parameter-lost", PARAMETERS + "# %%\nx = 2\n", 4),
    ],
)
def test_findings(as_notebook: Make, code: str, text: str, line: int) -> None:
    """Each code, with the line to look at, and nothing else."""
    found = check_parity(as_notebook(text), notebooks=["study", "market_data", "vol/garch"])
    assert [(f.code, f.line) for f in found] == [(code, line)]
    assert "\n" not in found[0].message


@pytest.mark.parametrize(
    ("path", "line", "level"),
    [
        ("study", "from . import a", "error"),
        ("study", "from .a import b", "error"),
        ("study", "from .. import a", "error"),
        ("vol/study", "from . import a", "warning"),
        ("vol/study", "from .. import a", "error"),
        ("a/b/study", "from .. import a", "warning"),
        ("study", "try:\n    from . import a\nexcept ImportError:\n    a = 1", "warning"),
        ("study", "def f():\n    from . import a\n    return a", "warning"),
    ],
)
def test_relative_imports(as_notebook: Make, path: str, line: str, level: str) -> None:
    """An error where the dots lead out of the top, for that fails in batch too."""
    (one,) = check_parity(as_notebook(f"# %%\n{line}\n", f"/p/notebooks/{path}.py"))
    assert (one.code, one.level) == ("relative-import", level)
    if level == "error":
        assert "in the editor and in batch" in one.message


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# %%\n@f\n# %%\ndef g():\n    pass\n", [3]),
        ("# %%\n@f\n# %%\n@f\n# %%\nasync def g():\n    pass\n", [3, 5]),
        ("# %%\n@f\n# %%\nclass A:\n    pass\n", [3]),
        ("# %%\nclass A:\n    x = 1\n# %%\n    y = 2\n", [4]),
        ("# %%\nif 1:\n    x = 1\n# %%\nelse:\n    x = 2\n", [4]),
        ("# %%\ntry:\n    x = 1\n# %%\nfinally:\n    x = 2\n", [4]),
        ("# %%\nwith open('a'):\n    x = 1\n# %%\n    y = 2\n", [4]),
        ("# %%\nx = [\n# %%\n1,\n# %%\n]\n", [3, 5]),
        ("# %%\nx = (1 +\n# %%\n    1)\n", [3]),
        ('# %%\nx = """\n# %%\n"""\n', [3]),
        ("# %%\nx = '''\n#%% a\n# In[3]:\n'''\n", [3, 4]),
        ('# %%\nx = """\n # %%\n# %%time\n"""\n', []),
        ("# %%\nif 1:\n    x = 1\n# %%\ny = 2\n", []),
        ("# %%\nx = 1\n# %%\n@f\ndef g():\n    pass\n", []),
    ],
)
def test_markers_inside_statements(as_notebook: Make, text: str, lines: list[int]) -> None:
    """Whatever statement a marker cuts in two, decorators and strings included, is reported."""
    found = check_parity(as_notebook(f"f = abs\n{text}"), undefined=())
    assert [(f.code, f.line - 1) for f in found] == [("split-statement", n) for n in lines]


def test_a_continued_line_does_not_parse(as_notebook: Make) -> None:
    """A marker behind a backslash is a mistake for Python itself."""
    (one,) = check_parity(as_notebook("# %%\nx = 1 + \\\n# %%\n1\n"))
    assert (one.code, one.level) == ("syntax", "error")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# %%\nx = 1\ndel x\nprint(x)\n", "'x' no longer exists here"),
        ("# %%\ntry:\n    pass\nexcept OSError as e:\n    pass\nprint(e)\n", "nothing in the file"),
        ("# %%\nx = [y for z in (1, 2)]\n", "nothing in the file assigns 'y'"),
        ("# %%\n'é'; x = gone\n", "nothing in the file assigns 'gone'"),
        ("# %%\nasync def f():\n    await gone()\nawait f()\n", "nothing in the file"),
        ("# %%\nf'{gone}'\n", "nothing in the file assigns 'gone'"),
        ("# %%\nx = 1  # noqa\ny = gone  # noqa: F821\n", "nothing in the file assigns 'gone'"),
    ],
)  # fmt: skip
def test_names_that_nothing_binds(as_notebook: Make, text: str, message: str) -> None:
    """What ruff finds is said in our words, whatever its own comments say."""
    (one,) = check_parity(as_notebook(text))
    assert one.code == "undefined-name"
    assert message in one.message


def test_the_names_of_many_files_in_one_call() -> None:
    """Each file gets its own names, in order; none at all asks nobody."""
    found = undefined_names(["x = a\n", "x = 1\n", "y = 1\nx = b\n"])
    assert found == [(UndefinedName("a", 1, 5),), (), (UndefinedName("b", 2, 5),)]
    assert undefined_names([]) == []


def test_settings_of_the_project_are_not_ruffs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project's own configuration of ruff changes nothing."""
    (tmp_path / "ruff.toml").write_text('builtins = ["gone"]\nexclude = ["*"]\n')
    monkeypatch.chdir(tmp_path)
    assert undefined_names(["x = gone\n"]) == [(UndefinedName("gone", 1, 5),)]


def test_ruff_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ruff the error says what to install."""
    import ruff

    monkeypatch.setattr(ruff, "find_ruff_bin", lambda: "/nowhere/ruff")
    with pytest.raises(ResearchJobsError, match="pip install ruff"):
        undefined_names(["x = 1\n"])


def test_a_scan_never_starts_ruff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the check asks for names."""
    import ruff

    def fail() -> str:
        raise AssertionError

    monkeypatch.setattr(ruff, "find_ruff_bin", fail)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.py").write_text("# %%\nx = gone\n")
    assert scan(Project(tmp_path, store="")).notebooks[0].error is None


def test_names_that_hide_a_module(as_notebook: Make) -> None:
    """A notebook called `statistics` breaks whoever imports Python's."""
    (one,) = check_parity(as_notebook("# %%\n", "/p/notebooks/statistics.py"))
    assert one.code == "hides-module"


@pytest.mark.parametrize(
    "text",
    [
        "# %%\nimport numpy as np\nx = np.load('data.npy')\n",
        "# %%\nfor _ in range(3):\n    pass\nx = _\n",
        "# %%\ndef f(_):\n    return _\n",
        "# %%\ndisplay(1)\nprint(__file__, __name__)\n",
        "# %%\ndef f():\n    return later\n# %%\nlater = 1\nf()\n",
        "# %%\nx = [i for i in range(3) if i]\ny = {k: v for k, v in ()}\n",
        "# %%\nf = lambda a, *b, c=1, **d: (a, b, c, d)\n",
        "# %%\nclass A:\n    x = 1\n    y = x + 1\n    def f(self):\n        return self.x\n",
        "# %%\ntry:\n    import a\nexcept ImportError as error:\n    print(error)\n",
        "# %%\nif (n := 1):\n    print(n)\nwith open('x') as f:\n    print(f)\n",
        "# %%\nglobal_ = 1\ndef f():\n    global made\n    made = global_\nf()\nprint(made)\n",
        "# %%\nx: 'Later' = 1\n",
        "# %%\nmatch 1:\n    case [a, *b]:\n        print(a, b)\n",
        "# %%\nfor i in range(3):\n    if i:\n        print(last)\n    last = i\n",
        "# %%\nx = 1\ndel x\nx = 2\n",
        "# %%\nasync def f():\n    pass\nawait f()\n",
        "# %%\nimport subprocess\nsubprocess.run(['ls'])\n",
        "# %%\nx = __import__('base64').b64encode(b'x')\n",
        PARAMETERS + "# %%\nx = str(x)\n",
        PARAMETERS + "# %%\ndef f():\n    x = 2\n",
        '"""\nTitle\n=====\n"""\n# %%\n# prose\nx = 1\n',
        "# %%\ninput = 1\n",
        "# %%\nimport sys\nsys.argv  # parity: ignore\n",
        "# %%\nx = input()  # parity: ignore[chdir, input-call]\n",
    ],
)
def test_what_is_the_same_in_both(as_notebook: Make, text: str) -> None:
    """No finding where nothing differs, or where a comment silences it."""
    assert check_parity(as_notebook(text)) == ()


def test_a_comment_silences_only_what_it_names(as_notebook: Make) -> None:
    """A code that is not named is still reported."""
    found = check_parity(as_notebook("# %%\nx = input()  # parity: ignore[chdir]\n"))
    assert [f.code for f in found] == ["input-call"]


def test_the_sample_notebooks_are_alike_in_both() -> None:
    """What others copy has no finding."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    from research_jobs.notebook.cells import read_notebook_text

    paths = sorted(folder.rglob("*.py"))
    assert paths
    for path in paths:
        assert check_parity(read_notebook_text(path)) == ()


LINES = st.sampled_from(
    ["# %%", "# %% [markdown]", "x = y", "y = 1", "def f():", "    return x", "class A:",
     "    z = x", "for i in x:", "    pass", "import a", "from . import b",
     "lambda: q", "%time", '"""', "if x:"]
)  # fmt: skip


@settings(max_examples=30, deadline=None)  # each starts ruff
@given(st.lists(LINES).map("\n".join))
def test_any_text_is_checked(text: str) -> None:
    """It never raises, and its lines are lines of the file."""
    notebook = NotebookText(Path("/p/notebooks/study.py"), text, "", parse_cells(text))
    for finding in check_parity(notebook):
        assert 1 <= finding.line <= text.count("\n") + 1


CALLS = [
    *((code, None, name) for code, name in (
        ("input-call", "input"), ("blocking-call", "breakpoint"), ("exit-call", "exit"),
        ("exit-call", "quit"),
    )),
    ("input-call", "getpass", "getpass"),
    ("blocking-call", "pdb", "set_trace"),
    ("chdir", "os", "chdir"),
    ("exit-call", "os", "_exit"),
    ("exit-call", "sys", "exit"),
    ("interactive-plot", "matplotlib", "use"),
    ("interactive-plot", "matplotlib.pyplot", "ion"),
    ("interactive-plot", "matplotlib.pyplot", "switch_backend"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "module", "name"), CALLS)
def test_every_such_call_however_it_is_imported(
    as_notebook: Make, code: str, module: str | None, name: str
) -> None:
    """By its module, under another name, by itself: found; a function of one's own is not."""
    spelt = [f"{name}()"]
    if module is not None:
        spelt = [
            f"import {module}\n{module}.{name}()",
            f"import {module} as m\nm.{name}()",
            f"from {module} import {name}\n{name}()",
            f"from {module} import {name} as n\nn()",
        ]
    for text in spelt:
        found = check_parity(as_notebook(f"# %%\n{text}\n"), undefined=())
        assert [one.code for one in found] == [code], text
        assert name in found[0].message
    own = f"# %%\ndef {name}():\n    return 1\n{name}()\n"
    assert check_parity(as_notebook(own), undefined=()) == ()


@pytest.mark.parametrize(
    "last", ["run_server", "serve_forever", "run_forever", "app.run", "demo.launch"]
)
def test_every_server_blocks(as_notebook: Make, last: str) -> None:
    """Whatever serves until it is stopped is reported."""
    found = check_parity(as_notebook(f"# %%\nthing.{last}()\n"), undefined=())
    assert [one.code for one in found] == ["blocking-call"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        *((path, "home-path") for path in ("/home/a/x", "/Users/a/x", "~/x", "C:\\x", "d:/x")),
        *((path, "outside-path") for path in ("../x", "..\\x", "..")),
        *(
            (path, None)
            for path in ("x", "./x", "..x", "/data/x", "/homes/x", "a/../x", "C", "s3://x")
        ),
    ],
)
@pytest.mark.parametrize("reader", ["open", "pd.read_csv", "Path", "np.loadtxt", "sqlite3.connect"])
def test_paths_of_one_machine(as_notebook: Make, path: str, code: str | None, reader: str) -> None:
    """A path that leads to somebody's home, or out of the notebook's folder, is reported."""
    found = check_parity(as_notebook(f"# %%\n{reader}({path!r})\n"), undefined=())
    assert [one.code for one in found] == ([] if code is None else [code])


def test_a_notebook_does_not_import_itself(as_notebook: Make) -> None:
    """A notebook named like the module that it imports gets no advice to load its own outputs."""
    text = as_notebook("# %%\nimport study\nimport other\n")
    found = check_parity(text, notebook="study", notebooks=["study", "other"], undefined=())
    assert [(one.code, one.line) for one in found] == [("imports-notebook", 3)]
