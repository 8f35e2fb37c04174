"""Parameter values: checked, converted, restored."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
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
from research_jobs.notebook.facts import read_facts
from research_jobs.notebook.interface import Parameter
from research_jobs.notebook.parameters import convert_parameters, missing_parameters
from research_jobs.notebook.restoring import restore_parameter

Make = Callable[..., NotebookText]
DAY = dt.date(2018, 11, 1)


class Mode(enum.Enum):
    FAST = "fast"
    TWO = 2


class Pair(NamedTuple):
    a: int
    b: int


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
        ("datetime", "2018-11-01t09:30:00z", "2018-11-01T09:30:00+00:00"),
        ("datetime", "2018-11-01T09:30:00.5+0100", "2018-11-01T09:30:00.500000+01:00"),
        ("datetime", DAY, "2018-11-01T00:00:00"),
        ("datetime", "2018-11-01 09:30:00.123456789", "2018-11-01T09:30:00.123456"),
        ("datetime", "2018-11-01T09:30-05", "2018-11-01T09:30:00-05:00"),
        ("datetime", "2018-11-01T09:30+0545", "2018-11-01T09:30:00+05:45"),
        ("datetime", "20181101T0930+05:45", "2018-11-01T09:30:00+05:45"),
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
        ("list[str]", set("hgfedcba"), list("abcdefgh")),
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
        ("int", "sixty", "x = 'sixty' is not a whole number. Example: 60."),
        ("int", True, "x = True is not a whole number"),
        ("int", 60.5, "x = 60.5 is not a whole number"),
        ("int", "1e999999", "is not a whole number"),
        ("int", "inf", "x = 'inf' is not a whole number"),
        ("int", "nan", "x = 'nan' is not a whole number"),
        ("enum", None, "Give a value, or declare it as its Enum | None"),
        ("int", "60.5", "x = '60.5' is not a whole number"),
        ("int", None, "x = None is not a whole number. Give a value, or declare it as int | None"),
        ("float", True, "x = True is not a number"),
        ("float", np.bool_(False), "x = np.False_ is not a number"),
        ("list[float]", [0.5, True], "Item 2 is True."),
        ("list[int]", [True], "Item 1 is True."),
        ("float", "5%", "x = '5%' is not a number. Write it as 0.05."),
        ("float", "0,5", "Write it as 0.5."),
        ("bool", 1, "x = 1 is not true or false"),
        ("bool", "maybe", "is not true or false"),
        ("str", False, 'x = False is not text. Put it in quotes: "false"'),
        ("str", 7, 'Put it in quotes: "7"'),
        ("date", "01.11.2018", "Write it as year-month-day: 2018-11-01."),
        ("date", "2018-02-30", "x = '2018-02-30' is not a date. Day"),
        ("date", dt.datetime(2018, 11, 1, 9), "is not a date. It includes a time of day."),  # noqa: DTZ001 - as YAML reads it
        ("date", "today", "is not a date. Example: 2018-11-01."),
        ("date", pd.NaT, "x = NaT is not a date"),
        ("datetime", "2018-11-01 25:00", "is not a date and time. Hour must be in 0..23"),
        ("datetime", "2018-11-01 09:30 or so", "is not a date and time"),
        ("timestamp", "1st of May", "is not a timestamp"),
        ("list[int]", [1, "b"], "is not a list where each item is a whole number. Item 2 is 'b'."),
        ("list[int]", 5, "x = 5 is not a list"),
        ("list[str]", "[SPY", "It begins with [ but does not end with ]."),
        ("dict", "a=1", "x = 'a=1' is not a mapping. Example: {\"SPY\": 0.5}."),
        ("dict", {1: 2}, "Its keys must be text, and 1 is not."),
        ("any", object, "A type cannot be passed to another process"),
        ("any", b"x", "A bytes cannot be passed"),
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


@pytest.mark.parametrize("spell", [str, str.upper, str.title, " {} ".format])
def test_words_for_true_and_false(spell: Callable[[str], str]) -> None:
    """A truth value may be any of these words, in any case."""
    for word in ("true", "yes", "on", "1", "y", "t"):
        assert convert(parameter("bool"), spell(word)) is True
    for word in ("false", "no", "off", "0", "n", "f"):
        assert convert(parameter("bool"), spell(word)) is False


@pytest.mark.parametrize("value", ["FAST", "Mode.FAST", "fast", Mode.FAST])
def test_a_member_in_any_spelling(value: Any) -> None:
    """By its name, as the notebook writes it, by its value, or the member itself."""
    one = parameter("enum", choices=("FAST", "TWO"), choice_values=("fast", 2))
    assert convert(one, value) == "FAST"
    assert convert(parameter("any"), value) == ("FAST" if value is Mode.FAST else value)
    for other in ("nope", "Mode.nope", "FAST.nope", ""):
        with pytest.raises(ParameterError, match="is not one of FAST, TWO"):
            convert(one, other)


@pytest.mark.parametrize("value", [True, 1.0, False, 0.0])
def test_a_choice_is_of_its_own_type(value: Any) -> None:
    """What equals a choice and is of another type is not it: True is not 1."""
    for one in (
        parameter("literal", choices=(0, 1)),
        parameter("enum", choices=("A", "B"), choice_values=(0, 1)),
    ):
        with pytest.raises(ParameterError, match="is not one of"):
            convert(one, value)
    both = parameter("literal", choices=(1, True, 0, False))
    assert [type(convert(both, v)) for v in (1, True, 0, False)] == [int, bool, int, bool]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.5", 2.5),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0", 0),
        ("1_000", 1000),
        ("0x10", 16),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("[1, a, 2.5]", [1, "a", 2.5]),
        ('["1", 1]', ["1", 1]),
        ('{"a": 1}', {"a": 1}),
        # text, for it is quoted or not what the others are
        ('"5"', "5"),
        ("'5'", "5"),
        ("'it''s'", "it's"),
        ('"open', '"open'),
        ("007", "007"),
        ("1__0", "1__0"),
        ("2018-11-01", "2018-11-01"),
        ("1.5.2", "1.5.2"),
        ("no", "no"),
        ("nan", "nan"),
        ("e3", "e3"),
        ("1,2", "1,2"),
        ("", ""),
        ("TRUE", True),
        ("9" * 300, int("9" * 300)),
        ("9" * 301, "9" * 301),
    ],
)
def test_text_for_a_parameter_of_unknown_type(text: str, expected: Any) -> None:
    """A command line's text is read as YAML; the same text from YAML or Python means text."""
    one = parameter("any")
    result = convert_parameters([one], {"x": text}, notebook="study", text=True)["x"]
    assert (result, type(result)) == (expected, type(expected))
    assert convert(one, text) == text
    # where the default is computed its class decides, so the text travels as it is
    assert convert_parameters([parameter("computed")], {"x": text}, notebook="n", text=True) == (
        {"x": text}
    )


@pytest.mark.parametrize("text", ["{a: 1}", "[1, 2", "[[1], x]", "[{a: 1}]", "1e999"])
def test_text_that_only_looks_like_a_value(text: str) -> None:
    """It is refused rather than taken for text."""
    with pytest.raises(ParameterError, match="is not a value that fits JSON"):
        convert_parameters([parameter("any")], {"x": text}, notebook="study", text=True)


def test_items_of_a_list_of_unknown_types() -> None:
    """`-p xs=1,2` gives numbers where nothing says that text is meant."""
    assert convert(parameter("list"), "1,2.5,a,true") == [1, 2.5, "a", True]
    assert convert(parameter("list"), ["1", 2]) == ["1", 2]
    assert convert(parameter("list[str]"), "1,2") == ["1", "2"]


class Price(float):
    """A number of a class of its own."""


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("2.5", 1.5, 2.5),
        (2, 1.5, 2.0),
        ("2.5", np.float64(1.5), np.float64(2.5)),
        ("nan", 1.5, math.nan),
        ("2.5", Price(1), Price(2.5)),
        ("5", 1, 5),
        ("5", np.int32(1), np.int32(5)),
        ("no", True, False),
        ("yes", np.bool_(False), np.bool_(True)),
        ("5", "a", "5"),
        ("2.50", "a", "2.50"),
        ("2.5", None, 2.5),
        ("eu", None, "eu"),
        ("2018-11-01", DAY, DAY),
        ("2018-11-01", dt.datetime(2018, 1, 1), dt.datetime(2018, 11, 1)),  # noqa: DTZ001
        ("2018-11-01", pd.Timestamp("2018-01-01"), pd.Timestamp("2018-11-01")),
        ("09:30", dt.time(1), dt.time(9, 30)),
        ("3 days", pd.Timedelta(days=1), pd.Timedelta(days=3)),
        ("0.1", decimal.Decimal(1), decimal.Decimal("0.1")),
        (0.1, decimal.Decimal(1), decimal.Decimal("0.1")),
        ("a/b", Path("c"), Path("a/b")),
        ("fast", Mode.TWO, Mode.FAST),
        ('{"a": 1}', {"b": 2}, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1}),
        ("1,2", [0], [1, 2]),
        ("[1, 2]", (0,), (1, 2)),
        ("a", {"b"}, {"a"}),
        ([1, 2], frozenset(), frozenset({1, 2})),
        ("1,2", range(3), [1, 2]),
        ([3, 4], Pair(0, 0), Pair(3, 4)),
    ],
)
def test_computed_defaults_decide(value: Any, default: Any, expected: Any) -> None:
    """A value of a parameter whose default is computed gets the class that the default has."""
    restored = restore_parameter(value, "computed", default, name="x")
    assert type(restored) is type(expected)
    assert restored == expected or (restored != restored and expected != expected)  # noqa: PLR0124


def test_an_array_as_computed_default() -> None:
    """An array takes a list, in its own type."""
    restored = restore_parameter("1,2", "computed", np.array([0.5]), name="x")
    assert (restored.dtype, restored.tolist()) == (np.dtype("float64"), [1.0, 2.0])
    with pytest.raises(ParameterError, match="x = 'a' is not a ndarray"):
        restore_parameter("a", "computed", np.array([0.5]), name="x")


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        ("abc", 1.5, "x = 'abc' is not a number, as the notebook's default 1.5 is"),
        ("5%", np.float64(1), "Write it as 0.05."),
        (2.5, 1, "x = 2.5 is not a whole number"),
        ("abc", True, "is not true or false"),
        (5, "a", 'Put it in quotes: "5"'),
        (5, dt.timedelta(days=1), "is not a timedelta"),
        ("5", pd.Timedelta(days=1), "is not a Timedelta"),
        ("5 parsecs", pd.Timedelta(days=1), "is not a Timedelta"),
        ("9 o'clock", dt.time(1), "is not a time"),
        ("x", DAY, "is not a date"),
        ("x", pd.Timestamp("2018-01-01"), "is not a Timestamp"),
        ("x", decimal.Decimal(1), "is not a Decimal"),
        (True, decimal.Decimal(1), "is not a Decimal"),
        (5, Path("c"), "is not a PosixPath"),
        ("SLOW", Mode.TWO, "'SLOW' is not a member of Mode"),
        ("a", {"b": 2}, "is not a mapping"),
        (5, [0], "is not a list"),
        ([[1]], {1}, "is not a set"),
        ([1], Pair(0, 0), "Its fields are a, b."),
        ("x", object(), "is not an object"),
        ("x", pd.DataFrame(), "from a parameter of a plain type"),
        ("x", len, "is not a builtin_function_or_method"),
    ],
)
def test_values_that_a_computed_default_refuses(value: Any, default: Any, message: str) -> None:
    """One line that names the parameter, the value and what the default is."""
    with pytest.raises(ParameterError) as caught:
        restore_parameter(value, "computed", default, name="x")
    assert message in caught.value.headline
    assert "\n" not in caught.value.headline


@pytest.mark.parametrize("text", ["~", "null", "None", " NULL "])
@pytest.mark.parametrize("kind", ["int", "str", "date", "list[int]", "dict"])
def test_none_as_text(kind: str, text: str) -> None:
    """Where None is a value, a command line can give it; elsewhere the text is no value or text."""
    assert convert(parameter(kind, optional=True), text) is None
    if kind == "str":
        assert convert(parameter(kind), text) == text


def test_none_for_a_computed_default() -> None:
    """`null` needs an annotation that allows it."""
    with pytest.raises(ParameterError, match="declare a type"):
        convert(parameter("computed"), None)
    assert convert(parameter("computed", optional=True), "null") is None


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
            read_facts(text, notebook=True, shown="n.py").parameters,
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
    parameters = read_facts(text, notebook=True, shown="n.py").parameters
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
    with pytest.raises(ParameterError, match=r"not a member of Mode. Did you mean 'FAST'\?"):
        restore_parameter("FATS", "enum", Mode.TWO)


def test_missing_values(as_notebook: Make) -> None:
    """A bare annotation has no default in the editor either."""
    text = as_notebook('# %% tags=["parameters"]\nday: str\nlookback = 60\n')
    parameters = read_facts(text, notebook=True, shown="n.py").parameters
    assert missing_parameters(parameters, {}) == ("day",)
    assert missing_parameters(parameters, {"day": "x"}) == ()


def test_pandas_is_imported_only_for_a_timestamp() -> None:
    """The fresh process pays for it only where a value needs it."""
    code = (
        "import sys; from research_jobs.notebook.restoring import restore_parameter as r;"
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
                     "list[date]", "list", "dict", "literal", "enum", "any", "computed"]),
    st.text() | st.none() | st.booleans() | st.integers() | st.floats() | st.dates()
    | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()),
    st.booleans(),
)  # fmt: skip
def test_any_value_converts_or_is_an_error_of_ours(kind: str, value: Any, text: bool) -> None:
    """And what converts is JSON."""
    one = parameter(kind, choices=("a", 1) if kind == "literal" else ())
    try:
        result = convert_parameters([one], {"x": value}, notebook="study", text=text)
    except ParameterError as error:
        result = error.headline
    json.dumps(result)
