"""Environments made by uv, and by venv and pip, from wheels in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from wheels import offline, write_wheel

from research_jobs.environments.declared import Environment
from research_jobs.environments.installer import Installer
from research_jobs.environments.interpreters import find_base
from research_jobs.environments.making import (
    MARK,
    RESOLVED,
    UNUSED_S,
    existing_python,
    known_versions,
    prepare,
    prune_environments,
    resolve,
)
from research_jobs.environments.versions import Lock
from research_jobs.errors import InstallError, SourceLocation
from research_jobs.project import Project
from research_jobs.supervisor.run import CancelToken


@dataclass
class Bench:
    """A project, what its notebooks ask for, and what was said."""

    project: Project
    said: list[str] = field(default_factory=list[str])

    def asks(self, *dependencies: str, lock: Lock | None = None) -> Environment:
        where = SourceLocation("notebooks/a.py", 1, 1)
        return Environment("a", dependencies, None, (), None, where, self.project, lock)

    @property
    def installer(self) -> Installer:
        return Installer(self.project.root, self.said.append)

    def folders(self) -> list[Path]:
        top = self.project.environments
        return [path for path in top.glob("*") if path.name != RESOLVED]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two versions of one package, and one that needs it."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        write_wheel(folder, "tinylib", version)
    write_wheel(folder, "needy", "1.0", requires=["tinylib<2"])
    return folder


@pytest.fixture
def bench(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An empty project, without an index, and without uv."""
    for name, value in offline(wheels, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "notebooks").mkdir()
    return Bench(Project(tmp_path, str(tmp_path / "data")))


@pytest.fixture(params=["uv", "pip"])
def tool(
    request: pytest.FixtureRequest, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Which one makes environments; uv is put on the PATH."""
    del bench
    if request.param == "uv":
        put_uv(tmp_path, monkeypatch)
    return request.param


def put_uv(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = Path(sys.executable).with_name("uv")
    assert uv.exists(), "make install-dev installs it"
    (folder / "bin").mkdir()
    (folder / "bin" / "uv").symlink_to(uv)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


@pytest.fixture
def with_uv(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The same with uv alone, which is faster."""
    put_uv(tmp_path, monkeypatch)
    return bench


def modules(python: str) -> set[str]:
    (site,) = Path(python).parents[1].glob("lib/python*/site-packages")
    return {path.name for path in site.iterdir() if not path.name.startswith(("_", "."))}


def test_made_and_kept(bench: Bench, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no lock is resolved once and says so; then neither index nor tool is needed."""
    asked = bench.asks("needy")
    assert existing_python(asked) is None
    assert known_versions(asked) is None
    python = prepare(asked, bench.installer)
    assert modules(python) == {
        *("needy.py", "needy-1.0.dist-info", "tinylib.py", "tinylib-1.0.dist-info")
    }, tool
    assert bench.said[0].startswith("a has no lock, so its dependencies are resolved now")
    assert existing_python(asked) == python
    assert known_versions(asked) == {"needy": "1.0", "tinylib": "1.0"}
    monkeypatch.setenv("PATH", "")
    bench.said.clear()
    assert prepare(asked, bench.installer) == python
    locked = bench.asks("needy", lock=Lock(("needy==1.0", "tinylib==1.0"), ("needy",)))
    assert prepare(locked, bench.installer) == python, "the same packages, by a lock"
    assert bench.said == []


def test_in_the_tools_words(bench: Bench, tool: str) -> None:
    """What cannot be installed fails in the tool's words, and nothing half-made stays."""
    with pytest.raises(InstallError) as error:
        prepare(bench.asks("nosuchlib"), bench.installer)
    headline = error.value.headline
    assert headline.startswith("the dependencies of a cannot be resolved: "), tool
    assert "nosuchlib" in headline
    assert "nosuchlib" in (error.value.details or "")
    with pytest.raises(InstallError) as error:
        prepare(bench.asks(lock=Lock(("tinylib==3.0",))), bench.installer)
    assert error.value.headline.startswith("the environment of a cannot be made: ")
    assert "tinylib==3.0" in error.value.headline
    # A lock of another platform may lack what this one needs.
    with pytest.raises(InstallError) as error:
        prepare(bench.asks(lock=Lock(("needy==1.0",))), bench.installer)
    assert "tinylib" in (error.value.details or ""), error.value.details
    assert [list(folder.iterdir()) for folder in bench.folders()] == [[], []]


def test_made_once(with_uv: Bench) -> None:
    """Runs that need the same environment at once make it once; a half-made one is made anew."""
    bench = with_uv
    asked = bench.asks("tinylib", lock=Lock(("tinylib==2.0",), ("tinylib",)))
    python = prepare(asked, bench.installer)
    folder = Path(python).parents[1]
    (folder / MARK).unlink()  # as a killed process leaves it
    (folder / "bin" / "python").unlink()
    bench.said.clear()
    threads = [threading.Thread(target=prepare, args=(asked, bench.installer)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("making the environment") for line in bench.said) == 1
    assert Path(python).exists()
    assert existing_python(asked) == python


KILLED = """
import sys
from pathlib import Path
from research_jobs.environments.declared import Environment
from research_jobs.environments.installer import Installer
from research_jobs.environments.making import prepare
from research_jobs.environments.versions import Lock
from research_jobs.errors import SourceLocation
from research_jobs.project import Project

project = Project(Path(sys.argv[1]), "data")
lock = Lock(("tinylib==2.0",))
asked = Environment("a", (), None, (), None, SourceLocation("a.py"), project, lock)
prepare(asked, Installer(project.root, lambda line: print(line, flush=True)))
"""


def test_killed(with_uv: Bench, tmp_path: Path) -> None:
    """While the installer of a killed run goes on, the next run waits; then it starts over."""
    bench, uv, ended = with_uv, tmp_path / "bin" / "uv", tmp_path / "ended"
    real = uv.readlink()
    uv.unlink()
    uv.write_text(f"#!/bin/sh\necho begun\nexec >&-\nsleep 1\ntouch {ended}\n")
    uv.chmod(0o755)
    words = [sys.executable, "-c", KILLED, str(bench.project.root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "begun\n" for line in process.stdout)
        process.kill()
    uv.unlink()
    uv.symlink_to(real)
    python = prepare(bench.asks(lock=Lock(("tinylib==2.0",))), bench.installer)
    assert ended.exists()
    assert "tinylib.py" in modules(python)


def test_cancelled(with_uv: Bench, tmp_path: Path) -> None:
    """Cancelling ends the installer and all that it started, and leaves nothing."""
    bench, token = with_uv, CancelToken()
    slow = tmp_path / "bin" / "uv"
    slow.unlink()
    slow.write_text("#!/bin/sh\necho begun\nsleep 300 &\nwait\n")
    slow.chmod(0o755)

    def say(line: str) -> None:
        if line == "begun":
            token.cancel()

    installer = Installer(bench.project.root, say, cancel=token)
    with pytest.raises(InstallError):
        prepare(bench.asks(lock=Lock(("tinylib==2.0",))), installer)
    assert [list(folder.iterdir()) for folder in bench.folders()] == [[]]


def test_secrets_are_masked(with_uv: Bench, tmp_path: Path) -> None:
    """What an installer says is masked, in the log and in the error."""
    loud = tmp_path / "bin" / "uv"
    loud.unlink()
    loud.write_text("#!/bin/sh\necho error: no answer from hunter2\nexit 1\n")
    loud.chmod(0o755)
    hidden = replace(with_uv.installer, hide=lambda text: text.replace("hunter2", "***"))
    with pytest.raises(InstallError) as error:
        resolve(with_uv.asks("tinylib"), hidden)
    assert "hunter2" not in str(error.value)
    assert error.value.headline.endswith("no answer from ***")
    assert with_uv.said == ["error: no answer from ***"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_is_read_only(
    with_uv: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where uv cannot write its cache, as in a service, it is in the project."""
    (tmp_path / "home").mkdir(mode=0o500)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("UV_CACHE_DIR")
    prepare(with_uv.asks("tinylib"), with_uv.installer)
    assert (tmp_path / ".research_jobs" / "cache" / "uv").is_dir()


def test_what_nothing_uses_goes(with_uv: Bench) -> None:
    """A month after its last use, an environment goes that no notebook asks for; others stay."""
    bench = with_uv
    used = bench.asks("tinylib==2.0")
    unused = bench.asks("tinylib==1.0")
    kept, gone = (prepare(each, bench.installer) for each in (used, unused))
    now = time.time()
    assert prune_environments(bench.project, [used], now) == []
    later = now + UNUSED_S + 60
    found = prune_environments(bench.project, [used], later, dry_run=True)
    assert Path(gone).exists()
    assert prune_environments(bench.project, [used], later) == found
    assert [path.parent.name == RESOLVED for path, _ in found] == [False, True]
    assert found[0][0] == Path(gone).parents[1]
    assert (Path(kept).exists(), Path(gone).exists()) == (True, False)
    assert prepare(unused, bench.installer) == gone, "it is made again"


def fake_python(folder: Path) -> Callable[[str], str]:
    def write(version: str) -> str:
        path = folder / f"python{version.rpartition('.')[0]}"
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_which_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one where it fits, else the newest on the PATH that does, else an error."""
    monkeypatch.setenv("PATH", str(tmp_path))
    write = fake_python(tmp_path)
    ours = ".".join(map(str, sys.version_info[:3]))
    assert find_base(f"=={ours}").path == sys.executable
    named, newest = write("3.10.4"), write("3.14.1")
    assert find_base(f">={ours},!={ours}").path == newest
    assert find_base("<3.11").path == named
    assert find_base(named=named).version == "3.10.4"
    assert find_base(locked="3.10").path == named, "the one that its packages were resolved for"
    assert find_base(locked="3.9").path == sys.executable
    with pytest.raises(InstallError, match=r"no installed Python is >=3\.99. Found on the PATH: "):
        find_base(">=3.99")
    with pytest.raises(InstallError, match=r"is Python 3\.10\.4, and the notebook requires >=3"):
        find_base(">=3.11", named=named)
    with pytest.raises(InstallError, match=r"cannot be started\. Check `python:`"):
        find_base(named=str(tmp_path / "none"))


def test_without_uv_and_pip(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is neither uv nor pip, the error says what to install."""
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pip")
    assert shutil.which("uv") is None, os.environ["PATH"]
    with pytest.raises(InstallError, match="neither uv nor pip is installed"):
        resolve(bench.asks("tinylib"), bench.installer)
