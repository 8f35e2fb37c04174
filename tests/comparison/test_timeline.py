"""A table by its column of time: which column, and what is known before a moment."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_jobs.comparison.timeline import NoTimeError, cut_file, open_timeline
from research_jobs.store.codec import read_output, write_output

ZURICH = ZoneInfo("Europe/Zurich")
DAYS = [date(2018, 3, day) for day in (24, 25, 26)]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Write a value, and return its file."""

    def write(value: Any) -> Path:
        path = tmp_path / "x.parquet"
        write_output("x", value, path, options={}, metadata={})
        return path

    return write


def known(path: Path, moment: str, zone: ZoneInfo = ZURICH, column: str | None = None) -> list[int]:
    """The numbers of the rows that are known before a moment."""
    timeline = open_timeline(path, zone, column)
    return [int(n) for n in timeline.before(datetime.fromisoformat(moment)).nonzero()[0]]


def test_a_day_is_known_when_it_is_over(written: Any) -> None:
    """A date belongs to its whole day in the zone, however long that is."""
    path = written(pd.DataFrame({"day": DAYS, "x": 1.0}))
    assert known(path, "2018-03-25T00:00:00+01:00") == [0]
    assert known(path, "2018-03-25T23:59:59+02:00") == [0]
    assert known(path, "2018-03-26T00:00:00+02:00") == [0, 1]  # 23 hours later
    assert known(path, "2018-03-25T22:00:00+00:00") == [0, 1]


def test_a_window_is_half_open(written: Any) -> None:
    """A row at the cut itself is not known: of local times, and of moments in another zone."""
    times = pd.to_datetime(["2018-07-01 11:59", "2018-07-01 12:00", None])
    path = written(pd.DataFrame({"time": times}))
    assert known(path, "2018-07-01T12:00:00+02:00") == [0, 2]
    path = written(pl.DataFrame({"time": times[:2].tz_localize("America/New_York")}))
    assert known(path, "2018-07-01T18:00:00+02:00") == [0]
    assert known(path, "2018-07-01T18:00:00.000001+02:00") == [0, 1]


def test_a_local_time_that_clocks_repeat_is_taken_for_the_first(written: Any) -> None:
    """Whoever cut it off might accuse a notebook that read it an hour earlier."""
    path = written(pd.DataFrame({"time": pd.to_datetime(["2018-10-28 02:30", "2018-10-28 03:00"])}))
    assert known(path, "2018-10-28T02:00:00+02:00") == []
    assert known(path, "2018-10-28T02:00:00+01:00") == [0]
    assert known(path, "2018-10-28T03:00:00+01:00") == [0]
    assert known(path, "2018-10-28T03:00:01+01:00") == [0, 1]


def test_which_column_is_the_one_of_time(written: Any) -> None:
    """Declared, an index, the only one, by name, as text; a doubt is told with what to declare."""
    both = pd.DataFrame({"expiry": DAYS, "date": DAYS, "x": 1})
    assert open_timeline(written(both), ZURICH).column == "date"
    assert open_timeline(written(both), ZURICH, "expiry").column == "expiry"
    index = both.set_index(pd.DatetimeIndex(DAYS, name="asof"))
    assert open_timeline(written(index), ZURICH).column == "asof"
    text = pd.DataFrame({"date": ["2018-03-24", "2018-03-25"], "name": ["a", "b"]})
    assert known(written(text), "2018-03-25T00:00:00+01:00") == [0]
    with pytest.raises(NoTimeError, match=r"several columns of time \(a, b\); declare one"):
        open_timeline(written(pd.DataFrame({"a": DAYS, "b": DAYS})), ZURICH)
    with pytest.raises(NoTimeError, match="declare it with `time: COLUMN`"):
        open_timeline(written(pd.DataFrame({"a": [1]})), ZURICH)
    with pytest.raises(NoTimeError, match="no column 'dat'"):
        open_timeline(written(both), ZURICH, "dat")
    with pytest.raises(NoTimeError, match="no dates or times, but int64"):
        open_timeline(written(both), ZURICH, "x")


FRAME = pd.DataFrame({"date": pd.to_datetime(DAYS), "x": [1, 2, 3]})
VALUES = {
    "frame": (FRAME, FRAME.iloc[:1]),
    "unsorted": (FRAME.iloc[[2, 0, 1]], FRAME.iloc[[0]]),
    "series": (FRAME.set_index("date")["x"], FRAME.set_index("date")["x"].iloc[:1]),
    "polars": (pl.from_pandas(FRAME), pl.from_pandas(FRAME)[:1]),
    "arrow": (pa.table({"date": DAYS}), pa.table({"date": DAYS[:1]})),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_cut_value_is_of_the_same_kind(name: str, written: Any, tmp_path: Path) -> None:
    """Notebooks read a value of the same type, with the labels that its rows had."""
    value, expected = VALUES[name]
    path, to = written(value), tmp_path / "y.parquet"
    moment = datetime.fromisoformat("2018-03-25T00:00:00+01:00")
    assert cut_file(open_timeline(path, ZURICH), path, moment, to) == 2
    found = read_output(to)
    assert type(found) is type(value)
    assert found.equals(expected)
