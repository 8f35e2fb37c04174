"""What schedules ask for after real runs over ranges: failures, skips, and what was not begun."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from research_jobs.manifest import ScheduleSpec
from research_jobs.orchestration.definitions.jobs import ScheduledNotebook
from research_jobs.orchestration.definitions.schedules import Tick, requests_at
from research_jobs.orchestration.execution import work
from research_jobs.orchestration.model import status
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.backfill import backfill

PARTITIONS = "partitions: {by: day, start: 2024-01-01, parameter: day}"
NOTEBOOK = """# %% tags=["parameters"]
day: str = "2024-01-01"
# %%
from research_jobs import skip
if day == "2024-01-04": raise ValueError("no prices")
if day == "2024-01-05": skip("market closed")
rows = [day]
"""
DAYS = ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-06"]


def asked(lab: Any, *, retries: int = 0, name: str = "s") -> list[str | None]:
    """The partitions that a tick on the 7th asks for, looking at the four before the newest."""
    graph = lab.defs().get_repository_def().asset_graph
    definition = graph.get(dg.AssetKey(name)).partitions_def
    notebook = ScheduledNotebook(name, definition, op=name, retries=retries, by="day")
    when = datetime(2024, 1, 7, 1, 30, tzinfo=UTC)
    spec = ScheduleSpec.model_validate(
        {"cron": "30 1 * * *", "timezone": "UTC", "notebooks": [name], "catch_up": 4}
    )
    result = requests_at(Tick("nightly", spec, (notebook,), when, when), lab.instance)
    return [] if isinstance(result, str) else [request.partition_key for request in result]


def test_failures_within_a_range_count_as_one_within_a_run_does(lab: Any) -> None:
    """With one retry, a day that failed in two runs, of whatever kind, is given up."""
    lab.write({"s": NOTEBOOK}, f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}}}\n")
    lab.materialize("s", span=("2024-01-02", "2024-01-06"))
    assert asked(lab, retries=0) == []
    assert asked(lab, retries=1) == ["2024-01-04"]
    lab.materialize("s", span=("2024-01-03", "2024-01-05"))
    assert asked(lab, retries=1) == []
    assert asked(lab, retries=2) == ["2024-01-04"]
    lab.materialize("s", partition="2024-01-04")
    assert asked(lab, retries=2) == []
    assert asked(lab, retries=3) == ["2024-01-04"]


def test_a_skip_within_a_range_that_failed_is_a_skip(lab: Any) -> None:
    """The run failed for another day; the one that was skipped is not asked for again."""
    lab.write({"s": NOTEBOOK}, f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}}}\n")
    lab.materialize("s", span=("2024-01-04", "2024-01-05"))
    assert asked(lab, retries=5) == ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-06"]


def test_days_that_an_interrupted_range_did_not_begin_are_asked_for(lab: Any) -> None:
    """They failed with their run in Dagster's eyes, but not in fact."""
    lab.write({"s": NOTEBOOK}, f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}}}\n")
    job = lab.defs().resolve_implicit_global_asset_job_def()
    lab.instance.create_run_for_job(
        job,
        tags={
            "dagster/asset_partition_range_start": "2024-01-02",
            "dagster/asset_partition_range_end": "2024-01-06",
        },
        asset_selection=frozenset([dg.AssetKey("s")]),
        status=dg.DagsterRunStatus.FAILURE,
    )
    assert asked(lab) == DAYS


@pytest.mark.parametrize("how", ["single", "backfill"])
def test_what_reads_a_skipped_day_is_not_asked_for_again(lab: Any, how: str) -> None:
    """A notebook behind one that skipped had nothing to do either, however the two were run."""
    reads = '# %% tags=["parameters"]\nday: str = ""\n# %%\n'
    reads += "from research_jobs import load\nx = load('s', 'rows')\n"
    lab.write(
        {"s": NOTEBOOK, "t": reads},
        f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}, t: {{outputs: [x], {PARTITIONS}}}}}\n",
    )
    if how == "single":
        assert lab.materialize("s", "t", partition="2024-01-05").success
    else:
        backfill(lab.instance, load_catalog(lab.project), ["s", "t"], keys=["2024-01-05"])
    assert asked(lab, name="t") == [day for day in DAYS if day != "2024-01-05"]
    again = backfill(
        lab.instance,
        load_catalog(lab.project),
        ["s", "t"],
        keys=DAYS[2:],
        only="missing",
        dry_run=True,
    )
    assert [(p.notebook, p.keys, p.skipped_before) for p in again.plan] == [
        ("s", ("2024-01-04", "2024-01-06"), 1),
        ("t", ("2024-01-04", "2024-01-06"), 1),
    ]


def test_both_rooms_call_skips_and_failures_the_same() -> None:
    """What a run writes is what the status reads."""
    assert (status.SKIPPED_METADATA, status.FAILED_METADATA) == (work.SKIPPED, work.FAILED)
