"""Calendars where clocks change, compared with a count of minutes (`tests/support/clocks.py`).

One change of each kind is tried here; ``python tests/support/clocks.py`` tries all of them.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from clocks import CALENDARS, Walk, differences, every_change, one_of_each_kind
from dagster._utils.schedules import schedule_execution_time_iterator

from research_jobs.errors import PartitionError
from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.model.partitions import build_partitions, partition_key_of
from research_jobs.orchestration.model.selection import select_partitions


def daily(zone: str, start: str, end: str, **more: object) -> NotebookSpec:
    """A notebook with partitions by day."""
    partitions = {"by": "day", "start": start, "end": end, "timezone": zone, **more}
    return NotebookSpec.model_validate({"partitions": partitions})


def keys(spec: NotebookSpec) -> list[str]:
    """The keys that there are by now."""
    definition = build_partitions(spec)
    assert definition is not None
    return list(definition.get_partition_keys())


def test_there_are_changes_of_many_kinds():
    """Half-hour changes, midnights that are skipped, whole days and three hours are among them."""
    jumps = {change.after - change.before for change in one_of_each_kind()}
    assert {timedelta(minutes=30), timedelta(hours=3), timedelta(days=1)} <= jumps
    assert len(every_change()) > 5000


@pytest.mark.parametrize("calendar", CALENDARS)
def test_partitions_are_as_minutes_counted_one_by_one(calendar):
    """Keys, windows, the newest, dates and spans hold around one change of each kind."""
    for change in one_of_each_kind():
        found = list(differences(change, Walk.around(change), calendar))
        assert not found, f"{change.zone} {change.at}: {found}"


def test_a_day_that_a_country_left_out_has_no_partition():
    """Samoa went from 29 to 31 December 2011; nobody can ask for the 30th."""
    spec = daily("Pacific/Apia", "2011-12-28", "2012-01-03")
    assert keys(spec) == [*("2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01", "2012-01-02")]
    evening = daily("Pacific/Apia", "2011-12-28", "2012-01-02", shift="17h")
    assert keys(evening) == ["2011-12-28", "2011-12-29", "2011-12-31"]
    definition = build_partitions(spec)
    assert definition is not None
    assert not definition.has_partition_key("2011-12-30")
    with pytest.raises(PartitionError, match="no partition begins at '2011-12-30' in Pacific/Apia"):
        partition_key_of(spec, "2011-12-30")
    with pytest.raises(PartitionError, match="there is no partition from"):
        select_partitions(definition, first="2011-12-30", last="2011-12-30")


def test_a_calendar_of_closed_days_holds_where_midnight_is_skipped(tmp_path):
    """A closed day that begins at one in the morning is closed all the same."""
    spec = daily("Africa/Cairo", "2024-04-22", "2024-05-01", calendar="XNYS")
    definition = build_partitions(spec, cache=tmp_path)
    assert definition is not None
    # Friday 26 April begins at 01:00
    assert list(definition.get_partition_keys()) == [
        *("2024-04-22", "2024-04-23", "2024-04-24", "2024-04-25", "2024-04-26"),
        *("2024-04-29", "2024-04-30"),
    ]
    assert partition_key_of(spec, "2024-04-26").start == "2024-04-26T01:00:00+03:00"
    weekend = daily("Asia/Beirut", "2026-03-27", "2026-03-31", calendar="XNYS")
    assert keys(weekend) == ["2026-03-27", "2026-03-30"]  # Sunday begins at 01:00


def test_a_start_in_a_gap_is_when_clocks_go_on():
    """The partition that begins when the gap ends is the first one."""
    spec = daily("Europe/Zagreb", "2024-03-31 02:30", "2024-04-03", shift="2h30m")
    assert keys(spec) == ["2024-03-31", "2024-04-01"]
    assert partition_key_of(spec, "2024-03-31").start == "2024-03-31T03:00:00+02:00"


def test_a_partition_of_the_repeated_hour_can_be_asked_for():
    """`--from` and `--to` take the key with its offset, and select that hour alone."""
    spec = NotebookSpec.model_validate(
        {"partitions": {"by": "hour", "start": "2024-10-27", "timezone": "Europe/Zagreb"}}
    )
    definition = build_partitions(spec)
    assert definition is not None
    second = "2024-10-27-02:00+0100"
    assert select_partitions(definition, first=second, last=second) == [second]
    first = "2024-10-27-02:00"
    assert select_partitions(definition, first=first, last=second) == [first, second]
    # a moment that comes twice touches both
    moment = "2024-10-27T02:30"
    assert select_partitions(definition, first=moment, last=moment) == [first, second]


def test_an_example_of_a_key_is_a_key():
    """The hint shows a Monday for partitions of weeks, whatever day they start on."""
    spec = NotebookSpec.model_validate({"partitions": {"by": "week", "start": "2026-03-01"}})
    with pytest.raises(PartitionError) as caught:
        partition_key_of(spec, "last")
    assert caught.value.hint == "Write it as 2026-03-02."


def test_other_processes_of_dagster_see_their_own_kind(tmp_path):
    """What is sent to the daemon and the webserver needs nothing of ours to be read."""
    definition = build_partitions(daily("Pacific/Apia", "2011-12-28", "2012-01-03"))
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)

    @dg.asset(partitions_def=definition)
    def days() -> None: ...

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        assert dg.materialize([days], partition_key="2011-12-31", instance=instance).success
        assert instance.get_materialized_partitions(days.key) == {"2011-12-31"}
    subset = definition.empty_subset().with_partition_keys(["2011-12-31"])
    sent = subset.to_serializable_subset()  # type: ignore[attr-defined]
    assert type(sent.partitions_def) is dg.TimeWindowPartitionsDefinition


@pytest.mark.parametrize("minute", [0, 30, 45])
def test_a_schedule_fires_once_for_each_of_its_days(minute):
    """Dagster's daemon decides when: for each day once, at most three hours off its time."""
    for change in one_of_each_kind():
        if change.at.year < 2026:  # what is past is not fired for
            continue
        tz = ZoneInfo(change.zone)
        for hour in range(24):
            first, last = change.at - timedelta(days=3), change.at + timedelta(days=3)
            fired: Counter[datetime] = Counter()
            cron = f"{minute} {hour} * * *"
            for tick in schedule_execution_time_iterator(first.timestamp(), cron, change.zone):
                if tick > last:
                    break
                wall = tick.astimezone(tz).replace(tzinfo=None)
                day = (wall - timedelta(hours=hour, minutes=minute) + timedelta(hours=12)).date()
                due = datetime.combine(day, datetime.min.time()) + timedelta(
                    hours=hour, minutes=minute
                )
                assert abs(wall - due) <= timedelta(hours=3)
                fired[due] += 1
            days = sorted(fired)
            assert set(fired.values()) == {1}, (change.zone, cron)
            assert days[-1] - days[0] == timedelta(days=len(days) - 1), (change.zone, cron)
