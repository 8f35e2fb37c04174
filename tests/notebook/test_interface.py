"""What is read from a notebook's text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from research_jobs.notebook.cells import NotebookText
from research_jobs.notebook.facts import FileFacts, read_facts
from research_jobs.notebook.interface import Parameter, absolute

Make = Callable[..., NotebookText]


def read(text: NotebookText) -> FileFacts:
    return read_facts(text, notebook=True, shown="notebooks/study.py")


def parameter(as_notebook: Make, line: str, before: str = "") -> Parameter:
    text = f'{before}\n# %% tags=["parameters"]\n{line}\n# %%\n'
    (one,) = read(as_notebook(text)).parameters
    return one


IMPORTS = """\
import datetime
import datetime as dt
import enum
import pandas as pd
from datetime import date
from enum import Enum
from pathlib import Path
from typing import List, Literal, Optional, Union
class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"
class Level(enum.IntEnum):
    LOW = enum.auto()
    HIGH = enum.auto()
class Speed(Enum):
    FULL = 1
    WHOLE = 1
class Color(enum.StrEnum):
    RED = enum.auto()
Side = Literal["long", "short"]
"""


@pytest.mark.parametrize(
    ("line", "kind", "default"),
    [
        ("x = 60", "int", 60),
        ("x = -1", "int", -1),
        ("x = 60 * 60", "int", 3600),
        ("x = 2 ** 10", "int", 1024),
        ("x = 1 / 4", "float", 0.25),
        ("x = 0.5", "float", 0.5),
        ("x = True", "bool", True),
        ("x = 'a'", "str", "a"),
        ("x = 'a' 'b'", "str", "ab"),
        ("x = None", "any", None),
        ("x = [1, 2]", "list[int]", [1, 2]),
        ("x = [1, 2.5]", "list[float]", [1, 2.5]),
        ("x = ('a', 'b')", "list[str]", ["a", "b"]),
        ("x = ['a', 1]", "list", ["a", 1]),
        ("x = []", "list", []),
        ("x = {'a': 1}", "dict", {"a": 1}),
        ("x = date(2018, 1, 2)", "date", "2018-01-02"),
        ("x = dt.date(2018, 1, 2)", "date", "2018-01-02"),
        ("x = [date(2018, 1, 2)]", "list[date]", ["2018-01-02"]),
        ("x = datetime.datetime(2018, 1, 2, 9)", "datetime", "2018-01-02T09:00:00"),
        ("x = pd.Timestamp('2018-01-02 09:30')", "timestamp", "2018-01-02 09:30"),
        ("x = pd.Timestamp(2018, 1, 2)", "timestamp", "2018-01-02T00:00:00"),
        ("x = pd.to_datetime('2018-01-02')", "timestamp", "2018-01-02"),
        ("x = Path('a') ", "str", "a"),
        ("x = Mode.FAST", "enum", "FAST"),
        ("x = Mode('slow')", "enum", "SLOW"),
        ("x = Speed(1)", "enum", "FULL"),
        ("x = Color('red')", "enum", "RED"),
        ("x: int = 60", "int", 60),
        ("x: float = 1", "float", 1),
        ("x: 'int' = 60", "int", 60),
        ("x: date = date(2018, 1, 2)", "date", "2018-01-02"),
        ("x: datetime.date = date(2018, 1, 2)", "date", "2018-01-02"),
        ("x: pd.Timestamp = '2018-01-02'", "timestamp", "2018-01-02"),
        ("x: list[int] = []", "list[int]", []),
        ("x: List[str] = []", "list[str]", []),
        ("x: tuple[int, ...] = ()", "list[int]", []),
        ("x: list[date] = []", "list[date]", []),
        ("x: list[dict] = []", "list", []),
        ("x: dict[str, int] = {}", "dict", {}),
        ("x: Literal['a', 'b'] = 'a'", "literal", "a"),
        ("x: Side = 'long'", "literal", "long"),
        ("x: Mode = Mode.SLOW", "enum", "SLOW"),
        ("x: Level = Level.LOW", "enum", "LOW"),
        ("x: int | float = 1", "float", 1),
        ("x: int | str = 1", "any", 1),
        ("x: pd.DataFrame = None", "any", None),
        ("x: Optional[int] = None", "int", None),
        ("x: int | None = 5", "int", 5),
        ("x: Union[int, None] = 5", "int", 5),
        ("x = 2 ** 0", "int", 1),
        ("x: list = [1]", "list", [1]),
        ("x: set = [1]", "list", [1]),
        ("x: frozenset = [1]", "list", [1]),
        ("x: Set[int] = [1]", "list[int]", [1]),
        ("x: Dict = {}", "dict", {}),
        ("x: Annotated[int, 'days'] = 1", "int", 1),
        ("x: Any = 1", "any", 1),
        ("x: Literal[b'a'] = 'a'", "any", "a"),
    ],
)
def test_types_and_readable_defaults(as_notebook: Make, line: str, kind: str, default: Any) -> None:
    """From the annotation, else from the default; constants are computed, dates are text."""
    one = parameter(as_notebook, line, IMPORTS)
    assert (one.name, one.type, one.has_default) == ("x", kind, True)
    assert one.default == default
    assert type(one.default) is type(default)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("x = date.today()", "date"),
        ("x = dt.datetime.now()", "datetime"),
        ("x = pd.Timestamp.now().normalize()", "timestamp"),
        ("x = pd.Timestamp.today().date()", "date"),
        ("x = date.today() - dt.timedelta(days=1)", "date"),
        ("x = date.today() - date(2018, 1, 2)", "computed"),
        ("x = 1 + len('a')", "computed"),
        ("x = f'{1}'", "str"),
        ("x = not 1", "bool"),
        ("x = 1 < len('a')", "bool"),
        ("x = str(1)", "str"),
        ("x = compute()", "computed"),
        ("x: int = compute()", "int"),
        ("x = date(2018, 13, 2)", "date"),
        ("x = 1 / 0", "computed"),
        ("x = 9 ** 9 ** 9", "computed"),
        ("x: int", "int"),
        ("x = pd.Timestamp.utcnow()", "timestamp"),
        ("x = pd.Timestamp.now().tz_localize('UTC').tz_convert('CET')", "timestamp"),
        ("x = dict(a=1)", "dict"),
        ("x = {1: 'a'}", "dict"),
        ("x = Ticker('SPY')", "computed"),
        ("x: Any = compute()", "any"),
        ("x = -compute", "computed"),
        ("x = Mode.NONE", "computed"),
        ("x = Mode('none')", "enum"),
        ("x = Path(1)", "str"),
    ],
)
def test_defaults_known_only_at_run_time(as_notebook: Make, line: str, kind: str) -> None:
    """They are kept as source; the type is known where the text gives it."""
    one = parameter(as_notebook, line, IMPORTS)
    assert (one.type, one.has_default, one.default) == (kind, False, None)
    assert one.default_source == (line.partition(" = ")[2] if " = " in line else "")


@pytest.mark.parametrize(
    ("line", "optional"),
    [
        ("x: int = 1", False),
        ("x: int | str = 1", False),
        ("x: int | None = 1", True),
        ("x: Optional[int] = 1", True),
        ("x: Optional[int] | str = 1", True),
        ("x: int = None", True),
        ("x = None", True),
        ("x: Literal['a', None] = 'a'", True),
        ("x: 'Mode | None' = None", True),
    ],
)
def test_optional(as_notebook: Make, line: str, optional: bool) -> None:
    """`X | None` in any spelling, or a default of None."""
    assert parameter(as_notebook, line, IMPORTS).optional is optional


def test_choices(as_notebook: Make) -> None:
    """Literals as written, Enums by member name with their values."""
    one = parameter(as_notebook, "x: Literal['a', 2] | None = None", IMPORTS)
    assert (one.type, one.choices, one.choice_values) == ("literal", ("a", 2), ())
    one = parameter(as_notebook, "x: Mode | None = None", IMPORTS)
    assert (one.type, one.choices) == ("enum", ("FAST", "SLOW"))
    assert one.choice_values == ("fast", "slow")
    assert parameter(as_notebook, "x = Level.HIGH", IMPORTS).choice_values == (1, 2)


def test_descriptions_and_places(as_notebook: Make) -> None:
    """The comment behind the line, else the lines right above; directives are no prose."""
    text = """\
        # %% tags=["parameters"]
        # how far to look back,
        # in days
        lookback = 60
        start = "2018"  # first day
        # of the first on the line
        é = 'é'; end = 1

        plain = [
            1,
        ]  #: a list
        a, b = 1, "two"
        c = d = 3
        _private = 4
        plain.append(2)
        lookback = 90
        """
    found = {p.name: p for p in read(as_notebook(text)).parameters}
    assert list(found) == ["start", "é", "end", "plain", "a", "b", "c", "d", "lookback"]
    assert found["start"].description == "first day"
    assert found["é"].description == "of the first on the line"
    assert (found["end"].line, found["end"].column, found["end"].description) == (7, 10, "")
    assert (found["plain"].description, found["plain"].default) == ("a list", [1])
    assert found["plain"].default_source == "[\n    1,\n]"
    assert (found["b"].type, found["b"].default) == ("str", "two")
    assert found["lookback"].default == 90
    first = "# %% tags=['parameters']\n# how far to look back,\n# in days\nlookback = 60\n"
    (one,) = read(as_notebook(first)).parameters
    assert one.description == "how far to look back, in days"


def test_only_the_first_parameters_cell_counts(as_notebook: Make) -> None:
    """As papermill has it; the cell's number is named."""
    text = "# %%\nz = 1\n# %% tags=['parameters']\nx = 1\n# %% tags=['parameters']\ny = 1\n"
    interface = read(as_notebook(text))
    assert (interface.parameters_cell, [p.name for p in interface.parameters]) == (2, ["x"])
    assert read(as_notebook("# %%\nx = 1\n")).parameters_cell is None


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("# %% [markdown]\n# # Title\n#\n# text\n# %%\nx\n", "# Title\n\ntext"),
        ('"""Doc."""\n# %%\nx\n', "Doc."),
        ('# %%\n"""Doc."""\nx\n', "Doc."),
        ("# %%\nx = 1\n# %% [markdown]\n# later\n", ""),
        ("# %%\n# %% [markdown]\n# behind an empty cell\n", "behind an empty cell"),
        ("# Databricks notebook source\n# MAGIC %md # T\n", "# T"),
    ],
)
def test_description_is_the_leading_prose(as_notebook: Make, text: str, description: str) -> None:
    """A markdown cell or the docstring; prose further down describes a part only."""
    assert read(as_notebook(text)).description == description


@pytest.mark.parametrize(
    "text",
    [
        "from research_jobs import load\nload('a', 'b')",
        "from research_jobs import load as read\nread('a', 'b')",
        "from research_jobs import load\nload(notebook='a', output='b')",
        "from research_jobs import load\nload('a.py', output='b', columns=['x'])",
        "from research_jobs import *\nload('a', 'b')",
        "import research_jobs\nresearch_jobs.load('a', 'b')",
        "import research_jobs as rj\nrj.load('notebooks/a', 'b')",
        "from research_jobs.store.load import load\nload('a', 'b')",
        "import research_jobs.store.load\nresearch_jobs.store.load.load('a', 'b')",
        "from research_jobs.store import load\nload.load('a', 'b')",
        "def f():\n    from research_jobs import load\n    return [load('a', 'b') for _ in x]",
    ],
)
def test_load_calls(as_notebook: Make, text: str) -> None:
    """By any name and anywhere, with literal arguments."""
    loads = read(as_notebook(f"# %%\n{text}\n")).units[0].loads
    assert [(call.notebook, call.output) for call in loads] == [("a", "b")]
    assert loads[0].path == "notebooks/study.py"


def test_what_is_no_load_call(as_notebook: Make) -> None:
    """Other libraries' load, names computed at run time; a computed output means any output."""
    text = """\
        # %%
        import numpy as np
        from research_jobs import load
        np.load("a", "b")
        load(name, "b")
        load(f"{name}", "b")
        load(*args)
        load()
        load("volatility.garch", name)
        json.load("a", "b")
        """
    loads = read(as_notebook(text)).units[0].loads
    assert [(c.notebook, c.output, c.line, c.column) for c in loads] == [
        ("volatility/garch", None, 9, 1)
    ]
    assert read(as_notebook("# %%\nload('a', 'b')\n")).units[0].loads == ()


def test_assigned_names(as_notebook: Make) -> None:
    """Everything that binds a name at module level, and nothing that does not."""
    text = """\
        # %%
        import a.b, c as d
        from e import f as g
        h, (i, *j) = 1, (2, 3)
        k: int = 1
        undeclared: int
        l += 1
        for m in x:
            n = 1
        else:
            o = 1
        with open() as p, open() as (q, r):
            pass
        try:
            s = 1
        except ValueError as gone:
            t = 1
        finally:
            u = 1
        if (v := 1) and [w := 1 for inner in x]:
            y = 1
        def fn():
            hidden = 1
            global z
        class K:
            hidden = 1
        match x:
            case {"a": aa, **bb} if (cc := 1):
                dd = 1
            case [ee, *ff] | Foo(ee, ff):
                pass
        obj.attribute = 1
        obj["item"] = 1
        lambda: (hidden := 1)
        while (gg := f()):
            pass
        async with x as hh:
            pass
        h = 5
        """
    assigned = read(as_notebook(text)).assigned
    expected = "a d g h i j k l m n o p q r s t u v w y fn K aa bb cc dd ee ff gg hh z"
    assert " ".join(sorted(assigned)) == " ".join(sorted(expected.split(" ")))
    assert assigned["h"] == 4


def test_imports(as_notebook: Make) -> None:
    """Absolute names, from anywhere in the file; what only type checkers read is left out."""
    text = """\
        # %%
        import numpy as np, scipy.stats
        from pandas import DataFrame
        from . import sibling
        from .sub import x
        from .. import top
        from ... import outside
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import polars
        def f():
            import lazy
        importlib.import_module("named.module")
        importlib.import_module(".relative", __package__)
        importlib.import_module(name)
        """
    refs = read(as_notebook(text)).imports
    assert sorted({absolute(ref, "volatility") for ref in refs} - {""}) == [
        "lazy",
        "named.module",
        "numpy",
        "pandas",
        "scipy.stats",
        "typing",
        "volatility",
        "volatility.relative",
        "volatility.sub",
    ]
