"""What differs between two tables, against a comparison so simple that it must be right."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research_jobs.comparison import differing, matching
from research_jobs.comparison.changes import TableChange
from research_jobs.comparison.outputs import compare_output
from research_jobs.comparison.tables import compare_tables
from research_jobs.comparison.workspace import Limits
from research_jobs.store.codec import write_output

TINY = Limits(rows=4, partition=4, chunk=8, bytes=64)
DAY = date(2018, 11, 1)
ZONED = datetime(2018, 11, 1, tzinfo=timezone.utc)


def number(r: random.Random) -> float:
    return r.choice([0.0, -0.0, math.nan, math.inf, r.uniform(-1e6, 1e6), float(r.randrange(9))])


def text(r: random.Random) -> str:
    return "".join(r.choice("aé\0日 ") for _ in range(r.choice([0, 1, 7, 8, 9, 40, 300])))


VALUES: dict[str, tuple[Any, Any]] = {
    "int": (pa.int64(), lambda r: r.randrange(-(2**63), 2**63)),
    "unsigned": (pa.uint64(), lambda r: r.randrange(2**64)),
    "small": (pa.int8(), lambda r: r.randrange(-9, 9)),
    "float": (pa.float64(), number),
    "single": (pa.float32(), lambda r: float(np.float32(number(r)))),
    "text": (pa.string(), text),
    "category": (pa.dictionary(pa.int8(), pa.string()), lambda r: r.choice(["a", "b", ""])),
    "bytes": (pa.binary(), lambda r: text(r).encode()),
    "flag": (pa.bool_(), lambda r: r.random() < 0.5),
    "day": (pa.date32(), lambda r: DAY + timedelta(r.randrange(9999))),
    "moment": (
        pa.timestamp("us", "Europe/Zagreb"),
        lambda r: ZONED + timedelta(seconds=r.randrange(9**9)),
    ),
    "length": (pa.duration("us"), lambda r: timedelta(microseconds=r.randrange(9**9))),
    "decimal": (pa.decimal128(20, 3), lambda r: Decimal(r.randrange(10**12)) / 1000),
    "list": (pa.list_(pa.float64()), lambda r: [number(r) for _ in range(r.randrange(3))]),
    "record": (
        pa.struct([("x", pa.int64()), ("y", pa.string())]),
        lambda r: {"x": r.randrange(9), "y": text(r)},
    ),
}
NUMBERS = {"int", "unsigned", "small", "float", "single", "decimal"}


def plain(value: Any) -> Any:
    """A value that is equal exactly if it counts as the same."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    if isinstance(value, list):
        return ("list", *map(plain, value))
    if isinstance(value, dict):
        return ("record", *((key, plain(item)) for key, item in value.items()))
    return value


def value(r: random.Random, kind: str) -> Any:
    return None if r.random() < 0.15 else VALUES[kind][1](r)


def table(names: list[str], types: list[Any], rows: list[list[Any]]) -> pa.Table:
    return pa.table(
        {
            name: pa.array([row[place] for row in rows], types[place])
            for place, name in enumerate(names)
        }
    )


def simple(keys: int, before: pa.Table, after: pa.Table) -> dict[str, Any]:
    """Rows by the first `keys` columns; of equal keys, equal rows cancel, others are paired."""
    names = [name for name in before.schema.names if name in after.schema.names]
    groups: list[dict[Any, list[Any]]] = []
    for side in (before, after):
        found: dict[Any, list[Any]] = defaultdict(list)
        for row in side.select(names).to_pylist():
            cells = [plain(row[name]) for name in names]
            found[tuple(cells[:keys])].append((tuple(cells), row))
        groups.append(found)
    counts = Counter[str]()
    columns = Counter[str]()
    sizes: dict[str, list[float]] = defaultdict(list)
    for key in groups[0].keys() | groups[1].keys():
        left = Counter(cells for cells, _ in groups[0].get(key, []))
        right = Counter(cells for cells, _ in groups[1].get(key, []))
        old = [r for c, r in groups[0].get(key, []) if (left - right)[c]]
        new = [r for c, r in groups[1].get(key, []) if (right - left)[c]]
        lost, come = sum((left - right).values()), sum((right - left).values())
        counts["changed"] += min(lost, come)
        counts["removed"] += lost - min(lost, come)
        counts["added"] += come - min(lost, come)
        if lost == come == 1:
            for name in names[keys:]:
                a, b = old[0][name], new[0][name]
                if plain(a) != plain(b):
                    columns[name] += 1
                    if (
                        isinstance(a, int | float | Decimal)
                        and b is not None
                        and not isinstance(a, bool)
                    ):
                        sizes[name].append(abs(float(b) - float(a)))
    return {
        "rows": (counts["added"], counts["removed"], counts["changed"]),
        "columns": {name: count for name, count in columns.items() if count},
        "sizes": sizes,
    }


def check(found: TableChange, wanted: dict[str, Any]) -> None:
    assert (found.rows_added, found.rows_removed, found.rows_changed) == wanted["rows"]
    assert {name: c.changed for name, c in found.columns.items() if c.changed} == wanted["columns"]
    for name, all_sizes in wanted["sizes"].items():
        sizes = [size for size in all_sizes if not math.isnan(size)]
        column = found.columns[name]
        if name.partition("_")[0] in NUMBERS and sizes:
            assert column.typical == pytest.approx(statistics.median(sizes))
            assert column.largest is not None
            assert abs(column.largest.change) == pytest.approx(max(sizes))


def edited(r: random.Random, rows: list[list[Any]], kinds: list[str], keys: int) -> list[list[Any]]:
    """The rows after some cells, rows and their order were changed."""
    found = [list(row) for row in rows if r.random() > 0.1]
    for row in found:
        if keys < len(kinds) and r.random() < 0.3:
            place = r.randrange(keys, len(kinds))
            row[place] = value(r, kinds[place])
    r.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_the_same_as_a_simple_comparison(tmp_path: Path, seed: int) -> None:
    """Random tables, edited at random: every count and size is right, in memory and on disk."""
    r = random.Random(seed)
    keys = r.randrange(1, 3)
    kinds = [r.choice([k for k in VALUES if k not in ("list", "record")]) for _ in range(keys)]
    kinds += r.choices(list(VALUES), k=r.randrange(5))
    names = [f"{kind}_{place}" for place, kind in enumerate(kinds)]
    types = [VALUES[kind][0] for kind in kinds]
    seen: set[Any] = set()
    rows: list[list[Any]] = []
    for _ in range(r.choice([0, 1, 30, 120])):
        row = [value(r, kind) for kind in kinds]
        if tuple(map(plain, row[:keys])) not in seen:
            seen.add(tuple(map(plain, row[:keys])))
            rows.append(row)
    cut = r.randrange(len(rows) + 1)
    before = table(names, types, rows[:cut] + rows[cut : cut + 3])
    after = table(names, types, edited(r, rows[:cut], kinds, keys) + rows[cut + 3 : cut + 8])
    for side, content in (("before", before), ("after", after)):
        pq.write_table(content, tmp_path / f"{side}.parquet", row_group_size=r.choice([7, 1000]))
    paths = tmp_path / "before.parquet", tmp_path / "after.parquet"
    found = compare_tables(*paths, unique=names[:keys])
    check(found, simple(keys, before, after))
    assert compare_tables(*paths, unique=names[:keys], limits=TINY, folder=tmp_path) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.parquet", "before.parquet"]


@pytest.mark.parametrize("seed", range(10))
def test_keys_that_repeat_are_matched_one_to_one(tmp_path: Path, seed: int) -> None:
    """Of rows with the same key equal ones cancel and the others are paired, as often as each."""
    r = random.Random(seed)
    rows = [[r.choice([None, 1, 2]), r.choice([0.0, -0.0, math.nan, None, 1.0])] for _ in range(60)]
    before = table(["small", "float"], [pa.int8(), pa.float64()], rows)
    after = table(
        ["small", "float"], [pa.int8(), pa.float64()], edited(r, rows, ["small", "float"], 0)
    )
    pq.write_table(before, tmp_path / "before.parquet")
    pq.write_table(after, tmp_path / "after.parquet")
    for limits in (Limits(), TINY):
        found = compare_tables(
            tmp_path / "before.parquet", tmp_path / "after.parquet", unique=["small"], limits=limits
        )
        wanted = simple(1, before, after)["rows"]
        assert (found.rows_added, found.rows_removed, found.rows_changed) == wanted


def compared(tmp_path: Path, before: Any, after: Any, **options: Any) -> Any:
    paths = tmp_path / "before.parquet", tmp_path / "after.parquet"
    for path, content in zip(paths, (before, after), strict=True):
        path.unlink(missing_ok=True)
        write_output("x", content, path, options={}, metadata={})
    return compare_output(*paths, **options)


def prices() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": np.repeat(pd.bdate_range("2018-11-01", periods=30), 4),
            "ticker": np.tile(["AAPL", "IBM", "MSFT", "T"], 30),
            "close": np.arange(120) / 3,
            "volume": np.arange(120) % 7,
        }
    )


def test_a_key_is_found_and_the_largest_change_is_named(tmp_path: Path) -> None:
    """Without a declared key, times and texts that identify a row are its key."""
    after = prices().sample(frac=1, random_state=1).reset_index(drop=True)
    row = after.index[(after.date == "2018-11-02") & (after.ticker == "IBM")][0]
    after.loc[row, "close"] = 5.0
    found = compared(tmp_path, prices(), after).table
    assert (found.key, found.key_reason) == (("date", "ticker"), "found: unique on both sides")
    largest = found.columns["close"].largest
    assert (largest.key, largest.after) == ("2018-11-02, IBM", 5.0)
    assert largest.relative == pytest.approx(2.0)
    assert found.changed[0].cells == {"close": ("1.66666667", "5")}


def test_an_index_is_the_key(tmp_path: Path) -> None:
    """An index with several levels, one of them without a name, identifies rows."""
    before = prices().set_index(["date", "ticker"])
    before.index.names = [None, "ticker"]
    found = compared(tmp_path, before, before.iloc[:0:-1]).table
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (0, 1, 0)
    assert found.key == ("index", "ticker")
    assert found.removed[0].key == "2018-11-01, AAPL"


def test_rows_without_a_key(tmp_path: Path) -> None:
    """Sorted alike they are matched by position, else as whole rows."""
    before = pd.DataFrame({"day": [1, 1, 2, 2, 3], "x": [1.0, 2.0, 3.0, 3.0, 5.0]})
    after = before.assign(x=[1.0, 2.0, 4.0, 3.0, 5.0])
    found = compared(tmp_path, before, after).table
    assert found.key_reason == "row by row: both are sorted by day"
    assert (found.rows_changed, found.changed[0].key) == (1, "row 2")
    found = compared(tmp_path, before, after.iloc[[3, 1, 0, 2, 4]].reset_index(drop=True)).table
    assert found.key_reason == "whole rows: nothing identifies a row"
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (1, 1, 0)
    paths = pd.DataFrame(np.ones((6, 3)))
    assert compared(tmp_path, paths, paths + 1).table.rows_changed == 6


def test_columns_that_come_go_and_change_their_type(tmp_path: Path) -> None:
    """A wider type is reported, and its values are compared all the same."""
    after = prices().drop(columns="close").assign(volume=lambda f: f.volume.astype(float), new=1)
    after.loc[3, "volume"] = 2.5
    found = compared(tmp_path, prices(), after, unique=["date", "ticker"]).table
    assert {name: c.status for name, c in found.columns.items()} == {
        "close": "removed",
        "volume": "changed",
        "new": "added",
    }
    volume = found.columns["volume"]
    assert (volume.type_before, volume.type_after, volume.changed) == ("int64", "float64", 1)
    assert (volume.largest.before, volume.largest.after) == (3.0, 2.5)
    texts = prices().assign(volume="many")
    volume = compared(tmp_path, prices(), texts).table.columns["volume"]
    assert (volume.compared, volume.changed) == (False, 0)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (pa.array([1, None], pa.timestamp("ms")), pa.array([1_000, None], pa.timestamp("us")), 0),
        (
            pa.array([1], pa.timestamp("s", "UTC")),
            pa.array([1], pa.timestamp("s", "Asia/Tokyo")),
            0,
        ),
        (pa.array([1], pa.date32()), pa.array([86_400], pa.timestamp("s")), 0),
        (pa.array(["a"]), pa.array(["a"]).dictionary_encode(), 0),
        (pa.array([Decimal("1.50")]), pa.array([Decimal("1.5")]), 0),
        (pa.array([Decimal("1.5")]), pa.array([1.5]), 0),
        (pa.array([True]), pa.array([1]), 0),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([-1]), 1),
        (pa.array([None]), pa.array([1]), 1),
        (pa.array([b"ab"], pa.binary(2)), pa.array([b"ab"]), 0),
        (pa.array([[1]], pa.list_(pa.int8())), pa.array([[1]], pa.large_list(pa.int64())), 0),
        (pa.array([1.0], pa.float16()), pa.array([1.0]), 0),
    ],
)
def test_values_of_different_types(tmp_path: Path, before: Any, after: Any, changed: int) -> None:
    """Values are compared in a type that has both; that the type changed is a difference."""
    for name, column in (("before", before), ("after", after)):
        content = pa.table({"key": range(len(column)), "x": column})
        pq.write_table(content, tmp_path / f"{name}.parquet", store_schema=True)
    paths = tmp_path / "before.parquet", tmp_path / "after.parquet"
    found = compare_tables(*paths)
    assert found.rows_changed == changed
    assert not found.equal


def test_times_that_do_not_fit_are_not_compared(tmp_path: Path) -> None:
    """A column whose values fit into no common type is reported, and the others are compared."""
    far = pa.array([253_402_300_000_000], pa.timestamp("ms"))
    for name, column in (("before", far), ("after", pa.array([1], pa.timestamp("ns")))):
        pq.write_table(pa.table({"key": [1], "x": column}), tmp_path / f"{name}.parquet")
    found = compare_tables(tmp_path / "before.parquet", tmp_path / "after.parquet")
    assert (found.columns["x"].compared, found.rows_changed) == (False, 0)


def test_tolerance_is_for_floats(tmp_path: Path) -> None:
    """Floats within the tolerance are the same; integers never are."""
    before = pd.DataFrame({"k": list("abc"), "x": [1.0, 1e9, 0.0], "n": [10**9, 2, 3]})
    after = before.assign(x=[1.0 + 1e-10, 1e9 + 0.1, 1e-10], n=[10**9 + 1, 2, 3])
    found = compared(tmp_path, before, after, tolerance=1e-9).table
    assert {name: column.changed for name, column in found.columns.items()} == {"n": 1}
    assert compared(tmp_path, before, after).table.columns["x"].changed == 3


def test_names_that_a_file_repeats(tmp_path: Path) -> None:
    """Columns of the same name, which only other programs write, are told apart by number."""
    for name, last in (("before", 3), ("after", 4)):
        columns = [pa.array([1]), pa.array([2]), pa.array([last])]
        pq.write_table(pa.Table.from_arrays(columns, ["a", "b", "b"]), tmp_path / f"{name}.parquet")
    found = compare_tables(tmp_path / "before.parquet", tmp_path / "after.parquet", unique=["a"])
    assert list(found.columns) == ["b (2)"]


def test_tables_without_rows_or_columns(tmp_path: Path) -> None:
    """Empty tables and tables without columns are compared as others are."""
    empty = pd.DataFrame({"a": pd.Series(dtype="int64")})
    assert compared(tmp_path, empty, empty).equal
    assert compared(tmp_path, empty, pd.DataFrame({"a": [1]})).table.rows_added == 1
    bare = pd.DataFrame(index=pd.RangeIndex(3))
    assert compared(tmp_path, bare, pd.DataFrame(index=pd.RangeIndex(5))).table.rows_added == 2
    none = pa.table({"a": [1]}).drop_columns("a")
    for name in ("before", "after"):
        pq.write_table(none, tmp_path / f"{name}.parquet")
    assert compare_tables(tmp_path / "before.parquet", tmp_path / "after.parquet").equal


def test_keys_with_the_same_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that only share the hash of their key are not taken for the same row."""
    for module in (matching, differing):
        monkeypatch.setattr(module, "key_hashes", lambda _p, _s, rows, _c: np.zeros(rows, "u8"))
    before = pd.DataFrame({"k": ["one", "two"], "x": [1, 2]})
    after = pd.DataFrame({"k": ["three", "two"], "x": [3, 5]})
    found = compared(tmp_path, before, after, unique=["k"]).table
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (1, 1, 1)
