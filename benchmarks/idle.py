"""What a run costs while it only waits: for a retry, for a slot of a pool, for long notebooks.

Run it as ``python -m benchmarks.idle``. Each case runs in a process of its own, under our executor
and under Dagster's, and after a few seconds to settle the CPU time of that process is taken over
a window. The goal is under one per cent of a core.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dagster as dg
import psutil
from dagster import DagsterInstance, execute_job
from dagster._core.definitions.reconstruct import ReconstructableJob

from benchmarks.table import Table, machine
from research_jobs.orchestration.executor import notebook_executor, step_cancel_token

EXECUTORS = {
    "ours": notebook_executor,
    "multiprocess": dg.multiprocess_executor,
    "in_process": dg.in_process_executor,
}
EXECUTOR_VARIABLE = "RESEARCH_JOBS_BENCH_EXECUTOR"
SETTLE_S = 4.0
# (case, executor): what Dagster's own can do beside us
CASES = [
    ("retry delay", "ours"),
    ("retry delay", "multiprocess"),
    ("retry delay", "in_process"),
    ("full pool", "ours"),
    ("full pool", "multiprocess"),
    ("full pool", "in_process"),
    ("long notebooks", "ours"),
    ("long notebooks", "multiprocess"),
]


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


def measure(window_s: float) -> Table:
    """Measure all cases."""
    table = Table(
        "CPU of a run worker that waits, in per cent of a core",
        ["what it waits for", "executor", "CPU"],
    )
    for case, name in CASES:
        with tempfile.TemporaryDirectory() as home:
            (Path(home) / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
            options = ["--case", case, "--home", home, "--window", str(window_s)]
            found = subprocess.run(
                [sys.executable, "-m", "benchmarks.idle", *options],
                env=os.environ | {EXECUTOR_VARIABLE: name},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
        table.add(case, name, f"{float(found.stdout.split()[-1]):.2%}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=float, default=20.0, help="seconds")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--home", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        worker(arguments.case, arguments.home, arguments.window)
        return
    print(machine())
    print(measure(arguments.window).text())


if __name__ == "__main__":
    main()
