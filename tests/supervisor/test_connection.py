"""A run seen from the supervisor: a guardian that is silent, a cancel, and what they leave."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, wait_until

from research_jobs.outcome import State
from research_jobs.protocol import RunRequest
from research_jobs.runtime import processes
from research_jobs.supervisor import connection
from research_jobs.supervisor.run import CancelToken, Supervisor

BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])

TELLS = """
# %% Say who guards this
import os, time
print(os.getpid(), os.getppid(), flush=True)
time.sleep(600)
"""


@contextmanager
def meanwhile(lab: Lab, request: RunRequest, act: Any) -> Iterator[list[int]]:
    """Act in another thread on notebook and guardian, once the notebook has said who they are."""
    pids: list[int] = []

    def wait_and_act() -> None:
        wait_until(lambda: lab.log(request).endswith(b"\n"), 60)
        pids.extend(map(int, lab.log(request).split()))
        act(*pids)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield pids
    thread.join()


@BOTH
def test_guardian_that_does_not_answer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """A guardian that keeps neither the timeout nor its word is ended, with all that it guards."""
    monkeypatch.setattr(connection, "GUARDIAN_SLACK", 2.0)
    lab.write("tells", TELLS)
    request = lab.request("tells", timeout_s=3.0, grace_s=0.1)
    with meanwhile(lab, request, lambda _, guardian: os.kill(guardian, signal.SIGSTOP)) as pids:
        outcome = lab.run(request, isolation=isolation)
    assert outcome.result.state is State.CRASHED
    assert "it has not answered for 5.3 s" in outcome.headline
    wait_until(lambda: not any(map(processes.alive, pids)))


@BOTH
def test_guardian_that_takes_no_cancel(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """A cancel ends a guardian that does not react to it."""
    monkeypatch.setattr(connection, "GUARDIAN_SLACK", 0.5)
    lab.write("tells", TELLS)
    request = lab.request("tells", grace_s=0.1)
    token = CancelToken()

    def act(_notebook: int, guardian: int) -> None:
        os.kill(guardian, signal.SIGSTOP)
        token.cancel()

    with meanwhile(lab, request, act) as pids:
        outcome = lab.run(request, isolation=isolation, cancel=token)
    assert not outcome.result.state.ok
    wait_until(lambda: not any(map(processes.alive, pids)))


def test_template_that_does_not_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose template stands still takes another one, and does not wait for ever."""
    monkeypatch.setattr(connection, "START_LIMIT", 1.0)
    with Supervisor() as supervisor:
        own = Lab(lab.root, supervisor)
        assert own.run("adds_up").result.state is State.SUCCEEDED
        (template,) = supervisor.template_pids
        os.kill(template, signal.SIGSTOP)
        ran = own.run("adds_up")
        assert (ran.result.state, ran.result.isolation) == (State.SUCCEEDED, "fork")
        assert template not in supervisor.template_pids
        wait_until(lambda: not processes.alive(template))


def test_nothing_waits_after_a_cancelled_run(lab: Lab) -> None:
    """The clock that would end a silent guardian stops with the run; the token forgets the run."""
    lab.write("tells", TELLS)
    request = lab.request("tells")
    token = CancelToken()
    with meanwhile(lab, request, lambda *_: (token.cancel(), token.cancel())):
        outcome = lab.run(request, cancel=token)
    assert outcome.result.state is State.CANCELLED
    wait_until(
        lambda: not [item for item in threading.enumerate() if isinstance(item, threading.Timer)]
    )
    assert token._listeners == []
    outcome = lab.run("adds_up", cancel=CancelToken())
    assert outcome.result.state is State.SUCCEEDED
    assert lab.run("adds_up", cancel=token).result.state is State.CANCELLED


def test_the_first_reason_counts(lab: Lab) -> None:
    """A run that is cancelled, and then over its time before it is gone, was cancelled."""
    lab.write(
        "deaf",
        "# %%\nimport os, signal, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, lambda n, _: open('signals.txt', 'a').write(f'{int(n)} '))\n"
        "print(os.getpid(), os.getppid(), flush=True)\n"
        "while True: time.sleep(1)\n",
    )
    request = lab.request("deaf", timeout_s=5.0, grace_s=3.0)
    token = CancelToken()
    with meanwhile(lab, request, lambda *_: token.cancel()):
        outcome = lab.run(request, cancel=token)
    assert outcome.result.state is State.CANCELLED
    # TERM goes to its group and to each process, and so may arrive twice.
    assert set((lab.notebooks / "signals.txt").read_text().split()) == {"2", "15"}


def test_each_run_has_its_own_figures(lab: Lab) -> None:
    """A guardian counts the CPU time and the memory of each of its runs for itself."""
    lab.write(
        "works",
        "# %%\nimport time\n"
        "block = bytearray(b'x' * (300 << 20))\n"
        "while time.process_time() < 1.5: pass\n",
    )
    with Supervisor(preload=("numpy",)) as supervisor:
        lab.supervisor = supervisor
        heavy = lab.run("works").result
        light = [lab.run("adds_up").result for _ in range(4)]
    assert heavy.cpu_s >= 1.4
    assert heavy.peak_memory_bytes > 300 << 20
    assert max(result.cpu_s for result in light) < 1.0
    assert max(result.peak_memory_bytes for result in light) < 300 << 20


def test_signals_to_the_guardian(lab: Lab) -> None:
    """INT and HUP do nothing to a guardian, TERM is a cancel: it ends its run in good order."""
    lab.write("tells", TELLS)
    request = lab.request("tells")

    def act(notebook: int, guardian: int) -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            os.kill(guardian, number)
        for _ in range(3):
            assert processes.alive(notebook)
            assert processes.alive(guardian)
        os.kill(guardian, signal.SIGTERM)

    with meanwhile(lab, request, act):
        outcome = lab.run(request)
    assert outcome.result.state is State.CANCELLED, outcome.headline
    assert 'cell 1 "Say who guards this"' in outcome.headline


def test_the_time_is_over_with_the_record(lab: Lab) -> None:
    """Exit handlers have their grace, even beyond the timeout: the run has its result by then."""
    lab.write("lingers", "# %%\nimport atexit, time\natexit.register(time.sleep, 7)\nvalue = 1\n")
    outcome = lab.run("lingers", outputs=("value",), timeout_s=6.0, grace_s=30.0)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.result.notes == ()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_log_that_cannot_be_written(lab: Lab, name: str) -> None:
    """A full disk under a log does not hold up the notebook, and is a note on the run."""
    lab.write(
        "prints",
        "# %%\nimport sys\n"
        "for stream in (sys.stdout, sys.stderr):\n"
        "    print('x' * (1 << 20), file=stream)\n",
    )
    assert lab.supervisor is not None
    with Path("/dev/full").open("wb") as full, Path("/dev/null").open("wb") as null:
        streams = {"stdout": null.fileno(), "stderr": null.fileno(), name: full.fileno()}
        result = lab.supervisor.run(lab.request("prints"), **streams)
    assert result.state is State.SUCCEEDED, result
    assert result.notes == (f"{name} could not be logged: No space left on device",)


LEAVES = """
# %% Leave something running
import subprocess, sys
program = '''{program}'''
child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, {options})
child.stdout.readline()
{then}
"""
ON_SIGNAL = """
import signal, sys, time
def seen(*_):
    open("seen.txt", "a").write("seen")
    sys.exit()
signal.signal(signal.{name}, seen)
print("ready", flush=True)
time.sleep(600)
"""


def test_what_is_left_may_clean_up(lab: Lab) -> None:
    """A daemon that a notebook leaves gets TERM before KILL, in whatever session it is."""
    program = ON_SIGNAL.format(name="SIGTERM")
    lab.write("leaves", LEAVES.format(program=program, options="start_new_session=True", then=""))
    outcome = lab.run("leaves")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert (lab.notebooks / "seen.txt").read_text() == "seen"
    assert any("ended what was left running" in note for note in outcome.result.notes)


def test_what_leaves_by_itself_is_no_note(lab: Lab) -> None:
    """A process that ends soon after the notebook is waited for."""
    program = "import time; print(flush=True); time.sleep(0.3); open('seen.txt', 'w').write('seen')"
    lab.write("leaves", LEAVES.format(program=program, options="start_new_session=True", then=""))
    outcome = lab.run("leaves")
    assert outcome.result.notes == ()
    assert (lab.notebooks / "seen.txt").read_text() == "seen"


@pytest.mark.parametrize(
    ("name", "options", "seen"),
    [
        ("SIGINT", "", "seen"),
        ("SIGINT", "start_new_session=True", ""),
        ("SIGTERM", "start_new_session=True", "seen"),
    ],
)
def test_a_cancel_reaches_the_tree(lab: Lab, name: str, options: str, seen: str) -> None:
    """INT goes to the notebook's group as from a terminal, TERM to daemons as well."""
    then = (
        "import os, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print(os.getpid(), os.getppid(), flush=True)\nopen('seen.txt', 'a')\ntime.sleep(600)"
    )
    program = ON_SIGNAL.format(name=name)
    lab.write("leaves", LEAVES.format(program=program, options=options, then=then))
    request = lab.request("leaves", grace_s=1.0)
    token = CancelToken()
    with meanwhile(lab, request, lambda *_: token.cancel()):
        outcome = lab.run(request, cancel=token)
    assert outcome.result.state is State.CANCELLED
    assert (lab.notebooks / "seen.txt").read_text() == seen


def test_over_its_memory_it_gets_no_time(lab: Lab) -> None:
    """Over the limit nothing is asked politely: what would use the time takes more memory."""
    lab.write(
        "grows",
        "# %%\nimport time\nblocks = []\n"
        "try:\n"
        "    while True:\n"
        "        blocks.append(b'x' * (8 << 20)); time.sleep(0.005)\n"
        "except BaseException:\n"
        "    print('asked', flush=True)\n"
        "    raise\n",
    )
    outcome = lab.run("grows", memory_bytes=250 << 20)
    assert outcome.result.state is State.OUT_OF_MEMORY, outcome.headline
    assert outcome.stdout == b""


@BOTH
def test_the_kernel_would_choose_it_first(lab: Lab, isolation: str) -> None:
    """When the machine is out of memory, the notebook's process goes before what guards it."""
    lab.write(
        "scores",
        "# %%\nimport os\n"
        "for pid in (os.getpid(), os.getppid()):\n"
        "    print(open(f'/proc/{pid}/oom_score_adj').read().strip())\n",
    )
    notebook, guardian = map(int, lab.run("scores", isolation=isolation).stdout.split())
    assert notebook >= guardian + 500


GUARDS_UNTIL_ORDERS = """
import os, socket, sys
from research_jobs.protocol import RunRequest
from research_jobs.runtime import guardian
from research_jobs.runtime.channel import receive_message, send_message, send_record

class Child:
    pid, channel = os.getpid(), socket.socketpair()[0]
    def order(self, *_):
        ours.settimeout(5)
        print(receive_message(ours), os.getpid())
        raise SystemExit
    def close(self): ...

ours, theirs = socket.socketpair()
send_message(ours, "Start", environment={}, umask=0o022)
send_record(ours, RunRequest("run", "n", "n", "n.py", "p", "s", "d", ()))
around = guardian.Surroundings(lambda _: None, (), "fork")
given = guardian.GivenRun(theirs.detach(), os.dup(1), os.dup(2), os.getpid(), None)
guardian._guard(around, Child(), -1, given)
"""


def test_guardian_says_who_it_is_before_it_orders() -> None:
    """Whoever asked for a run knows the guardian before the notebook's process has its orders.

    A guardian that falls silent right after those would be left alive, with the notebook.
    """
    done = subprocess.run(
        [sys.executable, "-c", GUARDS_UNTIL_ORDERS],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    message, _, pid = done.stdout.strip().rpartition(" ")
    said = ast.literal_eval(message)
    assert (said["record"], said["guardian"]) == ("Guarded", int(pid))
