"""What is asked for many assets at once is what Dagster says of each."""

from __future__ import annotations

import random
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    StepMaterializationData,
)

from research_jobs.orchestration.compat import many_assets

ASSETS = [dg.AssetKey(["desk", name]) for name in ("a", "b", "c", "d")]
JOB = "notebooks"


def planned(key: dg.AssetKey, partition: str | None) -> DagsterEvent:
    """A run says that it is going to make a partition."""
    return DagsterEvent.build_asset_materialization_planned_event(
        JOB, "step", AssetMaterializationPlannedData(key, partition=partition)
    )


def made(key: dg.AssetKey, partition: str | None, number: int) -> DagsterEvent:
    """A run has made it."""
    return DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value,
        JOB,
        step_key="step",
        event_specific_data=StepMaterializationData(
            dg.AssetMaterialization(key, partition=partition, metadata={"number": number})
        ),
    )


def live(instance: dg.DagsterInstance, rng: random.Random) -> tuple[set[str], set[dg.AssetKey]]:
    """A history of runs that succeed, fail and repeat partitions: its runs, and what was wiped."""
    runs: set[str] = set()
    wiped: set[dg.AssetKey] = set()
    for number in range(15):
        run_id = dg.DagsterRun(job_name=JOB).run_id
        for key in rng.sample(ASSETS, rng.randint(1, 3)):
            # The last asset has no partitions.
            partition = None if key == ASSETS[-1] else rng.choice("xyz")
            instance.report_dagster_event(planned(key, partition), run_id)
            for _ in range(rng.choice([0, 1, 1, 2])):
                instance.report_dagster_event(made(key, partition, number), run_id)
        if rng.random() < 0.1:
            wiped.add(key := rng.choice(ASSETS[1:]))
            instance.wipe_assets([key])
        runs.add(run_id)
    return runs, wiped


@pytest.mark.parametrize("seed", range(2))
def test_it_is_what_dagster_says(
    any_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random histories, wiped assets among them, read both ways."""
    runs, wiped = live(any_instance, random.Random(seed))
    # Of wiped ones, Dagster's storages differ: on SQLite the log of a run still has the event.
    wanted = {(run_id, key) for run_id in runs for key in ASSETS if key not in wiped}

    def ask() -> tuple[Any, ...]:
        return (
            many_assets.partition_events(any_instance, ASSETS),
            many_assets.last_runs(any_instance, ASSETS),
            many_assets.last_materializations(any_instance, wanted),
        )

    at_once = ask()
    monkeypatch.setattr(many_assets, "_columns", lambda *_, **__: None)
    one_by_one = ask()
    assert at_once == one_by_one
    assert all(one_by_one)
