"""Which notebooks a file reads, as far as its constants tell, and what is reported otherwise."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.notebook.interface import import_refs
from research_jobs.notebook.loads import Loads, find_loads
from research_jobs.notebook.scan import scan
from research_jobs.notebook.walk import walk
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]


def loads(text: str, parameters: tuple[str, ...] = ()) -> Loads:
    text = textwrap.dedent(text)
    tree = ast.parse(text)
    found = walk(tree)
    return find_loads(
        tree, found.calls, import_refs(found), text=text, path="n.py", parameters=parameters
    )


def read(text: str) -> list[str]:
    """What a text reads, as ``notebook:output``; nothing may be hidden."""
    found = loads(f"from research_jobs import load\n{textwrap.dedent(text)}")
    assert found.hidden == ()
    return [f"{call.notebook}:{call.output or ''}" for call in found.calls]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # constants, texts made of them
        ("NAME = 'src'\nload(NAME, 'x')", "src:x"),
        ("NAME: str = 'src'\nload(NAME, 'x')", "src:x"),
        ("A, B = 'src', 'x'\nload(A, B)", "src:x"),
        ("(A, *B) = ['src', 'x', 'y']\nload(A, B[-1])", "src:y"),
        ("A = B = 'src'\nload(B, 'x')", "src:x"),
        ("A = 's'\nload(f'{A}rc', f'{A!s}')", "src:s"),
        ("load('s' + 'rc', 'x' + 'x')", "src:xx"),
        ("A = 'src'\nload('%s' % A, '{}_x'.format(A))", "src:src_x"),
        ("load('/'.join(['vol', 'garch']), 'X'.lower())", "vol/garch:x"),
        ("N = {'a': 'src'}\nload(N['a'], N.get('b', 'x'))", "src:x"),
        ("N = ('src', 'x')\nload(*N)", "src:x"),
        ("N = {'notebook': 'src', 'output': 'x'}\nload(**N)", "src:x"),
        ("load(output='x', notebook='src')", "src:x"),
        ("N = ['x']\nload('src', *N)", "src:x"),
        ("N = {'output': 'x'}\nload('src', **N)", "src:x"),
        ("load('src', output=None)", "src:"),
        ("if (name := 'src'):\n    load(name, 'x')", "src:x"),
        ("NAME = 'src'\ndef f():\n    return load(NAME, 'x')", "src:x"),
        ("def f():\n    global NAME\n    NAME = 'src'\nload(NAME, 'x')", "src:x"),
        ("def f():\n    n = 'src'\n    return lambda: load(n, 'x')", "src:x"),
        # loops
        ("for n in ('a', 'b'):\n    load(n, 'x')", "a:x b:x"),
        ("for n in ['a']:\n    for o in ['x', 'y']:\n        load(n, o)", "a:x a:y"),
        ("for n, o in [('a', 'x'), ('b', 'y')]:\n    load(n, o)", "a:x b:y"),
        ("for n, o in {'a': 'x', 'b': 'y'}.items():\n    load(n, o)", "a:x b:y"),
        ("for n in {'a': 1, 'b': 2}:\n    load(n, 'x')", "a:x b:x"),
        ("for i in range(2):\n    load(f'n{i}', 'x')", "n0:x n1:x"),
        ("for i, n in enumerate(['a', 'b'], 1):\n    load(n, f'x{i}')", "a:x1 b:x2"),
        ("for n, o in zip(['a', 'b'], 'xy'):\n    load(n, o)", "a:x b:y"),
        ("for n in sorted({'b', 'a'}):\n    load(n, 'x')", "a:x b:x"),
        ("NAMES = ['a', 'b']\nx = [load(n, 'x') for n in NAMES]", "a:x b:x"),
        ("x = {n: load(n, 'x') for n in ('a', 'b') if n}", "a:x b:x"),
        ("N = [f'n{i}' for i in range(2)]\nfor n in N:\n    load(n, 'x')", "n0:x n1:x"),
        ("for n in ['a', 'b']:\n    o = f'{n}_x'\n    load(n, o)", "a:a_x b:b_x"),
        ("p = 'z'\nfor n in 'ab':\n    load(p + n)\n    p = n", "za: zb: aa: ab: ba: bb:"),
        ("N = {k: v for k, v in [('a', 'x')]}\nload(*N.items()[0])", "a:x"),
        # either way
        ("import os\nload('a' if os.name else 'b', 'x')", "a:x b:x"),
        ("DEBUG = False\nload('a' if DEBUG else 'b', 'x')", "b:x"),
        ("N = 'a'\nif N:\n    N = 'b'\nload(N, 'x')", "a:x b:x"),
        ("N = None or 'a'\nload(N, 'x')", "a:x"),
        # other names of load
        ("L = load\nL('src', 'x')", "src:x"),
        ("from research_jobs import load as L\nL('src', 'x')", "src:x"),
        ("import research_jobs as rj\nrj.load('src', 'x')", "src:x"),
        ("import research_jobs\nm = research_jobs\nm.load('src', 'x')", "src:x"),
        ("import research_jobs as rj\nL = rj.load\nL('src', 'x')", "src:x"),
        ("import research_jobs as rj\ngetattr(rj, 'load')('src', 'x')", "src:x"),
        ("import research_jobs.store.load as m\nm.load('src', 'x')", "src:x"),
        ("import os\nread = load if os.name else load\nread('src', 'x')", "src:x"),
        ("tools = {'read': load}\ntools['read']('src', 'x')", "src:x"),
        # the output need not be known
        ("load('src', name())", "src:"),
        ("NAME = 'src'\nload(NAME, output=name())", "src:"),
    ],
)
def test_constants_are_followed(text: str, expected: str) -> None:
    """Names, loops over literals, conditions and aliases lead to the notebooks that are read."""
    assert sorted(read(text)) == sorted(expected.split())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("load(name(), 'x')", "'name()' is known only when the notebook runs"),
        ("import sys\nload(sys.argv[1], 'x')", "'sys.argv[1]'"),
        ("from config import NAME\nload(NAME, 'x')", "is known only when the notebook runs"),
        ("def f(name):\n    return load(name, 'x')", "'name' is known only"),
        ("def f(**options):\n    return load(**options)", "'options' is known only"),
        ("for n in names():\n    load(n, 'x')", "'names()'"),
        ("with open('a') as f:\n    load(f, 'x')", "'f'"),
        ("NAMES = ['a']\nNAMES.append(b())\nfor n in NAMES:\n    load(n, 'x')", "'NAMES'"),
        ("N = 'a'\nN += b()\nload(N, 'x')", "'N'"),
        ("N = {}\nN['a'] = b()\nload(N['a'], 'x')", "'N['a']'"),
        ("x = map(load, ['a'])", "it is passed on as a value"),
        ("def f():\n    return load", "it is passed on as a value"),
        ("pool.submit(load, 'a', 'x')", "it is passed on as a value"),
        ("x = x + 'a'\nload(x, 'x')", "'x'"),
        ("load(f'{9:9999999999}', 'x')", "is known only"),
        ("load('a' * 10**9, 'x')", "is known only"),
        ("lambda n: load(n, 'x')", "'n' is known only"),
        ("import os\nload(os.environ['N'] or 'a', 'x')", "'os.environ['N']'"),
        ("load(*names())", "'names()'"),
        ("class C:\n    NAME = 'a'\nload(C.NAME, 'x')", "'C' is known only"),
        ("class C:\n    read = load\nC.read('a')", "it is passed on as a value"),
        ("self.read = load\nself.read('a')", "it is passed on as a value"),
        ("from functools import partial\npartial(load, 'a')('x')", "it is passed on as a value"),
        ("N = [f'{i}' for i in range(3) if i]\nload(N[0], 'x')", "is known only"),
    ],
)
def test_the_rest_is_hidden(text: str, reason: str) -> None:
    """What the text does not tell is noted with its place and what is not known."""
    found = loads(f"from research_jobs import load\n{text}")
    (hidden,) = found.hidden
    assert reason in hidden.message
    assert "this load() makes no dependency" in hidden.message
    assert hidden.line > 1
    line = text.split("\n")[hidden.line - 2]
    assert "load" in line[hidden.column - 1 :]


@pytest.mark.parametrize(
    "text",
    [
        "import json\nx = json.load(open('a'))",
        "import numpy as np\nN = 'a'\nx = np.load(N)",
        "model = Model()\nmodel.load(path())",
        "def load(x):\n    return x\nload(name())",
        "print(load.__doc__)",
        "# load(name())",
        "'load'",
        "from research_jobs import load",
        "load()",
        "load(5)",
        "load('')",
    ],
)
def test_other_loads_are_left_alone(text: str) -> None:
    """Only `research_jobs.load` counts, and calls that are mistakes make nothing."""
    own = "" if "def" in text else "from research_jobs import load"
    found = loads(f"import research_jobs\n{own}\n{text}")
    assert (found.calls, found.hidden) == ((), ())


def test_a_load_that_is_chosen_when_it_runs() -> None:
    """A call of what may be `load` among others is noted with what chooses it."""
    text = "from research_jobs import load\ntools = {'read': load}\ntools[name()]('a')"
    (hidden,) = loads(text).hidden
    assert "'tools[name()]' is known only" in hidden.message


def test_a_parameter_may_be_another(make_project: MakeProject) -> None:
    """The default is a dependency, and the rest is noted: `-p` can name another notebook."""
    text = "from research_jobs import load\nsource = 'src'\nload(source, 'x')\n"
    found = loads(text, ("source",))
    assert [call.notebook for call in found.calls] == ["src"]
    assert "'source' is known only when the notebook runs" in found.hidden[0].message
    assert loads(text).hidden == ()
    project = make_project({"notebooks/a.py": f"# %% tags=['parameters']\n{text}"})
    (notebook,) = scan(project).notebooks
    assert len(notebook.hidden_loads) == 1


def test_helpers(make_project: MakeProject) -> None:
    """In a helper only what the notebook reaches counts, hidden or not, also from the cache."""
    project = make_project(
        {
            "notebooks/data.py": """\
                from research_jobs import load
                NAME = "src"
                def known():
                    return load(NAME, "x")
                def open_(name):
                    return load(name, "x")
                """,
            "notebooks/a.py": "# %%\nfrom data import known\nknown()\n",
            "notebooks/b.py": "# %%\nimport data\ndata.open_('src')\n",
        }
    )
    for _ in range(2):
        a, b = scan(project).notebooks
        assert [call.notebook for call in a.loads] == ["src"]
        assert a.hidden_loads == ()
        assert b.loads == ()
        assert [(h.path, h.line, h.column) for h in b.hidden_loads] == [
            ("notebooks/data.py", 6, 12)
        ]


@pytest.mark.parametrize(
    "use",
    ["from tools import load\nload('src')", "import tools\ntools.load('src')",
     "from tools import read as r\nr('src')"],
)  # fmt: skip
def test_load_that_a_helper_passes_on(make_project: MakeProject, use: str) -> None:
    """A notebook that takes `load` from a helper gets the advice to import it itself."""
    project = make_project(
        {
            "notebooks/tools.py": "from research_jobs import load\nread = load\n",
            "notebooks/a.py": f"# %%\n{use}\n",
            "notebooks/b.py": "# %%\nimport tools\ntools.other()\n",
        }
    )
    a, b = scan(project).notebooks
    (hidden,) = a.hidden_loads
    assert "import load from research_jobs" in hidden.message
    assert (hidden.path, hidden.line) == ("notebooks/a.py", 2)
    assert b.hidden_loads == ()


@pytest.mark.parametrize(
    "text",
    [
        "a0 = ['a', 'b']\n"
        + "".join(f"a{i} = [a{i - 1}, a{i - 1}]\n" for i in range(1, 60))
        + "load(str(a59), 'x')",
        "\n".join(f"n{i} = 'a' if x{i}() else 'b'" for i in range(60))
        + "\nload(" + "+".join(f"n{i}" for i in range(60)) + ", 'x')",
        "for a in range(9999):\n for b in range(9999):\n  load(f'{a}{b}', 'x')",
        "t0 = ('a',)\n"
        + "".join(f"t{i} = (t{i - 1}, t{i - 1})\n" for i in range(1, 60))
        + "load({t59: 'a'}['a'], 'x')",
        "load(" + "+".join(["'a'"] * 900) + ", 'x')",
    ],
    ids=["nested", "choices", "loops", "hashes", "deep"],
)  # fmt: skip
def test_a_file_cannot_hold_up_the_scan(text: str) -> None:
    """Combinations are bounded: what is too much to follow is hidden."""
    found = loads(f"from research_jobs import load\n{text}")
    assert len(found.calls) < 60_000
    assert found.hidden or found.calls


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.sampled_from(["'p'", "'q'", "a", "b", "c", "f()"]),
    lambda inner: (
        st.builds("({} if {} else {})".format, inner, inner, inner)
        | st.builds("({} + {})".format, inner, inner)
        | st.builds("[{}, {}][0]".format, inner, inner)
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.lists(st.builds("{} = {}".format, NAMES, VALUES), max_size=4), VALUES)
def test_what_runs_is_found_or_hidden(lines: list[str], argument: str) -> None:
    """Whatever a call reads when it runs is among the calls found, or the call is hidden."""
    body = "\n".join(lines)
    text = f"{body}\nload({argument}, 'x')"
    found = loads(f"from research_jobs import load\n{text}")
    seen: list[str] = []
    namespace = {"load": lambda name, _: seen.append(name), "f": lambda: "z"}
    try:
        exec(text, namespace)
    except Exception:  # noqa: BLE001 - a program that fails reads nothing
        return
    assert found.hidden or seen[0] in {call.notebook for call in found.calls}


@pytest.mark.parametrize("name", ["'src'", "N"])
@pytest.mark.parametrize(("before", "column"), [("", 1), ("x = ", 5), ("x = (1, ", 9)])
def test_where_a_call_stands(name: str, before: str, column: int) -> None:
    """Line and column are those that an editor shows, for literal calls and followed ones."""
    behind = ")" * before.count("(")
    found = loads(f"from research_jobs import load\nN = 'src'\n{before}load({name}){behind}\n")
    assert [(call.line, call.column) for call in found.calls] == [(3, column)]


@pytest.mark.parametrize(
    "text",
    [
        "from .research_jobs import load\nload('src', 'x')",
        "from ..research_jobs.store import load\nload.load('src', 'x')",
        "from research_jobs_more import load\nload('src', 'x')",
        "from joblib import load\nload('src')",
        "import research_jobs as rj\nrj.loads('src', 'x')",
        "import research_jobs as rj\nrj.testing.load('src', 'x')",
        "import json\nimport research_jobs\njson.load('src')",
    ],
)
def test_other_functions_of_that_name(text: str) -> None:
    """A relative import, another package and another attribute are not our load."""
    found = loads(text)
    assert found.calls == ()
    assert found.hidden == ()


@pytest.mark.parametrize(
    "text",
    [
        "from research_jobs.store.load import load\nload('src', 'x')",
        "import research_jobs.store.load\nresearch_jobs.store.load.load('src', 'x')",
        "import research_jobs.store.load as l\nl.load('src', 'x')",
        "from research_jobs.store import load as l\nl.load('src', 'x')",
    ],
)
def test_load_by_its_long_name(text: str) -> None:
    """The module that defines load gives it too, however it is imported."""
    assert [(c.notebook, c.output) for c in loads(text).calls] == [("src", "x")]
