"""What a run costs while it only waits: for a retry, for a slot of a pool, for long notebooks.

``python -m benchmarks idle``. Each case runs in a process of its own, under our executor and
under Dagster's, and after a few seconds to settle the CPU time of that process is taken over
a window. The goal is under one per cent of a core.
"""

import argparse
import os
import subprocess
import sys
import threading
import time

import dagster as dg
import psutil
from dagster import DagsterInstance, execute_job
from dagster._core.definitions.reconstruct import ReconstructableJob

from benchmarks.harness import Goal, Options, scratch
from benchmarks.table import Figure, Table
from research_jobs.orchestration.execution.executor import notebook_executor, step_cancel_token

EXECUTORS = {
    "ours": notebook_executor,
    "multiprocess": dg.multiprocess_executor,
    "in_process": dg.in_process_executor,
}
EXECUTOR_VARIABLE = "RESEARCH_JOBS_BENCH_EXECUTOR"
SETTLE_S = 4.0
WINDOW_S = 20.0
SHORT_WINDOW_S = 8.0
CASES = ("retry delay", "full pool", "long notebooks")
CANNOT = {("long notebooks", "in_process")}


def executor() -> dg.ExecutorDefinition:
    """The executor that this process is to measure."""
    return EXECUTORS[os.environ.get(EXECUTOR_VARIABLE, "ours")]


def retry_delay() -> dg.JobDefinition:
    """One step that will be tried again in an hour."""

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1, delay=3600))
    def step() -> None:
        raise ValueError("not yet")

    @dg.job(executor_def=executor())
    def retry_delay() -> None:
        step()

    return retry_delay


def full_pool() -> dg.JobDefinition:
    """A hundred steps that wait for a slot that another run holds."""

    @dg.op(pool="narrow")
    def step() -> None: ...

    @dg.job(executor_def=executor())
    def full_pool() -> None:
        for number in range(100):
            step.alias(f"step_{number}")()

    return full_pool


def long_notebooks() -> dg.JobDefinition:
    """Two steps that wait for a process each."""

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        process = subprocess.Popen(["sleep", "3600"])
        with step_cancel_token(context).listening(process.kill):
            process.wait()

    @dg.job(executor_def=executor())
    def long_notebooks() -> None:
        for number in range(2):
            step.alias(f"step_{number}")()

    return long_notebooks


def waits(instance: DagsterInstance, case: str) -> bool:
    """Whether the run has come to where it only waits."""
    entries = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    if case == "retry delay":
        return any(event.is_step_up_for_retry for event in events)
    if case == "full pool":
        return any("blocked" in (event.message or "") for event in events)
    return sum(event.event_type_value == "STEP_START" for event in events) == 2


def worker(case: str, home: str, window_s: float) -> None:
    """Run one case, print its CPU time over the window as a share of a core, and be gone."""

    def measure() -> None:
        with DagsterInstance.from_config(home) as watching:
            while not waits(watching, case):
                time.sleep(0.2)
        time.sleep(SETTLE_S)
        before = time.process_time()  # of this process: the steps' own are no part of the waiting
        time.sleep(window_s)
        print((time.process_time() - before) / window_s, flush=True)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(0)

    with DagsterInstance.from_config(home) as instance:
        storage = instance.event_log_storage
        if case == "full pool":
            storage.set_concurrency_slots("narrow", 1)
            storage.claim_concurrency_slot("narrow", "another-run", "step")
        job = ReconstructableJob.for_file(__file__, case.replace(" ", "_"))
        threading.Thread(target=measure, daemon=True).start()
        execute_job(job, instance=instance)


def share(case: str, name: str, window_s: float) -> float:
    """CPU of one case, as a share of a core."""
    with scratch() as home:
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        options = ["--case", case, "--home", str(home), "--window", str(window_s)]
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.idle", *options],
            env=os.environ | {EXECUTOR_VARIABLE: name},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    return float(found.stdout.split()[-1])


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure every case, ours beside Dagster's executors."""
    table = Table("CPU of a run worker that waits, in per cent of a core", ["", *EXECUTORS])
    goals: list[Goal] = []
    window_s = WINDOW_S if options.full else SHORT_WINDOW_S
    for case in CASES:
        cells: list[str] = []
        for name in EXECUTORS:
            if (case, name) in CANNOT:
                cells.append("-")
                continue
            rounds = options.runs if name == "ours" else options.slow_runs
            takes = [share(case, name, window_s) for _ in range(rounds)]
            figure = Figure(tuple(100 * take for take in takes))
            print(f"  {case}, {name}: {figure} %", flush=True)
            cells.append(f"{figure.median:.2f}")
            if name == "ours":
                goals.append(Goal.at_most(f"CPU while waiting: {case}", 1.0, figure, " %"))
        table.add(case, *cells)
    table.notes.append(
        "A window of "
        f"{window_s:g} s, once the run has come to where it waits. `full pool`: a hundred steps "
        "want one slot that another run holds. Dagster's in_process executor does not run two "
        "steps at once."
    )
    return [table], goals


def main() -> None:
    """Run one case in this process (`share` starts it)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, choices=CASES)
    parser.add_argument("--home", required=True)
    parser.add_argument("--window", type=float, default=WINDOW_S, help="seconds")
    arguments = parser.parse_args()
    worker(arguments.case, arguments.home, arguments.window)


if __name__ == "__main__":
    main()
