"""Syntax errors, reported with what to write instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest

from research_jobs.errors import NotebookSyntaxError
from research_jobs.notebook.cells import NotebookText
from research_jobs.notebook.source import parse_source

Make = Callable[..., NotebookText]


@pytest.mark.parametrize(
    ("line", "column", "hint"),
    [
        ("%matplotlib inline", 1, "Charts work without it: comment it out"),
        ("%load_ext autoreload", 1, "IPython extensions are not loaded in batch"),
        ("%%time", 1, "time.perf_counter()"),
        ("    %timeit f(1)", 5, "timeit.timeit"),
        ("!ls -la data", 1, "subprocess.run('ls -la data', shell=True, check=True)"),
        ("!pip install arch", 1, "Install packages in the environment"),
        ("files = !ls", 9, "subprocess.run('ls', shell=True, check=True)"),
        ("t = %env HOME", 5, "os.environ"),
        ("%run other.py", 1, "load()"),
        ("%cd ..", 1, "Path(__file__).parent"),
        ("%unheard of", 1, "Write it in Python"),
        ("df?", 1, "help(df)"),
        ("?df.head", 1, "help(df.head)"),
        ("np.array??", 1, "help(np.array)"),
    ],
)
def test_magics_have_a_way_out(as_notebook: Make, line: str, column: int, hint: str) -> None:
    """File, line, column, cell, what it is, and what to write."""
    text = as_notebook(f"# %% Load\nx = 1\n# %% Set up\n{line}\n")
    with pytest.raises(NotebookSyntaxError) as caught:
        parse_source(text)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(
        f"notebooks/study.py:4:{column}: '{line.strip()}' in cell 2 \"Set up\" is IPython syntax, "
        "not Python"
    )
    assert hint in first


def test_an_ordinary_mistake_shows_its_place(as_notebook: Make) -> None:
    """The caret stands under the character."""
    with pytest.raises(NotebookSyntaxError) as caught:
        parse_source(as_notebook("# %% Load\nprices = = 1\n"))
    assert str(caught.value).splitlines() == [
        'notebooks/study.py:2:10: invalid syntax in cell 1 "Load"',
        "    2 | prices = = 1",
        "      |          ^",
    ]


def test_a_modulo_that_begins_a_line_is_no_magic(as_notebook: Make) -> None:
    """A mistake elsewhere is not blamed on it."""
    with pytest.raises(NotebookSyntaxError) as caught:
        parse_source(as_notebook("# %%\nx = (7\n% 3)\ny = = 1\n"))
    assert "study.py:4:5: invalid syntax" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "# %%\nx = '\0'\n",
        "# %%\nx = " + "(" * 500 + ")" * 500,
        "# %%\nx = " + "-" * 100_000 + "1\n",
    ],
)
def test_what_the_parser_gives_up_on_is_an_error_of_ours(as_notebook: Make, text: str) -> None:
    """Null bytes and endless nesting raise nothing else."""
    with pytest.raises(NotebookSyntaxError):
        parse_source(as_notebook(text))


def test_warnings_of_the_parser_stay_silent(as_notebook: Make) -> None:
    """An invalid escape is reported when the notebook runs, not each time it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_source(as_notebook("# %%\npattern = '\\d'\n"))


def test_top_level_await_parses(as_notebook: Make) -> None:
    """It works in the editor."""
    parse_source(as_notebook("# %%\nx = await f()\nasync for y in g():\n    pass\n"))
