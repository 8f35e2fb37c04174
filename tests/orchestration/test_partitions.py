"""Partitions of a manifest as Dagster's, keys as records, and the parameters that they set."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_jobs.errors import PartitionError
from research_jobs.manifest import NotebookSpec
from research_jobs.manifest.partitions import dimension_specs
from research_jobs.orchestration.model.partitions import (
    build_partitions,
    parameter_values,
    partition_key_of,
    time_dimension,
)
from research_jobs.protocol import PartitionKey

ZAGREB = "Europe/Zagreb"
NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)


def notebook(timezone: str = ZAGREB, **spec) -> NotebookSpec:
    """A notebook with what the manifest would say under `partitions`."""
    made = NotebookSpec.model_validate({"partitions": spec})
    assert made.partitions is not None
    return made.model_copy(update={"partitions": made.partitions.in_timezone(timezone)})


def keys(spec: NotebookSpec, at: datetime = NOW, **options) -> list[str]:
    """The keys that exist at a moment."""
    definition = build_partitions(spec, **options)
    assert definition is not None
    with dg.partition_loading_context(at):
        return [str(key) for key in definition.get_partition_keys()]


def test_no_partitions_are_none():
    """A notebook without partitions or variants has none in Dagster."""
    assert build_partitions(NotebookSpec()) is None


@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [
        ({"by": "hour", "start": "2026-03-29"}, "2026-03-29-00:00", "2026-03-30-13:00"),
        ({"by": "day", "start": "2026-03-01"}, "2026-03-01", "2026-03-29"),
        ({"by": "week", "start": "2026-03-01"}, "2026-03-02", "2026-03-23"),
        ({"by": "month", "start": "2025-01-01"}, "2025-01", "2026-02"),
        ({"by": "quarter", "start": 2025}, "2025-01", "2025-10"),
        ({"by": "year", "start": 2020}, "2020", "2025"),
        ({"by": "cron", "cron": "0 17 * * 1-5", "start": "2026-03-01"}, "2026-03-02", "2026-03-26"),
        (
            {"by": "cron", "cron": "*/30 * * * *", "start": "2026-03-30"},
            "2026-03-30-00:00",
            "2026-03-30-13:30",
        ),
        (
            {"by": "cron", "cron": "*/30 6 * * *", "start": "2026-03-29"},
            "2026-03-29-06:00",
            "2026-03-30-06:00",
        ),
        ({"by": "day", "start": "2026-03-01", "end": "2026-03-10"}, "2026-03-01", "2026-03-09"),
        ({"by": "day", "start": "2026-03-01", "offset": 1}, "2026-03-01", "2026-03-30"),
        ({"by": "day", "start": "2026-03-01", "offset": -1}, "2026-03-01", "2026-03-28"),
        ({"by": "day", "start": "2026-03-01", "format": "%Y%m%d"}, "20260301", "20260329"),
        ({"values": ["eu", "us"]}, "eu", "us"),
    ],
)
def test_each_kind_of_partition_has_the_keys_that_it_says(spec, first, last):
    """From the first to the last that is over, written as the format says."""
    found = keys(notebook(**spec))
    assert (found[0], found[-1]) == (first, last)
    assert len(found) == len(set(found))


def test_a_shifted_day_begins_later():
    """A trading day from 17:00 to 17:00 carries the date on which it began."""
    spec = notebook("America/New_York", by="day", start="2026-03-02", shift="17h")
    record = partition_key_of(spec, "2026-03-06")
    assert (record.start, record.end) == ("2026-03-06T17:00:00-05:00", "2026-03-07T17:00:00-05:00")
    assert partition_key_of(spec, "2026-03-07").end == "2026-03-08T17:00:00-04:00"


@pytest.mark.parametrize(
    ("zone", "day", "start", "end"),
    [
        (ZAGREB, "2026-03-29", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        (ZAGREB, "2026-10-25", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        (
            "America/New_York",
            "2026-03-08",
            "2026-03-08T00:00:00-05:00",
            "2026-03-09T00:00:00-04:00",
        ),
        ("UTC", "2026-03-29", "2026-03-29T00:00:00+00:00", "2026-03-30T00:00:00+00:00"),
    ],
)
def test_days_are_local_days_where_clocks_change(zone, day, start, end):
    """23 and 25 hours long, from midnight to midnight."""
    record = partition_key_of(notebook(zone, by="day", start="2026-01-01", parameter="d"), day)
    kind = {"d": f"day, {zone}, %Y-%m-%d"}
    assert record == PartitionKey(key=day, dimensions={"d": day}, start=start, end=end, by=kind)


def test_the_hour_that_comes_twice_has_two_partitions():
    """Key and offset distinguish them."""
    spec = notebook(by="hour", start="2026-10-25", parameter="at")
    found = keys(spec, datetime(2026, 10, 25, 12, tzinfo=UTC))
    assert found[2:5] == ["2026-10-25-02:00", "2026-10-25-02:00+0100", "2026-10-25-03:00"]
    starts = [partition_key_of(spec, key).start for key in found[2:4]]
    assert starts == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_times_of_day_in_one_gap_are_one_partition():
    """Where 02:00 and 02:30 are skipped both begin at 03:00, and none is empty."""
    spec = notebook(by="cron", cron="*/30 2 * * *", start="2026-03-28", end="2026-03-31")
    assert keys(spec, datetime(2026, 4, 1, tzinfo=UTC)) == [
        *("2026-03-28-02:00", "2026-03-28-02:30", "2026-03-29-03:00", "2026-03-30-02:00"),
    ]


def test_the_hour_that_does_not_come_has_no_partition():
    """In spring there is nothing between 02:00 and 03:00."""
    spec = notebook(by="hour", start="2026-03-29")
    found = keys(spec, datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert found[1:3] == ["2026-03-29-01:00", "2026-03-29-03:00"]


def test_a_calendar_leaves_closed_days_out(tmp_path: Path):
    """Weekends, Thanksgiving and Christmas have no partition; half days have."""
    spec = notebook("America/New_York", by="day", start="2025-11-24", calendar="XNYS")
    found = keys(spec, datetime(2025, 12, 31, tzinfo=UTC), cache=tmp_path)
    assert found[:6] == [
        *("2025-11-24", "2025-11-25", "2025-11-26", "2025-11-28", "2025-12-01", "2025-12-02"),
    ]
    assert "2025-12-24" in found
    assert "2025-12-25" not in found
    definition = build_partitions(spec, cache=tmp_path)
    assert definition is not None
    assert not definition.has_partition_key("2025-11-27")


def test_a_code_server_that_runs_over_new_year_knows_its_closed_days(tmp_path: Path):
    """A definition made in December leaves out the first of January, too."""
    spec = notebook("America/New_York", by="day", start="2025-12-29", calendar="XNYS")
    december = datetime(2025, 12, 30, tzinfo=UTC)
    found = keys(spec, datetime(2026, 1, 6, 12, tzinfo=UTC), cache=tmp_path, now=december)
    assert found[-4:] == ["2025-12-30", "2025-12-31", "2026-01-02", "2026-01-05"]


def test_a_run_of_a_partition_asks_no_calendar(monkeypatch: pytest.MonkeyPatch):
    """Which days are open is settled; to ask again would take each run a second."""
    name = "research_jobs.orchestration.model.partitions.closed_days"
    monkeypatch.setattr(name, lambda *_, **__: pytest.fail("it was asked"))
    spec = notebook("America/New_York", by="day", start="2025-11-24", calendar="XNYS")
    assert partition_key_of(spec, "2025-11-26").end == "2025-11-27T00:00:00-05:00"


def test_a_calendar_is_asked_for_once(tmp_path: Path):
    """The answer is kept: a second look reads a file, whatever it says."""
    spec = notebook(by="day", start="2025-06-01", end="2025-06-08", calendar="XNYS")
    build_partitions(spec, cache=tmp_path)
    kept = list((tmp_path / "calendars").glob("XNYS-*.json"))
    assert len(kept) == 1
    assert kept[0].read_text().startswith('["2025-06-02"')


def test_a_week_from_another_weekend(tmp_path: Path):
    """In Riyadh the market is closed on Fridays and Saturdays."""
    spec = notebook("Asia/Riyadh", by="day", start="2025-06-15", end="2025-06-29", calendar="XSAU")
    found = keys(spec, NOW, cache=tmp_path)
    assert {datetime.fromisoformat(key).strftime("%a") for key in found} == {
        *("Sun", "Mon", "Tue", "Wed", "Thu"),
    }


def test_every_open_day_of_a_short_span_has_a_partition(tmp_path: Path):
    """Weekdays that come after the span's last closed day are open too."""
    spec = notebook(by="day", start="2026-03-27", end="2026-04-02", calendar="XNYS")
    assert keys(spec, datetime(2026, 5, 1, tzinfo=UTC), cache=tmp_path) == [
        *("2026-03-27", "2026-03-30", "2026-03-31", "2026-04-01"),
    ]


def test_an_unknown_calendar_names_close_ones(tmp_path: Path):
    """A misspelt code is reported with a suggestion."""
    with pytest.raises(PartitionError, match="unknown calendar 'XNYSE'") as caught:
        build_partitions(notebook(by="day", start="2025-06-01", calendar="XNYSE"), cache=tmp_path)
    assert "'XNYS'" in str(caught.value.hint)


def test_two_dimensions_have_every_pair(tmp_path: Path):
    """A date by ticker grid, in Dagster's order, with the parts of a key by name."""
    spec = notebook(
        dimensions={
            "ticker": {"values": ["AAPL", "MSFT"]},
            "date": {"by": "day", "start": "2026-03-28"},
        }
    )
    assert keys(spec) == [
        *("2026-03-28|AAPL", "2026-03-28|MSFT", "2026-03-29|AAPL", "2026-03-29|MSFT"),
    ]
    record = partition_key_of(spec, "2026-03-29|MSFT")
    assert record.dimensions == {"date": "2026-03-29", "ticker": "MSFT"}
    assert record.end == "2026-03-30T00:00:00+02:00"
    definition = build_partitions(spec)
    timed = time_dimension(definition)
    assert timed is not None
    assert timed[0] == "date"


def test_variants_are_partitions():
    """Alone they are values; with days they are a second dimension."""
    alone = NotebookSpec.model_validate({"variants": {"eu": {"region": "EU"}, "us": {}}})
    assert keys(alone) == ["eu", "us"]
    both = notebook(by="day", start="2026-03-29", parameter="d").model_copy(
        update={"variants": alone.variants}
    )
    assert list(dimension_specs(both)) == ["d", "variant"]
    assert keys(both) == ["2026-03-29|eu", "2026-03-29|us"]


def test_dynamic_keys_are_shared_by_name():
    """Two notebooks that take keys from one output have the same partitions."""
    spec = notebook(dynamic={"notebook": "universe", "output": "members", "column": "ticker"})
    definition = build_partitions(spec)
    assert isinstance(definition, dg.DynamicPartitionsDefinition)
    assert definition.name == "universe/members.ticker"
    assert definition == build_partitions(spec)


def test_equal_specs_give_one_definition():
    """A thousand daily notebooks share one object, and comparisons are cheap."""
    first = build_partitions(notebook(by="day", start="2026-01-01", parameter="a"))
    second = build_partitions(notebook(by="day", start="2026-01-01", parameter="b"))
    assert first is second


@pytest.mark.parametrize(
    ("spec", "key", "message"),
    [
        ({"by": "day", "start": "2026-01-01"}, "01/02/2026", "not a partition key of the format"),
        ({"by": "day", "start": "2026-01-01"}, "../../etc", "not a partition key of the format"),
    ],
)
def test_a_key_that_is_none_is_refused(spec, key, message):
    """With the form that it should have."""
    with pytest.raises(PartitionError, match=message) as caught:
        partition_key_of(notebook(**spec), key)
    assert caught.value.hint


def test_a_key_with_too_few_parts_is_refused():
    """A grid's key has two parts."""
    spec = notebook(
        dimensions={"a": {"values": ["x"]}, "date": {"by": "day", "start": "2026-01-01"}}
    )
    with pytest.raises(PartitionError, match=r"not a partition of .* Write it as <a>\|<date>"):
        partition_key_of(spec, "2026-01-01")


@pytest.mark.parametrize(
    ("spec", "key", "type_", "value"),
    [
        ({"by": "day"}, "2026-03-29", "date", "2026-03-29"),
        ({"by": "day"}, "2026-03-29", "timestamp", "2026-03-29T00:00:00"),
        ({"by": "day"}, "2026-03-29", "str", "2026-03-29"),
        ({"by": "day", "format": "%Y%m%d"}, "20260329", "date", "2026-03-29"),
        ({"by": "day", "format": "%Y%m%d"}, "20260329", "int", "20260329"),
        ({"by": "month"}, "2026-03", "date", "2026-03-01"),
        ({"by": "year"}, "2026", "int", "2026"),
        ({"by": "year"}, "2026", "datetime", "2026-01-01T00:00:00"),
        ({"by": "day", "shift": "17h"}, "2026-03-27", "datetime", "2026-03-27T17:00:00"),
        ({"by": "hour"}, "2026-10-25-02:00", "datetime", "2026-10-25T02:00:00+02:00"),
        ({"by": "hour"}, "2026-10-25-02:00+0100", "datetime", "2026-10-25T02:00:00+01:00"),
    ],
)
def test_the_parameter_gets_a_value_of_its_type(spec, key, type_, value):
    """A date for a date, a moment for a moment, the key for anything else."""
    made = notebook(start="2026-01-01", parameter="p", **spec)
    assert parameter_values(made, partition_key_of(made, key), {"p": type_}) == {"p": value}


def test_dimensions_set_the_parameters_of_their_names():
    """Of two dimensions each sets the parameter it is called as, or the one that it names."""
    spec = notebook(
        dimensions={
            "date": {"by": "day", "start": "2026-01-01", "parameter": "run_date"},
            "ticker": {"values": ["AAPL"]},
        }
    )
    record = partition_key_of(spec, "2026-03-29|AAPL")
    types = {"run_date": "date", "ticker": "str"}
    assert parameter_values(spec, record, types) == {"run_date": "2026-03-29", "ticker": "AAPL"}
    assert parameter_values(spec, record, {"run_date": "date"}) == {"run_date": "2026-03-29"}


def test_a_variant_sets_its_parameters():
    """The parameter set of that name replaces the notebook's defaults."""
    spec = NotebookSpec.model_validate({"variants": {"eu": {"region": "EU", "n": 3}}})
    record = partition_key_of(spec, "eu")
    assert record.dimensions == {"variant": "eu"}
    assert parameter_values(spec, record, {"region": "str", "n": "int"}) == {"region": "EU", "n": 3}


def test_a_partition_without_a_parameter_sets_none():
    """The notebook may ask `context()` instead."""
    spec = notebook(by="day", start="2026-01-01")
    record = partition_key_of(spec, "2026-03-29")
    assert record.dimensions == {"partition": "2026-03-29"}
    assert parameter_values(spec, record, {"x": "int"}) == {}


def test_a_parameter_that_the_notebook_has_not_is_refused():
    """With the close one suggested."""
    spec = notebook(by="day", start="2026-01-01", parameter="run_dat")
    with pytest.raises(PartitionError, match="'run_dat' is not one of the notebook's") as caught:
        parameter_values(spec, partition_key_of(spec, "2026-03-29"), {"run_date": "date"})
    assert caught.value.hint == "Did you mean 'run_date'?"


@given(
    by=st.sampled_from(["hour", "day", "week", "month", "quarter", "year"]),
    zone=st.sampled_from([ZAGREB, "America/New_York", "UTC", "Asia/Kolkata"]),
    minutes=st.sampled_from([0, 30, 7 * 60, 17 * 60 + 15]),
    position=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_windows_follow_each_other_without_gap(by, zone, minutes, position):
    """The window of each key begins where the one before it ends, whatever clocks do."""
    shift = minutes if by != "hour" else minutes % 60
    spec = notebook(zone, by=by, start="2024-01-01", shift=shift * 60)
    found = keys(spec)
    index = position % (len(found) - 1)
    before = partition_key_of(spec, found[index])
    after = partition_key_of(spec, found[index + 1])
    assert before.end == after.start
    assert before.start is not None
    assert before.end is not None
    assert datetime.fromisoformat(before.start) < datetime.fromisoformat(before.end)
