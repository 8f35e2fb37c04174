"""``research-jobs debug``: at a terminal, as a kernel, and nothing of it counts."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from lab import marked, marker, wait_until

from research_jobs.cli import serving_kernel
from research_jobs.cli.main import main
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.debugging import failed_run, run_and_keep
from research_jobs.orchestration.operations.trial import open_trial
from research_jobs.project import find_project
from research_jobs.supervisor.kept import KeptProcess, kept_processes
from research_jobs.supervisor.shared import close_supervisors

__all__ = ["marker"]

COMMAND = str(Path(sys.executable).with_name("research-jobs"))
FAILS = """\
# %% Load
from research_jobs import load

x = load("source", "x")

# %% Divide
y = x / (x - 41)

# %% Table
z = y + 1
z
"""
MENDED = FAILS.replace("x - 41", "x - 40")
MANIFEST = "notebooks: {source: {outputs: [x]}, fails: {outputs: [z]}}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, marker: str) -> Iterator[Path]:
    """A project in which a run failed, whose process is kept; by now its input is another one."""
    root = tmp_path_factory.mktemp("project")
    notebooks = root / "notebooks"
    notebooks.mkdir()
    (notebooks / "manifest.yaml").write_text(MANIFEST)
    (notebooks / "source.py").write_text("# %%\nx = 41\n")
    (notebooks / "fails.py").write_text(FAILS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEARCH_JOBS_PROJECT", str(root))
        for name in ("DAGSTER_HOME", "RESEARCH_JOBS_STORE"):
            patch.delenv(name, raising=False)
        assert main(["run", "source", "fails", "--keep-on-failure", "10m"]) == 1
        (notebooks / "source.py").write_text("# %%\nx = 42\n")
        assert main(["run", "source"]) == 0
        yield root
        for kept in kept_processes(find_project(root)):
            kept.end()


@pytest.fixture
def process(project: Path) -> KeptProcess:
    """The process that is kept of the failed run."""
    (kept,) = kept_processes(find_project(project))
    return kept


@pytest.fixture(autouse=True)
def _nothing_counts(project: Path) -> Iterator[None]:
    """Store, Dagster's history and reports are byte for byte as before, whatever a test does."""
    before = digests(project)
    assert {name.partition("/")[0] for name in before} >= {"data", "reports", ".research_jobs"}
    yield
    assert digests(project) == before


def digests(root: Path) -> dict[str, str]:
    """All that counts of a project: path to digest."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in ("data", "reports", ".research_jobs/dagster")
        for path in sorted((root / place).rglob("*"))
        if path.is_file()
    }


class Terminal:
    """A command in a terminal of its own, and somebody who types."""

    def __init__(self, *words: str) -> None:
        self.seen = ""
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
                os.execv(COMMAND, [COMMAND, *words])
            finally:
                os._exit(1)

    def expect(self, text: str, seconds: float = 60.0) -> str:
        """Wait until a text is on the screen; what came before it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert select.select([self.screen], [], [], end - time.monotonic())[0], (
                text,
                self.seen[-600:],
            )
            try:
                more = os.read(self.screen, 65536)
            except OSError:
                more = b""
            assert more, (text, self.seen[-600:])
            if b"\x1b[6n" in more:
                os.write(self.screen, b"\x1b[1;1R")  # a terminal says where its cursor is
            self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", more.decode(errors="replace"))
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: str) -> None:
        """Type, as a person at the prompt."""
        os.write(self.screen, text.encode())

    def ended(self) -> int:
        """The exit code, once the command has ended."""
        with suppress(OSError):
            while os.read(self.screen, 65536):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_status_names_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept is listed, with the command that enters it."""
    main(["status"])
    said = capsys.readouterr().out
    assert "the process of fails, run" in said
    assert "research-jobs debug fails" in said


def test_the_prompt_of_a_kept_process(process: KeptProcess) -> None:
    """A terminal enters it: state, Ctrl-C, the failed cell again, and it stays when left."""
    terminal = Terminal("debug", "fails")
    terminal.expect(f"Enters the process that run {process.run_id[:8]} left, kept until")
    terminal.expect("ZeroDivisionError: division by zero")
    terminal.expect('Remaining: cell 3 "Table"')
    terminal.expect("In [1]")
    terminal.type("x, __name__\r")
    terminal.expect("(41, 'fails')")
    terminal.expect("In [2]")
    terminal.type("import time; print(6 * 7); time.sleep(100)\r")
    terminal.expect("42")
    terminal.type("\x03")
    terminal.expect("KeyboardInterrupt")
    terminal.expect("In [3]")
    terminal.type("%failed\r")
    terminal.expect('[cell 2 "Divide"]')
    terminal.expect("ZeroDivisionError: division by zero")
    terminal.expect("In [4]: \r\r\n")  # the prompt is drawn: before that Ctrl-D is another's
    terminal.type("\x04")
    terminal.expect("It stays until")
    assert terminal.ended() == 0
    assert process.alive


# In a process of its own: Jupyter's client changes `asyncio` of the process that it is used in.
CONSOLE = """
import sys
from jupyter_client.blocking.client import BlockingKernelClient

console = BlockingKernelClient()
console.load_connection_file(sys.argv[1])
console.start_channels()
console.wait_for_ready(timeout=60)

def show(message):
    if message["msg_type"] == "execute_result":
        print(message["content"]["data"]["text/plain"])

console.execute_interactive("x = 20; x", output_hook=show, timeout=60)
console.stop_channels()
"""


def test_clients_of_the_kernel(process: KeptProcess, project: Path) -> None:
    """A client by connection file and one through the server see one process, and mend it."""
    with process.entered("Kernel") as visit, serving_kernel.serve_kernel(visit) as url:
        command = [sys.executable, "-W", "ignore", "-c", CONSOLE, visit.file]
        assert subprocess.check_output(command, text=True, timeout=90) == "20\n"
        base, _, token = url.partition("?")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{base}api/sessions")
        with urllib.request.urlopen(f"{base}api/sessions?{token}") as answer:
            (session,) = json.load(answer)
        channels = f"{base}api/kernels/{session['kernel']['id']}/channels?{token}"
        (project / "notebooks" / "fails.py").write_text(MENDED)
        cells = ("import os; x, os.getpid()", "%failed", "%remaining")
        told = asyncio.run(through_server(channels.replace("http:", "ws:"), cells))
    assert told == [f"(20, {process.pid})", '[cell 2 "Divide"]\n', '[cell 3 "Table"]\n', "0.0"]
    assert process.alive


async def through_server(url: str, cells: tuple[str, ...]) -> list[str]:
    """What a client of a Jupyter server is shown of cells."""
    from tornado.websocket import websocket_connect

    connection = await websocket_connect(url)
    told: list[str] = []
    for number, code in enumerate(cells):
        header = {
            "msg_id": f"message-{number}", "username": "", "session": "test", "version": "5.3",
            "msg_type": "execute_request", "date": "",
        }  # fmt: skip
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await connection.write_message(json.dumps({**request, "channel": "shell", "buffers": []}))
        while True:
            said = await connection.read_message()
            assert isinstance(said, str)
            message = json.loads(said)
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "execute_result":
                    told.append(content["data"]["text/plain"])
                case "stream":
                    told.append(content["text"])
                case "error":
                    raise AssertionError(content)
                case "status" if content["execution_state"] == "idle":
                    break
                case _:
                    pass
    connection.close()
    return told


def test_without_jupyter_it_says_what_to_install(
    process: KeptProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel without its packages is one line, before anything runs."""
    monkeypatch.setattr(serving_kernel, "_is_installed", lambda _: False)
    assert main(["debug", process.notebook, "--kernel"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "--kernel needs jupyter_server and ipykernel" in said.err
    assert "research_jobs[debug]" in said.err


def test_it_is_ended(process: KeptProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """`--end` ends it, and says so; then there is none to end."""
    assert main(["debug", "--end", "fails"]) == 0
    assert not process.alive
    assert main(["debug", "--end", "fails"]) == 1
    assert "No process of fails is kept." in capsys.readouterr().err


def test_as_the_run_did(project: Path, marker: str) -> None:
    """Without one it runs again with the run's input; a closed terminal leaves no process."""
    (project / "notebooks" / "fails.py").write_text(FAILS)
    close_supervisors()
    already = set(marked(marker))
    terminal = Terminal("debug", "fails")
    terminal.expect("In [1]")
    terminal.type("x\r")
    terminal.expect("Out[1]: 41")
    terminal.type("__file__\r")
    terminal.expect(str(project / "notebooks" / "fails.py"))
    os.close(terminal.screen)
    os.waitpid(terminal.pid, 0)
    wait_until(lambda: not set(marked(marker, spares=True)) - already)
    assert not list((project / ".research_jobs" / "trials").iterdir())


def test_what_it_runs(project: Path) -> None:
    """A notebook that did not fail is entered at its end; one that changed since as it was then."""
    (project / "notebooks" / "fails.py").write_text(MENDED)
    real = load_catalog(find_project(project))
    assert failed_run(real.project, "source", None, None) is None
    record = failed_run(real.project, "fails", None, None)
    assert record is not None
    assert failed_run(real.project, "fails", record.run_id[:8], None) == record
    with open_trial(real) as trial:
        good = run_and_keep(real, trial, "source", None, None)
        assert good.process is not None
        assert (good.process.state, good.process.remaining) == ("succeeded", ())
        good.process.end()
        bad = run_and_keep(real, trial, "fails", record, None)
        assert bad.process is not None
        assert "ZeroDivisionError" in bad.process.headline, "it ran as it was then"
        assert bad.not_restored == ("notebooks/fails.py has changed since: it ran as it was then",)
        bad.process.end()


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    """A time that is none, and what leaves nothing to enter."""
    assert main(["run", "source", "--keep-on-failure", "soon"]) == 2
    assert "how long to keep a failed process: 'soon' is not a duration" in capsys.readouterr().err
    (project / "notebooks" / "never.py").write_text("# %%\nx = (\n")
    assert main(["debug", "never"]) == 1
    said = capsys.readouterr().err
    assert "Nothing to enter, nothing of it ran: notebooks/never.py:2:5: '(' was never" in said
    (project / "notebooks" / "never.py").write_text("# %%\nimport os\nos._exit(3)\n")
    assert main(["debug", "never"]) == 1
    said = capsys.readouterr().err
    assert "Nothing to enter, a process that exited cannot be kept: notebooks/never.py" in said
