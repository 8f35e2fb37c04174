"""Jobs that the executor's tests run for real, loaded by path as a run worker loads them.

Each function makes one job. `folder()` is where steps leave marks for the test to read.
No postponed annotations here: Dagster reads them.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import AssetKey, DynamicOut, DynamicOutput, In, Nothing, Out, Output

from research_jobs.orchestration.execution.executor import (
    notebook_executor,
    step_cancel_token,
    step_log_streams,
)

FOLDER_VARIABLE = "RESEARCH_JOBS_TEST_FOLDER"
EXECUTOR_VARIABLE = "RESEARCH_JOBS_TEST_EXECUTOR"
TOGETHER_S = 30.0  # far more than two steps need to meet


def folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def executor() -> dg.ExecutorDefinition:
    """Ours, or the one that a test asks for to compare."""
    # Quicker, but its processes have the environment of the first test that used it.
    forked = {"max_concurrent": 2, "start_method": {"forkserver": {}}}
    named = {
        "forkserver": dg.multiprocess_executor.configured(forked),
        "multiprocess": dg.multiprocess_executor,
        "in_process": dg.in_process_executor,
    }
    return named.get(os.environ.get(EXECUTOR_VARIABLE, ""), notebook_executor)


def note(name: str, **values: Any) -> None:
    """Append one line to a file of marks."""
    if FOLDER_VARIABLE not in os.environ:
        return  # in a process that another test's environment has made
    line = json.dumps({"name": name, "time": time.time(), "pid": os.getpid(), **values})
    with (folder() / "marks").open("a") as file:
        file.write(line + "\n")


@contextmanager
def span(name: str) -> Iterator[None]:
    note(name, what="begin")
    try:
        yield
    finally:
        note(name, what="end")


def attempt_of(context: Any) -> int:
    return context.retry_number + 1


def assets_job(assets: list[Any], **settings: Any) -> dg.JobDefinition:
    name = settings.pop("name", "job")
    definitions = dg.Definitions(
        assets=[a for a in assets if not isinstance(a, dg.AssetChecksDefinition)],
        asset_checks=[a for a in assets if isinstance(a, dg.AssetChecksDefinition)],
        jobs=[dg.define_asset_job(name, selection="*")],
        executor=executor(),
        **settings,
    )
    return definitions.resolve_job_def(name)


# -- side by side --------------------------------------------------------------------------------


def crowd() -> dg.JobDefinition:
    """Eight steps that take their time, two kinds of them; `pair_*` only pass in company."""
    meeting = threading.Barrier(2)

    def make(name: str, wait: Callable[[], Any], **settings: Any) -> dg.OpDefinition:
        @dg.op(name=name, **settings)
        def step() -> None:
            with span(name):
                wait()

        return step

    @dg.job(executor_def=executor())
    def crowd() -> None:
        for index in range(2):
            make(f"pair_{index}", lambda: meeting.wait(TOGETHER_S))()
        for index in range(6):
            tags = {"kind": "database"} if index % 2 else {}
            make(f"step_{index}", lambda: time.sleep(0.02), tags=tags)()

    return crowd


def pooled() -> dg.JobDefinition:
    """Five steps of a pool, one of which fails, beside one that is in none."""

    @dg.job(executor_def=executor())
    def pooled() -> None:
        for index in range(5):

            @dg.op(name=f"pooled_{index}", pool="narrow")
            def step(index: int = index) -> None:
                with span(f"pooled_{index}"):
                    if index == 2:
                        raise ValueError("fails in the pool")
                    time.sleep(0.01)

            step.alias(f"pooled_{index}")()

        @dg.op
        def free() -> None:
            with span("free"):
                pass

        free()

    return pooled


# -- everything that a run can be, to be compared with Dagster's own ------------------------------


@dg.success_hook
def on_success(context: dg.HookContext) -> None:
    note("success_hook", step=context.op.name)


@dg.failure_hook
def on_failure(context: dg.HookContext) -> None:
    note("failure_hook", step=context.op.name, error=str(context.op_exception))


@dg.success_hook(name="broken_hook")
def broken_hook(context: dg.HookContext) -> None:
    raise ValueError("a hook that fails")


@dg.op(out=DynamicOut(int))
def several() -> Iterator[DynamicOutput[int]]:
    for number in range(2):
        yield DynamicOutput(number, mapping_key=f"n{number}")


@dg.op
def each(value: int) -> int:
    return value * 10


@dg.op
def together(values: list[int]) -> int:
    return sum(values)


def mapped() -> dg.JobDefinition:
    """Steps that a step's outputs make, and one that collects them."""

    @dg.job(executor_def=executor())
    def mapped() -> None:
        together(several().map(each).collect())

    return mapped


def various() -> dg.JobDefinition:  # noqa: C901 - one op for each thing that can happen
    """Success, failure, retries, skips, dynamic outputs, hooks and asset checks in one run."""

    @dg.op(out={"yes": Out(int, is_required=False), "no": Out(int, is_required=False)})
    def branch() -> Iterator[Output[int]]:
        yield Output(1, "yes")

    @dg.op
    def skipped(value: int) -> int:
        return value

    @dg.op
    def after_skipped(value: int) -> None: ...

    @dg.op
    def fails() -> int:
        raise ValueError("on purpose")

    @dg.op
    def abandoned(value: int) -> int:
        return value

    @dg.op
    def after_abandoned(value: int) -> None: ...

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def second_time_lucky(context: dg.OpExecutionContext) -> int:
        if context.retry_number == 0:
            raise ValueError("not yet")
        return context.retry_number

    @dg.op
    def says_why() -> None:
        raise dg.Failure("a failure that says why", metadata={"rows": 0})

    @dg.job(executor_def=executor(), hooks={on_success, on_failure})
    def various() -> None:
        _, no = branch()
        after_skipped(skipped(no))
        after_abandoned(abandoned(fails()))
        second_time_lucky.with_hooks({broken_hook})()
        says_why()
        together(several().map(each).collect())

    return various


def mistakes() -> dg.JobDefinition:
    """A retry that is asked for too often, and something that is no output."""

    @dg.op
    def asks_for_retries(context: dg.OpExecutionContext) -> None:
        raise dg.RetryRequested(max_retries=1)

    @dg.op
    def not_an_output() -> Iterator[Any]:
        yield 5

    @dg.job(executor_def=executor())
    def mistakes() -> None:
        asks_for_retries()
        not_an_output()

    return mistakes


def assets() -> dg.JobDefinition:
    """Assets, a subsettable one of two, blocking checks that pass and fail, what is downstream."""

    @dg.asset(check_specs=[dg.AssetCheckSpec("enough", asset="source", blocking=True)])
    def source() -> Iterator[Any]:
        yield Output([1, 2, 3])
        yield dg.AssetCheckResult(passed=True, metadata={"rows": 3})

    @dg.asset(check_specs=[dg.AssetCheckSpec("sane", asset="doubtful", blocking=True)])
    def doubtful() -> Iterator[Any]:
        yield Output(1)
        yield dg.AssetCheckResult(passed=False)

    @dg.asset
    def after_doubtful(doubtful: int) -> int:
        return doubtful

    @dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right", skippable=True)])
    def two() -> Iterator[dg.MaterializeResult]:
        yield dg.MaterializeResult(asset_key="left", metadata={"rows": 1})

    @dg.asset(deps=[AssetKey("left")])
    def total(source: list[int]) -> int:
        return sum(source)

    @dg.asset_check(asset="total")
    def six(total: int) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=total == 6)

    return assets_job([source, doubtful, after_doubtful, two, total, six])


def second_run_lucky() -> dg.JobDefinition:
    """A chain whose middle fails until a file exists."""

    @dg.op
    def first() -> int:
        note("first")
        return 1

    @dg.op
    def middle(value: int) -> int:
        note("middle")
        if not (folder() / "repaired").exists():
            raise ValueError("not repaired")
        return value + 1

    @dg.op
    def last(value: int) -> None:
        note("last", value=value)

    @dg.job(executor_def=executor())
    def second_run_lucky() -> None:
        last(middle(first()))

    return second_run_lucky


def delayed() -> dg.JobDefinition:
    """A step that is tried again after a delay."""

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.3))
    def step(context: dg.OpExecutionContext) -> None:
        note("attempt", number=attempt_of(context))
        if context.retry_number < 2:
            raise ValueError("not yet")

    @dg.job(executor_def=executor())
    def delayed() -> None:
        step()

    return delayed


def ready_outputs() -> dg.JobDefinition:
    """A step that yields one output long before it ends, and one that needs only that."""
    seen = threading.Event()

    @dg.op(out={"early": Out(int), "late": Out(int)})
    def slow() -> Iterator[Output[int]]:
        yield Output(1, "early")
        yield Output(2 if seen.wait(TOGETHER_S) else 0, "late")

    @dg.op
    def eager(value: int) -> None:
        seen.set()

    @dg.op
    def patient(value: int) -> None:
        note("late", value=value)

    @dg.job(executor_def=executor())
    def ready_outputs() -> None:
        early, late = slow()
        eager(early)
        patient(late)

    return ready_outputs


def priorities() -> dg.JobDefinition:
    """Three steps of different priority."""

    @dg.job(executor_def=executor())
    def priorities() -> None:
        for number in (1, 3, 2):

            @dg.op(name=f"priority_{number}", tags={"dagster/priority": str(number)})
            def step(number: int = number) -> None:
                note(f"priority_{number}")

            step()

    return priorities


def shared() -> dg.JobDefinition:
    """Four steps that share a resource with a set-up and a tear-down."""

    @dg.resource
    def connection(context: dg.InitResourceContext) -> Iterator[int]:
        note("opened")
        yield 7
        note("closed")

    @dg.job(executor_def=executor(), resource_defs={"connection": connection})
    def shared() -> None:
        for index in range(4):

            @dg.op(name=f"use_{index}", required_resource_keys={"connection"})
            def step(context: dg.OpExecutionContext) -> None:
                note("used", value=context.resources.connection)

            step()

    return shared


def awaiting() -> dg.JobDefinition:
    """Two `async` steps, one a generator, that can only pass side by side."""
    meeting = threading.Barrier(2)

    @dg.op
    async def coroutine() -> int:
        await asyncio.sleep(0)
        meeting.wait(TOGETHER_S)
        await asyncio.sleep(0)
        return 1

    @dg.op(out=Out(int))
    async def generator() -> Any:
        await asyncio.sleep(0)
        meeting.wait(TOGETHER_S)
        await asyncio.sleep(0)
        yield Output(2)

    @dg.job(executor_def=executor())
    def awaiting() -> None:
        coroutine()
        generator()

    return awaiting


def contexts() -> dg.JobDefinition:
    """Two assets side by side, each asking Dagster which asset it is."""
    meeting = threading.Barrier(2)

    def make(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def step() -> None:
            meeting.wait(TOGETHER_S)
            key = dg.AssetExecutionContext.get().asset_key.to_user_string()
            meeting.wait(TOGETHER_S)
            again = dg.AssetExecutionContext.get().asset_key.to_user_string()
            note(name, first=key, second=again)

        return step

    return assets_job([make("left"), make("right")])


def framework_failure() -> dg.JobDefinition:
    """One step that Dagster itself cannot begin (two launchers), beside one that it can."""
    from dagster._core.definitions.step_launcher import StepLauncher

    class Never(StepLauncher):
        def launch_step(self, step_context: Any) -> Any:
            raise NotImplementedError

    @dg.resource
    def one(context: dg.InitResourceContext) -> Never:
        return Never()

    @dg.resource
    def other(context: dg.InitResourceContext) -> Never:
        return Never()

    @dg.op(required_resource_keys={"one", "other"})
    def impossible() -> None: ...

    @dg.op(ins={"start": In(Nothing)})
    def behind() -> None: ...

    @dg.op
    def possible() -> None:
        note("possible")

    @dg.job(executor_def=executor(), resource_defs={"one": one, "other": other})
    def framework_failure() -> None:
        behind(impossible())
        possible()

    return framework_failure


def bad_hook() -> dg.JobDefinition:
    """A step that succeeds, with a hook that breaks Dagster's own rules."""

    @dg.op
    def step() -> None: ...

    hook = dg.HookDefinition(name="bad", hook_fn=lambda _context, _events: None)

    @dg.job(executor_def=executor())
    def bad_hook() -> None:
        step.with_hooks({hook})()

    return bad_hook


# -- logs ------------------------------------------------------------------------------------------


def talking() -> dg.JobDefinition:
    """Two steps that talk at the same time, in every way there is."""
    meeting = threading.Barrier(2)

    def make(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def step(context: dg.AssetExecutionContext) -> None:
            print(f"{name}: before")
            meeting.wait(TOGETHER_S)
            print(f"{name}: print")
            sys.stdout.buffer.write(f"{name}: bytes\n".encode())
            sys.stderr.write(f"{name}: stderr\n")
            logging.getLogger("somewhere").error("%s: python log", name)
            context.log.info("%s: dagster log", name)
            streams = step_log_streams(context)
            code = f"import sys; print('{name}: process'); print('{name}: oops', file=sys.stderr)"
            subprocess.run(
                [sys.executable, "-c", code],
                stdout=streams.stdout,
                stderr=streams.stderr,
                check=True,
            )
            print(f"{name}: after")
            meeting.wait(TOGETHER_S)

        return step

    return assets_job([make("left"), make("right")])


def talking_retries() -> dg.JobDefinition:
    """A step that says in each attempt which it is, and succeeds in the third."""

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
    def step(context: dg.OpExecutionContext) -> None:
        print(f"this is attempt {attempt_of(context)}")
        if context.retry_number < 2:
            raise ValueError("not yet")

    @dg.job(executor_def=executor())
    def talking_retries() -> None:
        step()

    return talking_retries


def helpers() -> dg.JobDefinition:
    """What a step finds by the helpers, under whatever executor it runs."""

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        streams = step_log_streams(context)
        print("by print")
        os.write(streams.stdout, b"by descriptor\n")
        token, again = step_cancel_token(context), step_cancel_token(context)
        note(
            "helpers",
            streams=list(streams),
            cancelled=token.is_cancelled,
            same=token is again,
        )

    @dg.job(executor_def=executor())
    def helpers() -> None:
        step()

    return helpers


# -- to be stopped ---------------------------------------------------------------------------------


def endless() -> dg.JobDefinition:
    """Steps that go on until they are stopped: like a notebook, and like an ordinary asset."""

    @dg.op(pool="narrow")
    def supervised(context: dg.OpExecutionContext) -> None:
        """Waits for a process as the notebook's asset does: it ends when it is cancelled."""
        token = step_cancel_token(context)
        process = subprocess.Popen(["sleep", "600"])
        note("supervised", child=process.pid)
        with token.listening(process.kill):
            process.wait()
        note("supervised stopped")
        raise dg.DagsterExecutionInterruptedError

    @dg.op
    def ordinary() -> None:
        """Cannot be cancelled."""
        note("ordinary")
        time.sleep(600)

    @dg.op(ins={"start": In(Nothing)})
    def behind() -> None:
        note("behind")

    @dg.job(executor_def=executor())
    def endless() -> None:
        behind(supervised())
        ordinary()

    return endless


def polite() -> dg.JobDefinition:
    """One step that ends when it is cancelled, and one that would have come after it."""

    @dg.op
    def listener(context: dg.OpExecutionContext) -> None:
        token = step_cancel_token(context)
        stopped = threading.Event()
        with token.listening(stopped.set):
            note("listener")
            stopped.wait()
        raise dg.DagsterExecutionInterruptedError

    @dg.op
    def quick() -> None:
        note("quick")

    @dg.op(ins={"start": In(Nothing)})
    def next_one() -> None:
        note("next_one")

    @dg.job(executor_def=executor())
    def polite() -> None:
        next_one(listener())
        quick()

    return polite


def upset() -> dg.JobDefinition:
    """A step that tells the plan what it must not, while another waits to be cancelled."""
    waits = threading.Event()

    @dg.op
    def patient(context: dg.OpExecutionContext) -> None:
        stopped = threading.Event()
        with step_cancel_token(context).listening(stopped.set):
            waits.set()
            stopped.wait()
        note("stopped")
        raise dg.DagsterExecutionInterruptedError

    @dg.op
    def liar(context: dg.OpExecutionContext) -> Iterator[Any]:
        from dagster._core.events import DagsterEvent

        waits.wait(TOGETHER_S)
        yield DagsterEvent.step_skipped_event(context.get_step_execution_context())

    @dg.job(executor_def=executor())
    def upset() -> None:
        patient()
        liar()

    return upset


# What a code location loads for the tests that go through a run launcher.
defs = dg.Definitions(jobs=[endless(), polite()])
