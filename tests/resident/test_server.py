"""The host's socket, its protocol, and what it refuses."""

from __future__ import annotations

import array
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosted import SLEEPS, Hosted, wait_until

from research_jobs.project import find_project
from research_jobs.resident.address import host_key, socket_address, socket_folder
from research_jobs.resident.client import NoHostError, ask, connect
from research_jobs.runtime import processes
from research_jobs.runtime.channel import receive_message, send_message

# A host that does what a test asks of its children, without Dagster.
SMALL = """
import os, random, signal, sys, tempfile, threading
from dataclasses import replace
from pathlib import Path
from research_jobs.project import find_project
from research_jobs.resident.server import Host, Listening, Work, listen

project = find_project(sys.argv[1])
kept = Listening.from_json(sys.argv[2]) if len(sys.argv) > 2 else listen(project)
events = []

def command(words):
    exec(words[0])
    return 0

def run(message):
    (project.root / message["run_id"]).write_text(str(os.getpid()))
    return 0

def conclude(run_id, instance, what):
    (project.root / f"{run_id}.ended").write_text(what)
    return 0

def changed():
    file = project.root / "changed"
    if file.exists():
        sys.executable = file.read_text() or sys.executable
        file.unlink()
        return "a file"

if (project.root / "thread").exists():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
if (project.root / "grpc").exists():
    sys.modules["grpc"] = sys
work = Work(
    run=run, conclude=conclude, command=command, changed=changed, outdated=lambda: None,
    lend=lambda _: None,
)
again = [sys.executable, __file__, sys.argv[1]]
host = Host(project, kept, work, again=again, environment=dict(os.environ), patience_s=3)
if (project.root / "open").exists():
    host.work.changed()
    leaks = []
    def changed_and_leaks():
        leaks.append(open(os.devnull))
    host.work = replace(work, changed=changed_and_leaks)
print("ready", flush=True)
sys.exit(host.serve())
"""


class Small:
    """A host of nothing but the protocol."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "notebooks").mkdir(parents=True)
        self.project = find_project(root)
        self.script = root / "small.py"
        self.script.write_text(SMALL)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(self.script), str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def connect(self) -> socket.socket:
        return connect(self.project)

    def run(self, run_id: str, *, go: bool = True) -> int:
        with self.connect() as connection:
            answer = ask(connection, "Run", run_id=run_id, instance="", environment={}, umask=0o22)
            if go:
                send_message(connection, "Go")
            return int(answer["pid"])

    def execute(self, code: str) -> str:
        """What some code prints in a forked process."""
        reader, writer = os.pipe()
        with self.connect() as connection:
            ask(
                connection,
                "Command",
                fds=(0, writer, 2),
                words=[code],
                environment=dict(os.environ),
                umask=0o22,
                folder=str(self.root),
                encoding="utf-8",
            )
            os.close(writer)
            send_message(connection, "Go")
            with open(reader) as stream:  # noqa: PTH123 - a descriptor
                text = stream.read()
            answer = receive_message(connection)
        assert answer is not None, text
        assert answer["code"] == 0, text
        return text.strip()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """A host of nothing but the protocol, not started yet."""
    small = Small(tmp_path / "project")
    try:
        yield small
    finally:
        small.stop()


def test_only_this_user_can_reach_it(small: Small) -> None:
    """The socket and its folder are this user's alone, whatever the umask."""
    before = os.umask(0)
    try:
        small.start()
    finally:
        os.umask(before)
    folder = socket_folder(small.project)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}


def test_a_path_of_any_length(tmp_path: Path) -> None:
    """A project whose path is longer than a socket's address has a host as well."""
    deep = tmp_path.joinpath(*["a" * 100] * 3)
    small = Small(deep)
    try:
        small.start()
        assert small.execute("print('hello')") == "hello"
    finally:
        small.stop()


def test_the_other_side_is_checked(small: Small) -> None:
    """A client declines a socket that another user listens on, where root could make one."""
    if os.geteuid():
        pytest.skip("only root can listen as somebody else")
    project = small.project
    project.make_state_folder("host")
    folder = socket_folder(project)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener, socket_address(folder, host_key(os.environ)) as address:
        listener.bind(address)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            os.setuid(65534)
            listener.listen(1)
            signal.pause()
            os._exit(0)
        try:
            wait_until(lambda: _refusal(small) != "no host runs for this project and environment")
            assert _refusal(small) == "the host that listens belongs to another user"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _refusal(small: Small) -> str:
    with pytest.raises(NoHostError) as raised:
        small.connect()
    return raised.value.headline


def test_a_link_to_the_environment_is_the_environment(tmp_path: Path) -> None:
    """A process that was started through a link to its environment finds the host that was not."""
    link = tmp_path / "venv"
    link.symlink_to(sys.prefix)
    program = (
        "import os; from research_jobs.resident.address import host_key, identity; "
        "print(host_key(os.environ), identity())"
    )
    said = {
        subprocess.run(
            [folder / "bin" / "python", "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for folder in (link, Path(sys.prefix))
    }
    assert len(said) == 1


def test_one_host_for_a_project(small: Small) -> None:
    """A second host says that there is one; after the first was killed it takes its place."""
    small.start()
    assert small.process is not None
    second = subprocess.run(
        [sys.executable, str(small.script), str(small.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "a host of this project and environment runs already" in second.stderr
    small.stop()
    assert _refusal(small).startswith("no host runs")
    small.start()
    assert small.execute("print(1)") == "1"


def test_a_child_is_a_process_of_its_own(small: Small) -> None:
    """Random state, temporary names, session, signals and descriptors are the child's own."""
    small.start()
    draws = "print(random.random(), next(tempfile._get_candidate_names()))"
    assert small.execute(draws) != small.execute(draws)
    signals = "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
    signals += "signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getsid(0) == os.getpid())"
    assert small.execute(signals) == "True True True"
    # Three standard ones, the connection, and the one of the listing.
    assert len(small.execute("print(*os.listdir('/proc/self/fd'))").split()) == 5


def test_a_client_that_gave_up_starts_nothing(small: Small) -> None:
    """A run begins only when the client says so: it has launched it otherwise by then."""
    small.start()
    pid = small.run("given-up", go=False)
    wait_until(lambda: not processes.alive(pid))
    assert not (small.root / "given-up").exists()
    pid = small.run("wanted")
    wait_until((small.root / "wanted").exists)
    wait_until(lambda: not processes.alive(pid))
    assert not list(small.root.glob("*.ended"))


def test_what_does_not_survive_a_fork_is_refused(small: Small) -> None:
    """With a thread, gRPC or an open file more, the host forks nothing and says why."""
    for name, reason in (
        ("thread", "it has a thread more"),
        ("grpc", "it has imported gRPC"),
        ("open", f"it has an open file or connection more ({os.devnull})"),
    ):
        (small.root / name).touch()
        small.start()
        with pytest.raises(NoHostError, match="the host declines") as raised:
            small.run("never")
        assert reason in raised.value.headline
        (small.root / name).unlink()
        small.stop()


def test_what_is_no_request(small: Small) -> None:
    """Garbage, silence, another package and unknown requests leave the host as it is."""
    small.start()
    with small.connect() as connection:
        connection.sendall(b"\xff" * 64)
        assert receive_message(connection) is None or True
    with small.connect():
        pass  # says nothing
    with small.connect() as connection:
        # Of another version, with a terminal: what came with it does not stay open in the host.
        text = b'{"version": 7, "record": "Command"}'
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (0, 1, 2)))]
        connection.sendmsg([struct.pack(">I", len(text)) + text], rights)
        assert receive_message(connection)
    with small.connect() as connection, pytest.raises(NoHostError, match="knows no request"):
        ask(connection, "Dance")
    with small.connect() as connection:
        send_message(connection, "Run", python="elsewhere", package="x")
        answer = receive_message(connection)
        assert answer is not None
        assert answer["record"] == "Declined"
    assert small.execute("print(2)") == "2"


def test_it_loads_itself_anew_under_way(small: Small) -> None:
    """A host that has changed keeps its pid, its socket and the run for which it loads anew."""
    small.start()
    assert small.process is not None
    (small.root / "changed").touch()
    small.run("first")
    wait_until((small.root / "first").exists)
    assert not (small.root / "changed").exists()
    assert small.execute("print(os.getppid())") == str(small.process.pid)


def test_it_cannot_load_itself_anew(small: Small) -> None:
    """A host whose interpreter is gone ends and says so; it does not go on with half of itself."""
    small.start()
    (small.root / "changed").write_text("/no/such/python")
    with pytest.raises(NoHostError, match="the host has ended"):
        small.run("never")
    assert small.process is not None
    said, _ = small.process.communicate(timeout=60)
    assert "/no/such/python cannot be executed anew: No such file or directory" in said
    small.process = None


def test_a_command_does_not_wait_for_what_it_reads_itself(small: Small) -> None:
    """Notebooks and manifest may have changed: a command reads them, and uses no definitions."""
    small.start()
    (small.root / "changed").touch()
    assert small.execute("print(1)") == "1"
    assert (small.root / "changed").exists()


TEMPLATE = """
# %%
import os
from pathlib import Path

parent = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1]
Path(f"template_of_{__name__}").write_text(parent)
"""


def test_killed_under_a_run(own: Hosted) -> None:
    """After SIGKILL of the host a run goes on, with the same template, and a new host is found."""
    own.write("first", TEMPLATE + SLEEPS)
    own.write("second", TEMPLATE)
    own.manifest("notebooks: {second: {after: [first]}}")
    own.start()
    run = own.launch()
    wait_until((own.root / "notebooks" / "began").exists)
    own.kill()
    own.start()
    (own.root / "notebooks" / "go").touch()
    assert own.ended(run).is_success
    first, second = (
        (own.root / "notebooks" / f"template_of_{name}").read_text() for name in ("first", "second")
    )
    assert first == second
    assert own.command("run", "second").returncode == 0
    assert (own.root / "notebooks" / "template_of_second").read_text() != first
    # It ends with the last process that could have used it.
    wait_until(lambda: not processes.alive(int(first)))


def test_stopped_politely(own: Hosted) -> None:
    """SIGTERM: no new run is taken; the host leaves when its run is over, or after its limit."""
    own.write("sleeps", SLEEPS)
    own.start("--patience", "30")
    run = own.launch()
    wait_until((own.root / "notebooks" / "began").exists)
    assert own.process is not None
    own.process.terminate()
    wait_until(lambda: _no_host(own))
    assert own.process.poll() is None
    (own.root / "notebooks" / "go").touch()
    assert own.process.wait(60) == 0
    assert own.ended(run).is_success
    own.kill()

    (own.root / "notebooks" / "go").unlink()
    (own.root / "notebooks" / "began").unlink()
    own.start("--patience", "0.2")
    run = own.launch()
    wait_until((own.root / "notebooks" / "began").exists)
    own.process.terminate()
    assert own.process.wait(60) == 0
    (own.root / "notebooks" / "go").touch()
    assert own.ended(run).is_success


def test_with_its_owner(own: Hosted) -> None:
    """A host that belongs to another program ends when that does, with its runs."""
    own.write("sleeps", SLEEPS)
    own.start("--with-stdin")
    run = own.launch()
    wait_until((own.root / "notebooks" / "began").exists)
    assert own.process is not None
    assert own.process.stdin is not None
    own.process.stdin.close()
    assert own.process.wait(60) == 0
    assert own.ended(run).status.value == "CANCELED"


def _no_host(own: Hosted) -> bool:
    try:
        own.status()
    except NoHostError:
        return True
    return False
