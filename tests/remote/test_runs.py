"""`run --on`, `attach`: the working tree runs on a server, whatever becomes of the connection."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from cut_ssh import CutSsh
from older_side import older_side

from research_jobs import load
from research_jobs.cli.main import main
from research_jobs.cli.output import for_terminal
from research_jobs.errors import OutputNotFoundError, RemoteError
from research_jobs.project import Project
from research_jobs.remote import connection as connection_module
from research_jobs.remote import detached
from research_jobs.remote.frames import GREETING, Frames
from research_jobs.remote.runs import RemoteRun
from research_jobs.remote.serving import serve
from research_jobs.remote.worktree import (
    TREE,
    TreeFile,
    commit_of,
    lay_out,
    link_the_rest,
    put_file,
    read_tree,
)
from research_jobs.store.stored import stored_versions

COMMAND = str(Path(sys.executable).with_name("research-jobs"))
NOTEBOOK = """# %% tags=["parameters"]
n = 1
# %%
import os
from pathlib import Path
print("begins", os.environ["ONLY_THERE"], flush=True)
# %%
import time
gate = Path(os.environ["ONLY_THERE"])
while not gate.exists():
    time.sleep(0.05)
print("went on")
# %%
value = n
"""
DAILY = '# %% tags=["parameters"]\nday = ""\n# %%\nvalue = day\n'
MANIFEST: dict[str, Any] = {
    "notebooks": {
        "slow": {"outputs": ["value"]},
        "daily": {
            "outputs": ["value"],
            "partitions": {
                "by": "day", "start": "2018-01-01", "end": "2018-01-05", "parameter": "day",
            },
        },
    }
}  # fmt: skip


def git(folder: Path, *words: str) -> None:
    settings = ("-c", "user.name=n", "-c", "user.email=n@example.com")
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


class Lab:
    """A server's project and a clone of it, with edits that nobody has committed."""

    def __init__(self, root: Path) -> None:
        self.server = Project(root / "server", str(root / "server" / "data"))
        self.here = Project(root / "here", str(root / "here" / "data"))
        self.gate = root / "gate"
        self.server.notebooks.mkdir(parents=True)
        (self.server.notebooks / "slow.py").write_text(NOTEBOOK)
        (self.server.notebooks / "daily.py").write_text(DAILY)
        remote = {"ssh": "localhost", "project": str(self.server.root), "command": COMMAND}
        manifest = {**MANIFEST, "remotes": {"server": remote}}
        self.server.manifest.write_text(yaml.safe_dump(manifest))
        (self.server.root / ".gitignore").write_text(
            ".env\n/data/\n/reports/\n/.research_jobs/\n/big/\n__pycache__/\n"
        )
        git(self.server.root, "init", "-q", "-b", "main")
        git(self.server.root, "add", "-A")
        git(self.server.root, "commit", "-q", "-m", "first")
        (self.server.root / ".env").write_text(f"ONLY_THERE={self.gate}\n")
        (self.server.root / "big").mkdir()
        (self.server.root / "big" / "file").write_text("there")
        git(root, "clone", "-q", str(self.server.root), str(self.here.root))

    def on(self, command: str, *words: str) -> int:
        return main([command, *words, "--on", "server", "--project", str(self.here.root)])

    def reach(self, ssh: str) -> None:
        """Have the remote be a host that ssh reaches."""
        manifest = yaml.safe_load(self.here.manifest.read_text())
        manifest["remotes"]["server"]["ssh"] = ssh
        self.here.manifest.write_text(yaml.safe_dump(manifest))

    def runs(self) -> list[detached.Detached]:
        return detached.kept(self.server)

    def counts(self) -> dict[str, str]:
        """What a run there may not touch: store, reports and history, with every byte."""
        places = ("data", "reports", ".research_jobs/dagster")
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for place in places
            for path in (self.server.root / place).rglob("*")
            if path.is_file()
        }


def until(true: Callable[[], Any]) -> Any:
    while not (found := true()):
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("remote"))
    lab.gate.touch()
    return lab


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CutSsh:
    """An ssh that ends where a test says, and no waiting for the next one."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(connection_module, "PAUSES", (0.0,) * 5)
    return CutSsh(tmp_path / "bin")


@pytest.fixture
def lab(made: Lab, ssh: CutSsh) -> Lab:
    """The module's lab, as it was committed."""
    git(made.here.root, "checkout", "-q", "--", ".")
    made.gate.touch()
    return made


# -- run --on --------------------------------------------------------------------------------

ENDS = {
    "greeting": "greeting",
    "which files there are": '"missing"',
    "files on their way": '"damaged"',
}


@pytest.mark.parametrize("place", ENDS)
def test_what_is_cut_before_the_start_begins_nothing(
    place: str,
    lab: Lab,
    ssh: CutSsh,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message says so, nothing runs there, and files that came are there for the next time."""
    (lab.here.notebooks / "helper.py").write_text(f"x = {place!r}\n")
    monkeypatch.setattr(connection_module, "PAUSES", ())
    runs, before = len(lab.runs()), lab.counts()
    ssh.cut(ENDS[place])
    assert lab.on("run", "slow") == 2
    error = capsys.readouterr().err
    assert "server (localhost)" in error
    assert "attach" not in error
    assert (len(lab.runs()), lab.counts()) == (runs, before)
    (lab.here.notebooks / "helper.py").unlink()


def test_the_same_command_goes_on_after_each_cut(
    lab: Lab, ssh: CutSsh, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at every step: one run, whose log comes once, its comparison and its report too."""
    slow = lab.here.notebooks / "slow.py"
    slow.write_text(slow.read_text().replace("value = n", "import helper\nvalue = n + helper.x"))
    (lab.here.notebooks / "helper.py").write_text("x = 40\n")  # Git does not know it
    before, runs = lab.counts(), len(lab.runs())
    ssh.cut('"missing"', '"damaged"', '"words"', '"more": true', '"more": false', '"size"')
    assert lab.on("try", "slow", "-p", "n=2") == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"begins {lab.gate}",
        "went on",
        "slow: succeeded; nothing of it is published yet",
    ]
    assert said.err.count("is cut") == 6
    assert "Tries again (5 of 5)" not in said.err  # what comes in between renews them
    run = lab.runs()[0]
    assert (len(lab.runs()), run.code) == (runs + 1, 1)
    assert lab.counts() == before
    page = lab.here.state / "remote" / run.run / "slow.html"
    assert "went on" in page.read_text()
    assert (run.folder / TREE / "big" / "file").read_text() == "there"
    # What is seen is not printed again, and the result can be asked for.
    assert lab.on("attach", run.run[:5]) == 1
    again = capsys.readouterr()
    assert (again.out, "ended with exit code 1. --all shows" in again.err) == ("", True)
    assert lab.on("attach", "--all") == 1
    assert capsys.readouterr().out == said.out
    (lab.here.notebooks / "helper.py").unlink()


def test_a_run_outlives_its_client(
    lab: Lab, sftp: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real sshd: the client is killed, another one attaches, detaches, and ends it."""
    monkeypatch.setenv("PATH", f"{sftp.programs}:{os.environ['PATH']}")
    lab.reach(f"{sftp.user}@127.0.0.1")
    lab.gate.unlink()
    words = ["slow", "--on", "server", "--project", str(lab.here.root)]
    with subprocess.Popen([COMMAND, "run", *words], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"begins {lab.gate}\n"
        first.kill()
    run = lab.runs()[0]
    assert run.code is None
    attach = [COMMAND, "attach", "--all", *words[1:]]
    with subprocess.Popen(
        attach, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as second:
        assert second.stdout is not None
        assert second.stderr is not None
        assert second.stdout.readline() == f"begins {lab.gate}\n"
        second.send_signal(signal.SIGINT)
        assert second.wait() == 130
        assert f"attach {run.run} --on server --end" in second.stderr.read()
    assert run.code is None
    assert lab.on("attach", "--end") == 0
    assert run.code == 130
    assert lab.on("attach", run.run, "--end") == 0
    assert f"Run {run.run} has ended: exit code 130." in capsys.readouterr().err
    assert "went on" not in (run.folder / "log").read_text()


def test_a_kernel_of_the_server_is_reached_here(
    lab: Lab, sftp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`debug --kernel --on` leads a port of this machine to it, and ends it with the command."""
    monkeypatch.setenv("PATH", f"{sftp.programs}:{os.environ['PATH']}")
    lab.reach(f"{sftp.user}@127.0.0.1")
    words = ["slow", "--kernel", "--on", "server", "--project", str(lab.here.root)]
    with subprocess.Popen([COMMAND, "debug", *words], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        said = [program.stdout.readline()]
        while said[-1] and "token=" not in said[-1]:
            said.append(program.stdout.readline())
        assert "token=" in said[-1], said
        base, _, token = said[-1].split()[-1].partition("?")
        with urlopen(f"{base}api/sessions?{token}") as answer:
            assert [one["name"] for one in json.load(answer)] == ["slow"]
        # The server is this machine, so the port there is taken here.
        theirs = next(lab.server.state.glob("trials/*/.research_jobs/kept/server.json"))
        assert f":{json.loads(theirs.read_bytes())['port']}/" not in base
        program.send_signal(signal.SIGINT)
        assert program.wait() == 0
    until(lambda: not list((lab.server.state / "trials").iterdir()))


def test_with_publish_it_is_a_run_of_the_server(
    lab: Lab, ssh: CutSsh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the commit that the server has is published; its report comes here as one file."""
    slow = lab.here.notebooks / "slow.py"
    slow.write_text(slow.read_text() + "# an edit\n")
    assert lab.on("run", "slow", "--publish") == 2
    assert "notebooks/slow.py is not committed. Commit and push" in capsys.readouterr().err
    git(lab.here.root, "commit", "-q", "-a", "-m", "second")
    assert lab.on("run", "slow", "--publish") == 2
    error = capsys.readouterr().err
    assert "Push it: git push." in error
    assert f"deploy --pull --project {lab.server.root}" in error
    git(lab.here.root, "reset", "-q", "--hard", "HEAD^")
    assert lab.on("run", "slow", "--publish", "--json") == 0
    assert '"notebook": "slow"' in capsys.readouterr().out
    assert load("slow", "value", project=lab.server) == 1
    assert len(stored_versions(lab.server.store, "slow")) == 1
    run_it = 'for last; do :; done; echo "a login shell says hello"; exec sh -c "$last"'
    (ssh.folder / "ssh").write_text(f"#!/bin/sh\n{run_it}\n")
    page = tmp_path / "page.html"
    assert lab.on("report", "slow", "--standalone", str(page)) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert lab.on("report", "--standalone", str(page)) == 2
    assert "name the notebook" in capsys.readouterr().err


def test_a_terminal_gets_colours_only() -> None:
    """Titles, cursors and bells of what a notebook prints do not reach a terminal."""
    said = "\x1b]0;t\x07\x1b[2J\x9b1A\x1b[1;31mred\x1b[0m\ttab\r\n50 %\x08\x00 é"
    assert for_terminal(said) == "]0;t[2J1A\x1b[1;31mred\x1b[0m\ttab\r\n50 % é"


def test_a_full_disk_there_has_a_folder(project: Project) -> None:
    """What the system says of a write names no file, so the answer names the project.

    The answering process has the variables of the project's .env, as each command there.
    """
    (project.root / ".env").write_text("ONLY_THERE=x\n")
    asked, said = BytesIO(), BytesIO()
    ask = Frames(asked, asked)
    ask.send({"ask": "hello", "project": str(project.root)})
    ask.send({"ask": "tree", "run": "0000000a", "files": [asdict(TreeFile("a" * 99, "0"))]})
    asked.seek(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        serve(asked, said, "0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said.seek(len(GREETING))
    answers = Frames(said, said)
    answers.receive()
    assert answers.receive()[0]["error"]["what"] == f"{project.root}: File too large"
    assert os.environ["ONLY_THERE"] == "x"


def test_a_backfill_runs_there(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command there, whose output and exit code come here."""
    assert lab.on("backfill", "daily", "--from", "2018-01-02", "--to", "2018-01-03") == 0
    assert "2 succeeded" in capsys.readouterr().out
    assert set(load("daily", "value", project=lab.server)) == {"2018-01-02", "2018-01-03"}


def test_an_older_server_is_told_before_anything_is_sent(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What it lacks is named with both versions."""
    then = f"open({str(tmp_path / 'more')!r}, 'wb').write(sys.stdin.buffer.read())"
    older = older_side(tmp_path, "0.4.0", ["list", "read", "sample"], then)
    manifest = yaml.safe_load(lab.here.manifest.read_text())
    manifest["remotes"]["server"]["command"] = f"{older}; true"
    lab.here.manifest.write_text(yaml.safe_dump(manifest))
    assert lab.on("run", "slow") == 2
    assert "research_jobs 0.4.0 on server cannot do 'tree'" in capsys.readouterr().err
    assert until((tmp_path / "more").exists)
    assert (tmp_path / "more").read_bytes() == b""


@pytest.mark.parametrize("words", [[], ["slow", "--stale"], ["slow", "--select", "*"]])
def test_what_only_an_ordinary_run_takes(
    words: list[str], lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run --on` without --publish takes names, and says so before it connects."""
    assert lab.on("run", *words) == 2
    assert "is an ordinary run there" in capsys.readouterr().err
    assert main(["run", "slow", "--publish", "--project", str(lab.here.root)]) == 2
    assert lab.on("try", "slow", "--publish") == 2
    assert "does not take --publish" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "try"])
def test_a_misspelt_notebook_is_not_sent(
    command: str, lab: Lab, ssh: CutSsh, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name is compared with the notebooks here, before anything is connected."""
    (ssh.folder / "ssh").unlink()
    runs = len(lab.runs())
    assert lab.on(command, "slwo") == 2
    assert "no notebook 'slwo'. Did you mean 'slow'?" in capsys.readouterr().err
    assert len(lab.runs()) == runs


# -- trees -----------------------------------------------------------------------------------


def test_the_working_tree_is_what_git_does_not_ignore(tmp_path: Path) -> None:
    """Edited and untracked files count; removed and ignored ones, and the machine's own, do not."""
    project = Project(tmp_path, str(tmp_path / "outputs"))
    for name in ("notebooks/a.py", "gone.py", "inner/b.py", ".env", "x.log", "outputs/a/v.pq"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("inner")
    (tmp_path / "out").symlink_to("/tmp")
    (tmp_path / ".gitignore").write_text("*.log\n")
    without_git = {file.path for file in read_tree(project)}
    assert without_git == {"notebooks/a.py", "gone.py", "inner/b.py", "x.log", "run.sh", "link"}
    git(tmp_path / "inner", "init", "-q")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "gone.py", "link")
    (tmp_path / "submodule").mkdir()  # known to Git, and not checked out
    git(tmp_path, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},submodule")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "untracked.py").write_text("")
    files = {file.path: file for file in read_tree(project)}
    assert set(files) == {
        ".gitignore", "notebooks/a.py", "inner/b.py", "run.sh", "link", "untracked.py",
    }  # fmt: skip
    assert files["run.sh"].runs
    assert files["link"].link == "inner"


def test_what_a_machine_has_of_its_own_is_no_edit(tmp_path: Path) -> None:
    """An environment and caches that Git does not ignore neither stop --publish nor are sent."""
    project = Project(tmp_path / "below", str(tmp_path / "below" / "data"))
    own = (".venv/lib/x.py", ".env", "data/a/v.parquet", "notebooks/__pycache__/h.pyc")
    for name in ("notebooks/a.py", *own):
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text(name)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "below/notebooks/a.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    assert commit_of(project)[1] == []
    assert [file.path for file in read_tree(project)] == ["notebooks/a.py"]
    (project.notebooks / "b.py").write_text("")
    assert commit_of(project)[1] == ["below/notebooks/b.py"]


def test_only_what_changed_is_missing(tmp_path: Path) -> None:
    """A file that the project or an earlier tree has is copied; its own copy is then the tree's."""
    server = Project(tmp_path / "server", str(tmp_path / "server" / "data"))
    here = Project(tmp_path / "here", str(tmp_path / "here" / "data"))
    for project in (server, here):
        project.notebooks.mkdir(parents=True)
        (project.notebooks / "same.py").write_text("same")
        (project.notebooks / "edited.py").write_text("before")
    (here.notebooks / "edited.py").write_text("after!")
    (server.root / "extra").mkdir()
    (server.notebooks / "removed_here.py").write_text("")
    earlier, later = tmp_path / "runs" / "1", tmp_path / "runs" / "2"
    files = read_tree(here)
    assert lay_out(server, earlier, files, []) == ["notebooks/edited.py"]
    (earlier / TREE / "notebooks" / "edited.py").write_text("after!")
    assert lay_out(server, later, files, [earlier]) == []
    (server.notebooks / "same.py").write_text("edited in place")
    link_the_rest(server, later, "abc")
    assert (later / TREE / "notebooks" / "same.py").read_text() == "same"
    assert sorted(path.name for path in (later / TREE / "notebooks").iterdir()) == [
        "edited.py", "same.py",
    ]  # fmt: skip
    assert (later / TREE / "extra").resolve() == server.root / "extra"


@pytest.mark.parametrize(
    "path", ["/etc/x", "//etc/x", "../x", "a/../../x", "", ".git/config", "data/x"]
)
def test_a_tree_stays_in_its_folder(path: str) -> None:
    """Names that lead out of it, or to what is the server's own, are refused."""
    with pytest.raises(RemoteError, match="no file of a working tree"):
        TreeFile(path, "")


@pytest.mark.parametrize("link", ["", "b"])
def test_nothing_is_written_behind_a_link(link: str, tmp_path: Path) -> None:
    """A folder that became a link to the project is not written through, nor is one made there."""
    project = Project(tmp_path / "server", str(tmp_path / "data"))
    (project.root / "inner").mkdir(parents=True)
    (project.root / "inner" / "a").write_text("theirs")
    (tmp_path / "run" / TREE).mkdir(parents=True)
    (tmp_path / "run" / TREE / "inner").symlink_to(project.root / "inner")
    digest = hashlib.blake2b(b"theirs", digest_size=32).hexdigest()
    with pytest.raises(RemoteError, match="leads out of the tree"):
        lay_out(project, tmp_path / "run", [TreeFile("inner/a", digest, 6, link=link)], [])
    assert (project.root / "inner" / "a").read_text() == "theirs"


def test_a_file_on_its_way_has_no_name_of_the_tree(tmp_path: Path) -> None:
    """A file that is called as a part of another one would be is not overwritten."""
    tree = tmp_path / TREE
    for name in (".a.part", "a"):
        digest = hashlib.blake2b(name.encode(), digest_size=32).hexdigest()
        assert put_file(tree, TreeFile(name, digest), [name.encode()])
    assert (tree / ".a.part").read_text() == ".a.part"


def test_only_a_report_comes_as_one(project: Project) -> None:
    """A name that is no report's is refused before anything is fetched."""
    run = RemoteRun.of(project, {"run": "0000000d", "words": ["run"]})
    ended = {"code": 0, "pages": ["../seen"]}
    far: Any = SimpleNamespace(
        name="server", require=list, send=list, receive=lambda _: ended, ask=pytest.fail
    )
    with pytest.raises(RemoteError, match="names a report that is not one"):
        run.carry_on(far, pytest.fail, pytest.fail)


# -- processes -------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "notebooks").mkdir()
    return Project(tmp_path, str(tmp_path / "data"))


def test_asking_twice_starts_once(project: Project) -> None:
    """The second start is the first one's; what ended has its code."""
    first = detached.start(project, "0000000a", ["run"], ["run"], tree=False)
    assert detached.start(project, "0000000a", ["run", "x"], ["x"], tree=False).words == ("run",)
    assert until(lambda: first.code) == 2
    assert (first.folder / "log").read_text().count("say which notebooks") == 1
    for process in detached._started:  # pyright: ignore[reportPrivateUsage]
        process.wait()


def test_what_is_interrupted_before_it_starts_ends(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that comes as soon as the process can be found reaches the command."""
    folder = project.make_state_folder(detached.RUNS, "0000000e")
    job = {"words": ["run", "--project", str(project.root)], "tree": False}
    (folder / "job.json").write_text(json.dumps(job | {"shown": [], "started": time.time()}))
    first = detached._first  # pyright: ignore[reportPrivateUsage]

    def found(place: Path) -> bool:
        done = first(place)
        detached.find(project, "0000000e").end()
        return done

    monkeypatch.setattr(detached, "_first", found)
    detached._main(folder)  # pyright: ignore[reportPrivateUsage]
    assert (folder / "exit").read_text() == "130"


@pytest.mark.parametrize("does", ["works", "fails", "hangs"])
def test_a_scope_where_the_user_lingers(
    does: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is put into a scope of the user's manager; where that fails, a session is enough."""
    said = tmp_path / "said"
    program = tmp_path / "systemd-run"  # the real one needs a user's manager
    go_on = {
        "works": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
        "fails": "exit 1",
        "hangs": "exec sleep 600",
    }
    program.write_text(f'#!/bin/sh\necho "$@" > {said}\n{go_on[does]}\n')
    if does == "hangs":
        monkeypatch.setattr(detached, "_STARTS_S", 3.0)
    program.chmod(0o755)
    monkeypatch.setattr(detached, "LINGERING", tmp_path)
    (tmp_path / pwd.getpwuid(os.getuid()).pw_name).touch()
    (tmp_path / "bus").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (project.root / "json.py").write_text("raise SystemExit('not for us')")
    found = detached.start(project, "0000000c", ["run"], ["run"], tree=False)
    assert until(lambda: found.code) == 2
    assert said.read_text().startswith("--user --scope ")
    for process in detached._started:  # pyright: ignore[reportPrivateUsage]
        process.wait()


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_what_was_not_started_is_no_run(
    program: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not come is an error at once, and is not listed as one that runs."""
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises((RemoteError, FileNotFoundError)):
        detached.start(project, "0000000f", ["run"], ["run"], tree=False)
    assert detached.kept(project) == []


def test_what_is_killed_has_ended(project: Project) -> None:
    """Without an exit code it counts as killed, and so does one that never came to life."""
    folder = project.make_state_folder(detached.RUNS, "0000000b")
    (folder / "job.json").write_text('{"shown": [], "started": 0, "tree": false}')
    found = detached.find(project, "0000000b")
    assert found.code == 137
    (folder / "running").write_text(f"{os.getpid()} another start")
    assert found.code == 137
    with pytest.raises(RemoteError, match="not the id of a run"):
        detached.folder_of(project, "../data")


def test_of_several_none_is_ended_by_default(project: Project) -> None:
    """Another laptop's run is not interrupted by who names none; attaching takes the newest."""
    job = {"shown": [], "started": time.time(), "tree": False}
    for name in ("0000000c", "0000000d", "0000000e"):
        folder = project.make_state_folder(detached.RUNS, name)
        (folder / "job.json").write_text(json.dumps(job | {"started": job["started"] + 1}))
    (folder / "exit").write_text("0")
    with pytest.raises(OutputNotFoundError, match="several runs go on") as refused:
        detached.find(project, None, to_end=True)
    assert "0000000e" not in str(refused.value.hint)
    assert detached.find(project, None).code is None
    (project.state / detached.RUNS / "0000000c" / "exit").write_text("0")
    assert detached.find(project, None, to_end=True).run == "0000000d"


def test_what_is_kept_is_bounded(project: Project) -> None:
    """The newest stay for a week; what was begun and never sent goes too; what runs stays."""
    now = time.time()
    for number in range(detached.MOST + 3):
        folder = project.make_state_folder(detached.RUNS, f"{number:08x}")
        (folder / "job.json").write_text(f'{{"shown": [], "started": {number}, "tree": true}}')
    half = project.make_state_folder(detached.RUNS, "000000ff")
    from research_jobs.runtime import processes

    running = project.state / detached.RUNS / "00000000" / "running"
    running.write_text(f"{os.getpid()} {processes.start_of(os.getpid())}")
    for name in ("00000000", f"{detached.MOST:08x}", f"{detached.MOST - 6:08x}"):
        (project.state / detached.RUNS / name / TREE).mkdir()
    assert {path.name for path in detached.removable(project, now)} == {"00000001", "00000002"}
    later = {path.name for path in detached.removable(project, now + 8 * 86_400)}
    assert half.name in later
    assert "00000000" not in later
    detached.tidy(project)
    left = {path.parent.name for path in (project.state / detached.RUNS).glob(f"*/{TREE}")}
    assert left == {"00000000", f"{detached.MOST:08x}"}
