"""Only the process that was started acts for a run, however a forked copy of it ends."""

from __future__ import annotations

import json
import pickle
import textwrap
from typing import Any

import pyarrow.parquet as pq
import pytest
from lab import Lab, Ran

from research_jobs.outcome import State

# How a notebook comes to be in two processes. Each sets `copy` in both.
FORKS = {
    "os.fork": "copy = os.fork() == 0",
    "pty.fork": "copy = pty.fork()[0] == 0",
    "inside a function": "copy = [os.fork() for _ in range(1)] == [0]",
    "without Python's knowledge": "copy = ctypes.CDLL(None).fork() == 0",
    "at the top level, awaiting": "await asyncio.sleep(0); copy = os.fork() == 0",
}
# How the copy ends.
ENDS = {
    "falls off the end": "",
    "raises": "if copy: raise ValueError('of the copy')",
    "exits": "if copy: sys.exit()",
    "exits with a code": "if copy: sys.exit(3)",
    "exits with a text": "if copy: raise SystemExit('of the copy')",
    "leaves at once": "if copy: os._exit(0)",
    "is interrupted": "if copy: raise KeyboardInterrupt",
    "skips": "if copy: research_jobs.skip('of the copy')",
    "fails in C": "if copy: faulthandler._sigsegv()",
}
NOTEBOOK = """
# %% Fork
import asyncio, atexit, ctypes, faulthandler, os, pty, sys, time
import research_jobs
value, other = "before", None
atexit.register(lambda: print("handler", file=open("handlers.txt", "a")))
started = os.getpid()
{fork}
# %% End
print("copy" if copy else "owner")
value = "copy" if copy else "owner"
{end}
# %% Wait
if copy:
    display("of the copy")
else:
    time.sleep(0.3)
# %% Large, so that the copy is through first
other = [1] if copy else list(range(200_000))
"""


def run_forked(lab: Lab, fork: str, end: str, **fields: Any) -> tuple[Ran, list[Any], Any]:
    """Run such a notebook; its outcome, what it showed, and what it handed over."""
    lab.write("forks", NOTEBOOK.format(fork=fork, end=end))
    capture, results = lab.root / "shown.jsonl", lab.root / "results"
    outcome = lab.run(
        "forks",
        outputs=("value", "other"),
        results=("value",),
        results_path=str(results),
        capture_path=str(capture),
        **fields,
    )
    shown = [json.loads(line) for line in capture.read_text().splitlines()]
    return outcome, shown, pickle.loads(results.read_bytes())


def printed(shown: list[Any]) -> str:
    """The text that the report has of a run."""
    return "".join(line["text"] for line in shown if line["type"] == "stream")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("fork", FORKS)
def test_a_copy_has_no_say(lab: Lab, fork: str, end: str) -> None:
    """Outputs, results, record, report and exit handlers are those of the process started."""
    outcome, shown, handed_over = run_forked(lab, FORKS[fork], ENDS[end])
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert handed_over == {"value": "owner"}
    staged = {output.name: output for output in outcome.result.outputs}
    assert staged["other"].rows == 200_000
    assert pq.read_table(staged["value"].path).to_pylist() == [{"value": "owner"}]
    assert (lab.notebooks / "handlers.txt").read_text() == "handler\n"
    kinds = [(line["type"], line.get("number")) for line in shown]
    assert [number for kind, number in kinds if kind == "cell"] == [1, 2, 3, 4]
    assert [number for kind, number in kinds if kind == "cell_end"] == [1, 2, 3, 4]
    assert not {"error", "output"} & {kind for kind, _ in kinds}
    assert shown[-1] == {"type": "end", "status": "succeeded"}
    assert printed(shown) == "owner\n"


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_what_a_copy_says_at_its_end(lab: Lab, isolation: str) -> None:
    """An exception that ends a copy is in the log with its place; the status is a program's."""
    lab.write(
        "statuses",
        textwrap.dedent(
            """
            # %% Copies that end in every way
            import atexit, os, sys
            statuses = []
            exits = [None, SystemExit(3), SystemExit("text")]
            for end in [*exits, ValueError("odd"), KeyboardInterrupt()]:
                pid = os.fork()
                if pid == 0:
                    atexit.register(lambda: print("mine", flush=True))
                    if end:
                        raise end
                    break
                statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            """
        ),
    )
    outcome = lab.run("statuses", outputs=("statuses",), isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    found = pq.read_table(outcome.result.outputs[0].path).to_pylist()
    assert [row["value"] for row in found] == [0, 3, 1, 1, 130]
    assert outcome.stdout == b"mine\n" * 5
    assert b"a forked copy of the notebook:\ntext" in outcome.stderr
    assert b"statuses.py" in outcome.stderr
    assert b"ValueError: odd" in outcome.stderr
    assert b"research_jobs/runtime" not in outcome.stderr


def test_a_copy_waits_for_its_threads(lab: Lab) -> None:
    """A copy ends as a program does: when the threads that it started are through."""
    lab.write(
        "threads",
        textwrap.dedent(
            """
            # %% A thread of the copy
            import os, threading, time
            def late():
                time.sleep(0.3)
                open("late.txt", "w").write("late")
            pid = os.fork()
            if pid == 0:
                threading.Thread(target=late).start()
            else:
                os.waitpid(pid, 0)
                assert open("late.txt").read() == "late"
            """
        ),
    )
    outcome = lab.run("threads")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline


def test_a_copy_that_a_thread_made(lab: Lab) -> None:
    """A thread that forks ends its copy with itself: nothing of the run ends with it."""
    fork = """
import threading
def go():
    global copy
    copy = os.fork() == 0
    value = "thread"
copy = False
thread = threading.Thread(target=go); thread.start(); thread.join()
"""
    outcome, shown, handed_over = run_forked(lab, fork, "")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert handed_over == {"value": "owner"}
    assert (lab.notebooks / "handlers.txt").read_text() == "handler\n"
    assert printed(shown) == "owner\n"


@pytest.mark.parametrize("end", ["", "raise SystemExit", "raise ValueError", "os._exit(0)"])
def test_processes_of_multiprocessing(lab: Lab, end: str) -> None:
    """A process of multiprocessing prints into the cell that started it, and decides nothing."""
    fork = f"""
import multiprocessing
copy = False
def work():
    global value
    value = "copy"
    print("worker")
    display("of the copy")
    {end}
process = multiprocessing.get_context("fork").Process(target=work)
process.start(); process.join()
"""
    outcome, shown, handed_over = run_forked(lab, fork, "")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert handed_over == {"value": "owner"}
    assert (lab.notebooks / "handlers.txt").read_text() == "handler\n"
    assert printed(shown).endswith("owner\n")
    assert printed(shown).count("worker") == 1
    assert "output" not in {line["type"] for line in shown}


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.run(['true'], preexec_fn=lambda: globals().update(value='copy'))",
        "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
        "subprocess.run(['true'], close_fds=False)",
    ],
)
def test_programs(lab: Lab, start: str) -> None:
    """Starting a program changes nothing of the run, whatever runs between fork and exec."""
    outcome, shown, handed_over = run_forked(lab, f"import subprocess; copy = False; {start}", "")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert handed_over == {"value": "owner"}
    assert (lab.notebooks / "handlers.txt").read_text() == "handler\n"
    assert shown[-1] == {"type": "end", "status": "succeeded"}


def test_a_value_that_forks_while_it_is_handed_over(lab: Lab) -> None:
    """A copy that comes to be while values are pickled writes none of them."""
    lab.write(
        "hands_over",
        textwrap.dedent(
            """
            # %% A value that forks when it is pickled
            import os, time
            class Forks:
                def __reduce__(self):
                    if pid := os.fork():
                        os.waitpid(pid, 0)
                    return str, ("owner" if pid else "copy",)
            value = Forks()
            """
        ),
    )
    results = lab.root / "results"
    outcome = lab.run("hands_over", results=("value",), results_path=str(results))
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert pickle.loads(results.read_bytes()) == {"value": "owner"}


def test_a_crashed_copy_lends_no_stack(lab: Lab) -> None:
    """The stack reported with a crash of the notebook is the notebook's, not that of a copy."""
    lab.write(
        "crashes",
        textwrap.dedent(
            """
            # %% A copy crashes
            import faulthandler, os
            def in_the_copy():
                faulthandler._sigsegv()
            pid = os.fork()
            if pid == 0:
                in_the_copy()
            os.waitpid(pid, 0)
            # %% And then the notebook
            def in_the_notebook():
                os.abort()
            in_the_notebook()
            """
        ),
    )
    outcome = lab.run("crashes")
    assert outcome.result.state is State.CRASHED
    assert outcome.result.failure is not None
    assert "in_the_notebook" in outcome.result.failure.traceback
    assert "in_the_copy" not in outcome.result.failure.traceback
    assert b"in_the_copy" in outcome.stderr
