"""`after:` and `automation:` under Dagster's own evaluation of conditions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.definitions.automation import (
    automation_condition,
    automation_sensor,
)
from research_jobs.orchestration.model.names import AssetNames

# Dagster's own helper uses a parameter of its own that is in beta
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `include_sources`")

START = datetime(2026, 3, 10, 12, tzinfo=UTC)


def definitions(daily: bool = False, **spec: Any) -> dg.Definitions:
    """Two notebooks that `report` loads, and `report` with what the manifest says of it."""
    made = NotebookSpec.model_validate(spec)

    @dg.asset
    def market_data() -> None: ...

    @dg.asset
    def universe() -> None: ...

    @dg.asset(
        deps=[market_data, universe],
        automation_condition=automation_condition(made),
        partitions_def=dg.DailyPartitionsDefinition("2026-03-01") if daily else None,
    )
    def report() -> None: ...

    return dg.Definitions(assets=[market_data, universe, report])


class Automation:
    """Dagster's evaluation, look by look."""

    def __init__(self, instance: dg.DagsterInstance, made: dg.Definitions) -> None:
        self.instance = instance
        self.definitions = made
        self.cursor: Any = None
        self.now = START

    def look(self) -> int:
        """How often `report` is asked for at this look."""
        self.now += timedelta(minutes=1)
        result = dg.evaluate_automation_conditions(
            self.definitions,
            self.instance,
            cursor=self.cursor,
            evaluation_time=self.now,
        )
        self.cursor = result.cursor
        return result.get_num_requested(dg.AssetKey("report"))

    def run(self, *names: str) -> None:
        """Run notebooks together."""
        dg.materialize(
            list(self.definitions.assets or []),
            selection=[dg.AssetKey(name.split("/")) for name in names],
            instance=self.instance,
        )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_a_notebook_without_a_word_has_no_condition():
    """Only what the manifest says runs by itself."""
    assert automation_condition(NotebookSpec()) is None


def test_after_runs_when_that_notebook_has_new_data(instance):
    """Once for each new data of the one it names, and not for the other one that it loads."""
    automation = Automation(instance, definitions(after="market_data"))
    automation.run("market_data", "universe")
    assert automation.look() == 0  # what was there before the first look is no news
    automation.run("universe")
    assert automation.look() == 0
    automation.run("market_data")
    assert automation.look() == 1
    automation.run("report")
    assert automation.look() == 0


def test_after_names_notebooks_without_the_prefix(instance):
    """The manifest's names mean the project's own notebooks, whose keys have its prefix."""
    condition = automation_condition(NotebookSpec(after=("source",)), AssetNames("desk"))

    @dg.asset(key=["desk", "source"])
    def source() -> None: ...

    @dg.asset(deps=[source], automation_condition=condition)
    def report() -> None: ...

    automation = Automation(instance, dg.Definitions(assets=[source, report]))
    automation.run("desk/source")
    automation.look()
    automation.run("desk/source")
    assert automation.look() == 1


def test_after_does_not_run_what_was_never_made(instance):
    """That a notebook is missing is no new data."""
    automation = Automation(instance, definitions(after="market_data"))
    automation.run("market_data", "universe")
    assert [automation.look() for _ in range(3)] == [0, 0, 0]


def test_a_run_over_both_is_no_cause(instance):
    """A schedule that runs both notebooks does not make the second run twice."""
    automation = Automation(instance, definitions(after="market_data"))
    automation.run("market_data", "universe", "report")
    assert automation.look() == 0
    automation.run("market_data", "report")
    assert automation.look() == 0


def test_after_two_waits_until_none_of_them_is_missing(instance):
    """With one of them never made it does not run; afterwards either is a cause."""
    automation = Automation(instance, definitions(after=["market_data", "universe"]))
    assert automation.look() == 0
    automation.run("market_data")
    assert automation.look() == 0
    automation.run("universe")
    assert automation.look() == 1
    automation.run("report")
    assert automation.look() == 0
    automation.run("universe")
    assert automation.look() == 1


@pytest.mark.parametrize("name", ["market_data", "report"])
def test_after_waits_for_what_is_being_made(instance, name):
    """While the cause is made again, or the notebook itself runs, there is nothing to ask for."""
    made = definitions(after="market_data")
    automation = Automation(instance, made)
    automation.run("market_data")
    automation.look()
    automation.run("market_data")
    running = instance.create_run_for_job(
        made.resolve_implicit_global_asset_job_def(),
        asset_selection=frozenset([dg.AssetKey(name)]),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert automation.look() == 0
    instance.report_run_canceled(running)
    assert automation.look() == 1


def test_after_runs_the_newest_of_a_days_partitions(instance):
    """New data without partitions is no reason to make all of history again."""
    automation = Automation(instance, definitions(daily=True, after="market_data"))
    automation.run("market_data")
    automation.look()
    automation.run("market_data")
    assert automation.look() == 1


def test_eager_runs_for_anything_that_it_loads(instance):
    """Dagster's eager: new data of any of them."""
    automation = Automation(instance, definitions(automation="eager"))
    automation.run("market_data", "universe", "report")
    assert automation.look() == 0
    automation.run("universe")
    assert automation.look() == 1


def test_on_missing_runs_partitions_that_come(instance):
    """Yesterday's is history; the one that begins to exist at midnight runs once."""
    automation = Automation(instance, definitions(daily=True, automation="on_missing"))
    automation.run("market_data", "universe")
    assert automation.look() == 0
    automation.now += timedelta(days=1)
    assert automation.look() == 1
    assert automation.look() == 0


def test_on_cron_uses_the_notebooks_zone():
    """Its own, else the one that the manifest gives the notebook."""
    spec = NotebookSpec.model_validate(
        {"automation": {"on_cron": "0 6 * * *"}, "timezone": "Europe/Zagreb"}
    )
    condition = automation_condition(spec)
    assert condition is not None
    assert condition.get_label() == "on_cron(0 6 * * *, Europe/Zagreb)"


def test_the_sensor_is_switched_on():
    """Dagster's own would stand still until someone starts it."""
    sensor = automation_sensor([dg.AssetKey("report")])
    assert sensor is not None
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert automation_sensor([]) is None


@pytest.mark.parametrize(
    ("settings", "zone"),
    [
        ({"timezone": "Asia/Tokyo"}, "Asia/Tokyo"),
        ({}, "America/New_York"),
    ],
)
def test_a_cron_of_automation_ticks_in_its_own_zone(settings, zone):
    """The zone beside the expression wins over the notebook's, and that over UTC."""
    automation = {"on_cron": {"cron": "0 6 * * *", **settings}}
    spec = NotebookSpec.model_validate({"automation": automation, "timezone": "America/New_York"})
    condition = automation_condition(spec)
    assert condition is not None
    expected = dg.AutomationCondition.on_cron("0 6 * * *", zone)
    assert condition.get_node_unique_id(parent_unique_id=None, index=0, target_key=None) == (
        expected.get_node_unique_id(parent_unique_id=None, index=0, target_key=None)
    )
    assert repr(condition) == repr(expected)
