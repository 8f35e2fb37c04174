"""`load`: which version, which partition, which columns, and what it says when there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_jobs.errors import (
    CorruptOutputError,
    OutputNotFoundError,
    PartitionError,
    ProjectError,
    StoreError,
)
from research_jobs.protocol import PartitionKey
from research_jobs.run_context import RunContext, set_context
from research_jobs.store.backends import backend_of
from research_jobs.store.load import Outputs, load
from research_jobs.store.stored import stored_outputs, stored_partitions, stored_versions

KEYS = ["2018-11-01", "2018-11-02", "2018-11-05"]


def window(key: str, days: int = 1) -> PartitionKey:
    start = datetime.fromisoformat(key).replace(tzinfo=timezone.utc)
    end = start + timedelta(days=days)
    return PartitionKey(key, {"run_date": key}, start.isoformat(), end.isoformat())


@pytest.fixture
def signals(put: Any) -> None:
    """Three days of a partitioned notebook."""
    for place, key in enumerate(KEYS):
        frame = pd.DataFrame({"ticker": ["A", "B"], "weight": [place, place + 0.5]})
        put("signals", {"signals": frame, "note": f"day {key}"}, window(key))


@pytest.fixture
def run() -> Iterator[Any]:
    """Make the test a run of a partition."""

    def enter(key: str, dimensions: dict[str, str] | None = None, days: int = 1) -> None:
        found = window(key, days)
        assert found.start is not None
        assert found.end is not None
        start, end = datetime.fromisoformat(found.start), datetime.fromisoformat(found.end)
        own = dimensions or {"run_date": key}
        set_context(RunContext("me", "r", key, own, start, end, in_batch=True))

    yield enter
    set_context(RunContext())


def test_the_only_output_needs_no_name(put: Any) -> None:
    """One output is given as it is; of several a mapping is given."""
    put("one", {"x": [1]})
    put("two", {"x": [1], "y": 2})
    assert load("one") == [1]
    assert dict(load("two")) == {"x": [1], "y": 2}
    assert repr(load("two")) == "<Outputs of two: x, y>"


def test_a_mapping_stays_with_its_version(put: Any) -> None:
    """What is published while a mapping is read does not show in it."""
    put("a", {"x": 1, "y": 1})
    outputs = load("a")
    put("a", {"x": 2, "y": 2})
    put("a", {"x": 3, "y": 3})
    assert (outputs["x"], outputs["y"], load("a", "x")) == (1, 1, 3)
    assert set(outputs) == {"x", "y"}
    with pytest.raises(KeyError):
        outputs["z"]


@pytest.mark.usefixtures("signals")
def test_one_partition_is_equal_to_what_was_written() -> None:
    """A key gives the value itself, without a column added; a date is a key too."""
    wanted = pd.DataFrame({"ticker": ["A", "B"], "weight": [1, 1.5]})
    for key in ("2018-11-02", date(2018, 11, 2), {"run_date": "2018-11-02"}, window(KEYS[1])):
        pd.testing.assert_frame_equal(load("signals", "signals", key), wanted)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("partition", "keys"),
    [
        (None, KEYS),
        ("all", KEYS),
        (["2018-11-05", "2018-11-01"], ["2018-11-05", "2018-11-01"]),
        (("2018-11-01", "2018-11-03"), KEYS[:2]),
        (slice("2018-11-02", None), KEYS[1:]),
        (slice(date(2018, 11, 2), date(2018, 11, 2)), KEYS[1:2]),
        ({"run_date": KEYS[:1]}, KEYS[:1]),
        ([KEYS[1], KEYS[0], date(2018, 11, 2)], [KEYS[1], KEYS[0]]),
        ({"run_date": slice(None, "2018-11-02")}, KEYS[:2]),
        ((None, datetime(2018, 11, 2, tzinfo=timezone.utc)), KEYS[:2]),
    ],
    ids=str,
)
def test_several_partitions_are_one_frame(partition: Any, keys: list[str]) -> None:
    """All, a list and a range are read as one frame with the key as its last column."""
    found = load("signals", "signals", partition)
    assert list(found.columns) == ["ticker", "weight", "run_date"]
    assert list(dict.fromkeys(found["run_date"])) == keys
    assert len(found) == 2 * len(keys)
    assert isinstance(found.index, pd.RangeIndex)


@pytest.mark.usefixtures("signals")
def test_other_forms_of_several_partitions() -> None:
    """polars, Arrow and a lazy frame have the column too; values that are no tables are a dict."""
    assert load("signals", "signals", as_="polars").columns == ["ticker", "weight", "run_date"]
    assert load("signals", "signals", as_="arrow").column_names[-1] == "run_date"
    lazy = load("signals", "signals", as_="lazy", columns=["run_date"])
    assert isinstance(lazy, pl.LazyFrame)
    assert set(lazy.collect()["run_date"]) == set(KEYS)
    assert load("signals", "note") == {key: f"day {key}" for key in KEYS}
    assert [path.parent.name for path in load("signals", "signals", as_="path")] == [
        f"run_date={key}" for key in KEYS
    ]


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("form", ["native", "pandas", "polars", "lazy", "arrow"])
def test_filters_reach_partitions_and_rows(form: str) -> None:
    """A filter may name the key and columns, in any form, and may leave nothing."""
    wanted = [("run_date", ">", "2018-11-01"), ("ticker", "=", "B")]
    found = _pandas(load("signals", "signals", filters=wanted, as_=form))
    assert list(found["weight"]) == [1.5, 2.5]
    either = [[("run_date", "=", KEYS[0])], [("weight", ">", 2.2)]]
    found = _pandas(load("signals", "signals", filters=either, as_=form, columns=["weight"]))
    assert list(found["weight"]) == [0, 0.5, 2.5]
    nothing = load("signals", "signals", filters=[("run_date", "=", "x")], as_=form)
    assert len(_pandas(nothing)) == 0


def _pandas(value: Any) -> pd.DataFrame:
    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    if isinstance(value, pl.DataFrame):
        return pd.DataFrame(value.to_dict(as_series=False))
    return pd.DataFrame(value.to_pydict()) if isinstance(value, pa.Table) else value


def test_partitions_whose_columns_differ(put: Any) -> None:
    """A column that came later, and one whose type changed, are joined as pandas joins them."""
    put("s", {"s": pd.DataFrame({"a": [1]})}, PartitionKey("1", {"k": "1"}))
    put("s", {"s": pd.DataFrame({"a": [1.5], "b": ["x"]})}, PartitionKey("2", {"k": "2"}))
    put("s", {"s": pd.DataFrame({"a": np.array([], "i8")})}, PartitionKey("3", {"k": "3"}))
    found = load("s")
    assert list(found["a"]) == [1, 1.5]
    assert list(found["k"]) == ["1", "2"]
    assert load("s", as_="polars").height == 2
    assert load("s", as_="arrow").num_rows == 2
    for form in ("pandas", "polars", "arrow", "lazy"):
        found = load("s", columns=["b", "k"], as_=form)
        table = pl.DataFrame(found.collect() if form == "lazy" else found)
        assert table.select("b", "k").rows()[:2] == [(None, "1"), ("x", "2")], form
    with pytest.raises(StoreError, match="no column 'c'"):
        load("s", columns=["b", "c"])


@pytest.mark.parametrize("form", ["polars", "arrow", "lazy"])
def test_partitions_whose_types_differ(put: Any, form: str) -> None:
    """What cannot be joined is said, with a way out, and no file is called damaged."""
    for key, zone in (("1", "UTC"), ("2", None)):
        times = pd.DatetimeIndex(["2020-01-01"], tz=zone)
        put("s", {"s": pd.DataFrame({"a": times})}, PartitionKey(key, {"k": key}))
    with pytest.raises(StoreError, match=r"a column differs in type.*Read them one by one"):
        load("s", as_=form)
    assert len(load("s")) == 2


def test_a_day_without_a_column_is_read_with_the_others(put: Any) -> None:
    """An empty frame without columns, as of a holiday, does not stop those that have them."""
    put("s", {"s": pd.DataFrame()}, PartitionKey("1", {"k": "1"}))
    put("s", {"s": pd.DataFrame({"a": [1]})}, PartitionKey("2", {"k": "2"}))
    assert load("s", columns=["a", "k"])[["a", "k"]].to_numpy().tolist() == [[1, "2"]]


def test_a_column_named_as_the_key_stays(put: Any) -> None:
    """A frame that has the partition's column itself keeps its own."""
    for key in KEYS:
        frame = pd.DataFrame({"run_date": [pd.Timestamp(key)], "x": [1]})
        put("s", {"s": frame}, window(key))
    assert list(load("s")["run_date"]) == [pd.Timestamp(key) for key in KEYS]


def test_an_index_survives_joining(put: Any) -> None:
    """Frames with an index of times keep it, one after another."""
    for key in KEYS:
        index = pd.date_range(key, periods=2, freq="h", name="time")
        put("s", {"s": pd.DataFrame({"x": [1, 2]}, index=index)}, window(key))
    found = load("s")
    assert found.index.name == "time"
    assert list(found.index.normalize().unique()) == [pd.Timestamp(key) for key in KEYS]


def test_two_dimensions(put: Any) -> None:
    """A mapping chooses by dimension; one that names them all is one partition."""
    for day in "12":
        for ticker in ("A", "B/C"):
            key = PartitionKey(f"{day}|{ticker}", {"day": day, "ticker": ticker})
            put("s", {"s": pd.DataFrame({"x": [day + ticker]})}, key)
    assert list(load("s", "s", {"ticker": "B/C"})["x"]) == ["1B/C", "2B/C"]
    assert list(load("s", "s", {"ticker": "A", "day": ("1", "1")})["day"]) == ["1"]
    assert list(load("s", "s", {"ticker": "A", "day": "2"}).columns) == ["x"]
    assert list(load("s", "s", "2|A")["x"]) == ["2A"]
    assert [key.key for key in stored_partitions_of("s")] == ["1|A", "1|B/C", "2|A", "2|B/C"]


def stored_partitions_of(notebook: str) -> Any:
    from research_jobs.project import find_project

    return stored_partitions(find_project().store, notebook)


# -- in a partitioned run --------------------------------------------------------------------


@pytest.mark.usefixtures("signals")
def test_a_run_reads_its_own_partition(run: Any) -> None:
    """In the run of a day, a notebook partitioned likewise gives that day."""
    run("2018-11-02")
    assert list(load("signals", "signals")["weight"]) == [1, 1.5]
    assert load("signals", "note") == "day 2018-11-02"
    assert len(load("signals", "signals", "all")) == 6
    run("2018-11-02", {"day": "2018-11-02"})  # another name for the same partitioning
    assert load("signals", "note") == "day 2018-11-02"


def test_a_run_of_a_value_reads_it_under_any_name(put: Any, run: Any) -> None:
    """Where no time is the measure, a key is the same key whatever its parameter is called."""
    assert run
    for key in ("eu", "us"):
        put("a", {"x": key}, PartitionKey(key, {"region": key}))
    for own in ({"region": "eu"}, {"market": "eu"}):
        set_context(RunContext("me", "r", "eu", own, in_batch=True))
        assert load("a", "x") == "eu"


@pytest.mark.usefixtures("signals")
def test_a_run_whose_partition_is_missing(run: Any) -> None:
    """It fails and says which partitions there are, rather than reading another one."""
    run("2018-11-03")
    with pytest.raises(OutputNotFoundError, match=r"no partition 2018-11-03.*2018-11-01, 2018"):
        load("signals", "signals")


@pytest.mark.usefixtures("signals")
def test_a_week_reads_its_days(run: Any) -> None:
    """A run over a longer window reads the partitions in it, as one frame."""
    run("2018-10-29", days=7)
    assert list(dict.fromkeys(load("signals", "signals")["run_date"])) == KEYS[:2]


@pytest.mark.usefixtures("signals")
def test_a_week_of_which_one_day_is_there(run: Any) -> None:
    """The key's column distinguishes a part of what the run's window asks for from the whole."""
    run("2018-11-04", days=7)
    assert list(load("signals", "signals")["run_date"]) == [KEYS[2]] * 2
    assert load("signals", "note") == {KEYS[2]: f"day {KEYS[2]}"}


def test_a_partition_that_is_called_all(put: Any) -> None:
    """A key is taken as a key first."""
    for key in ("all", "eu"):
        put("a", {"x": key}, PartitionKey(key, {"region": key}))
    assert load("a", "x", "all") == "all"
    assert load("a", "x", slice(None, None)) == {"all": "all", "eu": "eu"}


def test_paths_of_an_old_version(put: Any) -> None:
    """The path of the current version is the stable one, that of an old version its own file."""
    for value in (1, 2):
        put("a", {"x": value}, keep={"x": 1})
    assert load("a", "x", as_="path").name == "x.parquet"
    old = load("a", "x", as_="path", version=-1)
    assert (old.parent.name, old.name) == ("000001-run1", "x.pq")


def test_a_day_reads_its_week(put: Any, run: Any) -> None:
    """A run within a longer partition reads that one as it is."""
    put("weekly", {"x": "week"}, window("2018-10-29", 7))
    put("weekly", {"x": "next"}, window("2018-11-05", 7))
    run("2018-11-02")
    assert load("weekly", "x") == "week"


def test_an_unpartitioned_notebook_reads_the_same_in_any_run(put: Any, run: Any) -> None:
    """A partitioned run reads an unpartitioned notebook as it is."""
    put("prices", {"x": 1})
    run("2018-11-02")
    assert load("prices", "x") == 1


def test_a_notebook_that_became_partitioned(put: Any) -> None:
    """What was published last counts when a notebook changes its partitioning."""
    put("a", {"x": "plain"})
    assert load("a") == "plain"
    put("a", {"x": "day"}, window("2018-11-01"))
    assert load("a") == {"2018-11-01": "day"}
    assert load("a", partition="2018-11-01") == "day"


# -- where there is nothing ------------------------------------------------------------------


@pytest.mark.usefixtures("signals")
def test_errors_say_what_there_is(store: str, put: Any) -> None:
    """Unknown notebook, output, partition, version and column: one line, with close names."""
    put("market_data", {"prices": pd.DataFrame({"Close": [1]})})
    notebooks = Path(store).parent / "notebooks"
    (notebooks / "volatility.py").write_text("# %%\n")
    calls: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        (("market_dta",), {}, "no notebook 'market_dta'.* Did you mean 'market_data'"),
        (("volatility",), {}, "no outputs in data yet. Run it: research-jobs run volatility"),
        (("market_data", "price"), {}, "no output 'price'. Did you mean 'prices'"),
        (("market_data", "prices", "2018"), {}, "market_data is not partitioned"),
        (("signals", "signals", "2018-11-03"), {}, "There are: 2018-11-01, 2018-11-02"),
        (("signals", "signals", ("2019", None)), {}, "no partition in the range"),
        (("signals", "signals", {"day": "1"}), {}, "not partitioned by 'day'"),
        (("signals", "signals", []), {}, "list of partitions is empty"),
        (("signals", "signals", 5), {}, "5 is not a partition"),
        (("market_data", "prices"), {"version": -1}, "no version -1. 0 older"),
        (("market_data", "prices"), {"version": 1}, "no version 1. 0 older"),
        (("market_data", "prices"), {"version": "000009-x"}, "There are: 000001-run1"),
        (("market_data", "prices"), {"columns": ["close"]}, "no column 'close'.*'Close'"),
        (("market_data", "prices"), {"filters": [("Close", "~", 1)]}, "not a filter"),
        (("market_data", "prices"), {"as_": "spark"}, "as_='spark'"),
        (("signals",), {"columns": ["x"]}, "several outputs. Name one: signals, note"),
        (("signals", "note", KEYS[0]), {"columns": ["x"]}, "no columns or rows to select"),
    ]
    for arguments, keywords, message in calls:
        with pytest.raises((OutputNotFoundError, StoreError, PartitionError), match=message):
            load(*arguments, **keywords)


def test_from_outside_by_the_store_alone(
    put: Any, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESEARCH_JOBS_STORE is enough where there is no project; without it, it is said what is."""
    put("a", {"x": 1})
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError):
        load("a")
    assert load("a", project=Path(store).parent) == 1
    monkeypatch.setenv("RESEARCH_JOBS_STORE", store)
    assert load("a") == 1
    with pytest.raises(ProjectError):  # asked for by name, it is not replaced by another
        load("a", project=tmp_path / "elsewhere")


def test_loading_leaves_the_store_as_it_is(put: Any, store: str) -> None:
    """Reading writes nothing, so that a read-only store can be read."""
    put("a", {"x": 1})
    before = {path: path.lstat().st_mtime_ns for path in Path(store).rglob("*")}
    assert load("a") == 1
    assert {path: path.lstat().st_mtime_ns for path in Path(store).rglob("*")} == before


def test_a_lazy_frame_outlives_publishing(put: Any) -> None:
    """A frame that is collected later reads the version that it was made for."""
    put("a", {"x": pl.LazyFrame({"n": [1]})})
    lazy = load("a")
    for number in (2, 3):
        put("a", {"x": pl.LazyFrame({"n": [number]})})
    assert lazy.collect()["n"].to_list() == [1]


def test_a_listing_of_the_store(put: Any, store: str) -> None:
    """What is stored can be listed without reading it."""
    put("b/c", {"x": 1})
    put("a", {"y": 1}, window("2018-11-01"))
    assert backend_of(store).notebooks() == ("a", "b/c")
    assert stored_outputs(store, "b/c") == {"x": Path(store, "b/c/x.parquet")}
    assert stored_outputs(store, "nothing") == {}
    assert [key.key for key in stored_partitions(store, "a")] == ["2018-11-01"]
    for name in ("é", "z", "a"):
        put("keys", {"y": 1}, PartitionKey(name, {"k": name}))
    assert [key.key for key in stored_partitions(store, "keys")] == ["a", "z", "é"]


def test_outputs_take_a_partition_as_dagster_has_it(put: Any, store: str) -> None:
    """The mapping of one partition, as a downstream asset gets it."""
    put("a", {"y": 1}, window("2018-11-01"))
    outputs = Outputs(store, "a", window("2018-11-01"))
    assert dict(outputs) == {"y": 1}
    assert outputs.paths("y")[0].is_file()


def test_importing_load_imports_nothing_heavy() -> None:
    """`from research_jobs import load` costs no pyarrow, pandas or numpy."""
    script = (
        "import sys; from research_jobs import load;"
        "assert not {'pyarrow', 'pandas', 'numpy', 'polars', 'fsspec'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    "partition", [slice(1, 2), ("2018-11-01", 5), {"run_date": 5}, {"run_date": ("a", "b", 3)}]
)
def test_what_is_no_partition_is_said(partition: Any) -> None:
    """A wrong type anywhere in a request is one line with a way out."""
    with pytest.raises(PartitionError, match=r"is not a partition\. Give a key"):
        load("signals", "signals", partition)


def _description(store: str, notebook: str, version: str) -> Path:
    return Path(store, notebook, ".versions", version, "version.json")


def test_a_version_that_is_being_pruned_is_not_listed(put: Any, store: str) -> None:
    """Its description goes first: lists have the others, and a damaged one does not hide them."""
    for _ in range(3):
        put("one", {"x": [1]}, keep={"x": 5})
    third, second, first = (version.id for version in stored_versions(store, "one"))
    _description(store, "one", second).unlink()
    assert [version.id for version in stored_versions(store, "one")] == [third, first]
    _description(store, "one", first).write_text("{")
    with pytest.raises(OutputNotFoundError, match=rf"'nope'.*{third}, {second}, {first}"):
        load("one", version="nope")


@pytest.mark.parametrize("size", ['"many"', "[]", "1e999"])
def test_an_older_version_without_a_size_stops_no_publication(
    put: Any, store: str, size: str
) -> None:
    """What is committed counts, whatever the description of an older version says."""
    for _ in range(2):
        put("one", {"x": [1]}, keep={"x": 5})
    path = _description(store, "one", stored_versions(store, "one")[1].id)
    record = json.loads(path.read_text())
    record["outputs"]["x"]["bytes"] = "?"
    path.write_text(json.dumps(record).replace('"?"', size))
    put("one", {"x": [2]}, keep={"x": 5})
    assert load("one") == [2]


def test_a_damaged_window_is_an_error_of_ours(put: Any, store: str, run: Any) -> None:
    """A run that looks for the partitions in its window says which one is damaged."""
    put("signals", {"signals": [1]}, window(KEYS[0]))
    (path,) = Path(store, "signals").rglob("version.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"window": ["x", "y"]}))
    run("2018-10-31", {"other": "2018-10-31"})
    with pytest.raises(CorruptOutputError, match="is of no time window"):
        load("signals")
