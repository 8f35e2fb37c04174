"""Backfills without a daemon: planned, run, interrupted and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.backfill import (
    BackfillSummary,
    backfill,
)
from research_jobs.orchestration.operations.backfill_plan import in_order
from research_jobs.outcome import Outcome, State

DAILY = """# %% tags=["parameters"]
day: str = "2024-01-01"
# %%
import pathlib
here = pathlib.Path(__file__).parent
{extra}
{out} = [day]
"""
PARTITIONS = "partitions: {by: day, start: 2024-01-01, end: 2024-01-11, parameter: day}"
ONE = f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}}}\n"
TWO = f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}, t: {{outputs: [x], {PARTITIONS}}}}}\n"
READS_S = "from research_jobs import load\nload('s', 'rows')"


def days(*numbers: int) -> list[str]:
    return [f"2024-01-{number:02d}" for number in numbers]


def fill(lab: Any, *names: str, **options: Any) -> BackfillSummary:
    return backfill(lab.instance, load_catalog(lab.project), names, **options)


def made(lab: Any, name: str = "s") -> list[str]:
    return sorted(lab.instance.get_materialized_partitions(dg.AssetKey(name)))


def test_one_run_and_progress_for_each_partition(lab: Any) -> None:
    """One Dagster run, tagged with the range and the backfill; an outcome for each partition."""
    lab.write({"s": DAILY.format(extra="", out="rows")}, ONE)
    seen: list[Outcome] = []
    summary = fill(lab, "s", first="2024-01-02", last="2024-01-05", on_progress=seen.append)
    assert summary.ok
    assert summary.counts == {"succeeded": 4}
    assert sorted(outcome.partition for outcome in seen) == made(lab) == days(2, 3, 4, 5)
    assert all(Path(outcome.report or "").is_file() for outcome in seen)
    (run,) = lab.instance.get_runs()
    assert (run.run_id,) == summary.run_ids
    assert run.tags["research_jobs/backfill"] == summary.id
    assert run.tags["dagster/asset_partition_range_start"] == "2024-01-02"
    assert run.tags["dagster/asset_partition_range_end"] == "2024-01-05"
    assert run.remote_job_origin.location_name == "research_jobs"


def test_missing_goes_on_where_it_was(lab: Any) -> None:
    """What has data is left alone: a range with gaps is still one run."""
    lab.write({"s": DAILY.format(extra="", out="rows")}, ONE)
    fill(lab, "s", keys=days(2, 5, 6))
    summary = fill(lab, "s", first="2024-01-01", last="2024-01-08", only="missing")
    assert summary.plan[0].keys == tuple(days(1, 3, 4, 7, 8))
    assert len(summary.run_ids) == 1
    assert made(lab) == days(*range(1, 9))
    assert fill(lab, "s", last="2024-01-08", only="missing").run_ids == ()


def test_a_failure_leaves_only_itself_missing(lab: Any) -> None:
    """Gaps that were made before do not look failed; --failed runs the failed one alone."""
    extra = "if day == '2024-01-04' and not (here / 'mended').exists(): raise ValueError('no')"
    lab.write({"s": DAILY.format(extra=extra, out="rows")}, ONE)
    fill(lab, "s", keys=days(3, 5))
    summary = fill(lab, "s", first="2024-01-02", last="2024-01-06", only="missing")
    assert not summary.ok
    (problem,) = summary.problems
    assert (problem.partition, problem.state) == ("2024-01-04", State.FAILED)
    assert problem.reason == "notebooks/s.py:6, cell 2: ValueError: no"
    definition = lab.defs().get_repository_def().asset_graph.get(dg.AssetKey("s")).partitions_def
    status = lab.instance.get_status_by_partition(dg.AssetKey("s"), days(2, 3, 4, 5, 6), definition)
    assert [status[day].value for day in days(2, 3, 4, 5, 6)] == [
        *("MATERIALIZED", "MATERIALIZED", "FAILED", "MATERIALIZED", "MATERIALIZED")
    ]
    (lab.root / "notebooks/mended").touch()
    summary = fill(lab, "s", only="failed")
    assert summary.plan[0].keys == ("2024-01-04",)
    assert summary.ok


def test_notebooks_that_need_each_other_go_level_by_level(lab: Any) -> None:
    """A run for each level; partitions whose upstream failed or was skipped do not run."""
    extra = (
        "if day == '2024-01-03': raise ValueError('no')\n"
        "from research_jobs import skip\nif day == '2024-01-04': skip('closed')"
    )
    lab.write(
        {
            "s": DAILY.format(extra=extra, out="rows"),
            "t": DAILY.format(extra=READS_S, out="x"),
        },
        TWO,
    )
    summary = fill(lab, "t", "s", first="2024-01-02", last="2024-01-05")
    assert [planned.notebook for planned in summary.plan] == ["s", "t"]
    assert len(summary.run_ids) == 2
    assert summary.counts == {"succeeded": 4, "failed": 1, "skipped": 2, "blocked": 1}
    assert made(lab, "t") == days(2, 5)
    (left_out,) = [p for p in summary.problems if p.notebook == "t"]
    assert left_out.reason == "s failed for 2024-01-03"


def test_notebooks_of_one_run_share_its_concurrency(lab: Any) -> None:
    """Three at once over two notebooks are two each: rounded up, so that none stands still."""
    lab.write({"s": DAILY.format(extra="", out="rows"), "t": DAILY.format(extra="", out="x")}, TWO)
    summary = fill(lab, "s", "t", first="2024-01-02", last="2024-01-03", concurrency=3)
    assert summary.ok
    (run,) = lab.instance.get_runs()
    assert run.tags["research_jobs/concurrency"] == "2"


def test_what_was_skipped_is_not_missing(lab: Any) -> None:
    """A notebook that had nothing to do is not asked again, also when others of its run failed."""
    extra = (
        "from research_jobs import skip\nif day == '2024-01-03': skip('closed')\n"
        "if day == '2024-01-02': raise ValueError"
    )
    lab.write({"s": DAILY.format(extra=extra, out="rows")}, ONE)
    assert fill(lab, "s", first="2024-01-02", last="2024-01-04").counts["skipped"] == 1
    (planned,) = fill(
        lab, "s", first="2024-01-02", last="2024-01-04", only="missing", dry_run=True
    ).plan
    assert planned.keys == ("2024-01-02",)
    assert planned.skipped_before == 1
    assert fill(lab, "s", only="failed", dry_run=True).plan[0].keys == ("2024-01-02",)
    # and so is one that reads it: for what it skipped there is nothing to read
    lab.write({"t": DAILY.format(extra=READS_S, out="x")}, TWO)
    (planned,) = fill(
        lab, "t", first="2024-01-02", last="2024-01-04", only="missing", dry_run=True
    ).plan
    assert planned.keys == ("2024-01-02", "2024-01-04")
    assert planned.skipped_before == 1


def test_stale_partitions(lab: Any) -> None:
    """Those of another code, and those whose upstream partition has new data."""
    lab.write(
        {
            "s": DAILY.format(extra="", out="rows"),
            "t": DAILY.format(extra=READS_S, out="x"),
        },
        TWO,
    )
    fill(lab, "s", "t", first="2024-01-02", last="2024-01-04")
    assert fill(lab, "t", only="stale", dry_run=True).plan[0].keys == ()
    lab.write(
        {
            "s": DAILY.format(extra="n = 1 if day > '2024-01-03' else 0", out="rows")
            + "rows *= n + 1\n"
        }
    )
    assert fill(lab, "s", only="stale", dry_run=True).plan[0].keys == tuple(days(2, 3, 4))
    # what reads them comes along, where both are asked for
    both = fill(lab, "t", "s", only="stale", dry_run=True).plan
    assert [planned.keys for planned in both] == [tuple(days(2, 3, 4))] * 2
    fill(lab, "s", first="2024-01-02", last="2024-01-04")
    # Only the fourth's data changed.
    assert fill(lab, "t", only="stale", dry_run=True).plan[0].keys == ("2024-01-04",)


def test_a_single_partition_is_an_ordinary_run(lab: Any) -> None:
    """Nothing of a range then: Dagster's own partition tag, and the failure's own line."""
    lab.write({"s": DAILY.format(extra="raise ValueError('no')", out="rows")}, ONE)
    summary = fill(lab, "s", keys=["2024-01-02"])
    (run,) = lab.instance.get_runs()
    assert run.tags["dagster/partition"] == "2024-01-02"
    assert summary.problems[0].reason == "notebooks/s.py:6, cell 2: ValueError: no"


def test_parameters_and_dry_run(lab: Any) -> None:
    """Parameters reach every partition; a dry run plans and leaves nothing behind."""
    lab.write({"s": '# %% tags=["parameters"]\nday = ""\nn = 1\n# %%\nrows = [day] * n\n'}, ONE)
    summary = fill(lab, "s", keys=days(2, 3), dry_run=True)
    assert summary.plan[0].keys == tuple(days(2, 3))
    assert lab.instance.get_runs() == []
    fill(lab, "s", keys=days(2, 3), parameters={"s": {"n": 3}})
    record = lab.instance.get_latest_materialization_event(dg.AssetKey("s"))
    metadata = record.asset_materialization.metadata
    assert metadata["dagster/partition_row_count"].value == 3


def test_another_io_manager_gets_a_run_for_each_partition(lab: Any, tmp_path: Path) -> None:
    """It writes one partition at a time, so that is what it is given."""
    lab.write(
        {"s": DAILY.format(extra="", out="rows")},
        ONE.replace("{outputs", "{io_manager: w, outputs"),
    )
    manager = dg.FilesystemIOManager(base_dir=str(tmp_path / "w"))
    summary = fill(lab, "s", keys=days(2, 4), definitions=lab.defs(resources={"w": manager}))
    assert summary.ok, summary.problems
    assert len(summary.run_ids) == 2
    assert sorted(path.name for path in (tmp_path / "w/s").iterdir()) == days(2, 4)


def test_wrong_calls_are_reported_before_anything_runs(lab: Any) -> None:
    """A notebook without partitions, and a partition that there is not."""
    lab.write({"s": DAILY.format(extra="", out="rows"), "plain": "# %%\n"}, ONE)
    with pytest.raises(PartitionError, match="plain has no partitions"):
        fill(lab, "plain")
    with pytest.raises(PartitionError):
        fill(lab, "s", keys=["2025-01-01"])
    assert lab.instance.get_runs() == []


def test_weekly_from_daily(lab: Any) -> None:
    """A failing day keeps its own week from running, and no other."""
    lab.write(
        {
            "s": DAILY.format(extra="if day == '2024-01-03': raise OSError", out="rows"),
            "w": DAILY.format(extra="", out="x"),
        },
        f"""
notebooks:
  s: {{outputs: [rows], {PARTITIONS.replace("01-11", "01-15")}}}
  w:
    outputs: [x]
    partitions: {{by: week, start: 2024-01-01, end: 2024-01-15, parameter: day}}
    deps: [s]
""",
    )
    summary = fill(lab, "s", "w", concurrency=4)
    (left_out,) = [p for p in summary.problems if p.notebook == "w"]
    assert left_out.partition == "2024-01-01"
    assert left_out.reason == "s failed for 2024-01-03"
    assert made(lab, "w") == ["2024-01-08"]


def test_a_killed_backfill_loses_nothing_finished(lab: Any) -> None:
    """SIGKILL amid it: the dead run is marked as failed, and the same call with missing goes on."""
    extra = "import time\nif day >= '2024-01-04' and not (here / 'go').exists(): time.sleep(300)"
    lab.write({"s": DAILY.format(extra=extra, out="rows")}, ONE)
    home = lab.root.parent / "home-0"
    code = f"""
import dagster as dg
from research_jobs.orchestration.operations.backfill import backfill
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.project import find_project
with dg.DagsterInstance.from_config({str(home)!r}) as instance:
    backfill(
        instance, load_catalog(find_project({str(lab.root)!r})), ["s"], first="2024-01-02",
        last="2024-01-06", concurrency=2, on_progress=lambda o: print(o.partition, flush=True),
    )
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(2)]
        os.kill(process.pid, signal.SIGKILL)
    assert sorted(seen) == made(lab) == days(2, 3)
    from research_jobs.orchestration.model.instance import end_dead_runs

    (run,) = lab.instance.get_runs()
    assert end_dead_runs(lab.instance) == [run.run_id]
    (lab.root / "notebooks/go").touch()
    summary = fill(lab, "s", first="2024-01-02", last="2024-01-06", only="missing")
    assert summary.plan[0].keys == tuple(days(4, 5, 6))
    assert summary.ok
    assert made(lab) == days(2, 3, 4, 5, 6)


@pytest.mark.parametrize("point", ["create_run_for_job", "execute_run"])
def test_killed_before_and_after_the_run_is_there(lab: Any, point: str) -> None:
    """Fault 27: SIGKILL before and after submission; the same call again runs each day once."""
    extra = "with (here / 'marks').open('a') as marks: print(day, file=marks)"
    lab.write({"s": DAILY.format(extra=extra, out="rows")}, ONE)
    code = f"""
import os, signal
import dagster as dg
from research_jobs.orchestration.operations import backfill as module
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.project import find_project
def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
with dg.DagsterInstance.from_config({str(lab.root.parent / "home-0")!r}) as instance:
    setattr(instance if {point!r} == "create_run_for_job" else module, {point!r}, die)
    module.backfill(
        instance, load_catalog(find_project({str(lab.root)!r})), ["s"], first="2024-01-02",
        last="2024-01-05", only="missing",
    )
"""
    died = subprocess.run([sys.executable, "-c", code], check=False)
    assert died.returncode == -signal.SIGKILL
    from research_jobs.orchestration.model.instance import end_dead_runs

    assert len(end_dead_runs(lab.instance)) == len(lab.instance.get_runs())
    assert len(lab.instance.get_runs()) == (1 if point == "execute_run" else 0)
    summary = fill(lab, "s", first="2024-01-02", last="2024-01-05", only="missing")
    assert summary.plan[0].keys == tuple(days(2, 3, 4, 5))
    assert made(lab) == days(2, 3, 4, 5)
    assert sorted((lab.root / "notebooks/marks").read_text().split()) == days(2, 3, 4, 5)


def test_on_every_storage(lab: Any, any_instance: dg.DagsterInstance) -> None:
    """SQLite and Postgres: a range with gaps, many keys long, with a failure in it."""
    lab.instance = any_instance
    extra = "if day == '2024-01-04': raise ValueError('no')"
    lab.write({"s": DAILY.format(extra=extra, out="rows")}, ONE)
    fill(lab, "s", keys=days(2, 5))
    summary = fill(lab, "s", only="missing")
    assert summary.counts == {"succeeded": 7, "failed": 1}
    assert fill(lab, "s", only="failed", dry_run=True).plan[0].keys == ("2024-01-04",)
    assert made(lab) == days(1, 2, 3, 5, 6, 7, 8, 9, 10)


def test_stale_weeks_come_with_their_days(lab: Any) -> None:
    """Of a week that was made, any day of it that is to be made anew; another week is let be."""
    lab.write(
        {"s": DAILY.format(extra="", out="rows"), "w": DAILY.format(extra="", out="x")},
        f"""
notebooks:
  s: {{outputs: [rows], {PARTITIONS.replace("01-11", "01-22")}}}
  w:
    outputs: [x]
    partitions: {{by: week, start: 2024-01-01, end: 2024-01-22, parameter: day}}
    deps: [s]
""",
    )
    fill(lab, "s", "w", keys=["2024-01-01", "2024-01-08"])
    fill(lab, "s", keys=["2024-01-15"])
    lab.write({"s": DAILY.format(extra="n = 1", out="rows")})
    plan = fill(lab, "s", "w", only="stale", last="2024-01-04", dry_run=True).plan
    assert [planned.keys for planned in plan] == [("2024-01-01",), ("2024-01-01",)]
    plan = fill(lab, "s", "w", only="stale", dry_run=True).plan
    assert [len(planned.keys) for planned in plan] == [3, 2]


def test_variants_are_partitions(lab: Any) -> None:
    """Each parameter set of a notebook is one; it gets that set's values."""
    lab.write(
        {"s": '# %% tags=["parameters"]\nn = 0\n# %%\nrows = list(range(n))\n'},
        "notebooks: {s: {outputs: [rows], variants: {eu: {n: 1}, us: {n: 2}}}}\n",
    )
    summary = fill(lab, "s")
    assert summary.counts == {"succeeded": 2}
    from research_jobs import load

    assert load("s", "rows", "us", project=lab.root) == [0, 1]


def test_dynamic_partitions(lab: Any) -> None:
    """Keys that another notebook lists, as the instance knows them; one that failed holds back."""
    listed = "{dynamic: {notebook: universe, output: OUT}, parameter: ticker}"
    cell = '# %% tags=["parameters"]\nticker = ""\n# %%\n'
    lab.write(
        {
            "universe": "# %%\ntickers = ['A', 'B', 'C']\nliquid = tickers\n",
            "s": cell + "assert ticker != 'C'\nrows = [ticker]\n",
            "t": cell + "from research_jobs import load\nrows = load('s', 'rows')\n",
        },
        "notebooks:\n  universe: {outputs: [tickers, liquid]}\n"
        f"  s: {{outputs: [rows], partitions: {listed.replace('OUT', 'tickers')}}}\n"
        f"  t: {{outputs: [rows], partitions: {listed.replace('OUT', 'liquid')}}}\n",
    )
    graph = lab.defs().get_repository_def().asset_graph
    for name in ("s", "t"):
        definition = graph.get(dg.AssetKey(name)).partitions_def
        assert isinstance(definition, dg.DynamicPartitionsDefinition)
        lab.instance.add_dynamic_partitions(definition.name, ["A", "B", "C"])
    summary = fill(lab, "s", "t", keys=["A", "C"])
    assert summary.counts == {"succeeded": 2, "failed": 1, "blocked": 1}
    assert made(lab) == made(lab, "t") == ["A"]
    assert in_order(definition, ["C", "gone", "A"], lab.instance) == ["A", "C"]
    with pytest.raises(PartitionError, match="none of its partitions exists any more"):
        in_order(definition, ["gone"], lab.instance)
