"""Which partitions a person means."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest
from partitioning import definition

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.selection import select_partitions

NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)


DAILY = definition(by="day", start="2026-01-01")
MONTHLY = definition(by="month", start="2025-01")
HOURLY = definition(by="hour", start="2026-03-28")
SHIFTED = definition(by="day", start="2026-01-01", shift="17h")
STATIC = definition(values=["a", "b", "c", "d"])
GRID = definition(
    dimensions={
        "date": {"by": "day", "start": "2026-03-27"},
        "ticker": {"values": ["AAPL", "MSFT"]},
    }
)


def select(made, **options):
    """Select at a fixed time."""
    return select_partitions(made, now=NOW, **options)


def test_without_a_word_all_that_exist_are_meant():
    """`--all`."""
    assert len(select(DAILY)) == 88
    assert select(STATIC) == ["a", "b", "c", "d"]


def test_both_ends_of_a_span_are_included():
    """`--from 2026-02-27 --to 2026-03-01`."""
    assert select(DAILY, first="2026-02-27", last="2026-03-01") == [
        *("2026-02-27", "2026-02-28", "2026-03-01"),
    ]


def test_either_end_may_be_left_out():
    """Then it reaches to the first or the last that exists."""
    assert select(DAILY, first="2026-03-28") == ["2026-03-28", "2026-03-29"]
    assert select(DAILY, last="2026-01-02") == ["2026-01-01", "2026-01-02"]


def test_a_month_or_a_year_is_a_span_too():
    """`--from 2026-02 --to 2026-02` is February."""
    assert len(select(DAILY, first="2026-02", last="2026-02")) == 28
    assert select(MONTHLY, first="2025", last="2025")[-1] == "2025-12"
    long = definition(by="day", start="2024-01-01")
    assert len(select(long, first="2024-11", last="2024-11")) == 30
    assert len(select(long, first="2024-12", last="2024-12")) == 31


def test_a_date_within_a_longer_partition_means_that_partition():
    """The month that a day lies in."""
    assert select(MONTHLY, first="2025-11-15", last="2025-12-01") == ["2025-11", "2025-12"]


def test_a_day_of_hours_is_all_its_hours():
    """`--to` includes the whole of the last day."""
    assert len(select(HOURLY, first="2026-03-28", last="2026-03-28")) == 24
    assert select(HOURLY, first="2026-03-28 22:30", last="2026-03-29 00:15") == [
        *("2026-03-28-22:00", "2026-03-28-23:00", "2026-03-29-00:00"),
    ]
    # an hour that begins at the last moment is in it
    assert select(HOURLY, first="2026-03-28 23:00", last="2026-03-29 00:00") == [
        *("2026-03-28-23:00", "2026-03-29-00:00"),
    ]


def test_a_key_is_a_key_before_it_is_a_date():
    """A shifted day's key does not drag in the one before, though its window touches that date."""
    assert select(SHIFTED, first="2026-03-02", last="2026-03-03") == ["2026-03-02", "2026-03-03"]


def test_static_keys_have_an_order_too():
    """From one to another as the manifest lists them."""
    assert select(STATIC, first="b", last="c") == ["b", "c"]
    assert select(STATIC, first="c") == ["c", "d"]


def test_a_span_cuts_the_time_of_a_grid():
    """All tickers of the days."""
    assert select(GRID, first="2026-03-28", last="2026-03-28") == [
        *("2026-03-28|AAPL", "2026-03-28|MSFT"),
    ]


def test_keys_and_patterns_are_taken_in_the_definitions_order():
    """Each once, however often and in whatever order they are named."""
    assert select(DAILY, keys=["2026-03-02", "2026-03-01", "2026-03-02"]) == [
        *("2026-03-01", "2026-03-02"),
    ]
    assert select(GRID, keys=["*|MSFT", "2026-03-29|*"])[-2:] == [
        *("2026-03-29|AAPL", "2026-03-29|MSFT"),
    ]


def test_dynamic_keys_come_from_the_instance():
    """They are whatever was added."""
    made = definition(dynamic={"notebook": "universe", "output": "tickers"})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("universe/tickers", ["AAPL", "MSFT"])
        assert select(made, instance=instance) == ["AAPL", "MSFT"]
        assert select(made, instance=instance, keys=["MSFT"]) == ["MSFT"]
        with pytest.raises(PartitionError, match="there is no partition 'TSLA'"):
            select(made, instance=instance, keys=["TSLA"])


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (DAILY, {"keys": ["2026-3-1"]}, "there is no partition '2026-3-1'. There are 88, from"),
        (DAILY, {"keys": ["2030-*"]}, "no partition matches '2030-*'. There are 88, from 2026-01"),
        (
            DAILY,
            {"keys": ["x"], "first": "y"},
            "selected both by key and by span. Keep one of them.",
        ),
        (DAILY, {"first": "2026-03-02", "last": "2026-03-01"}, "comes after '2026-03-01'. Swap"),
        (
            DAILY,
            {"first": "2027-01-01"},
            "there is no partition from 2027-01-01 to the end. They run",
        ),
        (
            DAILY,
            {"first": "March"},
            "'March' is neither a partition nor a date. Write a key such as",
        ),
        (DAILY, {"first": "2026-02-30"}, "'2026-02-30' is neither a partition nor a date."),
        (STATIC, {"keys": ["e"]}, "there is no partition 'e'. Partitions: a, b, c, d."),
        (definition(values=list("abcdef")), {"keys": ["z"]}, "Partitions: a, b, c, d, e, f."),
        (definition(values=list("abcdefg")), {"keys": ["z"]}, "There are 7, from a to g."),
        (STATIC, {"first": "c", "last": "b"}, "'c' comes after 'b'. Swap them."),
        (GRID, {"keys": ["2026-03-28"]}, "there is no partition '2026-03-28'."),
        (definition(by="day", start="2027-01-01"), {"first": "2027-01-01"}, "no partition yet."),
    ],
)
def test_what_selects_nothing_is_reported(made, options, message):
    """One line: what is wrong, and what there is."""
    with pytest.raises(PartitionError) as caught:
        select(made, **options)
    assert message in str(caught.value)


def test_a_span_of_many_hours_is_cut_without_walking_them():
    """Of eight years of hours one day is found by bisection."""
    long = definition(by="hour", start="2018-01-01")
    assert len(select(long, first="2021-06-01", last="2021-06-01")) == 24
