"""Schedules: what is asked for at a tick, over a year, after outages, across clock changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster._core.storage import tags
from dagster._utils.schedules import schedule_execution_time_iterator

from research_jobs.errors import ParameterError
from research_jobs.manifest import NotebookSpec, ScheduleSpec
from research_jobs.orchestration.definitions.jobs import ALL_ASSETS_JOB, ScheduledNotebook
from research_jobs.orchestration.definitions.schedules import (
    CRON_TAG,
    SCHEDULE_TAG,
    TICK_TAG,
    Tick,
    build_schedules,
    requests_at,
)
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.orchestration.model.status import PARTITION_TAG, SKIPPED_METADATA

ZAGREB = "Europe/Zagreb"


def partitions(**spec):
    """A partitions definition from what the manifest would say, in Zagreb's time."""
    made = NotebookSpec.model_validate({"partitions": spec})
    assert made.partitions is not None
    zoned = made.model_copy(update={"partitions": made.partitions.in_timezone(ZAGREB)})
    return build_partitions(zoned)


DAILY = partitions(by="day", start="2026-01-01", parameter="run_date")
MONTHLY = partitions(by="month", start="2026-01-01", parameter="month")
SIGNALS = ScheduledNotebook("momentum_signals", DAILY, by="day", op="momentum_signals")
PLAIN = ScheduledNotebook("market_data", op="market_data")


def schedule(**values) -> ScheduleSpec:
    """A schedule at 01:30 in Zagreb unless said otherwise."""
    given = {"cron": "30 1 * * *", "timezone": ZAGREB, "notebooks": ["x"], **values}
    return ScheduleSpec.model_validate(given)


def at(text: str, zone: str = ZAGREB) -> datetime:
    """A local time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def tick(
    spec: ScheduleSpec, *notebooks: ScheduledNotebook, due: str, late: timedelta | None = None
):
    """A tick evaluated as soon as it is due, or `late`."""
    when = at(due, spec.timezone or "UTC")
    now = when.astimezone(UTC) + (late or timedelta(seconds=3))
    return Tick("nightly", spec, notebooks, when, now)


def asked(result) -> list[str | None]:
    """The partitions of some requests, or nothing for a reason to skip."""
    return [] if isinstance(result, str) else [request.partition_key for request in result]


def make(instance: dg.DagsterInstance, notebook: ScheduledNotebook, *keys: str) -> None:
    """Record that partitions were made."""
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(notebook.key, partition=key))


def skip(instance: dg.DagsterInstance, notebook: ScheduledNotebook, key: str) -> None:
    """Record that the notebook skipped a partition."""
    instance.report_runless_asset_event(
        dg.AssetObservation(notebook.key, partition=key, metadata={SKIPPED_METADATA: "closed"})
    )


def days(first: str, last: str) -> list[str]:
    """Every day from one to another, both included."""
    start, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    return [(start + timedelta(days=n)).strftime("%Y-%m-%d") for n in range((end - start).days + 1)]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, as schedules that Dagster evaluates need one."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


# --- what a tick asks for -------------------------------------------------------------------------


def test_the_newest_partition_is_asked_for(instance):
    """At 01:30 the day that ended at midnight is the newest; the history is left alone."""
    result = requests_at(tick(schedule(), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-09"]


def test_missing_partitions_within_catch_up_are_asked_for_oldest_first(instance):
    """What is there is not asked for again; what lies before catch_up is not looked at."""
    make(instance, SIGNALS, "2026-03-05", "2026-03-07")
    result = requests_at(tick(schedule(catch_up=4), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-06", "2026-03-08", "2026-03-09"]


def test_catch_up_zero_asks_for_the_newest_alone(instance):
    """Zero older partitions are looked at."""
    result = requests_at(tick(schedule(catch_up=0), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-09"]


def test_a_partition_is_asked_for_once_a_day_at_most(instance):
    """An hourly schedule over days asks once, then there is nothing to do."""
    spec = schedule(cron="30 * * * *", catch_up=2)
    first = requests_at(tick(spec, SIGNALS, due="2026-03-10 00:30"), instance)
    make(instance, SIGNALS, *asked(first))
    second = requests_at(tick(spec, SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(first) == ["2026-03-07", "2026-03-08", "2026-03-09"]
    assert second == "every partition exists, is running, was skipped or has failed too often"


def test_a_partition_whose_data_is_gone_is_asked_for(instance):
    """Recorded as made and not in the store: the notebook was partitioned in another way."""
    make(instance, SIGNALS, "2026-03-08", "2026-03-09")
    due = "2026-03-10 01:30"
    assert asked(requests_at(tick(schedule(catch_up=1), SIGNALS, due=due), instance)) == []
    moved = replace(SIGNALS, stored=lambda: frozenset({"2026-03-08"}))
    assert asked(requests_at(tick(schedule(catch_up=1), moved, due=due), instance)) == [
        "2026-03-09",
    ]


def test_skipped_partitions_are_not_asked_for_again(instance):
    """Saturday and Sunday, which the notebook skipped, stay missing and in peace."""
    make(instance, SIGNALS, "2026-03-06")
    skip(instance, SIGNALS, "2026-03-07")
    skip(instance, SIGNALS, "2026-03-08")
    result = requests_at(tick(schedule(catch_up=3), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-09"]


def test_without_catch_up_what_the_schedule_missed_is_asked_for(instance):
    """After a long weekend without a server, its days are made up for, the history is not.

    From the first run of the schedule on, that one included, whatever it has run in between.
    """
    _scheduled_run(instance, "2026-03-05 01:30")
    _scheduled_run(instance, "2026-03-08 01:30")
    make(instance, SIGNALS, "2026-03-05")
    result = requests_at(tick(schedule(), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-04", "2026-03-06", "2026-03-07", "2026-03-08", "2026-03-09"]


@pytest.mark.parametrize(
    ("number", "spec"),
    [
        (169, {"by": "hour"}),
        (169, {"by": "cron", "cron": "0 */4 * * *"}),
        (32, {"by": "day"}),
    ],
    ids=str,
)
def test_without_catch_up_a_long_absence_is_made_up_for_in_part(instance, number, spec):
    """A week of hours, as many windows of an expression, or a month of days."""
    _scheduled_run(instance, "2026-01-05 01:30")
    made = partitions(start="2026-01-01", **spec)
    notebook = ScheduledNotebook("n", made, by=spec["by"], op="n")
    make(instance, notebook, made.get_first_partition_key())
    result = requests_at(tick(schedule(), notebook, due="2026-03-10 01:30"), instance)
    assert len(asked(result)) == number


def test_a_notebook_that_joins_a_schedule_brings_no_history(instance):
    """A schedule that has run for weeks does not make up for a notebook that was not in it."""
    _scheduled_run(instance, "2026-02-05 01:30")
    make(instance, SIGNALS, "2026-03-08")
    new = ScheduledNotebook("carry_signals", DAILY, by="day", op="carry_signals")
    result = requests_at(tick(schedule(), SIGNALS, new, due="2026-03-10 01:30"), instance)
    assert not isinstance(result, str)
    of_new = [r.partition_key for r in result if r.asset_selection and new.key in r.asset_selection]
    assert of_new == ["2026-03-09"]


def test_end_is_respected(instance):
    """Partitions after the definition's end do not exist for a schedule either."""
    ended = ScheduledNotebook(
        "old", partitions(by="day", start="2026-01-01", end="2026-02-01"), by="day", op="old"
    )
    result = requests_at(tick(schedule(catch_up=2), ended, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-01-29", "2026-01-30", "2026-01-31"]


def test_before_the_first_partition_there_is_nothing_to_do(instance):
    """A notebook whose partitions begin next year is no error."""
    future = ScheduledNotebook("new", partitions(by="day", start="2027-01-01"), by="day", op="new")
    assert asked(requests_at(tick(schedule(), future, due="2026-03-10 01:30"), instance)) == []


def test_two_dimensions_ask_for_every_key_of_a_day(instance):
    """Of a date by ticker grid, the tickers that miss the newest date are asked for."""
    grid = ScheduledNotebook(
        "grid",
        partitions(
            dimensions={
                "date": {"by": "day", "start": "2026-01-01"},
                "ticker": {"values": ["AAPL", "MSFT"]},
            }
        ),
        by="day",
        op="grid",
    )
    make(instance, grid, "2026-03-09|AAPL")
    result = requests_at(tick(schedule(catch_up=1), grid, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-08|AAPL", "2026-03-08|MSFT", "2026-03-09|MSFT"]


def test_partitions_without_time_are_made_anew_at_each_tick(instance):
    """Variants have no newest one: a schedule runs all of them each time."""
    spec = NotebookSpec.model_validate({"variants": {"eu": {}, "us": {}}})
    variants = ScheduledNotebook("report", build_partitions(spec), op="report")
    make(instance, variants, "eu", "us")
    result = requests_at(tick(schedule(), variants, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["eu", "us"]


def test_dynamic_keys_come_from_the_instance(instance):
    """Keys that another notebook listed are asked for."""
    spec = NotebookSpec.model_validate(
        {"partitions": {"dynamic": {"notebook": "universe", "output": "tickers"}}}
    )
    notebook = ScheduledNotebook("per_ticker", build_partitions(spec), op="per_ticker")
    instance.add_dynamic_partitions("universe/tickers", ["AAPL", "MSFT"])
    result = requests_at(tick(schedule(), notebook, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["AAPL", "MSFT"]


def test_unpartitioned_notebooks_run_together_in_one_run(instance):
    """One request holds them all, so that one that another loads runs before it."""
    other = ScheduledNotebook("volatility/garch", op="volatility__garch")
    result = requests_at(tick(schedule(), PLAIN, other, due="2026-03-10 01:30"), instance)
    assert not isinstance(result, str)
    assert len(result) == 1
    assert result[0].asset_selection == [PLAIN.key, other.key]


def test_unpartitioned_notebooks_go_with_the_newest_partition(instance):
    """What a partitioned notebook loads is made in the same run, before it."""
    result = requests_at(
        tick(schedule(catch_up=1), PLAIN, SIGNALS, due="2026-03-10 01:30"), instance
    )
    assert not isinstance(result, str)
    assert [(r.partition_key, r.asset_selection) for r in result] == [
        ("2026-03-08", [SIGNALS.key]),
        ("2026-03-09", [PLAIN.key, SIGNALS.key]),
    ]


def test_unpartitioned_notebooks_run_where_no_partition_is_due(instance):
    """They are not lost when the partitioned ones have nothing to do."""
    make(instance, SIGNALS, "2026-03-09")
    result = requests_at(tick(schedule(), PLAIN, SIGNALS, due="2026-03-10 01:30"), instance)
    assert not isinstance(result, str)
    assert [(r.partition_key, r.asset_selection) for r in result] == [(None, [PLAIN.key])]


def test_notebooks_with_other_partitions_get_runs_of_their_own(instance):
    """Days and months under one schedule do not mix."""
    monthly = ScheduledNotebook(
        "monthly", partitions(by="month", start="2026-01-01"), by="month", op="monthly"
    )
    result = requests_at(tick(schedule(), SIGNALS, monthly, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-09", "2026-02"]


def test_one_tick_is_bounded(instance):
    """A catch-up over years asks for a bounded number of runs, the oldest first and the newest."""
    long = ScheduledNotebook("long", partitions(by="day", start="2020-01-01"), by="day", op="long")
    result = requests_at(
        tick(schedule(catch_up=1000), long, PLAIN, due="2026-03-10 01:30"), instance
    )
    assert len(asked(result)) == 250
    assert asked(result)[:2] == days("2023-06-13", "2023-06-14")
    assert asked(result)[-1] == "2026-03-09"
    # what has no partitions still goes with the newest
    assert [PLAIN.key in (r.asset_selection or ()) for r in result].index(True) == 249
    hourly = partitions(by="hour", start="2026-01-01")
    other = ScheduledNotebook("hourly", hourly, by="hour", op="hourly")
    both = tick(schedule(catch_up=1000), long, other, due="2026-03-10 01:30")
    keys = asked(requests_at(both, instance))
    assert len(keys) == 250
    assert (keys[124], keys[-1]) == ("2026-03-09", "2026-03-10-00:00")


def test_too_many_partitions_without_time_take_turns(instance):
    """Of 300 listed keys each tick makes those whose data is the oldest: none waits for ever."""
    keys = [f"k{number:03}" for number in range(300)]
    spec = NotebookSpec.model_validate({"partitions": {"values": keys, "parameter": "k"}})
    many = ScheduledNotebook("many", build_partitions(spec), op="many")
    seen: set[str | None] = set()
    for hour in ("01:30", "02:30"):
        found = asked(requests_at(tick(schedule(), many, due=f"2026-03-10 {hour}"), instance))
        assert len(found) == 250
        make(instance, many, *(str(key) for key in found))
        seen |= set(found)
    assert seen == set(keys)


def test_run_keys_differ_within_a_tick(instance):
    """Dagster tells the requests of one tick apart by them after a crash.

    The runs are tagged as the schedule is.
    """
    spec = schedule(catch_up=5, tags={"desk": "rates"})
    result = requests_at(tick(spec, SIGNALS, due="2026-03-10 01:30"), instance)
    assert not isinstance(result, str)
    assert {request.tags["desk"] for request in result} == {"rates"}
    assert len({request.run_key for request in result}) == len(result) == 6


def test_run_keys_differ_where_many_notebooks_are_named(instance):
    """Of two requests with one key Dagster submits the first alone: long names do not make one."""
    many = [
        ScheduledNotebook(f"a_notebook_with_a_long_name_{n}", DAILY, by="day", op=f"n{n}")
        for n in range(20)
    ]
    spec = schedule(catch_up=5, cron=[f"{n % 60} {n // 60} * * *" for n in range(300)])
    result = requests_at(tick(spec, *many, due="2026-03-10 01:30"), instance)
    assert not isinstance(result, str)
    assert {len(request.tags[CRON_TAG]) for request in result} == {64}
    keys = {request.run_key or "" for request in result}
    assert len(keys) == len(result) == 6
    assert max(map(len, keys)) <= 250


# --- late, edited, failed, running ----------------------------------------------------------------


def test_catch_up_none_lets_a_missed_tick_be(instance):
    """Three hours late is too late for `catch_up: none`, and a minute is not."""
    spec = schedule(catch_up="none")
    late = tick(spec, PLAIN, due="2026-03-10 01:30", late=timedelta(hours=3))
    assert requests_at(late, instance) == "due 2026-03-10 01:30 CET, 3 h 0 min ago; catch_up: none"
    soon = tick(spec, PLAIN, SIGNALS, due="2026-03-10 01:30", late=timedelta(minutes=1))
    assert asked(requests_at(soon, instance)) == ["2026-03-09"]


def test_a_tick_ten_minutes_late_was_not_missed(instance):
    """A busy daemon is that late at most; a second more is a daemon that was away."""
    spec = schedule(catch_up="none")
    limit = timedelta(minutes=10)
    late = [limit, limit + timedelta(seconds=1)]
    ticks = [tick(spec, PLAIN, due="2026-03-10 01:30", late=each) for each in late]
    assert [len(asked(requests_at(each, instance))) for each in ticks] == [1, 0]


def test_a_late_tick_runs_unpartitioned_notebooks_once(instance):
    """Without `catch_up: none` the run is made up for."""
    late = tick(schedule(), PLAIN, due="2026-03-10 01:30", late=timedelta(days=3))
    assert len(asked(requests_at(late, instance))) == 1


def test_an_edited_cron_does_not_run_the_past(instance):
    """Moved from 06:00 to 01:30 at 09:00, the schedule does not fire for 01:30 of that day."""
    _scheduled_run(instance, "2026-03-09 06:00", cron="0 6 * * * Europe/Zagreb")
    edited = at("2026-03-10 09:00")
    before = tick(schedule(), PLAIN, due="2026-03-10 01:30", late=timedelta(hours=8))
    past = Tick(**{**vars(before), "edited_at": edited})
    assert "was edited after 2026-03-10 01:30 CET" in str(requests_at(past, instance))
    after = tick(schedule(), PLAIN, due="2026-03-11 01:30")
    future = Tick(**{**vars(after), "edited_at": edited})
    assert len(asked(requests_at(future, instance))) == 1


def test_an_edit_of_something_else_keeps_a_missed_tick(instance):
    """A manifest that was edited, but not this schedule's cron, changes nothing."""
    _scheduled_run(instance, "2026-03-09 01:30", cron="30 1 * * * Europe/Zagreb")
    missed = tick(schedule(), PLAIN, due="2026-03-10 01:30", late=timedelta(hours=8))
    tick_ = Tick(**{**vars(missed), "edited_at": at("2026-03-10 09:00")})
    assert len(asked(requests_at(tick_, instance))) == 1


def test_the_log_of_definitions_says_whether_a_tick_is_from_before_an_edit(instance):
    """Edited days ago and saved again in an outage: the missed tick is made up for all the same."""
    _scheduled_run(instance, "2026-03-01 06:00", cron="0 6 * * * Europe/Zagreb")
    missed = tick(schedule(), PLAIN, due="2026-03-10 01:30", late=timedelta(hours=8))
    saved = {**vars(missed), "edited_at": at("2026-03-10 09:00")}
    owed = Tick(
        **saved | {"owed_at": lambda name, moment: (name, moment) == ("nightly", missed.at)}
    )
    assert len(asked(requests_at(owed, instance))) == 1
    brought_about = Tick(**saved | {"owed_at": lambda name, moment: False})
    assert "edited" in str(requests_at(brought_about, instance))


def test_schedules_that_are_evaluated_at_once_do_not_request_the_same(instance):
    """No run shows yet what the first has requested; its own tick, again, requests the same."""
    first = replace(tick(schedule(), SIGNALS, due="2026-06-10 01:30"), schedule="first")
    second = replace(first, schedule="second")
    assert asked(requests_at(first, instance)) == ["2026-06-09"]
    assert asked(requests_at(second, instance)) == []
    assert asked(requests_at(first, instance)) == ["2026-06-09"]
    later = replace(second, now=second.now + timedelta(minutes=9))
    assert asked(requests_at(later, instance)) == ["2026-06-09"]


@dg.asset(name="momentum_signals", partitions_def=DAILY)
def failing(context) -> None:
    """A notebook that fails on one day."""
    if context.partition_key == "2026-03-07":
        raise ValueError("no prices")


def _materialize(instance: dg.DagsterInstance, *keys: str) -> None:
    for key in keys:
        dg.materialize([failing], partition_key=key, instance=instance, raise_on_error=False)


def test_a_failed_partition_is_asked_for_as_often_as_its_retries_allow(instance):
    """With one retry a failed day is asked for again once, then it is given up."""
    spec = schedule(catch_up=2)
    once = ScheduledNotebook("momentum_signals", DAILY, retries=1, by="day", op="momentum_signals")
    _materialize(instance, "2026-03-07", "2026-03-08", "2026-03-09")
    assert asked(requests_at(tick(spec, once, due="2026-03-10 01:30"), instance)) == ["2026-03-07"]
    _materialize(instance, "2026-03-07")
    assert asked(requests_at(tick(spec, once, due="2026-03-10 01:30"), instance)) == []


def test_a_failed_partition_without_retries_is_given_up(instance):
    """By default one failed run is enough."""
    _materialize(instance, "2026-03-07")
    result = requests_at(tick(schedule(catch_up=2), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-08", "2026-03-09"]


def test_a_partition_that_is_running_is_not_asked_for(instance):
    """A run that waits in the queue or runs, from here or from the UI, is enough."""
    job = dg.Definitions(
        assets=[failing], jobs=[dg.define_asset_job("j", selection="*")]
    ).resolve_job_def("j")
    instance.create_run_for_job(
        job,
        tags={"dagster/partition": "2026-03-08"},
        asset_selection=frozenset([SIGNALS.key]),
        status=dg.DagsterRunStatus.STARTING,
    )
    result = requests_at(tick(schedule(catch_up=2), SIGNALS, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["2026-03-07", "2026-03-09"]


def test_a_partition_without_time_that_is_running_is_not_asked_for(instance):
    """A variant that takes longer than the schedule's interval does not run twice at once."""

    @dg.asset(name="report", partitions_def=dg.StaticPartitionsDefinition(["eu", "us"]))
    def slow() -> None:
        """One that runs for hours."""

    job = dg.Definitions(
        assets=[slow], jobs=[dg.define_asset_job("j", selection="*")]
    ).resolve_job_def("j")
    spec = NotebookSpec.model_validate({"variants": {"eu": {}, "us": {}}})
    variants = ScheduledNotebook("report", build_partitions(spec), op="report")
    instance.create_run_for_job(
        job,
        tags={"dagster/partition": "eu"},
        asset_selection=frozenset([variants.key]),
        status=dg.DagsterRunStatus.STARTED,
    )
    result = requests_at(tick(schedule(), variants, due="2026-03-10 01:30"), instance)
    assert asked(result) == ["us"]


def _scheduled_run(
    instance: dg.DagsterInstance, due: str, cron: str = "30 1 * * * Europe/Zagreb"
) -> None:
    """A finished run of the schedule."""
    instance.add_run(
        dg.DagsterRun(
            job_name="notebooks",
            status=dg.DagsterRunStatus.SUCCESS,
            tags={SCHEDULE_TAG: "nightly", CRON_TAG: cron, TICK_TAG: at(due).isoformat()},
        )
    )


def test_the_tags_are_dagsters():
    """What is read from runs is what Dagster's scheduler writes."""
    assert tags.SCHEDULE_NAME_TAG == SCHEDULE_TAG
    assert tags.SCHEDULED_EXECUTION_TIME_TAG == TICK_TAG
    assert tags.PARTITION_NAME_TAG == PARTITION_TAG


# --- definitions ----------------------------------------------------------------------------------


@dg.asset
def market_data() -> None:
    """An unpartitioned notebook."""


@dg.asset(name="momentum_signals", partitions_def=DAILY, deps=[market_data])
def momentum_signals() -> None:
    """A partitioned one."""


@dg.asset(name="monthly_report", partitions_def=MONTHLY)
def monthly_report() -> None:
    """One with other partitions."""


def _definitions(specs: dict[str, ScheduleSpec], manifest: Path | None = None) -> dg.Definitions:
    built = build_schedules(
        specs,
        {
            "market_data": PLAIN,
            "momentum_signals": SIGNALS,
            "monthly_report": ScheduledNotebook(
                "monthly_report", MONTHLY, by="month", op="monthly_report"
            ),
        },
        manifest=manifest,
    )
    return dg.Definitions(
        assets=[market_data, momentum_signals, monthly_report], schedules=built.schedules
    )


def test_schedules_are_on_in_their_zone():
    """Cron, zone, status and description arrive in Dagster."""
    definitions = _definitions(
        {
            "on": schedule(notebooks=["market_data"], tags={"desk": "rates"}),
            "off": schedule(notebooks=["market_data"], enabled=False, cron=["@daily", "5 4 * * 1"]),
        }
    )
    repository = definitions.get_repository_def()
    on, off = repository.get_schedule_def("on"), repository.get_schedule_def("off")
    assert on.default_status is dg.DefaultScheduleStatus.RUNNING
    assert off.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (on.cron_schedule, on.execution_timezone) == ("30 1 * * *", ZAGREB)
    assert list(off.cron_schedule) == ["@daily", "5 4 * * 1"]
    assert on.description == "Runs market_data."


def test_a_tick_through_dagster_gives_runs_that_dagster_takes(stored, tmp_path):
    """Mixed partitionings resolve: the requests are validated against the job's assets."""
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text("")
    definitions = _definitions(
        {
            "s": schedule(
                notebooks=["market_data", "momentum_signals", "monthly_report"], catch_up=1
            )
        },
        manifest,
    )
    repository = definitions.get_repository_def()
    context = dg.build_schedule_context(
        instance=stored,
        scheduled_execution_time=at("2026-03-10 01:30"),
        repository_def=repository,
    )
    data = repository.get_schedule_def("s").evaluate_tick(context)
    assert data.run_requests is not None
    assert [r.partition_key for r in data.run_requests] == [
        *("2026-03-08", "2026-03-09", "2026-01", "2026-02"),
    ]
    newest = data.run_requests[1]
    assert newest.tags["dagster/partition"] == "2026-03-09"
    assert newest.tags[CRON_TAG] == "30 1 * * * Europe/Zagreb"
    result = repository.get_job(ALL_ASSETS_JOB).execute_in_process(
        instance=stored,
        partition_key="2026-03-09",
        asset_selection=list(newest.asset_selection or []),
    )
    order = [event.asset_key.path[-1] for event in result.get_asset_materialization_events()]
    assert order == ["market_data", "momentum_signals"]
    # The code server opens an instance for each tick, and reads the migrations for the first one.
    assert getattr(ScriptDirectory.from_config, "remembers", False)


def test_an_assets_page_can_list_its_schedules():
    """A schedule targets its notebooks, where they have one partitioning; else all assets."""
    repository = _definitions(
        {
            "own": schedule(notebooks=["market_data", "momentum_signals"]),
            "mixed": schedule(notebooks=["monthly_report", "momentum_signals"]),
        }
    ).get_repository_def()
    assert repository.get_schedule_def("mixed").job_name == ALL_ASSETS_JOB
    own = repository.get_job(repository.get_schedule_def("own").job_name)
    assert {key.to_user_string() for key in own.asset_layer.selected_asset_keys} == {
        *("market_data", "momentum_signals"),
    }


@pytest.mark.parametrize(("number", "listed"), [(300, True), (301, False)])
def test_many_notebooks_under_schedules_are_not_listed(number, listed):
    """A job of each schedule's own costs every load of the code location."""
    notebooks = {f"n{n}": ScheduledNotebook(f"n{n}", op=f"n{n}") for n in range(number)}
    built = build_schedules({"s": schedule(notebooks=list(notebooks))}, notebooks)
    assert (built.schedules[0].job_name != ALL_ASSETS_JOB) is listed


def test_a_schedules_parameters_become_op_config(stored):
    """Each notebook gets the values that are its own, under its op's name."""
    garch = ScheduledNotebook("volatility/garch", op="volatility__garch")
    spec = schedule(notebooks=["market_data", "volatility/garch"], parameters={"lookback": 30})

    def op_config(notebook, parameters, _where):
        return dict(parameters) if notebook == "volatility/garch" else {}

    built = build_schedules(
        {"s": spec},
        {"market_data": PLAIN, "volatility/garch": garch},
        op_config=op_config,
    )
    context = dg.build_schedule_context(
        instance=stored, scheduled_execution_time=at("2026-03-10 01:30")
    )
    data = built.schedules[0].evaluate_tick(context)
    assert data.run_requests is not None
    assert data.run_requests[0].run_config == {
        "ops": {"volatility__garch": {"config": {"lookback": 30}}}
    }


def test_parameters_that_do_not_convert_take_down_their_schedule_alone():
    """The problem names the schedule; the other schedules are made."""

    def op_config(notebook, parameters, _where):
        if parameters.get("lookback") == "long":
            raise ParameterError(f"{notebook}: lookback is 'long', no int", hint="Write 60.")
        return {key: value for key, value in parameters.items() if key == "lookback"}

    built = build_schedules(
        {
            "misspelt": schedule(notebooks=["market_data"], parameters={"lookbck": 1}),
            "bad": schedule(notebooks=["market_data"], parameters={"lookback": "long"}),
            "good": schedule(notebooks=["market_data"]),
        },
        {
            "market_data": ScheduledNotebook(
                "market_data", parameters=("lookback", "universe"), op="market_data"
            )
        },
        op_config=op_config,
    )
    assert [s.name for s in built.schedules] == ["good"]
    assert [str(p.error) for p in built.problems] == [
        (
            "schedule misspelt: none of its notebooks has the parameter 'lookbck'. "
            "Did you mean 'lookback'?"
        ),
        "schedule bad: market_data: lookback is 'long', no int. Write 60.",
    ]


# --- a year ---------------------------------------------------------------------------------------


def ticks(cron: str | list[str], zone: str, year: int = 2026) -> list[datetime]:
    """A year's ticks as Dagster's scheduler counts them."""
    first = datetime(year, 1, 1, tzinfo=ZoneInfo(zone))
    last = datetime(year + 1, 1, 1, tzinfo=ZoneInfo(zone))
    found: list[datetime] = []
    for moment in schedule_execution_time_iterator(first.timestamp(), cron, zone):
        if moment >= last:
            return found
        found.append(moment)
    return found


@pytest.mark.parametrize(
    ("zone", "spring", "autumn"),
    [(ZAGREB, "2026-03-29", "2026-10-25"), ("America/New_York", "2026-03-08", "2026-11-01")],
)
@pytest.mark.parametrize(
    "cron", ["30 2 * * *", "0 2 * * *", "30 1 * * *", "30 3 * * *", "30 2 * * 0", "30 2 1-31 * *"]
)
def test_each_day_has_one_tick_across_clock_changes(zone, spring, autumn, cron):
    """An hour that does not exist, and one that comes twice, both give one tick on their day."""
    found = Counter(moment.strftime("%Y-%m-%d") for moment in ticks(cron, zone))
    assert set(found.values()) == {1}
    assert spring in found
    assert autumn in found
    assert len(found) == (52 if cron.endswith("0") else 365)


@pytest.mark.parametrize("zone", [ZAGREB, "America/New_York"])
def test_a_year_of_ticks_with_outages_leaves_no_hole_and_asks_for_nothing_twice(zone, instance):
    """Each day's partition is asked for once, whatever ticks the daemon slept through.

    As Dagster's daemon does, only the last of several missed ticks is evaluated.
    """
    spec = schedule(cron="30 2 * * *", timezone=zone, catch_up=7)
    made = NotebookSpec.model_validate({"partitions": {"by": "day", "start": "2025-12-01"}})
    assert made.partitions is not None
    definition = build_partitions(
        made.model_copy(update={"partitions": made.partitions.in_timezone(zone)})
    )
    notebook = ScheduledNotebook("n", definition, by="day", op="n")
    make(instance, notebook, *days("2025-12-01", "2025-12-30"))
    # down over both clock changes, over weekends, and for exactly as long as catch_up reaches
    outages = [
        ("2026-02-13", "2026-02-16"),
        ("2026-03-06", "2026-03-09"),
        ("2026-03-27", "2026-03-30"),
        ("2026-07-01", "2026-07-07"),
        ("2026-10-24", "2026-10-26"),
        ("2026-10-31", "2026-11-02"),
    ]
    down = {day for first, last in outages for day in days(first, last)}
    asked_for: Counter[str | None] = Counter()
    missed: datetime | None = None
    for moment in ticks("30 2 * * *", zone):
        if moment.strftime("%Y-%m-%d") in down:
            missed = moment
            continue
        due = [moment]
        if missed is not None:
            # it comes back an hour before the next tick, and finds the last of those it missed
            due, missed = [missed, moment], None
        for when in due:
            keys = asked(
                requests_at(Tick("s", spec, (notebook,), when, when.astimezone(UTC)), instance)
            )
            asked_for.update(keys)
            make(instance, notebook, *[key for key in keys if key is not None])
    assert set(asked_for.values()) == {1}
    assert sorted(str(key) for key in asked_for) == days("2025-12-31", "2026-12-30")
