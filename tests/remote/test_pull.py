"""`research-jobs pull`: over a real SSH server, with connections cut at every frame."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from older_side import older_side

from research_jobs import load
from research_jobs.cli.main import main
from research_jobs.errors import ManifestError, StoreError
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.remote import connection as connection_module
from research_jobs.remote.frames import BLOCK, GREETING
from research_jobs.remote.pulling import (
    RemoteUnit,
    Wanted,
    _refuse_full,  # pyright: ignore[reportPrivateUsage]
    pull_unit,
)
from research_jobs.remote.remotes import find_remote, user_file
from research_jobs.remote.samples import sample_lines
from research_jobs.store import load as load_module
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish
from research_jobs.store.stored import stored_versions

COMMAND = str(Path(sys.executable).with_name("research-jobs"))
PRICES = pd.DataFrame(
    {"close": np.random.default_rng(7).random(140_000)},
    index=pd.date_range("2018-01-01", periods=140_000, freq="min", name="date"),
)
SUMMARY = {"n": 140_000, "name": "prices"}


def put(project: Project, notebook: str, values: dict[str, Any], key: str | None = None) -> None:
    """Publish values as a run of a notebook does."""
    partition = None
    if key is not None:
        start, end = (pd.Timestamp(key) + pd.Timedelta(days=n) for n in (0, 1))
        partition = PartitionKey(
            key, {"day": key}, f"{start.isoformat()}+00:00", f"{end.isoformat()}+00:00"
        )
    with open_staging(project.store, "f00dcafe") as staging:
        staged = [
            write_output(
                name,
                value,
                staging.path / f"{name}.pq",
                options={"row_group_size": 50_000},
                metadata={"notebook": notebook},
            )
            for name, value in values.items()
        ]
        publish(
            project.store, notebook, staged, staging=staging, partition=partition, run_id="f00dcafe"
        )


def make_project(root: Path, remotes: dict[str, Any]) -> Project:
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "manifest.yaml").write_text(yaml.safe_dump({"remotes": remotes}))
    return Project(root, str(root / "data"))


@dataclass(frozen=True)
class Lab:
    """A server's project, and the programs that reach it."""

    server: Project
    remote: dict[str, str]
    programs: Path

    def laptop(self, root: Path, **changes: str) -> Project:
        """A project that knows the server."""
        return make_project(root, {"server": self.remote | changes})


@pytest.fixture(scope="module")
def lab(sftp: Any, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A server with two notebooks, one of them with partitions."""
    root = tmp_path_factory.mktemp("server")
    server = make_project(root, {})
    put(server, "market_data", {"prices": PRICES, "summary": SUMMARY})
    for day in ("2018-11-01", "2018-11-02", "2018-11-03"):
        put(server, "models/daily", {"value": day}, day)
    remote = {"ssh": f"{sftp.user}@127.0.0.1", "project": str(root), "command": COMMAND}
    return Lab(server, remote, sftp.programs)


@pytest.fixture(autouse=True)
def reachable(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An ssh that has a key for the server; no settings of this user's; no second try."""
    monkeypatch.setenv("PATH", f"{lab.programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(load_module, "_said", set[tuple[str, str, str]]())
    monkeypatch.setattr(connection_module, "PAUSES", ())


def pull(project: Project, *words: str) -> int:
    return main(["pull", *words, "--from", "server", "--project", str(project.root)])


def test_what_is_pulled_is_loaded_as_it_was(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs and partitions come whole, once; what was here stays in history."""
    here = lab.laptop(tmp_path / "here")
    put(here, "market_data", {"prices": PRICES.head(3), "own": 1})
    assert pull(here, "--all", "--dry-run") == 0
    assert "prices, 140,000 rows, " in capsys.readouterr().out
    assert pull(here, "--all") == 0
    said = capsys.readouterr().out
    assert "models/daily [2018-11-02]: value, 1 rows" in said
    assert "own was not pulled" in said
    pd.testing.assert_frame_equal(load("market_data", "prices", project=here), PRICES)
    assert load("market_data", "summary", project=here) == SUMMARY
    assert load("models/daily", "value", "2018-11-02", project=here) == "2018-11-02"
    assert len(load("market_data", "prices", version=-1, project=here)) == 3
    assert pull(here, "--all") == 0
    again = capsys.readouterr().out.splitlines()
    assert {line.split(": ")[1] for line in again} == {"unchanged"}
    assert len(stored_versions(here.store, "market_data")) == 2
    assert list(sample_lines(here)) == []


def test_a_sample_says_what_it_is(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are chosen there; `load()` says so once, status always; the rest comes beside it."""
    here = lab.laptop(tmp_path / "here")
    assert pull(here, "market_data.prices", "--rows", "50000", "--since", "2018-03-01") == 0
    capsys.readouterr()
    for _ in range(2):
        sample = load("market_data", "prices", project=here)
    pd.testing.assert_frame_equal(sample, PRICES.tail(50_000), check_freq=False)
    rows = "50,000 of 140,000 rows (since 2018-03-01; the last 50,000)"
    line = f"market_data.prices is a sample: {rows}, from server, published 20"
    assert capsys.readouterr().err.count(line) == 1
    assert [each[: len(line)] for each in sample_lines(here)] == [line]
    assert pull(here, "market_data.summary") == 0
    assert len(load("market_data", "prices", project=here)) == 50_000
    assert load("market_data", "summary", project=here) == SUMMARY
    for record in Path(here.store).rglob("version.json"):
        record.write_text("damaged")
    assert list(sample_lines(here)) == []


def test_partitions_are_chosen(lab: Lab, tmp_path: Path) -> None:
    """Partitions come by range or by date, each whole."""
    here = lab.laptop(tmp_path / "here")
    assert pull(here, "models/*", "--partitions", "2018-11-01..2018-11-02") == 0
    assert set(load("models.daily", "value", project=here)) == {"2018-11-01", "2018-11-02"}
    assert pull(here, "models.daily", "--since", "2018-11-03") == 0
    assert len(load("models.daily", "value", project=here)) == 3


# -- connections that are cut ----------------------------------------------------------------


_PIPE = """
import os, subprocess, sys

cut = os.path.join(os.path.dirname(__file__), "cut")
left = 1 << 40 if os.path.exists(cut) else int(os.environ["BYTES"])
if "ONCE" in os.environ:
    open(cut, "w").close()
os.write(1, os.environ["BANNER"].encode())
far = subprocess.Popen(["sh", "-c", sys.argv[-1]], stdout=subprocess.PIPE)
with open(os.path.join(os.path.dirname(__file__), "said"), "wb") as said:
    while left > 0 and (block := os.read(far.stdout.fileno(), min(left, 1 << 16))):
        said.write(block)
        left -= len(block)
        os.write(1, block)
"""


@dataclass(frozen=True)
class Pipe:
    """An ssh without a network, which can end after so many bytes."""

    folder: Path

    def __post_init__(self) -> None:
        program = self.folder / "ssh"
        program.write_text(f"#!{sys.executable} -IS\n{_PIPE}")
        program.chmod(0o755)

    def places(self) -> list[int]:
        """Where each frame of the last exchange began."""
        said = (self.folder / "said").read_bytes()
        found, place = [0], said.index(GREETING) + len(GREETING)
        while place < len(said):
            found.append(place)
            sizes = (int.from_bytes(said[place + n : place + n + 4], "big") for n in (0, 4))
            place += 8 + sum(sizes)
        return [*found, len(said)]


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """It goes before every other ssh."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("BYTES", str(1 << 40))
    monkeypatch.setenv("BANNER", "")
    return Pipe(folder)


def test_a_cut_connection_changes_nothing_and_goes_on(
    lab: Lab,
    pipe: Pipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cut at each frame and within some: nothing is published, and the next pull sends the rest."""
    assert pull(lab.laptop(tmp_path / "whole"), "market_data") == 0
    places = pipe.places()
    assert len(places) >= 9  # greeting, hello, list, and of each file: size, blocks, digest
    here = lab.laptop(tmp_path / "here")
    put(here, "market_data", {"prices": "before"})
    cuts = (5, *places[1:-1], places[2] + 9, places[-2] - 9)
    for count in cuts:
        for part in (here.state / "pulls").glob("*"):
            part.unlink()
        monkeypatch.setenv("BYTES", str(count))
        capsys.readouterr()
        assert pull(here, "market_data") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "server" in error
        assert load("market_data", "prices", project=here) == "before"
    monkeypatch.setenv("BYTES", str(1 << 40))
    assert pull(here, "market_data") == 0
    assert (pipe.folder / "said").stat().st_size < BLOCK
    pd.testing.assert_frame_equal(load("market_data", "prices", project=here), PRICES)
    assert not list((here.state / "pulls").iterdir())


def test_a_cut_connection_is_tried_again(
    lab: Lab,
    pipe: Pipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same command goes on, with a line that says so; what had come is not sent again."""
    monkeypatch.setattr(connection_module, "PAUSES", (0.0,))
    monkeypatch.setenv("BYTES", str(BLOCK + 50_000))
    monkeypatch.setenv("ONCE", "1")
    here = lab.laptop(tmp_path / "here")
    assert pull(here, "market_data.prices") == 0
    assert "is cut (ssh ended with 0). Tries again (1 of 1)." in capsys.readouterr().err
    size = stored_versions(here.store, "market_data")[0].outputs["prices"]["bytes"]
    assert (pipe.folder / "said").stat().st_size < size - BLOCK + 10_000
    pd.testing.assert_frame_equal(load("market_data", "prices", project=here), PRICES)


def test_what_a_shell_prints_first_is_skipped(
    lab: Lab, pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A banner is no part of the exchange, whatever is in it."""
    monkeypatch.setenv("BANNER", "Welcome\x1b[2J\nresearch_jobs remote-serve\n\nresearch_jo")
    assert pull(lab.laptop(tmp_path / "here"), "market_data.summary") == 0


def test_what_came_damaged_is_not_published(
    lab: Lab,
    pipe: Pipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The digest of the whole file decides; the next pull begins anew."""
    here = lab.laptop(tmp_path / "here")
    assert pull(lab.laptop(tmp_path / "other"), "market_data.prices") == 0
    monkeypatch.setenv("BYTES", str(pipe.places()[-2]))
    assert pull(here, "market_data.prices") == 2
    (part,) = (here.state / "pulls").iterdir()
    part.write_bytes(b"x" + part.read_bytes()[1:])
    monkeypatch.setenv("BYTES", str(1 << 40))
    assert pull(here, "market_data.prices") == 2
    assert "is not what server has; it was not published" in capsys.readouterr().err
    assert pull(here, "market_data.prices") == 0


# -- what can be wrong -----------------------------------------------------------------------

WRONG = {
    "unreachable": (
        {"ssh": "ssh://127.0.0.1:1"},
        ["--all"],
        "connect to host 127.0.0.1 port 1: Connection refused. Does `ssh ssh://127.0.0.1:1` work?",
    ),
    "no research-jobs": (
        {"command": "/nowhere/research-jobs"},
        ["--all"],
        "/nowhere/research-jobs: .*. Name it under remotes.server.command",
    ),
    "older": (
        {"command": "echo \"research-jobs: no command 'remote-serve'.\" >&2; exit 2;:"},
        ["--all"],
        "is older than remotes; here is .*. Upgrade it there.",
    ),
    "no project": ({"project": "/nowhere"}, ["--all"], "server: /nowhere has no folder notebooks/"),
    "no output": ({}, ["market_data.price"], "'market_data' has published no output 'price'. Did"),
    "no column": (
        {},
        ["market_data.prices", "--columns", "clos"],
        "server: market_data.prices has no column 'clos'. Did you mean 'close'?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Each says what, where and what to do, with ssh's own last words."""
    import re

    changes, words, message = WRONG[case]
    assert pull(lab.laptop(tmp_path / "here", **changes), *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error or re.search(message, error)


OWN = {
    "remotes: {server: {shh: x}}": "remote server: 'ssh' is missing",
    "remote: {server: {ssh: x, project: /y}}": "section 'remote'. Did you mean 'remotes'",
}


@pytest.mark.parametrize("text", OWN)
def test_a_mistake_in_ones_own_remotes_is_said(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest's remote of that name is not taken instead."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    user_file().parent.mkdir()
    user_file().write_text(text)
    project = make_project(tmp_path / "here", {"server": {"ssh": "host", "project": "/srv"}})
    with pytest.raises(ManifestError) as refused:
        find_remote(project, "server")
    assert OWN[text] in str(refused.value)
    user_file().unlink()
    assert find_remote(project, "server").ssh == "host"


def test_an_unknown_host_key_says_how_to_learn_it(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that ssh does not know is not trusted by us either."""
    strict = (lab.programs / "ssh").read_text().replace('"$@"', '-o StrictHostKeyChecking=yes "$@"')
    strict = strict.replace(" -F", " -o StrictHostKeyChecking=yes -F")
    (tmp_path / "ssh").write_text(strict)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert pull(lab.laptop(tmp_path / "here"), "--all") == 2
    assert "Host key verification failed. Run `ssh " in capsys.readouterr().err


def test_an_older_side_is_told_apart(
    lab: Lab, tmp_path: Path, pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A side that cannot cut samples is named with its version before anything is asked of it."""
    older = older_side(tmp_path, "0.1.9", ["list", "read"], "frames.receive()")
    here = lab.laptop(tmp_path / "here", command=older)
    assert pull(here, "--all", "--rows", "3") == 2
    assert "research_jobs 0.1.9 on server cannot do 'sample'" in capsys.readouterr().err


def test_a_full_disk_publishes_nothing(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said before anything is sent if it can be known, and else where it happens."""
    here = lab.laptop(tmp_path / "here")
    with pytest.raises(StoreError, match="do not fit on the disk of"):
        _refuse_full(here, 1 << 60)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK, before[1]))
    try:
        assert pull(here, "market_data.prices") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "what is pulled cannot be written to" in capsys.readouterr().err
    assert stored_versions(here.store, "market_data") == ()
    assert pull(here, "market_data.prices") == 0


def test_a_command_runs_there(lab: Lab, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--on` prints what the same command prints there, with its exit code."""
    here = lab.laptop(tmp_path / "here")
    words = ["--on", "server", "--project", str(here.root)]
    assert main(["list", "--json", *words]) == 0
    assert capfd.readouterr().out == "[]\n"
    page = tmp_path / "page.html"
    page.write_text("an earlier one")
    assert main(["report", "nothing", "--standalone", str(page), *words]) == 2
    assert page.read_text() == "an earlier one"
    assert "nothing" in (error := capfd.readouterr().err)
    assert error.endswith(f"That is what research-jobs says on server ({lab.remote['ssh']}).\n")
    assert main(["diff", "nothing", "--html", str(page), *words]) == 2
    with pytest.raises(SystemExit):
        main(["prune", *words])
    assert "--on goes with status, list" in capfd.readouterr().err
    assert main(["show", "x", "--on", "serve", "--project", str(here.root)]) == 2
    assert "no remote is called 'serve'. Did you mean 'server'?" in capfd.readouterr().err


def test_a_part_that_was_published_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another pull may move it to the store between our opening and our lock."""
    here = make_project(tmp_path, {})
    wanted = Wanted("prices", "scalar", 1, 1, None)
    unit = RemoteUnit("market_data", (), "000001-a", "a", "2018-11-01", "", None, (wanted,))
    place: Any = SimpleNamespace(place="host:/folder", ask=pytest.fail)

    def moved(*_: object) -> None:
        for part in (here.state / "pulls").glob("*.part"):
            part.rename(tmp_path / "published")

    monkeypatch.setattr(fcntl, "flock", moved)
    with pytest.raises(StoreError, match=r"another pull fetches market_data\.prices"):
        pull_unit(here, place, unit, keep={})


def test_a_tunnel_leads_to_the_server(lab: Lab, tmp_path: Path) -> None:
    """`ui --on` leads a port here to the loopback of the server, until it is interrupted."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        port = there.getsockname()[1]
        here = make_project(tmp_path / "here", {"server": {**lab.remote, "ui_port": port}})
        words = [COMMAND, "ui", "--on", "server", "--project", str(here.root)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            there.accept()[0].close()  # it looks whether the tunnel listens
            with there.accept()[0] as looks:  # and whether something answers
                looks.sendall(b"HTTP")
            local = int(program.stdout.readline().split(":")[-1])
            with socket.create_connection(("127.0.0.1", local)):
                there.accept()[0].close()
            program.send_signal(signal.SIGINT)
            assert program.wait() == 0
