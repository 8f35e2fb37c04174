"""What a notebook reads through its helpers, and circles."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.notebook.lineage import shortest_cycle, strongly_connected
from research_jobs.notebook.scan import scan
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]

HELPER = """\
from research_jobs import load

def prices():
    return load("market_data", "prices")

def signals():
    return scaled(load("signals", "raw"))

def scaled(frame):
    return frame * load("scales", "factor")

class Reader:
    def read(self):
        return prices(), load("via_class")

def unused():
    return load("unused")
"""


def loads(make_project: MakeProject, notebook: str, **helpers: str) -> list[str]:
    files = {f"notebooks/{name}.py": text for name, text in helpers.items()}
    project = make_project({"notebooks/data.py": HELPER, **files})
    (project.notebooks / "study.py").write_text(f"# %%\n{notebook}\n")
    found = scan(project, use_cache=False).get("study")
    return [call.notebook for call in found.loads]


@pytest.mark.parametrize(
    ("notebook", "expected"),
    [
        ("from data import prices\nprices()", ["market_data"]),
        ("from data import prices as p\np()", ["market_data"]),
        ("import data\ndata.prices()", ["market_data"]),
        ("import data as d\nd.signals()", ["signals", "scales"]),
        ("from data import Reader\nReader().read()", ["market_data", "via_class"]),
        ("def f():\n    from data import scaled\n    return scaled(1)", ["scales"]),
        ("from data import *", ["market_data", "signals", "scales", "via_class", "unused"]),
        ("import data\ng(data)", ["market_data", "signals", "scales", "via_class", "unused"]),
        ("import data", []),
        ("from data import prices", []),
        ("from research_jobs import load\nload('own')\nfrom data import prices\nprices()",
         ["own", "market_data"]),
    ],
)  # fmt: skip
def test_only_what_is_reached_counts(
    make_project: MakeProject, notebook: str, expected: list[str]
) -> None:
    """A helper that reads for ten notebooks does not tie them to each other."""
    assert loads(make_project, notebook) == expected


@pytest.mark.parametrize(
    "notebook",
    [
        "from data import load\nload('src')",
        "from data import load as l\nl('src')",
        "import data\ndata.load('src')",
        "import data as d\nd.load('src')\nd.load('other')",
    ],
)
def test_load_taken_from_a_helper_is_reported(make_project: MakeProject, notebook: str) -> None:
    """A load that comes from a helper makes no dependency, which one line says."""
    project = make_project({"notebooks/data.py": HELPER})
    (project.notebooks / "study.py").write_text(f"# %%\n{notebook}\n")
    found = scan(project, use_cache=False).get("study")
    [hidden] = found.hidden_loads
    assert (hidden.path, hidden.line) == ("notebooks/study.py", 2)
    assert "'load' comes from data; import load from research_jobs" in hidden.message


@pytest.mark.parametrize(
    "helper",
    [
        "PRICES = load('src')",
        "def read(): return load('src')",
        "def read():\n    return 1; load('src')",
        "class Reader: prices = load('src')",
        "@wrapped(load('src'))\n@other\ndef read():\n    return 1",
        "@other\n@wrapped(load('src'))\nclass Reader:\n    a = 1",
        "def read(prices=load('src')):\n    return prices",
        "for name in ('src',):\n    load(name)",
        "def read(names):\n    for name in names:\n        load('src')",
        "x = (\n    1,\n    load('src'))",
    ],
)
def test_on_any_line_of_a_helpers_statement(make_project: MakeProject, helper: str) -> None:
    """On its first line, its last, and in its decorators: what a helper reads is seen."""
    helper = f"from research_jobs import load\nbefore = 1\n{helper}\nafter = 1\n"
    assert loads(make_project, "from mid import *", mid=helper) == ["src"]


@pytest.mark.parametrize(
    "notebook",
    [
        "import pkg.sub\npkg.sub.read()",
        "import pkg.sub as s\ns.read()",
        "from pkg import sub\nsub.read()",
        "from pkg.sub import read\nread()",
        # handed on as a value, and known to pkg because another module imported it
        "import pkg.sub\nuse(pkg)",
        "import pkg\nimport other\npkg.sub.read()",
    ],
)
def test_a_submodule_however_it_is_reached(make_project: MakeProject, notebook: str) -> None:
    """A module of a package counts by its own name, as an attribute, and within the package."""
    helpers = {
        "pkg/__init__": "",
        "pkg/sub": "from research_jobs import load\n\ndef read():\n    return load('src')\n",
        "other": "import pkg.sub\n",
    }
    assert loads(make_project, notebook, **helpers) == ["src"]


@pytest.mark.parametrize(
    ("helper", "notebook"),
    [
        ("from data import prices", "from mid import prices\nprices()"),
        ("from data import prices as p", "from mid import p\np()"),
        ("from data import *", "from mid import prices\nprices()"),
        ("import data", "from mid import data\ndata.prices()"),
        ("import data", "import mid\nmid.data.prices()"),
        ("from data import prices\ndef f():\n    return prices()", "import mid\nmid.f()"),
        ("import data as d\ndef f():\n    return d.prices()", "from mid import f\nf()"),
        ("from data import prices\nTABLE = {'p': prices}", "import mid"),
        ("from research_jobs import load\nPRICES = load('market_data')", "import mid"),
    ],
)
def test_through_a_helper_of_a_helper(
    make_project: MakeProject, helper: str, notebook: str
) -> None:
    """Names are followed through every module that passes them on."""
    assert "market_data" in loads(make_project, notebook, mid=helper)


def test_in_packages(make_project: MakeProject) -> None:
    """A package's `__init__`, its modules, relative imports."""
    project = make_project(
        {
            "notebooks/lib/__init__.py": "from .readers import prices\n",
            "notebooks/lib/readers.py": "from research_jobs import load\n"
            "def prices():\n    return load('market_data')\n"
            "def other():\n    return load('other')\n",
            "notebooks/a.py": "# %%\nfrom lib import prices\nprices()\n",
            "notebooks/b.py": "# %%\nimport lib.readers\nlib.readers.other()\n",
            "notebooks/c.py": "# %%\nfrom lib import readers\nreaders.other()\n",
            "notebooks/d.py": "# %%\nimport lib.readers as r\nr.other()\n",
        }
    )
    found = scan(project, use_cache=False)
    assert [c.notebook for c in found.get("a").loads] == ["market_data"]
    assert "other" in [c.notebook for c in found.get("b").loads]
    assert [c.notebook for c in found.get("c").loads] == ["other"]
    assert [c.notebook for c in found.get("d").loads] == ["other"]
    assert found.get("d").loads[0].path == "notebooks/lib/readers.py"


def test_reading_oneself_is_no_dependency(make_project: MakeProject) -> None:
    """Neither directly nor through a helper, but it is noted: partitions then run in order."""
    project = make_project(
        {
            "notebooks/data.py": HELPER,
            "notebooks/market_data.py": "# %%\nfrom data import prices\nprices()\n"
            "from research_jobs import load\nload('market_data')\n",
        }
    )
    (found,) = scan(project, use_cache=False).notebooks
    assert (found.loads, found.reads_itself) == ((), True)


def test_helpers_that_import_each_other(make_project: MakeProject) -> None:
    """A circle of helper modules ends."""
    assert loads(
        make_project,
        "from one import f\nf()",
        one="from two import g\ndef f():\n    return g()",
        two="import one\nfrom data import prices\ndef g():\n    return one.f(), prices()",
    ) == ["market_data"]


@pytest.mark.parametrize(
    ("graph", "loops"),
    [
        ({}, []),
        ({"a": ["b"], "b": []}, []),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, []),
        ({"a": ["missing"]}, []),
        ({"a": ["a"]}, []),
        ({"b": ["a"], "a": ["b"]}, [["a", "b"]]),
        ({"x": ["c"], "c": ["b"], "b": ["a"], "a": ["c", "y"], "y": []}, [["a", "b", "c"]]),
        # what lies between two loops is in neither
        ({"a": "b", "b": "am", "m": "c", "c": "d", "d": "c"}, [["a", "b"], ["c", "d"]]),
    ],
)  # fmt: skip
def test_loops(graph: dict[str, Collection[str]], loops: list[list[str]]) -> None:
    """Each set of nodes that reach each other, and nothing that merely leads there."""
    assert strongly_connected(graph) == loops


def test_a_long_chain_is_no_recursion() -> None:
    """Ten thousand notebooks in a row are walked without a stack of calls."""
    chain = {str(n): [str(n + 1)] for n in range(10_000)}
    assert strongly_connected(chain | {"10000": []}) == []
    (loop,) = strongly_connected(chain | {"10000": ["0"]})
    assert len(loop) == 10_001
    assert len(shortest_cycle("0", chain | {"10000": ["0"]})) == 10_001


@given(st.dictionaries(st.integers(0, 8).map(str), st.lists(st.integers(0, 8).map(str))))
def test_loops_are_what_reaches_itself(graph: dict[str, list[str]]) -> None:
    """Two nodes are in one loop when each reaches the other, and a shortest cycle is a way."""
    reach = {name: {other for other in graph[name] if other in graph} for name in graph}
    for _ in graph:
        reach = {
            name: set().union(near, *(reach[other] for other in near))
            for name, near in reach.items()
        }
    expected = {frozenset(b for b in graph if b in reach[a] and a in reach[b]) | {a} for a in graph}
    loops = strongly_connected(graph)
    assert {frozenset(loop) for loop in loops} == {loop for loop in expected if len(loop) > 1}
    for loop in loops:
        for name in loop:
            way = shortest_cycle(name, graph)
            assert way[0] == name
            assert set(way) <= set(loop)
            assert all(b in graph[a] for a, b in itertools.pairwise([*way, name]))


def test_a_shortest_cycle_is_shortest() -> None:
    """Of two ways round the shorter is shown; a node outside of loops has none."""
    graph = {"a": ["b", "x"], "b": ["c"], "c": ["a"], "x": ["a"], "end": []}
    assert shortest_cycle("a", graph) == ["a", "x"]
    with pytest.raises(ValueError, match="'end' is in no loop"):
        shortest_cycle("end", graph)
