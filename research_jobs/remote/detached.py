"""Commands that another machine starts here, and that go on without it.

Each has a folder of its own below the project's state: its words, its log, how it ended. The
process that runs one is a session of its own, so nothing ends it but itself and `end`.

``python -m research_jobs.remote.detached FOLDER`` is that process: it starts the command and
writes down its exit code.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research_jobs.errors import OutputNotFoundError, RemoteError
from research_jobs.filesystem import make_folder, write_atomically
from research_jobs.process import handling
from research_jobs.project import PROJECT_VARIABLE, STORE_VARIABLE, Project
from research_jobs.remote.frames import BLOCK
from research_jobs.remote.worktree import EARLIER, TREE
from research_jobs.runtime import processes

__all__ = [
    "PAGES",
    "RESULT",
    "RUNS",
    "Detached",
    "find",
    "folder_of",
    "kept",
    "removable",
    "start",
    "tidy",
]

RUNS = "remote"
"""The folder of the state, of both sides: what runs for another one, and what was seen there."""

JOB, RUNNING, LOG, RESULT, EXIT, PAGES = "job.json", "running", "log", "result", "exit", "pages"

LINGERING = Path("/var/lib/systemd/linger")
"""Where systemd notes whose processes outlive their logins."""

KEPT_S = 7 * 86_400.0
"""So long what has ended stays, seconds; and no more of them than `MOST`."""
MOST = 20

_started: list[subprocess.Popen[bytes]] = []  # nobody waits for them, and Popen wants to be kept

_STARTS_S = 30.0  # a process that is not there by then will not come
_POLL_S = 0.2


@dataclass(frozen=True)
class Detached:
    """A command that runs, or ran.

    Parameters
    ----------
    folder : Path
        Its name is the run's id.
    words : tuple of str
        The command, as its log says it.
    started : float
        Unix time, seconds.
    tree : bool
        Whether it runs in a tree that was sent.
    """

    folder: Path
    words: tuple[str, ...]
    started: float
    tree: bool

    @property
    def run(self) -> str:
        """str: the id."""
        return self.folder.name

    @property
    def code(self) -> int | None:
        """Int or None: the exit code; None while it runs. 137 where the process was killed."""
        starts = not self.began and time.time() - self.started < _STARTS_S
        alive = starts or self.pid is not None
        with suppress(OSError, ValueError):  # in this order: it may end in between
            return int((self.folder / EXIT).read_text())
        return None if alive else 128 + signal.SIGKILL

    @property
    def began(self) -> bool:
        """bool: whether its process has been there."""
        return (self.folder / RUNNING).exists()

    @property
    def pid(self) -> int | None:
        """Int or None: the process, as long as there is one."""
        with suppress(OSError, ValueError):
            pid, since = (self.folder / RUNNING).read_text().split()
            if processes.start_of(int(pid)) == since:
                return int(pid)
        return None

    def described(self) -> dict[str, Any]:
        """What the other side is told."""
        pages = sorted(path.name for path in (self.folder / PAGES).glob("*.html"))
        return {
            "run": self.run,
            "words": list(self.words),
            "started": self.started,
            "code": self.code,
            "pages": pages,
        }

    def log(self, offset: int, until: int) -> Iterator[bytes]:
        """What it has said from a byte on, as it comes, until it ends.

        Parameters
        ----------
        offset : int
        until : int
            A descriptor; once it can be read, nobody listens any more.
        """
        ended = False
        with (self.folder / LOG).open("rb") as file:
            file.seek(offset)
            while True:
                while block := file.read(BLOCK):
                    yield block
                if ended or select.select([until], [], [], 0)[0]:
                    return
                ended = self.code is not None
                if not ended:
                    select.select([until], [], [], _POLL_S)

    def end(self) -> None:
        """Interrupt it, as Ctrl-C would."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)


def folder_of(project: Project, run: str) -> Path:
    """The folder of a run, which need not be there.

    Raises
    ------
    RemoteError
        When that is no run's id.
    """
    if not re.fullmatch(r"[0-9a-f]{8}", run):
        raise RemoteError(f"'{run}' is not the id of a run")
    return project.state / RUNS / run


def start(
    project: Project, run: str, words: Sequence[str], shown: Sequence[str], *, tree: bool
) -> Detached:
    """Start a command, unless it was started before.

    Parameters
    ----------
    project : Project
    run : str
        The id, which the other side has chosen: it can ask again when it has heard no answer.
    words : sequence of str
        Of research-jobs.
    shown : sequence of str
        As the person typed them.
    tree : bool
        Whether it runs in the tree of that folder instead of the project.

    Raises
    ------
    RemoteError
        When there is no process.
    """
    folder = project.make_state_folder(RUNS, run)
    before = _read(folder)
    if before is not None and before.began:
        return before
    make_folder(folder / PAGES, private=True)
    (folder / LOG).touch(0o600)
    root = folder / TREE if tree else project.root
    job = {
        "words": [*words, "--project", str(root)],
        "shown": list(shown),
        "started": time.time(),
        "tree": tree,
        "store": project.store,
    }
    write_atomically(folder / JOB, json.dumps(job).encode(), private=True)
    scope, launched = _scope(), False
    try:
        launched = bool(scope and _launch(folder, root, scope)) or _launch(folder, root, [])
    finally:
        if not launched:
            (folder / JOB).unlink()  # nobody is to wait for it
    if not launched:
        said = (folder / LOG).read_text(errors="replace").strip().splitlines()
        raise RemoteError(f"the run was not started: {said[-1] if said else 'nothing says why'}")
    started = _read(folder)
    assert started is not None, "it has just been written"
    return started


def _launch(folder: Path, root: Path, scope: Sequence[str]) -> bool:
    """Whether the process is there."""
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            # -P: the project's modules must not come before those of Python.
            [*scope, sys.executable, "-P", "-m", "research_jobs.remote.detached", str(folder)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _started.append(process)
    end = time.monotonic() + _STARTS_S
    while not (folder / RUNNING).exists() and process.poll() is None:
        if time.monotonic() > end:
            process.kill()
        time.sleep(0.01)
    return (folder / RUNNING).exists()  # it, or one that was first, may have ended already


def _scope() -> list[str]:
    """A scope of the user's own systemd, where that outlives the login; else a session is enough.

    logind can be told to end what a login has left. What it ends with is the login's scope.
    """
    lingers = (LINGERING / pwd.getpwuid(os.getuid()).pw_name).exists()
    bus = Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "bus")
    if lingers and bus.exists() and shutil.which("systemd-run"):
        return ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]
    return []


def _read(folder: Path) -> Detached | None:
    try:
        job = json.loads((folder / JOB).read_bytes())
        return Detached(folder, tuple(job["shown"]), float(job["started"]), bool(job["tree"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept(project: Project) -> list[Detached]:
    """All that are kept, the newest first."""
    found = [_read(folder) for folder in (project.state / RUNS).glob("*")]
    return sorted(filter(None, found), key=lambda one: one.started, reverse=True)


def find(project: Project, run: str | None, *, to_end: bool = False) -> Detached:
    """A run by the beginning of its id; by default the newest one that runs, or else the newest.

    Parameters
    ----------
    project : Project
    run : str or None
    to_end : bool
        Whether it is to be ended: of several that run, none is the default.

    Raises
    ------
    OutputNotFoundError
    """
    runs = kept(project)
    if run is None:
        open_ones = [one for one in runs if one.code is None]
        found = open_ones if to_end and open_ones else (open_ones or runs)[:1]
    else:
        found = [one for one in runs if one.run.startswith(run)]
    if len(found) == 1:
        return found[0]
    if found:
        what = f"several runs begin with '{run}'" if run is not None else "several runs go on"
    elif run is None:
        what = "nothing was run there from another machine"
    else:
        what = f"there is no run '{run}'"
    known = ", ".join(one.run for one in (found or runs)[:6])
    raise OutputNotFoundError(what, hint=f"There are: {known}" if known else None)


def tidy(project: Project) -> None:
    """Remove what nobody needs any more; of the trees, all but those that the next one may use."""
    for folder in list(removable(project, time.time())):
        shutil.rmtree(folder, ignore_errors=True)
    for one in [one for one in kept(project) if one.tree][EARLIER:]:
        if one.code is not None:
            shutil.rmtree(one.folder / TREE, ignore_errors=True)


def removable(project: Project, now: float) -> Iterator[Path]:
    """The folders of what has ended and is old, and of what another machine never finished."""
    newest = {one.folder for one in kept(project)[:MOST]}
    for folder in (project.state / RUNS).glob("*"):
        with suppress(OSError):
            one = _read(folder)
            if one is not None and one.code is None:
                continue
            age = now - max(path.stat().st_mtime for path in (folder, *folder.glob("*")))
            if age > KEPT_S or (one is not None and folder not in newest):
                yield folder


# -- the process -----------------------------------------------------------------------------


def _main(folder: Path) -> None:
    process: subprocess.Popen[bytes] | None = None
    interrupted = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        if process is not None:
            process.send_signal(signal.SIGINT)

    # Before anybody can find this process. Also, the command would ignore what it ignores, as a
    # shell may have it.
    with handling({signal.SIGINT: interrupt, signal.SIGTERM: interrupt}):
        if not _first(folder):
            return
        process = _command(folder)
        if interrupted:
            process.send_signal(signal.SIGINT)
        code = process.wait()
    write_atomically(folder / EXIT, str(code if code >= 0 else 128 - code).encode(), private=True)


def _command(folder: Path) -> subprocess.Popen[bytes]:
    job = json.loads((folder / JOB).read_bytes())
    environment = {name: value for name, value in os.environ.items() if name != PROJECT_VARIABLE}
    environment["PYTHONUNBUFFERED"] = "1"
    if job["tree"]:
        environment[STORE_VARIABLE] = job["store"]
    own = os.getpid()
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "research_jobs.cli.main", *job["words"]],
        stdin=subprocess.DEVNULL,
        stdout=(folder / RESULT).open("wb") if "--json" in job["words"] else None,
        env=environment,
        preexec_fn=lambda: processes.die_with_parent(own),  # noqa: PLW1509 - no other thread runs
    )


def _first(folder: Path) -> bool:
    """Whether no other process runs this; from now on that is this one."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".") as file:
        file.write(f"{os.getpid()} {processes.start_of(os.getpid())}")
        file.flush()
        try:
            os.link(file.name, folder / RUNNING)
        except FileExistsError:
            return False
    return True


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
