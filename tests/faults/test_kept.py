"""Processes of failed runs that are kept: entered, mended, ended, and nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, Ran, wait_until

from research_jobs import process as process_state
from research_jobs.errors import RunError
from research_jobs.outcome import State
from research_jobs.project import find_project
from research_jobs.protocol import Keep, OutputRequest
from research_jobs.supervisor.kept import KeptProcess, keep_process, was_kept
from research_jobs.supervisor.run import Supervisor

DIVIDES = """\
# %% Numbers
import json
import os

x = 41
print("before", flush=True)
os.write(1, b"x" * 20_000 + b"\\n")

# %% tags=["parameters"]
k = 1

# %% Divide
y = x / k

# %% Table
z = y + 1
z
"""


def keep(
    lab: Lab, name: str, source: str, *, seconds: float = 60.0, **fields: Any
) -> tuple[Ran, Keep]:
    """Run a notebook whose process is kept if it fails."""
    lab.write(name, source)
    folder = lab.root / "kept"
    folder.mkdir()
    options = {field: fields.pop(field) for field in ("owner", "always") if field in fields}
    asked = Keep(str(folder), seconds, **options)
    return lab.run(name, keep=asked, **fields), asked


def kept(asked: Keep) -> KeptProcess:
    """The process of a run."""
    process = KeptProcess.read(Path(asked.folder))
    assert process is not None
    assert process.alive
    return process


def typed(process: KeptProcess, *lines: str) -> str:
    """What a visitor who types these lines sees."""
    answers, typing = os.pipe(), os.pipe()
    with process.entered("Terminal", (typing[0], answers[1], answers[1])) as visit:
        os.close(typing[0])
        os.close(answers[1])
        os.write(typing[1], "".join(f"{line}\n" for line in lines).encode())
        os.close(typing[1])
        assert visit.wait() is None
    with os.fdopen(answers[0]) as file:
        return file.read()


def test_its_state_is_intact_and_it_goes_on(lab: Lab) -> None:
    """A mended cell and those after it run with what those before it made, in several visits."""
    ran, asked = keep(
        lab, "divides", DIVIDES, parameters={"k": 0}, parameter_types={"k": "int"}, timeout_s=30.0
    )
    assert ran.result.state is State.FAILED
    assert ran.result.notes == ("its process is kept for 0:01:00: research-jobs debug divides",)
    assert ran.stdout.startswith(b"before\nxxx")
    assert ran.stdout.endswith(b"x\n"), "the log is complete"
    process = kept(asked)
    assert process.pid == ran.result.pid
    assert process.headline == ran.headline
    assert "-> 13 y = x / k" in str(process.cell)
    assert process.remaining == ((4, "Table"),)
    said = typed(process, "x, k", "%failed", "raise SystemExit")
    assert "(41, 0)" in said
    assert "ZeroDivisionError" in said
    assert "run_async" not in said, "frames of ours"
    path = lab.notebooks / "divides.py"
    path.write_text(DIVIDES.replace("x / k", "x / (k + 2)").replace("y + 1", "y + 0.5"))
    said = typed(process, "%failed", "y", "%remaining", "%remaining")
    assert '[cell 3 "Divide"]' in said
    assert "20.5" in said
    assert '[cell 4 "Table"]' in said
    assert "21.0" in said
    assert "No cell remains." in said
    assert "Out[1]: 21.0" in typed(process, "z"), "the namespace outlives a visit"
    process.end()
    assert not process.folder.exists()


def test_a_run_that_was_started_cold(lab: Lab, marker: str) -> None:
    """Without a template it is the same, and it stays when the process that ran it has gone."""
    with Supervisor() as supervisor:
        lab.supervisor = supervisor
        ran, asked = keep(lab, "cold", "# %%\nx = 41\n1 / 0\n", isolation="spawn")
    assert ran.result.state is State.FAILED
    process = kept(asked)
    held = [str(path.readlink()) for path in Path(f"/proc/{process.guardian}/fd").iterdir()]
    assert not set(held) & {str(path) for path in lab.logs.iterdir()}, "nobody waits for its logs"
    assert "Out[1]: 41" in typed(process, "x")
    process.end()


@pytest.mark.parametrize(
    ("source", "where", "typing", "answer"),
    [
        ("# %%\nimport mends\nx = 7\nmends.divide(0)\n", "(in notebooks/mends.py:2)", "x", "7"),
        ("# %%\nimport asyncio\nt = asyncio.create_task(asyncio.sleep(0, 5))\nawait t\n1 / 0\n",
         "cell 1", "await t", "5"),
        ("# %%\nimport pandas as pd\nframe = pd.DataFrame({'a': [object()]})\n", "output 'frame'",
         "frame.shape", "(1, 1)"),
    ],
    ids=["in a helper module", "in a cell that awaits", "in an output"],
)  # fmt: skip
def test_wherever_it_fails(lab: Lab, source: str, where: str, typing: str, answer: str) -> None:
    """A failure in a helper module, beside a task, or of an output keeps the state."""
    lab.write("mends", "def divide(k):\n    return 1 / k\n")
    outputs = ("frame",) if "frame" in source else ()
    ran, asked = keep(lab, "fails", source, outputs=outputs)
    assert where in ran.headline
    process = kept(asked)
    assert answer in typed(process, typing)
    process.end()


def test_a_refused_output(lab: Lab) -> None:
    """A run whose check fails is kept with the state at its end."""
    lab.write("frame", "# %%\nframe = [1, 2]\n")
    request = lab.request("frame", outputs=("frame",))
    folder = lab.root / "kept"
    folder.mkdir()
    outputs = (OutputRequest("frame", checks={"min_rows": 3}),)
    asked = Keep(str(folder), 60.0)
    ran = lab.run(replace(request, outputs=outputs, keep=asked))
    assert ran.result.refused
    process = kept(asked)
    assert process.remaining == ()
    assert "[1, 2]" in typed(process, "frame")
    process.end()


@pytest.mark.parametrize(
    ("source", "fields", "state"),
    [
        ("# %%\nx = 1\n", {}, State.SUCCEEDED),
        ("# %%\nx = (\n", {}, State.FAILED),
        ("# %%\nimport time\ntime.sleep(60)\n", {"timeout_s": 0.3}, State.TIMED_OUT),
        ("# %%\nimport os\nos._exit(3)\n", {}, State.EXITED),
    ],
    ids=["succeeded", "syntax error", "timed out", "exited"],
)
def test_what_is_not_kept(lab: Lab, source: str, fields: dict[str, Any], state: State) -> None:
    """What succeeded, never began or had to be ended leaves nothing."""
    ran, asked = keep(lab, "ends", source, **fields)
    assert ran.result.state is state
    assert not was_kept(asked)
    assert not Path(asked.folder).exists()


GRANDCHILD = """\
# %%
import subprocess

daemon = subprocess.Popen(["sleep", "300"], start_new_session=True)
1 / 0
"""


def test_one_that_is_killed_while_it_answers(tmp_path: Path) -> None:
    """An answer that is cut short is that of a process that has ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    process = KeptProcess(tmp_path, "nb", None, "r", 0, "", 0, 0.0, "failed", "why")

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(4096)
            connection.sendall(b"\0\0\0\x40{")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(RunError, match="it has ended"), process.entered("Kernel"):
        pass
    thread.join()


@pytest.mark.parametrize("how", ["time", "owner", "memory", "child", "end"])
def test_nothing_lives_when_it_has_ended(lab: Lab, how: str) -> None:
    """Time, its owner's death, its memory limit, a kill, or a command: its daemons end with it."""
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ran, asked = keep(
        lab,
        "daemon",
        GRANDCHILD,
        seconds=0.5 if how == "time" else 60.0,
        owner=owner.pid if how == "owner" else None,
        memory_bytes=300 * 2**20 if how == "memory" else None,
    )
    assert ran.result.state is State.FAILED
    process = KeptProcess.read(Path(asked.folder))
    if how != "time":
        assert process is not None
        if how == "memory":
            typed(process, "many = b'x' * 400 * 2**20")
        elif how == "child":
            os.kill(process.pid, signal.SIGKILL)
        elif how == "end":
            process.end()
    owner.kill()
    owner.wait()
    assert owner.stdin is not None
    owner.stdin.close()
    wait_until(lambda: not Path(asked.folder).exists())
    # the fixture asserts that no process is left


def test_secrets_are_not_written_down(lab: Lab) -> None:
    """What is said of a kept process is masked as everything that a run leaves behind."""
    source = (
        "# %%\nsecret = 'hunter22'\n# %% hunter22\nraise ValueError(secret)\n# %% not hunter22\n1\n"
    )
    ran, asked = keep(lab, "tells", source, secrets={"TOKEN": "hunter22"})
    process = kept(asked)
    assert "hunter22" not in (process.folder / "kept.json").read_text()
    assert process.headline == ran.headline
    with Path(os.devnull).open("r+b") as null:
        descriptors = (null.fileno(),) * 3
        with process.entered("Terminal", descriptors), pytest.raises(RunError, match="somebody"):
            typed(process, "1")
    process.end()
    with pytest.raises(RunError, match="it has ended"):
        typed(process, "1")


def test_a_host_owns_what_its_children_keep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that a host has forked says so: what it keeps ends with the host."""
    for name in ("_hands_down", "_host"):
        monkeypatch.setattr(process_state, name, getattr(process_state, name))
    process_state.hand_down(on=True)
    assert process_state.host_pid() is None, "the host itself"
    process_state.hand_down(on=False)
    (tmp_path / "notebooks").mkdir()
    asked = keep_process(find_project(tmp_path), "nb", None, seconds=1.0, source="")
    assert asked.owner == process_state.host_pid() == os.getppid()
    assert Path(asked.folder).stat().st_mode & 0o777 == 0o700
