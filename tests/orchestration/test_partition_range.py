"""One step over many partitions: each published and recorded as it finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from research_jobs.store.stored import stored_partitions

DAILY = """# %% tags=["parameters"]
day: str = "2024-01-01"
# %%
import pathlib
{extra}
rows = [day]
"""
PARTITIONS = "partitions: {by: day, start: 2024-01-01, end: 2024-01-11, parameter: day}"
MANIFEST = f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}}}\n"
SPAN = ("2024-01-02", "2024-01-06")
DAYS = [f"2024-01-0{n}" for n in range(2, 7)]


def stored(lab: Any, name: str = "s") -> list[str]:
    return [key.key for key in stored_partitions(str(lab.root / "data"), name)]


def made(lab: Any, name: str = "s") -> list[str]:
    return sorted(lab.instance.get_materialized_partitions(dg.AssetKey(name)))


def test_every_partition_has_one_materialization_of_its_own(lab: Any) -> None:
    """One event a partition, each with that run's metadata, code and data version."""
    lab.write({"s": DAILY.format(extra="")}, MANIFEST)
    run = lab.materialize("s", span=SPAN)
    assert run.success, run.errors
    assert sorted(m.partition for m in run.materializations("s")) == DAYS
    said = run.metadata("s", "2024-01-03")
    assert said["dagster/partition_row_count"] == 1
    assert said["parameters"] == {"day": "2024-01-03"}
    assert said["path"].endswith("rows/day=2024-01-03/part-0.parquet")
    tags = {m.partition: m.tags for m in run.materializations("s")}
    assert len({tag["dagster/data_version"] for tag in tags.values()}) == 5
    assert len({tag["dagster/code_version"] for tag in tags.values()}) == 1
    assert stored(lab) == made(lab) == DAYS


def test_a_thread_that_cannot_start(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses a thread the step fails, and none of its threads goes on."""
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "partitions-1":
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    lab.write({"s": DAILY.format(extra="import time; time.sleep(2)")}, MANIFEST)
    run = lab.materialize("s", span=SPAN)
    assert not run.success
    assert not [one for one in threading.enumerate() if one.name.startswith("partitions")]
    assert stored(lab) == []


def test_a_single_partition_takes_dagsters_own_way(lab: Any) -> None:
    """`--partition K`: one run, one event, the same metadata and layout."""
    lab.write({"s": DAILY.format(extra="")}, MANIFEST)
    run = lab.materialize("s", partition="2024-01-02")
    assert run.success, run.errors
    assert run.metadata("s", "2024-01-02")["dagster/partition_row_count"] == 1
    assert stored(lab) == ["2024-01-02"]


def test_a_failing_partition_does_not_stop_the_others(lab: Any) -> None:
    """In the end the step fails and names it; it alone is missing, and its reason is on it."""
    extra = "if day == '2024-01-04': raise ValueError('no data')"
    lab.write({"s": DAILY.format(extra=extra)}, MANIFEST)
    run = lab.materialize("s", span=SPAN)
    assert not run.success
    failure = run.failure("s")
    assert failure.description.startswith(
        "s: 1 of 5 partitions failed (2024-01-04). 2024-01-04: notebooks/s.py:5, cell 2: ValueError"
    )
    assert made(lab) == stored(lab) == [day for day in DAYS if day != "2024-01-04"]
    (observation,) = run.observations("s")
    assert observation.partition == "2024-01-04"
    assert "ValueError: no data" in observation.metadata["research_jobs/failed"].value
    assert Path(observation.metadata["report_file"].value.partition("#")[0]).exists()


def test_a_partition_is_tried_as_often_as_the_manifest_says(lab: Any) -> None:
    """Retries are each partition's own, and the step itself is not repeated."""
    extra = (
        "tries = pathlib.Path(__file__).parent / f'{day}.tries'\n"
        "n = len(tries.read_text()) if tries.exists() else 0\ntries.write_text('x' * (n + 1))\n"
        "if day == '2024-01-03' and n == 0: raise OSError\n"
        "if day == '2024-01-04': raise OSError"
    )
    lab.write({"s": DAILY.format(extra=extra)}, MANIFEST.replace("rows],", "rows], retries: 1,"))
    run = lab.materialize("s", span=SPAN)
    assert "1 of 5 partitions failed (2024-01-04)" in run.failure("s").description
    tries = {p.stem: len(p.read_text()) for p in (lab.root / "notebooks").glob("*.tries")}
    assert tries == {day: 2 if day in ("2024-01-03", "2024-01-04") else 1 for day in DAYS}
    assert run.steps("STEP_UP_FOR_RETRY") == []


def test_skipped_partitions_stay_missing_and_the_step_is_green(lab: Any) -> None:
    """Their reasons are on the asset; what reads them in the same run skips them too."""
    extra = "from research_jobs import skip\nif day == '2024-01-03': skip('market closed')"
    lab.write(
        {
            "s": DAILY.format(extra=extra),
            "t": DAILY.format(extra="from research_jobs import load\nx = load('s', 'rows')"),
        },
        f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}, t: {{outputs: [x], {PARTITIONS}}}}}\n",
    )
    run = lab.materialize("s", "t", span=SPAN)
    assert run.success, run.errors
    rest = [day for day in DAYS if day != "2024-01-03"]
    assert made(lab, "s") == made(lab, "t") == rest
    (upstream,), (downstream,) = run.observations("s"), run.observations("t")
    assert upstream.metadata["research_jobs/skipped"].value == "market closed"
    assert downstream.description == "s was skipped for it"


def test_all_skipped_skips_what_is_downstream(lab: Any) -> None:
    """A range in which nothing was made hands nothing on."""
    lab.write(
        {
            "s": DAILY.format(extra="from research_jobs import skip\nskip('closed')"),
            "t": DAILY.format(extra="from research_jobs import load\nx = load('s', 'rows')"),
        },
        f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}, t: {{outputs: [x], {PARTITIONS}}}}}\n",
    )
    run = lab.materialize("s", "t", span=SPAN)
    assert run.success
    assert run.steps("STEP_SKIPPED") == ["t"]


def test_a_refused_partition_keeps_its_previous_output(lab: Any) -> None:
    """An error-level check is per partition; the result says which did not pass."""
    lab.write(
        {"s": DAILY.format(extra="").replace("[day]", "[day] if day != '2024-01-04' else []")},
        f"notebooks: {{s: {{outputs: {{rows: {{min_rows: 1}}}}, {PARTITIONS}}}}}\n",
    )
    run = lab.materialize("s", span=SPAN)
    assert "failed the check min_rows" in run.failure("s").description
    assert made(lab) == [day for day in DAYS if day != "2024-01-04"]
    (check,) = run.checks().values()
    assert not check.passed
    assert check.metadata["partitions"].value == ["2024-01-04"]


def test_the_config_narrows_a_range(lab: Any) -> None:
    """A range with gaps is one run: only the partitions that are meant are made."""
    lab.write({"s": DAILY.format(extra="")}, MANIFEST)
    asked = {"s": {"research_jobs_partitions": ["2024-01-02", "2024-01-05...2024-01-06"]}}
    run = lab.materialize("s", span=SPAN, config=asked)
    assert run.success, run.errors
    assert made(lab) == ["2024-01-02", "2024-01-05", "2024-01-06"]


def test_a_notebook_that_reads_itself_goes_in_order(lab: Any) -> None:
    """Each partition finds the one before, however many could run at a time."""
    lab.write(
        {
            "s": '# %% tags=["parameters"]\nday: str = "2024-01-01"\n# %%\n'
            "import datetime\nfrom research_jobs import load\n"
            "before = str(datetime.date.fromisoformat(day) - datetime.timedelta(days=1))\n"
            "rows = [day] if day == '2024-01-02' else [*load('s', 'rows', before), day]\n"
        },
        MANIFEST,
    )
    run = lab.materialize("s", span=SPAN, tags={"research_jobs/concurrency": "4"})
    assert run.success, run.errors
    assert run.metadata("s", "2024-01-06")["dagster/partition_row_count"] == 5


ALONE = """
import os, pathlib, time
marks = pathlib.Path(__file__).parent
mark = marks / f"running-{day}"
mark.touch()
time.sleep(0.3)
others = [path.name for path in marks.glob("running-*") if path != mark]
mark.unlink()
if others:
    raise RuntimeError(f"beside {others}")
"""


READS_ITSELF = """
import datetime
from research_jobs import load
if day > "2024-01-02":
    before = datetime.date.fromisoformat(day) - datetime.timedelta(days=1)
    assert load("s", "rows", str(before)) == [str(before)]
"""


@pytest.mark.parametrize(
    ("pool", "reads", "alone"),
    [("pool: heavy, ", "", True), ("", READS_ITSELF, True), ("", "", False)],
    ids=["in a pool", "reads itself", "neither"],
)
def test_partitions_run_one_at_a_time(lab: Any, pool: str, reads: str, *, alone: bool) -> None:
    """In a pool, or with the one before as input, however many are asked for at once."""
    manifest = f"notebooks: {{s: {{{pool}outputs: [rows], {PARTITIONS}}}}}\n"
    lab.write({"s": DAILY.format(extra=ALONE + reads)}, manifest)
    run = lab.materialize("s", span=SPAN, tags={"research_jobs/concurrency": "4"})
    assert run.success is alone, run.errors


def test_a_partitioned_notebook_wants_a_partition(lab: Any) -> None:
    """A run that names none fails with one clear line."""
    lab.write({"s": DAILY.format(extra="")}, MANIFEST)
    assert "has partitions, and this run says none" in lab.materialize("s").failure("s").description


def test_two_dimensions(lab: Any) -> None:
    """A day by ticker: the range of both, a file for each pair."""
    lab.write(
        {"s": '# %% tags=["parameters"]\nday = ""\nticker = ""\n# %%\nrows = [day + ticker]\n'},
        """
notebooks:
  s:
    outputs: [rows]
    partitions:
      dimensions:
        day: {by: day, start: 2024-01-01, end: 2024-01-11}
        ticker: {values: [A, B]}
""",
    )
    run = lab.materialize("s", span=("2024-01-02|A", "2024-01-03|B"))
    assert run.success, run.errors
    assert len(run.materializations("s")) == 4
    path = lab.root / "data/s/rows/day=2024-01-03/ticker=B/part-0.parquet"
    assert path.exists()
    tags = run.materializations("s")[0].tags
    assert {"dagster/partition/day", "dagster/partition/ticker"} <= set(tags)


def test_the_stock_command_does_the_same(lab: Any) -> None:
    """`dagster asset materialize --partition-range`, in a process of its own."""
    lab.write({"s": DAILY.format(extra="")}, MANIFEST)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dagster")),
            *("asset", "materialize", "-m", "research_jobs.definitions"),
            *("--select", "s", "--partition-range", "2024-01-02...2024-01-04"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=lab.root,
        env=os.environ
        | {
            "RESEARCH_JOBS_PROJECT": str(lab.root),
            "DAGSTER_HOME": str(lab.root.parent / "home-0"),
        },
    )
    assert done.returncode == 0, done.stderr
    assert made(lab) == stored(lab) == DAYS[:3]


def test_cancelling_keeps_what_is_done(lab: Any) -> None:
    """SIGINT amid a range: the run is cancelled, what was finished stays, no process is left."""
    extra = "import time\nif day >= '2024-01-04': time.sleep(300)"
    lab.write({"s": DAILY.format(extra=extra)}, MANIFEST)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import dagster as dg
from dagster._utils.interrupts import capture_interrupts
from research_jobs.orchestration.operations.backfill import backfill
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.project import find_project

with dg.DagsterInstance.from_config({str(lab.root.parent / "home-0")!r}) as instance:
    def progress(outcome):
        print(outcome.partition, outcome.state, flush=True)
    with capture_interrupts():
        summary = backfill(
            instance, load_catalog(find_project({str(lab.root)!r})), ["s"],
            first="2024-01-02", last="2024-01-06", concurrency=2, on_progress=progress,
        )
    print("interrupted", summary.interrupted, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    seen: list[str] = []
    with process:
        assert process.stdout is not None
        while len(seen) < 2:
            seen.append(process.stdout.readline().split()[0])
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "interrupted True" in rest
    assert "2024-01-04 cancelled" in rest
    assert sorted(seen) == made(lab) == stored(lab) == ["2024-01-02", "2024-01-03"]
    (run,) = lab.instance.get_runs()
    assert run.status is dg.DagsterRunStatus.CANCELED
    logs = lab.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    errors = [log.dagster_event.step_failure_data.error.message for log in logs]
    assert not any("did not stop" in error for error in errors), "it stops when it is asked to"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
