"""The supervisor from many threads, and what its runs leave in logs and records."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from lab import Lab, wait_until

from research_jobs.outcome import State
from research_jobs.protocol import OutputRequest
from research_jobs.supervisor.run import CancelToken, Supervisor

BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])


@BOTH
def test_outputs_are_staged(lab: Lab, isolation: str) -> None:
    """Declared outputs are staged as Parquet and described; nothing else is in the folder."""
    request = lab.request("assigns_two_outputs", outputs=("frame", "summary"))
    outcome = lab.run(request, isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    frame, summary = outcome.result.outputs
    assert (frame.name, frame.rows, summary.name) == ("frame", 3, "summary")
    assert [name for name, _type in frame.columns] == ["day", "price"]
    assert frame.bytes == Path(frame.path).stat().st_size
    assert request.staging is not None
    staged = sorted(path.name for path in Path(request.staging).iterdir())
    assert staged == ["frame.parquet", "summary.parquet"]


@BOTH
def test_figures_of_a_run(lab: Lab, isolation: str) -> None:
    """Duration, CPU time and peak memory are recorded, children of the notebook included."""
    lab.write(
        "works",
        "# %% Work in a child\n"
        "import os, time\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    block = bytearray(b'x' * (150 << 20))\n"
        "    end = time.process_time() + 0.3\n"
        "    while time.process_time() < end: pass\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n",
    )
    result = lab.run("works", isolation=isolation).result
    assert result.state is State.SUCCEEDED
    assert result.cpu_s >= 0.3
    assert result.duration_s >= 0.3
    assert result.peak_memory_bytes > 150 << 20
    assert result.isolation == isolation
    assert result.started_at > 1.7e9
    assert result.pid is not None


def test_output_that_was_not_assigned(lab: Lab) -> None:
    """A declared output that is missing fails the run, with the name that was likely meant."""
    outcome = lab.run("adds_up", outputs=("totale",))
    assert outcome.result.state is State.FAILED
    assert outcome.headline == (
        "notebooks/adds_up.py: output 'totale' was never assigned. Did you mean 'total'?"
    )


def test_output_that_cannot_be_parquet(lab: Lab) -> None:
    """An output that Parquet cannot hold fails the run, and names output and type."""
    outcome = lab.run("assigns_one_bad_output", outputs=("frame", "bad"))
    assert outcome.result.state is State.FAILED
    assert "'bad'" in outcome.headline
    assert "lock" in outcome.headline
    assert outcome.result.outputs == ()


def test_checks(lab: Lab) -> None:
    """Checks are evaluated in the run and come back with it."""
    checks = {"min_rows": 5, "severity": {"min_rows": "warn"}}
    request = lab.request("assigns_two_outputs", outputs=("frame",))
    outcome = lab.run(replace(request, outputs=(OutputRequest("frame", checks=checks),)))
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    (check,) = outcome.result.checks
    assert (check.output, check.check, check.passed, check.severity) == (
        "frame",
        "min_rows",
        False,
        "warn",
    )


@BOTH
def test_skipped(lab: Lab, isolation: str) -> None:
    """A notebook that skips its run says why, and nothing failed."""
    outcome = lab.run("skips", isolation=isolation, outputs=("never",))
    assert outcome.result.state is State.SKIPPED
    assert outcome.result.skip_reason == "market closed"
    assert outcome.result.failure is None


@pytest.mark.parametrize(
    ("cell", "state"),
    [
        ("import research_jobs\nresearch_jobs.skip('x' * 20_000_000)", State.SKIPPED),
        ("raise type('E' * 20_000_000, (Exception,), {})", State.FAILED),
    ],
)
def test_what_is_too_long_for_a_record(lab: Lab, cell: str, state: State) -> None:
    """A reason, or an exception's name, that fills a frame is cut; the ending stays what it is."""
    lab.write("long", f"# %%\n{cell}\n")
    assert lab.run("long").result.state is state


def test_the_kernel_gives_no_more_descriptors(lab: Lab) -> None:
    """Where no file can be opened, whatever needs one first, the run has an ending that says so."""
    request = lab.request("adds_up")
    logs = [os.open(lab.logs / name, os.O_WRONLY | os.O_CREAT) for name in ("out", "err")]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.dup(0)
    os.close(first)
    assert lab.supervisor is not None
    try:
        for left in range(6):
            resource.setrlimit(resource.RLIMIT_NOFILE, (first + left, hard))
            result = lab.supervisor.run(request, stdout=logs[0], stderr=logs[1])
            if result.state is not State.SUCCEEDED:
                assert result.failure is not None
                assert "cannot be started: Too many open files" in result.failure.headline
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for log in logs:
            os.close(log)


def test_no_folder_for_temporary_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template needs one; a run that can be started without it is."""

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with Supervisor() as supervisor:
        outcome = Lab(lab.root, supervisor).run("adds_up")
    assert (outcome.result.state, outcome.result.isolation) == (State.SUCCEEDED, "spawn")


@BOTH
def test_secrets_are_masked(lab: Lab, isolation: str) -> None:
    """A secret is in no log and in no field of the result, however it was written."""
    secret = "s3cr3t-value"
    outcome = lab.run(
        "prints_secrets",
        isolation=isolation,
        environment={"THE_SECRET": secret},
        secrets={"THE_SECRET": secret},
    )
    assert outcome.result.state is State.FAILED
    assert secret.encode() not in outcome.stdout + outcome.stderr
    assert outcome.stdout == b"whole ***\n***"
    assert secret not in str(outcome.result)
    assert outcome.headline.endswith("RuntimeError: cannot log in with ***")


@BOTH
def test_secrets_are_in_no_field(lab: Lab, isolation: str) -> None:
    """A secret in data, checks, parameters or what is left running comes back masked."""
    secret = "s3cr3t-value"
    lab.write(
        "leaks",
        """
# %% tags=["parameters"]
login = "nobody"
# %% Everywhere
import os, subprocess
import pandas as pd
secret = os.environ["THE_SECRET"]
frame = pd.DataFrame({"key": [secret, secret], f"of {secret}": [1, 2]})
subprocess.Popen(["sh", "-c", f"sleep 600; : {secret}"], start_new_session=True)
""",
    )
    checks = {"unique": ["key"], "severity": {"unique": "warn"}}
    request = lab.request(
        "leaks",
        outputs=("frame",),
        environment={"THE_SECRET": secret},
        secrets={"THE_SECRET": secret},
        parameters={"login": f"me:{secret}"},
    )
    outcome = lab.run(
        replace(request, outputs=(OutputRequest("frame", checks=checks),)), isolation=isolation
    )
    result = outcome.result
    assert result.state is State.SUCCEEDED, outcome.headline
    assert secret not in str(result)
    assert result.parameters == {"login": "me:***"}
    assert [name for name, _ in result.outputs[0].columns] == ["key", "of ***"]
    assert "***" in result.checks[0].description + str(result.checks[0].metadata)
    assert any("***" in note for note in result.notes)


def test_a_reason_to_skip_shows_no_secret(lab: Lab) -> None:
    """What a notebook says when it skips is masked too."""
    lab.write("skips_why", "# %%\nimport research_jobs\nresearch_jobs.skip('no access: s3cr3t')\n")
    outcome = lab.run("skips_why", secrets={"TOKEN": "s3cr3t"})
    assert outcome.result.skip_reason == "no access: ***"


@BOTH
def test_pools(lab: Lab, isolation: str) -> None:
    """Pools run the notebook's own functions; what it did not wait for is waited for."""
    outcome = lab.run("uses_pools", isolation=isolation, timeout_s=60.0)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.stdout == b"[1, 4, 9] [1, 4, 9, 16] [1, 4, 9]\n"
    assert (lab.notebooks / "late.txt").read_text() == "written"
    assert outcome.result.notes == ()


def test_broken_notebook(lab: Lab) -> None:
    """A file that does not parse fails with its place."""
    lab.write("broken", "# %% One\nx = (\n")
    outcome = lab.run("broken")
    assert outcome.result.state is State.FAILED
    assert outcome.headline.startswith("notebooks/broken.py:2")


def test_notebook_is_gone(lab: Lab) -> None:
    """A file that is gone by the time of the run fails in words."""
    request = lab.request("adds_up")
    Path(request.path).unlink()
    outcome = lab.run(request)
    assert outcome.result.state is State.FAILED
    assert "adds_up.py" in outcome.headline


def test_working_directory_is_gone(lab: Lab) -> None:
    """A working directory that is not there fails in words."""
    outcome = lab.run("adds_up", working_directory="/no/such/folder")
    assert outcome.result.state is State.FAILED
    assert outcome.headline == (
        "notebooks/adds_up.py: its process could not be set up: "
        "No such file or directory: /no/such/folder"
    )


def test_many_at_once(lab: Lab) -> None:
    """Runs from many threads share one template and do not mix."""
    assert lab.supervisor is not None
    for number in range(12):
        lab.write(f"number_{number}", f"# %% Print\nprint('I am', {number})\n")
    lab.run("adds_up")
    before = lab.supervisor.template_pids
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(lab.run, [f"number_{number}" for number in range(12)]))
    assert [outcome.stdout for outcome in outcomes] == [
        f"I am {number}\n".encode() for number in range(12)
    ]
    assert lab.supervisor.template_pids == before


def test_one_token_cancels_many(lab: Lab) -> None:
    """One token ends all the runs that were given it."""
    token = CancelToken()
    requests = [lab.request("sleeps") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(lab.run, request, cancel=token) for request in requests]
        wait_until(lambda: all(b"asleep" in lab.log(request) for request in requests))
        token.cancel()
        token.cancel()
        assert {call.result().result.state for call in calls} == {State.CANCELLED}
    assert lab.run("adds_up", cancel=token).result.state is State.CANCELLED


def test_nothing_is_left_open(lab: Lab) -> None:
    """Runs leave neither descriptors nor threads behind in this process."""
    token = CancelToken()

    def state() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for isolation in ("fork", "spawn"):
        lab.run("adds_up", isolation=isolation, cancel=token)
    before = state()
    for isolation in ("fork", "spawn"):
        for name in ("adds_up", "segfaults", "raises_keyboard_interrupt"):
            lab.run(name, isolation=isolation, cancel=token)
    assert state() == before


def test_waiting_costs_nothing(lab: Lab) -> None:
    """While a notebook sleeps, neither this process nor the guardian spends time on it."""
    lab.write("naps", "# %% Nap\nimport time\ntime.sleep(2)\n")
    lab.run("adds_up")
    before = os.times()
    result = lab.run("naps").result
    after = os.times()
    assert result.state is State.SUCCEEDED
    spent = after.user + after.system - before.user - before.system
    assert spent < 0.02 * result.duration_s + 0.02
