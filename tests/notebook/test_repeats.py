"""Code that repeats across notebooks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from research_jobs.notebook.cells import parse_cells
from research_jobs.notebook.repeats import Repeat, find_repeats, pieces_of

MEAN = (
    "def mean(values, window=20):\n    total = sum(values[-window:])\n    return total / window\n"
)


def repeats(*texts: str, helper: str = "") -> tuple[Repeat, ...]:
    """What repeats in notebooks n0, n1, ... and a helper module."""
    files = {f"n{n}": text for n, text in enumerate(texts)}
    found = [
        piece
        for name, text in files.items()
        for piece in pieces_of(name, ast.parse(text), parse_cells(text))
    ]
    return find_repeats([*found, *pieces_of("helper.py", ast.parse(helper))], files)


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (MEAN, 0),
        (MEAN.replace("values", "prices").replace("total", "t").replace("mean", "average"), 0),
        (MEAN.replace("20", "60"), 1),
        (MEAN.replace(":\n", ':\n    """Text."""\n', 1), 0),
        (MEAN.replace("values,", "values: list[float],").replace("):", ") -> float:"), 0),
        ("# a comment\n" + MEAN.replace("    return", "\n    # the mean\n    return"), 0),
    ],
)  # fmt: skip
def test_functions_that_are_alike(other: str, differing: int) -> None:
    """Names that they bind, constants, comments, docstrings and annotations may differ."""
    (one,) = repeats(f"# %%\n{MEAN}", f"# %%\nx = 1\n{other}")
    assert [piece.file for piece in one.pieces] == ["n0", "n1"]
    assert (one.differing, one.helper) == (differing, None)


@pytest.mark.parametrize(
    "other",
    [
        MEAN.replace("sum", "max"),
        MEAN.replace("total / window", "window / total"),
        MEAN.replace("total / window", "total / total"),
        MEAN.replace("-window", "window"),
        MEAN.replace("/ window", "/ 1"),
        MEAN.replace("window=20", "window='20'"),
        "import statistics as s\n" + MEAN.replace("sum", "s.fsum"),
    ],
)
def test_functions_that_are_not_alike(other: str) -> None:
    """Builtins, operators, the place of a name and the type of a constant count."""
    assert repeats(f"# %%\n{MEAN}", f"# %%\n{other}") == ()


def test_what_an_import_is_called_does_not_matter() -> None:
    """An imported name is what was imported, by whatever name; a free name is a need."""
    one = "import numpy as np\ndef f(x):\n    y = np.log(x)\n    return y * SCALE\n"
    other = one.replace("numpy as np", "numpy").replace("np.", "numpy.")
    (found,) = repeats(f"# %%\n{one}", f"# %%\n{other}")
    assert found.pieces[0].needs == ("SCALE",)
    assert repeats(f"# %%\n{one}", f"# %%\n{one.replace('numpy', 'math')}") == ()


def test_setup_cells() -> None:
    """Imports in any order with settings; a cell that uses what another cell made is none."""
    setup = (
        "import os\nimport pandas as pd\npd.set_option('display.width', 100)\nROOT = os.getcwd()\n"
    )
    lines = setup.splitlines()
    turned = "\n".join([lines[1], lines[0], *lines[2:]]).replace("100", "120")
    (one,) = repeats(f"# %%\n{setup}# %%\nx = 1\n", f"# %% [markdown]\n# Text\n# %%\n{turned}\n")
    assert (one.pieces[0].kind, one.differing) == ("setup", 1)
    assert one.pieces[0].names == ("os", "pd", "ROOT")
    assert [piece.line for piece in one.pieces] == [2, 4]
    assert (one.saved, one.pieces[0].lines) == (2, 4)
    using = setup.replace("os.getcwd()", "folder")
    assert repeats(f"# %%\n{using}", f"# %%\n{using}") == ()


def test_a_class_keeps_the_names_of_its_methods() -> None:
    """Others call a method by its name, so it counts; the class's own name does not."""
    one = "class A:\n    def fit(self, x):\n        self.x = x\n        return self\n"
    assert len(repeats(f"# %%\n{one}", f"# %%\n{one.replace('A', 'B')}")) == 1
    assert repeats(f"# %%\n{one}", f"# %%\n{one.replace('fit', 'run')}") == ()


def test_most_lines_first_and_only_what_saves_some() -> None:
    """An import line for each notebook is taken off; two lines twice save nothing."""
    short = "def f(x):\n    return x\n"
    found = repeats(*[f"# %%\n{short}\n{MEAN}"] * 2, f"# %%\n{MEAN}")
    assert [(one.pieces[0].names, one.saved) for one in found] == [(("mean",), 3)]
    more = repeats(*[f"# %%\n{short}\n{MEAN}"] * 3)
    assert [(one.pieces[0].names[0], one.saved) for one in more] == [("mean", 3), ("f", 1)]
    assert repeats(f"# %%\n{MEAN}\n{MEAN}") == ()


def test_a_helper_that_has_it_already() -> None:
    """One copy in a notebook is enough, and its lines are saved but for an import."""
    (one,) = repeats(f"# %%\n{MEAN}", helper=MEAN.replace("mean", "average"))
    assert (one.helper, one.saved, len(one.pieces)) == ("helper.py", 2, 1)


def test_the_samples_repeat_nothing() -> None:
    """What others copy shares its code in helpers."""
    folder = Path(__file__).parents[2] / "notebooks"
    texts = [path.read_text("utf-8") for path in sorted(folder.rglob("*.py"))]
    assert repeats(*texts) == ()
