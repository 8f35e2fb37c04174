"""Code cells in Python: magics, shell lines, cells of other languages."""

from __future__ import annotations

import ast

import pytest

from research_jobs.moving.rewriting import assigned_by, rewrite

STAY = [
    'fmt = """\n%d rows\n!important\nreally?\n"""',
    "%matplotlib inline\nfmt = '''\n%d rows\nwhy?\n'''",
    "%matplotlib inline\nx = (7\n%4\n)",
    "%matplotlib inline\nx = 7 \\\n% 4",
    "%matplotlib inline\nfmt = f'''\n%time {1}\n'''",
    "%matplotlib inline\nd = {\n'a': 1}\ny = 5 % 3",
    "really = 1\nreally",
]


@pytest.mark.parametrize("source", STAY)
def test_what_is_no_magic_stays(source: str) -> None:
    """Lines of strings, brackets and continuations are not read as magics."""
    kept = source.removeprefix("%matplotlib inline\n")
    assert rewrite(source).source.removeprefix("# %matplotlib inline\n") == kept


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("%time x = f()", "x = f()"),
        ("I = 3\n%time x = f(I)", "I = 3\nx = f(I)"),
        ("%time x = [1] \\\n  + [2]\ny = 1", "x = [1] + [2]\ny = 1"),
        ("%time x = f(1,\n    2)\ny = 1", "x = f(1, 2)\ny = 1"),
        ("for i in a:\n    %time f(i)", "for i in a:\n    f(i)"),
        ("for i in a:\n    if i:\n        %time x = f(i)\n    g()",
         "for i in a:\n    if i:\n        x = f(i)\n    g()"),
        ("x = %time f()", "x = f()"),
        ("%prun -l 10 -s cumulative x = f()", "x = f()"),
        ("%prun -q x = f()", "x = f()"),
        ("%memit -r 1 x = f()", "x = f()"),
        ("%lprun -f g x = g()", "x = g()"),
        ("%time %time x = f()", "x = f()"),
        ("%%time\nx = 1\n%time y = 2", "x = 1\ny = 2"),
        ("\n\n%%time\nx = 1", "x = 1"),
        ("%%prun -s cumulative\nx = 1", "x = 1"),
        ("%%capture\nx = 1\nprint(x)", "x = 1\nprint(x)"),
        ("%%capture --no-stderr\n%%time\nx = 1", "x = 1"),
        ("%timeit f()", ""),
        ("%timeit -n1 -r1 max(a,\n   a + 1)\nb = 2", "b = 2"),
        ("%%timeit\nx = 1", ""),
        ("%%timeit x = 2\ny = x", ""),
        ("if a:\n    %matplotlib inline", "if a:\n    pass"),
        ("if a:\n    b()\nelse:\n    %timeit f()", "if a:\n    b()\nelse:\n    pass"),
        ("try:\n    %timeit f()\nfinally:\n    c?", "try:\n    pass\nfinally:\n    pass"),
        ("def f():\n    %matplotlib inline\n    return 1", "def f():\n    return 1"),
        ("with a:\n    %time\n    b()", "with a:\n    b()"),
        ("df?\nx = 1", "x = 1"),
        ("?df\ndf.head??", ""),
        (">>> x = 1\n>>> y = 2", "x = 1\ny = 2"),
        ("  x = 1\n  y = 2", "x = 1\ny = 2"),
        ("!pip install arch\nx = 1", "x = 1"),
        ("pip install arch", ""),
        ("%pip install arch", ""),
        ("await f()", "await f()"),
        ("%time x = f('a  # b',\n    2)", "x = f('a  # b', 2)"),
        ("%time x = f(1,  # one\n    2)\ny = 1", "x = f(1, 2)\ny = 1"),
        ("%time f();", "f();"),
        ("%time for i in a: f(i)", "for i in a: f(i)"),
        ("%timeit -n 10 f()\nx = 1", "x = 1"),
        ("x = 1\n%config InlineBackend.figure_format = 'retina'\ny = 2", "x = 1\ny = 2"),
        ("%load_ext autoreload\n%autoreload 2\nimport os", "import os"),
        ("def f():\n    'doc'\n    %matplotlib inline", "def f():\n    'doc'"),
        ("class A:\n    %time x = 1", "class A:\n    x = 1"),
        ("match a:\n    case 1:\n        %timeit a", "match a:\n    case 1:\n        pass"),
        ("try:\n    x()\nexcept E:\n    %timeit a", "try:\n    x()\nexcept E:\n    pass"),
    ],
)  # fmt: skip
def test_statements_stay_and_magics_go(source: str, code: str) -> None:
    """What a magic measures runs, what it only shows does not, and no block is empty."""
    assert ast.dump(ast.parse(rewrite(source).source)) == ast.dump(ast.parse(code))


def run_cell(source: str, **values: object) -> dict[str, object]:
    """The names after a rewritten cell has run."""
    space: dict[str, object] = dict(values)
    exec(rewrite(source, {*values, *assigned_by(source)}).source, space)
    return space


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("source", "file", "text"),
    [
        ("%%writefile made.txt\na = 'b'\n", "made.txt", "a = 'b'\n"),
        ("%%writefile made.txt\na\\n \"\"\" '''\n", "made.txt", "a\\n \"\"\" '''\n"),
        ("%%file 'made.txt'\n# %% marker\nx", "made.txt", "# %% marker\nx\n"),
        ("%%writefile {name}.txt\nx", "made.txt", "x\n"),
        ("%%writefile $name\nx", "made", "x\n"),
        ("%%bash\necho \"hi $HOME\" > made.txt; sed -i 's/ .*//' made.txt", "made.txt", "hi\n"),
        ("%%sh\nprintf 'a\\tb\\n' > made.txt", "made.txt", "a\tb\n"),
        ("%%script bash\necho hi > made.txt", "made.txt", "hi\n"),
        ("!echo {name} > made.txt", "made.txt", "made\n"),
        ("!echo $name > made.txt", "made.txt", "made\n"),
        ("!echo '{name}' '{{}}' > made.txt", "made.txt", "made {}\n"),
        ("!echo 'a b' | awk '{print $2}' > made.txt", "made.txt", "b\n"),
        ("for i in [1, 2]:\n    !echo {i} >> made.txt", "made.txt", "1\n2\n"),
    ],
)
def test_files_and_commands_do_what_they_did(source: str, file: str, text: str) -> None:
    """Each leaves the file that it leaves in Jupyter, values of the notebook included."""
    run_cell(source, name="made")
    with open(file, encoding="utf-8") as made:  # noqa: PTH123 - in the working directory
        assert made.read() == text


@pytest.mark.usefixtures("in_tmp_path")
def test_values_of_commands_and_settings_are_kept() -> None:
    """Lines of a command, variables of the environment, captured text and appended files."""
    space = run_cell(
        "lines = !printf 'a\\nb\\n'\n%env MOVED=yes\nimport os\nm = os.environ['MOVED']"
    )
    assert space["lines"] == ["a", "b"]
    assert space["m"] == "yes"
    space = run_cell("%%capture shown\nprint('hi')\nx = 1")
    assert str(space["shown"]) == "hi\n"
    assert space["x"] == 1
    run_cell("%%writefile a.py\nx = 1")
    run_cell("%%writefile -a a.py\nx = 2\ny = 3")
    space = run_cell("%run a.py")
    assert (space["x"], space["y"]) == (2, 3)


@pytest.mark.parametrize(
    "source",
    [
        "%%sql\nselect 1",
        "%%R\nx <- 1",
        "%%cython\ndef f(): pass",
        "%%julia\n1",
        "%%nobody_knows\nx = 1",
        "%sql select 1",
        "x = %sql select 1",
        "%R x <- 1",
        "%nobody_knows x",
        "if True:\n    %store x",
        "res = %timeit -o f()",
        "%%bash --out text\necho hi",
        "!server &",
        "print 'python 2'",
        "x = (",
        "%run other.ipynb",
    ],
)
def test_what_has_no_exact_equivalent_fails_loudly(source: str) -> None:
    """The cell raises with what to write, and the table names it."""
    rewritten = rewrite(source)
    assert len(rewritten.look) == 1
    with pytest.raises(NotImplementedError, match="does not run here"):
        exec(rewritten.source, {})


def test_commented_text_begins_no_cell() -> None:
    """A line of a cell in another language is no marker, whatever it looks like."""
    source = rewrite("%%sql\n%% x\nIn [3]:\nselect 1").source
    assert source.startswith("# in Jupyter: %%sql\n# # %% x\n# # In [3]:\n# select 1\nraise ")


def test_html_cells_are_shown_as_html() -> None:
    """A cell that is only shown keeps its content, without the notebook's kernel."""
    code = rewrite("%%html\n<b>x</b>").source
    assert "IPython.display.HTML" in code
    assert "<b>x</b>" in code


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# !rm -rf precious\nx = 1", "# # !rm -rf precious\nx = 1"),
        ("if x:\n    # %time f()\n    y()", "if x:\n    # # %time f()\n    y()"),
        ("# %% not a marker\nx = 1", "# # %% not a marker\nx = 1"),
        ("# In[3]:\nx = 1", "# # In[3]:\nx = 1"),
        ("x = '# !rm'", "x = '# !rm'"),
        ("# 50% of it!\nx = 1", "# 50% of it!\nx = 1"),
    ],
)
def test_the_authors_comments_come_not_alive(source: str, expected: str) -> None:
    """No tool takes a comment of the notebook for a magic or a marker."""
    assert rewrite(source).source == expected
