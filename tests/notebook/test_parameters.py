"""Parameter values: checked, converted, restored."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.errors import ParameterError
from research_jobs.notebook.cells import NotebookText
from research_jobs.notebook.interface import Parameter, read_interface
from research_jobs.notebook.parameters import (
    convert_parameters,
    missing_parameters,
    restore_parameter,
)

Make = Callable[..., NotebookText]
DAY = dt.date(2018, 11, 1)


def parameter(kind: str, **fields: Any) -> Parameter:
    values: dict[str, Any] = {
        "name": "x",
        "type": kind,
        "optional": False,
        "has_default": False,
        "default": None,
        "default_source": "compute()",
        "choices": (),
        "description": "",
        "line": 8,
        "column": 1,
    }
    return Parameter(**values | fields)


def convert(one: Parameter, value: Any) -> Any:
    return convert_parameters([one], {"x": value}, notebook="momentum")["x"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("int", 60, 60),
        ("int", "60", 60),
        ("int", " 1_000 ", 1000),
        ("int", "0x10", 16),
        ("int", "007", 7),
        ("int", "1e3", 1000),
        ("int", 60.0, 60),
        ("int", np.int64(60), 60),
        ("float", 1, 1.0),
        ("float", "0.5", 0.5),
        ("float", "1e-3", 0.001),
        ("float", decimal.Decimal("0.5"), 0.5),
        ("float", np.float32(0.5), 0.5),
        ("bool", True, True),
        ("bool", "yes", True),
        ("bool", "False", False),
        ("bool", "0", False),
        ("bool", np.bool_(True), True),
        ("str", "a", "a"),
        ("str", "", ""),
        ("str", DAY, "2018-11-01"),
        ("str", Path("a/b"), "a/b"),
        ("date", "2018-11-01", "2018-11-01"),
        ("date", "20181101", "2018-11-01"),
        ("date", 20181101, "2018-11-01"),
        ("date", DAY, "2018-11-01"),
        ("date", dt.datetime(2018, 11, 1), "2018-11-01"),  # noqa: DTZ001 - as YAML reads it
        ("date", "2018-11-01T00:00:00", "2018-11-01"),
        ("date", pd.Timestamp("2018-11-01"), "2018-11-01"),
        ("datetime", "2018-11-01", "2018-11-01T00:00:00"),
        ("datetime", "2018-11-01 09:30", "2018-11-01T09:30:00"),
        ("datetime", "2018-11-01T09:30:00Z", "2018-11-01T09:30:00+00:00"),
        ("datetime", "2018-11-01T09:30:00.5+0100", "2018-11-01T09:30:00.500000+01:00"),
        ("datetime", DAY, "2018-11-01T00:00:00"),
        ("timestamp", "2018-11-01 09:30:00.123456789", "2018-11-01T09:30:00.123456789"),
        ("timestamp", pd.Timestamp("2018-11-01", tz="UTC"), "2018-11-01T00:00:00+00:00"),
        ("list", [1, "a"], [1, "a"]),
        ("list[int]", "1,2, 3", [1, 2, 3]),
        ("list[int]", "[1, 2]", [1, 2]),
        ("list[int]", (1, 2), [1, 2]),
        ("list[int]", np.array([1, 2]), [1, 2]),
        ("list[str]", "SPY", ["SPY"]),
        ("list[str]", "[SPY, 'QQQ']", ["SPY", "QQQ"]),
        ("list[str]", "", []),
        ("list[str]", {"b", "a"}, ["a", "b"]),
        ("list[date]", [DAY, "2018-11-02"], ["2018-11-01", "2018-11-02"]),
        ("dict", {"a": [DAY]}, {"a": ["2018-11-01"]}),
        ("dict", '{"a": 1}', {"a": 1}),
        ("any", "60", "60"),
        ("any", None, None),
        ("any", [1, {"a": None}], [1, {"a": None}]),
    ],
)
def test_values_that_convert(kind: str, value: Any, expected: Any) -> None:
    """From a command line's text, from YAML and from Python, to one JSON value."""
    result = convert(parameter(kind), value)
    assert result == expected
    assert type(result) is type(expected)
    json.dumps(result)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("int", "sixty", "x = 'sixty' is not a whole number. An example: 60."),
        ("int", True, "x = True is not a whole number"),
        ("int", 60.5, "x = 60.5 is not a whole number"),
        ("int", "1e999999", "is not a whole number"),
        ("int", None, "x = None is not a whole number. Give a value, or declare it as int | None"),
        ("float", "5%", "x = '5%' is not a number. Write it as 0.05."),
        ("float", "0,5", "Write it as 0.5."),
        ("bool", 1, "x = 1 is not true or false"),
        ("bool", "maybe", "is not true or false"),
        ("str", False, 'x = False is not text. Put it in quotes: "false"'),
        ("str", 7, 'Put it in quotes: "7"'),
        ("date", "01.11.2018", "Write it as year-month-day: 2018-11-01."),
        ("date", "2018-02-30", "x = '2018-02-30' is not a date. Day"),
        ("date", dt.datetime(2018, 11, 1, 9), "is not a date. It has a time of day."),  # noqa: DTZ001 - as YAML reads it
        ("date", "today", "is not a date. An example: 2018-11-01."),
        ("datetime", "2018-11-01 25:00", "is not a date and time. Hour must be in 0..23"),
        ("timestamp", "1st of May", "is not a timestamp"),
        ("list[int]", [1, "b"], "is not a list of which each is a whole number. Item 2 is 'b'."),
        ("list[int]", 5, "x = 5 is not a list"),
        ("list[str]", "[SPY", "It begins with [ and has no ] at its end."),
        ("dict", "a=1", "x = 'a=1' is not a mapping. An example: {\"SPY\": 0.5}."),
        ("dict", {1: 2}, "Its keys must be text, and 1 is none."),
        ("any", object, "A type cannot be handed to another process"),
        ("any", b"x", "A bytes cannot be handed"),
    ],
)
def test_values_that_do_not_convert(kind: str, value: Any, message: str) -> None:
    """One line: where, which notebook and parameter, what is wrong, what would do."""
    with pytest.raises(ParameterError) as caught:
        convert(parameter(kind), value)
    text = str(caught.value)
    assert text.startswith("notebooks/momentum.py:8:1: momentum: x = ")
    assert message in text
    assert "\n" not in text


def test_a_value_that_contains_itself() -> None:
    """It is refused, not followed."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ParameterError, match="It contains itself"):
        convert(parameter("any"), endless)


def test_the_default_is_shown() -> None:
    """It is the best example of what would do."""
    one = parameter("int", has_default=True, default=60, default_source="60")
    with pytest.raises(ParameterError, match=r"is not a whole number\. The default is 60\."):
        convert(one, "sixty")


def test_where_the_value_came_from_stands_first(as_notebook: Make) -> None:
    """The place to mend is the manifest, the place to look up the notebook."""
    text = as_notebook('# %% tags=["parameters"]\nlookback = 60\n', "/p/notebooks/a/b.py")
    with pytest.raises(ParameterError) as caught:
        convert_parameters(
            read_interface(text).parameters,
            {"lookback": "sixty"},
            notebook="a/b",
            where="notebooks/manifest.yaml:12:18",
        )
    assert str(caught.value) == (
        "notebooks/manifest.yaml:12:18: a/b: lookback = 'sixty' is not a whole number "
        "(declared in notebooks/a/b.py:2:1). The default is 60."
    )


def test_unknown_names(as_notebook: Make) -> None:
    """Misspelt: a suggestion; no parameters at all: how to declare one."""
    text = as_notebook('# %% tags=["parameters"]\nlookback = 60\nstart = 1\n')
    parameters = read_interface(text).parameters
    with pytest.raises(ParameterError) as caught:
        convert_parameters(parameters, {"lookbak": 1}, notebook="study")
    assert str(caught.value) == (
        "notebooks/study.py:2: study has no parameter 'lookbak'. Did you mean 'lookback'?"
    )
    with pytest.raises(ParameterError, match="Parameters: lookback, start"):
        convert_parameters(parameters, {"zzz": 1}, notebook="study")
    with pytest.raises(ParameterError, match='# %% tags=\\["parameters"\\]'):
        convert_parameters([], {"x": 1}, notebook="study")


def test_optional_values() -> None:
    """None, and its spellings on a command line."""
    one = parameter("int", optional=True)
    assert [convert(one, value) for value in (None, "none", "null", "5")] == [None, None, None, 5]
    literal = parameter("literal", optional=True, choices=("none", "a"))
    assert convert(literal, "none") == "none"
    with pytest.raises(ParameterError, match="is not a whole number or null"):
        convert(one, "x")


def test_choices() -> None:
    """Literals by value, Enum members by name, value or as the notebook writes them."""
    literal = parameter("literal", choices=("fast", 2))
    assert [convert(literal, value) for value in ("fast", 2, "2")] == ["fast", 2, 2]
    member = parameter("enum", choices=("FAST", "SLOW"), choice_values=("f", 2))
    values: list[Any] = ["FAST", "f", 2, "2", "Mode.SLOW"]
    assert [convert(member, value) for value in values] == ["FAST", "FAST", "SLOW", "SLOW", "SLOW"]
    with pytest.raises(ParameterError) as caught:
        convert(literal, "fst")
    assert "x = 'fst' is not one of fast, 2. Did you mean 'fast'?" in str(caught.value)
    with pytest.raises(ParameterError, match="is not one of FAST, SLOW"):
        convert(member, True)
    assert convert(parameter("enum"), "SOME") == "SOME"


class Mode(enum.Enum):
    FAST = "fast"
    TWO = 2


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    ("value", "kind", "default", "expected"),
    [
        (None, "int", 5, None),
        (60, "int", 5, 60),
        (1, "float", 0.5, 1.0),
        ("2018-11-01", "date", DAY, DAY),
        ("2018-11-01", "date", None, DAY),
        ("2018-11-01T09:30:00", "datetime", None, dt.datetime(2018, 11, 1, 9, 30)),  # noqa: DTZ001 - as YAML reads it
        ("2018-11-01T00:00:00", "timestamp", None, pd.Timestamp("2018-11-01")),
        ("2018-11-01", "any", pd.Timestamp("2017-01-01"), pd.Timestamp("2018-11-01")),
        ("2018-11-01", "any", DAY, DAY),
        ("FAST", "enum", Mode.TWO, Mode.FAST),
        ("fast", "enum", Mode.TWO, Mode.FAST),
        (2, "any", Mode.FAST, Mode.TWO),
        (["2018-11-01"], "list[date]", [], [DAY]),
        ([1, 2], "list[int]", (0,), (1, 2)),
        (["a"], "list", {"b"}, {"a"}),
        ([1, 2], "list[int]", Pair(0, 0), Pair(1, 2)),
        ([1, 2], "any", (0,), (1, 2)),
        ("a/b", "str", Path("c"), Path("a/b")),
        ("0.1", "any", decimal.Decimal("0.5"), decimal.Decimal("0.1")),
        (0.1, "any", decimal.Decimal("0.5"), decimal.Decimal("0.1")),
        ({"a": 1}, "dict", {}, {"a": 1}),
        ("a", "any", None, "a"),
    ],
)
def test_restoring(value: Any, kind: str, default: Any, expected: Any) -> None:
    """The notebook gets the type that it works with; its default says what the text did not."""
    restored = restore_parameter(value, kind, default)
    assert restored == expected
    assert type(restored) is type(expected)


def test_restoring_an_enum_by_its_annotation() -> None:
    """Where the default is None only the annotation knows the class."""
    assert restore_parameter("FAST", "enum", None, Mode | None) is Mode.FAST
    assert restore_parameter("FAST", "enum", None) == "FAST"
    with pytest.raises(ParameterError, match=r"no member of Mode. Did you mean 'FAST'\?"):
        restore_parameter("FATS", "enum", Mode.TWO)


def test_missing_values(as_notebook: Make) -> None:
    """A bare annotation has no default in the editor either."""
    text = as_notebook('# %% tags=["parameters"]\nday: str\nlookback = 60\n')
    parameters = read_interface(text).parameters
    assert missing_parameters(parameters, {}) == ("day",)
    assert missing_parameters(parameters, {"day": "x"}) == ()


def test_pandas_is_imported_only_for_a_timestamp() -> None:
    """The fresh process pays for it only where a value needs it."""
    code = (
        "import sys; from research_jobs.notebook.parameters import restore_parameter as r;"
        "r('2018-11-01', 'date', None); assert 'pandas' not in sys.modules;"
        "assert type(r('2018-11-01', 'timestamp', None)).__name__ == 'Timestamp'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.datetimes() | st.datetimes(timezones=st.timezones()))
def test_moments_survive_the_way(value: dt.datetime) -> None:
    """Converted and restored, a datetime shows the same clock and offset."""
    restored = restore_parameter(convert(parameter("datetime"), value), "datetime", None)
    assert restored.isoformat() == value.isoformat()
    restored = restore_parameter(
        convert(parameter("datetime"), value.isoformat()), "datetime", None
    )
    assert restored.isoformat() == value.isoformat()


@given(
    st.sampled_from(["int", "float", "bool", "str", "date", "datetime", "timestamp", "list[int]",
                     "list[date]", "list", "dict", "literal", "enum", "any"]),
    st.text() | st.none() | st.booleans() | st.integers() | st.floats() | st.dates()
    | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()),
)  # fmt: skip
def test_any_value_converts_or_is_an_error_of_ours(kind: str, value: Any) -> None:
    """And what converts is JSON."""
    try:
        result = convert(parameter(kind, choices=("a", 1) if kind == "literal" else ()), value)
    except ParameterError as error:
        result = error.headline
    json.dumps(result)
