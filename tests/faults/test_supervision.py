"""Faults that a run must survive: rows 1 to 12, 17 and 25 of the table in docs/faults.md.

Every test drives real processes. The fixture `lab` asserts the invariant after each: earlier
outputs are byte for byte as before, and no process that the run started is alive.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab import Lab, marked, wait_until

from research_jobs.outcome import State
from research_jobs.runtime import processes
from research_jobs.runtime.processes import alive
from research_jobs.supervisor.run import CancelToken, Supervisor

BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])


# -- 1: os._exit ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("code", [0, 1, 77])
def test_row_1_leaving_without_a_result(lab: Lab, code: int, isolation: str) -> None:
    """os._exit() with any code, 0 included, is an ending of its own that names the cell."""
    outcome = lab.run("exits_at_once", environment={"EXIT_CODE": str(code)}, isolation=isolation)
    assert outcome.result.state is State.EXITED
    assert f"(code {code})" in outcome.headline
    assert outcome.headline.startswith(
        'notebooks/exits_at_once.py, cell 2 "Leave without a word": exited without result'
    )
    assert outcome.result.failure is not None
    assert "os._exit" in (outcome.result.failure.cell_source or "")


# -- 2: segmentation fault ------------------------------------------------------------------------


@BOTH
def test_row_2_segmentation_fault(lab: Lab, isolation: str) -> None:
    """A segmentation fault is named, with the cell and the Python stack at that moment."""
    outcome = lab.run("segfaults", isolation=isolation)
    failure = outcome.result.failure
    assert outcome.result.state is State.CRASHED
    assert failure is not None
    assert failure.signal == "SIGSEGV"
    assert failure.headline == (
        'notebooks/segfaults.py:7, cell 2 "Touch what is not there": '
        "crashed with SIGSEGV (Segmentation fault)"
    )
    assert "line 7 in fault" in failure.traceback
    assert "line 10 in <module>" in failure.traceback
    assert "research_jobs/runtime" not in failure.traceback


@pytest.mark.parametrize("name", ["SIGABRT", "SIGTERM", "SIGBUS"])
def test_any_signal_is_named(lab: Lab, name: str) -> None:
    """Whatever signal ends the process, its name is reported."""
    outcome = lab.run("kills_itself", environment={"SIGNAL": name})
    assert outcome.result.state is State.CRASHED
    assert outcome.result.failure is not None
    assert outcome.result.failure.signal == name


# -- 3: memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
def test_row_3_memory_limit_over_the_tree(lab: Lab, processes: int) -> None:
    """A tree that takes more than its limit is ended, and limit and peak are reported."""
    limit = 300 << 20
    outcome = lab.run(
        "allocates",
        memory_bytes=limit,
        environment={"ALLOCATE_BYTES": str(1 << 30), "PROCESSES": str(processes)},
    )
    assert outcome.result.state is State.OUT_OF_MEMORY
    assert "the limit is 300 MiB" in outcome.headline
    assert "cell 1" in outcome.headline
    assert outcome.result.peak_memory_bytes > limit
    assert b"allocated" not in outcome.stdout


def test_row_3_no_process_alone_is_over_the_limit(lab: Lab) -> None:
    """Three processes that each stay well below the limit are over it together."""
    outcome = lab.run(
        "allocates",
        memory_bytes=450 << 20,
        environment={"ALLOCATE_BYTES": str(600 << 20), "PROCESSES": "3", "HOLD_S": "30"},
    )
    assert outcome.result.state is State.OUT_OF_MEMORY, outcome.headline
    assert "the limit is 450 MiB" in outcome.headline


def test_row_3_shared_pages_count_once(lab: Lab) -> None:
    """Processes that share their pages are not ended for the sum of what each maps."""
    lab.write(
        "shares",
        textwrap.dedent(
            """
            # %% One block, mapped by five processes
            import os, time
            block = b"x" * (120 << 20)
            children = []
            for _ in range(4):
                child = os.fork()
                if child == 0:
                    time.sleep(0.6)
                    os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
            """
        ),
    )
    outcome = lab.run("shares", memory_bytes=300 << 20)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline


def test_row_3_cgroup_that_takes_no_limit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is no cgroup of ours costs a note, and the limit is watched all the same."""
    monkeypatch.setenv("RESEARCH_JOBS_CGROUP", "/no/such/folder")
    fine = lab.run("adds_up", memory_bytes=300 << 20, isolation="spawn").result
    message = "memory was watched: no limit can be set in RESEARCH_JOBS_CGROUP=/no/such/folder"
    assert fine.notes == (message,)
    environment = {"ALLOCATE_BYTES": str(1 << 30)}
    outcome = lab.run(
        "allocates", memory_bytes=300 << 20, isolation="spawn", environment=environment
    )
    assert outcome.result.state is State.OUT_OF_MEMORY


def test_row_3_killed_from_outside(lab: Lab) -> None:
    """SIGKILL that is not ours is a crash whose line says what it may have been."""
    outcome = lab.run("kills_itself", environment={"SIGNAL": "SIGKILL"})
    assert outcome.result.state is State.CRASHED
    assert outcome.result.failure is not None
    assert outcome.result.failure.signal == "SIGKILL"
    assert "perhaps by the kernel's out-of-memory killer" in outcome.headline


# -- 4 and 5: what a notebook leaves running ------------------------------------------------------


@BOTH
def test_row_4_grandchild_holds_stdout(lab: Lab, isolation: str) -> None:
    """A process that keeps our streams open neither holds the run nor outlives it."""
    outcome = lab.run("leaves_a_child_holding_stdout", isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED
    assert outcome.result.duration_s < 5
    sleeper = int(outcome.stdout.split()[-1])
    assert not alive(sleeper)
    assert any("sleep 600" in note for note in outcome.result.notes)


@BOTH
def test_row_5_daemon(lab: Lab, isolation: str) -> None:
    """A daemon (forked twice, own session, deaf to TERM) is dead when the run is over."""
    outcome = lab.run("daemonises", isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED
    assert not alive(int(outcome.stdout.split()[-1]))


def test_row_5_daemon_at_a_timeout(lab: Lab) -> None:
    """A timeout ends a daemon too."""
    outcome = lab.run("daemonises", environment={"THEN": "sleep"}, timeout_s=0.5)
    assert outcome.result.state is State.TIMED_OUT
    assert not alive(int(outcome.stdout.split()[-1]))


def test_row_5_what_forks_all_the_time(lab: Lab) -> None:
    """A process that is another one at every look is caught all the same."""
    outcome = lab.run("forks_all_the_time", timeout_s=0.5)
    assert outcome.result.state is State.TIMED_OUT
    assert not any("could not be ended" in note for note in outcome.result.notes)


# -- 6: floods ------------------------------------------------------------------------------------


def test_row_6_flood(lab: Lab) -> None:
    """2 GiB without a line end: the log keeps both ends and a marker, and our memory stays."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit = 1 << 20
    outcome = lab.run(
        "floods_stdout", environment={"FLOOD_BYTES": str(2 << 30)}, log_limit_bytes=limit
    )
    assert outcome.result.state is State.SUCCEEDED
    assert outcome.stdout.startswith(b"the beginning|xxx")
    assert outcome.stdout.endswith(b"xxx|the end")
    assert b"1.999 GiB left out here" in outcome.stdout
    assert len(outcome.stdout) < limit + 1000
    assert any("stdout" in note for note in outcome.result.notes)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


# -- 7: what does not want to end -----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "name", ["hangs_in_c", "ignores_interrupts", "stops_itself", "swallows_interrupts", "sleeps"]
)
def test_row_7_timeout(lab: Lab, name: str, isolation: str) -> None:
    """A timeout ends a notebook that hangs in C, is deaf, is stopped, or catches interrupts."""
    outcome = lab.run(name, timeout_s=0.7, isolation=isolation)
    assert outcome.result.state is State.TIMED_OUT
    assert "timed out after 0.7 s" in outcome.headline
    assert "cell" in outcome.headline
    assert outcome.result.duration_s < 0.7 + 3 * 0.4 + 2


def test_timeout_says_where_it_hung(lab: Lab) -> None:
    """The interrupt that a timeout sends shows the line and the traceback where it met the run."""
    outcome = lab.run("sleeps", timeout_s=0.5)
    assert outcome.headline == ('notebooks/sleeps.py:7, cell 2 "Sleep": timed out after 0.5 s')
    assert outcome.result.failure is not None
    assert "time.sleep(600)" in outcome.result.failure.traceback


# -- 8: SystemExit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (18, "2", "exited with code 2"),
        (18, "cannot go on", "exited: cannot go on"),
        (17, "Silent", "exited: (its message cannot be shown)"),
    ],
)
def test_row_8_system_exit_fails(lab: Lab, line: int, code: str, message: str) -> None:
    """sys.exit() with anything but 0 or None is a failure that says so."""
    outcome = lab.run("raises_system_exit", environment={"EXIT_CODE": code})
    assert outcome.result.state is State.FAILED
    place = f'notebooks/raises_system_exit.py:{line}, cell 2 "Leave"'
    assert outcome.headline == f"{place}: {message} (SystemExit)"


@pytest.mark.parametrize("code", ["0", "None"])
def test_row_8_system_exit_of_0_ends_early(lab: Lab, code: str) -> None:
    """sys.exit(0) ends the notebook early: what it had assigned counts, the rest is missed."""
    fine = lab.run("raises_system_exit", outputs=("value",), environment={"EXIT_CODE": code})
    assert fine.result.state is State.SUCCEEDED, fine.headline
    assert [output.name for output in fine.result.outputs] == ["value"]
    assert any("ended itself early" in note for note in fine.result.notes)
    missed = lab.run("raises_system_exit", outputs=("never",), environment={"EXIT_CODE": code})
    assert missed.result.state is State.FAILED
    assert "output 'never' was never assigned" in missed.headline


# -- 9: KeyboardInterrupt -------------------------------------------------------------------------


def test_row_9_interrupt_that_the_notebook_raises(lab: Lab) -> None:
    """KeyboardInterrupt of the notebook's own is a failure like any other."""
    outcome = lab.run("raises_keyboard_interrupt")
    assert outcome.result.state is State.FAILED
    assert 'cell 2 "Interrupt": KeyboardInterrupt' in outcome.headline


@BOTH
def test_row_9_cancelled(lab: Lab, isolation: str) -> None:
    """Cancelling from another thread ends the run as cancelled, at once."""
    request = lab.request("sleeps")
    token = CancelToken()

    def cancel_when_asleep() -> None:
        wait_until(lambda: b"asleep" in lab.log(request))
        token.cancel()

    thread = threading.Thread(target=cancel_when_asleep)
    thread.start()
    outcome = lab.run(request, cancel=token, isolation=isolation)
    thread.join()
    assert outcome.result.state is State.CANCELLED
    assert outcome.headline.endswith('"Sleep": cancelled')
    assert outcome.result.duration_s < 10


def test_row_9_cancelled_before_it_began(lab: Lab) -> None:
    """A token that was cancelled before ends the run that is given it."""
    token = CancelToken()
    token.cancel()
    assert lab.run("sleeps", cancel=token).result.state is State.CANCELLED


# -- 10: bytes that are no text -------------------------------------------------------------------


def test_row_10_invalid_utf8(lab: Lab) -> None:
    """Bytes go into the log as they came; a character cut in two writes is whole there."""
    outcome = lab.run("writes_invalid_utf8")
    assert outcome.result.state is State.SUCCEEDED
    assert outcome.stdout == b"bad \xff\xfe byte, cut \xe2\x82\xac whole"
    assert outcome.stdout.decode("utf-8", "replace").endswith("cut \N{EURO SIGN} whole")


# -- 11: state of the process ---------------------------------------------------------------------


@BOTH
def test_row_11_parent_and_next_run_are_unaffected(lab: Lab, isolation: str) -> None:
    """What a notebook does to its process is seen neither by us nor by the next run."""

    def state() -> tuple[object, ...]:
        return (
            dict(os.environ),
            Path.cwd(),
            list(sys.path),
            {name for name in sys.modules if "notebook" in name},
            signal.getsignal(signal.SIGTERM),
            {entry.name for entry in Path("/proc/self/fd").iterdir()},
        )

    def described() -> bytes:
        file = lab.root / "described.json"
        environment = {"DESCRIPTION": str(file)}
        outcome = lab.run("describes_its_process", environment=environment, isolation=isolation)
        assert outcome.result.state is State.SUCCEEDED, outcome.headline
        return file.read_bytes().partition(b'"different"')[0]

    lab.run("adds_up", isolation=isolation)
    before, child_before = state(), described()
    outcome = lab.run("changes_process_state", isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED
    assert state() == before
    assert described() == child_before


# -- 12: the file changes under the run -----------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name", ["deletes_itself_then_raises", "rewrites_itself_then_raises"])
def test_row_12_file_changes_during_the_run(lab: Lab, name: str, isolation: str) -> None:
    """A run goes by the one read that it made: traceback and cell show that text."""
    path = lab.add(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    outcome = lab.run(name, isolation=isolation)
    failure = outcome.result.failure
    assert outcome.result.state is State.FAILED
    assert failure is not None
    assert f'notebooks/{name}.py:12, cell 2 "Fail": ValueError: the file is' in failure.headline
    assert "raise ValueError(" in failure.traceback
    assert "    fail()\n" in failure.traceback
    assert "raise ValueError(" in (failure.cell_source or "")
    assert outcome.result.source_sha256 == digest


# -- 17: the worker is killed ---------------------------------------------------------------------


WORKER = """
import os, sys
from lab import Lab
from research_jobs.supervisor.run import Supervisor
from pathlib import Path

lab = Lab(Path(sys.argv[1]), Supervisor())
lab.run(sys.argv[2], isolation=sys.argv[3], environment={"THEN": "sleep"})
"""


@BOTH
@pytest.mark.parametrize("name", ["sleeps", "daemonises", "hangs_in_c", "stops_itself"])
def test_row_17_worker_killed(lab: Lab, marker: str, name: str, isolation: str) -> None:
    """When the worker gets SIGKILL, template, guardian, notebook and daemons go with it."""
    lab.add(name)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    environment["RESEARCH_JOBS_TEST_MARKER"] = own = f"{marker}-{name}-{isolation}"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(lab.root), name, isolation], env=environment
    )
    expected = {"sleeps": b"asleep", "daemonises": b"daemon", "hangs_in_c": b"masked"}
    with killed_at_last(own):
        wait_until(
            lambda: any(
                expected.get(name, b"stopping") in p.read_bytes() for p in lab.logs.glob("*.out")
            ),
            60,
        )
        assert len(marked(own)) >= 3
        worker.kill()
        worker.wait()
        wait_until(lambda: not marked(own, spares=True), 20.0)


@contextlib.contextmanager
def killed_at_last(marker: str) -> Iterator[None]:
    """Whatever becomes of a test, nothing that it started stays."""
    try:
        yield
    finally:
        processes.signal_all(marked(marker, spares=True), signal.SIGKILL)


def marked_names(marker: str, *, spares: bool = False) -> list[tuple[int, str]]:
    """The marked processes and the short names that they gave themselves."""
    names = []
    for pid in marked(marker, spares=spares):
        with contextlib.suppress(OSError):
            names.append((pid, Path(f"/proc/{pid}/comm").read_text().strip()))
    return names


HANGING = """
from research_jobs.supervisor.run import Supervisor
Supervisor(preload=["hangs_at_import"]).warm("/no/project")
"""


def test_row_17_worker_killed_while_an_import_hangs(lab: Lab, marker: str) -> None:
    """A template that hangs in an import goes with its worker too."""
    (lab.root / "hangs_at_import.py").write_text(
        "import os, time\n"
        "message = os.environ['REACHED']\n"
        "with open(message + '.new', 'w') as file:\n"
        "    file.write(str(os.getpid()))\n"
        "os.rename(message + '.new', message)\n"
        "time.sleep(600)\n"
    )
    reached = lab.root / "reached"
    own = f"{marker}-hanging-import"
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HANGING,
        ],
        env=os.environ
        | {
            "PYTHONPATH": str(lab.root),
            "REACHED": str(reached),
            "RESEARCH_JOBS_TEST_MARKER": own,
        },
    )
    with killed_at_last(own):
        wait_until(reached.exists, 60)
        # The module itself says which process it hangs in, so nothing rests on when we look.
        template = int(reached.read_text())
        assert template != worker.pid
        assert {worker.pid, template} <= set(marked(own))
        worker.kill()
        worker.wait()
        wait_until(lambda: not marked(own, spares=True), 60.0)


@BOTH
def test_guardian_killed(lab: Lab, marker: str, isolation: str) -> None:
    """When the guardian itself is killed, the run is a crash and nothing of it stays."""
    lab.write(
        "sleeps",
        "# %%\nimport subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
        "print('asleep', flush=True)\ntime.sleep(600)\n",
    )
    request = lab.request("sleeps")
    killed: list[int] = []

    def kill_guardian() -> None:
        wait_until(lambda: b"asleep" in lab.log(request))
        for pid, name in marked_names(marker):
            if name == "rj:sleeps":
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill_guardian)
    thread.start()
    outcome = lab.run(request, isolation=isolation)
    thread.join()
    assert killed
    assert outcome.result.state is State.CRASHED
    assert "ended without a result (killed from outside)" in outcome.headline
    assert lab.run("adds_up").result.state is State.SUCCEEDED


def test_template_killed(lab: Lab) -> None:
    """A template that was killed costs the runs that it started nothing, and is replaced."""
    assert lab.supervisor is not None
    lab.run("adds_up")
    request = lab.request("leaves_threads")
    (template,) = lab.supervisor.template_pids
    os.kill(template, signal.SIGKILL)
    outcome = lab.run(request)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.result.isolation == "fork"
    assert lab.supervisor.template_pids != (template,)


def test_spare_killed(lab: Lab, marker: str) -> None:
    """Guardians and processes that wait for the next run may be killed: the next run is run."""
    for victims in ("guardian", "process", "both"):
        lab.run("adds_up")
        spares = wait_until(
            lambda: [
                pid
                for pid, name in marked_names(marker, spares=True)
                if name == "rj-spare" and processes.children_of(pid) is not None
            ]
        )
        guardians = [pid for pid in spares if processes.children_of(pid)]
        for pid in spares:
            if victims == "both" or (pid in guardians) == (victims == "guardian"):
                # The process may be gone with its guardian by now.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        outcome = lab.run("adds_up")
        assert outcome.result.state is State.SUCCEEDED, outcome.headline


# -- 25: forged records ---------------------------------------------------------------------------


@BOTH
def test_row_25_record_on_stdout(lab: Lab, isolation: str) -> None:
    """A record on stdout is output and nothing else."""
    outcome = lab.run("forges_a_record_on_stdout", isolation=isolation)
    assert outcome.result.state is State.FAILED
    assert "it failed all the same" in outcome.headline
    assert b'"forged"' in outcome.stdout


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("truncated", "cut short"),
        ("huge", "frame of 4294967295 bytes"),
        ("foreign version", "protocol 9"),
        ("no JSON", "not JSON"),
        ("no record", "unknown record"),
        ("wrong shape", "has not the shape"),
        ("deep", "not JSON"),
        ("wrong cell", "a cell has not the shape"),
    ],
)
def test_row_25_frames_that_are_not_ours(lab: Lab, frame: str, message: str) -> None:
    """A broken frame on the private descriptor is a clear ending and never a success."""
    outcome = lab.run("writes_to_the_private_channel", environment={"FRAME": frame})
    assert outcome.result.state is State.EXITED
    assert "left an invalid record" in outcome.headline
    assert message in outcome.headline


def test_row_25_frames_without_end(lab: Lab) -> None:
    """A notebook that sends frames as fast as they are read is ended in time."""
    outcome = lab.run(
        "writes_to_the_private_channel", environment={"FRAME": "endless"}, timeout_s=1.0
    )
    assert outcome.result.state is State.TIMED_OUT


# -- success is a record, and one that was committed stays one ------------------------------------


@BOTH
def test_two_processes_reach_the_end(lab: Lab, isolation: str) -> None:
    """A forked copy of the notebook that runs to the end has no say in the result."""
    outcome = lab.run("forks_and_goes_on", outputs=("value",), isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert [output.name for output in outcome.result.outputs] == ["value"]


def test_private_descriptors_closed(lab: Lab) -> None:
    """A notebook that closes descriptors of ours has no result; its own files stay its own."""
    outcome = lab.run("closes_all_descriptors", outputs=("value",))
    assert outcome.result.state is State.EXITED
    assert b"closed a descriptor of the run" in outcome.stderr
    assert all(path.read_bytes() == b"" for path in lab.notebooks.glob("own*.txt"))


@pytest.mark.parametrize("name", ["crashes_at_exit", "hangs_at_exit"])
def test_trouble_after_the_record(lab: Lab, name: str) -> None:
    """A handler that crashes or hangs at exit costs a note and not the result."""
    outcome = lab.run(name, outputs=("value",))
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert any("after its result" in note for note in outcome.result.notes)


@pytest.mark.parametrize("point", ["child-before-output", "child-before-record"])
def test_killed_before_the_record(lab: Lab, point: str) -> None:
    """Killed at any point before its record is sent, the run has not succeeded."""
    environment = {"KILL_AT": point}
    outcome = lab.run("killed_at_a_point", outputs=("frame", "summary"), environment=environment)
    assert outcome.result.state is State.CRASHED
    assert outcome.result.outputs == ()


def test_killed_after_the_record(lab: Lab) -> None:
    """Killed after its record was sent, the run has succeeded, with a note."""
    environment = {"KILL_AT": "child-after-record"}
    outcome = lab.run("killed_at_a_point", outputs=("frame", "summary"), environment=environment)
    assert outcome.result.state is State.SUCCEEDED
    assert [output.name for output in outcome.result.outputs] == ["frame", "summary"]


def test_timed_out_result_has_no_outputs(lab: Lab) -> None:
    """A notebook that catches the timeout's interrupt and finishes has not succeeded."""
    request = replace(lab.request("swallows_interrupts", outputs=("value",)), timeout_s=0.5)
    outcome = lab.run(request)
    assert outcome.result.state is State.TIMED_OUT
    assert outcome.result.outputs == ()


def test_supervisor_closed(lab: Lab) -> None:
    """A supervisor that was closed refuses runs in words."""
    supervisor = Supervisor()
    supervisor.close()
    outcome = Lab(lab.root, supervisor).run("adds_up")
    assert outcome.result.state is State.FAILED
    assert "this supervisor is closed" in outcome.headline
