"""What changes a code version, and what does not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from research_jobs.notebook.version import code_version
from research_jobs.notebook.walk import Digest, walk


def digest(source: str) -> str:
    collected = Digest()
    collected.add(ast.parse(source))
    return collected.hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x=1", "x  =  1  # a comment\n\n"),
        ("f(a, b)", "f(\n    a,\n    b,\n)"),
        ("x = 'a'", 'x = """a"""'),
        ("x = (1)", "x = 1"),
        ("x = 0x10", "x = 16"),
        ("x = 1_000", "x = 1000"),
        ("def f():\n    '''Doc.'''\n    return 1", "def f(): return 1"),
        ("def f():\n    '''Doc.'''", "def f():\n    '''Other.'''"),
        ("'''prose'''\nx = 1", "x = 1\n'other prose'"),
        ("x = 'a' 'b'", "x = 'ab'"),
        ("if x:\n  y", "if x:\n        y"),
        ("x: int = 1  # type: ignore", "x: int = 1"),
        ("x = u'a'", "x = 'a'"),
        ("x = f'a{{{b}'", "x = f'a{{' f'{b}'"),
    ],
)
def test_what_does_not_change_it(one: str, other: str) -> None:
    """Formatting, comments, docstrings and other bare strings."""
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 1", "y = 1"),
        ("x = 'a'", "x = b'a'"),
        ("x = '1'", "x = 1"),
        ("x = 0.0", "x = -0.0"),
        ("x.a", "x.b"),
        ("a - b", "b - a"),
        ("a - (b - c)", "a - b - c"),
        ("a < b", "a <= b"),
        ("f(a)(b)", "f(a, b)"),
        ("f(*a)", "f(a)"),
        ("f(a=b)", "f(b)"),
        ("f(**a)", "f(a)"),
        ("import a.b", "import a"),
        ("import a as b", "import a"),
        ("from . import a", "from .. import a"),
        ("if a:\n  b\nc", "if a:\n  b\n  c"),
        ("if a:\n  b\nelse:\n  c", "if a:\n  b\n  c"),
        ("for a in b: c", "async def f():\n async for a in b: c"),
        ("def f(a, /): 1", "def f(a): 1"),
        ("def f(a, *, b): 1", "def f(a, b): 1"),
        ("def f(a, b=1): 1", "def f(a=1, b=None): 1"),
        ("x[1:]", "x[:1]"),
        ("x[1:2]", "x[1::2]"),
        ("f'{a}'", "f'{a!r}'"),
        ("f'{a:b}'", "f'{a}b'"),
        ("x = [a, b]", "x = [a], b"),
        ("x = [[a], b]", "x = [[a, b]]"),
        ("lambda: a", "a"),
        ("global a", "nonlocal_a"),
        ("{**a, b: c}", "{a: a, b: c}"),
        ("x = ...", "x = None"),
        ("x = 'a\\nb'", "x = 'a\\\\nb'"),
        ("yield_ = a", "yield_ = (a,)"),
        ("x = print('a')", "x = print"),
        ("@a\ndef f(): 1", "def f(): 1"),
    ],
)
def test_what_changes_it(one: str, other: str) -> None:
    """Anything that may do something else."""
    assert digest(one) != digest(other)


def test_extreme_sources() -> None:
    """Deep nesting and endless numbers are no obstacle."""
    assert digest("x = " + "+".join(["1"] * 900)) != digest("x = " + "+".join(["1"] * 901))
    assert digest(f"x = 0x{'f' * 9000}")
    assert digest("x = '\\ud800'")


def test_what_a_walk_meets() -> None:
    """Names, attributes of names, calls, imports."""
    found = walk(ast.parse("import a\nglobal g\nb.c.d(e)\n"))
    assert found.names == {"e"}
    assert found.attributes == {("b", "c")}
    assert (len(found.calls), len(found.imports), len(found.globals)) == (1, 1, 1)


def test_combining() -> None:
    """The order of modules does not matter; their names, digests and the parameters do."""
    version = code_version("d", {"a": "1", "b": "2"})
    assert version == code_version("d", {"b": "2", "a": "1"})
    assert len({
        version,
        code_version("e", {"a": "1", "b": "2"}),
        code_version("d", {"a": "1", "b": "3"}),
        code_version("d", {"a": "1", "c": "2"}),
        code_version("d", {"a": "1"}),
        code_version("d", {"a": "1", "b": "2"}, parameters=["x"]),
    }) == 6  # fmt: skip


OTHERS = sorted(
    path
    for path in Path.home().glob(".pyenv/versions/3.1[0-9]*/bin/python")
    if not path.parts[-3].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
)


@pytest.mark.skipif(not OTHERS, reason="no other Python is installed")
def test_every_version_of_python_gives_the_same_digest() -> None:
    """A server with another Python marks nothing as out of date."""
    root = Path(__file__).resolve().parents[2]
    files = sorted((root / "research_jobs" / "notebook").glob("*.py"))
    code = (
        "import ast, sys\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "from research_jobs.notebook.walk import Digest\n"
        "digest = Digest()\n"
        f"for path in {[str(file) for file in files]!r}:\n"
        "    digest.add(ast.parse(open(path, encoding='utf-8').read()))\n"
        "print(digest.hexdigest())\n"
    )
    found = {
        subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
        for python in [Path(sys.executable), *OTHERS]
    }
    assert len(found) == 1
